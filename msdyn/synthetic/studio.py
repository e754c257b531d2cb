"""The static surroundings of the scenes, a room with a table and objects on it, and the cameras."""

import numpy as np

from msdyn.geometry import Cameras
from msdyn.synthetic import palette as c
from msdyn.synthetic.animate import handheld, keyframe_curve, view_from
from msdyn.synthetic.shapes import ball, box, cylinder, lathe, room, slab
from msdyn.synthetic.spec import Part
from msdyn.synthetic.textures import dead_leaves, fabric, inset, photo, plaster, wood

__all__ = ["FLOOR", "books", "crate", "flowerpot", "globe", "make_cameras", "mat", "studio", "tin"]

FLOOR = -0.74  # z, metres; the table top is at 0


def studio() -> list[Part]:
    """Return a closed room with three pictures and a table."""
    paper = dead_leaves(
        (0.80, 0.79, 0.72),
        (0.71, 0.75, 0.72),
        (0.87, 0.85, 0.78),
        (0.62, 0.69, 0.68),
        (0.80, 0.72, 0.62),
        largest=70,
        smallest=5,
    )
    white = plaster((0.80, 0.80, 0.78), (0.92, 0.91, 0.88), coarsest=40)
    planks = wood(c.WALNUT, (0.55, 0.38, 0.24), c.OAK, plank=45)
    walls = room(5.0, 4.4, 2.7, 0.12).moved((0, -0.6, FLOOR))
    desk = wood((0.50, 0.34, 0.20), (0.68, 0.49, 0.30), (0.82, 0.65, 0.44))
    parts = [
        Part("room", walls, paper, sides={"+z": planks, "-z": white}, texel=0.004),
        Part("table", slab(2.1, 1.3, 0.04, 0.03).moved((0, 0.15, -0.04)), desk),
    ]
    for i, (x, y) in enumerate([(-0.95, -0.4), (0.95, -0.4), (-0.95, 0.7), (0.95, 0.7)]):
        leg = box(0.07, 0.07, -FLOOR - 0.04).moved((x, y, FLOOR))
        parts.append(Part(f"leg{i}", leg, desk, texel=0.004))
    frame = wood((0.18, 0.14, 0.12), (0.32, 0.25, 0.20))
    for name, x, z, width, height in [
        ("china", -0.72, 0.10, 1.10, 0.74),
        ("flower", 0.62, 0.24, 0.84, 0.58),
        ("portrait", 1.42, 0.17, 0.50, 0.62),
    ]:
        shape = box(width, 0.03, height).moved((x, 1.575, z))
        sides = {"-y": inset(white, photo(name), 0.06)}
        parts.append(Part(f"picture/{name}", shape, frame, sides=sides, texel=0.003))
    return parts


def mat(x: float, y: float, width: float, depth: float, yaw: float = 0.0) -> Part:
    """Return a tartan cloth on the table."""
    shape = slab(width, depth, 0.004, 0.04).moved((x, y, 0), yaw)
    tartan = fabric(c.CREAM, c.TEAL, c.NAVY, c.CORAL, c.SAND, widest=40)
    return Part("mat", shape, tartan)


def flowerpot(x: float, y: float) -> Part:
    """Return a clay pot, 16 cm high."""
    wall = [(0.085 + 0.03 * t, 0.125 * t) for t in np.linspace(0, 1, 6)]
    rim = [(0.125, 0.127), (0.125, 0.142), (0.125, 0.158), (0.10, 0.16), (0.095, 0.15)]
    clay = dead_leaves(c.CORAL, c.RUST, (0.95, 0.55, 0.40), c.SAND)
    return Part("pot", lathe([(0, 0), *wall, *rim, (0, 0.14)]).moved((x, y, 0)), clay)


def books(x: float, y: float, seed: int) -> list[Part]:
    """Return a pile of five books of random sizes and rotations."""
    rng = np.random.default_rng([seed, 2])
    covers = [
        (c.PLUM, c.CREAM, c.MUSTARD),
        (c.TEAL, c.CREAM, c.NAVY),
        (c.CORAL, c.BLACK, c.CREAM),
        (c.NAVY, c.SKY, c.MUSTARD),
        (c.MOSS, c.CREAM, c.OAK),
    ]
    parts, z = [], 0.0
    for i, cover in enumerate(covers):
        thickness = rng.uniform(0.03, 0.055)
        shape = box(rng.uniform(0.24, 0.3), rng.uniform(0.18, 0.22), thickness)
        shape = shape.moved((x, y, z), yaw=rng.uniform(-20, 20))
        parts.append(Part(f"book{i}", shape, dead_leaves(*cover, largest=25)))
        z += thickness
    return parts


def tin(x: float, y: float, height: float = 0.17) -> Part:
    """Return a printed tin."""
    shape = cylinder(0.06, height).moved((x, y, 0))
    return Part("tin", shape, dead_leaves(c.NAVY, c.SKY, c.CREAM, c.MUSTARD))


def globe(x: float, y: float) -> Part:
    """Return a globe, 20 cm in diameter."""
    shape = ball(0.2, 0.2, 0.2).moved((x, y, 0))
    return Part("globe", shape, dead_leaves(c.SKY, c.TEAL, c.LEAF, c.CREAM, c.OAK))


def crate(x: float, y: float, yaw: float = 15.0) -> Part:
    """Return a wooden crate."""
    shape = box(0.3, 0.22, 0.24).moved((x, y, 0), yaw)
    return Part("crate", shape, wood(c.WALNUT, c.OAK, c.CREAM, plank=22))


def make_cameras(
    frames: int,
    width: int,
    height: int,
    seed: int,
    *,
    nearer: float = 0.0,
) -> tuple[Cameras, dict[str, Cameras]]:
    """Return a hand-held camera that moves to the left, and two static ones beside its path.

    Args:
        frames: number of frames.
        width, height: image size in pixels.
        seed: of the sway of the camera.
        nearer: metres by which to move all cameras towards the table.

    Returns:
        The input cameras, and the held-out ones by name: 15 degrees to the left and 28 to the right
        of the middle camera of the path, as seen from the focus.
    """
    rng = np.random.default_rng([seed, 0])
    focus = np.array([0.0, 0.1, 0.18 - 0.2 * nearer])
    path = keyframe_curve(
        frames, (0, 0.22, -1.15, 0.58), (0.5, 0.0, -1.17, 0.64), (1, -0.22, -1.20, 0.59)
    )
    towards = (focus - path) / np.linalg.norm(focus - path, axis=1, keepdims=True)
    centres = path + nearer * towards
    targets = focus + keyframe_curve(frames, (0, -0.02, 0, 0), (1, 0.04, 0, 0.01))
    cameras = handheld(centres, targets, 0.95, (width, height), rng)
    views = {
        "left15": view_from(cameras, focus, -15),
        "right28": view_from(cameras, focus, 28),
    }
    return cameras, views
