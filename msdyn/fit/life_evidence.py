"""What a frame says about the place of a point: is it on its object, at its depth, of its colour?

The evidence is a log-likelihood ratio, correct place against any place on the object. The colours'
part is measured on the clip: differences of colour along the tracks against those between different
points of the object. A uniform object gives none, and its Gaussians live long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Integer
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
from msdyn.scene import LiftedTracks

__all__ = [
    "BLOCK",
    "ColourEvidence",
    "ColourRange",
    "Comparison",
    "EvidenceRule",
    "MovingRule",
    "compare",
]

# Log-likelihood ratios of what masks and depth maps say. Masks lack one pixel in twenty of an
# object, and a misplaced point lies on the object, not in front of it, about half the time. Errors
# have exponential tails: beyond what is usual, the ratio is proportional to the distance.
_ON_OBJECT = float(np.log(0.95 / 0.5))
_OFF_OBJECT = float(np.log(0.05 / 0.5))
# Most that the outline of a mask is off, as a share of the longer side of the image.
_OUTLINE = 0.02
# Cosine below which a surface is hidden behind its own object, or nearly so: the normals of noisy
# depth maps are drawn towards the camera.
_GRAZING = 0.2
# Range of the ratios of colour.
_COLOUR_RANGE = (-2.0, 1.0)
# Minimum tolerance of depth, as a fraction, and the quantile of the tracks' differences that it is.
_DEPTH_TOLERANCE, _DEPTH_QUANTILE = 0.02, 0.9
# Bounds of the bins of colour differences, and pairs of observations from which they are counted.
_BINS = np.array([0.0, 0.02, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5, 1.8])
_PAIRS = 20_000
_FEWEST_PAIRS = 200
# Points times frames that are compared at a time: some 50 MB.
BLOCK = 1_500_000


@dataclass(frozen=True)
class Comparison:
    """N points of which pixels are compared in a frame.

    Attributes:
        own: [N] the mask at the pixel is that of the point.
        outside: [N] distance to the mask of the point, as a share of the longer side of the image.
        behind: [N] the point lies behind the surface that is seen at its pixel.
        in_front: [N] distance of the point in front of that surface, in tolerances; 0 where it is
            less than one, as at the surface or behind it.
        in_front_of_all: [N] the same, of all surfaces at most a pixel away.
        cosine: [N] between the normal of the point's surface and the direction of the camera.
        difference: [N] distance of the colours to those of the point's own frame, RGB in [0, 1].
    """

    own: Bool[np.ndarray, " points"]
    outside: Float[np.ndarray, " points"]
    behind: Bool[np.ndarray, " points"]
    in_front: Float[np.ndarray, " points"]
    in_front_of_all: Float[np.ndarray, " points"]
    cosine: Float[np.ndarray, " points"]
    difference: Float[np.ndarray, " points"]


class ColourRange(NamedTuple):
    """The range of colours about N pixels, RGB in [0, 1].

    It is that of the pixels at most `reach` px away: of one point seen in two frames, a peak of the
    texture, or an edge, then differs by nothing, wherever the grids of pixels lie. With a reach of
    zero it is an average.
    """

    least: Float[np.ndarray, "points 3"]
    most: Float[np.ndarray, "points 3"]

    @classmethod
    def at(
        cls, data: FitData, frame: int, pixel: Int[np.ndarray, " points"], reach: int
    ) -> ColourRange:
        """Return the ranges about pixels, numbered row by row, of a frame of the clip."""
        if not reach:
            mean = smoothed(data, frame).reshape(-1, 3)[pixel]
            return cls(mean, mean)
        image, size = data.rgb.numpy(frame), 2 * reach + 1
        least, most = (
            np.asarray(extremes(image, size, axes=(0, 1))).reshape(-1, 3)[pixel] / 255
            for extremes in (minimum_filter, maximum_filter)
        )
        return cls(least, most)

    @classmethod
    def of_own_frames(
        cls, data: FitData, candidates: Candidates, frames: Int[np.ndarray, " frames"], reach: int
    ) -> ColourRange:
        """Return the range of each candidate in the frame, of `frames`, in which it was sampled."""
        least, most = candidates.colours.copy(), candidates.colours.copy()
        sampled = candidates.sampled(frames)
        for number in np.unique(candidates.source):
            own, frame = np.flatnonzero(candidates.source == number), int(frames[number])
            seen = look_at(data, frame, sampled[own])
            least[own[seen.index]], most[own[seen.index]] = cls.at(data, frame, seen.pixel, reach)
        return cls(least, most)

    def select(self, rows: Int[np.ndarray, " chosen"]) -> ColourRange:
        """Return the ranges of some of the points, in any order."""
        return ColourRange(self.least[rows], self.most[rows])

    def distance(self, other: ColourRange) -> Float[np.ndarray, " points"]:
        """Return the distance between two ranges of each point, zero if they overlap."""
        apart = np.maximum(self.least - other.most, other.least - self.most)
        return np.linalg.norm(apart.clip(0), axis=1)


@runtime_checkable
class EvidenceRule(Protocol):
    """What a frame says about the places of points.

    Attributes:
        tolerance: difference of depth, as a fraction, up to which a point is at the surface.
        reach: by how many px a point may be misplaced; see `ColourRange`.
        patch: number of points about each that decide together, see `estimate_lives`.
    """

    tolerance: float
    reach: int
    patch: int

    def __call__(self, compared: Comparison) -> Float[np.ndarray, " points"]:
        """Return the log-likelihood ratio of the right place; 0 where nothing is known."""
        ...

    def in_doubt(self, compared: Comparison) -> Float[np.ndarray, " points"]:
        """Return the ratio if everything that may be an error of the input says nothing.

        Asked for only where points decide together.
        """
        ...


class MovingRule:
    """The rule for points on moving objects."""

    reach = 0
    patch = 24

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
        off = np.maximum(np.maximum(compared.outside / _OUTLINE, in_front / 2), 1.0)
        value = np.where(own & (in_front == 0), _ON_OBJECT, _OFF_OBJECT * off)
        value += np.where(at_surface, self.score_colours(compared.difference), 0.0)
        # Hidden by something else, or by its own object: nothing is known.
        return np.where(compared.behind, 0.0, value)

    def in_doubt(self, compared: Comparison) -> Float[np.ndarray, " points"]:
        """Return the ratio if what may be an error of masks, depth or shape says nothing.

        An outline that is wrong is so in many frames, which would add up to certainty. As far from
        it as it may be wrong, only colours say what is there.
        """
        own, in_front = compared.own, compared.in_front_of_all
        outside = compared.outside / _OUTLINE
        possible = (in_front == 0) & (outside <= 1)
        off = np.maximum(np.maximum(outside, in_front / 2), 1.0)
        value = np.where(possible, np.where(own, _ON_OBJECT, 0.0), _OFF_OBJECT * off)
        value += np.where(possible, self.score_colours(compared.difference), 0.0)
        return np.where(compared.behind | (compared.cosine < _GRAZING), 0.0, value)


def compare(
    data: FitData,
    candidates: Candidates,
    colours: ColourRange,
    frame: int,
    rule: EvidenceRule,
) -> tuple[Seen, Comparison]:
    """Compare points with what is at their pixels in a frame."""
    tolerance = rule.tolerance
    seen = look_at(data, frame, candidates.positions(frame))
    known = seen.depth > 0
    labels = candidates.labels[seen.index]
    nearest = _nearest_depth(data.depth.numpy(frame)).reshape(-1)[seen.pixel]

    def in_front(depth: Float[np.ndarray, " inside"]) -> Float[np.ndarray, " inside"]:
        distance = np.log(np.where(depth > 0, depth, seen.z) / seen.z) / -np.log1p(-tolerance)
        return np.where(distance > 1, distance, 0.0)

    return seen, Comparison(
        seen.mask == labels,
        _outside(data.mask.numpy(frame), labels, seen.pixel),
        known & (seen.z > seen.depth * (1 + tolerance)),
        in_front(seen.depth),
        in_front(nearest),
        candidates.cosines(frame, data.cameras.centres[frame])[seen.index],
        colours.select(seen.index).distance(ColourRange.at(data, frame, seen.pixel, rule.reach)),
    )


def _nearest_depth(
    depth: Float32[np.ndarray, "height width"],
) -> Float32[np.ndarray, "height width"]:
    """Return the least known depth among 3x3 pixels; 0 where none is known.

    Depth of single pixels is noisy, and beside an edge a point lies over the other side of it.
    """
    known = np.where(depth > 0, depth, np.inf)
    least = np.asarray(minimum_filter(known, 3))
    return np.where(np.isfinite(least), least, 0).astype(np.float32)


def _outside(
    mask: Integer[np.ndarray, "height width"],
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


@dataclass(frozen=True)
class Seen:
    """Points inside the image of a frame, and what is at their pixels."""

    index: Int[np.ndarray, " inside"]
    pixel: Int[np.ndarray, " inside"]
    z: Float[np.ndarray, " inside"]
    mask: Int[np.ndarray, " inside"]
    depth: Float[np.ndarray, " inside"]


def look_at(data: FitData, frame: int, xyz: Float[np.ndarray, "points 3"]) -> Seen:
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


def smoothed(data: FitData, frame: int) -> Float[np.ndarray, "height width 3"]:
    """Return the image of a frame, RGB in [0, 1], averaged over 3x3 pixels."""
    return uniform_filter(data.rgb.numpy(frame) / 255, 3, axes=(0, 1))


@torch.no_grad()
def _depth_tolerance(data: FitData, tracks: LiftedTracks, tracked: TrackedMotion) -> float:
    """Return by which fraction the depth of the moved tracks differs from their observed depth."""
    found = [np.zeros(0)]
    size = max(1, BLOCK // max(1, len(tracks)))
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
        image = smoothed(data, int(data.frames[number]))
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
