"""Whether tracks could be of points that lie still, given cameras and given the images.

Where parallax is strong, known cameras say more than pairs of frames: a still point has one
position in space. And flow smears motion into what surrounds a moving thing, so the images are
asked too: does a patch look more alike where the track goes, or where a still point would go?
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from msdyn.geometry import Cameras, project, transform_points
from msdyn.preprocess.contracts import Masks
from msdyn.preprocess.imaging.flow import grey, sample_patches
from msdyn.preprocess.multiview.triangulation import BLOCK, triangulate
from msdyn.preprocess.multiview.two_view import LifeQuantile, group_quantile
from msdyn.preprocess.progress import progress
from msdyn.scene import Scene, Tracks

__all__ = ["Prediction", "StillPoints", "looks_still", "photometric_scores"]

Prediction = Callable[[int, int, np.ndarray], np.ndarray]
"""From a frame, a later frame and rows of tracks seen in the former: where [n, 2] px they would be
in the later frame, did they lie still; NaN where that is not known."""

GAPS = (2, 5)
NOISE = 4.0
"""Squared difference in grey levels that is not worth telling apart: two levels."""
# Of something still before the background, and of something that is not. Its points are off by at
# most this many times what the background's are: a block that stands 1.2, a vehicle that drives
# alongside the camera 3. Its depth and that of what lies below its border differ by at most this
# share in nine of ten frames: the block .01, the vehicle 1.
MAX_MISFIT, MAX_STEP = 2.0, 0.05
MAX_STILL_PX = 3.0  # a point that is off by more says nothing of depth
NEAR, MIN_BELOW = 0.04, 0.7  # of the width, across the border; and how much of it is downwards
MIN_CONTACTS, MIN_SEEN_STANDING = 3, 0.5  # pairs of tracks a frame, share of the frames


class StillPoints:
    """The point in space that fits each track best, as known cameras see it.

    Attributes:
        distances: [N] px, the 70th percentile over a track's life of its distance from its point in
            the image; infinite for a point behind a camera, NaN for a track never seen.
    """

    def __init__(self, tracks: Tracks, cameras: Cameras) -> None:
        self.width = cameras.width
        self._cameras = cameras
        self._xyz = np.zeros((len(tracks), 3))
        self.distances = np.full(len(tracks), np.nan)
        for rows in _blocks(tracks):
            point, frame, xy, confidence = tracks.select(rows).observations()
            solved = triangulate(cameras, point, frame, xy, confidence)
            self.distances[rows] = group_quantile(point, solved.error, 0.7, len(rows))
            self.distances[rows[: len(solved.xyz)][~solved.in_front]] = np.inf
            self._xyz[rows[: len(solved.xyz)]] = solved.xyz

    def depth(self, frame: int, rows: np.ndarray) -> np.ndarray:
        """Return the z-depth [n] of the points of tracks `rows` [n] in a frame."""
        axis = self._cameras.cam_from_world[frame, 2]
        return self._xyz[rows] @ axis[:3] + axis[3]

    def predict(self, frame: int, later: int, rows: np.ndarray) -> np.ndarray:
        """Return where [n, 2] px the points are in the later frame, NaN behind the camera."""
        local = transform_points(self._cameras.cam_from_world[later], self._xyz[rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            xy = project(self._cameras.intrinsics[later], local)
        return np.where(local[:, 2:] > 0, xy, np.nan).astype(np.float32)


def _blocks(tracks: Tracks) -> list[np.ndarray]:
    """Return the rows of all tracks in blocks that are triangulated at once."""
    block = np.cumsum(tracks.lifetimes) // BLOCK
    return np.split(np.arange(len(tracks)), np.flatnonzero(np.diff(block)) + 1)


def looks_still(still: StillPoints, tracks: Tracks, own: Masks, moving: Masks) -> bool:
    """Whether an object that two views see move, and known cameras do not, is still after all.

    What moves steadily alongside the camera looks still to it as well, but at a wrong distance.
    So its points have to fit as well as the background's, and the ground it stands on has to
    be as far as they are: no step in depth across its lower border, all through the clip.

    Args:
        still: the still points of all tracks.
        tracks: the N tracks.
        own: [T, h, w] bool, the object; of half size, or any other.
        moving: [T, h, w], not 0 where anything is said to move, the object too.
    """
    from scipy.spatial import KDTree

    height, width = own[0].shape
    scale = still.width / width
    reach = NEAR * still.width
    life = tracks.lifetimes
    inside, outside = np.zeros((2, len(tracks)), int)  # frames
    steps, shown = [], 0
    for frame, (shape, any_shape) in enumerate(zip(own, moving, strict=True)):
        shown += bool(shape.any())
        rows, xy = tracks.at(frame)
        column, row = np.floor(xy / scale).astype(int).T
        at = row.clip(0, height - 1), column.clip(0, width - 1)
        in_own, off = shape[at], any_shape[at] == 0
        inside[rows[in_own]] += 1
        outside[rows[off]] += 1
        depth = still.depth(frame, rows)
        good = (depth > 0) & (still.distances[rows] < MAX_STILL_PX)
        above, below = np.flatnonzero(in_own & good), np.flatnonzero(off & good)
        if not (len(above) and len(below)):
            continue
        distance, nearest = KDTree(xy[below]).query(xy[above])
        under = below[nearest]
        stands = (distance < reach) & (xy[under, 1] - xy[above, 1] > MIN_BELOW * distance)
        if stands.sum() >= MIN_CONTACTS:
            ratio = np.log(depth[above[stands]] / depth[under[stands]])
            steps.append(abs(float(np.median(ratio))))
    if len(steps) < MIN_SEEN_STANDING * max(shown, 1):
        return False
    members, background = (life > 2) & (inside > life / 2), (life > 2) & (outside == life)
    if not (members.any() and background.any()):
        return False
    fit, usual = (np.median(still.distances[group]) for group in (members, background))
    return bool(np.percentile(steps, 90) < MAX_STEP and fit < MAX_MISFIT * usual)


def photometric_scores(scene: Scene, tracks: Tracks, predict: Prediction) -> np.ndarray:
    """Return how much better [N] patches match along each track than where still points would go.

    The median over a track's life of log((m + NOISE) / (s + NOISE)), with m and s the mean squared
    differences to the patch along the track and along the prediction: about 0 for what lies still
    or shows no texture, negative for what moves, positive for a track that is wrong. NaN where no
    pair of frames tells.
    """
    images: deque[np.ndarray] = deque(maxlen=max(GAPS) + 1)
    scores = LifeQuantile(tracks, 0.5)
    for later in progress(range(len(scene)), "masks"):
        images.append(grey(scene.image(later)))
        for gap in GAPS:
            frame = later - gap
            if frame < 0:
                continue
            rows, here, there = tracks.between(frame, later)
            still = predict(frame, later, rows)
            known = np.isfinite(still).all(1)
            rows, here, there, still = rows[known], here[known], there[known], still[known]
            patch = sample_patches(images[-1 - gap], here)
            moved = ((sample_patches(images[-1], there) - patch) ** 2).mean(1)
            stayed = ((sample_patches(images[-1], still) - patch) ** 2).mean(1)
            scores.add(later, rows, np.log((moved + NOISE) / (stayed + NOISE)))
    return scores.result()
