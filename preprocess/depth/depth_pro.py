"""Depth Pro through transformers: sharp metric depth, slow.

Reference: Bochkovskii et al., "Depth Pro: Sharp Monocular Metric Depth in Less Than a Second",
2024.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from msdyn.preprocess.checkpoints.huggingface import load_pretrained
from msdyn.preprocess.checkpoints.placement import network_input, place
from msdyn.preprocess.depth.networks import register_depth_network

__all__ = ["DepthPro"]

_MEAN, _STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_MEGABYTES = 6000.0


@register_depth_network("depth-pro", model="apple/DepthPro-hf")
class DepthPro:
    """Inverse depth by Depth Pro."""

    def __init__(self, model: str, *, offline: bool, device: str = "auto") -> None:
        """Load a checkpoint; see `load_pretrained` for the errors."""
        self._network = load_pretrained("DepthProForDepthEstimation", model, offline=offline)
        self.placement = place(self._network, _MEGABYTES, device)
        self.metric = bool(self._network.config.use_fov_model)
        ratios = self._network.config.scaled_images_ratios
        # The largest scale is cut into patches; 1536 px for patches of 384.
        side = self._network.config.patch_size
        self._side = int(side if isinstance(side, int) else side[0]) * round(1 / min(ratios))

    def predict(
        self, images: UInt8[np.ndarray, "batch height width 3"]
    ) -> Float32[np.ndarray, "batch h w"]:
        """Return inverse depth [B, h, w] of images [B, H, W, 3].

        In 1/m where the checkpoint estimates the field of view, else for a focal length of one
        image width.
        """
        pixels = network_input(images, (self._side, self._side), _MEAN, _STD, self.placement)
        with torch.inference_mode():
            output = self._network(pixel_values=pixels)
        inverse = output.predicted_depth.float().cpu().numpy()
        fov = getattr(output, "field_of_view", None)
        if fov is None:
            return inverse
        # The network predicts inverse depth for a focal length of one image width.
        degrees = fov.float().reshape(-1).cpu().numpy()
        return inverse * (2 * np.tan(np.radians(degrees) / 2))[:, None, None]
