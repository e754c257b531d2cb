"""Exposure and white balance of a clip: the gain of each frame's colours.

A camera multiplies light by its exposure and its white balance and then encodes it. With the sRGB
curve, encoded = 1.055 light^(1/2.4) - 0.055 above black, so that a gain k of light is exactly a
gain k^(1/2.4) of encoded + 0.055. That sum is what is multiplied here; the curves of other cameras
are near it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from msdyn.errors import InputError

__all__ = ["LARGEST_LOG_GAIN", "PEDESTAL", "Exposure", "exposed"]

PEDESTAL = 0.055
"""What is added to an encoded colour before it is multiplied (IEC 61966-2-1)."""
LARGEST_LOG_GAIN = 8.0
"""Magnitude of a log gain, 17 stops of light, beyond which a file is damaged."""


def exposed(
    rgb: Float[Tensor, "frames height width 3"],
    alpha: Float[Tensor, "frames height width"],
    log_gains: Float[Tensor, "frames 3"],
) -> Float[Tensor, "frames height width 3"]:
    """Return rendered colours with the exposure of their frames, differentiably; not clipped.

    Args:
        rgb: colours, multiplied by alpha.
        alpha: accumulated opacity; there is no gradient to it.
        log_gains: natural logarithms of the gains, per frame and channel.
    """
    gains = log_gains.exp()[:, None, None]
    pedestal = (gains - 1) * PEDESTAL
    return torch.addcmul(rgb * gains, alpha.detach()[..., None], pedestal)


@dataclass(frozen=True)
class Exposure:
    """Gains of the frames of a clip, relative to the colours of its sequence.

    Attributes:
        log_gains: [T, 3] natural logarithms of the gains of RGB, see `exposed`. Their mean over the
            fitted frames is zero, so that a sequence has the mean colours of its clip.
    """

    log_gains: Float[np.ndarray, "frames 3"]

    def __post_init__(self) -> None:
        gains = self.log_gains
        if gains.ndim != 2 or gains.shape[1] != 3 or not len(gains):
            raise InputError(f"exposure: expected log gains [frames, 3], got {gains.shape}")
        if not (np.abs(gains) <= LARGEST_LOG_GAIN).all():
            raise InputError(f"exposure: expected log gains up to {LARGEST_LOG_GAIN:g}")

    def __len__(self) -> int:
        return len(self.log_gains)

    @property
    def stops(self) -> Float[np.ndarray, " frames"]:
        """Exposure of each frame in stops of light: the mean of the channels, base 2."""
        return 2.4 * self.log_gains.mean(1) / np.log(2)

    def at(self, frames: Real[np.ndarray, " times"]) -> Float[np.ndarray, "times 3"]:
        """Return the log gains at fractional frame indices, interpolated."""
        index = np.arange(len(self))
        return np.stack([np.interp(frames, index, column) for column in self.log_gains.T], axis=1)
