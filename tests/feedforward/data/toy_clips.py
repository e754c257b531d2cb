"""Small clips of known content."""

from dataclasses import replace

import numpy as np

from msdyn.feedforward.data import Clip, ClipFrame, ClipTracks

WIDTH, HEIGHT = 24, 16
WALL = 4.0
STEP = 0.1
"""Of the camera along x, per frame; the world's unit is arbitrary."""


def wall_frame(index):
    """A wall at z-depth 4 whose colour tells the frame; depth is unknown in a corner."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = 6 * index
    image[..., 1] = np.arange(WIDTH) * 10
    image[..., 2] = np.arange(HEIGHT)[:, None] * 15
    depth = np.full((HEIGHT, WIDTH), WALL, np.float32)
    depth[:4, :4] = 0
    return ClipFrame(image, depth)


def wall_clip(name="wall", dataset="toy", frames=9, motion="static", **fields):
    """A clip of a wall that a camera passes, looking along z; its motion is static by default."""
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    cameras[:, 0, 3] = STEP * np.arange(frames)
    return Clip(
        name=name,
        dataset=dataset,
        times=10.0 + 2 * np.arange(frames),
        world_from_cam=cameras,
        intrinsics=np.tile([0.8, 1.2, 0.5, 0.5], (frames, 1)),
        motion=motion,
        frame=fields.pop("frame", wall_frame),
        about={"source": "a test", "licence": "none"},
        **fields,
    )


def tracked_clip(name="tracked", dataset="toy", frames=9):
    """A clip with three tracks: one moves along y, one is static, one is lost after frame 0."""
    points = np.zeros((frames, 3, 3), np.float32)
    points[:, 0] = [0.2, 0.0, WALL]
    points[:, 0, 1] = 0.05 * np.arange(frames)
    points[:, 1] = [-0.5, 0.5, WALL]
    points[:, 2] = [0.9, 0.9, WALL]
    points[1:, 2] = np.nan
    visible = np.isfinite(points).all(-1)
    return wall_clip(name, dataset, frames, "tracks", tracks=ClipTracks(points, visible))


def posed_clip(name="posed", dataset="toy", frames=9, objects=2):
    """A clip with objects on the wall; the first moves along y, the others are static."""
    poses = np.tile(np.eye(4), (frames, objects, 1, 1))
    poses[:, 0, 1, 3] = 0.05 * np.arange(frames)

    def frame(index):
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[5:8, 5:12] = 1
        labels[10:, 10:] = objects
        return replace(wall_frame(index), objects=labels)

    return wall_clip(name, dataset, frames, "poses", poses=poses, frame=frame)
