"""Options of motion models. Where the paper gives a number, it is the default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msdyn.motion.registry import motion_names
from msdyn.options import Choices, Named, Options, Range

__all__ = ["KeyInterpolation", "MotionConfig"]

KeyInterpolation = Literal["cubic", "linear"]


@dataclass(frozen=True)
class MotionConfig(Options):
    """Options of the motion of moving Gaussians."""

    model: Annotated[str, Choices(motion_names), Named("motion")] = "hierarchy"
    """hierarchy: the levels below; single: one flat layer of bases, as in shape-of-motion;
    displacements: a trajectory of its own for every Gaussian, which nothing shares."""
    levels: Literal[1, 2, 3, 4] = 3
    """Motion levels: 1 objects, 2 and sparse primitives, 3 and fine grains, 4 and a free residual
    of every Gaussian."""
    k_primitive: Annotated[int, Range(1, 10_000)] = 5
    """Primitives (L2) per object. The paper's value."""
    k_grain: Annotated[int, Range(1, 10_000)] = 10
    """Grains (L3) per primitive. The paper's value."""
    k: Annotated[int, Range(1, 10_000)] = 10
    """Bases of --motion single."""
    weights: Literal["constant", "time-varying"] = "constant"
    """Blend weights of a Gaussian: one set for all times, or one per frame (as in Eq. 10)."""
    joint_refinement: Literal["on", "off"] = "on"
    """Refine the poses of all levels together on the tracks, with smoothness found from the clip,
    before the Adam steps below. Of --motion hierarchy."""
    key_interpolation: KeyInterpolation = "cubic"
    """Between key frames, which are the fitted frames, patterns follow a cubic spline, whose
    velocity is continuous, or the shortest way, as in the paper. Of hierarchy and single."""
    prefit_steps: Annotated[int, Range(0, unit="steps")] = 400
    """Adam steps on the lifted tracks, before optimisation by rendering."""
