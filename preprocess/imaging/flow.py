"""Optical flow between two frames, and following points along it.

Positions are pixels with centres at +0.5. A flow field [H, W, 2] is, at a pixel of the first image,
the displacement in px to the same surface point in the second. Images are grey, [H, W].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped, UInt8

__all__ = [
    "FlowPair",
    "estimate_flow",
    "follow_points",
    "grey",
    "look_alike",
    "refine_points",
    "sample_bilinear",
    "sample_patches",
]

# A step is valid where the forward and backward flow cancel to within this much:
# |f + b|^2 < RELATIVE (|f|^2 + |b|^2) + ABSOLUTE. Sundaram, Brox and Keutzer, "Dense point
# trajectories by GPU-accelerated large displacement optical flow", ECCV 2010, Eq. 5.
RELATIVE, ABSOLUTE = 0.01, 0.5
# ... and where the patches differ by less than this share of their contrast: next to an occluder
# the smooth flow carries the background along, whose texture does not move. Grey levels up to NOISE
# are below the noise of images.
MAX_DIFFERENCE, NOISE = 0.3, 6.0
PATCH = 5
# Flow is biased towards whole pixels by some hundredths of a pixel, which accumulate along a track;
# matching windows from the end of the flow removes the bias. They are 9 px wide, or this share of
# the image's longer side, and move at most this many px.
WINDOW_SHARE, MAX_CORRECTION = 1 / 70, 1.5
# cv2.remap takes at most 2^15 positions per row.
_ROW = 1024


@dataclass(frozen=True)
class FlowPair:
    """Two grey images [H, W], and the flow [H, W, 2] px from the first to the second, and back."""

    first: UInt8[np.ndarray, "height width"]
    second: UInt8[np.ndarray, "height width"]
    forward: Float32[np.ndarray, "height width 2"]
    backward: Float32[np.ndarray, "height width 2"]


def grey(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width"]:
    """Return an image [H, W, 3] RGB in grey, [H, W]."""
    import cv2

    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def estimate_flow(
    first: UInt8[np.ndarray, "height width"], second: UInt8[np.ndarray, "height width"]
) -> FlowPair:
    """Return the forward and backward flow between two grey images [H, W].

    Reference: Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016; OpenCV's
    medium preset.
    """
    import cv2

    dis = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    empty = np.zeros((*first.shape, 2), np.float32)
    forward = dis.calc(first, second, empty.copy())
    return FlowPair(first, second, forward, dis.calc(second, first, empty))


def follow_points(
    pair: FlowPair, xy: Float32[np.ndarray, "points 2"]
) -> tuple[
    Float32[np.ndarray, "points 2"], Float32[np.ndarray, " points"], Bool[np.ndarray, " points"]
]:
    """Move points from the first image to the second.

    Args:
        pair: the images and their flow.
        xy: [N, 2] px in the first image.

    Returns:
        Their positions [N, 2] px in the second, the squared forward-backward error [N] px^2 of the
        flow, and whether each step is valid [N]: it ends inside the image, forward and backward
        flow agree, and so do the images.
    """
    height, width = pair.first.shape
    f = sample_bilinear(pair.forward, xy)
    b = sample_bilinear(pair.backward, xy + f)
    error = ((f + b) ** 2).sum(1)
    valid = error < RELATIVE * ((f**2).sum(1) + (b**2).sum(1)) + ABSOLUTE
    moved = refine_points(pair.first, pair.second, xy, xy + f)
    valid &= ((moved >= 0) & (moved <= (width, height))).all(1)
    return moved, error, valid & look_alike(pair.first, pair.second, xy, moved)


def refine_points(
    first: UInt8[np.ndarray, "height width"],
    second: UInt8[np.ndarray, "height width"],
    xy_first: Float[np.ndarray, "points 2"],
    xy_second: Float[np.ndarray, "points 2"],
) -> Float[np.ndarray, "points 2"]:
    """Return positions [N, 2] px in the second image, matched to those in the first.

    By Lucas-Kanade on small windows, initialised at `xy_second` [N, 2] px; where it does not
    converge within `MAX_CORRECTION` px, that is returned.
    """
    import cv2

    if not len(xy_first):
        return xy_second
    window = max(9, 2 * round(max(first.shape) * WINDOW_SHARE / 2) + 1)
    start = (xy_second - 0.5).astype(np.float32)[:, None]
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        first,
        second,
        (xy_first - 0.5).astype(np.float32)[:, None],
        start.copy(),
        winSize=(window, window),
        maxLevel=0,
        criteria=(cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 10, 0.01),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    near = np.linalg.norm(found - start, axis=2) < MAX_CORRECTION
    return np.where((status > 0) & near, found[:, 0] + 0.5, xy_second).astype(np.float32)


def sample_bilinear(
    image: Shaped[np.ndarray, "height width *channels"], xy: Float[np.ndarray, "points 2"]
) -> Shaped[np.ndarray, " points *channels"]:
    """Return the values [N, ...] of an image [H, W, ...] at positions [N, 2] px, interpolated.

    Outside of the image its border is repeated.
    """
    import cv2

    count = len(xy)
    x, y = np.zeros((2, -(-count // _ROW), _ROW), np.float32)
    x.flat[:count], y.flat[:count] = np.asarray(xy, np.float32).T - 0.5
    if not count:
        return np.zeros((0, *image.shape[2:]), image.dtype)
    values = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return values.reshape(-1, *image.shape[2:])[:count]


def sample_patches(
    image: UInt8[np.ndarray, "height width"], xy: Float[np.ndarray, "points 2"]
) -> Float32[np.ndarray, "points pixels"]:
    """Return the patches [N, PATCH^2] of a grey image [H, W] around positions [N, 2] px.

    The image is smoothed lightly, which reduces the effect of errors below a pixel.
    """
    import cv2

    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.8)
    side = np.arange(PATCH, dtype=np.float32) - (PATCH - 1) / 2
    offsets = np.stack(np.meshgrid(side, side), -1).reshape(1, -1, 2)
    size = np.array(image.shape[::-1], np.float32)
    at = np.clip(xy, -PATCH, size + PATCH)[:, None] + offsets  # cv2 fails on very large numbers
    return sample_bilinear(smooth, at.reshape(-1, 2)).reshape(len(xy), PATCH**2)


def look_alike(
    first: UInt8[np.ndarray, "height width"],
    second: UInt8[np.ndarray, "height width"],
    xy_first: Float[np.ndarray, "points 2"],
    xy_second: Float[np.ndarray, "points 2"],
) -> Bool[np.ndarray, " points"]:
    """Return whether [N] the patches around two positions [N, 2] px of each point are similar.

    Similar is where the mean squared difference of the zero-mean patches is below `MAX_DIFFERENCE`
    of their contrast.
    """
    a, b = sample_patches(first, xy_first), sample_patches(second, xy_second)
    a, b = (patch - patch.mean(1, keepdims=True) for patch in (a, b))
    contrast = ((a**2).mean(1) + (b**2).mean(1)) / 2
    return ((a - b) ** 2).mean(1) / (contrast + NOISE**2) < MAX_DIFFERENCE
