"""Depth Anything V2 through transformers: relative, and metric variants.

Reference: Yang et al., "Depth Anything V2", NeurIPS 2024.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from msdyn.preprocess.checkpoints.huggingface import load_pretrained
from msdyn.preprocess.checkpoints.placement import fit_size, network_input, place
from msdyn.preprocess.depth.networks import register_depth_network

__all__ = ["DepthAnything"]

_SIZE, _STEP = (518, 518), 14
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MEGABYTES = 700.0


@register_depth_network("depth-anything", model="depth-anything/Depth-Anything-V2-Small-hf")
@register_depth_network(
    "depth-anything-metric", model="depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"
)
class DepthAnything:
    """Inverse depth by Depth Anything V2."""

    def __init__(self, model: str, *, offline: bool, device: str = "auto") -> None:
        """Load a checkpoint; see `load_pretrained` for the errors."""
        self._network = load_pretrained("DepthAnythingForDepthEstimation", model, offline=offline)
        self.placement = place(self._network, _MEGABYTES, device)
        self.metric = self._network.config.depth_estimation_type == "metric"

    def predict(
        self, images: UInt8[np.ndarray, "batch height width 3"]
    ) -> Float32[np.ndarray, "batch h w"]:
        """Return inverse depth [B, h, w] of images [B, H, W, 3].

        In 1/m from a metric checkpoint, else up to a scale and a shift.
        """
        size = fit_size(images.shape[1:3], _SIZE, _STEP)
        pixels = network_input(images, size, _MEAN, _STD, self.placement)
        with torch.inference_mode():
            output = self._network(pixel_values=pixels).predicted_depth
        values = output.float().cpu().numpy()
        return 1 / np.maximum(values, 1e-3) if self.metric else values
