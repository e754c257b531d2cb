"""Clips of moving images with exactly known motion, for the tests of preprocessing."""

import struct
from pathlib import Path

import cv2
import numpy as np

from msdyn.scene import Scene, Timeline, create_scene, frame_path, stamp_stage, write_image

MARGIN = 60


def texture(height, width, seed=0):
    """Return an image [H, W, 3] uint8 with detail at several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cell, weight in ((2, 0.6), (5, 1.0), (13, 1.0), (40, 0.6)):
        small = rng.standard_normal((height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        total += weight * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(127 + 45 * total, 0, 255).astype(np.uint8)


def turn_about(centre, degrees, shift):
    """Return the 3x3 map of a rotation about `centre` (x, y) and a translation by (dx, dy) px."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = centre
    return np.array(
        [[c, -s, x - c * x + s * y + shift[0]], [s, c, y - s * x - c * y + shift[1]], [0, 0, 1.0]]
    )


def apply(matrix, xy):
    """Map points [..., 2] by a 3x3 matrix."""
    mapped = np.concatenate([xy, np.ones_like(xy[..., :1])], -1) @ matrix.T
    return mapped[..., :2] / mapped[..., 2:]


def warped(image, now_from_first, size):
    """Return a later frame of `image`, which has a margin of `MARGIN` px around the first frame.

    Args:
        image: [H + 2 MARGIN, W + 2 MARGIN, 3].
        now_from_first: 3x3, px of the first frame (centres at +0.5) to px of this one.
        size: (height, width).
    """
    first_from_image = np.array([[1, 0, -MARGIN], [0, 1, -MARGIN], [0, 0, 1.0]])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])  # cv2 puts pixel centres at 0
    matrix = np.linalg.inv(half) @ now_from_first @ first_from_image @ half
    return cv2.warpPerspective(
        image, matrix, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def paste(frame, sprite, at):
    """Paste a sprite [h, w, 3] on a copy of a frame, its top left at the whole pixel (x, y)."""
    x, y = at
    frame = frame.copy()
    height, width = frame.shape[:2]
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + sprite.shape[1], width), min(y + sprite.shape[0], height)
    mask = np.zeros((height, width), bool)
    if x1 > x0 and y1 > y0:
        frame[y0:y1, x0:x1] = sprite[y0 - y : y1 - y, x0 - x : x1 - x]
        mask[y0:y1, x0:x1] = True
    return frame, mask


def panning(frames, size, degrees=0.0, shift=(1.0, 0.5), seed=0):
    """Return a rotating and translating background [T, H, W, 3], and its maps [T, 3, 3]."""
    image = texture(size[0] + 2 * MARGIN, size[1] + 2 * MARGIN, seed)
    centre = (size[1] / 2, size[0] / 2)
    maps = np.stack(
        [turn_about(centre, degrees * t, (shift[0] * t, shift[1] * t)) for t in range(frames)]
    )
    return np.stack([warped(image, matrix, size) for matrix in maps]), maps


def write_scene(directory: Path, frames: np.ndarray, fps: float = 24.0) -> Scene:
    """Write a scene directory whose frames stage is done."""
    count, height, width = frames.shape[:3]
    create_scene(
        directory, width=width, height=height, fps=fps, timeline=Timeline.uniform(count, fps)
    )
    for i, frame in enumerate(frames):
        write_image(frame_path(directory / "images", i, ".png"), frame)
    options = {
        "source": "clip.mp4",
        "source_frames": list(range(count)),
        "source_frame_count": count,
        "source_width": width,
        "source_height": height,
    }
    stamp_stage(
        directory, "frames", backend="video", options=options, input_hash="frames", seconds=0.0
    )
    return Scene(directory)


def turn(path, degrees_clockwise):
    """Write how a player is to turn the picture into the track header of an mp4."""
    # QuickTime File Format, "Matrices": x' = a x + c y + tx, y' = b x + d y + ty, stored as a b u,
    # c d v, tx ty w; the matrix lies 40 bytes into the body of a version 0 `tkhd`.
    c, s = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees_clockwise]
    one = 1 << 16
    matrix = struct.pack(">9i", c * one, s * one, 0, -s * one, c * one, 0, 0, 0, 1 << 30)
    content = bytearray(path.read_bytes())
    body = content.index(b"tkhd") + 4
    content[body + 40 : body + 76] = matrix
    path.write_bytes(content)


def iou(a, b):
    """Return the intersection over union of two masks."""
    union = (a | b).sum()
    return (a & b).sum() / union if union else 1.0
