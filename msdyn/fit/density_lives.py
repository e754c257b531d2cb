"""Density control of Gaussians with life spans: how many there may be, and which are split in time.

Where the motion is wrong, the frames pull a Gaussian to different places, and it stays in between,
as a blur. More Gaussians at the same place for the same time do not help. So one that is pulled to
one side in the first half of its life and to the other in the second is replaced by two, one for
each half, which go where they should. In a frame there are no more than before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from msdyn.fit.coverage import MOST_LIVES
from msdyn.sequence.life_spans import life_shares

__all__ = ["Limit", "add_pulls", "middle_of_lives", "pulled_apart"]


@dataclass(frozen=True)
class Limit:
    """How many Gaussians there may be.

    Without life spans none are added when there are `count`, as in 3D Gaussian Splatting. With life
    spans only some exist in a frame, and these are what it costs to render it and what details it
    can have. So `count` is then that of those that exist in a frame, on average, and there may be
    `MOST_LIVES` times as many in all; where not all can be added, those of the largest gradients
    are.

    Attributes:
        count: the number.
        frames: of the clip.
    """

    count: int
    frames: int

    @torch.no_grad()
    def least_gradient(
        self,
        gradients: Float[Tensor, " gaussians"],
        life_spans: Float[Tensor, "gaussians 2"] | None,
        least: float,
    ) -> float:
        """Return the gradient above which Gaussians are to be added, infinite if none are.

        Args:
            gradients: mean gradient of each Gaussian.
            life_spans: of the Gaussians, None if all exist always.
            least: returned where the limit leaves room for all above it.
        """
        if life_spans is None:
            return math.inf if len(gradients) >= self.count else least
        shares = life_shares(life_spans, self.frames)
        gradients, order = gradients.sort(descending=True)
        living = shares.sum() + shares[order].cumsum(0)
        number = torch.arange(1, len(order) + 1, device=order.device) + len(order)
        beyond = (living > self.count) | (number > MOST_LIVES * self.count)
        # The largest gradient that has no room, as those above it are added.
        return max(least, torch.where(beyond, gradients, least).amax().item())


@torch.no_grad()
def add_pulls(
    state: dict[str, Any],
    info: dict[str, Any],
    life_spans: Float[Tensor, "gaussians 2"],
    frames: int,
) -> None:
    """Add the gradients of projected means to the state, in both halves of the lives apart.

    Args:
        state: `pulls` [G, 2, 3], None before the first time: in the first and in the second half
            of the life, the sum of the gradients (units of `accumulate_statistics`) and how often
            the Gaussian was visible.
        info: of the rasterizer, see `accumulate_statistics`; `frames` [C] indices in the clip.
        life_spans: of the G Gaussians.
        frames: number of frames of the clip.
    """
    gradient, cameras = info["means2d"].grad, info["n_cameras"]
    begin, end = life_spans.detach().unbind(-1)
    index = info["frames"][:, None]
    # Beyond its life, a Gaussian that fades says little of its place.
    visible = (info["radii"] > 0).all(-1) & (index >= begin) & (index <= end)  # [C, G]
    pull = [
        torch.where(visible, gradient[..., axis] * (info[size] / 2 * cameras), 0.0)
        for axis, size in enumerate(("width", "height"))
    ]
    pull = torch.stack([*pull, visible.float()], -1)  # [C, G, 3]
    late = index > middle_of_lives(life_spans, frames)
    halves = torch.stack([~late, late], -1).float()
    pulls = torch.einsum("cgh,cgv->ghv", halves, pull)
    state["pulls"] = pulls if state["pulls"] is None else state["pulls"].add_(pulls)


@torch.no_grad()
def pulled_apart(
    pulls: Float[Tensor, "gaussians 2 3"], limit: Limit, least: float
) -> Bool[Tensor, " gaussians"]:
    """Return which Gaussians are to be split in time.

    The difference of the mean gradients of the halves of their lives, to either side of their mean,
    exceeds a gradient. While there is no room for all, it is those of the greatest differences.

    Args:
        pulls: see `add_pulls`.
        limit: of the set.
        least: gradient at which density control acts.
    """
    means = pulls[..., :2] / pulls[..., 2:].clamp_min(1)
    apart = (means[:, 1] - means[:, 0]).norm(dim=-1) / 2
    apart = torch.where((pulls[..., 2] > 0).all(-1), apart, 0.0)
    room = MOST_LIVES * limit.count - len(apart)
    if room < len(apart):
        least = max(least, apart.sort(descending=True)[0][max(room, 0)].item())
    return apart > least


def middle_of_lives(
    life_spans: Float[Tensor, "gaussians 2"], frames: int
) -> Float[Tensor, " gaussians"]:
    """Return the middle of each life, between two frames."""
    return life_spans.detach().clamp(-0.5, frames - 0.5).mean(-1).floor() + 0.5
