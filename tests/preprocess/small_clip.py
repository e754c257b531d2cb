"""A small clip with cameras and depth, and backends of known verdicts."""

import numpy as np
from moving import panning, paste, texture

from msdyn.geometry import Cameras
from msdyn.io import write_video
from msdyn.preprocess import (
    Backend,
    CameraSolution,
    DepthMap,
    DepthResult,
    SparsePoints,
    Streamed,
    Verdict,
)
from msdyn.scene import write_cameras

SIZE, FRAMES = (72, 96), 12


def write_small_clip(folder):
    """Write clip.mp4 (a square over a panned background), cameras.json and depth/."""
    frames, _ = panning(FRAMES, SIZE, shift=(1.0, 0.3))
    sprite = texture(30, 30, seed=4)
    frames = [paste(image, sprite, (10 + 3 * t, 20))[0] for t, image in enumerate(frames)]
    write_video(folder / "clip.mp4", frames, 24)
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    # A wall at depth 2 that moves by (1, .3) px per frame.
    poses[:, :2, 3] = np.arange(FRAMES)[:, None] * [1.0 * 2 / 90, 0.3 * 2 / 90]
    write_cameras(folder / "cameras.json", Cameras.pinhole(90.0, SIZE[1], SIZE[0], poses))
    (folder / "depth").mkdir()
    for i in range(FRAMES):
        np.save(folder / "depth" / f"{i:05d}.npy", np.full(SIZE, 2.0, np.float32))


class Poor(Backend):
    """A cameras backend that solves but cannot be trusted; a depth backend that needs cameras."""

    name = "sfm"

    def solve(self, scene, tracks, masks):
        poses = np.tile(np.eye(4), (len(scene), 1, 1))
        cameras = Cameras.pinhole(90.0, scene.info.width, scene.info.height, poses)
        points = SparsePoints(
            np.ones((1, 3)), np.zeros(2, int), np.arange(2), np.zeros((2, 2), np.float32)
        )
        verdict = Verdict("poor", "the camera only turns", "bring depth files")
        return CameraSolution(cameras, "rotating", points, verdict, quality={"focal_px": 90.0})

    def estimate(self, scene, tracks, masks, solution):
        assert solution.motion == "rotating" and solution.points.frame.tolist() == [0, 1]
        return flat_depth(scene, {"known": 1.0})


def flat_depth(scene, figures, confidence=None):
    """Return a depth of 1 in every frame."""
    maps = (DepthMap(np.ones(scene.size, np.float32), confidence) for _ in range(len(scene)))
    return DepthResult(Streamed.of(maps, figures))
