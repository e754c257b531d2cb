"""Interpolation over time between key frames."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["interpolate_keys", "key_position"]


def key_position(
    keys: Float[Tensor, " keys"], frames: Float[Tensor, " times"]
) -> Float[Tensor, " times"]:
    """Return the fractional key frame index of fractional frame indices, clamped to the range.

    Args:
        keys: frame indices of the key frames, increasing, at least two.
        frames: frame indices.
    """
    frames = frames.to(keys).clamp(keys[0], keys[-1])
    high = torch.searchsorted(keys, frames.contiguous(), right=True).clamp(1, len(keys) - 1)
    low = high - 1
    return low + (frames - keys[low]) / (keys[high] - keys[low])


def interpolate_keys(
    values: Float[Tensor, "rows keys *shape"],
    keys: Float[Tensor, " keys"],
    frames: Float[Tensor, " times"],
) -> Float[Tensor, "rows times *shape"]:
    """Interpolate values at key frames linearly to fractional frame indices."""
    position = key_position(keys, frames)
    low = position.floor().long()
    high = (low + 1).clamp_max(len(keys) - 1)
    fraction = (position - low).reshape(-1, *(1 for _ in values.shape[2:]))
    return torch.lerp(values[:, low], values[:, high], fraction)
