"""Small updates of camera poses by gradient steps: six numbers in the tangent space at each pose.

The update (w, v) of a pose is `x_cam' = exp(w) x_cam + unit v`: a rotation about the camera's
centre, radians, and a translation in multiples of a length of the scene, such as its median depth.
At the centre of the scene both then move the image by about as many pixels. After each step the
update becomes part of the pose, so that gradients are always taken at zero.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from msdyn.geometry.rotations import rotations_from_rotvecs, rotvecs_from_rotations

__all__ = ["PoseSteps", "cosine_decay", "pose_updates_between", "updated_poses"]

_BETAS = (0.9, 0.999)
_EPSILON = 1e-15


def updated_poses(
    cam_from_world: Float[Tensor, "*batch 4 4"],
    updates: Float[Tensor, "*batch 6"],
    unit: float = 1.0,
) -> Float[Tensor, "*batch 4 4"]:
    """Apply updates to poses, differentiably.

    Args:
        cam_from_world: rigid.
        updates: rotation vector, radians, and translation in multiples of `unit`, in the camera.
        unit: scene units.
    """
    rotation = rotations_from_rotvecs(updates[..., :3])
    moved = rotation @ cam_from_world[..., :3, :]  # [..., 3, 4]
    shift = unit * updates[..., 3:, None]
    rows = torch.cat([moved[..., :3], moved[..., 3:] + shift], dim=-1)
    return torch.cat([rows, cam_from_world[..., 3:, :]], dim=-2)


def pose_updates_between(
    start: Float[Tensor, "*batch 4 4"], end: Float[Tensor, "*batch 4 4"], unit: float = 1.0
) -> Float[Tensor, "*batch 6"]:
    """Return the updates that turn poses into others, the inverse of `updated_poses`."""
    rotation = end[..., :3, :3] @ start[..., :3, :3].mT
    moved = (rotation @ start[..., :3, 3:]).squeeze(-1)
    shift = (end[..., :3, 3] - moved) / unit
    return torch.cat([rotvecs_from_rotations(rotation), shift], dim=-1)


def cosine_decay(progress: float, *, start: float = 0.0, end: float = 0.0) -> float:
    """Return a factor of a learning rate: 1 until `start`, then falling to `end` along a cosine.

    Args:
        progress: fraction of the steps, 0 to 1.
        start: fraction at which the decay begins, below 1.
        end: factor at the end.
    """
    elapsed = min(max((progress - start) / (1 - start), 0.0), 1.0)
    return end + (1 - end) * (1 + math.cos(math.pi * elapsed)) / 2


class PoseSteps:
    """Poses that are optimised by Adam, of which every step changes some.

    A pose that a step does not use keeps its place and its moments: each has its own count of
    steps, as if it were optimised alone.

    Attributes:
        cam_from_world: [T, 4, 4] float64, the current poses.
        unit: scene units of a translation of 1.

    Reference: Kingma and Ba, "Adam", 2015.
    """

    def __init__(self, cam_from_world: Float[Tensor, "poses 4 4"], unit: float = 1.0) -> None:
        self.cam_from_world = cam_from_world.detach().double().clone()
        self.unit = unit
        count, device = len(cam_from_world), cam_from_world.device
        self._mean = torch.zeros(count, 6, dtype=torch.float64, device=device)
        self._square = torch.zeros_like(self._mean)
        self._steps = torch.zeros(count, 1, dtype=torch.float64, device=device)

    def zero_updates(self, index: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen 6"]:
        """Return updates of zero, whose gradient `step` takes."""
        zeros = torch.zeros(len(index), 6, device=self.cam_from_world.device)
        return zeros.requires_grad_()

    def poses(
        self, index: Int[Tensor, " chosen"], updates: Float[Tensor, "chosen 6"]
    ) -> Float[Tensor, "chosen 4 4"]:
        """Return some of the poses with their updates, in the precision of the updates."""
        return updated_poses(self.cam_from_world[index].to(updates), updates, self.unit)

    @torch.no_grad()
    def step(
        self, index: Int[Tensor, " chosen"], gradient: Float[Tensor, "chosen 6"], rate: float
    ) -> None:
        """Change some of the poses by a step of Adam.

        Args:
            index: of the poses, each at most once.
            gradient: with respect to their updates.
            rate: radians, and multiples of `unit`, of a step.
        """
        gradient = gradient.to(self._mean)
        first, second = _BETAS
        mean = first * self._mean[index] + (1 - first) * gradient
        square = second * self._square[index] + (1 - second) * gradient.square()
        steps = self._steps[index] + 1
        self._mean[index], self._square[index], self._steps[index] = mean, square, steps
        scale = (square / (1 - second**steps)).sqrt() + _EPSILON
        updates = -rate * mean / (1 - first**steps) / scale
        self.cam_from_world[index] = updated_poses(self.cam_from_world[index], updates, self.unit)

    def tensors(self) -> dict[str, Tensor]:
        """Return what the steps change."""
        return {
            "poses": self.cam_from_world,
            "mean": self._mean,
            "square": self._square,
            "steps": self._steps,
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Set what the steps change, in place.

        Raises:
            KeyError: a tensor is missing.
            RuntimeError: one has another shape, or numbers that are not finite.
        """
        for name, own in self.tensors().items():
            given = tensors[name]
            if given.shape != own.shape or not given.isfinite().all():
                raise RuntimeError(
                    f"{name}: expected finite numbers of shape {tuple(own.shape)}, got "
                    f"{tuple(given.shape)}"
                )
            own.copy_(given.to(own))
