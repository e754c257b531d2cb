"""Interpolation over time between key frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from msdyn.motion.config import KeyInterpolation

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
        gaps: [3, times] frames between successive ones of the four key frames around each time, 0
            beyond the first and last; None for linear interpolation.
    """

    low: Int[Tensor, " times"]
    high: Int[Tensor, " times"]
    fraction: Float[Tensor, " times"] | None
    gaps: Float[Tensor, "3 times"] | None = None

    @classmethod
    def at_keys(cls, numbers: Int[Tensor, " times"]) -> KeyTimes:
        """Return the times of key frames given by their numbers."""
        return cls(numbers, numbers, None)

    @classmethod
    def of(
        cls,
        keys: Float[Tensor, " keys"],
        frames: Float[Tensor, " times"],
        interpolation: KeyInterpolation = "linear",
    ) -> KeyTimes:
        """Return fractional frame indices as times between key frames."""
        position = key_position(keys, frames)
        low = position.floor().long()
        fraction = position - low
        # A GPU is not asked whether there is anything to interpolate: the host would wait for it.
        if not fraction.is_cuda and not bool((fraction > 0).any()):
            return cls.at_keys(low)
        last = len(keys) - 1
        gaps = None
        if interpolation == "cubic":
            around = torch.stack([low - 1, low, low + 1, low + 2]).clamp(0, last)
            gaps = keys[around].diff(dim=0)
        return cls(low, (low + 1).clamp_max(last), fraction, gaps)

    def __len__(self) -> int:
        return len(self.low)

    @property
    def around(self) -> list[Int[Tensor, " times"]]:
        """Numbers of the four key frames around each time; the ends of the clip are repeated."""
        assert self.gaps is not None, "cubic interpolation"
        before, _, after = (self.gaps > 0).long()
        return [self.low - before, self.low, self.high, self.high + after]

    def bend(
        self, changes: Float[Tensor, "rows 3 times *shape"]
    ) -> Float[Tensor, "rows times *shape"]:
        """Return by how much a cubic spline differs from linear interpolation.

        A Catmull-Rom spline (cardinal spline of tension 0) is the cubic Hermite spline whose
        velocity at a key frame is the mean velocity between its two neighbours, and at the first
        and last one that of linear interpolation. Its velocity is continuous. It is exact where the
        velocity is constant, and for constant acceleration between evenly spaced key frames. In a
        gap that is longer than its neighbours, as that of a held-out frame, it bends less than the
        parabola through three key frames, whose velocity is steeper and noisier.

        Args:
            changes: of the values from each of the four key frames around a time to the next, zero
                beyond the first and last.

        Reference: Catmull and Rom, "A class of local interpolating splines", 1974.
        """
        assert self.gaps is not None, "cubic interpolation"
        before, between, after = changes.unbind(1)
        u = self._weights(between)
        first, gap, last = (width.reshape(u.shape) for width in self.gaps)
        # The velocities at both key frames relative to linear interpolation, times the gap.
        start = (gap * before - first * between) / (first + gap).clamp_min(1e-6)
        end = (gap * after - last * between) / (gap + last).clamp_min(1e-6)
        return u * (1 - u) * ((1 - u) * start - u * end)

    def spline(
        self, around: Float[Tensor, "rows 4 times *shape"]
    ) -> Float[Tensor, "rows times *shape"]:
        """Interpolate values at the four key frames around each time by a Catmull-Rom spline."""
        low, high = around[:, 1], around[:, 2]
        return torch.lerp(low, high, self._weights(low)) + self.bend(around.diff(dim=1))

    def interpolate(
        self, values: Float[Tensor, "rows keys *shape"]
    ) -> Float[Tensor, "rows times *shape"]:
        """Interpolate values at key frames."""
        if self.fraction is not None and self.gaps is not None:
            return self.spline(values.index_select(1, torch.cat(self.around)).unflatten(1, (4, -1)))
        low = values.index_select(1, self.low)
        if self.fraction is None:
            return low
        return torch.lerp(low, values.index_select(1, self.high), self._weights(low))

    def _weights(self, values: Float[Tensor, "rows times *shape"]) -> Float[Tensor, " times *_"]:
        """Return the fractions in the shape in which they multiply values."""
        assert self.fraction is not None, "times between key frames"
        return self.fraction.reshape(-1, *(1 for _ in values.shape[2:]))


def interpolate_keys(
    values: Float[Tensor, "rows keys *shape"],
    keys: Float[Tensor, " keys"],
    frames: Float[Tensor, " times"],
) -> Float[Tensor, "rows times *shape"]:
    """Interpolate values at key frames linearly to fractional frame indices."""
    return KeyTimes.of(keys, frames).interpolate(values)
