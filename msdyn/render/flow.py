"""Optical flow and scene flow between any two times, from any two cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.errors import InputError
from msdyn.geometry import Cameras, project, transform_points, world_points_from_depth
from msdyn.render.render import draw
from msdyn.sequence import GaussianSequence

__all__ = ["Flow", "render_flow"]

_ALPHA = 0.5
"""Less covered pixels have no flow: most of what is seen there is nothing."""
_MOVING_PX = 1.0


@dataclass(frozen=True)
class Flow:
    """Where what a camera sees at one time is at another.

    Attributes:
        xy: [H, W, 2] float32 px, from the pixel centre to where its surface point is seen by the
            second camera at the second time; zero where not valid.
        xyz: [H, W, 3] float32 scene units, the same in the world (scene flow).
        valid: [H, W] bool, something is drawn there, and it is before the second camera.
        moving: [H, W] bool, most of what is drawn there moves by itself: is seen elsewhere by the
            second camera than had it stood still.
    """

    xy: np.ndarray
    xyz: np.ndarray
    valid: np.ndarray
    moving: np.ndarray


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
    the depth, whatever the size of its Gaussians, and for what stands still it is zero.

    Args:
        sequence: what moves.
        cameras: one at each time, of one size.
        times: normalised, in any order.
        levels, objects, background, backend: see `render_image`.
        moving_px: how far (px) a Gaussian must come from where it would be seen had it stood still.

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
    turn = after @ before.mT  # [M, 3, 3]
    shift = posed.means[1, static:] - (turn @ posed.means[0, static:, :, None])[..., 0]
    # As differences from the identity: rounding cannot move what stands still.
    change = torch.cat([(turn - torch.eye(3, device=device)).flatten(1), shift], dim=1)
    wanders = _apart(second, posed.means[:, static:]) > moving_px
    change = torch.cat([change, wanders[:, None].to(change)], dim=1)
    extra = torch.cat([change.new_zeros(static, 13), change])
    rendering = draw(
        posed.select(slice(0, 1)),
        first.tensors(device),
        extra=extra,
        backend=backend,
    )
    assert rendering.depth is not None
    alpha = rendering.alpha[0].double().cpu().numpy()
    safe = np.maximum(alpha, _ALPHA)
    blended = rendering.features[0, ..., 3:].double().cpu().numpy() / safe[..., None]
    depth = rendering.depth[0].double().cpu().numpy() / safe
    points = world_points_from_depth(depth, first)
    motion = blended[..., :9].reshape(*depth.shape, 3, 3)
    moved = points + (motion @ points[..., None])[..., 0] + blended[..., 9:12]
    seen, ahead = _project(second, moved)
    valid = (alpha >= _ALPHA) & ahead
    rows, columns = np.mgrid[0 : first.height, 0 : first.width]
    centres = np.stack([columns + 0.5, rows + 0.5], axis=-1)
    return Flow(
        np.where(valid[..., None], seen - centres, 0).astype(np.float32),
        np.where(valid[..., None], moved - points, 0).astype(np.float32),
        valid,
        valid & (blended[..., 12] > 0.5),
    )


def _apart(
    camera: Cameras, positions: Float[Tensor, "2 gaussians 3"]
) -> Float[Tensor, " gaussians"]:
    """Return how far apart (px) two positions are seen; infinity where one is behind the camera."""
    tensors = camera.tensors(positions.device)
    in_camera = transform_points(tensors.cam_from_world, positions)
    ahead = (in_camera[..., 2] > 1e-6).all(0)
    seen = project(tensors.intrinsics, in_camera)
    return torch.where(ahead, (seen[1] - seen[0]).norm(dim=-1), torch.inf)


def _project(camera: Cameras, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels of points [H, W, 3], and whether they lie before the camera."""
    in_camera = transform_points(camera.cam_from_world[0], points)
    ahead = in_camera[..., 2] > 1e-6
    in_camera = np.where(ahead[..., None], in_camera, [0, 0, 1.0])
    return project(camera.intrinsics[0], in_camera), ahead
