"""Removal of visible background and of shadows from masks, for cameras that do not move.

Optical flow carries the motion of an object into surroundings without texture. Where the camera is
static or only rotates, the background of a frame is known from the frames in which it is not
masked: a masked pixel of the same colour is background, and one that is darker by a factor that
varies slowly over the image and is equal for all colours is in a shadow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped, UInt8

from msdyn.geometry import Cameras
from msdyn.preprocess.contracts import (
    Figures,
    Mask,
    MaskResult,
    Masks,
)
from msdyn.preprocess.imaging.connected_components import connected_regions, drop_specks
from msdyn.preprocess.imaging.mask_stack import MaskStack
from msdyn.preprocess.imaging.windows import Window, window_of
from msdyn.preprocess.progress import progress
from msdyn.preprocess.streamed import Streamed
from msdyn.scene import STATIC, Scene

__all__ = ["changed_masks", "without_background"]

# Frames, evenly over the clip, from which the background is known; the least number of them, and
# share, in which a pixel must not be masked.
_FRAMES, _MIN_SEEN, _MIN_SHARE = 20, 4, 0.1
# Differences in grey levels up to this multiple of their 90th percentile on the background are
# noise, within limits.
_NOISE, _NOISE_LIMITS = 2.0, (6.0, 20.0)
_NOISE_EVERY = 4  # of the frames, where each has a background of its own
# Shadows: the least factor, and its largest change (log) per px of the half-size image. Outlines of
# objects change faster.
_MIN_FACTOR, _MAX_CHANGE = 0.55, 0.06
# Added to grey levels before their logarithm, so that noise in the dark does not dominate.
_DARK = 8.0
_UNSEEN = 1000  # instead of a grey level
# Regions of an object up to this share of its largest one in the frame are dropped.
_SPECKS = 0.05
# Margin around masks, px of the half-size image, that is not used as background.
_MARGIN = 5

_FIGURES = (
    "views",
    "homography_inliers",
    "threshold_px",
    "saliency",
    "salient_objects",
)  # kept when masks change
_ALL: Window = (slice(None), slice(None))


def without_background(scene: Scene, masks: Masks, cameras: Cameras) -> MaskStack:
    """Return masks without pixels that show the background, possibly in a shadow.

    Only regions that reach the outline of a mask are removed, no holes are made.

    Args:
        scene: the frames.
        masks: [T, H, W] index masks.
        cameras: with one centre.
    """
    import cv2

    background = _Background(scene, MaskStack(mask[::2, ::2] for mask in masks), cameras)
    height, width = scene.size

    def cleaned(frame: int) -> Mask:
        mask = masks[frame]
        moving = mask[::2, ::2] != STATIC
        window = window_of(moving, _MARGIN)
        if window is None:
            return mask
        shown = np.zeros_like(moving)
        shown[window] = background.shown(frame, window) & moving[window]
        removed = _reaching_outline(shown, moving).astype(np.float32)
        enlarged = cv2.resize(removed, (width, height)) > 0.5
        return drop_specks(np.where(enlarged, STATIC, mask).astype(np.uint8), _SPECKS)

    return MaskStack(cleaned(frame) for frame in progress(range(len(masks)), "masks"))


def changed_masks(masks: MaskStack, quality: Figures) -> MaskResult:
    """Return the result of a masks stage whose masks were changed afterwards.

    Args:
        masks: [T, H, W] the new ones.
        quality: the figures in the record of the stage.
    """
    figures = {name: quality[name] for name in _FIGURES if name in quality}
    figures["moving_share"] = round(float(np.mean([(m != STATIC).mean() for m in masks])), 4)
    return MaskResult(
        Streamed.of(masks, figures), quality["needs_cameras"], quality["better_with_cameras"]
    )


@dataclass(frozen=True)
class _Known:
    """The background of a frame: grey levels [h, w, 3], and where they are known."""

    levels: Float32[np.ndarray, "height width 3"]
    known: Bool[np.ndarray, "height width"]


class _Background:
    """The background of every frame, from the unmasked pixels of frames over the clip."""

    def __init__(self, scene: Scene, labels: Masks, cameras: Cameras) -> None:
        self.scene = scene
        self.height, self.width = labels[0].shape
        self.cameras = cameras.resized(self.width, self.height)
        count = min(_FRAMES, len(labels))
        self.frames = np.linspace(0, len(labels) - 1, count).round().astype(int).tolist()
        self.images = [self._image(frame) for frame in self.frames]
        self.static = [self._static(labels[frame]) for frame in self.frames]
        self.fixed = cameras.share_pose
        self._same_for_all = self._of(0) if self.fixed else None
        self.noise = self._noise()

    def shown(self, frame: int, window: Window) -> Bool[np.ndarray, "height width"]:
        """Return where a window of a frame shows the background, possibly in a shadow."""
        import cv2

        background = self._background(frame, window)
        image = self._image(frame)[window].astype(np.float32)
        same = np.abs(image - background.levels).max(-1) < self.noise
        factors = np.log(image + _DARK) - np.log(background.levels + _DARK)
        factor = factors.mean(-1)
        tolerance = self.noise / (background.levels.mean(-1) + _DARK)
        grey = np.abs(factors - factor[..., None]).max(-1) < tolerance
        change = np.hypot(
            cv2.Scharr(factor, cv2.CV_32F, 1, 0, scale=1 / 32),
            cv2.Scharr(factor, cv2.CV_32F, 0, 1, scale=1 / 32),
        )
        darker = (factor < 0) & (factor > np.log(_MIN_FACTOR)) & (change < _MAX_CHANGE)
        return (same | (grey & darker)) & background.known

    def _background(self, frame: int, window: Window = _ALL) -> _Known:
        if self._same_for_all is None:
            return self._of(frame, window)
        return _Known(self._same_for_all.levels[window], self._same_for_all.known[window])

    def _of(self, frame: int, window: Window = _ALL) -> _Known:
        """Return the median, over the frames in which they are not masked, of a frame's pixels."""
        shape = self.static[0][window].shape
        levels = np.full((len(self.frames), *shape, 3), _UNSEEN, np.int16)
        for i, other in enumerate(self.frames):
            image, static = self.images[i], self.static[i]
            if not self.fixed and other != frame:
                image, static = self._turned(image, static, other, frame)
            levels[i][static[window]] = image[window][static[window]]
        seen = (levels[..., 0] < _UNSEEN).sum(0)
        known = seen >= max(_MIN_SEEN, _MIN_SHARE * len(self.frames))
        median = _median_of_seen(levels, seen)
        # Where the colour changes, there is more than one surface.
        off = np.abs(levels - median).max(-1)
        off[levels[..., 0] == _UNSEEN] = _UNSEEN
        spread = _median_of_seen(off, seen)
        return _Known(median.astype(np.float32), known & (spread < _NOISE_LIMITS[1]))

    def _noise(self) -> float:
        """Return the largest difference, in grey levels, that is noise."""
        differences = [np.zeros(0, np.float32)]
        for i in range(0, len(self.frames), 1 if self.fixed else _NOISE_EVERY):
            background = self._background(self.frames[i])
            difference = np.abs(self.images[i] - background.levels).max(-1)
            differences.append(difference[self.static[i] & background.known])
        every = np.concatenate(differences)
        level = _NOISE * float(np.quantile(every, 0.9)) if len(every) else 0.0
        return float(np.clip(level, *_NOISE_LIMITS))

    def _image(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return a frame at half size, slightly smoothed."""
        import cv2

        image = self.scene.image(frame)
        small = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(small, (0, 0), 1)

    def _static(
        self, labels: Shaped[np.ndarray, "height width"]
    ) -> Bool[np.ndarray, "height width"]:
        """Return the pixels that are neither masked nor next to a mask."""
        import cv2

        kernel = np.ones((_MARGIN, _MARGIN), np.uint8)
        return cv2.erode((labels == STATIC).astype(np.uint8), kernel) > 0

    def _turned(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        static: Bool[np.ndarray, "height width"],
        other: int,
        frame: int,
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
        """Return image and static pixels of another frame as the camera of `frame` sees them."""
        import cv2

        poses, k = self.cameras.cam_from_world[:, :3, :3], self.cameras.intrinsics
        rotation = poses[frame] @ poses[other].T
        to_frame = k[frame] @ rotation @ np.linalg.inv(k[other])
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # of array indices, as OpenCV's
        to_frame = np.linalg.inv(half) @ to_frame @ half
        size = (self.width, self.height)
        turned = cv2.warpPerspective(image, to_frame, size, flags=cv2.INTER_LINEAR)
        inside = cv2.warpPerspective(static.astype(np.uint8) * 255, to_frame, size)
        return turned, inside > 254


def _median_of_seen(
    values: Shaped[np.ndarray, "frames height width *channels"],
    seen: Int[np.ndarray, "height width"],
) -> Shaped[np.ndarray, "height width *channels"]:
    """Return the (lower) median over the frames of the values below `_UNSEEN`.

    Args:
        values: `_UNSEEN` where there is none.
        seen: number of others.
    """
    values = np.sort(values, axis=0)
    middle = (np.maximum(seen, 1) - 1) // 2
    index = middle.reshape(1, *middle.shape, *(1,) * (values.ndim - 3))
    return np.take_along_axis(values, index, axis=0)[0]


def _reaching_outline(
    shown: Bool[np.ndarray, "height width"], moving: Bool[np.ndarray, "height width"]
) -> Bool[np.ndarray, "height width"]:
    """Return the regions of `shown`, without thin parts, that reach the outline of the mask."""
    import cv2

    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    # Outside the mask counts as shown: openings then do not round the mask's own outline.
    opened = cv2.morphologyEx((shown | ~moving).astype(np.uint8), cv2.MORPH_OPEN, disc) > 0
    regions = connected_regions(opened & moving)
    near = cv2.dilate((~moving).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    reaching = np.unique(regions[near & (regions > 0)])
    return np.isin(regions, reaching) & (regions > 0)
