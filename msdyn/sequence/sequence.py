"""The Gaussian sequence: static and moving Gaussians, their motion, and the time axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from msdyn.geometry import Cameras
from msdyn.motion import Blend, MotionField
from msdyn.scene import Timeline
from msdyn.sequence.gaussians import Gaussians, PosedGaussians

__all__ = ["GaussianSequence"]


class GaussianSequence(nn.Module):
    """3D Gaussians in one canonical frame, carried through time by shared motion (Eq. 6-7, 9-10).

    `import msdyn.notebook` adds the methods `render`, `tracks`, `flow`, `poses` and `export`.

    Attributes:
        static: the background.
        moving: Gaussians on objects, in the canonical frame.
        motion: the field that moves them.
        instances: [M] mask index (1..K) of each moving Gaussian.
        residual: [M, T, 3] free displacement of each moving Gaussian at every key frame, in its
            canonical frame, inside all levels; None without this fourth level.
        timeline: the clip's frames in seconds.
        cameras: the clip's cameras, one a frame, in the same world.
        canonical_frame: frame whose time the canonical frame is.
        world_units: "metric" or "arbitrary".
    """

    instances: Tensor
    residual: nn.Parameter | None

    def __init__(
        self,
        static: Gaussians,
        moving: Gaussians,
        motion: MotionField,
        blends: Sequence[Blend],
        instances: Int[Tensor, " moving"],
        *,
        timeline: Timeline,
        cameras: Cameras,
        canonical_frame: int,
        world_units: str,
        residual: Float[Tensor, "moving keys 3"] | None = None,
    ) -> None:
        super().__init__()
        self.static = static
        self.moving = moving
        self.motion = motion
        self.blend_logits = nn.ParameterList([nn.Parameter(b.logits) for b in blends])
        for level, blend in enumerate(blends):
            self.register_buffer(f"blend_index_{level}", blend.index)
        self.register_buffer("instances", instances)
        self.register_parameter("residual", None if residual is None else nn.Parameter(residual))
        self.timeline = timeline
        self.cameras = cameras
        self.canonical_frame = canonical_frame
        self.world_units = world_units

    def __len__(self) -> int:
        return len(self.static) + len(self.moving)

    def __repr__(self) -> str:
        return (
            f"GaussianSequence({len(self.static)} static and {len(self.moving)} moving Gaussians, "
            f"{self.num_levels} levels, {len(self.timeline)} frames)"
        )

    @property
    def num_levels(self) -> int:
        return self.motion.num_levels + (self.residual is not None)

    @property
    def device(self) -> torch.device:
        return self.static.means.device

    @property
    def blends(self) -> list[Blend]:
        """The blend of each level."""
        return [
            Blend(self.get_buffer(f"blend_index_{level}"), logits)
            for level, logits in enumerate(self.blend_logits)
        ]

    def at(self, time: float, *, levels: int | None = None) -> PosedGaussians:
        """Return the Gaussians at a normalised time, in the world of the input cameras.

        Args:
            time: 0 (first frame) to 1 (last frame); any real number in between.
            levels: use only the first so many motion levels.

        Raises:
            InputError: the time lies outside [0, 1].
        """
        frame = self.timeline.frame_position(time)
        return self.posed(torch.tensor([frame], device=self.device), levels=levels)

    def camera_at(self, time: float) -> Cameras:
        """Return the clip's camera at a normalised time; between frames it is interpolated.

        Raises:
            InputError: the time lies outside [0, 1].
        """
        return self.cameras.interpolated(np.array([self.timeline.frame_position(time)]))

    def canonical(self) -> PosedGaussians:
        """Return the Gaussians in the canonical frame, without any motion."""
        return self.posed(torch.zeros(1, device=self.device), levels=0)

    def posed(
        self, frames: Float[Tensor, " times"], *, levels: int | None = None
    ) -> PosedGaussians:
        """Return the Gaussians at fractional frame indices, differentiably.

        Args:
            frames: in the clip's numbering.
            levels: use only the first so many motion levels; 0 for none at all.
        """
        times = len(frames)
        rotations, means, quats = self.motion.pose(
            self.moving.means, self.moving.quats_wxyz, self.blends, frames, levels
        )
        if self.residual is not None and (levels is None or levels >= self.num_levels):
            own = self.motion.at_keys(self.residual, frames).transpose(0, 1)  # [B, M, 3]
            means = means + (rotations @ own.unsqueeze(-1)).squeeze(-1)
        return PosedGaussians(
            torch.cat([self.static.means.expand(times, -1, -1), means], dim=1),
            torch.cat([self.static.quats_wxyz.expand(times, -1, -1), quats], dim=1),
            torch.cat([self.static.scales, self.moving.scales]),
            torch.cat([self.static.opacities, self.moving.opacities]),
            torch.cat([self.static.harmonics, self.moving.harmonics]),
            rotations,
            torch.cat([self.instances.new_zeros(len(self.static)), self.instances]),
        )

    @torch.no_grad()
    def paths(
        self,
        index: Int[Tensor, " chosen"],
        frames: Float[Tensor, " times"],
        *,
        levels: int | None = None,
    ) -> Float[Tensor, "times chosen 3"]:
        """Return where some of the moving Gaussians are at fractional frame indices.

        Args:
            index: which of them, 0 to the number of moving Gaussians less one.
            frames, levels: as for `posed`.
        """
        blends = [Blend(b.index[index], b.logits[index]) for b in self.blends]
        moving = self.moving
        rotations, means, _ = self.motion.pose(
            moving.means[index], moving.quats_wxyz[index], blends, frames, levels
        )
        if self.residual is not None and (levels is None or levels >= self.num_levels):
            own = self.motion.at_keys(self.residual[index], frames).transpose(0, 1)
            means = means + (rotations @ own.unsqueeze(-1)).squeeze(-1)
        return means

    @torch.no_grad()
    def rescaled(self, scale: float, offset: np.ndarray) -> GaussianSequence:
        """Return the sequence in another world: x -> scale * x + offset.

        Args:
            scale: positive factor.
            offset: [3] in the new units.
        """
        shift = torch.as_tensor(np.asarray(offset), dtype=torch.float32, device=self.device)

        def moved(gaussians: Gaussians) -> Gaussians:
            return Gaussians(
                gaussians.means * scale + shift,
                gaussians.log_scales + float(np.log(scale)),
                gaussians.quats_wxyz,
                gaussians.opacity_logits,
                gaussians.harmonics,
            )

        levels = range(self.motion.num_levels)
        motion = MotionField(
            [self.motion.centres(i) * scale + shift for i in levels],
            [self.motion.sixd[i].detach().clone() for i in levels],
            [self.motion.translations[i].detach() * scale for i in levels],
            [self.motion.parents(i) for i in levels],
            self.motion.key_frames,
            self.motion.objects,
        )
        world = np.eye(4)
        world[:3, 3] = offset
        return GaussianSequence(
            moved(self.static),
            moved(self.moving),
            motion,
            [Blend(b.index, b.logits.detach().clone()) for b in self.blends],
            self.instances,
            timeline=self.timeline,
            cameras=self.cameras.transformed(world, scale),
            canonical_frame=self.canonical_frame,
            world_units=self.world_units,
            residual=None if self.residual is None else self.residual.detach() * scale,
        )
