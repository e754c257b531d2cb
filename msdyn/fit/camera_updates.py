"""Cameras that are optimised with the Gaussians (`--refine joint`).

Each fitted frame's pose has six parameters, which follow the gradient of the losses by Adam
(`geometry/pose_updates.py`), after the appearance has begun to converge. Only static Gaussians
determine them: moving Gaussians are given the derivative of a motion with the camera, which cancels
theirs. The mean motion of all cameras is removed after each step, so that the world does not drift;
its scale is that of the depth. Held-out frames get the correction interpolated over time between
their fitted neighbours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from msdyn.devices import upload
from msdyn.fit.data import FitData
from msdyn.fit.refine import interpolate_missing
from msdyn.geometry import (
    Cameras,
    CameraTensors,
    PoseSteps,
    cosine_decay,
    multiply_quats_wxyz,
    pose_updates_between,
    rotations_from_rotvecs,
    rotvecs_from_rotations,
    updated_poses,
)
from msdyn.sequence import PosedGaussians

__all__ = ["CameraUpdates"]

# Fraction of the steps before the first update, and factor of the learning rate at the end.
_START, _END = 0.1, 0.01


class CameraUpdates:
    """The cameras of a fit as parameters.

    Attributes:
        poses: of all frames, in the world of the fit, whose unit is the median depth.
    """

    def __init__(self, data: FitData, rate: float) -> None:
        self.data, self.rate = data, rate
        pose = torch.as_tensor(data.cameras.cam_from_world, device=data.device)
        self.poses = PoseSteps(pose)
        self._given = pose.clone()
        self._fitted = torch.as_tensor(data.frames, device=data.device)
        self._used: tuple[Int[Tensor, " frames"], Float[Tensor, "frames 6"]] | None = None

    def attach(
        self, posed: PosedGaussians, cameras: CameraTensors, frames: Int[np.ndarray, " frames"]
    ) -> tuple[PosedGaussians, CameraTensors]:
        """Return what to render such that static Gaussians have gradients to the cameras.

        The values are the same.

        Args:
            posed: Gaussians at the frames.
            cameras: of the frames.
            frames: indices of the clip.
        """
        index = upload(frames, self._fitted.device)
        updates = self.poses.zero_updates(index)
        self._used = index, updates
        moved = replace(cameras, cam_from_world=self.poses.poses(index, updates))
        return _moving_with_camera(posed, cameras.cam_from_world, updates), moved

    def starts(self, progress: float) -> bool:
        """Return whether the cameras are optimised at a fraction of the steps."""
        return progress >= _START

    def step(self, progress: float, factor: float = 1.0) -> None:
        """Take a step with the gradients of the rendering since `attach`, if there was one.

        Args:
            progress: fraction of the steps, 0 to 1.
            factor: of the learning rate.
        """
        if self._used is None:
            return
        (index, updates), self._used = self._used, None
        if updates.grad is None:
            return
        decay = cosine_decay(progress, start=_START, end=_END)
        self.poses.step(index, updates.grad, factor * self.rate * decay)
        self._remove_mean_motion()
        self._show()

    def tensors(self) -> dict[str, Tensor]:
        """Return what the steps change."""
        return self.poses.tensors()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Set what the steps change, in place; errors as of `PoseSteps.restore`."""
        self.poses.restore(tensors)
        self._used = None
        self._show()

    def corrected(self, cameras: Cameras, scale: float) -> Cameras:
        """Return cameras of all frames with the corrections.

        Args:
            cameras: those that the fit began with, in any world and at any size.
            scale: of the fit's world, relative to theirs.
        """
        updates = pose_updates_between(self._given, self.poses.cam_from_world).cpu().numpy()
        known = np.isin(np.arange(len(updates)), self.data.frames)
        updates = torch.from_numpy(interpolate_missing(updates, known))
        start = torch.as_tensor(cameras.cam_from_world)
        return replace(cameras, cam_from_world=updated_poses(start, updates, 1 / scale).numpy())

    def _remove_mean_motion(self) -> None:
        """Remove the mean rotation and shift of the fitted cameras in the world."""
        pose, given = self.poses.cam_from_world[self._fitted], self._given[self._fitted]
        rotation, before = pose[:, :3, :3], given[:, :3, :3]
        mean = rotvecs_from_rotations(before.mT @ rotation).mean(0)
        world = rotations_from_rotvecs(mean)  # the cameras' common rotation about the origin
        centres = -(rotation.mT @ pose[:, :3, 3:])  # [F, 3, 1]
        rotation = rotation @ world.mT
        centres = world @ centres
        centres = centres - (centres + before.mT @ given[:, :3, 3:]).mean(0)
        pose[:, :3, :3], pose[:, :3, 3:] = rotation, -rotation @ centres
        self.poses.cam_from_world[self._fitted] = pose

    def _show(self) -> None:
        """Write the current poses where all parts of the fit read them."""
        self.data.on_device.cam_from_world.copy_(self.poses.cam_from_world)


def _moving_with_camera(
    posed: PosedGaussians,
    cam_from_world: Float[Tensor, "frames 4 4"],
    updates: Float[Tensor, "frames 6"],
) -> PosedGaussians:
    """Give moving Gaussians the derivative of moving with the cameras; the values are the same."""
    if posed.num_static == len(posed.scales):
        return posed
    parts = [posed.num_static, len(posed.scales) - posed.num_static]
    means, quats = (v.split(parts, dim=1) for v in (posed.means, posed.quats_wxyz))
    rotation = cam_from_world[:, :3, :3]  # [B, 3, 3]
    turn, shift = updates.split(3, dim=-1)
    in_camera = means[1].detach() @ rotation.mT + cam_from_world[:, None, :3, 3]  # [B, M, 3]
    moved = torch.linalg.cross(turn[:, None].expand_as(in_camera), in_camera) + shift[:, None]
    carried = means[1] - moved @ rotation
    world_turn = -(turn[:, None] @ rotation).squeeze(1)  # [B, 3], rotation vectors
    half = torch.cat([torch.zeros_like(world_turn[:, :1]), 0.5 * world_turn], dim=-1)
    turned = quats[1] + multiply_quats_wxyz(half[:, None], quats[1].detach())
    return replace(
        posed,
        means=torch.cat([means[0], carried], dim=1),
        quats_wxyz=torch.cat([quats[0], turned], dim=1),
    )
