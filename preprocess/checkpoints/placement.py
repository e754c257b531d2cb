"""Where a network runs: device, precision and batch, chosen from the memory at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["Placement", "fit_size", "network_input", "place"]

MAX_BATCH = 8


@dataclass(frozen=True)
class Placement:
    """A device, a floating-point type, and how many images go through at once."""

    device: str
    half: bool
    batch: int

    @property
    def record(self) -> dict[str, Any]:
        """What the stage's record says of it."""
        return {
            "device": self.device,
            "precision": "float16" if self.half else "float32",
            "batch": self.batch,
        }


def place(network: Any, megabytes_an_image: float) -> Placement:
    """Move a network to the best device there is and return how to feed it.

    On CUDA in half precision, as many images as fit into half of the free memory. On a CPU one at a
    time, in single precision: a batch gains nothing there.

    Args:
        network: a torch module, changed in place.
        megabytes_an_image: memory that one image takes at float16.
    """
    import torch

    if not torch.cuda.is_available():
        return Placement("cpu", False, 1)
    network.half().to("cuda")
    free, _ = torch.cuda.mem_get_info()
    batch = int(0.5 * free / (megabytes_an_image * 2**20))
    return Placement("cuda", True, max(1, min(MAX_BATCH, batch)))


def network_input(
    images: np.ndarray,
    size: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    placement: Placement,
) -> torch.Tensor:
    """Return images as a network takes them: resampled, normalised, [B, 3, h, w].

    Args:
        images: [B, H, W, 3] uint8 RGB.
        size: (height, width) to resample to, bicubic and antialiased.
        mean, std: of the network's training images, RGB in [0, 1].
        placement: where they go.
    """
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    batch = torch.nn.functional.interpolate(
        batch, size, mode="bicubic", align_corners=False, antialias=True
    ).clamp(0, 1)
    batch = (batch - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    return batch.to(placement.device, torch.float16 if placement.half else torch.float32)


def fit_size(size: tuple[int, int], wanted: tuple[int, int], step: int) -> tuple[int, int]:
    """Return the size to resample an image to: in steps, its shape kept, one side as wanted.

    Of the two sides it is the one that changes the size less, as in transformers' processors.

    Args:
        size: (height, width) of the image.
        wanted: (height, width) of the network's training images.
        step: px of which both sides are multiples.
    """
    factors = (wanted[0] / size[0], wanted[1] / size[1])
    factor = min(factors, key=lambda f: abs(1 - f))
    height, width = (max(step, round(factor * side / step) * step) for side in size)
    return height, width
