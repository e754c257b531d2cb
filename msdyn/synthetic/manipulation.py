"""A robot that picks a block from a table and puts it elsewhere, with exact states and actions.

A hand with two parallel jaws hangs from an arm. It opens above the block, goes down, closes, lifts
the block, carries and rotates it, puts it down, opens and leaves. The states are the pose of the
hand and the opening of its jaws, the actions those of the next frame.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from scipy.spatial.transform import Rotation

from msdyn.geometry import invert_transforms
from msdyn.io import DepthCodes, LeRobotWriter, video_feature
from msdyn.synthetic import palette as c
from msdyn.synthetic import studio
from msdyn.synthetic.animate import keyframe_curve, make_poses
from msdyn.synthetic.moving_objects import assemble
from msdyn.synthetic.shapes import box
from msdyn.synthetic.spec import Part, SceneSpec
from msdyn.synthetic.textures import dead_leaves
from msdyn.synthetic.truth import Truth

__all__ = [
    "BLOCK",
    "HAND",
    "Manipulation",
    "make_manipulation",
    "without_views",
    "write_manipulations",
]

HAND, BLOCK = 1, 2
"""Indices of the objects."""
CAMERA = "front"
STATE_NAMES = ["x", "y", "z", "qx", "qy", "qz", "qw", "opening"]
_FPS = 10
_SIZE = (0.16, 0.13, 0.15)  # metres, of the block
_JAW = 0.025  # metres, thickness
_GRASP = 0.13  # metres, of the palm above the top of what it holds: the length of the jaws
_OPEN = 0.26  # metres, between the jaws


@dataclass(frozen=True)
class Manipulation:
    """An episode, not rendered.

    Attributes:
        spec: its scene.
        state: position of the hand (metres), its quaternion xyzw, and the opening of its jaws.
        action: the state of the next frame; of the last frame its own.
        poses: `world_from_object` by object, in its own frame: that of the palm, and of the block
            with the origin at the centre of its base.
        task: in natural language.
    """

    spec: SceneSpec
    state: Float32[np.ndarray, "frames 8"]
    action: Float32[np.ndarray, "frames 8"]
    poses: dict[int, Float[np.ndarray, "frames 4 4"]]
    task: str


def make_manipulation(
    *, frames: int = 40, width: int = 96, height: int = 72, seed: int = 0
) -> Manipulation:
    """Return an episode of four seconds for 40 frames, seen by a camera that moves to the left.

    Args:
        frames: number of frames, at 10 frames per second.
        width, height: image size in pixels.
        seed: of the places, the textures and the sway of the camera.
    """
    rng = np.random.default_rng([seed, 7])
    start = np.array([-0.24, -0.02]) + rng.uniform(-0.04, 0.04, 2)
    goal = np.array([0.24, 0.10]) + rng.uniform(-0.04, 0.04, 2)
    turn = rng.uniform(30, 60)
    low, high = _SIZE[2] + _GRASP - 0.08, 0.46
    path = keyframe_curve(
        frames,
        (0.00, start[0] + 0.12, start[1] + 0.06, high),
        (0.12, *start, high),
        (0.26, *start, low),
        (0.36, *start, low),
        (0.50, *start, low + 0.14),
        (0.68, *goal, low + 0.14),
        (0.78, *goal, low),
        (0.86, *goal, low),
        (1.00, *goal, high),
    )
    yaw = keyframe_curve(frames, (0.5, 0.0), (0.68, turn))
    held = _SIZE[0]
    opening = keyframe_curve(
        frames, (0.05, held + 0.02), (0.15, _OPEN), (0.27, _OPEN), (0.34, held),
        (0.79, held), (0.85, _OPEN),
    )  # fmt: skip
    palm = make_poses(path, ("z", yaw))
    block = _carried(palm, start, np.linspace(0, 1, frames))
    cameras, views = studio.make_cameras(frames, width, height, seed, nearer=0.25)
    parts = [
        *studio.studio(),
        studio.mat(0.0, 0.0, 1.3, 0.85, yaw=-4),
        studio.globe(-0.80, 0.35),
        studio.crate(-0.40, 0.62),
        *studio.books(0.78, 0.50, seed),
        *_hand(palm, opening),
        *assemble(BLOCK, "block", block, {"box": (
            box(*_SIZE, bevel=0.008), dead_leaves(c.CORAL, c.MUSTARD, c.CREAM, c.NAVY, largest=20)
        )}),
    ]  # fmt: skip
    spec = SceneSpec("manipulation", tuple(parts), cameras, views, fps=_FPS, seed=seed)
    quats = Rotation.from_matrix(palm[:, :3, :3]).as_quat(canonical=True)
    state = np.column_stack([path, quats, opening]).astype(np.float32)
    action = np.concatenate([state[1:], state[-1:]])
    return Manipulation(
        spec, state, action, {HAND: palm, BLOCK: block}, "put the block on the other side"
    )


def write_manipulations(
    root: str | os.PathLike, episodes: Sequence[tuple[Manipulation, Truth]]
) -> Path:
    """Write rendered episodes as a LeRobotDataset v3.0; return its folder.

    Features are `observation.state` and `action`; `observation.images.front` and its depth in
    metres, `observation.images.front_depth`; `observation.intrinsics.front` and
    `observation.extrinsics.front`, the pose of the camera in the world.

    Args:
        root: folder of the dataset; episodes are appended to one that is there.
        episodes: of one image size.
    """
    root = Path(root)
    first = episodes[0][0].spec
    codes = DepthCodes(depth_max=8.0)
    names = {"names": STATE_NAMES}
    images = f"observation.images.{CAMERA}"
    features = {
        "observation.state": {"dtype": "float32", "shape": [8], **names},
        "action": {"dtype": "float32", "shape": [8], **names},
        f"observation.intrinsics.{CAMERA}": {"dtype": "float32", "shape": [3, 3], "names": None},
        f"observation.extrinsics.{CAMERA}": {
            "dtype": "float32",
            "shape": [4, 4],
            "names": None,
            "info": {"convention": "world_from_cam, OpenCV axes, metres"},
        },
        images: video_feature(first.height, first.width, _FPS),
        f"{images}_depth": video_feature(first.height, first.width, _FPS, depth=codes),
    }
    with LeRobotWriter(root, features, _FPS, robot_type="parallel_jaw") as writer:
        for episode, truth in episodes:
            cameras = episode.spec.cameras
            world_from_cam = invert_transforms(cameras.cam_from_world)
            writer.add_episode(
                {
                    "observation.state": episode.state,
                    "action": episode.action,
                    f"observation.intrinsics.{CAMERA}": cameras.intrinsics.astype(np.float32),
                    f"observation.extrinsics.{CAMERA}": world_from_cam.astype(np.float32),
                },
                {images: truth.clip.images, f"{images}_depth": truth.clip.depths},
                episode.task,
            )
    return root


def without_views(episode: Manipulation) -> Manipulation:
    """Return an episode without held-out cameras, which is rendered in a third of the time."""
    return dataclasses.replace(episode, spec=dataclasses.replace(episode.spec, views={}))


def _carried(
    palm: Float[np.ndarray, "frames 4 4"],
    start: Float[np.ndarray, " 2"],
    time: Float[np.ndarray, " frames"],
) -> Float[np.ndarray, "frames 4 4"]:
    """Return the poses of the block: at rest, moving with the palm while it is held, at rest."""
    block = np.tile(np.eye(4), (len(time), 1, 1))
    block[:, :2, 3] = start
    block[:, 2, 3] = 0.004  # on the cloth
    grasped = int(np.flatnonzero(time >= 0.35)[0])
    released = int(np.flatnonzero(time >= 0.78)[0])
    palm_from_block = invert_transforms(palm[grasped : grasped + 1])[0] @ block[grasped]
    block[grasped : released + 1] = palm[grasped : released + 1] @ palm_from_block
    block[released + 1 :] = block[released]
    return block


def _hand(
    palm: Float[np.ndarray, "frames 4 4"], opening: Float[np.ndarray, " frames"]
) -> list[Part]:
    """Return the hand: a palm on an arm, and two jaws that slide along its x axis."""
    skin = dead_leaves(c.BLUE, c.SKY, c.NAVY, c.CREAM, largest=20)
    tips = dead_leaves(c.TEAL, c.CREAM, c.MOSS, c.SAND, largest=15)
    parts = assemble(
        HAND,
        "hand/palm",
        palm,
        {
            "bar": (box(0.34, 0.11, 0.07, bevel=0.01), skin),
            "arm": (box(0.10, 0.10, 0.50, bevel=0.02).moved((0, 0, 0.06)), skin),
        },
    )
    jaw = box(_JAW, 0.09, _GRASP + 0.01, bevel=0.006).moved((0, 0, -_GRASP))
    for name, side in (("left", -1), ("right", 1)):
        slide = np.tile(np.eye(4), (len(palm), 1, 1))
        slide[:, 0, 3] = side * (opening + _JAW) / 2
        parts += assemble(HAND, f"hand/{name}", palm @ slide, {"jaw": (jaw, tips)})
    return parts
