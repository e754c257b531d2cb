"""Moving objects: rigid, articulated and deforming ones, given their poses or joint angles."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from msdyn.synthetic import palette as c
from msdyn.synthetic.animate import bend, hinge, make_poses
from msdyn.synthetic.shapes import ball, box, cylinder, lathe, slab, torus
from msdyn.synthetic.spec import DEFAULT_TEXEL, Deformation, Part, Shape
from msdyn.synthetic.textures import Colour, Material, dead_leaves, inset, key_caps, photo

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

PAD_HEIGHT = 0.10  # metres


def assemble(
    instance: int,
    link: str,
    pose: Float[np.ndarray, "frames 4 4"],
    pieces: Mapping[str, tuple[Shape, Material]],
    *,
    deformation: Deformation | None = None,
    sides: Mapping[str, Material] | None = None,
    texel: float = DEFAULT_TEXEL,
) -> list[Part]:
    """Return the parts of one link.

    Args:
        instance: object index.
        link: name of the link.
        pose: world_from_link.
        pieces: shape and material by name.
        deformation, sides, texel: see `Part`; the same for all pieces.
    """
    return [
        Part(
            name=f"{link}/{name}",
            shape=shape,
            material=material,
            object=instance,
            link=link,
            world_from_link=pose,
            deformation=deformation,
            sides=sides or {},
            texel=texel,
        )
        for name, (shape, material) in pieces.items()
    ]


def truck(instance: int, pose: Float[np.ndarray, "frames 4 4"]) -> list[Part]:
    """Return a toy truck, 47 cm long, that points along its x axis, with its wheels on z = 0."""
    body = {
        "bed": (
            box(0.32, 0.22, 0.17, bevel=0.01).moved((-0.08, 0, 0.06)),
            dead_leaves(c.CORAL, c.RUST, c.MUSTARD, c.CREAM),
        ),
        "cabin": (
            box(0.15, 0.21, 0.22, bevel=0.02).moved((0.165, 0, 0.06)),
            dead_leaves(c.SKY, c.NAVY, c.CREAM, c.BLUE),
        ),
        "load": (
            box(0.22, 0.16, 0.09, bevel=0.01).moved((-0.08, 0, 0.225)),
            dead_leaves(c.MUSTARD, c.OAK, c.WALNUT, c.CREAM),
        ),
    }
    rubber = dead_leaves(c.BLACK, c.GREY, c.SILVER, largest=10)
    for i, (x, y) in enumerate([(-0.16, 0.11), (-0.16, -0.11), (0.15, 0.11), (0.15, -0.11)]):
        axle = make_poses(np.array([[x, y + 0.02, 0.06]]), ("x", 90.0))[0]
        body[f"wheel{i}"] = (cylinder(0.06, 0.04).transformed(axle), rubber)
    return assemble(instance, "truck", pose, body)


def crane(
    instance: int,
    pose: Float[np.ndarray, "frames 4 4"],
    boom_degrees: Float[np.ndarray, " frames"],
    fore_degrees: Float[np.ndarray, " frames"],
) -> list[Part]:
    """Return a crane of three links: a turret (`pose`), a boom and a forearm that holds a ball."""
    boom = hinge(pose, (0, 0, 0.14), "y", boom_degrees)
    fore = hinge(boom, (0, 0, 0.36), "y", fore_degrees)
    yellow = dead_leaves(c.MUSTARD, c.BLACK, c.CREAM)
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
                    dead_leaves(c.TEAL, c.CREAM, c.NAVY),
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
                    dead_leaves(c.PLUM, c.CREAM, c.SKY),
                ),
                "ball": (
                    ball(0.19, 0.19, 0.19).moved((0, 0, 0.22)),
                    dead_leaves(c.CORAL, c.CREAM, c.MUSTARD),
                ),
            },
        ),
    ]


def cactus(
    instance: int,
    pose: Float[np.ndarray, "frames 4 4"],
    lean: Float[np.ndarray, " frames"],
    heading: Float[np.ndarray, " frames"],
    stretch: Float[np.ndarray, " frames"],
) -> list[Part]:
    """Return a soft cactus, 48 cm high, with two arms, that bends as one body; see `bend`."""
    height = 0.48
    t = np.linspace(0, 1, 25)[1:-1]
    radius = 0.105 * np.sqrt(1 - (2 * t - 1) ** 6) * (0.9 + 0.15 * t)
    outline = [(0, 0), *zip(radius, height * t, strict=True), (0, height)]
    skin = dead_leaves(c.LEAF, c.MOSS, (0.30, 0.52, 0.25), c.MINT, c.CREAM)
    pieces = {
        "body": (lathe(outline, sections=72, ribs=9, depth=0.09), skin),
        "right": (ball(0.22, 0.10, 0.10).moved((0.15, 0, 0.20)), skin),
        "right hand": (ball(0.09, 0.09, 0.18).moved((0.22, 0, 0.22)), skin),
        "left": (ball(0.22, 0.10, 0.10).moved((-0.15, 0, 0.13)), skin),
        "left hand": (ball(0.09, 0.09, 0.18).moved((-0.22, 0, 0.15)), skin),
    }
    sway = bend(height, lean, heading, stretch)
    return assemble(instance, "cactus", pose, pieces, deformation=sway)


def keyboard(instance: int, pose: Float[np.ndarray, "frames 4 4"]) -> list[Part]:
    """Return a keyboard, 60 cm wide, that a suction lifter holds at its centre."""
    plate = dead_leaves(c.SILVER, c.GREY, c.SKY, largest=12)
    caps = key_caps(6, 15, c.NAVY, c.SAND, c.CREAM)
    board = {"board": (box(0.60, 0.26, 0.035, bevel=0.006), plate)}
    lifter = dead_leaves(c.MUSTARD, c.BLACK, c.CREAM, largest=15)
    holder = {
        "cup": (cylinder(0.05, 0.03).moved((0, 0, 0.035)), lifter),
        "rod": (cylinder(0.02, 0.30).moved((0, 0, 0.06)), lifter),
    }
    return [
        *assemble(instance, "keyboard", pose, board, sides={"+z": caps}),
        *assemble(instance, "keyboard", pose, holder),
    ]


def laptop(
    instance: int, pose: Float[np.ndarray, "frames 4 4"], lid_degrees: Float[np.ndarray, " frames"]
) -> list[Part]:
    """Return a laptop, 52 cm wide, of two links: base (`pose`) and lid, upright at 0 degrees."""
    lid = hinge(pose, (0, 0.17, 0.03), "x", lid_degrees)
    shell = dead_leaves(c.SILVER, c.SKY, c.BLUE, c.NAVY, largest=30)
    plate = dead_leaves(c.SILVER, c.GREY, c.SAND, largest=12)
    deck = inset(plate, key_caps(6, 14, c.NAVY, c.GREY, c.CREAM), 0.08)
    screen = inset(dead_leaves(c.BLACK, c.GREY, c.PLUM, largest=12), photo("china"), 0.05)
    base = {"deck": (box(0.52, 0.36, 0.03, bevel=0.006), shell)}
    cover = {"screen": (box(0.52, 0.02, 0.34, bevel=0.004), shell)}
    return [
        *assemble(instance, "laptop/base", pose, base, sides={"+z": deck}),
        *assemble(instance, "laptop/lid", lid, cover, sides={"-y": screen}),
    ]


def cup(
    instance: int,
    pose: Float[np.ndarray, "frames 4 4"],
    squeeze: Float[np.ndarray, " frames"],
    lean: Float[np.ndarray, " frames"],
) -> list[Part]:
    """Return a soft cup, 40 cm high, with a handle.

    Args:
        instance: object index.
        pose: of its foot.
        squeeze: compression of its middle along x, as a fraction; along y it expands by half of it.
        lean: degrees by which its rim is inclined towards +x.
    """
    height = 0.40
    t = np.linspace(0, 1, 15)
    outside = list(zip(0.12 + 0.06 * t**2, height * t, strict=True))
    inside = [(radius - 0.012, max(z, 0.012)) for radius, z in reversed(outside)]
    wall = lathe([(0, 0), *outside, *inside, (0, 0.012)], sections=64)
    ear = torus(0.085, 0.022).transformed(make_poses(np.array([[-0.19, 0, 0.21]]), ("x", 90.0))[0])
    bending = bend(height, lean, np.zeros(len(lean)), 1 + 0.15 * squeeze)

    def deform(
        vertices: Float[np.ndarray, "vertices 3"], frame: int
    ) -> Float[np.ndarray, "vertices 3"]:
        amount = squeeze[frame] * np.exp(-(((vertices[:, 2] / height - 0.62) / 0.35) ** 2))
        squeezed = vertices * np.stack([1 - amount, 1 + 0.5 * amount, np.ones(len(amount))], -1)
        return bending(squeezed, frame)

    pieces = {
        "wall": (wall, dead_leaves(c.TEAL, c.CREAM, c.SKY, c.NAVY, c.MUSTARD)),
        "handle": (ear, dead_leaves(c.NAVY, c.TEAL, c.CREAM)),
    }
    return assemble(instance, "cup", pose, pieces, deformation=deform)


def pad(
    instance: int,
    pose: Float[np.ndarray, "frames 4 4"],
    touch: Float[np.ndarray, "frames 2"],
    depth: Float[np.ndarray, " frames"],
) -> list[Part]:
    """Return a thick soft pad, 90 by 60 cm, dented and dragged along where something moves on it.

    Args:
        instance: object index.
        pose: of the centre of its bottom face.
        touch: position of the dent, in the pad's x and y.
        depth: depth of the dent, metres.
    """
    # Displacement in proportion to speed: 12 cm at one metre per clip.
    pull = 0.12 * len(touch) * np.gradient(touch, axis=0)

    def deform(
        vertices: Float[np.ndarray, "vertices 3"], frame: int
    ) -> Float[np.ndarray, "vertices 3"]:
        offset = vertices[:, :2] - touch[frame]
        weight = np.exp(-(offset**2).sum(-1) / (2 * 0.15**2)) * vertices[:, 2] / PAD_HEIGHT
        moved = vertices.copy()
        moved[:, :2] += weight[:, None] * pull[frame]
        moved[:, 2] -= weight * depth[frame]
        return moved

    foam = dead_leaves(c.LEAF, c.MINT, c.TEAL, c.MOSS, c.CREAM, largest=30)
    pieces = {"foam": (slab(0.9, 0.6, PAD_HEIGHT, 0.03), foam)}
    return assemble(instance, "pad", pose, pieces, deformation=deform)


def mouse(instance: int, pose: Float[np.ndarray, "frames 4 4"]) -> list[Part]:
    """Return a computer mouse, 34 cm long, that points along its x axis."""
    wheel = make_poses(np.array([[0.10, 0.015, 0.135]]), ("x", 90.0))[0]
    pieces = {
        "body": (
            ball(0.34, 0.22, 0.19).moved((0, 0, -0.02)),
            dead_leaves(c.PLUM, c.CORAL, c.CREAM, c.NAVY),
        ),
        "wheel": (
            cylinder(0.035, 0.03).transformed(wheel),
            dead_leaves(c.BLACK, c.SILVER, c.MUSTARD, largest=8),
        ),
    }
    return assemble(instance, "mouse", pose, pieces)


def gripper(
    instance: int,
    name: str,
    pose: Float[np.ndarray, "frames 4 4"],
    opening: Float[np.ndarray, " frames"],
    wrist: Float[np.ndarray, " frames"],
    colours: tuple[Colour, ...],
) -> list[Part]:
    """Return a robot hand of four links along the x axis of its palm, with fingers of 20 cm.

    Args:
        instance: object index.
        name: of the hand.
        pose: of the palm.
        opening: rotation, degrees, of each of its two fingers from their closed position.
        wrist: rotation, degrees, of the arm relative to the palm, about y.
        colours: of its texture.
    """
    skin = dead_leaves(*colours)
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


def parcel(instance: int, pose: Float[np.ndarray, "frames 4 4"]) -> list[Part]:
    """Return a parcel, 26 cm long, centred on its origin."""
    shape = box(0.26, 0.14, 0.13, bevel=0.008).moved((0, 0, -0.065))
    paper = dead_leaves(c.MUSTARD, c.CREAM, c.RUST, c.NAVY, largest=20)
    return assemble(instance, "parcel", pose, {"box": (shape, paper)})
