"""Where a network runs: device, precision and batch size, by the free memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from msdyn.devices import choose_device

__all__ = ["Placement", "fit_size", "network_input", "place"]

MAX_BATCH = 8


@dataclass(frozen=True)
class Placement:
    """Where a network runs.

    Attributes:
        device: "cpu", "cuda" or "cuda:N".
        half: in float16, otherwise float32.
        batch: images per call.
    """

    device: str
    half: bool
    batch: int

    @property
    def record(self) -> dict[str, Any]:
        """Figures for the record of a stage."""
        return {
            "device": self.device,
            "precision": "float16" if self.half else "float32",
            "batch": self.batch,
        }


def place(network: nn.Module, megabytes_per_image: float, device: str = "auto") -> Placement:
    """Move a network to a device, in place, and return its placement.

    On CUDA in half precision, with as many images as fit into half of the free memory. On a CPU in
    single precision, one image at a time: larger batches are not faster there.

    Args:
        network: on the CPU, in float32.
        megabytes_per_image: memory for one image in float16.
        device: its name, as in `choose_device`.

    Raises:
        InputError: no such device.
    """
    chosen = choose_device(device)
    if chosen.type == "cpu":
        network.float().to(chosen)  # of a network that was kept (`kept.py`) elsewhere
        return Placement("cpu", False, 1)
    network.half().to(chosen)
    free, _ = torch.cuda.mem_get_info(chosen)
    batch = int(0.5 * free / (megabytes_per_image * 2**20))
    return Placement(str(chosen), True, max(1, min(MAX_BATCH, batch)))


def network_input(
    images: UInt8[np.ndarray, "batch height width 3"],
    size: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    placement: Placement,
) -> Float[Tensor, "batch 3 h w"]:
    """Return images as input of a network: resampled, normalised, [B, 3, h, w].

    Args:
        images: [B, H, W, 3] RGB.
        size: (height, width) to resample to, bicubic and antialiased.
        mean, std: of the network's training images, RGB in [0, 1].
        placement: where the network runs.
    """
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    batch = torch.nn.functional.interpolate(
        batch, size, mode="bicubic", align_corners=False, antialias=True
    ).clamp(0, 1)
    batch = (batch - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    return batch.to(placement.device, torch.float16 if placement.half else torch.float32)


def fit_size(size: tuple[int, int], wanted: tuple[int, int], step: int) -> tuple[int, int]:
    """Return the size to resample an image to: rounded to steps, with about its aspect ratio.

    One side is as wanted: the one that changes the size less, as in transformers' processors.

    Args:
        size: (height, width) of the image.
        wanted: (height, width) of the network's training images.
        step: px; both sides are multiples of it.
    """
    factors = (wanted[0] / size[0], wanted[1] / size[1])
    factor = min(factors, key=lambda f: abs(1 - f))
    height, width = (max(step, round(factor * side / step) * step) for side in size)
    return height, width
