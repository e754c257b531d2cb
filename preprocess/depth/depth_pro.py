"""Depth Pro through transformers: sharp metric depth, slow.

Reference: Bochkovskii et al., "Depth Pro: Sharp Monocular Metric Depth in Less Than a Second",
2024.
"""

from __future__ import annotations

import numpy as np

from msdyn.preprocess.checkpoints.huggingface import load_pretrained
from msdyn.preprocess.checkpoints.placement import network_input, place

__all__ = ["DepthPro"]

_MEAN, _STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_MEGABYTES = 6000.0


class DepthPro:
    """Inverse depth by Depth Pro."""

    def __init__(self, model: str, *, offline: bool) -> None:
        """Load a checkpoint; see `load_pretrained` for what can go wrong."""
        self._network = load_pretrained("DepthProForDepthEstimation", model, offline=offline)
        self.placement = place(self._network, _MEGABYTES)
        self.metric = bool(self._network.config.use_fov_model)
        ratios = self._network.config.scaled_images_ratios
        # The largest scale is cut into patches; 1536 px for patches of 384.
        side = self._network.config.patch_size
        self._side = int(side if isinstance(side, int) else side[0]) * round(1 / min(ratios))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return inverse depth [B, h, w] float32 of images [B, H, W, 3] uint8.

        In 1/m where the checkpoint estimates the field of view, else for a focal length of the
        image's width.
        """
        import torch

        pixels = network_input(images, (self._side, self._side), _MEAN, _STD, self.placement)
        with torch.inference_mode():
            output = self._network(pixel_values=pixels)
        inverse = output.predicted_depth.float().cpu().numpy()
        fov = getattr(output, "field_of_view", None)
        if fov is None:
            return inverse
        # What the network gives is inverse depth at a focal length of one image width.
        degrees = fov.float().reshape(-1).cpu().numpy()
        return inverse * (2 * np.tan(np.radians(degrees) / 2))[:, None, None]
