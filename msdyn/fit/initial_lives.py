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
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int32, Real
from scipy.ndimage import (
    distance_transform_edt,
    maximum_filter,
    minimum_filter,
    uniform_filter,
)

from msdyn.fit.candidates import Candidates
from msdyn.fit.data import FitData
from msdyn.geometry import depth_in_camera, nearest_pixels, project, transform_points
from msdyn.motion import TrackedMotion
from msdyn.progress import Progress
from msdyn.scene import IGNORE, LiftedTracks

__all__ = [
    "ColourEvidence",
    "Comparison",
    "EvidenceRule",
    "Lives",
    "MovingRule",
    "compare",
    "estimate_lives",
    "life_spans",
]

# Log-likelihood ratios of what masks and depth maps say. Masks lack one pixel in twenty of an
# object, and a misplaced point lies on the object, not in front of it, about half the time. Errors
# have exponential tails: the ratio is proportional to the distance from the mask and in depth.
_ON_OBJECT = float(np.log(0.95 / 0.5))
_OFF_OBJECT = float(np.log(0.05 / 0.5))
# Error of the outline of a mask, as a share of the longer side of the image.
_OUTLINE = 0.01
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
# Fall of the sum of the evidence, after which a point has gone: odds of twenty to one.
_CHANGED = float(np.log(20))
# Points times frames that are compared at a time: some 50 MB.
_BLOCK = 1_500_000


class Lives(NamedTuple):
    """The lives of N points in F frames.

    Attributes:
        spans: begin and end, see `life_spans`.
        pixel: [N, F] index of the pixel, row by row, in the frames in which the point lives and is
            visible, its own among them; -1 in the others.
    """

    spans: Float[np.ndarray, "points 2"]
    pixel: Int32[np.ndarray, "points frames"]

    @classmethod
    def joined(cls, parts: list[Lives]) -> Lives:
        """Return the lives of several groups of points."""
        return cls(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def select(self, rows: Int[np.ndarray, " chosen"]) -> Lives:
        """Return the lives of some of the points."""
        return Lives(self.spans[rows], self.pixel[rows])


def estimate_lives(data: FitData, candidates: Candidates, rule: EvidenceRule) -> Lives:
    """Compare candidates with all fitted frames.

    Args:
        data: input data of the fit.
        candidates: N possible Gaussians.
        rule: what the frames say about them, `MovingRule` or another one.
    """
    count, frames = len(candidates.points), data.frames
    spans, pixel = np.zeros((count, 2)), np.full((count, len(frames)), -1, np.int32)
    size = max(1, _BLOCK // len(frames))
    blocks = [np.arange(a, min(a + size, count)) for a in range(0, count, size)]
    with Progress("life spans", len(blocks) * len(frames)) as progress:
        for rows in blocks:
            block = candidates.select(rows)
            evidence, seen_at = _evidence(data, block, rule, progress)
            own = (np.arange(len(rows)), block.source)
            spans[rows] = life_spans(evidence, block.source, frames)
            seen_at[own] = seen_at[own].clip(0)
            alive = (frames >= spans[rows, :1]) & (frames <= spans[rows, 1:])
            pixel[rows] = np.where(alive, seen_at, -1)
    return Lives(spans, pixel)


@dataclass(frozen=True)
class Comparison:
    """N points of which pixels are compared in a frame.

    Attributes:
        own: [N] the mask at the pixel is that of the point.
        outside: [N] distance to the mask of the point, as a share of the longer side of the image.
        behind: [N] what is seen there is in front of the point.
        in_front: [N] by how much of the tolerance the point is in front of what is seen there; 0
            where it is not, at least 1 otherwise.
        difference: [N] distance of the colour to that of the point's own frame, RGB in [0, 1].
    """

    own: Bool[np.ndarray, " points"]
    outside: Float[np.ndarray, " points"]
    behind: Bool[np.ndarray, " points"]
    in_front: Float[np.ndarray, " points"]
    difference: Float[np.ndarray, " points"]


class EvidenceRule(Protocol):
    """What a frame says about the places of points.

    Attributes:
        tolerance: difference of depth, as a fraction, up to which a point is at the surface.
        reach: by how many px a point may be misplaced: its colour is compared with the range of
            those about it, with an average if this is zero.
    """

    tolerance: float
    reach: int

    def __call__(self, compared: Comparison) -> Float[np.ndarray, " points"]:
        """Return the log-likelihood ratio of the right place; 0 where nothing is known."""
        ...


class MovingRule:
    """The rule for points on moving objects."""

    reach = 0

    def __init__(self, data: FitData, tracks: LiftedTracks, tracked: TrackedMotion) -> None:
        """Count the differences along tracks.

        Args:
            data: input data of the fit.
            tracks: lifted tracks in the fitted frames.
            tracked: the motion fitted to these tracks.
        """
        self.tolerance = _depth_tolerance(data, tracks, tracked)
        self.score_colours = colours_along_tracks(data, tracks)

    def __call__(self, compared: Comparison) -> Float[np.ndarray, " points"]:
        own, in_front = compared.own, compared.in_front
        at_surface = own & ~compared.behind & (in_front == 0)
        off = np.maximum(1 + compared.outside / _OUTLINE, in_front)
        value = np.where(own & (in_front == 0), _ON_OBJECT, _OFF_OBJECT * off)
        value += np.where(at_surface, self.score_colours(compared.difference), 0.0)
        # Hidden by something else, or by its own object: nothing is known.
        return np.where(compared.behind, 0.0, value)


@torch.no_grad()
def _evidence(
    data: FitData, candidates: Candidates, rule: EvidenceRule, progress: Progress
) -> tuple[Float32[np.ndarray, "points frames"], Int32[np.ndarray, "points frames"]]:
    """Return the log-likelihood ratio of the right place, and the pixel.

    The ratio is 0 where nothing is known, the pixel -1 where the point is not visible.
    """
    count, frames = len(candidates.points), data.frames
    colours = candidates.colours if rule.reach else _own_colours(data, candidates)
    evidence = np.zeros((count, len(frames)), np.float32)
    pixel = np.full((count, len(frames)), -1, np.int32)
    for number, frame in enumerate(frames):
        seen, compared = compare(data, candidates, colours, int(frame), rule)
        # Masked as unknown: nothing is known.
        evidence[seen.index, number] = np.where(seen.mask == IGNORE, 0.0, rule(compared))
        visible = compared.own & ~compared.behind
        pixel[seen.index[visible], number] = seen.pixel[visible]
        progress.update(1)
    return evidence, pixel


def compare(
    data: FitData,
    candidates: Candidates,
    colours: Float[np.ndarray, "points 3"],
    frame: int,
    rule: EvidenceRule,
) -> tuple[Seen, Comparison]:
    """Compare points with what is at their pixels in a frame."""
    tolerance = rule.tolerance
    seen = _seen(data, frame, candidates.positions(frame))
    known = seen.depth > 0
    labels = candidates.labels[seen.index]
    nearness = np.log(np.where(known, seen.depth, seen.z) / seen.z) / -np.log1p(-tolerance)
    return seen, Comparison(
        seen.mask == labels,
        _outside(data.mask.numpy(frame), labels, seen.pixel),
        known & (seen.z > seen.depth * (1 + tolerance)),
        np.where(nearness > 1, nearness, 0.0),
        _difference(data, frame, seen.pixel, colours[seen.index], rule.reach),
    )


def _own_colours(data: FitData, candidates: Candidates) -> Float[np.ndarray, "points 3"]:
    """Return the smoothed colour of each candidate in its own frame."""
    colours = candidates.colours.copy()
    sampled = candidates.sampled(data.frames)
    for number in np.unique(candidates.source):
        own, frame = np.flatnonzero(candidates.source == number), int(data.frames[number])
        seen = _seen(data, frame, sampled[own])
        colours[own[seen.index]] = _smooth(data, frame).reshape(-1, 3)[seen.pixel]
    return colours


def life_spans(
    evidence: Real[np.ndarray, "points frames"],
    source: Int[np.ndarray, " points"],
    frames: Int[np.ndarray, " frames"],
) -> Float[np.ndarray, "points 2"]:
    """Return the life span of each point: the frames around its own with the greatest evidence.

    Where the evidence says that a point has gone, its life ends, even if later frames agree again:
    in between, it would be seen where it is not. This is the test for a change of Page (1954,
    Continuous inspection schemes): from the own frame on, the sum of the evidence has fallen from
    its greatest value by the logarithm of the odds of a false alarm.

    Args:
        evidence: log-likelihood ratio of each frame.
        source: index of each point's own frame.
        frames: indices, in the clip, of the F frames.

    Returns:
        Begin and end, fractional frame indices half-way to the first frame beyond; infinite where
        the span reaches the first or last of the frames.
    """
    value = evidence + _LONGEVITY
    last = source + _until_change(value, source, 1)
    first = source - _until_change(value, source, -1)
    middle = (frames[1:] + frames[:-1]) / 2
    bounds = np.concatenate([[-np.inf], middle, [np.inf]])
    return np.column_stack([bounds[first], bounds[last + 1]])


def _difference(
    data: FitData,
    frame: int,
    pixel: Int[np.ndarray, " points"],
    colours: Float[np.ndarray, "points 3"],
    reach: int,
) -> Float[np.ndarray, " points"]:
    """Return the distance of colours from those at pixels, or from their range about them."""
    if not reach:
        return np.linalg.norm(_smooth(data, frame).reshape(-1, 3)[pixel] - colours, axis=1)
    image, size = data.rgb.numpy(frame), 2 * reach + 1
    least = np.asarray(minimum_filter(image, size, axes=(0, 1))).reshape(-1, 3)[pixel] / 255
    most = np.asarray(maximum_filter(image, size, axes=(0, 1))).reshape(-1, 3)[pixel] / 255
    return np.linalg.norm(colours - colours.clip(least, most), axis=1)


def _outside(
    mask: Int[np.ndarray, "height width"],
    labels: Int[np.ndarray, " points"],
    pixel: Int[np.ndarray, " points"],
) -> Float[np.ndarray, " points"]:
    """Return the distance of pixels to the masks of labels, as a share of the longer side."""
    result = np.zeros(len(labels))
    off = mask.reshape(-1)[pixel] != labels
    for label in np.unique(labels[off]):
        own, there = off & (labels == label), mask == label
        if there.any():
            distance = np.asarray(distance_transform_edt(~there)).reshape(-1)[pixel[own]]
            result[own] = distance / max(mask.shape)
        else:
            result[own] = 1.0
    return result


def _until_change(
    value: Real[np.ndarray, "points frames"], source: Int[np.ndarray, " points"], step: int
) -> Int[np.ndarray, " points"]:
    """Return how many frames points live beyond their own; forward (step 1), backward (step -1)."""
    count, number = value.shape
    total, best, length = np.zeros(count), np.zeros(count), np.zeros(count, int)
    going = np.arange(count)
    for distance in range(1, number):
        frame = source[going] + step * distance
        inside = (frame >= 0) & (frame < number)
        going, frame = going[inside], frame[inside]
        total[going] += value[going, frame]
        greater = going[total[going] > best[going]]
        best[greater], length[greater] = total[greater], distance
        going = going[total[going] >= best[going] - _CHANGED]
    return length


@dataclass(frozen=True)
class Seen:
    """Points inside the image of a frame, and what is at their pixels."""

    index: Int[np.ndarray, " inside"]
    pixel: Int[np.ndarray, " inside"]
    z: Float[np.ndarray, " inside"]
    mask: Int[np.ndarray, " inside"]
    depth: Float[np.ndarray, " inside"]


def _seen(data: FitData, frame: int, xyz: Float[np.ndarray, "points 3"]) -> Seen:
    height, width = data.mask.shape[1:]
    camera = transform_points(data.cameras.cam_from_world[frame], xyz)
    z = camera[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        xy = project(data.cameras.intrinsics[frame], camera)
    row, column, inside = nearest_pixels(xy, height, width)
    inside &= z > 0
    pixel = (row * width + column)[inside]
    mask = data.mask.numpy(frame).reshape(-1)[pixel].astype(int)
    depth = data.depth.numpy(frame).reshape(-1)[pixel]
    return Seen(np.flatnonzero(inside), pixel, z[inside], mask, depth)


def _smooth(data: FitData, frame: int) -> Float[np.ndarray, "height width 3"]:
    """Return the image of a frame, RGB in [0, 1], averaged over 3x3 pixels."""
    return uniform_filter(data.rgb.numpy(frame) / 255, 3, axes=(0, 1))


@torch.no_grad()
def _depth_tolerance(data: FitData, tracks: LiftedTracks, tracked: TrackedMotion) -> float:
    """Return by which fraction the depth of the moved tracks differs from their observed depth."""
    found = [np.zeros(0)]
    size = max(1, _BLOCK // max(1, len(tracks)))
    for first in range(0, len(data.frames), size):
        part = slice(first, first + size)
        frames = data.frames[part]
        moved = tracked.motion.positions(tracked.points, torch.from_numpy(frames).float())
        poses = data.cameras.cam_from_world[frames]
        observed = depth_in_camera(poses, tracks.xyz[:, part].swapaxes(0, 1))
        expected = depth_in_camera(poses, moved.double().numpy())
        ratio = expected / np.maximum(observed, 1e-9)
        found.append(np.abs(ratio - 1)[tracks.visible[:, part].T])
    differences = np.concatenate(found)
    if not len(differences):
        return _DEPTH_TOLERANCE
    return max(_DEPTH_TOLERANCE, float(np.quantile(differences, _DEPTH_QUANTILE)))


class ColourEvidence:
    """The log-likelihood ratio of a colour difference: same point against any other one.

    Args:
        same: differences between observations of one point.
        other: differences between observations of different points.
    """

    def __init__(
        self, same: Float[np.ndarray, " same"], other: Float[np.ndarray, " other"]
    ) -> None:
        self.ratio = np.zeros(len(_BINS) - 1)
        if min(len(same), len(other)) < _FEWEST_PAIRS:
            return
        counts = [np.histogram(difference, _BINS)[0] for difference in (same, other)]
        shares = [np.log((n + 1) / (n.sum() + len(n))) for n in counts]
        self.ratio = (shares[0] - shares[1]).clip(*_COLOUR_RANGE)

    def __call__(self, difference: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        number = np.searchsorted(_BINS, difference, side="right") - 1
        return self.ratio[number.clip(0, len(self.ratio) - 1)]


def colours_along_tracks(data: FitData, tracks: LiftedTracks) -> ColourEvidence:
    """Count pairs of observations of one track, and of two tracks of one object."""
    height, width = data.mask.shape[1:]
    index, frame = np.nonzero(tracks.visible)
    colours = np.zeros((len(index), 3), np.float32)
    order = np.argsort(frame, kind="stable")
    ends = np.cumsum(np.bincount(frame, minlength=len(data.frames)))
    for number, own in enumerate(np.split(order, ends[:-1])):
        row, column, _ = nearest_pixels(tracks.xy[index[own], number], height, width)
        image = _smooth(data, int(data.frames[number]))
        colours[own] = image[row.clip(0, height - 1), column.clip(0, width - 1)]
    if len(index) < 2:
        return ColourEvidence(np.zeros(0), np.zeros(0))
    rng = np.random.default_rng(0)
    first = rng.integers(len(index), size=_PAIRS)
    # A second observation: of the same track, at a random place in its run of observations.
    start = np.searchsorted(index, np.arange(len(tracks.visible) + 1))
    lengths = np.diff(start)[index[first]]
    same = start[index[first]] + (rng.random(_PAIRS) * lengths).astype(int)
    other = rng.integers(len(index), size=_PAIRS)
    label = tracks.object[index]

    def differences(
        second: Int[np.ndarray, " pairs"], kept: Bool[np.ndarray, " pairs"]
    ) -> Float[np.ndarray, " _"]:
        return np.linalg.norm(colours[first[kept]] - colours[second[kept]], axis=1)

    return ColourEvidence(
        differences(same, same != first), differences(other, label[first] == label[other])
    )
