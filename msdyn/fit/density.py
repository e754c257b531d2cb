"""Adaptive density control of the static and the moving Gaussians, by gsplat's strategy.

`gsplat.DefaultStrategy` grows, splits and prunes one set of Gaussians and resizes their optimisers'
state with them. Here each set has a strategy of its own; the moving set brings its blend logits
along as parameters and its patterns' indices as state, so that new Gaussians inherit both.
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
        params: by gsplat's names, and `blend_<level>` for the moving set.
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
        """Put the parameters (and, for the moving set, blends and labels) back into the modules."""
        for name, key in self.names.items():
            setattr(gaussians, name, self.params[key])
        if sequence is not None:
            for level in range(len(sequence.blend_logits)):
                sequence.blend_logits[level] = self.params[f"blend_{level}"]
                setattr(sequence, f"blend_index_{level}", self.state[f"index_{level}"])
            if sequence.residual is not None:
                sequence.residual = self.params["residual"]
            sequence.instances = self.state["objects"]


def make_sets(
    sequence: GaussianSequence, rates: RateConfig, density: DensityConfig, steps: int
) -> tuple[GaussianSet, GaussianSet]:
    """Return the static and the moving set of a sequence, ready to be optimised."""
    static = _make_set(sequence.static, {}, rates, density, density.max_static, steps)
    own = {f"blend_{i}": p for i, p in enumerate(sequence.blend_logits)}
    if sequence.residual is not None:
        own["residual"] = sequence.residual
    moving = _make_set(sequence.moving, own, rates, density, density.max_moving, steps)
    for level, blend in enumerate(sequence.blends):
        moving.state[f"index_{level}"] = blend.index
    moving.state["objects"] = sequence.instances
    return static, moving


def _make_set(
    gaussians: Gaussians,
    own: dict[str, nn.Parameter],
    rates: RateConfig,
    density: DensityConfig,
    limit: int,
    steps: int,
) -> GaussianSet:
    rate = {
        "means": rates.means,
        "scales": rates.scales,
        "quats": rates.quats,
        "opacities": rates.opacities,
        "harmonics": rates.harmonics,
        "residual": rates.patterns,
    }
    params = {key: getattr(gaussians, name) for name, key in _NAMES.items()}
    params |= own
    optimisers: dict[str, torch.optim.Optimizer] = {
        key: torch.optim.Adam(
            [{"params": value, "name": key}], lr=rate.get(key, rates.blends), eps=1e-15, fused=True
        )
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
