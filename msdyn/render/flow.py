"""Optical flow and scene flow between any two times, from any two cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from msdyn.errors import InputError
from msdyn.geometry import Cameras, project, transform_points, world_points_from_depth
from msdyn.render.order import input_axis
from msdyn.render.render import draw
from msdyn.sequence import GaussianSequence

__all__ = ["Flow", "render_flow"]

_ALPHA = 0.5
"""Minimum accumulated opacity for valid flow."""
_MOVING_PX = 1.0


@dataclass(frozen=True)
class Flow:
    """Flow from each pixel of one camera and time to another camera and time.

    Attributes:
        xy: optical flow in px, from the pixel centre to the projection of its surface point into
            the second camera at the second time; zero where not valid.
        xyz: scene flow, the displacement of the surface point in the world, scene units.
        valid: the pixel is covered, and its point ends in front of the second camera.
        moving: most of the pixel's colour is of Gaussians whose own motion, rather than that of
            the camera, displaces their projection.
    """

    xy: Float32[np.ndarray, "height width 2"]
    xyz: Float32[np.ndarray, "height width 3"]
    valid: Bool[np.ndarray, "height width"]
    moving: Bool[np.ndarray, "height width"]


@torch.no_grad()
def render_flow(
    sequence: GaussianSequence,
    cameras: tuple[Cameras, Cameras],
    times: tuple[float, float],
    *,
    levels: int | None = None,
    objects: Sequence[int] | None = None,
    background: bool = True,
    moving_px: float = _MOVING_PX,
    backend: str = "auto",
) -> Flow:
    """Render the flow from one camera and time to another.

    The rigid motions of all Gaussians between the times are blended at every pixel, as colours
    are, and applied to the pixel's own surface point: for a rigid object the flow is as exact as
    the depth, whatever the size of its Gaussians, and for the static background it is zero.

    Args:
        sequence: the fit.
        cameras: one at each time, of one size.
        times: normalised, in any order.
        levels, objects, background, backend: see `render_image`.
        moving_px: minimum displacement of a moving Gaussian's projection by its own motion, px.

    Raises:
        InputError: cameras that are not two single ones, or a time outside the clip.
    """
    if any(len(camera) != 1 for camera in cameras):
        raise InputError(f"cameras: expected two single ones, got {[len(c) for c in cameras]}")
    first, second = cameras
    device = sequence.device
    frames = torch.as_tensor(sequence.timeline.frame_positions(np.array(times)), device=device)
    posed = sequence.posed(frames.float(), levels=levels).only(objects, background=background)
    static = posed.num_static
    before, after = posed.rotations
    rotation = after @ before.mT  # [M, 3, 3]
    translation = posed.means[1, static:] - (rotation @ posed.means[0, static:, :, None])[..., 0]
    # As differences from the identity, so that rounding cannot move static points.
    motion = torch.cat([(rotation - torch.eye(3, device=device)).flatten(1), translation], dim=1)
    moves = _displacement_px(second, posed.means[:, static:]) > moving_px
    motion = torch.cat([motion, moves[:, None].to(motion)], dim=1)
    extra = torch.cat([motion.new_zeros(static, 13), motion])
    rendering = draw(
        posed.select(slice(0, 1)),
        first.tensors(device),
        extra=extra,
        along=input_axis(sequence, first, times[0]),
        backend=backend,
    )
    assert rendering.depth is not None
    alpha = rendering.alpha[0].double().cpu().numpy()
    safe = np.maximum(alpha, _ALPHA)
    blended = rendering.features[0, ..., 3:].double().cpu().numpy() / safe[..., None]
    depth = rendering.depth[0].double().cpu().numpy() / safe
    points = world_points_from_depth(depth, first)
    rotation_change = blended[..., :9].reshape(*depth.shape, 3, 3)
    moved = points + (rotation_change @ points[..., None])[..., 0] + blended[..., 9:12]
    projected, in_front = _project(second, moved)
    valid = (alpha >= _ALPHA) & in_front
    rows, columns = np.mgrid[0 : first.height, 0 : first.width]
    centres = np.stack([columns + 0.5, rows + 0.5], axis=-1)
    return Flow(
        np.where(valid[..., None], projected - centres, 0).astype(np.float32),
        np.where(valid[..., None], moved - points, 0).astype(np.float32),
        valid,
        valid & (blended[..., 12] > 0.5),
    )


def _displacement_px(
    camera: Cameras, positions: Float[Tensor, "2 gaussians 3"]
) -> Float[Tensor, " gaussians"]:
    """Return the distance between two projections, px; infinity if one is behind the camera."""
    tensors = camera.tensors(positions.device)
    in_camera = transform_points(tensors.cam_from_world, positions)
    in_front = (in_camera[..., 2] > 1e-6).all(0)
    xy = project(tensors.intrinsics, in_camera)
    return torch.where(in_front, (xy[1] - xy[0]).norm(dim=-1), torch.inf)


def _project(
    camera: Cameras, points: Float[np.ndarray, "height width 3"]
) -> tuple[Float[np.ndarray, "height width 2"], Bool[np.ndarray, "height width"]]:
    """Return the pixels of world points, and whether they lie in front of the camera."""
    in_camera = transform_points(camera.cam_from_world[0], points)
    in_front = in_camera[..., 2] > 1e-6
    in_camera = np.where(in_front[..., None], in_camera, [0, 0, 1.0])
    return project(camera.intrinsics[0], in_camera), in_front
