"""Motion: smooth curves through key values, poses, hinges, bending bodies, a hand-held camera.

Time runs from 0 at the first frame to 1 at the last. Angles are in degrees, lengths in metres.
"""

import numpy as np
from jaxtyping import Float

from msdyn.geometry import Cameras, look_at
from msdyn.synthetic.spec import DOWN, Deformation

__all__ = ["bend", "handheld", "hinge", "keyframe_curve", "make_poses", "view_from"]


def keyframe_curve(
    frames: int, *keys: tuple[float, ...]
) -> Float[np.ndarray, "frames values"] | Float[np.ndarray, " frames"]:
    """Return a smooth curve through keys (time, value, ...); 1D where keys have one value.

    Monotone cubic interpolation does not overshoot between keys; the curve is constant before the
    first key and after the last.
    """
    from scipy.interpolate import PchipInterpolator

    table = np.asarray(keys, np.float64)
    times = np.linspace(0, 1, frames).clip(table[0, 0], table[-1, 0])
    values = PchipInterpolator(table[:, 0], table[:, 1:])(times)
    return values[:, 0] if values.shape[1] == 1 else values


def _axis_rotation(
    axis: str, degrees: Float[np.ndarray, "*batch"] | float
) -> Float[np.ndarray, "*batch 4 4"]:
    """Return rotations about the x, y or z axis as homogeneous transforms."""
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


def make_poses(
    positions: Float[np.ndarray, "frames 3"],
    *rotations: tuple[str, Float[np.ndarray, " frames"] | float],
) -> Float[np.ndarray, "frames 4 4"]:
    """Return poses composed of rotations about fixed axes, in the order given, and a translation.

    Args:
        positions: translations.
        rotations: pairs of an axis ("x", "y" or "z") and degrees, per frame or one for all.
    """
    pose = np.tile(np.eye(4), (len(positions), 1, 1))
    for axis, degrees in rotations:
        pose = _axis_rotation(axis, degrees) @ pose
    pose[:, :3, 3] = positions
    return pose


def hinge(
    world_from_parent: Float[np.ndarray, "frames 4 4"],
    at: tuple[float, float, float],
    axis: str,
    degrees: Float[np.ndarray, " frames"],
) -> Float[np.ndarray, "frames 4 4"]:
    """Return the poses of a link that rotates about an axis through the point `at` of its parent.

    The link's origin is that point.
    """
    joint = _axis_rotation(axis, degrees)
    joint[..., :3, 3] = at
    return world_from_parent @ joint


def bend(
    length: float,
    degrees: Float[np.ndarray, " frames"],
    heading: Float[np.ndarray, " frames"],
    stretch: Float[np.ndarray, " frames"],
) -> Deformation:
    """Bend an upright body like a rod fixed at its foot; stretching preserves its volume.

    Args:
        length: height of the body at rest.
        degrees: inclination of its top.
        heading: direction of the inclination, about the vertical from +x.
        stretch: length relative to rest.
    """
    grid = np.linspace(0, 1, 65)

    def deform(
        vertices: Float[np.ndarray, "vertices 3"], frame: int
    ) -> Float[np.ndarray, "vertices 3"]:
        # Inclination along the rod; the exponent keeps the foot upright.
        angle = np.radians(degrees[frame]) * grid**1.5
        sine, cosine = np.sin(angle), np.cos(angle)
        step = length * stretch[frame] * np.diff(grid)
        rod_along = np.r_[0, np.cumsum((sine[1:] + sine[:-1]) / 2 * step)]
        rod_height = np.r_[0, np.cumsum((cosine[1:] + cosine[:-1]) / 2 * step)]

        c, s = np.cos(np.radians(heading[frame])), np.sin(np.radians(heading[frame]))
        width = 1 / np.sqrt(stretch[frame])
        along = width * (c * vertices[:, 0] + s * vertices[:, 1])
        across = width * (-s * vertices[:, 0] + c * vertices[:, 1])
        t = vertices[:, 2] / length
        sin, cos = np.interp(t, grid, sine), np.interp(t, grid, cosine)
        height = np.interp(t, grid, rod_height) - sin * along
        along = np.interp(t, grid, rod_along) + cos * along
        return np.stack([c * along - s * across, s * along + c * across, height], -1)

    return deform


def handheld(
    centres: Float[np.ndarray, "frames 3"],
    targets: Float[np.ndarray, "frames 3"],
    focal: float,
    size: tuple[int, int],
    rng: np.random.Generator,
    fps: float = 24.0,
) -> Cameras:
    """Return cameras that follow a path by hand, with slow sway and a small tremor.

    Args:
        centres: intended camera centres.
        targets: points on the optical axes.
        focal: focal length as a fraction of the image width.
        size: (width, height) in pixels.
        rng: source of randomness.
        fps: frames per second; the frequencies of sway and tremor are in hertz.
    """
    width, height = size
    seconds = np.arange(len(centres)) / fps

    def oscillation(amplitude: float, low: float, high: float) -> Float[np.ndarray, "frames 3"]:
        """Return a sum of sines of this root mean square and frequencies from `low` to `high`."""
        frequency = rng.uniform(low, high, (4, 3))
        phase = rng.uniform(0, 2 * np.pi, (4, 3))
        waves = np.sin(2 * np.pi * frequency * seconds[:, None, None] + phase)
        return amplitude * waves.sum(1) / np.sqrt(2)

    centres = centres + oscillation(0.008, 0.4, 0.9) + oscillation(0.0006, 3, 6)
    targets = targets + oscillation(0.012, 0.4, 0.9) + oscillation(0.0012, 3, 6)
    poses = [look_at(c, t, DOWN) for c, t in zip(centres, targets, strict=True)]
    return Cameras.pinhole(focal * width, width, height, np.stack(poses))


def view_from(cameras: Cameras, focus: Float[np.ndarray, " 3"], degrees: float) -> Cameras:
    """Return one camera that looks at `focus` from beside the middle camera of a path.

    It keeps that camera's distance to the focus and its height. `degrees` is the angle between the
    two as seen from the focus; positive angles move the camera to its right.
    """
    middle = cameras[len(cameras) // 2]
    offset = middle.centres[0] - focus
    horizontal = np.linalg.norm(offset[:2]) / np.linalg.norm(offset)
    # A camera above the focus moves by less than the angle of its rotation about the vertical.
    half = np.arcsin(np.sin(np.radians(degrees) / 2) / horizontal)
    rotated = _axis_rotation("z", np.degrees(2 * half))[:3, :3] @ offset
    pose = look_at(focus + rotated, focus, DOWN)
    return Cameras(middle.intrinsics, pose[None], middle.width, middle.height)
