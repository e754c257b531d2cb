"""Random materials, shapes and moving objects, each drawn from a source of randomness.

Motions are smooth curves over time from 0 to 1, so that what is drawn does not depend on the number
of frames.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from msdyn.synthetic import palette
from msdyn.synthetic.animate import bend, hinge, keyframe_curve, make_poses
from msdyn.synthetic.moving_objects import assemble
from msdyn.synthetic.shapes import ball, box, cylinder, lathe, slab, torus
from msdyn.synthetic.spec import Deformation, Part, Shape
from msdyn.synthetic.textures import Colour, Material, dead_leaves, fabric, plaster, wood

__all__ = ["MOVERS", "Mover", "random_material", "random_shape"]

_COLOURS: list[Colour] = [v for k, v in vars(palette).items() if k.isupper()]
Mover = Callable[[int, tuple[float, float], int, np.random.Generator], list[Part]]
"""From object index, position on the table, number of frames and randomness to parts."""


def random_material(
    rng: np.random.Generator, *, coarse: float = 1.0, contrast: float = 1.0
) -> Material:
    """Return a texture of four random colours.

    Args:
        rng: source of randomness.
        coarse: factor of the size of its details.
        contrast: distance of the colours from one of them, as a fraction of what it is.
    """
    drawn = np.array([_COLOURS[i] for i in rng.permutation(len(_COLOURS))[:4]])
    base = drawn[drawn.sum(1).argmax()]  # the brightest
    muted = (base + contrast * (drawn - base)).tolist()
    colours: list[Colour] = [(r, g, b) for r, g, b in muted]
    kind = rng.choice(["leaves", "fabric", "wood", "plaster"], p=[0.5, 0.15, 0.25, 0.1])
    if kind == "leaves":
        return dead_leaves(*colours, largest=coarse * rng.uniform(12, 40))
    if kind == "fabric":
        return fabric(*colours, widest=coarse * rng.uniform(12, 30))
    if kind == "wood":
        # From dark to bright, as grain is.
        return wood(*sorted(colours[:3], key=sum), plank=int(coarse * rng.uniform(20, 60)))
    return plaster(*colours, coarsest=coarse * rng.uniform(20, 60), grain=0.08)


def random_shape(rng: np.random.Generator, size: float) -> Shape:
    """Return a shape about `size` metres high that stands on z = 0."""
    kind = rng.choice(["box", "cylinder", "ball", "lathe", "ring"], p=[0.35, 0.15, 0.15, 0.25, 0.1])
    x, y, z = size * rng.uniform(0.6, 1.0, 3)
    if kind == "box":
        return box(x, y, z, bevel=float(rng.uniform(0.02, 0.12) * min(x, y, z)))
    if kind == "cylinder":
        return cylinder(0.4 * x, z)
    if kind == "ball":
        return ball(x, y, z)
    if kind == "ring":
        upright = make_poses(np.array([[0, 0, 0.5 * z]]), ("x", 90.0))[0]
        tube = 0.1 * z
        return torus(0.5 * z - tube, tube).transformed(upright)
    return lathe(_profile(rng, 0.42 * x, z))


def _profile(rng: np.random.Generator, radius: float, height: float) -> list[tuple[float, float]]:
    """Return the outline of a turned vessel or figure: a smooth random radius over the height."""
    keys = np.column_stack([np.linspace(0, 1, 5), rng.uniform(0.45, 1.0, 5)])
    outline = radius * np.asarray(keyframe_curve(15, *map(tuple, keys)))
    levels = np.linspace(0, height, 15)
    return [(0.0, 0.0), *zip(outline.tolist(), levels.tolist(), strict=True), (0.0, height)]


def _curve(
    rng: np.random.Generator, frames: int, low: float, high: float, keys: int = 4
) -> Float[np.ndarray, " frames"]:
    """Return a smooth random curve that spans at least 60 % of a range."""
    values = rng.uniform(0, 1, keys)
    values = (values - values.min()) / np.ptp(values)
    span = rng.uniform(0.6, 1.0)
    values = low + (high - low) * (span * values + rng.uniform(0, 1 - span))
    times = np.linspace(0, 1, keys) + np.r_[0, rng.uniform(-0.1, 0.1, keys - 2), 0]
    return keyframe_curve(frames, *zip(times.tolist(), values.tolist(), strict=True))


def _path(
    rng: np.random.Generator,
    frames: int,
    at: tuple[float, float],
    reach: float,
    heights: tuple[float, float] = (0.003, 0.003),
) -> Float[np.ndarray, "frames 3"]:
    """Return a smooth random path around a place on the table, at most `reach` metres from it."""
    low, high = heights
    return np.column_stack(
        [
            at[0] + _curve(rng, frames, -reach, reach),
            at[1] + _curve(rng, frames, -0.7 * reach, 0.7 * reach),
            np.full(frames, low) if low == high else _curve(rng, frames, low, high),
        ]
    )


def _body(rng: np.random.Generator, size: float) -> dict[str, tuple[Shape, Material]]:
    """Return a rigid body of two or three shapes, on z = 0."""
    pieces = {"main": (random_shape(rng, size), random_material(rng))}
    top = 0.0
    for number in range(int(rng.integers(1, 3))):
        piece = random_shape(rng, size * rng.uniform(0.4, 0.6))
        below = pieces["main"][0].vertices
        top = float(below[:, 2].max())
        beside = 0.5 * float(below[:, 0].max()) * rng.uniform(-1, 1)
        # Sunk into the main shape, so that the body is of one piece.
        moved = piece.moved((beside, 0.0, (0.8 if number else 0.9) * top), rng.uniform(0, 90))
        pieces[f"piece{number}"] = (moved, random_material(rng))
    return pieces


def carried(
    instance: int, at: tuple[float, float], frames: int, rng: np.random.Generator
) -> list[Part]:
    """A rigid body is carried through the air on a rod, and turned."""
    pieces = _body(rng, rng.uniform(0.2, 0.27))
    top = max(float(shape.vertices[:, 2].max()) for shape, _ in pieces.values())
    rod = cylinder(0.015, 0.5).moved((0.0, 0.0, 0.95 * top))
    pose = make_poses(
        _path(rng, frames, at, rng.uniform(0.1, 0.18), (0.05, rng.uniform(0.14, 0.24))),
        ("x", _curve(rng, frames, -25, 25)),
        ("y", _curve(rng, frames, -20, 20)),
        ("z", rng.uniform(0, 360) + _curve(rng, frames, 0, rng.uniform(40, 110), 3)),
    )
    pieces["rod"] = (rod, random_material(rng))
    return assemble(instance, f"carried{instance}", pose, pieces)


def spinning(
    instance: int, at: tuple[float, float], frames: int, rng: np.random.Generator
) -> list[Part]:
    """A rigid body slides over the table and spins."""
    turn = rng.choice([-1, 1]) * rng.uniform(70, 200)
    pose = make_poses(
        _path(rng, frames, at, rng.uniform(0.06, 0.15)),
        ("z", rng.uniform(0, 360) + keyframe_curve(frames, (0, 0), (0.5, 0.6 * turn), (1, turn))),
    )
    return assemble(instance, f"spinning{instance}", pose, _body(rng, rng.uniform(0.24, 0.32)))


def jointed(
    instance: int, at: tuple[float, float], frames: int, rng: np.random.Generator
) -> list[Part]:
    """A chain of two or three hinged links; its foot slides and turns on the table."""
    name = f"jointed{instance}"
    pose = make_poses(
        _path(rng, frames, at, rng.uniform(0.03, 0.1)),
        ("z", rng.uniform(-40, 40) + _curve(rng, frames, 0, rng.uniform(10, 60), 3)),
    )
    height = float(rng.uniform(0.07, 0.12))
    wide, deep = rng.uniform(0.2, 0.28, 2).tolist()
    foot = box(wide, deep, height, bevel=0.01)
    parts = assemble(instance, f"{name}/foot", pose, {"foot": (foot, random_material(rng))})
    at_joint, axis = (0.0, 0.0, 0.95 * height), str(rng.choice(["x", "y"]))
    for number in range(int(rng.integers(1, 3))):
        low = rng.uniform(-50, -20)
        pose = hinge(pose, at_joint, axis, _curve(rng, frames, low, low + rng.uniform(45, 85)))
        length, width = float(rng.uniform(0.22, 0.3)), float(rng.uniform(0.08, 0.12))
        bar = box(width, width, length, bevel=0.01).moved((0.0, 0.0, -0.3 * width))
        head = ball(1.7 * width, 1.7 * width, 1.7 * width).moved((0.0, 0.0, length - width))
        pieces = {"bar": (bar, random_material(rng)), "head": (head, random_material(rng))}
        parts += assemble(instance, f"{name}/link{number}", pose, pieces)
        at_joint = (0.0, 0.0, length - 0.3 * width)
    return parts


def soft(
    instance: int, at: tuple[float, float], frames: int, rng: np.random.Generator
) -> list[Part]:
    """A turned soft body is squeezed and bends."""
    height = float(rng.uniform(0.34, 0.46))
    ribs = int(rng.choice([0, 0, 7, 11]))
    outline = _profile(rng, rng.uniform(0.14, 0.19), height)
    body = lathe(outline, sections=64, ribs=ribs, depth=0.08)
    squeeze = _curve(rng, frames, 0, rng.uniform(0.2, 0.5), 5)
    bending = bend(
        height,
        _curve(rng, frames, -35, 35),
        rng.uniform(0, 180) + _curve(rng, frames, -20, 20, 3),
        _curve(rng, frames, 0.9, 1.15),
    )
    middle = rng.uniform(0.45, 0.7)
    pose = make_poses(
        _path(rng, frames, at, rng.uniform(0.03, 0.1)), ("z", _curve(rng, frames, -25, 25))
    )
    pieces = {"body": (body, random_material(rng))}
    deform = _squeezed(height, squeeze, middle, bending)
    return assemble(instance, f"soft{instance}", pose, pieces, deformation=deform)


def _squeezed(
    height: float, amount: Float[np.ndarray, " frames"], middle: float, then: Deformation
) -> Deformation:
    """Squeeze a body along x around a height (a fraction), which widens it along y, and go on."""

    def deform(
        vertices: Float[np.ndarray, "vertices 3"], frame: int
    ) -> Float[np.ndarray, "vertices 3"]:
        along = np.exp(-(((vertices[:, 2] / height - middle) / 0.35) ** 2))
        own = amount[frame] * along
        scale = np.stack([1 - own, 1 + 0.5 * own, np.ones(len(own))], -1)
        return then(vertices * scale, frame)

    return deform


def cloth(
    instance: int, at: tuple[float, float], frames: int, rng: np.random.Generator
) -> list[Part]:
    """A cloth hangs from a bar and waves: two travelling waves that grow from bar to hem."""
    width, height = float(rng.uniform(0.5, 0.65)), float(rng.uniform(0.36, 0.46))
    sheet = slab(width, 0.006, height, 0.02)
    lengths = rng.uniform(0.22, 0.5, 2)
    directions = rng.uniform(-60, 60, 2) + np.array([0, 90])
    cycles = rng.choice([-1, 1], 2) * rng.uniform(0.8, 1.7, 2)
    # Slopes of a quarter to a half: steeper waves would stretch it.
    phases, sizes = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.04, 0.07, 2) * lengths
    time = np.linspace(0, 1, frames)
    waves = 2 * np.pi / lengths[:, None] * np.stack(
        [np.cos(np.radians(directions)), np.sin(np.radians(directions))], -1
    )  # fmt: skip

    def deform(
        vertices: Float[np.ndarray, "vertices 3"], frame: int
    ) -> Float[np.ndarray, "vertices 3"]:
        phase = vertices[:, [0, 2]] @ waves.T + phases - 2 * np.pi * cycles * time[frame]
        loose = np.clip(1 - vertices[:, 2] / height, 0, 1)
        moved = vertices.copy()
        moved[:, 1] += loose * (sizes * np.sin(phase)).sum(-1)
        # The hem rises where the cloth is out of its plane.
        moved[:, 2] += 0.2 * loose * np.abs(moved[:, 1] - vertices[:, 1])
        return moved

    name = f"cloth{instance}"
    bar = cylinder(0.012, width + 0.1).transformed(
        make_poses(np.array([[-width / 2 - 0.05, 0, height]]), ("y", 90.0))[0]
    )
    lift = rng.uniform(0.04, 0.1)
    pose = make_poses(
        _path(rng, frames, at, rng.uniform(0.01, 0.05), (lift, lift)),
        ("z", _curve(rng, frames, -15, 15, 3)),
    )
    hung = {"sheet": (sheet, random_material(rng))}
    return [
        *assemble(instance, name, pose, hung, deformation=deform),
        *assemble(instance, f"{name}/bar", pose, {"bar": (bar, random_material(rng))}),
    ]


MOVERS: dict[str, Mover] = {
    "carried": carried,
    "spinning": spinning,
    "jointed": jointed,
    "soft": soft,
    "cloth": cloth,
}
