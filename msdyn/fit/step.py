"""The input of the losses in a step of the fit, and the registry of losses.

To add a loss, register a function of a step in a plugin (see `msdyn.plugins`) or in `losses.py`:

    @register_loss("toy", weight=0.1)
    def toy(step: Step) -> Tensor: ...

Its weight is that of `--loss.extra toy 0.5` if given, else that of `LossConfig` if it has the name,
else the registered one. It is logged by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from msdyn.fit.data import FrameBatch
from msdyn.fit.neighbours import Neighbours
from msdyn.fit.tracks import TrackBatch
from msdyn.sequence import GaussianSequence, PosedGaussians

__all__ = ["Loss", "Step", "register_loss", "registered_losses"]


@dataclass(frozen=True)
class Step:
    """One rendering of B frames, and the observations of these frames.

    Attributes:
        number: of the step, from 0.
        sequence: in the world of the fit.
        truth: the frames as observed.
        posed: the Gaussians at the frames.
        rgb: [B, H, W, 3] rendered colour, comparable with `truth.rgb`: where the exposure of the
            frames is fitted, it has it.
        moving: [B, H, W] blended weight of moving Gaussians.
        depth: [B, H, W] blended z-depth, not divided by alpha.
        alpha: [B, H, W] accumulated opacity.
        tracks: tracks from the frames to one target frame each; None if tracks are not used.
        positions: [B, H, W, 3] blended world positions at the target frames, not divided by alpha;
            None without tracks.
        neighbours: neighbouring moving Gaussians.
    """

    number: int
    sequence: GaussianSequence
    truth: FrameBatch
    posed: PosedGaussians
    rgb: Float[Tensor, "frames height width 3"]
    moving: Float[Tensor, "frames height width"]
    depth: Float[Tensor, "frames height width"]
    alpha: Float[Tensor, "frames height width"]
    tracks: TrackBatch | None
    positions: Float[Tensor, "frames height width 3"] | None
    neighbours: Neighbours


Loss = Callable[[Step], Tensor | None]
"""Returns a scalar, or None if the loss does not apply to a step."""


@dataclass(frozen=True)
class RegisteredLoss:
    """A loss and its default weight."""

    function: Loss
    weight: float


_LOSSES: dict[str, RegisteredLoss] = {}


def register_loss(name: str, weight: float = 1.0) -> Callable[[Loss], Loss]:
    """Return the decorator that registers a loss.

    Args:
        name: in the options and the log.
        weight: default, used if the options have none.
    """

    def register(function: Loss) -> Loss:
        _LOSSES[name] = RegisteredLoss(function, weight)
        return function

    return register


def registered_losses() -> dict[str, RegisteredLoss]:
    """Return all losses by name, in the order in which they were registered."""
    return dict(_LOSSES)
