"""A trajectory of its own for every Gaussian: displacements at key frames, interpolated."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from msdyn.errors import InputError
from msdyn.geometry import Similarity
from msdyn.motion.config import MotionConfig
from msdyn.motion.keys import KeyTimes, interpolate_keys
from msdyn.motion.protocol import (
    Motion,
    MotionLearningRates,
    Pose,
    TrackedMotion,
    TrackedScene,
)
from msdyn.motion.registry import register_motion
from msdyn.reading import StoredTensors

__all__ = ["Displacements"]

Self = TypeVar("Self", bound="Displacements")


@register_motion("displacements")
class Displacements(Motion):
    """Gaussians that are displaced independently and not rotated.

    This is the motion that the feed-forward network predicts. In a fit it is a baseline without
    any shared motion.

    Attributes:
        displacements: [G, T, 3] at every key frame, relative to the canonical position.
    """

    displacements: nn.Parameter

    def __init__(
        self,
        displacements: Float[Tensor, "gaussians keys 3"],
        key_frames: Float[Tensor, " keys"],
    ) -> None:
        super().__init__()
        if displacements.shape[1:] != (len(key_frames), 3):
            raise InputError(
                f"displacements: expected [Gaussians, {len(key_frames)}, 3], got "
                f"{list(displacements.shape)}"
            )
        if len(key_frames) < 2 or not bool((key_frames.diff() > 0).all()):
            raise InputError("key frames: expected at least 2, increasing")
        is_parameter = isinstance(displacements, nn.Parameter)
        self.displacements = displacements if is_parameter else nn.Parameter(displacements)
        self.register_buffer("_keys", key_frames.float())

    @classmethod
    def from_tracks(cls, scene: TrackedScene, config: MotionConfig) -> TrackedMotion:
        """Use the tracks as trajectories, interpolated linearly over occlusions."""
        tracks = scene.tracks
        frames = np.arange(tracks.num_frames)
        xyz = np.zeros(tracks.xyz.shape)
        for row, visible in enumerate(tracks.visible):
            for axis in range(3):
                xyz[row, :, axis] = np.interp(
                    frames, frames[visible], tracks.xyz[row, visible, axis]
                )
        points = torch.from_numpy(xyz[:, scene.canonical]).float()
        displacements = torch.from_numpy(xyz).float() - points[:, None]
        motion = cls(displacements, torch.as_tensor(scene.key_frames).float())
        weights = np.where(tracks.visible, tracks.confidence, 0.0)
        return TrackedMotion(motion, points, torch.from_numpy(weights).float())

    def __len__(self) -> int:
        return len(self.displacements)

    @property
    def key_frames(self) -> Float[Tensor, " keys"]:
        return self.get_buffer("_keys")

    def pose(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        frames: Float[Tensor, " times"],
        levels: int | None = None,
    ) -> Pose:
        if levels is None or levels > 0:
            return self._displaced(points, quats_wxyz, self._at(frames))
        still = points.new_zeros(len(points), len(frames), 3)
        return self._displaced(points, quats_wxyz, still)

    def pose_at_keys(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        numbers: Int[Tensor, " times"],
    ) -> Pose:
        return self._displaced(
            points, quats_wxyz, KeyTimes.at_keys(numbers).interpolate(self.displacements)
        )

    def _displaced(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        displacements: Float[Tensor, "gaussians times 3"],
    ) -> Pose:
        times, count = displacements.shape[1], len(points)
        return Pose(
            torch.eye(3, dtype=points.dtype, device=points.device).expand(times, count, 3, 3),
            points + displacements.transpose(0, 1),
            quats_wxyz.expand(times, -1, -1),
        )

    def undo(
        self, points: Float[Tensor, "gaussians 3"], frame: float
    ) -> Float[Tensor, "gaussians 3"]:
        return points - self._at(torch.full((1,), frame, device=points.device))[:, 0]

    def gaussian_parameters(self) -> dict[str, nn.Parameter]:
        return {"displacements": self.displacements}

    def set_gaussians(
        self,
        parameters: dict[str, nn.Parameter],
        constants: dict[str, Shaped[Tensor, "gaussians ..."]],
    ) -> None:
        self.displacements = parameters["displacements"]

    def with_gaussians(
        self: Self,
        parameters: dict[str, Float[Tensor, "gaussians ..."]],
        constants: dict[str, Shaped[Tensor, "gaussians ..."]],
    ) -> Self:
        return type(self)(parameters["displacements"], self.key_frames)

    def mixed(
        self: Self,
        index: Int[Tensor, "points near"],
        weights: Float[Tensor, "points near"],
    ) -> Self:
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
        near = self.displacements.detach()[index]  # [P, near, T, 3]
        return type(self)((weights[..., None, None] * near).sum(1), self.key_frames)

    def learning_rates(self, rates: MotionLearningRates) -> dict[str, float]:
        return {"displacements": rates.translations}

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """Return the RMS of the second differences over the key frames."""
        values = self.displacements
        if values.shape[1] < 3 or not len(values):
            return {}
        second = values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]
        return {"smooth": (second.square().mean() + 1e-12).sqrt()}

    def rescaled(self: Self, world: Similarity) -> Self:
        return type(self)(self.displacements.detach() * world.scale, self.key_frames)

    @torch.no_grad()
    def retimed(
        self: Self, own: Bool[Tensor, " gaussians"], frames: Float[Tensor, " keys"]
    ) -> Self:
        values = self.displacements.detach().clone()
        values[own] = interpolate_keys(values[own], self.key_frames, frames)
        return type(self)(values, self.key_frames)

    def tensors(self) -> dict[str, Tensor]:
        return {"displacements": self.displacements, "motion.key_frames": self.key_frames}

    @classmethod
    def from_tensors(cls: type[Self], tensors: dict[str, Tensor], header: dict[str, Any]) -> Self:
        stored = StoredTensors(tensors)
        keys = stored.increasing("motion.key_frames")
        return cls(stored.floats("displacements", None, len(keys), 3), keys)

    def _at(self, frames: Float[Tensor, " times"]) -> Float[Tensor, "gaussians times 3"]:
        return interpolate_keys(self.displacements, self.key_frames, frames)
