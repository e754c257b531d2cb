"""The scenes, by name.

Each is a function of the number of frames and a seed that returns its parts; its docstring
describes the scene.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from msdyn.errors import InputError
from msdyn.synthetic import palette as c
from msdyn.synthetic import studio
from msdyn.synthetic.animate import keyframe_curve, make_poses
from msdyn.synthetic.moving_objects import (
    PAD_HEIGHT,
    assemble,
    cactus,
    crane,
    cup,
    gripper,
    keyboard,
    laptop,
    mouse,
    pad,
    parcel,
    truck,
)
from msdyn.synthetic.random_scenes import FRAMES, RANDOM, make_random_scene
from msdyn.synthetic.shapes import box, room, slab
from msdyn.synthetic.spec import Part, SceneSpec
from msdyn.synthetic.textures import dead_leaves

__all__ = ["SCENES", "SceneEntry", "make_scene"]


def make_scene(
    name: str, *, frames: int | None = None, width: int = 320, height: int = 240, seed: int = 0
) -> SceneSpec:
    """Return the description of a scene.

    The clip shows the whole motion, whatever its number of frames.

    Args:
        name: one of `SCENES`, or "random-0", "random-1", ... for a scene drawn at random.
        frames: number of frames, at least 2; by default that of `SCENES`.
        width, height: image size in pixels.
        seed: of the textures and, except of random scenes, the sway of the camera.

    Raises:
        InputError: an unknown name or fewer than 2 frames.
    """
    number = name.removeprefix(RANDOM)
    drawn = name != number and number.isdecimal()
    if name not in SCENES and not drawn:
        raise InputError(
            f"scene: expected one of {', '.join(SCENES)}, or {RANDOM}0, {RANDOM}1, ..., "
            f"got {name!r}"
        )
    if drawn:
        frames = FRAMES if frames is None else frames
        _check_frames(frames)
        return make_random_scene(int(number), frames, width, height, seed)
    scene = SCENES[name]
    frames = scene.frames if frames is None else frames
    _check_frames(frames)
    parts = scene.make_parts(frames, seed)
    cameras, views = studio.make_cameras(frames, width, height, seed, nearer=scene.nearer)
    return SceneSpec(name, tuple(parts), cameras, views, seed=seed)


def _check_frames(frames: int) -> None:
    if frames < 2:
        raise InputError(f"frames: expected at least 2, got {frames}")


def constant_position(x: float, y: float, z: float, frames: int) -> Float[np.ndarray, "frames 3"]:
    """Return one position for all frames."""
    return np.tile([x, y, z], (frames, 1))


def demo(frames: int, seed: int) -> list[Part]:
    """A toy truck drives behind a bending cactus while a crane swings a ball over the table."""
    path = keyframe_curve(
        frames,
        (0, 0.30, -0.20, 0),
        (0.4, 0.06, -0.02, 0),
        (0.7, -0.16, 0.22, 0),
        (1, -0.42, 0.36, 0),
    )
    yaw = keyframe_curve(frames, (0, 152), (0.35, 140), (0.7, 135), (1, 155))
    turret = make_poses(
        constant_position(0.50, 0.30, 0, frames),
        ("z", keyframe_curve(frames, (0, -35), (0.5, 25), (1, -10))),
    )
    time = np.linspace(0, 1, frames)
    return [
        *studio.studio(),
        studio.mat(0.05, 0.02, 1.25, 0.8, yaw=6),
        studio.flowerpot(-0.25, 0.0),
        studio.tin(-0.72, 0.42),
        studio.globe(-0.88, 0.12),
        studio.crate(-0.42, 0.62),
        *studio.books(0.80, 0.52, seed),
        *truck(1, make_poses(path, ("x", 2 * np.sin(14 * time)), ("z", yaw))),
        *crane(
            2,
            turret,
            keyframe_curve(frames, (0, -30), (0.45, 8), (1, -15)),
            keyframe_curve(frames, (0, -45), (0.5, -110), (1, -60)),
        ),
        *cactus(
            3,
            make_poses(constant_position(-0.25, 0, 0.13, frames)),
            lean=keyframe_curve(frames, (0, -37), (0.55, 37), (1, -25)),
            heading=15 * np.sin(2 * np.pi * time),
            stretch=1 + 0.1 * np.cos(3 * np.pi * time),
        ),
    ]


def props(seed: int) -> list[Part]:
    """Return the studio with a cloth and static objects at the back of the table."""
    return [
        *studio.studio(),
        studio.mat(0.0, 0.0, 1.3, 0.85, yaw=-4),
        studio.globe(-0.80, 0.30),
        studio.crate(-0.45, 0.62),
        *studio.books(0.78, 0.50, seed),
    ]


def rigid(frames: int, seed: int) -> list[Part]:
    """A lifter carries a keyboard over the table, behind a tin."""
    path = keyframe_curve(
        frames,
        (0, -0.22, 0.02, 0.08),
        (0.3, -0.14, 0.02, 0.20),
        (0.7, 0.10, 0.08, 0.22),
        (1, 0.22, 0.10, 0.10),
    )
    pose = make_poses(
        path,
        ("y", keyframe_curve(frames, (0, 0), (0.35, -14), (0.7, 12), (1, 0))),
        ("x", keyframe_curve(frames, (0, 25), (0.35, 48), (0.7, 44), (1, 25))),
        ("z", keyframe_curve(frames, (0, 22), (1, -30))),
    )
    return [*props(seed), studio.tin(0.02, -0.24, 0.24), *keyboard(1, pose)]


def articulated(frames: int, seed: int) -> list[Part]:
    """A laptop opens while its base slides and rotates on the table."""
    pose = make_poses(
        keyframe_curve(frames, (0, -0.14, -0.04, 0.004), (1, 0.10, 0.06, 0.004)),
        ("z", keyframe_curve(frames, (0, -24), (1, 20))),
    )
    lid = keyframe_curve(frames, (0, 84), (0.9, -18), (1, -18))
    return [*props(seed), studio.tin(-0.16, -0.32, 0.14), *laptop(1, pose, lid)]


def deformable(frames: int, seed: int) -> list[Part]:
    """A soft cup is squeezed twice while it bends."""
    pose = make_poses(
        keyframe_curve(frames, (0, -0.08, 0.0, 0.004), (1, 0.1, 0.05, 0.004)),
        ("z", keyframe_curve(frames, (0, -20), (1, 25))),
    )
    squeeze = keyframe_curve(frames, (0, 0), (0.3, 0.5), (0.55, 0.05), (0.85, 0.5), (1, 0.3))
    lean = keyframe_curve(frames, (0, -18), (0.5, 20), (1, -12))
    return [*props(seed), studio.tin(0.16, -0.30, 0.16), *cup(1, pose, squeeze, lean)]


def rigid_deformable(frames: int, seed: int) -> list[Part]:
    """A computer mouse moves over a soft pad, which it dents and drags."""
    touch = keyframe_curve(
        frames, (0, -0.22, -0.08), (0.4, 0.02, 0.12), (0.7, 0.2, 0.0), (1, 0.06, -0.12)
    )
    depth = keyframe_curve(frames, (0, 0.05), (0.5, 0.065), (1, 0.045))
    pad_pose = make_poses(constant_position(0, 0.02, 0.004, frames), ("z", 5.0))
    pad_from_mouse = make_poses(
        np.column_stack([touch, PAD_HEIGHT + 0.012 - depth]),
        ("x", keyframe_curve(frames, (0, 6), (0.5, -6), (1, 5))),
        ("z", keyframe_curve(frames, (0, 40), (0.4, 10), (1, -80))),
    )
    return [*props(seed), *mouse(1, pad_pose @ pad_from_mouse), *pad(2, pad_pose, touch, depth)]


def two_hands(frames: int, seed: int) -> list[Part]:
    """One hand gives a parcel to another behind a board that occludes it."""
    meeting = (0.0, 0.10, 0.22)

    def path(before: tuple[float, ...], after: tuple[float, ...]) -> Float[np.ndarray, "frames 3"]:
        """Return positions from `before` to a rest at the meeting point, and on to `after`."""
        return keyframe_curve(frames, (0, *before), (0.46, *meeting), (0.54, *meeting), (1, *after))

    start, goal = (-0.30, 0.04, 0.17), (0.30, 0.04, 0.20)
    given, taken = path(start, (-0.24, 0.12, 0.28)), path((0.28, 0.08, 0.30), goal)
    tilt = keyframe_curve(frames, (0, -18), (0.46, 0), (0.54, 0), (1, 20))
    # The giver's palm is to the left of the parcel, the taker's to the right.
    parcel_from_palm = make_poses(np.array([[-0.24, 0, 0]]))[0]
    half_rotation = make_poses(np.zeros((1, 3)), ("z", 180.0))[0]
    giver = make_poses(given, ("y", tilt)) @ parcel_from_palm
    taker = make_poses(taken, ("y", tilt)) @ half_rotation @ parcel_from_palm
    hold = keyframe_curve(frames, (0, 0), (0.5, 0), (0.6, 22), (1, 22))
    grasp = keyframe_curve(frames, (0, 22), (0.4, 22), (0.5, 0), (1, 0))
    board = box(0.23, 0.03, 0.36).moved((0.0, -0.08, 0))
    return [
        *props(seed),
        Part("board", board, dead_leaves(c.SAND, c.OAK, c.WALNUT, c.CREAM)),
        *gripper(1, "giver", giver, hold, -1.5 * tilt, (c.CORAL, c.CREAM, c.RUST, c.SAND)),
        *gripper(2, "taker", taker, grasp, tilt, (c.BLUE, c.SKY, c.NAVY, c.CREAM)),
        *parcel(3, make_poses(path(start, goal), ("y", tilt))),
    ]


def two_boxes(frames: int, seed: int) -> list[Part]:
    """Two boxes slide and rotate over a table; coarse textures, for speed."""
    ground = dead_leaves(c.CREAM, c.TEAL, c.NAVY, c.OAK, largest=40, smallest=4)
    walls = dead_leaves(c.SKY, c.SAND, c.GREY, largest=15)
    first = make_poses(
        keyframe_curve(
            frames, (0, -0.32, -0.05, 0.005), (0.5, -0.16, 0.05, 0.1), (1, -0.05, 0.3, 0.005)
        ),
        ("z", keyframe_curve(frames, (0, 0), (1, 70))),
    )
    second = make_poses(
        keyframe_curve(
            frames, (0, 0.42, 0.25, 0.005), (0.5, 0.3, 0.05, 0.07), (1, 0.18, -0.15, 0.005)
        ),
        ("y", keyframe_curve(frames, (0, 0), (0.5, -25), (1, 0))),
        ("z", keyframe_curve(frames, (0, 20), (1, -50))),
    )
    red = dead_leaves(c.CORAL, c.MUSTARD, c.CREAM, c.RUST, largest=20, smallest=4)
    green = dead_leaves(c.LEAF, c.MOSS, c.MINT, c.CREAM, largest=20, smallest=4)
    return [
        Part("room", room(5, 4.4, 2.7, 0.3).moved((0, -0.6, studio.FLOOR)), walls, texel=0.02),
        Part("ground", slab(2.4, 1.8, 0.04, 0.12).moved((0, 0.2, -0.04)), ground, texel=0.006),
        *assemble(1, "red", first, {"box": (box(0.40, 0.32, 0.30), red)}, texel=0.005),
        *assemble(2, "green", second, {"box": (box(0.28, 0.28, 0.42), green)}, texel=0.005),
    ]


class SceneEntry(NamedTuple):
    """A named scene.

    Attributes:
        make_parts: returns its parts, given the number of frames and a seed.
        frames: default number of frames.
        nearer: metres by which its cameras are nearer to the table than the default path.
    """

    make_parts: Callable[[int, int], list[Part]]
    frames: int
    nearer: float


SCENES = {
    "demo": SceneEntry(demo, 48, 0.0),
    "rigid": SceneEntry(rigid, 60, 0.15),
    "articulated": SceneEntry(articulated, 60, 0.15),
    "deformable": SceneEntry(deformable, 60, 0.15),
    "rigid-deformable": SceneEntry(rigid_deformable, 60, 0.15),
    "two-hands": SceneEntry(two_hands, 60, 0.15),
    "two-boxes": SceneEntry(two_boxes, 12, 0.12),
}
