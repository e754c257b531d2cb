"""What a segmentation network is told of the objects: points and boxes, by the user or by motion.

`--prompts FILE` is JSON, in pixels and frames of the video at its full size:

    {"prompts": [{"object": 1, "frame": 0, "points": [[412, 230], [300, 90]], "labels": [1, 0]},
                 {"object": 2, "frame": 12, "box": [40, 60, 220, 310]}]}

Label 1 is on the object, 0 off it; without labels all points are on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdyn.errors import InputError
from msdyn.files import read_json
from msdyn.scene import IGNORE, STATIC, Scene

__all__ = ["Prompt", "prompts_from_masks", "read_prompts"]

# An object is prompted in the frames that show it best, this many at most and this share of the
# clip apart, each at least this good in comparison with the best one.
MAX_FRAMES, MIN_APART, MIN_GOODNESS = 3, 0.2, 0.8
MAX_POINTS = 3
MIN_PIXELS = 30  # of the half-size mask


@dataclass(frozen=True)
class Prompt:
    """What is said of one object in one frame.

    Attributes:
        object: its label, 1..254.
        frame: index in the scene.
        points: [P, 2] px of the scene's images.
        labels: [P] 1 on the object, 0 off it.
        box: (x0, y0, x1, y1) px around it, or None.
    """

    object: int
    frame: int
    points: np.ndarray
    labels: np.ndarray
    box: tuple[float, float, float, float] | None = None


def read_prompts(path: str | os.PathLike, scene: Scene) -> list[Prompt]:
    """Read a file of prompts, for the frames and the size of a scene.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a key is missing or wrong, a frame was not kept, a point lies outside.
    """
    path = Path(path)
    content = read_json(path)
    entries = content.get("prompts") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f'{path}: prompts: expected a list such as [{{"object": 1, "frame": 0, '
            f'"points": [[x, y]]}}], got {entries!r}'
        )
    return [_parse(entry, f"{path}: prompt {i}", scene) for i, entry in enumerate(entries)]


def _parse(entry: Any, where: str, scene: Scene) -> Prompt:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object, got {entry!r}")
    label, frame = entry.get("object", 1), entry.get("frame")
    if not isinstance(label, int) or not 1 <= label < IGNORE:
        raise InputError(f"{where}: object: expected 1 to {IGNORE - 1}, got {label!r}")
    options = scene.info.stages["frames"]["options"]
    kept = options["source_frames"]
    if frame not in kept:
        nearest = min(kept, key=lambda f: abs(f - frame)) if isinstance(frame, int) else kept[0]
        raise InputError(
            f"{where}: frame: expected a frame of the video that is kept, got {frame!r}; "
            f"the nearest one is {nearest}"
        )
    size = np.array([options["source_width"], options["source_height"]], np.float64)
    factor = np.array([scene.info.width, scene.info.height]) / size
    points = _numbers(entry.get("points", []), 2, f"{where}: points", size)
    labels = np.asarray(entry.get("labels", [1] * len(points)))
    if labels.shape != (len(points),) or not set(labels.tolist()) <= {0, 1}:
        raise InputError(f"{where}: labels: expected {len(points)} of 0 or 1, got {labels}")
    box = None
    if "box" in entry:
        corners = _numbers([entry["box"]], 4, f"{where}: box", np.tile(size, 2))[0]
        if (corners[:2] >= corners[2:]).any():
            raise InputError(f"{where}: box: expected x0 < x1 and y0 < y1, got {entry['box']}")
        x0, y0, x1, y1 = (corners * np.tile(factor, 2)).tolist()
        box = (x0, y0, x1, y1)
    if box is None and not (labels == 1).any():
        raise InputError(f"{where}: expected a box, or at least one point on the object")
    return Prompt(label, kept.index(frame), points * factor, labels.astype(int), box)


def _numbers(values: Any, columns: int, where: str, most: np.ndarray) -> np.ndarray:
    try:
        table = np.asarray(values, np.float64).reshape(-1, columns) if values else None
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected rows of {columns} numbers ({error})") from error
    if table is None:
        return np.zeros((0, columns))
    if not np.isfinite(table).all() or (table < 0).any() or (table > most).any():
        raise InputError(
            f"{where}: expected pixels within the video's {most[0]:.0f}x{most[1]:.0f}, "
            f"got {table.tolist()}"
        )
    return table


def prompts_from_masks(masks: Iterable[np.ndarray]) -> list[Prompt]:
    """Return prompts for each object of index masks, in the frames that show it best.

    A frame is good where the object is large, and about where it was in the frames beside it. The
    points lie deepest inside it; the centres of the others are points off it.

    Args:
        masks: T index masks [H, W] uint8 at full size, taken once and kept at half size.
    """
    small = np.stack([mask[::2, ::2] for mask in masks])
    prompts = []
    for label in np.setdiff1d(np.unique(small), [STATIC, IGNORE]).tolist():
        for frame in _best_frames(small == label):
            prompts.append(_prompt_of(small[frame], label, frame))
    return prompts


def _best_frames(shown: np.ndarray) -> list[int]:
    """Return the frames that show an object [T, h, w] bool best, best first."""
    area = shown.sum((1, 2)).astype(np.float64)
    usual = np.median(area[area >= MIN_PIXELS]) if (area >= MIN_PIXELS).any() else 0.0
    if not usual:
        return []
    overlap = np.array([_overlap(shown[t], shown[t + 1]) for t in range(len(shown) - 1)])
    steady = np.ones(len(shown))
    if len(overlap):
        steady = np.minimum(np.append(overlap, overlap[-1]), np.append(overlap[0], overlap))
    goodness = np.minimum(area / usual, 1) * (0.5 + 0.5 * steady) * (area >= MIN_PIXELS)
    chosen: list[int] = []
    for frame in np.argsort(-goodness, kind="stable").tolist():
        if goodness[frame] < MIN_GOODNESS * goodness.max() or len(chosen) == MAX_FRAMES:
            break
        if all(abs(frame - other) >= MIN_APART * len(shown) for other in chosen):
            chosen.append(frame)
    return chosen


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0


def _prompt_of(mask: np.ndarray, label: int, frame: int) -> Prompt:
    """Return the prompt of an object in a half-size mask [h, w]."""
    own = mask == label
    points = _deep_points(own, MAX_POINTS)
    others = [
        _deep_points(mask == other, 1)
        for other in np.setdiff1d(np.unique(mask), [STATIC, IGNORE, label])
    ]
    off = np.concatenate([np.zeros((0, 2)), *others])
    rows, columns = np.nonzero(own)
    box = (
        2.0 * columns.min(),
        2.0 * rows.min(),
        2.0 * (columns.max() + 1),
        2.0 * (rows.max() + 1),
    )
    return Prompt(
        label,
        frame,
        np.concatenate([points, off]),
        np.array([1] * len(points) + [0] * len(off)),
        box,
    )


def _deep_points(own: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` points [P, 2] px, deep inside a half-size mask and apart."""
    import cv2

    inside = cv2.distanceTransform(np.pad(own.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    rows, columns = np.mgrid[: own.shape[0], : own.shape[1]]
    points = []
    deepest = float(inside.max())
    for _ in range(count):
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        if inside[row, column] < max(0.5 * deepest, 1.0):
            break
        points.append((2.0 * column + 1, 2.0 * row + 1))
        inside = np.where(np.hypot(rows - row, columns - column) < 2 * deepest, 0, inside)
    return np.array(points, np.float64).reshape(-1, 2)
