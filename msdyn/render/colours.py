"""Pictures of what is not a colour: depth, objects, flow, trails of points."""

from __future__ import annotations

import numpy as np

__all__ = [
    "colour_depth",
    "colour_flow",
    "colour_objects",
    "draw_trails",
    "error_image",
    "object_palette",
]


def object_palette() -> np.ndarray:
    """Return the colour of each mask index, [256, 3] uint8: dark grey for 0, white for 255.

    Hues go round by the golden angle, so that neighbours differ.
    """
    from matplotlib.colors import hsv_to_rgb

    index = np.arange(256)
    hue = (0.02 + index * 0.381966) % 1
    value = np.where(index % 2 == 1, 0.95, 0.75)
    colours = hsv_to_rgb(np.stack([hue, np.full(256, 0.7), value], axis=-1))
    palette = (colours * 255).round().astype(np.uint8)
    palette[0], palette[255] = (48, 50, 56), 255
    return palette


def colour_objects(objects: np.ndarray) -> np.ndarray:
    """Return an index map [H, W] as colours [H, W, 3] uint8."""
    return object_palette()[objects]


def colour_depth(depth: np.ndarray, nearest: float, farthest: float) -> np.ndarray:
    """Return z-depth [H, W] as colours [H, W, 3] uint8: near is warm, unknown (0) black.

    Colours go by inverse depth between the two ends.
    """
    from matplotlib import colormaps

    inverse = 1 / np.maximum(depth, 1e-12)
    low, high = 1 / farthest, 1 / nearest
    share = ((inverse - low) / max(high - low, 1e-12)).clip(0, 1)
    colours = (colormaps["turbo"](share)[..., :3] * 255).round().astype(np.uint8)
    colours[depth <= 0] = 0
    return colours


def colour_flow(flow: np.ndarray, valid: np.ndarray, longest: float) -> np.ndarray:
    """Return optical flow [H, W, 2] as colours [H, W, 3] uint8.

    The direction is the hue, the length the saturation: white stands still, `longest` px or more
    is full. Pixels without flow are grey.
    """
    from matplotlib.colors import hsv_to_rgb

    length = np.linalg.norm(flow, axis=-1)
    hue = (np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi)) % 1
    share = (length / max(longest, 1e-9)).clip(0, 1)
    colours = hsv_to_rgb(np.stack([hue, share, np.ones_like(hue)], axis=-1))
    result = (colours * 255).round().astype(np.uint8)
    result[~valid] = 90
    return result


def error_image(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Return the mean absolute difference of two uint8 images as a heat map [H, W, 3] uint8.

    Black is none, white is a difference of a quarter of the range or more; pixels outside the mask
    are blue-grey.
    """
    from matplotlib import colormaps

    difference = np.abs(image.astype(float) - truth.astype(float)).mean(-1) / 64
    heat = (colormaps["inferno"](difference.clip(0, 1))[..., :3] * 255).astype(np.uint8)
    if mask is not None:
        heat[~mask] = (70, 80, 100)
    return heat


def draw_trails(image: np.ndarray, trails: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return an image with trails drawn on it.

    Args:
        image: [H, W, 3] uint8.
        trails: [N, P, 2] px, from the oldest to the newest point; a NaN breaks a trail.
        colours: [N, 3] uint8.

    Returns:
        [H, W, 3] uint8; older parts are fainter, the newest point is a dot.
    """
    import cv2

    height, width = image.shape[:2]
    scale = 3 if max(height, width) <= 640 else 2
    large = cv2.resize(image, (width * scale, height * scale), interpolation=cv2.INTER_LINEAR)
    # Far outside, OpenCV's fixed-point coordinates would overflow.
    near = (np.abs(trails) < 16 * max(height, width)).all(-1)
    points = np.where(near[..., None], trails * scale, np.nan)
    steps = trails.shape[1]
    for step in range(1, steps):
        layer = large.copy()
        whole = np.isfinite(points[:, step - 1 : step + 1]).all((1, 2))
        for trail in np.flatnonzero(whole):
            ends = points[trail, step - 1 : step + 1].round().astype(int).tolist()
            colour = colours[trail].tolist()
            cv2.line(layer, ends[0], ends[1], colour, max(scale - 1, 1), cv2.LINE_AA)
        large = cv2.addWeighted(layer, step / (steps - 1), large, 1 - step / (steps - 1), 0)
    for trail in np.flatnonzero(np.isfinite(points[:, -1]).all(-1)):
        centre = points[trail, -1].round().astype(int).tolist()
        cv2.circle(large, centre, scale, colours[trail].tolist(), -1, cv2.LINE_AA)
    return cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
