"""Interpolation over time between key frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["KeyTimes", "interpolate_keys", "key_position"]


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


@dataclass(frozen=True)
class KeyTimes:
    """Times between key frames.

    Attributes:
        low, high: numbers of the key frames before and after.
        fraction: of the way from one to the other; None where all times are at `low`.
    """

    low: Int[Tensor, " times"]
    high: Int[Tensor, " times"]
    fraction: Float[Tensor, " times"] | None

    @classmethod
    def at_keys(cls, numbers: Int[Tensor, " times"]) -> KeyTimes:
        """Return the times of key frames given by their numbers."""
        return cls(numbers, numbers, None)

    @classmethod
    def of(cls, keys: Float[Tensor, " keys"], frames: Float[Tensor, " times"]) -> KeyTimes:
        """Return fractional frame indices as times between key frames."""
        position = key_position(keys, frames)
        low = position.floor().long()
        fraction = position - low
        # A GPU is not asked whether there is anything to interpolate: the host would wait for it.
        if not fraction.is_cuda and not bool((fraction > 0).any()):
            return cls.at_keys(low)
        return cls(low, (low + 1).clamp_max(len(keys) - 1), fraction)

    def __len__(self) -> int:
        return len(self.low)

    def interpolate(
        self, values: Float[Tensor, "rows keys *shape"]
    ) -> Float[Tensor, "rows times *shape"]:
        """Interpolate values at key frames linearly."""
        low = values.index_select(1, self.low)
        if self.fraction is None:
            return low
        fraction = self.fraction.reshape(-1, *(1 for _ in values.shape[2:]))
        return torch.lerp(low, values.index_select(1, self.high), fraction)


def interpolate_keys(
    values: Float[Tensor, "rows keys *shape"],
    keys: Float[Tensor, " keys"],
    frames: Float[Tensor, " times"],
) -> Float[Tensor, "rows times *shape"]:
    """Interpolate values at key frames linearly to fractional frame indices."""
    return KeyTimes.of(keys, frames).interpolate(values)
