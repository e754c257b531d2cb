"""The Gaussian sequence: static and moving Gaussians, their motion, and the time axis."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from msdyn.devices import upload
from msdyn.errors import InputError
from msdyn.geometry import Cameras, Similarity
from msdyn.motion import Motion
from msdyn.scene import Timeline
from msdyn.sequence.exposure import Exposure
from msdyn.sequence.gaussians import Gaussians, PosedGaussians

__all__ = ["GaussianSequence"]


class GaussianSequence(nn.Module):
    """3D Gaussians in one canonical frame, deformed over time by a motion (Eq. 6-7, 9-10).

    `import msdyn.notebook` adds the methods `render`, `tracks`, `flow`, `poses` and `export`.

    Attributes:
        static: the background.
        moving: M Gaussians on objects, in the canonical frame.
        motion: of the moving Gaussians.
        labels: [M] mask index (1..K) of the object of each moving Gaussian.
        timeline: the clip's frames in seconds.
        cameras: the clip's cameras, one per frame, in the same world.
        canonical_frame: index of the canonical frame.
        world_units: "metric" or "arbitrary".
        exposure: gains of the clip's frames, None if there are none; see `render_image`.
    """

    labels: Tensor

    def __init__(
        self,
        static: Gaussians,
        moving: Gaussians,
        motion: Motion,
        labels: Int[Tensor, " moving"],
        *,
        timeline: Timeline,
        cameras: Cameras,
        canonical_frame: int,
        world_units: str,
        exposure: Exposure | None = None,
    ) -> None:
        super().__init__()
        if not len(moving) == len(motion) == len(labels):
            raise InputError(
                f"sequence: expected a motion and a label of each of {len(moving)} moving "
                f"Gaussians, got {len(motion)} and {len(labels)}"
            )
        if exposure is not None and len(exposure) != len(timeline):
            raise InputError(
                f"exposure: expected gains of {len(timeline)} frames, got {len(exposure)}"
            )
        self.static = static
        self.moving = moving
        self.motion = motion
        self.register_buffer("labels", labels)
        self.timeline = timeline
        self.cameras = cameras
        self.canonical_frame = canonical_frame
        self.world_units = world_units
        self.exposure = exposure

    def __repr__(self) -> str:
        return (
            f"GaussianSequence({len(self.static)} static and {len(self.moving)} moving Gaussians, "
            f"{self.num_levels} levels, {len(self.timeline)} frames)"
        )

    @property
    def num_gaussians(self) -> int:
        """Number of static and moving Gaussians."""
        return len(self.static) + len(self.moving)

    @property
    def num_levels(self) -> int:
        """Number of motion levels."""
        return self.motion.num_levels

    @property
    def objects(self) -> list[int]:
        """Mask indices of the objects, increasing."""
        return self.labels.unique().tolist()

    @property
    def device(self) -> torch.device:
        return self.static.means.device

    def at(self, time: float, *, levels: int | None = None) -> PosedGaussians:
        """Return the Gaussians at a normalised time, in the world of the input cameras.

        Args:
            time: from 0 (first frame) to 1 (last frame).
            levels: number of motion levels to apply; all by default.

        Raises:
            InputError: the time lies outside [0, 1].
        """
        return self.posed(self._frame(self.timeline.frame_position(time)), levels=levels)

    def camera_at(self, time: float) -> Cameras:
        """Return the clip's camera at a normalised time, interpolated between frames.

        Raises:
            InputError: the time lies outside [0, 1].
        """
        return self.cameras.interpolated(np.array([self.timeline.frame_position(time)]))

    def canonical(self) -> PosedGaussians:
        """Return the Gaussians in the canonical frame, without any motion."""
        return self.posed(self._frame(self.canonical_frame), levels=0)

    def _frame(self, frame: float) -> Float[Tensor, " 1"]:
        """Return a frame index on the device."""
        return upload(np.array([frame], np.float32), self.device)

    def posed(
        self,
        frames: Float[Tensor, " times"],
        *,
        levels: int | None = None,
        keys: Int[Tensor, " times"] | None = None,
    ) -> PosedGaussians:
        """Return the Gaussians at fractional frame indices, differentiably.

        Args:
            frames: frame indices of the clip.
            levels: number of motion levels to apply, 0 for none; all by default.
            keys: where all frames are key frames of the motion, their numbers among these; this
                saves the interpolation, with all levels.
        """
        times = len(frames)
        points, quats_wxyz = self.moving.means, self.moving.quats_wxyz
        if keys is not None and levels is None:
            posed = self.motion.pose_at_keys(points, quats_wxyz, keys)
        else:
            posed = self.motion.pose(points, quats_wxyz, frames, levels)
        rotations, means, quats = posed
        return PosedGaussians(
            torch.cat([self.static.means.expand(times, -1, -1), means], dim=1),
            torch.cat([self.static.quats_wxyz.expand(times, -1, -1), quats], dim=1),
            torch.cat([self.static.scales, self.moving.scales]),
            _beside(self.static.opacities_at(frames), self.moving.opacities_at(frames)),
            torch.cat([self.static.harmonics, self.moving.harmonics]),
            rotations,
            torch.cat([self.labels.new_zeros(len(self.static)), self.labels]),
        )

    @torch.no_grad()
    def paths(
        self,
        index: Int[Tensor, " chosen"],
        frames: Float[Tensor, " times"],
        *,
        levels: int | None = None,
    ) -> Float[Tensor, "times chosen 3"]:
        """Return the trajectories of some of the moving Gaussians.

        Args:
            index: into the moving Gaussians.
            frames, levels: as for `posed`.
        """
        return self.motion.select(index).positions(self.moving.means[index], frames, levels)

    @torch.no_grad()
    def rescaled(self, world: Similarity, *, cameras: Cameras | None = None) -> GaussianSequence:
        """Return the sequence in other world coordinates.

        Args:
            world: `new_from_old`, without rotation.
            cameras: the clip's cameras in the new world; by default the transformed ones.

        Raises:
            InputError: `world` has a rotation.
        """
        if not np.allclose(world.rotation, np.eye(3)):
            raise InputError("rescaled: expected a similarity without rotation")
        translation = torch.as_tensor(world.translation, dtype=torch.float32, device=self.device)

        def transformed(gaussians: Gaussians) -> Gaussians:
            return Gaussians(
                gaussians.means * world.scale + translation,
                gaussians.log_scales + float(np.log(world.scale)),
                gaussians.quats_wxyz,
                gaussians.opacity_logits,
                gaussians.harmonics,
                gaussians.life_spans,
            )

        return self.replaced(
            static=transformed(self.static),
            moving=transformed(self.moving),
            motion=self.motion.rescaled(world),
            cameras=self.cameras.transformed(world) if cameras is None else cameras,
        )

    def replaced(
        self,
        *,
        static: Gaussians | None = None,
        moving: Gaussians | None = None,
        motion: Motion | None = None,
        labels: Int[Tensor, " moving"] | None = None,
        cameras: Cameras | None = None,
        exposure: Exposure | None = None,
    ) -> GaussianSequence:
        """Return a sequence with some parts replaced; the others are shared, not copied."""
        return GaussianSequence(
            self.static if static is None else static,
            self.moving if moving is None else moving,
            self.motion if motion is None else motion,
            self.labels if labels is None else labels,
            timeline=self.timeline,
            cameras=self.cameras if cameras is None else cameras,
            canonical_frame=self.canonical_frame,
            world_units=self.world_units,
            exposure=self.exposure if exposure is None else exposure,
        )


def _beside(
    static: Float[Tensor, "#times static"], moving: Float[Tensor, "#times moving"]
) -> Float[Tensor, "#times gaussians"]:
    """Concatenate along the second axis; one row if both have one."""
    rows = max(len(static), len(moving))
    return torch.cat([static.expand(rows, -1), moving.expand(rows, -1)], dim=1)
