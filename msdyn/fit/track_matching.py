"""Positions of tracks, refined on the images.

A tracker finds a point in every frame on its own, with an error of half a pixel or more that
changes from frame to frame; cameras, depth and motion are estimated from these positions. Matching
the small windows around a track in pairs of frames (Lucas and Kanade 1981) gives displacements that
are several times as accurate, across edges at least. The positions that agree best with both, the
displacements and the tracker, follow from linear least squares. How much each counts is measured:
displacements from the texture of the window and from whether they add up over several frames, the
tracker from how it differs from them. A tracker that is as accurate is therefore left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.linalg import solveh_banded

from msdyn.progress import Progress
from msdyn.scene import Tracks

__all__ = ["FrameImage", "match_tracks"]

# Frames between the pairs that are matched: powers of two, so that they add up.
_LAGS = (1, 2, 4, 8)
# Size of the windows, as a fraction of the image's longer side, and at least this many px.
_WINDOW_SHARE, _LEAST_WINDOW = 0.02, 7
# A match must lead back to within this many px, and lie this close to the tracker's position.
_RETURN, _NEAR = 0.5, 4.0
# Error of a match that texture does not reduce, px: surfaces turn, windows are flat.
_OF_TURNING = 0.1
# Least standard deviation of the tracker, px.
_LEAST_NOISE = 0.02
# Errors that halve the weight of an observation, in standard deviations; reweightings.
_DOUBTFUL, _ROUNDS = 3.0, 5
# Observations that are matched at a time: some 300 MB.
_BLOCK = 400_000
# Fewer matches do not measure noise.
_FEWEST = 100
# The second time windows are cut where the first time has found the points: on a surface that turns
# every point moves otherwise, and a point half a pixel beside the track is another one.
_PASSES = 2
# Median of the squared length of a standard normal vector in 2D, per coordinate.
_MEDIAN_SQUARE = 0.693


class FrameImage(NamedTuple):
    """What the windows are cut from: an image, and the objects on it."""

    rgb: UInt8[np.ndarray, "height width 3"]
    mask: UInt8[np.ndarray, "height width"]


@dataclass(frozen=True)
class _Pairs:
    """Displacements of M pairs of observations at one lag.

    Attributes:
        first, second: indices of the observations.
        displacement: px.
        spread: covariances for noise of one grey level, px^2.
    """

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    displacement: Float[np.ndarray, "pairs 2"]
    spread: Float[np.ndarray, "pairs 2 2"]

    @classmethod
    def joined(cls, parts: list[_Pairs]) -> _Pairs:
        """Return all pairs of several frames."""
        none = cls(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)), np.zeros((0, 2, 2)))
        parts = [none, *parts]
        return cls(
            np.concatenate([part.first for part in parts]),
            np.concatenate([part.second for part in parts]),
            np.concatenate([part.displacement for part in parts]),
            np.concatenate([part.spread for part in parts]),
        )


def match_tracks(
    tracks: Tracks,
    image_of: Callable[[int], FrameImage],
    frames: Int[np.ndarray, " frames"],
    scale: Float[np.ndarray, " 2"],
) -> tuple[Tracks, float]:
    """Return tracks with refined positions in some frames.

    Args:
        tracks: of the whole clip.
        image_of: returns the image of a frame.
        frames: indices of the frames to use, increasing; the others are not looked at.
        scale: pixels of the images per pixel of the tracks, x and y.

    Returns:
        The tracks, and the measured standard deviation of a coordinate of the given ones, px; 0 if
        there were too few matches to measure it, and nothing was changed.
    """
    given = tracks.observations()
    place = np.full(tracks.num_frames, -1)
    place[frames] = np.arange(len(frames))
    rows = np.flatnonzero(place[given.frame] >= 0)
    if not len(rows):
        return tracks, 0.0
    height, width = image_of(int(frames[0])).mask.shape
    last = np.nextafter(np.array([width, height], np.float32), np.float32(0))
    xy, found = given.xy.copy(), []
    # Whole tracks, about equally many observations at a time.
    count = -(-len(rows) // _BLOCK)
    starts = np.searchsorted(given.track[rows], np.arange(len(tracks)))
    middle = np.searchsorted(starts, np.arange(1, count) * len(rows) / count) - 1
    for block in np.split(rows, starts[middle]):
        position = given.xy[block].astype(np.float64) * scale
        moved, noise = _refined(
            given.track[block], place[given.frame[block]], position, image_of, frames
        )
        if noise:
            xy[block] = moved.clip(0, last) / scale
            found.append(noise)
    if not found:
        return tracks, 0.0
    given = given._replace(xy=xy)
    refined = Tracks.from_observations(tracks.num_frames, given, tracks.object, tracks.query_frame)
    return refined, float(np.median(found))


def _refined(
    track: Int[np.ndarray, " observations"],
    place: Int[np.ndarray, " observations"],
    position: Float[np.ndarray, "observations 2"],
    image_of: Callable[[int], FrameImage],
    frames: Int[np.ndarray, " frames"],
) -> tuple[Float[np.ndarray, "observations 2"], float]:
    """Return refined positions of observations, px, and the noise of the given ones."""
    moved, tracker = position, 0.0
    for _ in range(_PASSES):
        pairs = _match(track, place, moved, position, image_of, frames)
        precisions, tracker = _measure(pairs, position)
        if not tracker:
            return position, 0.0
        moved = _solve(_Pairs.joined(pairs), precisions, position, tracker)
    return moved, tracker


def _match(
    track: Int[np.ndarray, " observations"],
    place: Int[np.ndarray, " observations"],
    position: Float[np.ndarray, "observations 2"],
    given: Float[np.ndarray, "observations 2"],
    image_of: Callable[[int], FrameImage],
    frames: Int[np.ndarray, " frames"],
) -> list[_Pairs]:
    """Return the displacements at every lag of the observations, ordered by track and frame.

    Windows are cut at `position`; matches must be near the tracker's positions, `given`.
    """
    found: list[list[_Pairs]] = [[] for _ in _LAGS]
    windows: dict[int, _Windows] = {}
    with Progress("positions of tracks", len(frames)) as progress:
        for number, frame in enumerate(frames):
            own = np.flatnonzero(place == number)
            windows[number] = _Windows(
                image_of(int(frame)), own, track[own], position[own], given[own]
            )
            windows.pop(number - _LAGS[-1] - 1, None)
            for results, lag in zip(found, _LAGS, strict=True):
                if lag <= number:
                    results.append(windows[number - lag].followed(windows[number]))
            progress.update(1)
    return [_Pairs.joined(results) for results in found]


class _Windows:
    """The windows around the observations of a frame."""

    def __init__(
        self,
        image: FrameImage,
        index: Int[np.ndarray, " own"],
        track: Int[np.ndarray, " own"],
        position: Float[np.ndarray, "own 2"],
        given: Float[np.ndarray, "own 2"],
    ) -> None:
        """Take those without a border of a mask, except for their outermost pixels."""
        import cv2

        self.grey = cv2.cvtColor(image.rgb, cv2.COLOR_RGB2GRAY)
        share = round(max(self.grey.shape) * _WINDOW_SHARE / 2)
        self.size = max(_LEAST_WINDOW, 2 * share + 1)
        inner = np.ones((self.size - 2, self.size - 2), np.uint8)
        uniform = cv2.erode(image.mask, inner) == cv2.dilate(image.mask, inner)
        column, row = (position.astype(int).clip(0, np.array(uniform.shape[::-1]) - 1)).T
        kept = uniform[row, column]
        self.index, self.track = index[kept], track[kept]
        self.position, self.given = position[kept], given[kept]
        self.pixel = row[kept], column[kept]

    def _spread(self) -> Float[np.ndarray, "own 2 2"]:
        """Return the covariance of a match at each window for noise of one grey level, px^2."""
        import cv2

        grey = self.grey.astype(np.float32)
        by_x, by_y = (cv2.Scharr(grey, cv2.CV_32F, *order) / 32 for order in ((1, 0), (0, 1)))
        size = (self.size, self.size)
        xx, xy, yy = (
            cv2.boxFilter(product, cv2.CV_64F, size, normalize=False)[self.pixel]
            for product in (by_x * by_x, by_x * by_y, by_y * by_y)
        )
        information = np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2)
        return np.linalg.inv(information + 1e-3 * np.eye(2))

    def followed(self, later: _Windows) -> _Pairs:
        """Return the displacements of the windows of the same tracks in a later frame."""
        _, a, b = np.intersect1d(self.track, later.track, True, return_indices=True)
        if not len(a):
            return _Pairs.joined([])
        start, expected = self.position[a], later.position[b]
        moved, there = _lucas_kanade(self.grey, later.grey, start, expected, self.size)
        back, again = _lucas_kanade(later.grey, self.grey, moved, start, self.size)
        good = there & again & (np.linalg.norm(back - start, axis=1) < _RETURN)
        good &= np.linalg.norm(moved - later.given[b], axis=1) < _NEAR
        return _Pairs(
            self.index[a][good],
            later.index[b][good],
            (moved - start)[good],
            self._spread()[a][good],
        )


def _lucas_kanade(
    first: UInt8[np.ndarray, "height width"],
    second: UInt8[np.ndarray, "height width"],
    start: Float[np.ndarray, "points 2"],
    guess: Float[np.ndarray, "points 2"],
    size: int,
) -> tuple[Float[np.ndarray, "points 2"], Bool[np.ndarray, " points"]]:
    """Return where windows of an image are in another one, px, and whether they were found."""
    import cv2

    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        first,
        second,
        np.ascontiguousarray(start[:, None] - 0.5, np.float32),
        np.ascontiguousarray(guess[:, None] - 0.5, np.float32),
        winSize=(size, size),
        maxLevel=0,
        criteria=(cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 20, 0.005),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return moved[:, 0].astype(np.float64) + 0.5, status[:, 0] > 0


def _measure(
    pairs: list[_Pairs], position: Float[np.ndarray, "observations 2"]
) -> tuple[Float[np.ndarray, "pairs 2 2"], float]:
    """Return the precisions of all displacements, and the noise of the tracker, px.

    The noise of the images is that by which displacements do not add up. What a displacement over
    more frames differs more from the tracker is the error of windows on surfaces that turn. The
    noise of the tracker is 0 if there are too few matches to measure it.
    """
    noise = _image_noise(pairs, len(position))
    if not noise:
        return np.zeros((0, 2, 2)), 0.0
    covariances = [scale * part.spread for scale, part in zip(noise, pairs, strict=True)]
    found = np.full(len(pairs), np.nan)
    for lag, (part, covariance) in enumerate(zip(pairs, covariances, strict=True)):
        difference = part.displacement - position[part.second] + position[part.first]
        squares = (difference**2).sum(1) / (2 * _MEDIAN_SQUARE) - _trace(covariance) / 2
        if len(squares) >= _FEWEST:
            found[lag] = float(np.median(squares))
    # Twice the variance of the tracker is in all of them.
    tracker = max((np.nanmin(found) - _OF_TURNING**2) / 2, _LEAST_NOISE**2)
    turning = np.nan_to_num(found - 2 * tracker).clip(_OF_TURNING**2)
    covariances = [
        covariance + of_windows * np.eye(2)
        for covariance, of_windows in zip(covariances, turning, strict=True)
    ]
    return np.linalg.inv(np.concatenate(covariances)), float(np.sqrt(tracker))


def _image_noise(pairs: list[_Pairs], count: int) -> list[float]:
    """Return the variance of the images at each lag, grey levels; none if there are few matches."""
    found: list[float] = []
    for shorter, longer in zip(pairs[:-1], pairs[1:], strict=True):
        # Two displacements, one after the other, against the one over both.
        onward = _starting_at(shorter, shorter.second, count)
        whole = _starting_at(longer, shorter.first, count)
        both = (onward >= 0) & (whole >= 0)
        both[both] &= longer.second[whole[both]] == shorter.second[onward[both]]
        if both.sum() < _FEWEST:
            break
        onward, whole = onward[both], whole[both]
        error = shorter.displacement[both] + shorter.displacement[onward]
        error -= longer.displacement[whole]
        squares = (error**2).sum(1) / (2 * _MEDIAN_SQUARE)
        of_shorter = (_trace(shorter.spread[both]) + _trace(shorter.spread[onward])) / 2
        of_longer = _trace(longer.spread[whole]) / 2
        if not found:
            found.append(float(np.median(squares / (of_shorter + of_longer))))
        left = (squares - found[-1] * of_shorter) / of_longer
        found.append(max(float(np.median(left)), found[-1]))
    return found + found[-1:] * (len(pairs) - len(found))


def _trace(matrices: Float[np.ndarray, "pairs 2 2"]) -> Float[np.ndarray, " pairs"]:
    return np.trace(matrices, axis1=1, axis2=2)


def _starting_at(
    pairs: _Pairs, wanted: Int[np.ndarray, " wanted"], count: int
) -> Int[np.ndarray, " wanted"]:
    """Return the index of the pair that starts at each wanted observation; -1 for none."""
    of_first = np.full(count, -1)
    of_first[pairs.first] = np.arange(len(pairs.first))
    return of_first[wanted]


def _solve(
    pairs: _Pairs,
    precisions: Float[np.ndarray, "pairs 2 2"],
    position: Float[np.ndarray, "observations 2"],
    tracker: float,
) -> Float[np.ndarray, "observations 2"]:
    """Return the most probable positions; observations of a track follow one another."""
    first, second = pairs.first, pairs.second
    offset = second - first
    refined = position
    for _ in range(_ROUNDS):
        error = refined[second] - refined[first] - pairs.displacement
        squares = np.einsum("ni,nij,nj->n", error, precisions, error)
        weights = precisions / (1 + squares / _DOUBTFUL**2)[:, None, None]
        squares = ((refined - position) ** 2).sum(1) / tracker**2
        own = 1 / (1 + squares / _DOUBTFUL**2) / tracker**2
        # Element (row, column) of the matrix is in band[row - column, column]; x and y alternate.
        size = 2 * len(position)
        band = np.zeros((2 * int(offset.max(initial=0)) + 2, size))
        band[0] = np.repeat(own, 2)
        flat = band.reshape(-1)
        for a, b in ((0, 0), (1, 0), (1, 1)):
            for ends in (first, second):
                np.add.at(flat, (a - b) * size + 2 * ends + b, weights[:, a, b])
        for a in range(2):
            for b in range(2):
                place = (2 * offset + a - b) * size + 2 * first + b
                np.add.at(flat, place, -weights[:, a, b])
        pull = np.einsum("nij,nj->ni", weights, pairs.displacement)
        right = own[:, None] * position
        np.add.at(right, first, -pull)
        np.add.at(right, second, pull)
        solution = solveh_banded(band, right.reshape(-1), lower=True, check_finite=False)
        refined = solution.reshape(-1, 2)
    return refined
