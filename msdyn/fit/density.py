"""Adaptive density control of the static and the moving Gaussians, by gsplat's strategy.

`gsplat.DefaultStrategy` grows, splits and prunes one set of Gaussians and resizes their optimisers'
state with them. Here each set has a strategy of its own; what the motion keeps for each moving
Gaussian goes along, as parameters and as state, so that new Gaussians inherit it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from msdyn.fit.config import DensityConfig, RateConfig
from msdyn.sequence import Gaussians, GaussianSequence

__all__ = ["GaussianSet", "make_sets"]

# Harmonics of degree 1 and more learn at this share of the rate, as in 3D Gaussian Splatting.
_FINER_HARMONICS = 1 / 20
# Prefix of what belongs to the motion.
_MOTION = "motion."
# Names of gsplat's strategy for the parameters it acts on.
_NAMES = {
    "means": "means",
    "log_scales": "scales",
    "quats_wxyz": "quats",
    "opacity_logits": "opacities",
    "harmonics": "harmonics",
}


@dataclass
class GaussianSet:
    """One set of Gaussians with its optimisers and its density control.

    Attributes:
        params: by gsplat's names, and for the moving set the motion's (`motion.<name>`).
        optimisers: one Adam for each.
        state: of the strategy; tensors in it are resized with the Gaussians.
        strategy: gsplat's; None switches density control off.
        limit: no growth above this number.
        reset_every: steps between resets of the opacities; 0 for none.
    """

    params: dict[str, nn.Parameter]
    optimisers: dict[str, torch.optim.Optimizer]
    state: dict[str, Any]
    strategy: Any
    limit: int
    reset_every: int = 0
    names: dict[str, str] = field(default_factory=lambda: dict(_NAMES))

    def __len__(self) -> int:
        return len(self.params["means"])

    def step(self) -> None:
        """Take a step of every optimiser and clear the gradients."""
        finer = self.params["harmonics"].detach()[:, 1:]
        before = finer.clone()
        for optimiser in self.optimisers.values():
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        finer.lerp_(before, 1 - _FINER_HARMONICS)

    def refine(self, step: int, info: dict[str, Any], columns: slice) -> bool:
        """Collect statistics of a rendering, and grow or prune when it is time.

        Args:
            step: number of the step.
            info: of the rendering of both sets, after the backward pass.
            columns: the place of this set's Gaussians in it.

        Returns:
            Whether the number of Gaussians may have changed.
        """
        if self.strategy is None or step >= self.strategy.refine_stop_iter or not len(self):
            return False
        means2d = info["means2d"].detach()[:, columns]
        means2d.grad = info["means2d"].grad[:, columns]
        grow = self.strategy.grow_grad2d
        if len(self) >= self.limit:
            self.strategy.grow_grad2d = float("inf")
        self.strategy.step_post_backward(
            self.params,
            self.optimisers,
            self.state,
            step,
            {**info, "means2d": means2d, "radii": info["radii"][:, columns]},
        )
        self.strategy.grow_grad2d = grow
        if self.reset_every and step and step % self.reset_every == 0:
            from gsplat.strategy.ops import reset_opa

            value = 2 * self.strategy.prune_opa
            reset_opa(self.params, self.optimisers, self.state, value)
            return True
        return step > self.strategy.refine_start_iter and step % self.strategy.refine_every == 0

    def store(self, gaussians: Gaussians, sequence: GaussianSequence | None = None) -> None:
        """Put the parameters (of the moving set, motion and labels too) back into the modules."""
        for name, key in self.names.items():
            setattr(gaussians, name, self.params[key])
        if sequence is not None:
            sequence.motion.set_gaussians(_motion_part(self.params), _motion_part(self.state))
            sequence.labels = self.state["labels"]


def make_sets(
    sequence: GaussianSequence, rates: RateConfig, density: DensityConfig, steps: int
) -> tuple[GaussianSet, GaussianSet]:
    """Return the static and the moving set of a sequence, ready to be optimised."""
    motion = sequence.motion
    static = _make_set(sequence.static, {}, {}, rates, density, density.max_static, steps)
    own = {_MOTION + name: value for name, value in motion.gaussian_parameters().items()}
    own_rates = {_MOTION + k: v for k, v in motion.learning_rates(rates.motion).items()}
    moving = _make_set(sequence.moving, own, own_rates, rates, density, density.max_moving, steps)
    moving.state |= {_MOTION + name: value for name, value in motion.gaussian_constants().items()}
    moving.state["labels"] = sequence.labels
    return static, moving


def _motion_part(values: dict[str, Any]) -> dict[str, Any]:
    """Return what belongs to the motion, by its own names."""
    return {k.removeprefix(_MOTION): v for k, v in values.items() if k.startswith(_MOTION)}


def _make_set(
    gaussians: Gaussians,
    own: dict[str, nn.Parameter],
    own_rates: dict[str, float],
    rates: RateConfig,
    density: DensityConfig,
    limit: int,
    steps: int,
) -> GaussianSet:
    lr = own_rates | {
        "means": rates.means,
        "scales": rates.scales,
        "quats": rates.quats,
        "opacities": rates.opacities,
        "harmonics": rates.harmonics,
    }
    params = {key: getattr(gaussians, name) for name, key in _NAMES.items()}
    params |= own
    optimisers: dict[str, torch.optim.Optimizer] = {
        key: torch.optim.Adam([{"params": value, "name": key}], lr=lr[key], eps=1e-15, fused=True)
        for key, value in params.items()
    }
    strategy = _strategy(density, steps)
    state: dict[str, Any] = {"grad2d": None, "count": None, "scene_scale": 1.0}
    return GaussianSet(params, optimisers, state, strategy, limit, density.reset_every)


def _strategy(density: DensityConfig, steps: int) -> Any:
    from gsplat.strategy import DefaultStrategy

    return DefaultStrategy(
        prune_opa=density.prune_opacity,
        grow_grad2d=density.grow_gradient,
        refine_start_iter=int(density.start * steps),
        refine_stop_iter=int(density.stop * steps),
        refine_every=density.every,
        # gsplat 1.5.3 never resets opacities, whatever this says (its condition compares with
        # `0 & step`), so `refine` does; and it prunes large Gaussians only after this many steps.
        reset_every=density.reset_every or max(steps, 1),
    )
