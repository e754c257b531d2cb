"""Options of motion models. Where the paper gives a number, it is the default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msdyn.errors import InputError
from msdyn.motion.registry import motion_names
from msdyn.plugins import registered_choice

__all__ = ["MotionConfig"]


@dataclass(frozen=True)
class MotionConfig:
    """Options of the motion of moving Gaussians."""

    model: Annotated[str, registered_choice(motion_names, "motion")] = "hierarchy"
    """hierarchy: the levels below; single: one flat layer of bases, as in shape-of-motion;
    displacements: a trajectory of its own for every Gaussian, which nothing shares."""
    levels: Literal[1, 2, 3, 4] = 3
    """Motion levels: 1 objects, 2 and sparse primitives, 3 and fine grains, 4 and a free residual
    of every Gaussian."""
    k_primitive: int = 5
    """Primitives (L2) per object. The paper's value."""
    k_grain: int = 10
    """Grains (L3) per primitive. The paper's value."""
    k: int = 10
    """Bases of --motion single."""
    weights: Literal["constant", "time-varying"] = "constant"
    """Blend weights of a Gaussian: one set for all times, or one per frame (as in Eq. 10)."""
    prefit_steps: int = 400
    """Adam steps on the lifted tracks, before optimisation by rendering."""

    def __post_init__(self) -> None:
        if self.model not in motion_names():
            names = ", ".join(motion_names())
            raise InputError(f"motion: expected one of {names}, got {self.model!r}")
        for name, minimum in (("k_primitive", 1), ("k_grain", 1), ("k", 1), ("prefit_steps", 0)):
            if getattr(self, name) < minimum:
                raise InputError(f"{name}: expected at least {minimum}, got {getattr(self, name)}")
