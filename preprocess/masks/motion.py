"""Masks of what moves by itself: motion that the camera does not explain.

Every track gets the odds that it moves, from its geometry and from the images; the odds are spread
over the pixels, pixels are grouped into objects, and outlines are drawn to the edges of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdyn.preprocess.contracts import CameraSolution, Masks
from msdyn.preprocess.imaging.connected_components import (
    close_holes,
    drop_specks,
    fill_from_nearest,
)
from msdyn.preprocess.imaging.mask_stack import MaskStack
from msdyn.preprocess.masks.instances import split_instances
from msdyn.preprocess.masks.static_tests import (
    Prediction,
    StillPoints,
    looks_still,
    photometric_scores,
)
from msdyn.preprocess.multiview.two_view import two_view_motion
from msdyn.preprocess.progress import progress
from msdyn.scene import STATIC, Scene, Tracks

__all__ = ["MotionMasks", "NoMasks", "spread_over_pixels"]

# Chosen on camel (with its true masks), on the demo's clip, and by eye on duck and hand.
GEOMETRY_WEIGHT, PHOTOMETRY_WEIGHT = 3.0, 2.0
PHOTOMETRY_MARGIN = 1.0
"""A patch that matches this much better (log) than the median track's is even odds."""
SPREADS_PX = (2.0, 4.0, 8.0, 16.0)
"""Gaussians that spread tracks over the half-size image; the finer one counts where it reaches."""
# The share of an object of two views that cameras must find to have their say on all of it. On
# rendered scenes: a vehicle alongside the camera .07, a still block .02, all others .77 or more.
MIN_AGREED = 0.3
SMALL = 0.05
"""Holes in a region up to this share of it are closed; regions of an object up to this share of its
largest one in the frame are dropped."""


@dataclass(frozen=True)
class NoMasks:
    """Nothing moves."""

    name = "none"

    def segment(
        self, scene: Scene, tracks: Tracks, solution: CameraSolution | None
    ) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
        """Return masks that are static throughout."""
        return (np.full(scene.size, STATIC, np.uint8) for _ in range(len(scene))), {}


@dataclass(frozen=True)
class MotionMasks:
    """What moves by itself, told from two views, or from the cameras once they are known."""

    spread: float = 3.0
    """Geometry gives even odds where the log of a track's score is this many robust deviations
    above the median..."""
    threshold_px: tuple[float, float] = (1.5, 3.0)
    """... kept between these, in px of an image 854 px wide (noise grows with the root of it)."""
    min_homography_inliers: float = 0.65
    """Where homographies fit less than this share of the tracks, two views do not suffice."""
    band_px: int = 7
    """An outline may move by this much, in px of an image 854 px wide, to find an edge."""

    name = "motion"

    def segment(
        self, scene: Scene, tracks: Tracks, solution: CameraSolution | None
    ) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
        """Return the masks, and figures that are complete when the last mask has been taken."""
        two_views = two_view_motion(tracks)
        enough = two_views.inliers >= self.min_homography_inliers
        moving: Masks | None = None
        threshold = 0.0
        if solution is None or enough:
            moving, threshold = self._moving(scene, tracks, two_views.scores, two_views.predict)
        if solution is not None:
            still = StillPoints(tracks, solution.cameras)
            scores = np.sqrt(still.distances * two_views.epipolar)
            many, threshold = self._moving(scene, tracks, scores, still.predict)
            if moving is not None:
                fps = scene.info.fps
                alone = _seen_by_two_views_alone(moving, many, tracks, still, fps)
                many = MaskStack(a | b for a, b in zip(many, alone, strict=True))
            moving = many
        assert moving is not None
        labels = split_instances(moving, tracks, scale=2.0, fps=scene.info.fps)
        quality = {
            "views": "two" if solution is None else "many",
            "homography_inliers": round(two_views.inliers, 4),
            "needs_cameras": not enough,
            "better_with_cameras": solution is None,
            "threshold_px": round(threshold, 3),
        }
        return self._outlines(scene, labels, quality), quality

    def _moving(
        self, scene: Scene, tracks: Tracks, scores: np.ndarray, predict: Prediction
    ) -> tuple[MaskStack, float]:
        """Return which half-size pixels [T, h, w] move, and the score that was even odds, in px."""
        threshold = self._threshold(scores, scene.info.width)
        geometry = np.log(np.maximum(scores, 1e-6) / threshold)
        photometry = photometric_scores(scene, tracks, predict)
        typical = np.nanmedian(photometry) if np.isfinite(photometry).any() else 0.0
        photometry = np.where(np.isfinite(photometry), photometry - typical, 0.0)
        log_odds = GEOMETRY_WEIGHT * geometry
        log_odds -= PHOTOMETRY_WEIGHT * (photometry + PHOTOMETRY_MARGIN)
        odds = (spread_over_pixels(tracks, log_odds, t, scene.size) for t in range(len(scene)))
        return MaskStack(close_holes(frame > 0.5, SMALL) for frame in odds), threshold

    def _threshold(self, scores: np.ndarray, width: int) -> float:
        """Return the score in px at which a track as likely moves as not."""
        logs = np.log(np.maximum(scores[np.isfinite(scores)], 1e-3))
        if not len(logs):
            return self.threshold_px[1]
        middle = np.median(logs)
        deviation = 1.4826 * np.median(np.abs(logs - middle))
        low, high = np.array(self.threshold_px) * np.sqrt(width / 854)
        return float(np.clip(np.exp(middle + self.spread * deviation), low, high))

    def _outlines(
        self, scene: Scene, labels: Masks, quality: dict[str, Any]
    ) -> Iterator[np.ndarray]:
        """Yield full-size masks [H, W] uint8, their outlines drawn to the edges of the image."""
        band = max(3, round(self.band_px * scene.info.width / 854))
        shares = []
        for frame in progress(range(len(scene)), "masks"):
            mask = _draw_outline(scene.image(frame), drop_specks(labels[frame], SMALL), band)
            shares.append(float((mask > 0).mean()))
            quality["moving_share"] = round(float(np.mean(shares)), 4)
            yield mask


def _seen_by_two_views_alone(
    two: Masks, many: Masks, tracks: Tracks, still: StillPoints, fps: float
) -> MaskStack:
    """Return the pixels [T, h, w] of objects that two views see move and known cameras hardly.

    What moves steadily alongside the camera looks, to many views, like something still at another
    distance. Two views are believed then, unless the object is seen to stand where it is: rather a
    still thing too many than a moving one too few.

    Args:
        two, many: [T, h, w] bool, what moves by two views and by the cameras.
        tracks: N tracks.
        still: the still points of the tracks.
        fps: frames a second.
    """
    # What is near and still moves unlike the thing before or behind it that it seems to touch.
    labels = split_instances(two, tracks, scale=2.0, fps=fps, by_motion=False)
    area, agreed = np.zeros((2, 256), int)
    for label, both in zip(labels, many, strict=True):
        area += np.bincount(label.ravel(), minlength=256)
        agreed += np.bincount(label[both], minlength=256)
    alone = agreed < MIN_AGREED * area
    alone[0] = False
    for label in np.flatnonzero(alone).tolist():
        own = MaskStack(frame == label for frame in labels)
        alone[label] = not looks_still(still, tracks, own, labels)
    return MaskStack(alone[frame] for frame in labels)


def spread_over_pixels(
    tracks: Tracks, log_odds: np.ndarray, frame: int, size: tuple[int, int]
) -> np.ndarray:
    """Return the probability [H/2, W/2] that pixels move, from the tracks around them.

    Args:
        tracks: N tracks.
        log_odds: [N] that each moves; NaN for those that do not count.
        frame: the frame.
        size: (height, width) of the image.
    """
    import cv2

    rows, xy = tracks.at(frame)
    known = np.isfinite(log_odds[rows])
    rows, xy = rows[known], xy[known]
    height, width = -(-size[0] // 2), -(-size[1] // 2)
    column, row = np.floor(xy / 2).astype(int).T
    at = row.clip(0, height - 1), column.clip(0, width - 1)
    number, total = np.zeros((2, height, width), np.float32)
    np.add.at(number, at, 1)
    np.add.at(total, at, 1 / (1 + np.exp(-log_odds[rows].clip(-20, 20))))
    result, filled = np.zeros((2, height, width), np.float32)
    for sigma in SPREADS_PX:
        density = cv2.GaussianBlur(number, (0, 0), sigma)
        # One track within about a sigma fills a pixel; what it leaves is for the coarser ones.
        share = (1 - filled) * np.minimum(1, np.pi * sigma**2 * density)
        result += share * cv2.GaussianBlur(total, (0, 0), sigma) / np.maximum(density, 1e-9)
        filled += share
    return result / np.maximum(filled, 1e-6)


def _draw_outline(image: np.ndarray, labels: np.ndarray, band: int) -> np.ndarray:
    """Return half-size labels at full size, their outline moved within a band to image edges.

    GrabCut (Rother et al., SIGGRAPH 2004), free only in the band: on the whole image its colour
    models take in whatever of the background looks alike.
    """
    import cv2

    height, width = image.shape[:2]
    upsampled = cv2.resize((labels > 0).astype(np.float32), (width, height)) > 0.5
    if not upsampled.any():
        return np.zeros((height, width), np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band + 1, 2 * band + 1))
    inner = cv2.erode(upsampled.astype(np.uint8), disc)
    outer = cv2.dilate(upsampled.astype(np.uint8), disc)
    trimap = np.where(upsampled, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[inner > 0], trimap[outer == 0] = cv2.GC_FGD, cv2.GC_BGD
    # The colour models are of the surroundings, and the work is where the band is.
    rows, columns = (np.flatnonzero(outer.any(axis)) for axis in (1, 0))
    margin = 4 * band
    window = tuple(
        slice(max(0, index[0] - margin), index[-1] + margin + 1) for index in (rows, columns)
    )
    cut = np.ascontiguousarray(trimap[window])
    moving = upsampled
    if {cv2.GC_FGD, cv2.GC_BGD} <= set(np.unique(cut).tolist()):
        cv2.setRNGSeed(0)  # grabCut starts its colour models from random clusters
        pixels = np.ascontiguousarray(image[window][..., ::-1])
        background, foreground = np.zeros((2, 1, 65))
        rectangle = (0, 0, 1, 1)  # not used beside a mask
        cv2.grabCut(pixels, cut, rectangle, background, foreground, 1, cv2.GC_INIT_WITH_MASK)
        moving = np.zeros_like(upsampled)
        moving[window] = (cut == cv2.GC_FGD) | (cut == cv2.GC_PR_FGD)
    labels = fill_from_nearest(labels, labels > 0)
    full = labels[np.arange(height)[:, None] // 2, np.arange(width) // 2]
    return np.where(moving, full, STATIC).astype(np.uint8)
