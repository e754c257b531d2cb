"""Contact sheet of the report: sampled frames with their masks, depth and tracks."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

from msdyn.colours import colour_depth, depth_range, draw_trails, object_palette
from msdyn.scene import IGNORE, STATIC, Scene

__all__ = ["WIDTH", "contact_sheet", "sampled_frames"]

Image: TypeAlias = UInt8[np.ndarray, "height width 3"]

WIDTH = 300
COLUMNS = 6
TRAIL = 6  # frames per track that are drawn
MAX_TRAILS = 500
GREY = 130
"""Level of what has no label or no depth."""


def contact_sheet(scene: Scene) -> dict[str, list[tuple[int, Image]]]:
    """Return rows of pictures by their title: frame index and image [H, W, 3], `WIDTH` px wide.

    Rows of stages that are not done are left out.
    """
    frames = sampled_frames(scene)
    directory, stages = scene.directory, scene.info.stages
    rows = {"frames": [(t, _small(scene.image(t))) for t in frames]}
    if "masks" in stages and (directory / "masks").is_dir():
        rows["masks"] = [(t, _masked(scene, t)) for t in frames]
    if "depth" in stages and (directory / "depth").is_dir():
        rows["depth"] = _depths(scene, frames)
    if "depth" in rows and (directory / "depth_confidence").is_dir():
        rows["confidence of depth"] = [(t, _confidence(scene, t)) for t in frames]
    if "tracks" in stages and (directory / "tracks.npz").is_file():
        rows["tracks"] = [(t, _tracked(scene, t)) for t in frames]
    return rows


def sampled_frames(scene: Scene) -> list[int]:
    """Return the frames of the contact sheet, evenly spaced."""
    return np.unique(np.linspace(0, len(scene) - 1, COLUMNS).astype(int)).tolist()


def _palette() -> UInt8[np.ndarray, "256 3"]:
    """Return the colours of mask indices, with grey for `IGNORE`."""
    palette = object_palette()
    palette[IGNORE] = GREY
    return palette


def _masked(scene: Scene, frame: int) -> Image:
    """Return a frame tinted by its objects."""
    image, mask = scene.image(frame), scene.mask(frame)
    tinted = image // 2 + _palette()[mask] // 2
    return _small(np.where((mask != STATIC)[..., None], tinted, image))


def _depths(scene: Scene, frames: list[int]) -> list[tuple[int, Image]]:
    """Return pictures of inverse depth on a common scale: near is warm, unknown is black."""
    depths = [scene.depth(t) for t in frames]
    near, far = depth_range(depths)
    return [
        (frame, _small(colour_depth(depth, near, far)))
        for frame, depth in zip(frames, depths, strict=True)
    ]


def _confidence(scene: Scene, frame: int) -> Image:
    """Return the confidence of depth: white is triangulated, grey completed, dark assumed."""
    confidence = scene.depth_confidence(frame)
    if confidence is None:
        confidence = np.zeros(scene.size, np.uint8)
    return _small(np.repeat(confidence[..., None], 3, axis=2))


def _tracked(scene: Scene, frame: int) -> Image:
    """Return a frame with the last positions of its tracks, in the colours of their objects."""
    tracks = scene.tracks
    canvas = _small(scene.image(frame)) // 2
    first = max(0, frame - TRAIL)
    rows, _ = tracks.at(frame)
    few = tracks.select(rows[:: max(1, len(rows) // MAX_TRAILS)])
    visible = few.visible[:, first : frame + 1]
    trails = np.where(visible[..., None], few.xy[:, first : frame + 1], np.nan)
    colours = _palette()
    colours[STATIC] = 235
    labels = np.where(few.object >= 0, few.object, IGNORE)
    scale = canvas.shape[1] / scene.info.width
    return draw_trails(canvas, (trails * scale).astype(float), colours[labels])


def _small(image: Image) -> UInt8[np.ndarray, "h w 3"]:
    """Return an image resampled to `WIDTH` px."""
    import cv2

    height = max(1, round(WIDTH * image.shape[0] / image.shape[1]))
    method = cv2.INTER_AREA if image.shape[1] > WIDTH else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(image), (WIDTH, height), interpolation=method)
