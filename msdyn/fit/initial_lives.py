"""Life spans of the first moving Gaussians: where their motion is known, and where it is not.

A Gaussian is sampled at a pixel of one frame and carried to the others by the motion of the tracks
nearest to it. Where these are short or wrong, it arrives at the wrong place, and fitted there it
blurs what other frames saw. So every Gaussian is compared with all frames: it lives over the frames
around its own for which the evidence says that it is where it should be, and other Gaussians,
sampled in other frames, take its place.

The evidence of a frame is a log-likelihood ratio, correct place against any place on the object.
The colours' part is measured on the clip: differences of colour along the tracks against those
between different points of the object. A uniform object gives none, and its Gaussians live long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Real
from scipy.ndimage import uniform_filter

from msdyn.fit.data import FitData
from msdyn.geometry import depth_in_camera, nearest_pixels, project, transform_points
from msdyn.motion import Motion, TrackedMotion
from msdyn.progress import track
from msdyn.scene import IGNORE, LiftedTracks

__all__ = ["Candidates", "Observations", "choose_by_coverage", "evidence_of_place", "life_spans"]

# Log-likelihood ratios of what masks and depth maps say. Masks lack one pixel in twenty of an
# object, and a misplaced point lies on the object about half the time.
_ON_OBJECT = float(np.log(0.95 / 0.5))
_OFF_OBJECT = float(np.log(0.05 / 0.5))
_IN_FRONT = float(np.log(0.2 / 0.5))
# Range of the ratios of colour.
_COLOUR_RANGE = (-2.0, 1.0)
# Minimum tolerance of depth, as a fraction, and the quantile of the tracks' differences that it is.
_DEPTH_TOLERANCE, _DEPTH_QUANTILE = 0.02, 0.9
# Bounds of the bins of colour differences, and pairs of observations from which they are counted.
_BINS = np.array([0.0, 0.02, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5, 1.8])
_PAIRS = 20_000
_FEWEST_PAIRS = 200
# Added to the evidence of every frame: long lives are preferred.
_LONGEVITY = 0.3
# Most points chosen, as a multiple of the number that would be chosen if all lived always.
_MOST = 3


@dataclass(frozen=True)
class Candidates:
    """Possible Gaussians on moving objects.

    Attributes:
        points: [N, 3] canonical positions, world of the fit.
        colours: [N, 3] RGB in [0, 1].
        labels: [N] mask index of the object.
        source: [N] index, into the fitted frames, of the frame in which each was sampled.
        footprints: [N] size of a pixel at its depth, world of the fit.
        motion: of the candidates.
    """

    points: Float[np.ndarray, "points 3"]
    colours: Float[np.ndarray, "points 3"]
    labels: Int[np.ndarray, " points"]
    source: Int[np.ndarray, " points"]
    footprints: Float[np.ndarray, " points"]
    motion: Motion


@dataclass(frozen=True)
class Observations:
    """What each of F frames says about N points.

    Attributes:
        evidence: [N, F] log-likelihood ratio of the right place, 0 where nothing is known.
        pixel: [N, F] index of the pixel, row by row; -1 where the point is not visible.
    """

    evidence: Float32[np.ndarray, "points frames"]
    pixel: Int[np.ndarray, "points frames"]


@torch.no_grad()
def evidence_of_place(
    data: FitData, candidates: Candidates, tracks: LiftedTracks, tracked: TrackedMotion
) -> Observations:
    """Compare candidates with all fitted frames.

    Args:
        data: input data of the fit.
        candidates: N possible Gaussians.
        tracks: lifted tracks in the fitted frames.
        tracked: the motion fitted to these tracks.
    """
    tolerance = _depth_tolerance(data, tracks, tracked)
    score_colours = _ColourEvidence(data, tracks)
    count, frames = len(candidates.points), data.frames
    points = torch.from_numpy(candidates.points).float()
    colours = _own_colours(data, candidates)
    evidence = np.zeros((count, len(frames)), np.float32)
    pixel = np.full((count, len(frames)), -1, np.int64)
    for number, frame in enumerate(track(frames, "life spans")):
        xyz = candidates.motion.positions(points, torch.tensor([float(frame)]))[0]
        seen = _seen(data, int(frame), xyz.double().numpy())
        own = seen.mask == candidates.labels[seen.index]
        observed, known = seen.depth, seen.depth > 0
        behind = known & (seen.z > observed * (1 + tolerance))
        in_front = known & (seen.z < observed * (1 - tolerance))
        at_surface = own & ~behind & ~in_front
        colour = _smooth(data, int(frame)).reshape(-1, 3)[seen.pixel]
        difference = np.linalg.norm(colour - colours[seen.index], axis=1)
        value = np.where(own, _ON_OBJECT, _OFF_OBJECT)
        value += np.where(at_surface, score_colours(difference), 0.0)
        value += np.where(in_front, _IN_FRONT, 0.0)
        # Hidden by something else, by its own object, or masked as unknown: nothing is known.
        value[behind | (seen.mask == IGNORE)] = 0.0
        evidence[seen.index, number] = value
        visible = own & ~behind
        pixel[seen.index[visible], number] = seen.pixel[visible]
    return Observations(evidence, pixel)


def _own_colours(data: FitData, candidates: Candidates) -> Float[np.ndarray, "points 3"]:
    """Return the smoothed colour of each candidate in its own frame."""
    colours = candidates.colours.copy()
    for number in np.unique(candidates.source):
        own, frame = np.flatnonzero(candidates.source == number), int(data.frames[number])
        points = torch.from_numpy(candidates.points[own]).float()
        motion = candidates.motion.select(torch.from_numpy(own))
        xyz = motion.positions(points, torch.tensor([float(frame)]))[0].double().numpy()
        seen = _seen(data, frame, xyz)
        colours[own[seen.index]] = _smooth(data, frame).reshape(-1, 3)[seen.pixel]
    return colours


def life_spans(
    evidence: Real[np.ndarray, "points frames"],
    source: Int[np.ndarray, " points"],
    frames: Int[np.ndarray, " frames"],
) -> Float[np.ndarray, "points 2"]:
    """Return the life span of each point: the frames around its own with the greatest evidence.

    Args:
        evidence: log-likelihood ratio of each frame.
        source: index of each point's own frame.
        frames: indices, in the clip, of the F frames.

    Returns:
        Begin and end, fractional frame indices half-way to the first frame beyond; infinite where
        the span reaches the first or last of the frames.
    """
    count, number = evidence.shape
    rows = np.arange(count)
    value = evidence + _LONGEVITY
    value[rows, source] = 0.0
    total = np.concatenate([np.zeros((count, 1)), np.cumsum(value, axis=1)], axis=1)
    # The last frame has the greatest sum from the own frame on, the first the greatest up to it.
    after = np.arange(number) >= source[:, None]
    last = np.where(after, total[:, 1:], -np.inf).argmax(1)
    first = np.where(~after | (np.arange(number) == source[:, None]), total[:, :-1], np.inf)
    first = first.argmin(1)
    middle = (frames[1:] + frames[:-1]) / 2
    bounds = np.concatenate([[-np.inf], middle, [np.inf]])
    return np.column_stack([bounds[first], bounds[last + 1]])


def choose_by_coverage(
    observations: Observations,
    spans: Float[np.ndarray, "points 2"],
    source: Int[np.ndarray, " points"],
    frames: Int[np.ndarray, " frames"],
    width: int,
    count: int,
) -> tuple[Int[np.ndarray, " kept"], float]:
    """Choose points so that in every frame living ones cover the objects evenly.

    Points are taken in order of their length of life, each if no living one covers its pixel in its
    own frame. The spacing, at least a pixel, is found by bisection: as many points as allowed exist
    in a frame on average, but not more than three times as many in all.

    Args:
        observations: where the points are visible.
        spans: their life spans.
        source, frames: as for `life_spans`.
        width: of the images, px.
        count: maximum number of points that exist in a frame, on average.

    Returns:
        Indices of the points, and the spacing in px.
    """
    alive = (frames >= spans[:, :1]) & (frames <= spans[:, 1:])
    visible = alive & (observations.pixel >= 0)
    visible[np.arange(len(source)), source] = True
    # Ties, such as whole lives, are broken by the number of frames with evidence.
    order = np.lexsort((-visible.sum(1), -alive.sum(1)))
    low, high = 1.0, 64.0
    kept = _cover(observations.pixel, visible, source, order, width, low)
    life = alive.mean(1)

    def fits(chosen: Int[np.ndarray, " kept"]) -> bool:
        return float(life[chosen].sum()) <= count and len(chosen) <= _MOST * count

    if fits(kept):
        return kept, low
    for _ in range(7):
        middle = float(np.sqrt(low * high))
        tried = _cover(observations.pixel, visible, source, order, width, middle)
        if fits(tried):
            kept, high = tried, middle
        else:
            low = middle
    return kept, high


def _cover(
    pixel: Int[np.ndarray, "points frames"],
    visible: Bool[np.ndarray, "points frames"],
    source: Int[np.ndarray, " points"],
    order: Int[np.ndarray, " points"],
    width: int,
    spacing: float,
) -> Int[np.ndarray, " kept"]:
    """Return the points chosen at one spacing, in px."""
    row, column = np.divmod(np.maximum(pixel, 0), width)
    columns = int(width / spacing) + 1
    cell = (row / spacing).astype(np.int64) * columns + (column / spacing).astype(np.int64)
    covered = np.zeros((pixel.shape[1], int(cell.max(initial=0)) + 1), bool)
    number = np.arange(pixel.shape[1])
    kept = []
    for i in order:
        if not covered[source[i], cell[i, source[i]]]:
            kept.append(i)
            covered[number[visible[i]], cell[i, visible[i]]] = True
    return np.sort(np.array(kept, np.int64))


@dataclass(frozen=True)
class _Seen:
    """Points inside the image of a frame, and what is at their pixels."""

    index: Int[np.ndarray, " inside"]
    pixel: Int[np.ndarray, " inside"]
    z: Float[np.ndarray, " inside"]
    mask: Int[np.ndarray, " inside"]
    depth: Float[np.ndarray, " inside"]


def _seen(data: FitData, frame: int, xyz: Float[np.ndarray, "points 3"]) -> _Seen:
    height, width = data.mask.shape[1:]
    camera = transform_points(data.cameras.cam_from_world[frame], xyz)
    z = camera[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        xy = project(data.cameras.intrinsics[frame], camera)
    row, column, inside = nearest_pixels(xy, height, width)
    inside &= z > 0
    pixel = (row * width + column)[inside]
    at = torch.from_numpy(pixel)
    mask = data.mask[frame].reshape(-1).cpu()[at].numpy().astype(int)
    depth = data.depth[frame].reshape(-1).cpu()[at].numpy()
    return _Seen(np.flatnonzero(inside), pixel, z[inside], mask, depth)


def _smooth(data: FitData, frame: int) -> Float[np.ndarray, "height width 3"]:
    """Return the image of a frame, RGB in [0, 1], averaged over 3x3 pixels."""
    return uniform_filter(data.rgb[frame].cpu().numpy() / 255, 3, axes=(0, 1))


def _depth_tolerance(data: FitData, tracks: LiftedTracks, tracked: TrackedMotion) -> float:
    """Return by which fraction the depth of the moved tracks differs from their observed depth."""
    moved = tracked.motion.positions(tracked.points, torch.from_numpy(data.frames).float())
    poses = data.cameras.cam_from_world[data.frames]
    observed = depth_in_camera(poses, tracks.xyz.swapaxes(0, 1))
    expected = depth_in_camera(poses, moved.double().numpy())
    ratio = expected / np.maximum(observed, 1e-9)
    found = np.abs(ratio - 1)[tracks.visible.T]
    if not len(found):
        return _DEPTH_TOLERANCE
    return max(_DEPTH_TOLERANCE, float(np.quantile(found, _DEPTH_QUANTILE)))


class _ColourEvidence:
    """The log-likelihood ratio of a colour difference: same point against any other of the object.

    It is counted on pairs of observations of one track, and of two tracks of one object.
    """

    def __init__(self, data: FitData, tracks: LiftedTracks) -> None:
        height, width = data.mask.shape[1:]
        colours = np.zeros((*tracks.visible.shape, 3), np.float32)
        for number, frame in enumerate(data.frames):
            own = np.flatnonzero(tracks.visible[:, number])
            row, column, _ = nearest_pixels(tracks.xy[own, number], height, width)
            image = _smooth(data, int(frame))
            colours[own, number] = image[row.clip(0, height - 1), column.clip(0, width - 1)]
        rng = np.random.default_rng(0)
        index, frame = np.nonzero(tracks.visible)
        self.ratio = np.zeros(len(_BINS) - 1)
        if len(index) < 2:
            return
        first = rng.integers(len(index), size=_PAIRS)
        # A second observation: of the same track, at a random place in its run of observations.
        start = np.searchsorted(index, np.arange(len(tracks.visible) + 1))
        lengths = np.diff(start)[index[first]]
        same = start[index[first]] + (rng.random(_PAIRS) * lengths).astype(int)
        other = rng.integers(len(index), size=_PAIRS)
        label = tracks.object[index]
        same_pairs = self._histogram(colours, index, frame, first, same, same != first)
        other_pairs = self._histogram(
            colours, index, frame, first, other, label[first] == label[other]
        )
        if min(same_pairs.sum(), other_pairs.sum()) < _FEWEST_PAIRS:
            return
        ratio = np.log((same_pairs + 1) / (same_pairs.sum() + len(same_pairs)))
        ratio -= np.log((other_pairs + 1) / (other_pairs.sum() + len(other_pairs)))
        self.ratio = ratio.clip(*_COLOUR_RANGE)

    @staticmethod
    def _histogram(
        colours: Float[np.ndarray, "tracks frames 3"],
        index: Int[np.ndarray, " observations"],
        frame: Int[np.ndarray, " observations"],
        first: Int[np.ndarray, " pairs"],
        second: Int[np.ndarray, " pairs"],
        kept: Bool[np.ndarray, " pairs"],
    ) -> Int[np.ndarray, " bins"]:
        a, b = first[kept], second[kept]
        difference = colours[index[a], frame[a]] - colours[index[b], frame[b]]
        return np.histogram(np.linalg.norm(difference, axis=1), _BINS)[0]

    def __call__(self, difference: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        number = np.searchsorted(_BINS, difference, side="right") - 1
        return self.ratio[number.clip(0, len(self.ratio) - 1)]
