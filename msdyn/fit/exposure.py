"""Exposure and white balance per frame, optimised with the Gaussians (`--exposure`).

The gains multiply rendered colours before they are compared with a frame, as in 3D Gaussian
Splatting's exposure compensation (Kerbl et al. 2023, released code), which has a 3x4 matrix per
image; here they are three numbers, see `msdyn.sequence.exposure`. They start from the colours of
static tracks (`flicker.py`), and gradient descent refines them. Their mean over the fitted frames
is kept at zero, so that the Gaussians keep the mean colours of the clip.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData, FrameBatch
from msdyn.fit.flicker import Flicker, estimate_flicker, observe_colours
from msdyn.progress import write_note
from msdyn.scene import Scene
from msdyn.sequence import Exposure
from msdyn.sequence.exposure import LARGEST_LOG_GAIN, PEDESTAL, exposed

__all__ = ["FrameExposure"]


class FrameExposure:
    """The gains of a fit, or nothing at all where they are not used.

    Attributes:
        used: whether there are gains.
        optimiser: of the gains. Its steps are plain gradients: the loss is a mean over a whole
            image, whose gradient by a log gain is of the size of the colours, while Adam's moments
            would mix the frames, as each is rendered once per epoch only.
    """

    def __init__(self, data: FitData, config: FitConfig, flicker: Flicker | None) -> None:
        """Begin with estimated gains.

        Args:
            data: of the fit.
            config: its options.
            flicker: the estimate; without it, gains are not used.
        """
        self.used = flicker is not None
        self._fitted = torch.as_tensor(data.frames, device=data.device)
        start = np.zeros((len(data.rgb), 3)) if flicker is None else flicker.log_gains
        gains = torch.as_tensor(start, dtype=torch.float32, device=data.device)
        self.log_gains = torch.nn.Parameter(gains, requires_grad=self.used)
        self.optimiser = torch.optim.SGD([self.log_gains], lr=config.rate.exposure)
        self._flicker = flicker

    @classmethod
    def of(cls, scene: Scene, data: FitData, config: FitConfig) -> FrameExposure:
        """Estimate the gains of a scene, decide whether they are used, and say so."""
        if config.exposure == "off":
            return cls(data, config, None)
        images = _Images(data)
        height, width = images.shape[1:3]
        scale = np.array([width / scene.size[1], height / scene.size[0]])
        seen = observe_colours(scene.tracks, images, data.frames, scale, config.seed)
        flicker = estimate_flicker(seen, len(data.rgb), data.frames)
        used = config.exposure == "on" or flicker.significant
        write_note(_decision(flicker, config.exposure, data))
        return cls(data, config, flicker if used else None)

    def summary(self) -> dict[str, Any]:
        """Return what was decided and estimated, for `refinement.json`."""
        if self._flicker is None:
            return {"used": False}
        gains = self._flicker.log_gains
        return {
            "used": True,
            "significant": self._flicker.significant,
            "explained": self._flicker.explained,
            "tracks": self._flicker.tracks,
            "log_gain_rms": float(np.sqrt((gains**2).mean())),
        }

    def evened(self, data: FitData) -> FitData:
        """Return data whose images have the mean exposure, to sample initial colours from."""
        if not self.used:
            return data
        gains = np.exp(self.log_gains.detach().cpu().numpy())

        def evened(frame: int, image: np.ndarray) -> np.ndarray:
            colour = (image / 255 + PEDESTAL) / gains[frame] - PEDESTAL
            return (colour.clip(0, 1) * 255 + 0.5).astype(np.uint8)

        return replace(data, rgb=data.rgb.changed(evened))

    def applied(
        self,
        rgb: Float[Tensor, "frames height width 3"],
        alpha: Float[Tensor, "frames height width"],
        truth: FrameBatch,
    ) -> Float[Tensor, "frames height width 3"]:
        """Return rendered colours with the exposure of their frames.

        A colour that the frame shows as black or white may have been any beyond: where a rendered
        one is, it is clipped too.
        """
        if not self.used:
            return rgb
        gains = self.log_gains.index_select(0, truth.index.long())
        colours = exposed(rgb, alpha, gains)
        clipped = (truth.rgb <= 0) | (truth.rgb >= 1)
        return torch.where(clipped, colours.clamp(0, 1), colours)

    def regulariser(self, truth: FrameBatch) -> Float[Tensor, ""] | None:
        """Return the mean square of the log gains of frames; None if there are none."""
        if not self.used:
            return None
        return self.log_gains.index_select(0, truth.index.long()).square().mean()

    @torch.no_grad()
    def step(self) -> None:
        """Take a step, and restore the mean."""
        if self.used:
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self.log_gains -= self.log_gains[self._fitted].mean(0)
            self.log_gains.clamp_(-LARGEST_LOG_GAIN, LARGEST_LOG_GAIN)

    def result(self) -> Exposure | None:
        """Return the gains of all frames.

        That of a held-out frame is the median of as many fitted frames, up to two, before it as
        after it: of a drift, the mean of its neighbours, but next to a flash it has no part of it.
        """
        if not self.used:
            return None
        fitted = self._fitted.cpu().numpy()
        gains = self.log_gains.detach().cpu().double().numpy()
        for frame in np.setdiff1d(np.arange(len(gains)), fitted):
            at = int(np.searchsorted(fitted, frame))
            reach = min(2, at, len(fitted) - at)
            gains[frame] = np.median(gains[fitted[at - reach : at + reach]], axis=0)
        return Exposure(gains)


class _Images:
    """The images of a fit as arrays."""

    def __init__(self, data: FitData) -> None:
        self._maps, self.shape = data.rgb, data.rgb.shape

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, frame: int | np.integer) -> np.ndarray:
        return self._maps.numpy(frame)


def _decision(flicker: Flicker, option: str, data: FitData) -> str:
    """Return in one line what was found and decided."""
    stops = Exposure(flicker.log_gains).stops[data.frames]
    found = (
        f"exposure varies by {np.ptp(stops):.2f} stops, which explains {flicker.explained:.0%} of "
        f"the changes of colour elsewhere in the image ({flicker.tracks} static tracks)"
    )
    if option == "on":
        return f"exposure on: {found}"
    if flicker.significant:
        return f"exposure auto: on, {found}"
    return f"exposure auto: off, no flicker of the whole image ({flicker.tracks} static tracks)"
