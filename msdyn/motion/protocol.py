"""The interface of motion models.

A `Motion` has the parameters of the motion of a sequence's moving Gaussians: those shared by all
Gaussians, and those per Gaussian. No code outside `msdyn.motion` depends on what they are.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from msdyn.errors import InputError
from msdyn.geometry import Similarity
from msdyn.motion.config import MotionConfig
from msdyn.motion.registry import find_motion, motion_names
from msdyn.motion.reregistration import ObjectSurfaces
from msdyn.plugins import load_plugins
from msdyn.scene import LiftedTracks

__all__ = [
    "Motion",
    "MotionLearningRates",
    "Pose",
    "TrackedMotion",
    "TrackedScene",
    "motion_class",
]


class Pose(NamedTuple):
    """G Gaussians at B times.

    Attributes:
        rotations: [B, G, 3, 3] relative to the canonical frame.
        means: [B, G, 3] scene units.
        quats_wxyz: [B, G, 4] orientations, not necessarily unit.
    """

    rotations: Float[Tensor, "times gaussians 3 3"]
    means: Float[Tensor, "times gaussians 3"]
    quats_wxyz: Float[Tensor, "times gaussians 4"]


@dataclass(frozen=True)
class MotionLearningRates:
    """Learning rates of Adam, for a scene scaled to a median depth of one.

    Attributes:
        gaussian: of per-Gaussian assignments to motions, such as logits of weights.
        rotations: of shared rotations (6D).
        translations: of shared translations, and of displacements of single Gaussians.
    """

    gaussian: float
    rotations: float
    translations: float


@dataclass(frozen=True)
class TrackedScene:
    """The input from which a motion model is initialised.

    Attributes:
        tracks: lifted tracks on moving objects; each is visible in some frame.
        canonical: canonical frame, an index into the tracks' frames.
        key_frames: [T] indices, in the clip, of the tracks' frames.
        camera_centres: [T, 3] of the tracks' frames, scene units; None if they are not known.
        surfaces: returns surface samples of the objects, or None if there are none.
        seed: of all random choices.
    """

    tracks: LiftedTracks
    canonical: int
    key_frames: Int[np.ndarray, " frames"]
    camera_centres: Float[np.ndarray, "frames 3"] | None = None
    surfaces: Callable[[], ObjectSurfaces | None] = lambda: None
    seed: int = 0


@dataclass(frozen=True)
class TrackedMotion:
    """A motion fitted to N tracks, with one Gaussian per track.

    Attributes:
        motion: of the tracks.
        points: [N, 3] their canonical positions, scene units.
        weights: [N, T] confidence of the observations, zero where not visible and for outliers.
    """

    motion: Motion
    points: Float[Tensor, "tracks 3"]
    weights: Float[Tensor, "tracks frames"]


Self = TypeVar("Self", bound="Motion")


class Motion(nn.Module, abc.ABC):
    """The motion of a sequence's moving Gaussians.

    Attributes:
        name: in the registry and in files; set by `register_motion`.
    """

    name: ClassVar[str] = ""

    @property
    @abc.abstractmethod
    def key_frames(self) -> Float[Tensor, " keys"]:
        """Frame indices of the clip at which the motion is parametrised, increasing."""

    @classmethod
    @abc.abstractmethod
    def from_tracks(cls, scene: TrackedScene, config: MotionConfig) -> TrackedMotion:
        """Initialise the motion from tracks.

        Args:
            scene: the tracks and further input.
            config: options of the motion model.

        Raises:
            InputError: an option out of range.
        """

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of Gaussians."""

    @abc.abstractmethod
    def pose(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        frames: Float[Tensor, " times"],
        levels: int | None = None,
    ) -> Pose:
        """Move canonical Gaussians to the given frames, differentiably.

        Args:
            points: canonical positions, scene units, one for each Gaussian.
            quats_wxyz: canonical orientations, not necessarily unit.
            frames: fractional frame indices.
            levels: number of levels to apply, 0 for none; all by default.
        """

    def pose_at_keys(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        numbers: Int[Tensor, " times"],
    ) -> Pose:
        """Return `pose` at key frames given by their numbers, where nothing is interpolated.

        A step of the fit needs no other times. A model can save what interpolation costs.
        """
        return self.pose(points, quats_wxyz, self.key_frames[numbers])

    @abc.abstractmethod
    def undo(
        self, points: Float[Tensor, "gaussians 3"], frame: float
    ) -> Float[Tensor, "gaussians 3"]:
        """Map positions at one frame back to canonical positions, the inverse of `pose`."""

    @property
    def num_levels(self) -> int:
        """Number of levels that `pose` can apply separately."""
        return 1

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the levels in reports."""
        return ("motion",)

    def groups(self, level: int) -> Int[Tensor, " gaussians"]:
        """Return the index of the group of similar motion of each Gaussian, for display."""
        return torch.zeros(len(self), dtype=torch.long, device=self.key_frames.device)

    # Per-Gaussian tensors, which density control resizes with the Gaussians.

    @abc.abstractmethod
    def gaussian_parameters(self) -> dict[str, nn.Parameter]:
        """Return the optimised per-Gaussian parameters [G, ...] by name."""

    def gaussian_constants(self) -> dict[str, Shaped[Tensor, "gaussians ..."]]:
        """Return the other per-Gaussian tensors [G, ...] by name."""
        return {}

    @abc.abstractmethod
    def set_gaussians(
        self,
        parameters: dict[str, nn.Parameter],
        constants: dict[str, Shaped[Tensor, "gaussians ..."]],
    ) -> None:
        """Replace the per-Gaussian tensors in place; the number of Gaussians may change."""

    @abc.abstractmethod
    def with_gaussians(
        self: Self,
        parameters: dict[str, Float[Tensor, "gaussians ..."]],
        constants: dict[str, Shaped[Tensor, "gaussians ..."]],
    ) -> Self:
        """Return a motion with other per-Gaussian tensors and the same shared parameters."""

    @abc.abstractmethod
    def mixed(
        self: Self,
        index: Int[Tensor, "points near"],
        weights: Float[Tensor, "points near"],
    ) -> Self:
        """Return the motion of new points as weighted averages of the motion of Gaussians.

        Args:
            index: the Gaussians averaged for each point.
            weights: non-negative, not necessarily normalised.
        """

    def select(self: Self, index: Int[Tensor, " chosen"] | Bool[Tensor, " gaussians"]) -> Self:
        """Return the motion of some of the Gaussians; shared parameters are not copied."""
        return self.with_gaussians(
            {name: value[index] for name, value in self.gaussian_parameters().items()},
            {name: value[index] for name, value in self.gaussian_constants().items()},
        )

    @classmethod
    def concatenated(cls: type[Self], parts: Sequence[Self]) -> Self:
        """Concatenate the Gaussians of motions that have the same shared parameters."""
        first = parts[0]
        return first.with_gaussians(
            {
                name: torch.cat([part.gaussian_parameters()[name] for part in parts])
                for name in first.gaussian_parameters()
            },
            {
                name: torch.cat([part.gaussian_constants()[name] for part in parts])
                for name in first.gaussian_constants()
            },
        )

    def positions(
        self,
        points: Float[Tensor, "gaussians 3"],
        frames: Float[Tensor, " times"],
        levels: int | None = None,
    ) -> Float[Tensor, "times gaussians 3"]:
        """Move canonical points to the given frames: `pose` without orientations."""
        quats = torch.eye(4, dtype=points.dtype, device=points.device)[0].expand(len(points), 4)
        return self.pose(points, quats, frames, levels).means

    # The optimisation.

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters shared by all Gaussians, by name."""
        per_gaussian = {id(value) for value in self.gaussian_parameters().values()}
        return {
            name: value for name, value in self.named_parameters() if id(value) not in per_gaussian
        }

    @abc.abstractmethod
    def learning_rates(self, rates: MotionLearningRates) -> dict[str, float]:
        """Return the rate of each parameter in `gaussian_parameters` and `shared_parameters`."""

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """Return regularisation losses by name, weighted by the `LossConfig` of that name."""
        return {}

    def extended(self: Self, config: MotionConfig) -> Self:
        """Return the motion with the parameters that only the joint optimisation has."""
        return self

    # World coordinates and time.

    @abc.abstractmethod
    def rescaled(self: Self, world: Similarity) -> Self:
        """Return the same motion in other world coordinates; `world` has no rotation."""

    def retimed(
        self: Self, own: Bool[Tensor, " gaussians"], frames: Float[Tensor, " keys"]
    ) -> Self:
        """Return the motion with the time of some Gaussians remapped.

        At key frame i they have the pose that they had at `frames[i]`.

        Raises:
            InputError: these Gaussians cannot be retimed without others.
        """
        raise InputError(f"the motion model {self.name} cannot be retimed")

    # Files.

    @abc.abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors to store, by name."""

    def header(self) -> dict[str, Any]:
        """Return all other values to store, as JSON."""
        return {}

    @classmethod
    @abc.abstractmethod
    def from_tensors(cls: type[Self], tensors: dict[str, Tensor], header: dict[str, Any]) -> Self:
        """Restore the motion from `tensors` and `header`; other entries are ignored.

        Raises:
            KeyError: an entry is missing.
            InputError: inconsistent entries.
        """


def motion_class(name: object) -> type[Motion]:
    """Return a motion model by its name; plugins are loaded if none is known yet.

    Raises:
        InputError: no such model.
    """
    found = find_motion(name)
    if found is None:
        load_plugins()
        found = find_motion(name)
    if found is None:
        raise InputError(f"motion: expected one of {', '.join(motion_names())}, got {name!r}")
    return found
