"""False-colour images of depth, object labels, optical flow, errors and point trails."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

__all__ = [
    "colour_depth",
    "colour_flow",
    "colour_objects",
    "depth_range",
    "draw_trails",
    "error_image",
    "object_palette",
]


def object_palette() -> UInt8[np.ndarray, "256 3"]:
    """Return the colour of each mask index: dark grey for 0, white for 255.

    Consecutive hues are a golden angle apart, so that neighbouring labels differ.
    """
    from matplotlib.colors import hsv_to_rgb

    index = np.arange(256)
    hue = (0.02 + index * 0.381966) % 1
    value = np.where(index % 2 == 1, 0.95, 0.75)
    colours = hsv_to_rgb(np.stack([hue, np.full(256, 0.7), value], axis=-1))
    palette = (colours * 255).round().astype(np.uint8)
    palette[0], palette[255] = (48, 50, 56), 255
    return palette


def colour_objects(
    objects: Integer[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an index map as an image."""
    return object_palette()[objects]


def depth_range(depths: Iterable[Float[np.ndarray, "height width"]]) -> tuple[float, float]:
    """Return the ends of the colour scale of depth maps, `nearest` and `farthest`.

    They leave out a fiftieth at either end; the reports of preprocessing and of the fit both take
    the depth maps of the scene, so that a colour is the same depth in both.
    """
    known = [depth[np.isfinite(depth) & (depth > 0)][::37] for depth in depths]
    everything = np.concatenate(known) if known else np.zeros(0)
    if not len(everything):
        return 1.0, 2.0
    near, far = np.percentile(everything, (2, 98))
    return float(near), float(far)


def colour_depth(
    depth: Float[np.ndarray, "height width"], nearest: float, farthest: float
) -> UInt8[np.ndarray, "height width 3"]:
    """Return z-depth as an image: near is warm, unknown (<= 0) is black.

    The colour is linear in inverse depth; `nearest` and `farthest`, in scene units, are the ends of
    the colour map.
    """
    from matplotlib import colormaps

    inverse = 1 / np.maximum(depth, 1e-12)
    low, high = 1 / farthest, 1 / nearest
    fraction = ((inverse - low) / max(high - low, 1e-12)).clip(0, 1)
    colours = (colormaps["turbo"](fraction)[..., :3] * 255).round().astype(np.uint8)
    colours[depth <= 0] = 0
    return colours


def colour_flow(
    flow: Float[np.ndarray, "height width 2"],
    valid: Bool[np.ndarray, "height width"],
    longest: float,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return optical flow (px) as an image.

    Hue is the direction and saturation the length: zero flow is white, `longest` px or more is
    fully saturated. Pixels without valid flow are grey.
    """
    from matplotlib.colors import hsv_to_rgb

    length = np.linalg.norm(flow, axis=-1)
    hue = (np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi)) % 1
    saturation = (length / max(longest, 1e-9)).clip(0, 1)
    colours = hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], axis=-1))
    result = (colours * 255).round().astype(np.uint8)
    result[~valid] = 90
    return result


def error_image(
    image: UInt8[np.ndarray, "height width 3"],
    truth: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the mean absolute difference of two images as a heat map.

    Black is no difference, white a quarter of the range or more; pixels outside the mask are
    blue-grey.
    """
    from matplotlib import colormaps

    difference = np.abs(image.astype(float) - truth.astype(float)).mean(-1) / 64
    heat = (colormaps["inferno"](difference.clip(0, 1))[..., :3] * 255).astype(np.uint8)
    if mask is not None:
        heat[~mask] = (70, 80, 100)
    return heat


def draw_trails(
    image: UInt8[np.ndarray, "height width 3"],
    trails: Float[np.ndarray, "trails points 2"],
    colours: UInt8[np.ndarray, "trails 3"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image with trails drawn on it.

    Args:
        image: background.
        trails: px, from the oldest to the newest point; a NaN interrupts a trail.
        colours: RGB of each trail.

    Returns:
        The image; older parts of trails are fainter, the newest point is a dot.
    """
    import cv2

    height, width = image.shape[:2]
    scale = 3 if max(height, width) <= 640 else 2
    large = cv2.resize(image, (width * scale, height * scale), interpolation=cv2.INTER_LINEAR)
    # OpenCV's fixed-point coordinates overflow far outside the image.
    near = (np.abs(trails) < 16 * max(height, width)).all(-1)
    points = np.where(near[..., None], trails * scale, np.nan)
    steps = trails.shape[1]
    for step in range(1, steps):
        layer = large.copy()
        finite = np.isfinite(points[:, step - 1 : step + 1]).all((1, 2))
        for trail in np.flatnonzero(finite):
            ends = points[trail, step - 1 : step + 1].round().astype(int).tolist()
            colour = colours[trail].tolist()
            cv2.line(layer, ends[0], ends[1], colour, max(scale - 1, 1), cv2.LINE_AA)
        large = cv2.addWeighted(layer, step / (steps - 1), large, 1 - step / (steps - 1), 0)
    for trail in np.flatnonzero(np.isfinite(points[:, -1]).all(-1)):
        centre = points[trail, -1].round().astype(int).tolist()
        cv2.circle(large, centre, scale, colours[trail].tolist(), -1, cv2.LINE_AA)
    return cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
