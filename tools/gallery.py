"""Pictures of the gallery (docs/gallery.md): one sheet for each fitted scene.

    python tools/gallery.py out/cups out/shiba --out docs/images

Each row is one time: a frame of the video, the fit in the camera of the path `auto` that is
farthest from the video's, and in that camera depth, objects and the trails of points over the last
frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
from jaxtyping import UInt8

from msdyn import GaussianSequence, Scene, auto_path, load_sequence, open_scene
from msdyn.colours import colour_depth, colour_objects, depth_range
from msdyn.render.pictures import Painter

WIDTH, GAP, QUALITY = 288, 4, 82


def sheet(scene: Scene, sequence: GaussianSequence, rows: int = 2) -> UInt8[np.ndarray, "h w 3"]:
    """Return the sheet of a fitted scene."""
    times = sequence.timeline.times
    cameras = auto_path(sequence, times).cameras
    away = np.linalg.norm(cameras.world_from_cam[:, :3, 3] - _centres(sequence), axis=1)
    parts = np.array_split(np.arange(len(times)), rows)
    chosen = [int(part[away[part].argmax()]) for part in parts]
    painter = Painter(sequence)
    images = [painter.image(cameras[frame], times[frame]) for frame in chosen]
    ends = depth_range(image.depth for image in images)
    lines = []
    for frame, image in zip(chosen, images, strict=True):
        camera, time = cameras[frame], float(times[frame])
        panels = (
            scene.image(frame),
            image.rgb8,
            colour_depth(image.depth, *ends),
            colour_objects(painter.labels(camera, time)),
            painter.tracks(camera, time, image),
        )
        lines.append(_beside([_sized(panel) for panel in panels], axis=1))
    return _beside(lines, axis=0)


def _centres(sequence: GaussianSequence) -> np.ndarray:
    """Return the centres [T, 3] of the video's cameras."""
    return sequence.cameras.world_from_cam[:, :3, 3]


def _sized(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    height = round(image.shape[0] * WIDTH / image.shape[1])
    return cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)


def _beside(images: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Return images in a row (axis 1) or a column (axis 0), with white gaps."""
    shape = list(images[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 255, np.uint8)
    parts = [part for image in images for part in (gap, image)][1:]
    return np.concatenate(parts, axis=axis)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path, nargs="+", help="fitted scene directories")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder")
    arguments = parser.parse_args()
    for folder in arguments.scenes:
        name = folder.parent.name if folder.name == "scene" else folder.name
        path = arguments.out / f"gallery_{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = sheet(open_scene(folder), load_sequence(folder))
        iio.imwrite(path, image, quality=QUALITY)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
