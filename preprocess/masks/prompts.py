"""Prompts for a segmentation network: points and boxes on the objects, by the user or by motion.

`--prompts FILE` is JSON, in pixels and frames of the video at its full size:

    {"prompts": [{"object": 1, "frame": 0, "points": [[412, 230], [300, 90]], "labels": [1, 0]},
                 {"object": 2, "frame": 12, "box": [40, 60, 220, 310]}]}

Label 1 is on the object, 0 off it; by default all points are on it. With points or a box, "text" is
the name of the object; alone, as in {"text": "red mug"}, it is a phrase, and a network that takes
text finds all objects that it describes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from msdyn.errors import InputError
from msdyn.preprocess.contracts import Mask
from msdyn.preprocess.frame_matching import pixels_in_scene
from msdyn.preprocess.phrases import parse_phrases
from msdyn.reading import read_json, reading, shown
from msdyn.scene import IGNORE, STATIC, Scene

__all__ = ["Prompt", "prompts_from_masks", "read_phrases", "read_prompts"]

# An object is prompted in at most so many frames, so far apart (share of the clip), whose score is
# at least this share of the highest one.
MAX_FRAMES, MIN_APART, MIN_SCORE = 3, 0.2, 0.8
MAX_POINTS = 3
MIN_PIXELS = 30  # of the half-size mask


@dataclass(frozen=True)
class Prompt:
    """Points and a box of one object in one frame.

    Attributes:
        object: its label, 1..254.
        frame: index in the scene.
        points: [P, 2] px of the scene's images.
        labels: [P] 1 on the object, 0 off it.
        box: (x0, y0, x1, y1) px around it, or None.
        name: of the object, empty where it has none.
    """

    object: int
    frame: int
    points: Float[np.ndarray, "points 2"]
    labels: Int[np.ndarray, " points"]
    box: tuple[float, float, float, float] | None = None
    name: str = ""


def read_prompts(path: str | os.PathLike, scene: Scene) -> list[Prompt]:
    """Return the points and boxes of a file, in frames and pixels of a scene.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a key is missing or invalid, a frame is not in the scene, a point is outside of
            the image.
    """
    path = Path(path)
    with reading(path, "file of prompts"):
        return [
            _parse(entry, f"{path}: prompt {i}", scene)
            for i, entry in enumerate(_entries(path))
            if not _is_phrase(entry)
        ]


def read_phrases(path: str | os.PathLike) -> tuple[str, ...]:
    """Return the phrases of a file: the texts of entries without points and box.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a text is invalid.
    """
    path = Path(path)
    phrases = []
    with reading(path, "file of prompts"):
        for i, entry in enumerate(_entries(path)):
            if _is_phrase(entry):
                if more := set(entry) - {"text"}:
                    raise InputError(
                        f"{path}: prompt {i}: a text alone finds objects of its own, without "
                        f"{', '.join(sorted(more))}; add points or a box, or leave that out"
                    )
                phrases.append(_text(entry, f"{path}: prompt {i}"))
    return tuple(dict.fromkeys(phrases))


def _entries(path: Path) -> list[Any]:
    """Return the list of prompts of a file."""
    content = read_json(path)
    entries = content.get("prompts") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f'{path}: prompts: expected a list such as [{{"object": 1, "frame": 0, '
            f'"points": [[x, y]]}}], got {shown(entries)}'
        )
    return entries


def _is_phrase(entry: Any) -> bool:
    """Return whether a JSON value is a text without points and box."""
    return isinstance(entry, dict) and "text" in entry and not {"points", "box"} & set(entry)


def _text(entry: dict[str, Any], where: str) -> str:
    """Return the text of a JSON value, empty where it has none."""
    if "text" not in entry:
        return ""
    text = entry["text"]
    refused = f"{where}: text: expected one noun phrase, got {shown(text)}"
    try:
        phrases = parse_phrases(text) if isinstance(text, str) else ()
    except InputError as error:
        raise InputError(refused) from error
    if len(phrases) != 1:
        raise InputError(refused)
    return phrases[0]


def _parse(entry: Any, where: str, scene: Scene) -> Prompt:
    """Return the prompt of a JSON value; `where` begins the errors."""
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object, got {shown(entry)}")
    label, frame = entry.get("object", 1), entry.get("frame")
    if type(label) is not int or not 1 <= label < IGNORE:
        raise InputError(f"{where}: object: expected 1 to {IGNORE - 1}, got {shown(label)}")
    options = scene.info.stages["frames"]["options"]
    kept = options["source_frames"]
    if type(frame) is not int or frame not in kept:
        nearest = min(kept, key=lambda f: abs(f - frame)) if isinstance(frame, int) else kept[0]
        raise InputError(
            f"{where}: frame: expected a frame of the video that is kept, got {shown(frame)}; "
            f"the nearest one is {nearest}"
        )
    size = np.array([options["source_width"], options["source_height"]], np.float64)
    row = kept.index(frame)
    points = _numbers(entry.get("points", []), 2, f"{where}: points", size)
    labels = np.asarray(entry.get("labels", [1] * len(points)))
    if labels.shape != (len(points),) or not set(labels.tolist()) <= {0, 1}:
        raise InputError(
            f"{where}: labels: expected {len(points)} of 0 or 1, got {shown(labels.tolist())}"
        )
    box = None
    if "box" in entry:
        corners = _numbers([entry["box"]], 4, f"{where}: box", np.tile(size, 2))[0]
        if (corners[:2] >= corners[2:]).any():
            raise InputError(
                f"{where}: box: expected x0 < x1 and y0 < y1, got {shown(entry['box'])}"
            )
        sides = corners.reshape(2, 2)
        (x0, y0), (x1, y1) = pixels_in_scene(scene, np.full(2, row), sides)[0].tolist()
        box = (x0, y0, x1, y1)
    if box is None and not (labels == 1).any():
        raise InputError(f"{where}: expected a box, or at least one point on the object")
    moved, inside = pixels_in_scene(scene, np.full(len(points), row), points)
    name = _text(entry, where)
    return Prompt(label, row, moved[inside], labels[inside].astype(int), box, name)


def _numbers(
    values: Any, columns: int, where: str, largest: Float[np.ndarray, " columns"]
) -> Float[np.ndarray, "rows columns"]:
    """Return rows of numbers from a JSON value, between 0 and the largest of each column."""
    try:
        table = np.asarray(values, np.float64).reshape(-1, columns) if values else None
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected rows of {columns} numbers ({error})") from error
    if table is None:
        return np.zeros((0, columns))
    if not np.isfinite(table).all() or (table < 0).any() or (table > largest).any():
        raise InputError(
            f"{where}: expected pixels within the video's {largest[0]:.0f}x{largest[1]:.0f}, "
            f"got {shown(table.tolist())}"
        )
    return table


def prompts_from_masks(masks: Iterable[Mask]) -> list[Prompt]:
    """Return prompts for each object of index masks, in the frames that show it best.

    A frame scores high where the object is large, and overlaps with itself in the frames before and
    after. The points on the object are those farthest from its outline; points off it are such
    points of the other objects.

    Args:
        masks: T index masks [H, W] at full size, iterated over once and kept at half size.
    """
    small = np.stack([mask[::2, ::2] for mask in masks])
    prompts = []
    for label in np.setdiff1d(np.unique(small), [STATIC, IGNORE]).tolist():
        for frame in _best_frames(small == label):
            prompts.append(_prompt_of(small[frame], label, frame))
    return prompts


def _best_frames(object_masks: Bool[np.ndarray, "frames height width"]) -> list[int]:
    """Return the frames that show an object [T, h, w] best, best first."""
    area = object_masks.sum((1, 2)).astype(np.float64)
    typical = np.median(area[area >= MIN_PIXELS]) if (area >= MIN_PIXELS).any() else 0.0
    if not typical:
        return []
    frames = len(object_masks)
    overlap = np.array([_overlap(object_masks[t], object_masks[t + 1]) for t in range(frames - 1)])
    steady = np.ones(frames)
    if len(overlap):
        steady = np.minimum(np.append(overlap, overlap[-1]), np.append(overlap[0], overlap))
    score = np.minimum(area / typical, 1) * (0.5 + 0.5 * steady) * (area >= MIN_PIXELS)
    chosen: list[int] = []
    for frame in np.argsort(-score, kind="stable").tolist():
        if score[frame] < MIN_SCORE * score.max() or len(chosen) == MAX_FRAMES:
            break
        if all(abs(frame - other) >= MIN_APART * frames for other in chosen):
            chosen.append(frame)
    return chosen


def _overlap(a: Bool[np.ndarray, "height width"], b: Bool[np.ndarray, "height width"]) -> float:
    """Return the intersection over union of two masks."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0


def _prompt_of(mask: Mask, label: int, frame: int) -> Prompt:
    """Return the prompt of an object in a half-size mask."""
    own = mask == label
    points = _inner_points(own, MAX_POINTS)
    others = [
        _inner_points(mask == other, 1)
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


def _inner_points(
    own: Bool[np.ndarray, "height width"], count: int
) -> Float[np.ndarray, "points 2"]:
    """Return up to `count` points [P, 2] px, far from the outline of a half-size mask and apart."""
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
