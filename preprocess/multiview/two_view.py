"""Two-view geometry: how well tracks obey the homography and epipolar geometry of pairs of frames.

A static point obeys the epipolar geometry of every pair of frames, and, where the scene is far or
planar or the camera rotates, their homography. Both are fitted robustly to all tracks, so most of
them must be of the background. The score of a track is a quantile over its life.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from msdyn.preprocess.progress import progress
from msdyn.scene import Tracks

__all__ = ["LifeQuantile", "TwoViewMotion", "group_quantile", "two_view_motion"]

GAPS = (2, 5, 10)
"""Frames between the two views of a pair: large gaps show slow motion."""
SAMPLE = 4000
"""Most tracks in a robust fit."""
HOMOGRAPHY_PX, EPIPOLAR_PX = 1.5, 1.0
MIN_PAIRS = 30
"""Least number of tracks for a fit."""
PENDING = 200_000
"""Values that are kept before the quantiles of ended tracks are computed: some megabytes."""


@dataclass(frozen=True)
class TwoViewMotion:
    """Homographies and epipolar geometry of pairs of frames, and the tracks scored by them.

    Attributes:
        tracks: the N tracks.
        planar: [N] px, the median over a track's life of its distance from the homography. NaN for
            a track that is in no pair.
        epipolar: [N] px, the 80th percentile over its life of its largest Sampson distance from the
            epipolar geometry.
        inliers: the median over the clip of the share of tracks within 3 px of the homography at
            a gap of 5 frames, low where parallax is strong; 1 for a clip too short to tell.
        homographies: [3, 3] by (frame, later frame).
    """

    tracks: Tracks
    planar: Float[np.ndarray, " tracks"]
    epipolar: Float[np.ndarray, " tracks"]
    inliers: float
    homographies: dict[tuple[int, int], Float[np.ndarray, "3 3"]]

    @property
    def scores(self) -> Float[np.ndarray, " tracks"]:
        """[N] px, the geometric mean of both distances. Neither is sufficient alone: parallax gives
        a distance from the homography, and motion along the epipolar lines none from these."""
        return np.sqrt(self.planar * self.epipolar)

    def predict(
        self, frame: int, later: int, rows: Int[np.ndarray, " chosen"]
    ) -> Float32[np.ndarray, "chosen 2"]:
        """Return where [n, 2] px the homography maps the tracks in `rows`, all visible in `frame`,
        in the later frame; NaN for a pair without a homography."""
        homography = self.homographies.get((frame, later))
        if homography is None:
            return np.full((len(rows), 2), np.nan, np.float32)
        return _transfer(homography, self.tracks.look_up(rows, frame)[0])


def two_view_motion(tracks: Tracks) -> TwoViewMotion:
    """Return homographies of pairs of frames, and the scores of the tracks."""
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
            if distance is not None:  # of a rotating camera there may be a homography only
                worst[rows] = np.maximum(worst[rows], distance)
        rows = np.flatnonzero(worst >= 0)
        epipolar.add(frame, rows, worst[rows])
    share = float(np.median(inliers)) if inliers else 1.0
    return TwoViewMotion(tracks, planar.result(), epipolar.result(), share, homographies)


def group_quantile(
    group: Int[np.ndarray, " values"],
    values: Float[np.ndarray, " values"],
    q: float,
    count: int,
) -> Float[np.ndarray, " groups"]:
    """Return the lower `q`-quantile [count] of the values [M] of each group, NaN for an empty one.

    Args:
        group: [M] 0 to count - 1.
        values: [M].
        q: 0 (smallest) to 1 (largest).
        count: number of groups.
    """
    order = np.lexsort((values, group))
    number = np.bincount(group, minlength=count)
    start = np.cumsum(number) - number
    quantile = np.full(count, np.nan)
    filled = np.flatnonzero(number)
    index = start[filled] + np.floor(q * (number[filled] - 1)).astype(int)
    quantile[filled] = values[order[index]]
    return quantile


class LifeQuantile:
    """The lower `q`-quantile of each track's values, which are added frame by frame.

    The quantiles of tracks that have ended are computed on the way, so that memory does not grow
    with the clip: a long one has many millions of values.
    """

    def __init__(self, tracks: Tracks, q: float) -> None:
        self._stop, self._q = tracks.stop, q
        self._result = np.full(len(tracks), np.nan)
        self._pending = [(np.zeros(0, np.int32), np.zeros(0))]
        self._count, self._capacity = 0, PENDING

    def add(
        self, frame: int, rows: Int[np.ndarray, " added"], values: Float[np.ndarray, " added"]
    ) -> None:
        """Add values [n] of tracks `rows` [n] in a frame; frames must not decrease."""
        self._pending.append((rows.astype(np.int32), values))
        self._count += len(rows)
        if self._count > self._capacity:
            self._reduce(self._stop <= frame)

    def result(self) -> Float[np.ndarray, " tracks"]:
        """Return the quantiles [N], NaN for a track without a value."""
        self._reduce(np.ones(len(self._stop), bool))
        return self._result

    def _reduce(self, ended: Bool[np.ndarray, " tracks"]) -> None:
        """Compute the quantiles of tracks that have ended, and drop their values."""
        rows, values = (np.concatenate(column) for column in zip(*self._pending, strict=True))
        done = ended[rows]
        found = group_quantile(rows[done], values[done], self._q, len(ended))
        self._result[rows[done]] = found[rows[done]]
        self._pending = [(rows[~done], values[~done])]
        self._count = len(self._pending[0][0])
        self._capacity = PENDING + 2 * self._count  # with long tracks, not after every frame


def _fit_homography(
    a: Float32[np.ndarray, "pairs 2"], b: Float32[np.ndarray, "pairs 2"]
) -> Float[np.ndarray, "3 3"] | None:
    """Return the homography [3, 3] from pixels a to b [n, 2], None where there is none."""
    import cv2

    try:
        return cv2.findHomography(
            a, b, cv2.USAC_MAGSAC, HOMOGRAPHY_PX, maxIters=1000, confidence=0.999
        )[0]
    except cv2.error:
        return None  # as for fundamental matrices


def _fit_fundamental(
    a: Float32[np.ndarray, "pairs 2"], b: Float32[np.ndarray, "pairs 2"]
) -> Float[np.ndarray, "3 3"] | None:
    """Return the fundamental matrix [3, 3] of pixels a and b [n, 2], None where there is none."""
    import cv2

    try:
        fundamental = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, EPIPOLAR_PX, 0.999, 1000)[0]
    except cv2.error:
        # Where no sample gives a model, as for a camera that only rotates, OpenCV 5.0 fails an
        # assertion of its own instead of returning nothing.
        return None
    # Some solvers return several solutions, concatenated, for degenerate input.
    return fundamental if fundamental is not None and fundamental.shape == (3, 3) else None


def _transfer(
    homography: Float[np.ndarray, "3 3"], xy: Float32[np.ndarray, "points 2"]
) -> Float32[np.ndarray, "points 2"]:
    """Return pixels [n, 2] mapped by a homography."""
    import cv2

    return cv2.perspectiveTransform(xy[None], homography)[0] if len(xy) else xy


def _sampson_distance(
    fundamental: Float[np.ndarray, "3 3"],
    a: Float32[np.ndarray, "pairs 2"],
    b: Float32[np.ndarray, "pairs 2"],
) -> Float[np.ndarray, " pairs"]:
    """Return the first-order distance [n] in px of the pairs (a, b) from the epipolar geometry."""
    a, b = (np.c_[points, np.ones(len(points))].astype(np.float64) for points in (a, b))
    line_b, line_a = a @ fundamental.T, b @ fundamental
    normal = (line_b[:, :2] ** 2).sum(1) + (line_a[:, :2] ** 2).sum(1)
    return np.abs((b * line_b).sum(1)) / np.sqrt(np.maximum(normal, 1e-300))
