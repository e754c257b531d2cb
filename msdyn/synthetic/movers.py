"""Things that move: rigid, articulated and deforming objects, given their poses or joint angles."""

from typing import Any

import numpy as np

from msdyn.synthetic import palette as c
from msdyn.synthetic.animate import bend, hinge, place
from msdyn.synthetic.shapes import ball, box, cylinder, lathe, slab, torus
from msdyn.synthetic.spec import Part, Shape
from msdyn.synthetic.textures import Colour, Material, keys, leaves, photo, pressed

__all__ = [
    "PAD_HEIGHT",
    "assemble",
    "cactus",
    "crane",
    "cup",
    "gripper",
    "keyboard",
    "laptop",
    "mouse",
    "pad",
    "parcel",
    "truck",
]

PAD_HEIGHT = 0.10  # of the soft pad, metres


def assemble(
    instance: int,
    link: str,
    pose: np.ndarray,
    pieces: dict[str, tuple[Shape, Material]],
    **more: Any,
) -> list[Part]:
    """Return the parts that one link carries.

    Args:
        instance: object index.
        link: name of the link.
        pose: [T, 4, 4] world_from_link.
        pieces: shape and material by name.
        more: further fields of `Part`.
    """
    return [
        Part(f"{link}/{name}", shape, material, instance, link, pose, **more)
        for name, (shape, material) in pieces.items()
    ]


def truck(instance: int, pose: np.ndarray) -> list[Part]:
    """A toy truck, 47 cm long, that drives along its x axis with its wheels on z = 0."""
    body = {
        "bed": (
            box(0.32, 0.22, 0.17, bevel=0.01).moved((-0.08, 0, 0.06)),
            leaves(c.CORAL, c.RUST, c.MUSTARD, c.CREAM),
        ),
        "cabin": (
            box(0.15, 0.21, 0.22, bevel=0.02).moved((0.165, 0, 0.06)),
            leaves(c.SKY, c.NAVY, c.CREAM, c.BLUE),
        ),
        "load": (
            box(0.22, 0.16, 0.09, bevel=0.01).moved((-0.08, 0, 0.225)),
            leaves(c.MUSTARD, c.OAK, c.WALNUT, c.CREAM),
        ),
    }
    rubber = leaves(c.BLACK, c.GREY, c.SILVER, largest=10)
    for i, (x, y) in enumerate([(-0.16, 0.11), (-0.16, -0.11), (0.15, 0.11), (0.15, -0.11)]):
        axle = place(np.array([[x, y + 0.02, 0.06]]), ("x", 90.0))[0]
        body[f"wheel{i}"] = (cylinder(0.06, 0.04).placed(axle), rubber)
    return assemble(instance, "truck", pose, body)


def crane(
    instance: int, pose: np.ndarray, boom_degrees: np.ndarray, fore_degrees: np.ndarray
) -> list[Part]:
    """A crane of three links: a turret (`pose`), a boom and a forearm that holds a ball."""
    boom = hinge(pose, (0, 0, 0.14), "y", boom_degrees)
    fore = hinge(boom, (0, 0, 0.36), "y", fore_degrees)
    yellow = leaves(c.MUSTARD, c.BLACK, c.CREAM)
    return [
        *assemble(
            instance,
            "crane/turret",
            pose,
            {
                "foot": (cylinder(0.11, 0.09), yellow),
                "neck": (box(0.10, 0.13, 0.10, bevel=0.01).moved((0, 0, 0.09)), yellow),
            },
        ),
        *assemble(
            instance,
            "crane/boom",
            boom,
            {
                "bar": (
                    box(0.10, 0.09, 0.42, bevel=0.015).moved((0, 0, -0.03)),
                    leaves(c.TEAL, c.CREAM, c.NAVY),
                )
            },
        ),
        *assemble(
            instance,
            "crane/fore",
            fore,
            {
                "bar": (
                    box(0.08, 0.08, 0.28, bevel=0.015).moved((0, 0, -0.03)),
                    leaves(c.PLUM, c.CREAM, c.SKY),
                ),
                "ball": (
                    ball(0.19, 0.19, 0.19).moved((0, 0, 0.22)),
                    leaves(c.CORAL, c.CREAM, c.MUSTARD),
                ),
            },
        ),
    ]


def cactus(
    instance: int,
    pose: np.ndarray,
    lean: np.ndarray,
    heading: np.ndarray,
    stretch: np.ndarray,
) -> list[Part]:
    """A soft cactus 48 cm high with two arms that bends as one body; see `bend`."""
    height = 0.48
    t = np.linspace(0, 1, 25)[1:-1]
    radius = 0.105 * np.sqrt(1 - (2 * t - 1) ** 6) * (0.9 + 0.15 * t)
    outline = [(0, 0), *zip(radius, height * t, strict=True), (0, height)]
    skin = leaves(c.LEAF, c.MOSS, (0.30, 0.52, 0.25), c.MINT, c.CREAM)
    pieces = {
        "body": (lathe(outline, sections=72, ribs=9, depth=0.09), skin),
        "right": (ball(0.22, 0.10, 0.10).moved((0.15, 0, 0.20)), skin),
        "right hand": (ball(0.09, 0.09, 0.18).moved((0.22, 0, 0.22)), skin),
        "left": (ball(0.22, 0.10, 0.10).moved((-0.15, 0, 0.13)), skin),
        "left hand": (ball(0.09, 0.09, 0.18).moved((-0.22, 0, 0.15)), skin),
    }
    sway = bend(height, lean, heading, stretch)
    return assemble(instance, "cactus", pose, pieces, deformation=sway)


def keyboard(instance: int, pose: np.ndarray) -> list[Part]:
    """A keyboard, 60 cm wide, hung by its middle on a suction lifter."""
    plate = leaves(c.SILVER, c.GREY, c.SKY, largest=12)
    caps = keys(6, 15, c.NAVY, c.SAND, c.CREAM)
    board = {"board": (box(0.60, 0.26, 0.035, bevel=0.006), plate)}
    lifter = leaves(c.MUSTARD, c.BLACK, c.CREAM, largest=15)
    holder = {
        "cup": (cylinder(0.05, 0.03).moved((0, 0, 0.035)), lifter),
        "rod": (cylinder(0.02, 0.30).moved((0, 0, 0.06)), lifter),
    }
    return [
        *assemble(instance, "keyboard", pose, board, sides={"+z": caps}),
        *assemble(instance, "keyboard", pose, holder),
    ]


def laptop(instance: int, pose: np.ndarray, lid_degrees: np.ndarray) -> list[Part]:
    """A laptop, 52 cm wide, of two links: its base (`pose`) and its lid, upright at 0 degrees."""
    lid = hinge(pose, (0, 0.17, 0.03), "x", lid_degrees)
    shell = leaves(c.SILVER, c.SKY, c.BLUE, c.NAVY, largest=30)
    plate = leaves(c.SILVER, c.GREY, c.SAND, largest=12)
    deck = pressed(plate, keys(6, 14, c.NAVY, c.GREY, c.CREAM), 0.08)
    screen = pressed(leaves(c.BLACK, c.GREY, c.PLUM, largest=12), photo("china"), 0.05)
    base = {"deck": (box(0.52, 0.36, 0.03, bevel=0.006), shell)}
    cover = {"screen": (box(0.52, 0.02, 0.34, bevel=0.004), shell)}
    return [
        *assemble(instance, "laptop/base", pose, base, sides={"+z": deck}),
        *assemble(instance, "laptop/lid", lid, cover, sides={"-y": screen}),
    ]


def cup(instance: int, pose: np.ndarray, squeeze: np.ndarray, lean: np.ndarray) -> list[Part]:
    """A soft cup, 40 cm high, with a handle.

    Args:
        instance: object index.
        pose: [T, 4, 4] of its foot.
        squeeze: [T] share by which its middle is pressed together along x; it gives way along y.
        lean: [T] degrees that its rim leans towards +x.
    """
    height = 0.40
    t = np.linspace(0, 1, 15)
    outside = list(zip(0.12 + 0.06 * t**2, height * t, strict=True))
    inside = [(radius - 0.012, max(z, 0.012)) for radius, z in reversed(outside)]
    wall = lathe([(0, 0), *outside, *inside, (0, 0.012)], sections=64)
    ear = torus(0.085, 0.022).placed(place(np.array([[-0.19, 0, 0.21]]), ("x", 90.0))[0])
    bending = bend(height, lean, np.zeros(len(lean)), 1 + 0.15 * squeeze)

    def deform(vertices: np.ndarray, frame: int) -> np.ndarray:
        amount = squeeze[frame] * np.exp(-(((vertices[:, 2] / height - 0.62) / 0.35) ** 2))
        pressed_in = vertices * np.stack([1 - amount, 1 + 0.5 * amount, np.ones(len(amount))], -1)
        return bending(pressed_in, frame)

    pieces = {
        "wall": (wall, leaves(c.TEAL, c.CREAM, c.SKY, c.NAVY, c.MUSTARD)),
        "handle": (ear, leaves(c.NAVY, c.TEAL, c.CREAM)),
    }
    return assemble(instance, "cup", pose, pieces, deformation=deform)


def pad(instance: int, pose: np.ndarray, touch: np.ndarray, depth: np.ndarray) -> list[Part]:
    """A thick soft pad, 90 by 60 cm, dented and pulled along where something moves on it.

    Args:
        instance: object index.
        pose: [T, 4, 4] of the middle of its foot.
        touch: [T, 2] where it is pressed, in its own x and y.
        depth: [T] depth of the dent, metres.
    """
    pull = 0.12 * len(touch) * np.gradient(touch, axis=0)  # 12 cm at one metre a clip

    def deform(vertices: np.ndarray, frame: int) -> np.ndarray:
        offset = vertices[:, :2] - touch[frame]
        share = np.exp(-(offset**2).sum(-1) / (2 * 0.15**2)) * vertices[:, 2] / PAD_HEIGHT
        moved = vertices.copy()
        moved[:, :2] += share[:, None] * pull[frame]
        moved[:, 2] -= share * depth[frame]
        return moved

    foam = leaves(c.LEAF, c.MINT, c.TEAL, c.MOSS, c.CREAM, largest=30)
    pieces = {"foam": (slab(0.9, 0.6, PAD_HEIGHT, 0.03), foam)}
    return assemble(instance, "pad", pose, pieces, deformation=deform)


def mouse(instance: int, pose: np.ndarray) -> list[Part]:
    """A plump computer mouse, 34 cm long, that points along its x axis."""
    wheel = place(np.array([[0.10, 0.015, 0.135]]), ("x", 90.0))[0]
    pieces = {
        "body": (
            ball(0.34, 0.22, 0.19).moved((0, 0, -0.02)),
            leaves(c.PLUM, c.CORAL, c.CREAM, c.NAVY),
        ),
        "wheel": (
            cylinder(0.035, 0.03).placed(wheel),
            leaves(c.BLACK, c.SILVER, c.MUSTARD, largest=8),
        ),
    }
    return assemble(instance, "mouse", pose, pieces)


def gripper(
    instance: int,
    name: str,
    pose: np.ndarray,
    opening: np.ndarray,
    wrist: np.ndarray,
    colours: tuple[Colour, ...],
) -> list[Part]:
    """A hand of four links that reaches along the x axis of its palm, with fingers of 20 cm.

    Args:
        instance: object index.
        name: of the hand.
        pose: [T, 4, 4] of the palm.
        opening: [T] degrees by which its two fingers, above and below, open each.
        wrist: [T] degrees by which the arm behind is turned against the palm, about y.
        colours: of its texture.
    """
    skin = leaves(*colours)
    finger = box(0.20, 0.06, 0.04, bevel=0.01).moved((0.09, 0, -0.02))
    links = {
        "palm": (pose, box(0.09, 0.14, 0.20, bevel=0.02).moved((0, 0, -0.10))),
        "arm": (
            hinge(pose, (-0.03, 0, 0), "y", wrist),
            box(0.75, 0.11, 0.11, bevel=0.02).moved((-0.36, 0, -0.055)),
        ),
        "upper": (hinge(pose, (0.03, 0, 0.085), "y", -opening), finger),
        "lower": (hinge(pose, (0.03, 0, -0.085), "y", opening), finger),
    }
    return [
        part
        for link, (link_pose, shape) in links.items()
        for part in assemble(instance, f"{name}/{link}", link_pose, {"bar": (shape, skin)})
    ]


def parcel(instance: int, pose: np.ndarray) -> list[Part]:
    """A parcel, 26 cm long, centred on its origin."""
    shape = box(0.26, 0.14, 0.13, bevel=0.008).moved((0, 0, -0.065))
    paper = leaves(c.MUSTARD, c.CREAM, c.RUST, c.NAVY, largest=20)
    return assemble(instance, "parcel", pose, {"box": (shape, paper)})
