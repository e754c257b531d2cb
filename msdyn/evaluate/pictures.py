"""Pictures that show how a render differs from the truth."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from msdyn.files import atomic_path

__all__ = ["error_image", "save_comparison"]


def error_image(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Return the mean absolute difference of two uint8 images as a heat map [H, W, 3] uint8.

    Black is none, white is a difference of a quarter of the range or more; pixels outside the mask
    are blue-grey.
    """
    from matplotlib import colormaps

    difference = np.abs(image.astype(float) - truth.astype(float)).mean(-1) / 64
    heat = (colormaps["inferno"](difference.clip(0, 1))[..., :3] * 255).astype(np.uint8)
    if mask is not None:
        heat[~mask] = (70, 80, 100)
    return heat


def save_comparison(
    path: Path, truth: np.ndarray, image: np.ndarray, mask: np.ndarray | None = None
) -> None:
    """Save truth, render and error side by side."""
    panel = np.concatenate([truth, image, error_image(image, truth, mask)], axis=1)
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, panel)
