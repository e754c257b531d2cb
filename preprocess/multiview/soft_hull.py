"""The shape of a moving object from silhouettes that a camera jumping around it takes.

The visual hull at a time is that of the silhouettes taken near that time: a voxel is inside where
most of these show it. So slow motion is followed, and no matching between images is needed.

Reference: Laurentini, "The Visual Hull Concept for Silhouette-Based Image Understanding", 1994.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from msdyn.geometry import Cameras, project, transform_points

__all__ = ["HullFrame", "hull_frames", "meeting_point", "shell_depth"]

WINDOW = 6
"""Frames before and after a frame whose silhouettes count."""
SHARE = 0.85
"""Of the silhouettes in the window that must show a voxel."""
VOXELS = 96
"""Along each side of the cube."""
SHELL = 2.0
"""Radius of the background, in units of the largest distance of a camera."""


@dataclass(frozen=True)
class HullFrame:
    """The hull at the time of a frame.

    Attributes:
        depth: [H, W] its z-depth in the camera of the frame, 0 off the silhouette.
        xyz: world positions of the voxels that this camera sees.
    """

    depth: Float32[np.ndarray, "height width"]
    xyz: Float64[np.ndarray, "points 3"]


def hull_frames(
    cameras: Cameras, silhouette: Callable[[int], Bool[np.ndarray, "height width"]]
) -> Iterator[HullFrame]:
    """Yield the hull at the time of each frame.

    Args:
        cameras: one per frame, of the size of the silhouettes.
        silhouette: returns the pixels of a frame that show the object.
    """
    count = len(cameras)
    centre, half = _cube(cameras, silhouette)
    side = (np.arange(VOXELS) + 0.5) / VOXELS * 2 - 1
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), -1).reshape(-1, 3)
    xyz = centre + half * grid  # [V, 3]
    voxel = 2 * half / VOXELS
    votes, seen = np.zeros(len(xyz), np.int16), np.zeros(len(xyz), np.int16)
    window: deque[tuple[int, np.ndarray, np.ndarray]] = deque()
    for last in range(count + WINDOW):
        if last < count:
            inside, shown = _votes(xyz, cameras[last], silhouette(last))
            votes += inside
            seen += shown
            window.append((last, inside, shown))
        while window and window[0][0] < last - 2 * WINDOW:
            _, inside, shown = window.popleft()
            votes -= inside
            seen -= shown
        if last >= WINDOW:
            frame = last - WINDOW
            occupied = (votes >= SHARE * np.maximum(seen, 1)) & (seen > 0)
            yield _seen_from(cameras[frame], silhouette(frame), xyz[occupied], voxel)


def shell_depth(cameras: Cameras, frame: int, centre: Float64[np.ndarray, " 3"]) -> np.ndarray:
    """Return the depth [H, W] of a sphere around all cameras, the same one for all frames."""
    radius = SHELL * float(np.linalg.norm(cameras.centres - centre, axis=1).max())
    k, pose = cameras.intrinsics[frame], cameras.world_from_cam[frame]
    x = (np.arange(cameras.width) + 0.5 - k[0, 2]) / k[0, 0]
    y = (np.arange(cameras.height) + 0.5 - k[1, 2]) / k[1, 1]
    rays = np.stack([*np.meshgrid(x, y), np.ones((cameras.height, cameras.width))], -1)
    away = pose[:3, :3].T @ (pose[:3, 3] - centre)  # the camera from the centre, in its own axes
    a, b = (rays**2).sum(-1), rays @ away
    return ((-b + np.sqrt(b**2 + a * (radius**2 - away @ away))) / a).astype(np.float32)


def meeting_point(cameras: Cameras) -> Float64[np.ndarray, " 3"]:
    """Return the point nearest to all optical axes, also of cameras all around it."""
    axes = cameras.cam_from_world[:, 2, :3]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    right = (across @ cameras.centres[..., None]).sum(0)[:, 0]
    return np.linalg.lstsq(across.sum(0), right, rcond=None)[0]


def _cube(
    cameras: Cameras, silhouette: Callable[[int], Bool[np.ndarray, "height width"]]
) -> tuple[Float64[np.ndarray, " 3"], float]:
    """Return the centre and half the side of a cube that holds the object."""
    centre = meeting_point(cameras)
    sizes = []
    for frame in range(len(cameras)):
        rows, columns = np.nonzero(silhouette(frame))
        if len(rows):
            k, pose = cameras.intrinsics[frame], cameras.cam_from_world[frame]
            at = pose[:3, :3] @ centre + pose[:3, 3]
            off = [np.abs(columns + 0.5 - k[0, 2]).max() / k[0, 0],
                   np.abs(rows + 0.5 - k[1, 2]).max() / k[1, 1]]  # fmt: skip
            sizes.append(max(off) * abs(at[2]))
    return centre, 1.1 * float(np.percentile(sizes, 90)) if sizes else 1.0


def _votes(
    xyz: Float64[np.ndarray, "voxels 3"], camera: Cameras, shown: Bool[np.ndarray, "height width"]
) -> tuple[Bool[np.ndarray, " voxels"], Bool[np.ndarray, " voxels"]]:
    """Return which voxels project onto a silhouette, and which into the image."""
    local = transform_points(camera.cam_from_world[0], xyz)
    with np.errstate(divide="ignore", invalid="ignore"):
        xy = project(camera.intrinsics[0], local)
    within = (local[:, 2] > 0) & (xy >= 0).all(1) & (xy < shown.shape[::-1]).all(1)
    column, row = np.where(within[:, None], xy, 0).astype(int).T
    return within & shown[row, column], within


def _seen_from(
    camera: Cameras,
    shown: Bool[np.ndarray, "height width"],
    xyz: Float64[np.ndarray, "points 3"],
    voxel: float,
) -> HullFrame:
    """Return what a camera sees of occupied voxels: depth on all of its silhouette."""
    from scipy.ndimage import distance_transform_edt, grey_erosion

    height, width = shown.shape
    front = np.full((height, width), np.inf)
    local = transform_points(camera.cam_from_world[0], xyz)
    ahead = local[:, 2] > 0
    local, xyz = local[ahead], xyz[ahead]
    xy = project(camera.intrinsics[0], local)
    within = (xy >= 0).all(1) & (xy < (width, height)).all(1)
    local, xyz, (column, row) = local[within], xyz[within], xy[within].astype(int).T
    np.minimum.at(front, (row, column), local[:, 2])
    if not len(local):
        return HullFrame(np.zeros((height, width), np.float32), np.zeros((0, 3)))
    # A voxel covers a square; the voxel's size shrinks what is near less than a cell too much.
    size = int(np.ceil(camera.intrinsics[0, 0, 0] * voxel / np.median(local[:, 2]))) | 1
    front = grey_erosion(front, size=(size, size)) if size > 1 else front
    visible = local[:, 2] <= front[row, column] + voxel
    known = np.isfinite(front) & shown
    if not known.any():
        return HullFrame(np.zeros((height, width), np.float32), np.zeros((0, 3)))
    near = distance_transform_edt(~known, return_distances=False, return_indices=True)
    assert isinstance(near, np.ndarray), "indices alone were asked for"
    depth = np.where(shown, front[near[0], near[1]], 0).astype(np.float32)
    return HullFrame(depth, xyz[visible & shown[row, column]])
