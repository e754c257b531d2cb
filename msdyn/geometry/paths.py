"""Camera paths for novel views, built from the cameras of a clip."""

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry.cameras import Cameras, look_at
from msdyn.geometry.procrustes import nearest_rotations

__all__ = ["PATHS", "focus_point", "make_path"]


def focus_point(cameras: Cameras) -> np.ndarray:
    """Return the world point [3] nearest to all optical axes (for parallel axes, one ahead).

    Where the axes meet behind the cameras, or nowhere, the point lies one path length ahead.
    """
    centres = cameras.centres
    axes = cameras.cam_from_world[:, 2, :3]  # third row of the rotation: forward in the world
    projector = np.eye(3) - axes[:, :, None] * axes[:, None, :]  # [T, 3, 3]
    matrix = projector.sum(0)
    ahead = axes.mean(0) / np.linalg.norm(axes.mean(0))
    extent = max(float(np.linalg.norm(np.ptp(centres, axis=0))), 1e-3)
    if np.linalg.cond(matrix) < 1e4:
        point = np.linalg.solve(matrix, (projector @ centres[..., None]).sum(0)[:, 0])
        if ((point - centres) @ ahead).min() > 0:
            return point
    return centres.mean(0) + 2 * extent * ahead


def _input(cameras: Cameras, focus: np.ndarray, count: int) -> Cameras:
    """Follow the input cameras, between them too."""
    return cameras.interpolated(np.linspace(0, len(cameras) - 1, count))


def _orbit(cameras: Cameras, focus: np.ndarray, count: int, degrees: float = 15.0) -> Cameras:
    """Swing left and right about the focus on an ellipse, starting at the middle camera."""
    return _swing(cameras, focus, np.linspace(0, 2 * np.pi, count, endpoint=False), degrees)


def _bullet_time(cameras: Cameras, focus: np.ndarray, count: int, degrees: float = 25.0) -> Cameras:
    """Swing wide about the focus; meant for a time that stands still."""
    return _swing(cameras, focus, np.linspace(0, 2 * np.pi, count), degrees)


def _away(cameras: Cameras, focus: np.ndarray, count: int, degrees: float = 20.0) -> Cameras:
    """Start on the input path and move steadily away from it, about the focus."""
    base = _input(cameras, focus, count)
    frames = []
    for i, camera in enumerate(base):
        ease = 0.5 - 0.5 * np.cos(np.pi * i / max(count - 1, 1))
        frames.append(_rotated_about(camera, focus, np.deg2rad(degrees) * ease, 0.0))
    return _stack(frames)


def _stabilised(cameras: Cameras, focus: np.ndarray, count: int) -> Cameras:
    """Follow the input cameras without their tremor: means weighted by a bell over the clip."""
    places = np.linspace(0, len(cameras) - 1, count)
    width = max(len(cameras) / 12, 1.0)
    weight = np.exp(-(((places[:, None] - np.arange(len(cameras))) / width) ** 2) / 2)
    weight /= weight.sum(1, keepdims=True)  # [count, T]
    pose = np.tile(np.eye(4), (count, 1, 1))
    mean = np.einsum("ct,tij->cij", weight, cameras.cam_from_world[:, :3, :3])
    pose[:, :3, :3] = nearest_rotations(mean)
    pose[:, :3, 3] = -(pose[:, :3, :3] @ (weight @ cameras.centres)[..., None])[..., 0]
    intrinsics = np.einsum("ct,tij->cij", weight, cameras.intrinsics)
    return Cameras(intrinsics, pose, cameras.width, cameras.height)


def _spiral(
    cameras: Cameras, focus: np.ndarray, count: int, turns: float = 2.0, share: float = 0.08
) -> Cameras:
    """Circle about the stabilised input path, by a share of the distance, looking at one point."""
    frames = []
    base = _stabilised(cameras, focus, count)
    for phase, camera in zip(2 * np.pi * turns * np.linspace(0, 1, count), base, strict=True):
        right, down, forward = camera.cam_from_world[0, :3, :3]
        centre = camera.centres[0]
        ahead = max(float((focus - centre) @ forward), 1e-6)
        target = centre + ahead * forward
        # Starts and ends on the path itself.
        offset = np.sin(phase) * right + (1 - np.cos(phase)) / 2 * down
        frames.append(_looking(camera, centre + share * ahead * offset, target))
    return _stack(frames)


def _dolly(cameras: Cameras, focus: np.ndarray, count: int, share: float = 0.3) -> Cameras:
    """Move from the middle camera a share of the way towards the focus, and back."""
    base = cameras[len(cameras) // 2]
    forward = base.cam_from_world[0, 2, :3]
    ahead = float((focus - base.centres[0]) @ forward)
    frames = []
    for phase in np.linspace(0, 2 * np.pi, count):
        pose = base.cam_from_world[0].copy()
        pose[2, 3] -= share * ahead * (1 - np.cos(phase)) / 2
        frames.append(Cameras(base.intrinsics, pose[None], base.width, base.height))
    return _stack(frames)


def _looking(camera: Cameras, centre: np.ndarray, target: np.ndarray) -> Cameras:
    """Return a camera elsewhere, turned to a target with as little roll as may be."""
    pose = look_at(centre, target, camera.cam_from_world[0, 1, :3])
    return Cameras(camera.intrinsics, pose[None], camera.width, camera.height)


def _swing(cameras: Cameras, focus: np.ndarray, phase: np.ndarray, degrees: float) -> Cameras:
    base = cameras[len(cameras) // 2]
    amplitude = np.deg2rad(degrees)
    frames = [
        _rotated_about(base, focus, amplitude * np.sin(p), 0.4 * amplitude * (1 - np.cos(p)) / 2)
        for p in phase
    ]
    return _stack(frames)


def _rotated_about(camera: Cameras, focus: np.ndarray, yaw: float, pitch: float) -> Cameras:
    """Turn a camera about a point: `yaw` about its own down axis, `pitch` about its right axis.

    At zero angles the camera is unchanged, even where it does not look at the point.
    """
    rotation = camera.cam_from_world[0, :3, :3]
    right, down = rotation[0], rotation[1]
    turn = _axis_angle(down, yaw) @ _axis_angle(right, -pitch)
    centre = focus + turn @ (camera.centres[0] - focus)
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = rotation @ turn.T
    cam_from_world[:3, 3] = -cam_from_world[:3, :3] @ centre
    return Cameras(camera.intrinsics, cam_from_world[None], camera.width, camera.height)


def _axis_angle(axis: np.ndarray, angle: float) -> np.ndarray:
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


PATHS = {
    "input": _input,
    "stabilised": _stabilised,
    "orbit": _orbit,
    "spiral": _spiral,
    "dolly": _dolly,
    "away": _away,
    "bullet-time": _bullet_time,
}


def make_path(name: str, cameras: Cameras, count: int, focus: np.ndarray | None = None) -> Cameras:
    """Return `count` cameras of a named path around the cameras of a clip.

    Args:
        name: one of `PATHS`.
        cameras: the clip's cameras.
        count: number of frames, at least 1.
        focus: world point [3] to turn about; where the optical axes meet by default.

    Raises:
        InputError: unknown name or a count below 1.
    """
    if name not in PATHS:
        raise InputError(f"camera path: expected one of {', '.join(PATHS)}, got {name!r}")
    if count < 1:
        raise InputError(f"camera path: expected at least 1 frame, got {count}")
    focus = focus_point(cameras) if focus is None else np.asarray(focus, np.float64)
    return PATHS[name](cameras, focus, count)
