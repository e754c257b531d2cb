"""Tensors as the arrays of kernels, and back.

Arrays are made and shaped by numpy, whose calls take a tenth of the time of torch's: in a small
scene they are as long as the kernels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["aligned", "array", "by_camera", "empty", "gradient"]


def array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as a contiguous array, without a copy if it is contiguous."""
    return tensor.detach().contiguous().numpy()


def by_camera(tensor: Tensor, axes: int) -> np.ndarray:
    """Return a tensor as a contiguous array [C or 1, G, n], with a camera axis if it has none.

    Args:
        tensor: of shape [..., G] or [..., G, n].
        axes: that it has without that of the cameras, 1 or 2.
    """
    values = array(tensor)
    shape = values.shape if axes == 2 else (*values.shape, 1)
    return values.reshape(shape if tensor.ndim > axes else (1, *shape))


def gradient(values: np.ndarray, shape: torch.Size) -> Tensor:
    """Return gradients [C, G, n] as a tensor of a shape that all cameras may share."""
    if values.size != shape.numel():
        return torch.from_numpy(values).sum(0).view(shape)
    return torch.from_numpy(values.reshape(shape))


def empty(*shape: int) -> np.ndarray:
    """Return an uninitialised float32 array."""
    return np.empty(shape, np.float32)


def aligned(*shape: int) -> np.ndarray:
    """Return an uninitialised float32 array that starts at a cache line.

    Stores of 16 numbers then write one line instead of parts of two, which for the pixels of a tile
    is 3 to 6 % of blending. Made by torch, it takes some microseconds more than `empty`.
    """
    return torch.empty(shape).numpy()
