"""Adaptive density control of the static and the moving Gaussians by gsplat's strategy.

`gsplat.DefaultStrategy` duplicates, splits and prunes one set of Gaussians and resizes the state of
their optimisers. Here the static and the moving Gaussians have one strategy each. The per-Gaussian
tensors of the motion are among the parameters and state of the moving ones, so that new Gaussians
inherit them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from msdyn.fit.config import DensityConfig, LearningRateConfig
from msdyn.fit.density_lives import Limit, add_pulls, middle_of_lives, pulled_apart
from msdyn.sequence import Gaussians, GaussianSequence

__all__ = ["GaussianSet", "make_motion_optimiser", "make_sets", "make_strategy", "split_in_time"]

# Factor of the learning rate of harmonics of degree 1 and more, as in 3D Gaussian Splatting.
_FINER_HARMONICS = 1 / 20
# Prefix of the names of the motion's tensors.
_MOTION = "motion."
# Names in gsplat's strategy of the parameters it acts on.
_NAMES = {
    "means": "means",
    "log_scales": "scales",
    "quats_wxyz": "quats",
    "opacity_logits": "opacities",
    "harmonics": "harmonics",
    "life_spans": "life_spans",
}


@runtime_checkable
class Strategy(Protocol):
    """The part of the interface of `gsplat.DefaultStrategy` that is used here."""

    prune_opa: float
    refine_start_iter: int
    refine_stop_iter: int
    refine_every: int

    def step_post_backward(
        self,
        params: dict[str, nn.Parameter],
        optimizers: dict[str, torch.optim.Optimizer],
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
    ) -> None: ...


@dataclass
class GaussianSet:
    """One set of Gaussians with its optimisers and its density control.

    Attributes:
        params: by gsplat's names; for the moving set also those of the motion (`motion.<name>`).
        optimisers: one Adam per parameter.
        state: of the strategy; tensors in it are resized with the Gaussians.
        strategy: gsplat's; None disables density control.
        reset_every: steps between resets of the opacities; 0 for none.
    """

    params: dict[str, nn.Parameter]
    optimisers: dict[str, torch.optim.Optimizer]
    state: dict[str, Any]
    strategy: Strategy | None
    reset_every: int = 0

    def __len__(self) -> int:
        return len(self.params["means"])

    def step(self) -> None:
        """Perform one step of every optimiser and clear the gradients."""
        finer = self.params["harmonics"].detach()[:, 1:]
        before = finer.clone()
        for optimiser in self.optimisers.values():
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        finer.lerp_(before, 1 - _FINER_HARMONICS)

    def refine(self, step: int, info: dict[str, Any], columns: slice) -> bool:
        """Accumulate gradient statistics, and densify or prune at the configured steps.

        Args:
            step: number of the step.
            info: of the rendering of both sets, after the backward pass.
            columns: range of this set's Gaussians in `info`.

        Returns:
            Whether the number of Gaussians may have changed.
        """
        if self.strategy is None or step >= self.strategy.refine_stop_iter or not len(self):
            return False
        means2d = info["means2d"].detach()[:, columns]
        means2d.grad = info["means2d"].grad[:, columns]
        self.strategy.step_post_backward(
            self.params,
            self.optimisers,
            self.state,
            step,
            {**info, "means2d": means2d, "radii": info["radii"][:, columns]},
        )
        if self.reset_every and step and step % self.reset_every == 0:
            from gsplat.strategy.ops import reset_opa

            value = 2 * self.strategy.prune_opa
            reset_opa(self.params, self.optimisers, self.state, value)
            return True
        return step > self.strategy.refine_start_iter and step % self.strategy.refine_every == 0

    def store(self, gaussians: Gaussians, sequence: GaussianSequence | None = None) -> None:
        """Assign the parameters (for the moving set also motion and labels) to the modules."""
        for name, key in _NAMES.items():
            if key in self.params:
                setattr(gaussians, name, self.params[key])
        if sequence is not None:
            sequence.motion.set_gaussians(_motion_part(self.params), _motion_part(self.state))
            sequence.labels = self.state["labels"]


def make_sets(
    sequence: GaussianSequence, rates: LearningRateConfig, density: DensityConfig, steps: int
) -> tuple[GaussianSet, GaussianSet]:
    """Return the static and the moving set of a sequence, with optimisers and density control."""
    motion, frames = sequence.motion, len(sequence.timeline)
    most = Limit(density.max_static, frames)
    static = _make_set(sequence.static, {}, {}, rates, density, most, steps)
    parameters = {_MOTION + name: value for name, value in motion.gaussian_parameters().items()}
    lrs = {_MOTION + k: v for k, v in motion.learning_rates(rates.motion).items()}
    most = Limit(density.max_moving, frames)
    moving = _make_set(sequence.moving, parameters, lrs, rates, density, most, steps)
    moving.state |= {_MOTION + name: value for name, value in motion.gaussian_constants().items()}
    moving.state["labels"] = sequence.labels
    if sequence.moving.life_spans is not None:
        moving.state["pulls"] = None  # static ones are not moved, so never to a wrong place
    return static, moving


def accumulate_statistics(state: dict[str, Any], info: dict[str, Any]) -> None:
    """Add the gradients of projected means, and how often each Gaussian was visible, to the state.

    The same numbers as `gsplat.DefaultStrategy` adds, which selects the visible Gaussians by their
    indices: the host waits for the number of these.

    Args:
        state: `grad2d` and `count` [G], None before the first time; gradients are in units of half
            the image and of one camera's loss.
        info: of the rasterizer; `means2d` with its gradient [C, G, 2], `radii` [C, G, 2].
    """
    gradient, cameras = info["means2d"].grad, info["n_cameras"]
    x, y = (
        gradient[..., 0] * (info["width"] / 2 * cameras),
        gradient[..., 1] * (info["height"] / 2 * cameras),
    )
    visible = (info["radii"] > 0).all(-1)  # [C, G]
    size = torch.where(visible, torch.stack([x, y], -1).norm(dim=-1), 0.0).sum(0)
    count = visible.sum(0, dtype=torch.float32)
    for name, value in (("grad2d", size), ("count", count)):
        state[name] = value if state[name] is None else state[name].add_(value)


@torch.no_grad()
def split_in_time(
    params: dict[str, nn.Parameter],
    optimisers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
    limit: Limit,
    least: float,
) -> None:
    """Replace Gaussians whose halves of life are pulled apart by two, one for each half.

    Their statistics are cleared: neither of the two is duplicated at the same time.

    Args:
        params, optimisers, state: of a set with `pulls`, see `add_pulls`.
        limit: of the set.
        least: gradient at which density control acts.
    """
    from gsplat.strategy.ops import duplicate

    chosen = pulled_apart(state["pulls"], limit, least)
    spans = params["life_spans"]
    count, middle = len(spans), middle_of_lives(spans, limit.frames)
    state["grad2d"] = torch.where(chosen, 0.0, state["grad2d"])
    duplicate(params, optimisers, state, chosen)
    spans = params["life_spans"]
    spans[:count, 1] = torch.where(chosen, middle, spans[:count, 1])
    spans[count:, 0] = middle[chosen]
    state["pulls"].zero_()


def _motion_part(values: dict[str, Any]) -> dict[str, Any]:
    """Return the motion's entries, by the motion's own names."""
    return {k.removeprefix(_MOTION): v for k, v in values.items() if k.startswith(_MOTION)}


def make_motion_optimiser(
    sequence: GaussianSequence, rates: LearningRateConfig
) -> torch.optim.Optimizer:
    """Return the optimiser of what the Gaussians share of the motion."""
    motion = [p for p in sequence.motion.shared_parameters().values() if p.numel()]
    nothing = torch.zeros(1, requires_grad=True, device=sequence.device)
    return torch.optim.Adam(motion or [nothing], lr=rates.patterns, eps=1e-15, fused=True)


def _make_set(
    gaussians: Gaussians,
    motion_parameters: dict[str, nn.Parameter],
    motion_lrs: dict[str, float],
    rates: LearningRateConfig,
    density: DensityConfig,
    limit: Limit,
    steps: int,
) -> GaussianSet:
    lr = motion_lrs | {
        "means": rates.means,
        "scales": rates.scales,
        "quats": rates.quats,
        "opacities": rates.opacities,
        "harmonics": rates.harmonics,
        "life_spans": rates.life_spans,
    }
    own = {key: getattr(gaussians, name) for name, key in _NAMES.items()}
    params = {key: value for key, value in own.items() if value is not None} | motion_parameters
    optimisers: dict[str, torch.optim.Optimizer] = {
        key: torch.optim.Adam([{"params": value, "name": key}], lr=lr[key], eps=1e-15, fused=True)
        for key, value in params.items()
    }
    strategy = make_strategy(density, limit, steps)
    state: dict[str, Any] = {"grad2d": None, "count": None, "scene_scale": 1.0}
    return GaussianSet(params, optimisers, state, strategy, density.reset_every)


def make_strategy(density: DensityConfig, limit: Limit, steps: int) -> Strategy:
    """Return the density control of a set for a fit of so many steps."""
    from gsplat.strategy import DefaultStrategy

    class Strategy(DefaultStrategy):
        """gsplat's strategy with statistics that need no indices, so that no GPU is waited for."""

        def _update_state(
            self,
            params: dict[str, nn.Parameter],
            state: dict[str, Any],
            info: dict[str, Any],
            packed: bool = False,
        ) -> None:
            accumulate_statistics(state, info)
            if "pulls" in state:
                add_pulls(state, info, params["life_spans"], limit.frames)

        def _grow_gs(
            self,
            params: dict[str, nn.Parameter],
            optimizers: dict[str, torch.optim.Optimizer],
            state: dict[str, Any],
            step: int,
        ) -> tuple[int, int]:
            least = self.grow_grad2d
            if "pulls" in state:
                split_in_time(params, optimizers, state, limit, least)
            gradient = state["grad2d"] / state["count"].clamp_min(1)
            self.grow_grad2d = limit.least_gradient(gradient, params.get("life_spans"), least)
            grown = super()._grow_gs(params, optimizers, state, step)
            self.grow_grad2d = least
            return grown

    return Strategy(
        prune_opa=density.prune_opacity,
        grow_grad2d=density.grow_gradient,
        refine_start_iter=int(density.start * steps),
        refine_stop_iter=int(density.stop * steps),
        refine_every=density.every,
        # gsplat 1.5.3 never resets opacities (its condition compares with `0 & step`), so `refine`
        # does. The strategy prunes large Gaussians only after this number of steps.
        reset_every=density.reset_every or max(steps, 1),
    )
