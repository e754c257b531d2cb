"""Pictures that compare a render with the truth."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from jaxtyping import Bool, UInt8

from msdyn.colours import error_image
from msdyn.writing import atomic_path

__all__ = ["save_comparison"]


def save_comparison(
    path: Path,
    truth: UInt8[np.ndarray, "height width 3"],
    image: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"] | None = None,
) -> None:
    """Save truth, render and error (see `error_image`) side by side."""
    panel = np.concatenate([truth, image, error_image(image, truth, mask)], axis=1)
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, panel)
