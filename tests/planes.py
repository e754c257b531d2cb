"""A small scene that many tests share."""

from pathlib import Path

import numpy as np

from msdyn.geometry import Cameras, look_at
from msdyn.scene import (
    Scene,
    Timeline,
    Tracks,
    create_scene,
    frame_path,
    write_cameras,
    write_depth,
    write_image,
    write_mask,
    write_tracks,
)


def make_plane_scene(directory: Path, frames: int = 6, width: int = 32, height: int = 24) -> Scene:
    """Write a small valid scene: a static wall at depth 2 and a square moving in front of it."""
    timeline = Timeline.uniform(frames, 10.0)
    create_scene(directory, width=width, height=height, fps=10.0, timeline=timeline)
    down = np.array([0.0, 1, 0])
    poses = [
        look_at(np.array([0.02 * i, 0, 0]), np.array([0.02 * i, 0, 1]), down) for i in range(frames)
    ]
    write_cameras(directory / "cameras.json", Cameras.pinhole(30.0, width, height, np.stack(poses)))
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    for i in range(frames):
        image, mask = texture.copy(), np.zeros((height, width), np.uint8)
        image[8:16, 6 + i : 14 + i] = (200, 40, 40)
        mask[8:16, 6 + i : 14 + i] = 1
        write_image(frame_path(directory / "images", i, ".png"), image)
        write_mask(directory, i, mask)
        write_depth(directory, i, np.where(mask == 1, 1.5, 2.0).astype(np.float32))
    start = np.stack(np.meshgrid([8.0, 10.5, 12.0], [9.0, 12.0, 14.0]), -1).reshape(-1, 2)
    xy = start[:, None] + np.arange(frames)[:, None] * [1.0, 0.0]
    shape = xy.shape[:2]
    write_tracks(
        directory / "tracks.npz",
        Tracks.from_dense(
            xy, np.ones(shape, bool), np.ones(shape), np.ones(9, int), np.zeros(9, int)
        ),
    )
    return Scene(directory)
