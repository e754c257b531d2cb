"""A contact sheet of a clip: what its shard says of images, depth and motion."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from jaxtyping import Float, UInt8

from msdyn.colours import colour_depth, colour_flow, colour_objects, draw_trails
from msdyn.feedforward.data.stored import StoredClip
from msdyn.indices import evenly_spaced
from msdyn.writing import atomic_path

__all__ = ["save_clip_sheet"]

_GAP = 4
_BACKGROUND = 24
_LARGEST = 320
_SMALLEST = 160
_TRACKS = 150
_FLOW = 0.15
"""Share of the width that is the longest flow in colour."""


def save_clip_sheet(clip: StoredClip, path: Path, frames: int) -> None:
    """Write a PNG with a column for each of some frames of a clip, evenly spaced.

    Rows, as far as the clip has them: images; depth; objects; motion from the frame to the last one
    shown, as flow in the image (poses), or trails of visible tracks; images of the target view at
    the same times.

    Args:
        clip: the clip.
        path: of the picture.
        frames: columns, at most.
    """
    own = np.flatnonzero(~clip.target)
    columns = own[evenly_spaced(len(own), frames)].tolist()
    images = {frame: clip.image(frame) for frame in columns}
    rows = [list(images.values())]
    depths = {frame: clip.depth(frame) for frame in columns}
    known = np.concatenate([d[d > 0] for d in depths.values() if d is not None] or [[]])
    if len(known):
        low, high = np.quantile(known, (0.01, 0.99))
        rows.append(
            [
                np.zeros_like(images[frame])
                if depth is None
                else colour_depth(depth, float(low), float(max(high, low * 1.01)))
                for frame, depth in depths.items()
            ]
        )
    if clip.poses is not None:
        labels = {frame: clip.objects(frame) for frame in columns}
        rows.append([colour_objects(o) for o in labels.values() if o is not None])
        rows.append(
            [_flow(clip, frame, columns[-1], depths[frame], labels[frame]) for frame in columns]
        )
    elif clip.entry.motion == "tracks":
        rows.append(_trails(clip, columns, images))
    others = np.flatnonzero(clip.target)
    if len(others):
        gaps = np.abs(clip.times[others][None] - clip.times[columns][:, None])
        rows.append([clip.image(int(others[nearest])) for nearest in gaps.argmin(axis=1)])
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, _grid(rows), extension=".png")


def _flow(
    clip: StoredClip,
    frame: int,
    last: int,
    depth: Float[np.ndarray, "height width"] | None,
    objects: UInt8[np.ndarray, "height width"] | None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return how the points of a frame move until another one, as the frame's camera sees it."""
    height, width = clip.entry.size
    if depth is None or objects is None or clip.poses is None:
        return np.zeros((height, width, 3), np.uint8)
    sides = np.array([width, height])
    focal, centre = clip.intrinsics[frame, :2] * sides, clip.intrinsics[frame, 2:] * sides
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) + 0.5
    local = np.concatenate([(pixels - centre) / focal, np.ones((height, width, 1))], axis=-1)
    camera = clip.world_from_cam[frame]
    change = clip.poses[last] @ np.linalg.inv(clip.poses[frame])
    change = np.concatenate([np.eye(4)[None], change])
    in_camera = (np.linalg.inv(camera) @ change @ camera)[objects]  # [H, W, 4, 4]
    moved = (in_camera[..., :3, :3] @ (local * depth[..., None])[..., None])[..., 0]
    moved += in_camera[..., :3, 3]
    valid = (depth > 0) & (moved[..., 2] > 1e-6)
    plane = moved[..., :2] / np.where(valid, moved[..., 2], 1)[..., None]
    flow = np.where(valid[..., None], plane * focal + centre - pixels, 0)
    return colour_flow(flow, valid, _FLOW * width)


def _trails(
    clip: StoredClip, columns: list[int], images: dict[int, UInt8[np.ndarray, "height width 3"]]
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """Draw where the tracks that a frame shows have been in the frames shown before it."""
    height, width = clip.entry.size
    tracks = [clip.tracks(frame) for frame in columns]
    places = []
    for frame, (points, visible) in zip(columns, tracks, strict=True):
        camera = clip.world_from_cam[frame]
        local = (points - camera[:3, 3]) @ camera[:3, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            plane = local[:, :2] / local[:, 2:]
            place = plane * clip.intrinsics[frame, :2] + clip.intrinsics[frame, 2:]
        place[~visible | (local[:, 2] <= 0)] = np.nan
        places.append(place * [width, height])
    stacked = np.stack(places, axis=1)  # [N, columns, 2]
    shown = np.flatnonzero(np.any(np.isfinite(stacked[..., 0]), axis=1))
    shown = shown[:: max(1, len(shown) // _TRACKS)]
    colours = _hues(len(shown))
    return [
        draw_trails(images[frame] // 2, stacked[shown, : index + 1], colours)
        for index, frame in enumerate(columns)
    ]


def _hues(count: int) -> UInt8[np.ndarray, "colours 3"]:
    from matplotlib import colormaps

    return (colormaps["hsv"](np.linspace(0, 1, max(count, 1)))[:count, :3] * 255).astype(np.uint8)


def _grid(rows: list[list[UInt8[np.ndarray, "height width 3"]]]) -> UInt8[np.ndarray, "h w 3"]:
    """Return pictures of one size side by side, enlarged or reduced for the eye."""
    from PIL import Image

    height, width = rows[0][0].shape[:2]
    factor = min(max(1.0, _SMALLEST / max(height, width)), _LARGEST / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    kind = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    lines = []
    for row in rows:
        cells = [np.asarray(Image.fromarray(cell).resize(size, kind)) for cell in row]
        padded = [
            np.pad(c, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=_BACKGROUND) for c in cells
        ]
        lines.append(np.concatenate(padded, axis=1))
    return np.concatenate(lines)
