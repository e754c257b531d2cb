"""Pictures of the report: small frames with their masks, depth and tracks, as data URIs."""

from __future__ import annotations

import base64
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

from msdyn.scene import IGNORE, STATIC, Scene, frame_path

__all__ = ["OBJECT_COLOURS", "contact_sheet"]

Image: TypeAlias = UInt8[np.ndarray, "height width 3"]

OBJECT_COLOURS = (
    (230, 40, 40), (40, 170, 60), (60, 90, 250), (240, 200, 30), (200, 60, 220), (30, 190, 200),
)  # fmt: skip
WIDTH = 300
COLUMNS = 6
TRAIL = 6  # frames of a track that are drawn
MAX_TRAILS = 500
QUALITY = 80


def contact_sheet(scene: Scene) -> dict[str, list[tuple[int, str]]]:
    """Return rows of pictures by their title: the index of a frame and an image as a data URI.

    Rows of stages that are not done are left out.
    """
    frames = np.unique(np.linspace(0, len(scene) - 1, COLUMNS).astype(int)).tolist()
    directory, stages = scene.directory, scene.info.stages
    rows = {"frames": [(t, _uri(_small(scene.image(t)))) for t in frames]}
    if "masks" in stages and (directory / "masks").is_dir():
        rows["masks"] = [(t, _uri(_masked(scene, t))) for t in frames]
    if "depth" in stages and (directory / "depth").is_dir():
        rows["depth"] = _depth_row(scene, frames)
    if "depth" in rows and (directory / "depth_confidence").is_dir():
        rows["confidence of depth"] = [(t, _uri(_small(_confidence(scene, t)))) for t in frames]
    if "tracks" in stages and (directory / "tracks.npz").is_file():
        rows["tracks"] = [(t, _uri(_tracked(scene, t))) for t in frames]
    return rows


def _masked(scene: Scene, frame: int) -> Image:
    """Return a frame tinted by its objects."""
    image, mask = scene.image(frame), scene.mask(frame)
    colours = np.array(OBJECT_COLOURS)[(mask.astype(int) - 1) % len(OBJECT_COLOURS)]
    colours[mask == IGNORE] = 128
    tinted = image // 2 + (colours // 2).astype(np.uint8)
    return _small(np.where((mask != STATIC)[..., None], tinted, image))


def _depth_row(scene: Scene, frames: list[int]) -> list[tuple[int, str]]:
    """Return pictures of inverse depth in a common scale: near is light, unknown is grey."""
    import cv2

    depths = [scene.depth(t) for t in frames]
    known = np.concatenate([1 / depth[depth > 0][::37] for depth in depths])
    low, high = np.percentile(known, (2, 98)) if len(known) else (0.0, 1.0)
    row = []
    for frame, depth in zip(frames, depths, strict=True):
        inverse = 1 / np.maximum(depth, 1e-9)
        level = (255 * (inverse - low) / max(high - low, 1e-12)).clip(0, 255).astype(np.uint8)
        coloured = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1]
        coloured = np.where((depth > 0)[..., None], coloured, np.uint8(128))
        row.append((frame, _uri(_small(coloured))))
    return row


def _confidence(scene: Scene, frame: int) -> Image:
    """Return the confidence of depth: white confirmed, grey completed, dark assumed."""
    import imageio.v3 as iio

    grey = iio.imread(frame_path(scene.directory / "depth_confidence", frame, ".png"))
    return np.repeat(grey[..., None], 3, axis=2)


def _tracked(scene: Scene, frame: int) -> Image:
    """Return a frame with the last positions of its tracks."""
    import cv2

    tracks = scene.tracks
    canvas = _small(scene.image(frame)) // 2
    scale = canvas.shape[1] / scene.info.width
    first = max(0, frame - TRAIL)
    rows, _ = tracks.at(frame)
    few = tracks.select(rows[:: max(1, len(rows) // MAX_TRAILS)])
    trails = few.xy[:, first : frame + 1], few.visible[:, first : frame + 1], few.object.tolist()
    for xy, visible, label in zip(*trails, strict=True):
        path = np.round(4 * scale * xy[visible]).astype(np.int32)  # quarters of a pixel
        colour = (
            OBJECT_COLOURS[(label - 1) % len(OBJECT_COLOURS)] if label > 0 else
            (235, 235, 235) if label == STATIC else (130, 130, 130)
        )  # fmt: skip
        cv2.polylines(canvas, [path], False, colour, 1, cv2.LINE_AA, shift=2)
        cv2.circle(canvas, path[-1].tolist(), 4, colour, -1, cv2.LINE_AA, shift=2)
    return canvas


def _small(image: Image) -> UInt8[np.ndarray, "h w 3"]:
    """Return an image resampled to `WIDTH` px."""
    import cv2

    height = max(1, round(WIDTH * image.shape[0] / image.shape[1]))
    method = cv2.INTER_AREA if image.shape[1] > WIDTH else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(image), (WIDTH, height), interpolation=method)


def _uri(image: Image) -> str:
    """Return an image as a data URI."""
    import cv2

    bgr = np.ascontiguousarray(image[..., ::-1])
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
