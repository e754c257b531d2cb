"""Masks of moving objects: motion that the camera does not explain.

The probability that a track moves is estimated from two-view or multi-view geometry and from the
images, then interpolated over the pixels; moving pixels are grouped into objects, and the outlines
of these are refined at the edges of the image.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from msdyn.geometry import nearest_pixels
from msdyn.preprocess.contracts import (
    Backend,
    BackendOptions,
    CameraSolution,
    Figures,
    Mask,
    MaskResult,
    Masks,
    SaliencyChoice,
)
from msdyn.preprocess.imaging.connected_components import (
    close_holes,
    drop_specks,
    fill_from_nearest,
)
from msdyn.preprocess.imaging.mask_stack import MaskStack
from msdyn.preprocess.masks.instances import split_instances
from msdyn.preprocess.masks.saliency import Saliency, find_saliency
from msdyn.preprocess.masks.salient_motion import SalientMotion
from msdyn.preprocess.masks.static_tests import (
    Prediction,
    StaticPoints,
    looks_static,
    photometric_scores,
)
from msdyn.preprocess.multiview.two_view import TwoViewMotion, two_view_motion
from msdyn.preprocess.progress import progress
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.streamed import Streamed
from msdyn.scene import STATIC, Scene, Tracks

__all__ = ["MotionMasks", "NoMasks", "interpolate_odds", "joint_scores"]

# Chosen on camel (with its true masks), on the demo's clip, and by eye on duck and hand.
GEOMETRY_WEIGHT, PHOTOMETRY_WEIGHT = 3.0, 2.0
PHOTOMETRY_MARGIN, PHOTOMETRY_MARGIN_WITH_CAMERAS = 1.0, 0.5
"""The photometric log odds are zero where a patch matches this much better (log) than that of the
median track: less where cameras predict the path of a static point, which two views do badly."""
MAX_SURE, SALIENT_EDGE = 0.98, 0.5
"""Pixels move with at most this probability by the tracks around them, and their own saliency then
counts with at most this log ratio: it decides at outlines, where tracks are of both sides."""
SPREADS_PX = (2.0, 4.0, 8.0, 16.0)
"""Standard deviations of the Gaussians that interpolate tracks over the half-size image; a coarser
one counts where tracks are too sparse for the finer ones."""
# Minimum overlap of a two-view object with the multi-view mask, below which the two-view mask is
# used. On rendered scenes: a vehicle alongside the camera .07, a static block .02, all others .77
# or more.
MIN_AGREED = 0.3
SMALL = 0.05
"""Holes in a region up to this share of it are closed; regions of an object up to this share of its
largest one in the frame are dropped."""


@register_backend("masks", "none", needs=("frames", "tracks"))
@dataclass(frozen=True)
class NoMasks(Backend):
    """Masks of a scene in which nothing moves."""

    def segment(self, scene: Scene, tracks: Tracks, solution: CameraSolution | None) -> MaskResult:
        """Return masks that are static throughout."""
        masks = (np.full(scene.size, STATIC, np.uint8) for _ in range(len(scene)))
        return MaskResult(Streamed.of(masks, {}))


@register_backend("masks", "motion", needs=("frames", "tracks"))
@dataclass(frozen=True)
class MotionMasks(Backend):
    """Masks of moving objects, by two-view geometry, or by the cameras once they are known."""

    spread: float = 3.0
    """The geometric log odds are zero where the log of a track's score is this many robust standard
    deviations above the median..."""
    threshold_px: tuple[float, float] = (1.5, 3.0)
    """... clipped to this range, in px of an image with a longer side of 854 px (noise
    grows with its root)."""
    min_homography_inliers: float = 0.65
    """Where homographies fit less than this share of the tracks, two views do not suffice."""
    band_px: int = 7
    """An outline may move by this much to an edge, in px of an image whose longer side has 854."""
    saliency: SaliencyChoice = "off"
    """Whether a network for salient objects is used: "auto", where it can be had."""
    offline: bool = field(default=False, metadata={"option": False})

    @classmethod
    def from_options(cls, options: BackendOptions) -> MotionMasks:
        """Return the backend.

        Raises:
            InputError: saliency is "on", but the network cannot be had.
        """
        made = cls(saliency=options.saliency, offline=options.offline)
        if made.saliency == "on":
            _ = made.network  # fail before anything is computed
        return made

    @cached_property
    def network(self) -> Saliency | None:
        """The network for salient objects."""
        return find_saliency(self.saliency, offline=self.offline)

    def segment(self, scene: Scene, tracks: Tracks, solution: CameraSolution | None) -> MaskResult:
        """Return the masks.

        The figures: `views`, "two" or "many"; `homography_inliers`, see `TwoViewMotion`;
        `threshold_px`, the score at which a track is as likely to move as not; `moving_share` of
        the pixels; with a network, `saliency`, see `SalientMotion.strength`.
        """
        two, fps = self._two_views(scene, tracks), scene.info.fps
        two_views = two.motion
        enough = two_views.inliers >= self.min_homography_inliers
        if solution is None:
            moving, found = self._moving_in_two_views(two, scene, tracks)
        else:
            points = StaticPoints(tracks, solution.cameras)
            scores = joint_scores(points.distances, two_views.epipolar)
            moving, found = self._moving(
                scene, tracks, scores, points.predict, PHOTOMETRY_MARGIN_WITH_CAMERAS
            )
            if enough:
                by_two, _ = self._moving_in_two_views(two, scene, tracks)
                only_two = _only_in_two_views(by_two, moving, tracks, points, fps)
                moving = MaskStack(a | b for a, b in zip(moving, only_two, strict=True))
        labels = split_instances(moving, tracks, scale=2.0, fps=fps)
        figures = {
            "views": "two" if solution is None else "many",
            "homography_inliers": round(two_views.inliers, 4),
            **found,
        }
        return MaskResult(
            Streamed(self._outlines(scene, labels, figures)),
            needs_cameras=not enough,
            better_with_cameras=solution is None,
        )

    def _two_views(self, scene: Scene, tracks: Tracks) -> _TwoViews:
        """Return what two views say: the last result, where it is of the same scene and tracks.

        The masks of a clip are made twice, the second time with cameras.
        """
        last = self._last_two_views[0] if self._last_two_views else None
        if last is None or not last.is_of(scene, tracks):
            last = _TwoViews(scene.directory, two_view_motion(tracks))
            self._last_two_views[:] = [last]
        return last

    def _moving_in_two_views(
        self, two: _TwoViews, scene: Scene, tracks: Tracks
    ) -> tuple[MaskStack, Figures]:
        """Return `_moving` by what two views say, found once."""
        if two.moving is None:
            motion = two.motion
            two.moving = self._moving(
                scene, tracks, motion.scores, motion.predict, PHOTOMETRY_MARGIN
            )
        return two.moving

    @cached_property
    def _last_two_views(self) -> list[_TwoViews]:
        """The last result of `_two_views`, if any; a list, as the backend is frozen."""
        return []

    def _moving(
        self,
        scene: Scene,
        tracks: Tracks,
        scores: Float[np.ndarray, " tracks"],
        predict: Prediction,
        margin: float,
    ) -> tuple[MaskStack, Figures]:
        """Return which half-size pixels [T, h, w] move, and figures."""
        threshold = self._threshold(scores, max(scene.size))
        geometry = np.log(np.maximum(scores, 1e-6) / threshold)
        photometry = photometric_scores(scene, tracks, predict)
        typical = np.nanmedian(photometry) if np.isfinite(photometry).any() else 0.0
        photometry = np.where(np.isfinite(photometry), photometry - typical, 0.0)
        log_odds = GEOMETRY_WEIGHT * geometry
        log_odds -= PHOTOMETRY_WEIGHT * (photometry + margin)
        figures: Figures = {"threshold_px": round(threshold, 3)}
        salient = None
        if self.network is not None:
            salient = SalientMotion(self.network, scene, tracks, log_odds)
            log_odds = log_odds + salient.of_tracks()
            figures["saliency"] = round(salient.strength, 3)

        def moves(frame: int) -> Bool[np.ndarray, "half_height half_width"]:
            odds = interpolate_odds(tracks, log_odds, frame, scene.size)
            if salient is None:
                return odds > 0.5
            odds = odds.clip(1 - MAX_SURE, MAX_SURE)
            evidence = salient.of_pixels(frame).clip(-SALIENT_EDGE, SALIENT_EDGE)
            return np.log(odds / (1 - odds)) + evidence > 0

        maps = (close_holes(moves(frame), SMALL) for frame in range(len(scene)))
        return MaskStack(maps), figures

    def _threshold(self, scores: Float[np.ndarray, " tracks"], long_side: int) -> float:
        """Return the score in px at which a track is as likely to move as not."""
        logs = np.log(np.maximum(scores[np.isfinite(scores)], 1e-3))
        if not len(logs):
            return self.threshold_px[1]
        middle = np.median(logs)
        deviation = 1.4826 * np.median(np.abs(logs - middle))
        low, high = np.array(self.threshold_px) * np.sqrt(long_side / 854)
        return float(np.clip(np.exp(middle + self.spread * deviation), low, high))

    def _outlines(
        self, scene: Scene, labels: Masks, figures: Figures
    ) -> Generator[Mask, None, Figures]:
        """Yield full-size masks, their outlines refined at the edges of the image."""
        band = max(3, round(self.band_px * max(scene.size) / 854))
        shares = []
        for frame in progress(range(len(scene)), "masks"):
            mask = _refine_outline(scene.image(frame), drop_specks(labels[frame], SMALL), band)
            shares.append(float((mask > 0).mean()))
            yield mask
        return figures | {"moving_share": round(float(np.mean(shares)), 4)}


@dataclass
class _TwoViews:
    """What two views say of the motion in a scene.

    Attributes:
        directory: of the scene.
        motion: of its tracks.
        moving: which half-size pixels [T, h, w] move, and figures; None until they are found.
    """

    directory: Path
    motion: TwoViewMotion
    moving: tuple[MaskStack, Figures] | None = None

    def is_of(self, scene: Scene, tracks: Tracks) -> bool:
        """Return whether this is of a scene and tracks, whatever their objects."""
        names = ("start", "stop", "run_xy", "run_visible")
        own = self.motion.tracks
        return self.directory == scene.directory and all(
            np.array_equal(getattr(own, name), getattr(tracks, name)) for name in names
        )


def _only_in_two_views(
    two: Masks, many: Masks, tracks: Tracks, points: StaticPoints, fps: float
) -> MaskStack:
    """Return the pixels [T, h, w] of objects that move by two-view geometry, but hardly by cameras.

    An object that moves at constant velocity alongside the camera has, in many views, the image
    motion of a static one at another distance. The two-view mask is used then, unless the object is
    static by `looks_static`: a static object too many does less harm than a moving one too few.

    Args:
        two, many: [T, h, w] bool, moving by two-view and by multi-view geometry.
        tracks: N tracks.
        points: the static point of each track.
        fps: frames per second.
    """
    # Not by motion: image motion of a near static object differs from that of what is next to it.
    labels = split_instances(two, tracks, scale=2.0, fps=fps, by_motion=False)
    area, agreed = np.zeros((2, 256), int)
    for label, both in zip(labels, many, strict=True):
        area += np.bincount(label.ravel(), minlength=256)
        agreed += np.bincount(label[both], minlength=256)
    added = agreed < MIN_AGREED * area
    added[0] = False
    for label in np.flatnonzero(added).tolist():
        own = MaskStack(frame == label for frame in labels)
        added[label] = not looks_static(points, tracks, own, labels)
    return MaskStack(added[frame] for frame in labels)


def joint_scores(
    distances: Float[np.ndarray, " tracks"], epipolar: Float[np.ndarray, " tracks"]
) -> Float[np.ndarray, " tracks"]:
    """Return the score [N] px of each track: the geometric mean of both its distances [N].

    Infinite for a track whose static point would be behind a camera, whatever two views say of it;
    NaN where either is not known.
    """
    behind = np.isinf(distances)
    scores = np.sqrt(np.where(behind, 1.0, distances) * epipolar)
    return np.where(behind & ~np.isnan(epipolar), np.inf, scores)


def interpolate_odds(
    tracks: Tracks,
    log_odds: Float[np.ndarray, " tracks"],
    frame: int,
    size: tuple[int, int],
) -> Float[np.ndarray, "half_height half_width"]:
    """Return the probability [H/2, W/2] that pixels move, from the tracks around them.

    Args:
        tracks: N tracks.
        log_odds: [N] log odds that each moves; NaN for tracks to leave out.
        frame: the frame.
        size: (height, width) of the image.
    """
    import cv2

    rows, xy = tracks.at(frame)
    known = np.isfinite(log_odds[rows])
    rows, xy = rows[known], xy[known]
    height, width = -(-size[0] // 2), -(-size[1] // 2)
    at = nearest_pixels(xy / 2, height, width)[:2]
    number, total = np.zeros((2, height, width), np.float32)
    np.add.at(number, at, 1)
    np.add.at(total, at, 1 / (1 + np.exp(-log_odds[rows].clip(-20, 20))))
    result, filled = np.zeros((2, height, width), np.float32)
    for sigma in SPREADS_PX:
        density = cv2.GaussianBlur(number, (0, 0), sigma)
        # One track within about a sigma is enough; coarser Gaussians take the rest of the weight.
        share = (1 - filled) * np.minimum(1, np.pi * sigma**2 * density)
        result += share * cv2.GaussianBlur(total, (0, 0), sigma) / np.maximum(density, 1e-9)
        filled += share
    return result / np.maximum(filled, 1e-6)


def _refine_outline(
    image: UInt8[np.ndarray, "height width 3"],
    labels: Shaped[np.ndarray, "half_height half_width"],
    band: int,
) -> Mask:
    """Return half-size labels at full size, their outline moved within a band to image edges.

    By GrabCut (Rother et al., SIGGRAPH 2004), constrained to the band of px: on the whole image it
    would add background of similar colours.
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
    # A window with some surroundings for the colour models saves time.
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
        rectangle = (0, 0, 1, 1)  # not used with a mask
        cv2.grabCut(pixels, cut, rectangle, background, foreground, 1, cv2.GC_INIT_WITH_MASK)
        moving = np.zeros_like(upsampled)
        moving[window] = (cut == cv2.GC_FGD) | (cut == cv2.GC_PR_FGD)
    labels = fill_from_nearest(labels, labels > 0)
    full = labels[np.arange(height)[:, None] // 2, np.arange(width) // 2]
    return np.where(moving, full, STATIC).astype(np.uint8)
