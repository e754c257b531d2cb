"""ZoeDepth through transformers: metric depth.

Reference: Bhat et al., "ZoeDepth: Zero-shot Transfer by Combining Relative and Metric Depth", 2023.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from msdyn.preprocess.checkpoints.huggingface import load_pretrained
from msdyn.preprocess.checkpoints.placement import fit_size, network_input, place
from msdyn.preprocess.depth.networks import register_depth_network

__all__ = ["ZoeDepth"]

_SIZE, _STEP = (384, 512), 32
_MEAN, _STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_MEGABYTES = 1500.0


@register_depth_network("zoedepth", model="Intel/zoedepth-nyu-kitti")
class ZoeDepth:
    """Inverse metric depth by ZoeDepth."""

    metric = True

    def __init__(self, model: str, *, offline: bool, device: str = "auto") -> None:
        """Load a checkpoint; see `load_pretrained` for the errors."""
        self._network = load_pretrained("ZoeDepthForDepthEstimation", model, offline=offline)
        self.placement = place(self._network, _MEGABYTES, device)

    def predict(
        self, images: UInt8[np.ndarray, "batch height width 3"]
    ) -> Float32[np.ndarray, "batch height width"]:
        """Return inverse depth [B, H, W], 1/m, of images [B, H, W, 3].

        The images get a mirrored margin, as in the training of the network.
        """
        height, width = images.shape[1:3]
        pad = [int(3 * np.sqrt(side / 2)) for side in (height, width)]
        pad = [min(p, side - 1) for p, side in zip(pad, (height, width), strict=True)]
        padded = np.pad(images, ((0, 0), (pad[0],) * 2, (pad[1],) * 2, (0, 0)), "reflect")
        size = fit_size(padded.shape[1:3], _SIZE, _STEP)
        pixels = network_input(padded, size, _MEAN, _STD, self.placement)
        with torch.inference_mode():
            depth = self._network(pixel_values=pixels).predicted_depth.float()
            depth = torch.nn.functional.interpolate(
                depth[:, None], padded.shape[1:3], mode="bilinear", align_corners=False
            )[:, 0]
        inner = depth[:, pad[0] : pad[0] + height, pad[1] : pad[1] + width]
        return 1 / np.maximum(inner.cpu().numpy(), 1e-3)
