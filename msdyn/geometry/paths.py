"""Camera paths for novel views, built from the cameras of a clip.

Every function of `PATHS` takes the cameras of the clip, the focus point [3] in the world and the
number of frames. `mean_camera`, `stabilised`, `swung` and `cropped` are the parts of the path that
`msdyn.render.auto_path` chooses.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Real

from msdyn.errors import InputError
from msdyn.geometry.cameras import Cameras, look_at
from msdyn.geometry.procrustes import nearest_rotations

__all__ = [
    "PATHS",
    "cropped",
    "focus_point",
    "jumps",
    "make_path",
    "mean_camera",
    "smoothing_weights",
    "stabilised",
    "swung",
    "turned_about",
]

_JUMP = 15.0
"""Degrees between the axes of successive images, median: D-NeRF's are 60 or more apart."""
_PITCH = 0.4
"""Largest pitch of an arc, relative to its largest yaw."""


def focus_point(cameras: Cameras) -> Float[np.ndarray, " 3"]:
    """Return the world point nearest to all optical axes in the least-squares sense.

    If the axes are nearly parallel or meet behind a camera, it is a point in front of the cameras,
    at twice the extent of the camera path from its mean.
    """
    centres = cameras.centres
    axes = cameras.cam_from_world[:, 2, :3]  # third row of the rotation: forward in the world
    orthogonal_projector = np.eye(3) - axes[:, :, None] * axes[:, None, :]  # [T, 3, 3]
    matrix = orthogonal_projector.sum(0)
    forward = axes.mean(0) / np.linalg.norm(axes.mean(0))
    extent = max(float(np.linalg.norm(np.ptp(centres, axis=0))), 1e-3)
    if np.linalg.cond(matrix) < 1e4:
        point = np.linalg.solve(matrix, (orthogonal_projector @ centres[..., None]).sum(0)[:, 0])
        if ((point - centres) @ forward).min() > 0:
            return point
    return centres.mean(0) + 2 * extent * forward


def jumps(cameras: Cameras) -> bool:
    """Return whether a camera jumps from image to image, so that flow between them says nothing."""
    axes = cameras.cam_from_world[:, 2, :3]
    cosines = np.clip((axes[1:] * axes[:-1]).sum(1), -1, 1)
    return len(cosines) > 0 and bool(np.degrees(np.median(np.arccos(cosines))) > _JUMP)


def _input(cameras: Cameras, focus: Float[np.ndarray, " 3"], count: int) -> Cameras:
    """Follow the input cameras, interpolated between frames."""
    return cameras.interpolated(np.linspace(0, len(cameras) - 1, count))


def _orbit(
    cameras: Cameras, focus: Float[np.ndarray, " 3"], count: int, degrees: float = 15.0
) -> Cameras:
    """Move left and right about the focus on an ellipse, starting at the middle camera."""
    return _ellipse(cameras, focus, np.linspace(0, 2 * np.pi, count, endpoint=False), degrees)


def _bullet_time(
    cameras: Cameras, focus: Float[np.ndarray, " 3"], count: int, degrees: float = 25.0
) -> Cameras:
    """Move on a wide ellipse about the focus; meant for a frozen time."""
    return _ellipse(cameras, focus, np.linspace(0, 2 * np.pi, count), degrees)


def _away(
    cameras: Cameras, focus: Float[np.ndarray, " 3"], count: int, degrees: float = 20.0
) -> Cameras:
    """Start on the input path and move away from it with increasing yaw about the focus."""
    base = _input(cameras, focus, count)
    frames = []
    for i, camera in enumerate(base):
        ease = 0.5 - 0.5 * np.cos(np.pi * i / max(count - 1, 1))
        frames.append(turned_about(camera, focus, np.deg2rad(degrees) * ease, 0.0))
    return _stack(frames)


def _stabilised(cameras: Cameras, focus: Float[np.ndarray, " 3"], count: int) -> Cameras:
    """Follow the input cameras, smoothed over time by a Gaussian."""
    return stabilised(cameras, np.linspace(0, len(cameras) - 1, count))


def smoothing_weights(
    positions: Real[np.ndarray, " positions"], frames: int
) -> Float[np.ndarray, "positions frames"]:
    """Return the weights of the frames in a Gaussian average over time at each position.

    The standard deviation is a twelfth of the clip, at least one frame.

    Args:
        positions: fractional frame indices.
        frames: number of frames of the clip.
    """
    width = max(frames / 12, 1.0)
    offset = np.asarray(positions, np.float64)[:, None] - np.arange(frames)
    weight = np.exp(-((offset / width) ** 2) / 2)
    return weight / weight.sum(1, keepdims=True)


def stabilised(cameras: Cameras, positions: Real[np.ndarray, " positions"]) -> Cameras:
    """Return the input cameras at fractional frame indices, smoothed over time by a Gaussian.

    Args:
        cameras: the clip's cameras.
        positions: fractional frame indices.
    """
    return _averaged(cameras, smoothing_weights(positions, len(cameras)))


def mean_camera(cameras: Cameras) -> Cameras:
    """Return one camera, the mean of the given ones: of centres, rotations and intrinsics."""
    return _averaged(cameras, np.full((1, len(cameras)), 1 / len(cameras)))


def _averaged(cameras: Cameras, weight: Float[np.ndarray, "count frames"]) -> Cameras:
    """Return the weighted means of cameras; the weights of each add up to one."""
    pose = np.tile(np.eye(4), (len(weight), 1, 1))
    mean = np.einsum("ct,tij->cij", weight, cameras.cam_from_world[:, :3, :3])
    pose[:, :3, :3] = nearest_rotations(mean)
    pose[:, :3, 3] = -(pose[:, :3, :3] @ (weight @ cameras.centres)[..., None])[..., 0]
    intrinsics = np.einsum("ct,tij->cij", weight, cameras.intrinsics)
    return Cameras(intrinsics, pose, cameras.width, cameras.height)


def swung(
    base: Cameras, focus: Real[np.ndarray, "cameras 3"], degrees: float, cycles: int = 1
) -> Cameras:
    """Rotate each camera about its own focus point, left and right and a little upwards.

    A point at the focus keeps its position in the image. The first and last camera are unchanged.

    Args:
        base: cameras, without the swing.
        focus: a world point for each camera.
        degrees: largest yaw; the largest pitch is two fifths of it.
        cycles: number of times that the cameras swing to both sides.

    Raises:
        InputError: as many focus points as cameras are needed.
    """
    if np.shape(focus) != (len(base), 3):
        raise InputError(f"focus: expected shape ({len(base)}, 3), got {np.shape(focus)}")
    phase = 2 * np.pi * cycles * np.linspace(0, 1, len(base))
    frames = [
        turned_about(camera, point, *_arc(degrees, angle))
        for camera, point, angle in zip(base, focus, phase, strict=True)
    ]
    return _stack(frames)


def _spiral(
    cameras: Cameras,
    focus: Float[np.ndarray, " 3"],
    count: int,
    turns: float = 2.0,
    fraction: float = 0.08,
) -> Cameras:
    """Circle about the stabilised input path, keeping its viewing directions at the focus depth.

    The radius is a fraction of the depth of the focus.
    """
    frames = []
    base = _stabilised(cameras, focus, count)
    for phase, camera in zip(2 * np.pi * turns * np.linspace(0, 1, count), base, strict=True):
        right, down, forward = camera.cam_from_world[0, :3, :3]
        centre = camera.centres[0]
        depth = max(float((focus - centre) @ forward), 1e-6)
        target = centre + depth * forward
        # Zero at the first and last frame.
        offset = np.sin(phase) * right + (1 - np.cos(phase)) / 2 * down
        frames.append(_looking_at(camera, centre + fraction * depth * offset, target))
    return _stack(frames)


def _dolly(
    cameras: Cameras, focus: Float[np.ndarray, " 3"], count: int, fraction: float = 0.3
) -> Cameras:
    """Move from the middle camera a fraction of the distance towards the focus, and back."""
    base = cameras[len(cameras) // 2]
    forward = base.cam_from_world[0, 2, :3]
    depth = float((focus - base.centres[0]) @ forward)
    frames = []
    for phase in np.linspace(0, 2 * np.pi, count):
        pose = base.cam_from_world[0].copy()
        pose[2, 3] -= fraction * depth * (1 - np.cos(phase)) / 2
        frames.append(Cameras(base.intrinsics, pose[None], base.width, base.height))
    return _stack(frames)


def _looking_at(
    camera: Cameras, centre: Float[np.ndarray, " 3"], target: Float[np.ndarray, " 3"]
) -> Cameras:
    """Return the camera moved to `centre` and aimed at `target`, its down axis kept."""
    pose = look_at(centre, target, camera.cam_from_world[0, 1, :3])
    return Cameras(camera.intrinsics, pose[None], camera.width, camera.height)


def _ellipse(
    cameras: Cameras,
    focus: Float[np.ndarray, " 3"],
    phase: Float[np.ndarray, " frames"],
    degrees: float,
) -> Cameras:
    """Rotate the middle camera about the focus: `degrees` of yaw, two fifths of that of pitch."""
    base = cameras[len(cameras) // 2]
    return _stack([turned_about(base, focus, *_arc(degrees, angle)) for angle in phase])


def _arc(degrees: float, phase: float) -> tuple[float, float]:
    """Return yaw and pitch, in radians, on an ellipse that starts at zero."""
    amplitude = np.deg2rad(degrees)
    return float(amplitude * np.sin(phase)), float(_PITCH * amplitude * (1 - np.cos(phase)) / 2)


def cropped(cameras: Cameras, factor: float) -> Cameras:
    """Return cameras whose images are enlarged about the principal point, their size unchanged."""
    intrinsics = cameras.intrinsics.copy()
    intrinsics[:, [0, 1], [0, 1]] *= factor
    return Cameras(intrinsics, cameras.cam_from_world, cameras.width, cameras.height)


def turned_about(
    camera: Cameras, focus: Float[np.ndarray, " 3"], yaw: float, pitch: float = 0.0
) -> Cameras:
    """Return a camera rotated about a point by angles in radians about its down and right axes.

    At zero angles the camera is unchanged, even if it does not look at the point.
    """
    rotation = camera.cam_from_world[0, :3, :3]
    right, down = rotation[0], rotation[1]
    delta = _axis_angle(down, yaw) @ _axis_angle(right, -pitch)
    centre = focus + delta @ (camera.centres[0] - focus)
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = rotation @ delta.T
    cam_from_world[:3, 3] = -cam_from_world[:3, :3] @ centre
    return Cameras(camera.intrinsics, cam_from_world[None], camera.width, camera.height)


def _axis_angle(axis: Float[np.ndarray, " 3"], angle: float) -> Float[np.ndarray, "3 3"]:
    x, y, z = axis / np.linalg.norm(axis)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


def _stack(frames: list[Cameras]) -> Cameras:
    return Cameras(
        np.concatenate([f.intrinsics for f in frames]),
        np.concatenate([f.cam_from_world for f in frames]),
        frames[0].width,
        frames[0].height,
    )


PATHS: dict[str, Callable[[Cameras, Float[np.ndarray, " 3"], int], Cameras]] = {
    "input": _input,
    "stabilised": _stabilised,
    "orbit": _orbit,
    "spiral": _spiral,
    "dolly": _dolly,
    "away": _away,
    "bullet-time": _bullet_time,
}


def make_path(
    name: str, cameras: Cameras, count: int, focus: Real[np.ndarray, " 3"] | None = None
) -> Cameras:
    """Return `count` cameras of a named path around the cameras of a clip.

    Args:
        name: one of `PATHS`.
        cameras: the clip's cameras.
        count: number of frames, at least 1.
        focus: world point to rotate about; `focus_point` by default.

    Raises:
        InputError: unknown name or a count below 1.
    """
    if name not in PATHS:
        raise InputError(f"camera path: expected one of {', '.join(PATHS)}, got {name!r}")
    if count < 1:
        raise InputError(f"camera path: expected at least 1 frame, got {count}")
    focus = focus_point(cameras) if focus is None else np.asarray(focus, np.float64)
    return PATHS[name](cameras, focus, count)
