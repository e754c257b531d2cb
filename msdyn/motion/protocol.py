"""What every motion model offers: the one face by which the rest of the toolkit knows motion.

A `Motion` owns how the moving Gaussians of a sequence move: parameters shared by all of them, and
whatever it keeps for each Gaussian. Nothing outside `msdyn.motion` knows what these are.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from msdyn.errors import InputError
from msdyn.geometry import Similarity
from msdyn.motion.config import MotionConfig
from msdyn.motion.registry import find_motion, motion_names
from msdyn.motion.rejoin import ObjectSurfaces
from msdyn.scene import LiftedTracks

__all__ = [
    "Motion",
    "MotionRates",
    "Pose",
    "TrackedMotion",
    "TrackedScene",
    "motion_class",
]


class Pose(NamedTuple):
    """G Gaussians at B times.

    Attributes:
        rotations: [B, G, 3, 3] since the canonical frame.
        means: [B, G, 3] scene units.
        quats_wxyz: [B, G, 4] orientations, not necessarily unit.
    """

    rotations: Float[Tensor, "times gaussians 3 3"]
    means: Float[Tensor, "times gaussians 3"]
    quats_wxyz: Float[Tensor, "times gaussians 4"]


@dataclass(frozen=True)
class MotionRates:
    """Learning rates of Adam, for a scene scaled to a median depth of one.

    Attributes:
        gaussian: of what decides which motion a Gaussian follows, such as logits of weights.
        rotations: of shared rotations (6D).
        translations: of shared translations, and of displacements of single Gaussians.
    """

    gaussian: float
    rotations: float
    translations: float


@dataclass(frozen=True)
class TrackedScene:
    """What a motion model is initialised from.

    Attributes:
        tracks: lifted tracks on moving objects; each is visible in some frame.
        canonical: canonical frame, an index into the tracks' frames.
        key_frames: [T] indices, in the clip, of the tracks' frames.
        surfaces: returns surface samples of the objects, None where there are none.
        seed: of everything random.
    """

    tracks: LiftedTracks
    canonical: int
    key_frames: Int[np.ndarray, " frames"]
    surfaces: Callable[[], ObjectSurfaces | None] = lambda: None
    seed: int = 0


@dataclass(frozen=True)
class TrackedMotion:
    """A motion fitted to tracks: it has one Gaussian for each of N tracks.

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
    """How the moving Gaussians of a sequence move.

    Attributes:
        name: in the registry and in files; set by `register_motion`.
    """

    name: ClassVar[str] = ""

    @property
    @abc.abstractmethod
    def key_frames(self) -> Float[Tensor, " keys"]:
        """[T] frame indices of the clip at which the motion is given, increasing."""

    @classmethod
    @abc.abstractmethod
    def from_tracks(cls, scene: TrackedScene, config: MotionConfig) -> TrackedMotion:
        """Initialise the motion from tracks.

        Args:
            scene: the tracks, and what else is known.
            config: its options.

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
            levels: use only the first so many levels; 0 for no motion at all.
        """

    @abc.abstractmethod
    def undo(self, points: Float[Tensor, "gaussians 3"], frame: float) -> Tensor:
        """Map positions at one frame back to canonical positions, the inverse of `pose`."""

    @property
    def num_levels(self) -> int:
        """How many levels `pose` can tell apart."""
        return 1

    @property
    def level_names(self) -> tuple[str, ...]:
        """What reports call the levels."""
        return ("motion",)

    def groups(self, level: int) -> Int[Tensor, " gaussians"]:
        """Return the number of the group that each Gaussian moves with on a level, for display."""
        return torch.zeros(len(self), dtype=torch.long, device=self.key_frames.device)

    # What it keeps for each Gaussian, by name: density control resizes it with the Gaussians.

    @abc.abstractmethod
    def gaussian_parameters(self) -> dict[str, nn.Parameter]:
        """Return what is optimised of each Gaussian: [G, ...] by name."""

    def gaussian_constants(self) -> dict[str, Tensor]:
        """Return what else is kept of each Gaussian: [G, ...] by name."""
        return {}

    @abc.abstractmethod
    def set_gaussians(self, parameters: dict[str, nn.Parameter], constants: dict[str, Tensor]):
        """Replace what is kept of each Gaussian, in place; their number may differ."""

    @abc.abstractmethod
    def with_gaussians(
        self: Self, parameters: dict[str, Tensor], constants: dict[str, Tensor]
    ) -> Self:
        """Return a motion of other Gaussians that shares everything else with this one."""

    @abc.abstractmethod
    def mixed(
        self: Self,
        index: Int[Tensor, "points near"],
        weights: Float[Tensor, "points near"],
    ) -> Self:
        """Return the motion of new points, each of which moves as some Gaussians do on average.

        Args:
            index: Gaussians.
            weights: non-negative, not necessarily normalised.
        """

    def select(self: Self, index: Int[Tensor, " chosen"] | Bool[Tensor, " gaussians"]) -> Self:
        """Return the motion of some of the Gaussians; what is shared is not copied."""
        return self.with_gaussians(
            {name: value[index] for name, value in self.gaussian_parameters().items()},
            {name: value[index] for name, value in self.gaussian_constants().items()},
        )

    @classmethod
    def concatenated(cls: type[Self], parts: Sequence[Self]) -> Self:
        """Return the motion of all Gaussians of parts that share everything else."""
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
        quats = points.new_tensor([1.0, 0, 0, 0]).expand(len(points), 4)
        return self.pose(points, quats, frames, levels).means

    # The optimisation.

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are not of single Gaussians, by name."""
        own = {id(value) for value in self.gaussian_parameters().values()}
        return {name: value for name, value in self.named_parameters() if id(value) not in own}

    @abc.abstractmethod
    def learning_rates(self, rates: MotionRates) -> dict[str, float]:
        """Return a rate for each name in `gaussian_parameters` and `shared_parameters`."""

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """Return terms that keep the motion plain; the names are those of `LossConfig`."""
        return {}

    def extended(self: Self, config: MotionConfig) -> Self:
        """Return the motion with what only the joint fit optimises, once Gaussians are placed."""
        return self

    # Changes of world and of time.

    @abc.abstractmethod
    def rescaled(self: Self, world: Similarity) -> Self:
        """Return the same motion in another world; `world` has no rotation."""

    def retimed(self: Self, own: Bool[Tensor, " gaussians"], frames: Tensor) -> Self:
        """Return the motion with some Gaussians moving along another time.

        At key frame i they are where they were at `frames[i]`.

        Raises:
            InputError: these Gaussians cannot be retimed without others.
        """
        raise InputError(f"the motion model {self.name} cannot be retimed")

    # Files.

    @abc.abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return everything that is to be stored, by name."""

    def header(self) -> dict[str, Any]:
        """Return what else is to be stored, as JSON."""
        return {}

    @classmethod
    @abc.abstractmethod
    def from_tensors(cls: type[Self], tensors: dict[str, Tensor], header: dict[str, Any]) -> Self:
        """Make the motion that `tensors` and `header` describe; there may be other entries.

        Raises:
            KeyError: an entry is missing.
            InputError: entries that do not go together.
        """


def motion_class(name: str) -> type[Motion]:
    """Return a motion model by its name.

    Raises:
        InputError: no such model.
    """
    found = find_motion(name)
    if found is None:
        raise InputError(f"motion: expected one of {', '.join(motion_names())}, got {name!r}")
    return found
