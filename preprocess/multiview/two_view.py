"""What pairs of frames say of a track's motion.

A point that lies still obeys the epipolar geometry of every pair of frames, and, where the scene
is far or flat or the camera turns, their homography. Both are fitted robustly to all tracks, so
the background must be the larger part. Statistics over a track's life are its temporal vote.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdyn.preprocess.progress import progress
from msdyn.scene import Tracks

__all__ = ["LifeQuantile", "TwoViewMotion", "group_quantile", "two_view_motion"]

GAPS = (2, 5, 10)
"""Frames between the two views of a pair: slow motion shows over the wide ones."""
SAMPLE = 4000
"""Tracks that a robust fit sees at most."""
HOMOGRAPHY_PX, EPIPOLAR_PX = 1.5, 1.0
MIN_PAIRS = 30
"""Fewer tracks than this do not make a fit."""
WAITING = 200_000
"""Values of tracks that are kept before those of ended tracks are settled: some megabytes."""


@dataclass(frozen=True)
class TwoViewMotion:
    """Homographies and epipolar geometry of pairs of frames, and the tracks scored by them.

    Attributes:
        tracks: the N tracks.
        planar: [N] px, the median over a track's life of its distance from the homography. NaN for
            a track seen in no pair.
        epipolar: [N] px, the 80th percentile over its life of its largest Sampson distance from the
            epipolar geometry.
        inliers: the median over the clip of the share of tracks within 3 px of the homography at
            a gap of 5 frames, low where parallax is strong; 1 for a clip too short to tell.
        homographies: [3, 3] by (frame, later frame).
    """

    tracks: Tracks
    planar: np.ndarray
    epipolar: np.ndarray
    inliers: float
    homographies: dict[tuple[int, int], np.ndarray]

    @property
    def scores(self) -> np.ndarray:
        """[N] px, the geometric mean of both distances. Neither would do alone: parallax is off the
        homography, and motion along the epipolar lines is on them."""
        return np.sqrt(self.planar * self.epipolar)

    def predict(self, frame: int, later: int, rows: np.ndarray) -> np.ndarray:
        """Return where [n, 2] px, in the later frame, the dominant plane has moved with the tracks
        in `rows`, all seen in `frame`; NaN for a pair without a homography."""
        homography = self.homographies.get((frame, later))
        if homography is None:
            return np.full((len(rows), 2), np.nan, np.float32)
        return _transfer(homography, self.tracks.look_up(rows, frame)[0])


def two_view_motion(tracks: Tracks) -> TwoViewMotion:
    """Fit a homography and an epipolar geometry to pairs of frames, and score the tracks."""
    rng = np.random.default_rng(0)
    homographies = {}
    planar, epipolar = LifeQuantile(tracks, 0.5), LifeQuantile(tracks, 0.8)
    inliers = []
    for frame in progress(range(tracks.num_frames - GAPS[0]), "masks"):
        worst = np.full(len(tracks), -1.0)
        for gap in GAPS:
            later = frame + gap
            if later >= tracks.num_frames:
                break
            rows, a, b = tracks.between(frame, later)
            if len(rows) < MIN_PAIRS:
                continue
            sample = rng.choice(len(rows), min(SAMPLE, len(rows)), replace=False)
            homography = _fit_homography(a[sample], b[sample])
            distance = None
            if homography is not None:
                homographies[frame, later] = homography
                distance = np.linalg.norm(_transfer(homography, a) - b, axis=1)
                planar.add(frame, rows, distance)
                if gap == GAPS[1]:
                    inliers.append((distance < 2 * HOMOGRAPHY_PX).mean())
            fundamental = _fit_fundamental(a[sample], b[sample])
            if fundamental is not None:
                distance = _sampson_distance(fundamental, a, b)
            if distance is not None:  # a camera that only turns may leave the homography alone
                worst[rows] = np.maximum(worst[rows], distance)
        rows = np.flatnonzero(worst >= 0)
        epipolar.add(frame, rows, worst[rows])
    share = float(np.median(inliers)) if inliers else 1.0
    return TwoViewMotion(tracks, planar.result(), epipolar.result(), share, homographies)


def group_quantile(group: np.ndarray, values: np.ndarray, q: float, count: int) -> np.ndarray:
    """Return the lower `q`-quantile [count] of the values [M] of each group, NaN for an empty one.

    Args:
        group: [M] int, 0 to count - 1.
        values: [M].
        q: 0 (smallest) to 1 (largest).
        count: number of groups.
    """
    order = np.lexsort((values, group))
    number = np.bincount(group, minlength=count)
    start = np.cumsum(number) - number
    quantile = np.full(count, np.nan)
    seen = np.flatnonzero(number)
    quantile[seen] = values[order[start[seen] + np.floor(q * (number[seen] - 1)).astype(int)]]
    return quantile


class LifeQuantile:
    """The lower `q`-quantile of each track's values, which come frame by frame.

    What tracks that have ended gave is settled now and then, so that memory does not grow with the
    clip: a long one has many millions of values.
    """

    def __init__(self, tracks: Tracks, q: float) -> None:
        self._stop, self._q = tracks.stop, q
        self._result = np.full(len(tracks), np.nan)
        self._waiting = [(np.zeros(0, np.int32), np.zeros(0))]
        self._count, self._room = 0, WAITING

    def add(self, frame: int, rows: np.ndarray, values: np.ndarray) -> None:
        """Take the values [n] of tracks `rows` [n] seen in a frame, or again; frames ascend."""
        self._waiting.append((rows.astype(np.int32), values))
        self._count += len(rows)
        if self._count > self._room:
            self._settle(self._stop <= frame)

    def result(self) -> np.ndarray:
        """Return the quantiles [N], NaN for a track without a value."""
        self._settle(np.ones(len(self._stop), bool))
        return self._result

    def _settle(self, ended: np.ndarray) -> None:
        rows, values = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        done = ended[rows]
        found = group_quantile(rows[done], values[done], self._q, len(ended))
        self._result[rows[done]] = found[rows[done]]
        self._waiting = [(rows[~done], values[~done])]
        self._count = len(self._waiting[0][0])
        self._room = WAITING + 2 * self._count  # where tracks live long, not after every frame


def _fit_homography(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    import cv2

    try:
        return cv2.findHomography(
            a, b, cv2.USAC_MAGSAC, HOMOGRAPHY_PX, maxIters=1000, confidence=0.999
        )[0]
    except cv2.error:
        return None  # as for fundamental matrices


def _fit_fundamental(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    import cv2

    try:
        fundamental = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, EPIPOLAR_PX, 0.999, 1000)[0]
    except cv2.error:
        # Where no sample gives a model, as happens when the camera only turns, OpenCV 5.0 fails an
        # assertion of its own instead of returning nothing.
        return None
    # Some solvers return several solutions, one above the other, for degenerate input.
    return fundamental if fundamental is not None and fundamental.shape == (3, 3) else None


def _transfer(homography: np.ndarray, xy: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.perspectiveTransform(xy[None], homography)[0] if len(xy) else xy


def _sampson_distance(fundamental: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the first-order distance [n] in px of the pairs (a, b) from the epipolar geometry."""
    a, b = (np.c_[points, np.ones(len(points))].astype(np.float64) for points in (a, b))
    line_b, line_a = a @ fundamental.T, b @ fundamental
    normal = (line_b[:, :2] ** 2).sum(1) + (line_a[:, :2] ** 2).sum(1)
    return np.abs((b * line_b).sum(1)) / np.sqrt(np.maximum(normal, 1e-300))
