"""Pictures that show how a render differs from the truth."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from msdyn.colours import error_image
from msdyn.files import atomic_path

__all__ = ["save_comparison"]


def save_comparison(
    path: Path, truth: np.ndarray, image: np.ndarray, mask: np.ndarray | None = None
) -> None:
    """Save truth, render and error side by side."""
    panel = np.concatenate([truth, image, error_image(image, truth, mask)], axis=1)
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, panel)
