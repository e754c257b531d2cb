"""Compressed PLY files of PlayCanvas and SuperSplat, written through the package gsply.

Each 256 Gaussians have the bounds of their positions, standard deviations and colours, and 16 bytes
per Gaussian within them: positions and logarithms of the standard deviations in 11, 10 and 11 bits,
colours and opacity in 8 each, and the three smaller components of the quaternion in 10 each, with
the index of the largest in the order wxyz. Harmonics above degree 0 take a byte each, in -4 to 4,
channel by channel.

Reference: `CompressedChunk` in github.com/playcanvas/splat-transform.
"""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Float, Int, Shaped

from msdyn.errors import InputError
from msdyn.io.spz import load_gsply
from msdyn.writing import atomic_path

__all__ = ["write_compressed_ply"]

_LEAST_LOG_SCALE = -20.0


def write_compressed_ply(
    path: str | os.PathLike,
    *,
    means: Float[np.ndarray, "gaussians 3"],
    log_scales: Float[np.ndarray, "gaussians 3"],
    quats_wxyz: Float[np.ndarray, "gaussians 4"],
    opacity_logits: Float[np.ndarray, " gaussians"],
    harmonics: Float[np.ndarray, "gaussians coefficients 3"],
) -> None:
    """Write Gaussians, atomically, neighbours beside one another.

    Args:
        path: file name, `.compressed.ply`.
        means: scene units.
        log_scales: natural logarithms of scene units.
        quats_wxyz: normalised before they are stored.
        opacity_logits: before the sigmoid.
        harmonics: the (degree + 1)^2 coefficients of the colour minus one half.

    Raises:
        InputError: there is no Gaussian, or a number is not finite.
        MissingExtraError: gsply is not installed.
    """
    gsply = load_gsply()
    if not len(means):
        raise InputError(f"{path}: expected at least one Gaussian, got none")
    for name, values in (("means", means), ("log_scales", log_scales), ("harmonics", harmonics)):
        if not np.isfinite(values).all():
            raise InputError(f"{path}: {name}: expected finite numbers, got NaN or infinity")
    order = _along_a_curve(means)

    def sorted_rows(
        values: Shaped[np.ndarray, "gaussians ..."],
    ) -> Float[np.ndarray, "gaussians ..."]:
        return np.ascontiguousarray(values[order], np.float32)

    with atomic_path(path) as temporary:
        content = gsply.compress_to_bytes(
            sorted_rows(means),
            sorted_rows(log_scales.clip(_LEAST_LOG_SCALE)),
            sorted_rows(quats_wxyz),
            sorted_rows(opacity_logits),
            sorted_rows(harmonics[:, 0]),
            sorted_rows(harmonics[:, 1:]) if harmonics.shape[1] > 1 else None,
        )
        temporary.write_bytes(content)


def _along_a_curve(means: Float[np.ndarray, "gaussians 3"]) -> Int[np.ndarray, " gaussians"]:
    """Return the order of positions along a Morton curve through their bounds."""
    low = means.min(0)
    span = np.maximum(means.max(0) - low, 1e-12)
    cells = ((means - low) / span * 1023).astype(np.int64)  # [G, 3]
    codes = np.zeros(len(means), np.int64)
    for bit in range(10):
        for axis in range(3):
            codes |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return np.argsort(codes, kind="stable")
