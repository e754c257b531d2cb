"""Motion: smooth curves through key values, poses, hinges, bending bodies, a hand-held camera.

Time runs from 0 at the first to 1 at the last frame. Angles are in degrees, lengths in metres.
"""

import numpy as np

from msdyn.geometry import Cameras, look_at
from msdyn.synthetic.spec import DOWN, Deformation

__all__ = ["bend", "handheld", "hinge", "keyed", "place", "view_from"]


def keyed(frames: int, *keys: tuple[float, ...]) -> np.ndarray:
    """Return a smooth curve through keys (time, value, ...): [T, values], or [T] for one value.

    Between keys it does not overshoot (monotone cubic); before the first and after the last it
    rests.
    """
    from scipy.interpolate import PchipInterpolator

    table = np.asarray(keys, np.float64)
    times = np.linspace(0, 1, frames).clip(table[0, 0], table[-1, 0])
    values = PchipInterpolator(table[:, 0], table[:, 1:])(times)
    return values[:, 0] if values.shape[1] == 1 else values


def rotation(axis: str, degrees: np.ndarray | float) -> np.ndarray:
    """Return rotations [..., 4, 4] about the x, y or z axis."""
    from scipy.spatial.transform import Rotation

    degrees = np.asarray(degrees, np.float64)
    matrix = np.zeros((*degrees.shape, 4, 4))
    matrix[..., :3, :3] = (
        Rotation.from_euler(axis, degrees.reshape(-1, 1), degrees=True)
        .as_matrix()
        .reshape(*degrees.shape, 3, 3)
    )
    matrix[..., 3, 3] = 1
    return matrix


def place(positions: np.ndarray, *turns: tuple[str, np.ndarray | float]) -> np.ndarray:
    """Return poses [T, 4, 4]: turned in the order given, each about a fixed axis, then shifted.

    Args:
        positions: [T, 3].
        turns: pairs of an axis ("x", "y" or "z") and degrees, [T] or one for all.
    """
    pose = np.tile(np.eye(4), (len(positions), 1, 1))
    for axis, degrees in turns:
        pose = rotation(axis, degrees) @ pose
    pose[:, :3, 3] = positions
    return pose


def hinge(
    world_from_parent: np.ndarray, at: tuple[float, float, float], axis: str, degrees: np.ndarray
) -> np.ndarray:
    """Return the poses [T, 4, 4] of a link that turns about an axis through a point of its parent.

    The link's origin is that point.
    """
    joint = rotation(axis, degrees)
    joint[..., :3, 3] = at
    return world_from_parent @ joint


def bend(
    length: float, degrees: np.ndarray, heading: np.ndarray, stretch: np.ndarray
) -> Deformation:
    """Bend an upright body like a rod held at its foot, keeping its volume as it stretches.

    Args:
        length: height of the body at rest.
        degrees: [T] lean of its top.
        heading: [T] direction it leans to, about the vertical from +x.
        stretch: [T] length relative to rest.
    """
    grid = np.linspace(0, 1, 65)

    def deform(vertices: np.ndarray, frame: int) -> np.ndarray:
        lean = np.radians(degrees[frame]) * grid**1.5  # the foot stays upright
        run, rise = np.sin(lean), np.cos(lean)
        step = length * stretch[frame] * np.diff(grid)
        out = np.r_[0, np.cumsum((run[1:] + run[:-1]) / 2 * step)]
        up = np.r_[0, np.cumsum((rise[1:] + rise[:-1]) / 2 * step)]

        c, s = np.cos(np.radians(heading[frame])), np.sin(np.radians(heading[frame]))
        thin = 1 / np.sqrt(stretch[frame])
        along = thin * (c * vertices[:, 0] + s * vertices[:, 1])
        across = thin * (-s * vertices[:, 0] + c * vertices[:, 1])
        t = vertices[:, 2] / length
        sin, cos = np.interp(t, grid, run), np.interp(t, grid, rise)
        along, height = np.interp(t, grid, out) + cos * along, np.interp(t, grid, up) - sin * along
        return np.stack([c * along - s * across, s * along + c * across, height], -1)

    return deform


def handheld(
    centres: np.ndarray,
    targets: np.ndarray,
    focal: float,
    size: tuple[int, int],
    rng: np.random.Generator,
    fps: float = 24.0,
) -> Cameras:
    """Return cameras that follow a path by hand: slow sway and a small tremor on top.

    Args:
        centres: [T, 3] intended path.
        targets: [T, 3] points looked at.
        focal: focal length as a share of the image width.
        size: (width, height) in pixels.
        rng: source of randomness.
        fps: frames a second; sway and tremor have natural frequencies.
    """
    width, height = size
    seconds = np.arange(len(centres)) / fps

    def waver(amplitude: float, low: float, high: float) -> np.ndarray:
        """[T, 3] of this root mean square, of frequencies between two, in hertz."""
        frequency = rng.uniform(low, high, (4, 3))
        phase = rng.uniform(0, 2 * np.pi, (4, 3))
        waves = np.sin(2 * np.pi * frequency * seconds[:, None, None] + phase)
        return amplitude * waves.sum(1) / np.sqrt(2)

    centres = centres + waver(0.008, 0.4, 0.9) + waver(0.0006, 3, 6)
    targets = targets + waver(0.012, 0.4, 0.9) + waver(0.0012, 3, 6)
    poses = [look_at(c, t, DOWN) for c, t in zip(centres, targets, strict=True)]
    return Cameras.pinhole(focal * width, width, height, np.stack(poses))


def view_from(cameras: Cameras, focus: np.ndarray, degrees: float) -> Cameras:
    """Return one camera that sees the focus from that many degrees beside the middle of the path.

    It has the distance and height of the middle camera and looks at the focus; positive degrees
    move it to the right as seen from there.
    """
    middle = cameras[len(cameras) // 2]
    arm = middle.centres[0] - focus
    level = np.linalg.norm(arm[:2]) / np.linalg.norm(arm)
    # A turn about the vertical moves a camera above the focus by less than its angle.
    half = np.arcsin(np.sin(np.radians(degrees) / 2) / level)
    turned = rotation("z", np.degrees(2 * half))[:3, :3] @ arm
    pose = look_at(focus + turned, focus, DOWN)
    return Cameras(middle.intrinsics, pose[None], middle.width, middle.height)
