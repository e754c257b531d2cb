"""SPZ files: Gaussians in about 20 bytes each, gzipped; written through the package gsply.

Positions are integers of 24 bits in steps of a power of two; the logarithms of the standard
deviations have steps of 1/16 and lie in -10 to 5.9; opacities have steps of 1/255; colours and
harmonics 8 bits each; three components of the quaternion have 10. The format's axes are right, up,
back; the caller converts.

Reference: README of github.com/nianticlabs/spz, version 3.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float

from msdyn.errors import InputError, MissingExtraError
from msdyn.writing import atomic_path

__all__ = ["load_gsply", "write_spz"]

_FINEST_STEP = 0.02
"""Finest step of positions that is of use, relative to the median standard deviation."""
_LARGEST = 2**23 - 1
_MOST_BITS = 24


def load_gsply() -> Any:
    """Return the package gsply.

    Raises:
        MissingExtraError: it is not installed; the message names the extra.
    """
    try:
        return import_module("gsply")
    except ImportError as error:
        raise MissingExtraError('gsply is not installed: pip install "msdyn[spz]"') from error


def write_spz(
    path: str | os.PathLike,
    *,
    means: Float[np.ndarray, "gaussians 3"],
    log_scales: Float[np.ndarray, "gaussians 3"],
    quats_wxyz: Float[np.ndarray, "gaussians 4"],
    opacity_logits: Float[np.ndarray, " gaussians"],
    harmonics: Float[np.ndarray, "gaussians coefficients 3"],
) -> None:
    """Write Gaussians, atomically.

    Args:
        path: file name, `.spz`.
        means: scene units, in the axes of the format.
        log_scales: natural logarithms of scene units.
        quats_wxyz: normalised before they are stored.
        opacity_logits: before the sigmoid.
        harmonics: the (degree + 1)^2 coefficients of the colour minus one half.

    Raises:
        InputError: there is no Gaussian, a number is not finite, or a position is too large.
        MissingExtraError: gsply is not installed.
    """
    gsply = load_gsply()
    if not len(means):
        raise InputError(f"{path}: expected at least one Gaussian, got none")
    for name, values in (("means", means), ("log_scales", log_scales), ("harmonics", harmonics)):
        if not np.isfinite(values).all():
            raise InputError(f"{path}: {name}: expected finite numbers, got NaN or infinity")
    bits = _fractional_bits(means, log_scales)
    if bits < 1:
        raise InputError(f"{path}: expected positions below {_LARGEST / 2:.0f} scene units, "
                         f"got {np.abs(means).max():.0f}")  # fmt: skip
    data = gsply.GSData(
        means=np.ascontiguousarray(means, np.float32),
        scales=np.ascontiguousarray(log_scales, np.float32),
        quats=np.ascontiguousarray(quats_wxyz, np.float32),
        opacities=np.ascontiguousarray(opacity_logits, np.float32),
        sh0=np.ascontiguousarray(harmonics[:, 0], np.float32),
        shN=np.ascontiguousarray(harmonics[:, 1:], np.float32),
    )
    with atomic_path(path) as temporary:
        gsply.write_spz(temporary, data, version=3, fractional_bits=bits)


def _fractional_bits(
    means: Float[np.ndarray, "gaussians 3"], log_scales: Float[np.ndarray, "gaussians 3"]
) -> int:
    """Return the number of fractional bits, as many as are of use and the extent allows."""
    wanted = -np.log2(_FINEST_STEP * np.exp(np.median(log_scales)))
    allowed = np.log2(_LARGEST / max(float(np.abs(means).max()), 1e-12))
    return int(min(np.ceil(wanted), np.floor(allowed), _MOST_BITS))
