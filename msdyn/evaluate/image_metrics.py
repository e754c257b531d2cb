"""Image metrics masked by covisibility, as DyCheck defines them.

Images are float [H, W, 3] in [0, 1]; masks are bool [H, W], true where a pixel counts. A metric of
an empty mask is NaN. Images or masks of differing sizes, and images smaller than the window of
SSIM, raise `InputError`.

Reference: Gao et al., "Monocular Dynamic View Synthesis: A Reality Check", 2022; Wang et al.,
"Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.ndimage import correlate1d

from msdyn.errors import InputError

__all__ = ["Image", "Mask", "check_images", "masked_psnr", "masked_ssim", "masked_ssim_dycheck"]

# A leading underscore leaves a size unchecked: a mismatch is an InputError of `check_images`.
Image = Float[np.ndarray, "_height _width _channels"]
Mask = Bool[np.ndarray, "_height _width"]
_Map = Float64[np.ndarray, "_height _width _channels"]

_TAPS = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def masked_psnr(image: Image, truth: Image, mask: Mask | None = None) -> float:
    """Return -10 log10 of the mean squared error of 8-bit images over a mask, in dB.

    Identical images give infinity.
    """
    image, truth, mask = check_images(image, truth, mask)
    if not mask.any():
        return float("nan")
    error = (_eight_bit(image) - _eight_bit(truth))[mask]
    mse = float((error**2).mean())
    return float("inf") if mse == 0 else -10 * float(np.log10(mse))


def masked_ssim_dycheck(image: Image, truth: Image, mask: Mask | None = None) -> float:
    """Return DyCheck's mSSIM: a partial convolution over the mask, mean over the whole valid map.

    Windows without any masked pixel score 1, so a small mask inflates the result. Use it to compare
    with published numbers, and `masked_ssim` otherwise.
    """
    image, truth, mask = check_images(image, truth, mask)
    if not mask.any():
        return float("nan")
    weight = mask.astype(np.float64)

    def smooth(values: _Map) -> _Map:
        filtered, covered = values * weight[..., None], weight
        for axis in (1, 0):
            filtered = _valid(correlate1d(filtered, _kernel(), axis=axis, mode="constant"), axis)
            count = _valid(correlate1d(covered, np.ones(_TAPS), axis=axis, mode="constant"), axis)
            scale = np.where(count > 0, _TAPS / np.maximum(count, 1), 0)
            filtered = filtered * scale[..., None]
            covered = (count > 0).astype(np.float64)
            filtered *= covered[..., None]
        return filtered

    return float(_ssim_map(image, truth, smooth).mean())


def masked_ssim(image: Image, truth: Image, mask: Mask | None = None) -> float:
    """Return SSIM of the masked pixels alone.

    Every window is normalised over its masked pixels, and the mean is over windows centred on a
    masked pixel and wholly inside the image. Without a mask it is the usual SSIM.
    """
    image, truth, mask = check_images(image, truth, mask)
    weight = mask.astype(np.float64)
    half = _TAPS // 2
    inner = mask[half:-half, half:-half]
    if not inner.any():
        return float("nan")

    def gaussian(values: Float64[np.ndarray, "*_shape"]) -> Float64[np.ndarray, "*_shape"]:
        for axis in (1, 0):
            values = _valid(correlate1d(values, _kernel(), axis=axis, mode="constant"), axis)
        return values

    total = np.maximum(gaussian(weight), 1e-12)[..., None]
    ssim = _ssim_map(image, truth, lambda v: gaussian(v * weight[..., None]) / total)
    return float(ssim[inner].mean())


def _ssim_map(image: _Map, truth: _Map, smooth: Callable[[_Map], _Map]) -> _Map:
    """Return the SSIM of each window and channel, with local means taken by `smooth`."""
    mean_a, mean_b = smooth(image), smooth(truth)
    var_a = np.maximum(smooth(image**2) - mean_a**2, 0)
    var_b = np.maximum(smooth(truth**2) - mean_b**2, 0)
    bound = np.sqrt(var_a * var_b)
    cov = np.clip(smooth(image * truth) - mean_a * mean_b, -bound, bound)
    return ((2 * mean_a * mean_b + _C1) * (2 * cov + _C2)) / (
        (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    )


def _kernel() -> Float64[np.ndarray, " taps"]:
    """Return the weights of the Gaussian window."""
    offset = np.arange(_TAPS) - _TAPS // 2
    kernel = np.exp(-0.5 * (offset / _SIGMA) ** 2)
    return kernel / kernel.sum()


def _valid(values: Float64[np.ndarray, "*_shape"], axis: int) -> Float64[np.ndarray, "*_shape"]:
    """Crop an axis to the windows wholly inside the image."""
    half = _TAPS // 2
    return values[half:-half] if axis == 0 else values[:, half:-half]


def _eight_bit(image: _Map) -> _Map:
    """Round to 8 bits per channel."""
    return np.floor(image.clip(0, 1) * 255 + 0.5) / 255


def check_images(
    image: Image, truth: Image, mask: Mask | None
) -> tuple[
    Float64[np.ndarray, "height width channels"],
    Float64[np.ndarray, "height width channels"],
    Bool[np.ndarray, "height width"],
]:
    """Return two images and their mask (all of the image by default) in common types.

    Raises:
        InputError: shapes that differ, or images smaller than a window of SSIM.
    """
    if image.shape != truth.shape or image.ndim != 3:
        raise InputError(
            f"images: expected two [H, W, 3] of one size, got {image.shape}, {truth.shape}"
        )
    if min(image.shape[:2]) < _TAPS:
        raise InputError(f"images: expected at least {_TAPS} pixels a side, got {image.shape[:2]}")
    if mask is None:
        mask = np.ones(image.shape[:2], bool)
    if mask.shape != image.shape[:2]:
        raise InputError(f"mask: expected {image.shape[:2]}, got {mask.shape}")
    return image.astype(np.float64), truth.astype(np.float64), mask.astype(bool)
