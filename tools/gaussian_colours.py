"""Spherical harmonics as KHR_gaussian_splatting writes them out, and their rotation.

Written from the formulas of the extension's text, apart from msdyn's own harmonics.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def colours(
    harmonics: Float[np.ndarray, "gaussians coefficients 3"],
    directions: Float[np.ndarray, "gaussians 3"],
) -> Float[np.ndarray, "gaussians 3"]:
    """Return the colours of Gaussians, not clamped.

    Args:
        harmonics: rows of degree l are those of order -l to l.
        directions: unit vectors from the camera to the Gaussian, in the axes of the harmonics.
    """
    return np.einsum("gk,gkc->gc", _basis(directions, harmonics.shape[1]), harmonics) + 0.5


def rotated(
    harmonics: Float[np.ndarray, "gaussians coefficients 3"], rotation: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "gaussians coefficients 3"]:
    """Return the coefficients of functions f(R^T d), degree by degree."""
    count = harmonics.shape[1]
    directions = np.random.default_rng(0).normal(size=(64, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    after, before = _basis(directions, count), _basis(directions @ rotation, count)
    result = harmonics.copy()
    for degree in range(1, int(count**0.5)):
        own = slice(degree**2, (degree + 1) ** 2)
        turn = np.linalg.lstsq(after[:, own], before[:, own], rcond=None)[0]
        result[:, own] = np.einsum("ij,gjc->gic", turn, harmonics[:, own])
    return result


def _basis(
    directions: Float[np.ndarray, "directions 3"], count: int
) -> Float[np.ndarray, "directions coefficients"]:
    x, y, z = directions.T
    columns = [
        np.full_like(x, 0.2820947917738781),
        y * -0.4886025119029199,
        z * 0.4886025119029199,
        x * -0.4886025119029199,
        x * y * 1.092548430592079,
        y * z * -1.092548430592079,
        (2 * z**2 - x**2 - y**2) * 0.3153915652525200,
        x * z * -1.092548430592079,
        (x**2 - y**2) * 0.5462742152960395,
        y * (3 * x**2 - y**2) * -0.5900435899266435,
        x * y * z * 2.890611442640554,
        y * (4 * z**2 - x**2 - y**2) * -0.4570457994644657,
        z * (2 * z**2 - 3 * x**2 - 3 * y**2) * 0.3731763325901154,
        x * (4 * z**2 - x**2 - y**2) * -0.4570457994644657,
        z * (x**2 - y**2) * 1.445305721320277,
        x * (x**2 - 3 * y**2) * -0.5900435899266435,
    ]
    return np.stack(columns[:count], axis=1)
