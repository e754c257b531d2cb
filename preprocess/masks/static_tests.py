"""Tests of whether tracks are of static points, given cameras and given the images.

Where parallax is strong, known cameras are better evidence than pairs of frames: a static point has
one position in space. Optical flow is smooth, and so carries motion into the surroundings of a
moving object; so the images are used too: is a patch more similar along the track, or where a
static point would be?
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Int

from msdyn.geometry import Cameras, nearest_pixels, project, transform_points
from msdyn.preprocess.contracts import Masks
from msdyn.preprocess.imaging.flow import grey, sample_patches
from msdyn.preprocess.multiview.triangulation import BLOCK, triangulate
from msdyn.preprocess.multiview.two_view import LifeQuantile, group_quantile
from msdyn.preprocess.progress import progress
from msdyn.scene import Scene, Tracks

__all__ = ["Prediction", "StaticPoints", "looks_static", "photometric_scores"]

Prediction = Callable[[int, int, np.ndarray], np.ndarray]
"""From a frame, a later frame and rows [n] of tracks visible in the former: where [n, 2] px they
would be in the later frame if they were static; NaN where that is not known."""

GAPS = (2, 5)
NOISE = 4.0
"""Squared difference in grey levels that is below the noise of images: two levels."""
# Limits for a static object in front of the background. Its points have at most this many times the
# error of the background's: measured 1.2 on a static block, 3 on a vehicle that drives alongside
# the camera. Its depth and that of the surface below its outline differ by at most this share in
# nine of ten frames: measured .01 on the block, 1 on the vehicle.
MAX_ERROR_RATIO, MAX_STEP = 2.0, 0.05
MAX_ERROR_PX = 3.0  # depth of points with a larger error is not used
# Pairs of tracks on both sides of the lower outline: their largest distance, as a share of the
# longer side of the image, and the least share of it that is downwards.
NEAR, MIN_BELOW = 0.04, 0.7
MIN_CONTACTS, MIN_CONTACT_SHARE = 3, 0.5  # pairs of tracks per frame, share of the frames


class StaticPoints:
    """The static point in space that fits each track best, by known cameras.

    Attributes:
        distances: [N] px, the 70th percentile over a track's life of the distance from its point in
            the image; infinite for a point behind a camera, NaN for a track that is never visible.
    """

    def __init__(self, tracks: Tracks, cameras: Cameras) -> None:
        self.width, self.long_side = cameras.width, max(cameras.width, cameras.height)
        self._cameras = cameras
        self._xyz = np.zeros((len(tracks), 3))
        self.distances = np.full(len(tracks), np.nan)
        for rows in _blocks(tracks):
            point, frame, xy, confidence = tracks.select(rows).observations()
            solved = triangulate(cameras, point, frame, xy, confidence)
            self.distances[rows] = group_quantile(point, solved.error, 0.7, len(rows))
            self.distances[rows[: len(solved.xyz)][~solved.in_front]] = np.inf
            self._xyz[rows[: len(solved.xyz)]] = solved.xyz

    def depth(self, frame: int, rows: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, " chosen"]:
        """Return the z-depth [n] of the points of tracks `rows` [n] in a frame."""
        axis = self._cameras.cam_from_world[frame, 2]
        return self._xyz[rows] @ axis[:3] + axis[3]

    def predict(
        self, frame: int, later: int, rows: Int[np.ndarray, " chosen"]
    ) -> Float32[np.ndarray, "chosen 2"]:
        """Return where [n, 2] px the points are in the later frame, NaN behind the camera."""
        local = transform_points(self._cameras.cam_from_world[later], self._xyz[rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            xy = project(self._cameras.intrinsics[later], local)
        return np.where(local[:, 2:] > 0, xy, np.nan).astype(np.float32)


def _blocks(tracks: Tracks) -> list[np.ndarray]:
    """Return the rows of all tracks, in blocks to triangulate at once."""
    block = np.cumsum(tracks.lifetimes) // BLOCK
    return np.split(np.arange(len(tracks)), np.flatnonzero(np.diff(block)) + 1)


def looks_static(points: StaticPoints, tracks: Tracks, own: Masks, moving: Masks) -> bool:
    """Return whether an object that moves by two-view geometry, but not by cameras, is static.

    An object that moves at constant velocity alongside the camera looks static to it as well, but
    at a wrong distance. So its points must have about the error of the background's, and there must
    be no step in depth to the ground below its outline, in most frames of the clip.

    Args:
        points: the static point of each track.
        tracks: the N tracks.
        own: [T, h, w] bool, the object; of half size, or any other.
        moving: [T, h, w], nonzero where any object moves, this one included.
    """
    from scipy.spatial import KDTree

    height, width = own[0].shape
    scale = points.width / width
    reach = NEAR * points.long_side
    life = tracks.lifetimes
    inside, outside = np.zeros((2, len(tracks)), int)  # frames
    steps, shown = [], 0
    for frame, (shape, any_shape) in enumerate(zip(own, moving, strict=True)):
        shown += bool(shape.any())
        rows, xy = tracks.at(frame)
        at = nearest_pixels(xy / scale, height, width)[:2]
        in_own, off = shape[at], any_shape[at] == 0
        inside[rows[in_own]] += 1
        outside[rows[off]] += 1
        depth = points.depth(frame, rows)
        good = (depth > 0) & (points.distances[rows] < MAX_ERROR_PX)
        above, below = np.flatnonzero(in_own & good), np.flatnonzero(off & good)
        if not (len(above) and len(below)):
            continue
        distance, nearest = KDTree(xy[below]).query(xy[above])
        under = below[nearest]
        contact = (distance < reach) & (xy[under, 1] - xy[above, 1] > MIN_BELOW * distance)
        if contact.sum() >= MIN_CONTACTS:
            ratio = np.log(depth[above[contact]] / depth[under[contact]])
            steps.append(abs(float(np.median(ratio))))
    if len(steps) < MIN_CONTACT_SHARE * max(shown, 1):
        return False
    members, background = (life > 2) & (inside > life / 2), (life > 2) & (outside == life)
    if not (members.any() and background.any()):
        return False
    error, typical = (np.median(points.distances[group]) for group in (members, background))
    return bool(np.percentile(steps, 90) < MAX_STEP and error < MAX_ERROR_RATIO * typical)


def photometric_scores(
    scene: Scene, tracks: Tracks, predict: Prediction
) -> Float[np.ndarray, " tracks"]:
    """Return how much better [N] patches match along each track than along a static point.

    The median over a track's life of log((m + NOISE) / (s + NOISE)), with m and s the mean squared
    differences to the patch along the track and along the prediction: about 0 for static points and
    those without texture, negative for moving ones, positive for a track that is wrong. NaN where
    no pair of frames has both.
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
            predicted = predict(frame, later, rows)
            known = np.isfinite(predicted).all(1)
            rows, here, there = rows[known], here[known], there[known]
            predicted = predicted[known]
            patch = sample_patches(images[-1 - gap], here)
            moving = ((sample_patches(images[-1], there) - patch) ** 2).mean(1)
            static = ((sample_patches(images[-1], predicted) - patch) ** 2).mean(1)
            scores.add(later, rows, np.log((moving + NOISE) / (static + NOISE)))
    return scores.result()
