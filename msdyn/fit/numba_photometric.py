"""CPU kernel: L1 and structural similarity of two images and their gradient in one pass.

The losses are scalars, so the gradient with respect to the first image is computed with the value
and scaled by the upstream gradient later. Rows of an image have interleaved channels, and the 11
taps of the window are the number of channels apart, so that inner loops run over whole rows.
"""

import numpy as np
from jaxtyping import Float

from msdyn.jit import kernel
from msdyn.threads import on_ranges, thread_count

__all__ = ["photometric_and_gradient"]

_TAPS = 11
_HALF = _TAPS // 2
_GRAIN = 16_384  # minimum work per thread, in pixels: about a millisecond
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)


def photometric_and_gradient(
    image: Float[np.ndarray, "height width channels"],
    truth: Float[np.ndarray, "height width channels"],
    l1: float,
    ssim: float,
) -> tuple[float, float, Float[np.ndarray, "height width channels"]]:
    """Return the mean absolute difference of two images, their mean SSIM, and a gradient.

    Args:
        image, truth: float32, contiguous.
        l1, ssim: weights of the loss, l1 * L1 + ssim * SSIM.

    Returns:
        L1, SSIM, and the gradient of the loss with respect to the first image, float32.
    """
    height, width, channels = image.shape
    offset = np.arange(_TAPS) - _HALF
    window = np.exp(-0.5 * (offset / 1.5) ** 2)
    window = (window / window.sum()).astype(np.float32)
    row = width * channels
    gradient = np.empty((height, row), np.float32)
    sums = np.empty((2, height))
    # Zero padding of five rows above and below the image.
    filtered = np.zeros((5, height + 2 * _HALF, row), np.float32)
    filtered_gradients = np.zeros((3, height + 2 * _HALF, row), np.float32)
    images = image.reshape(height, row), truth.reshape(height, row)
    threads = thread_count(height * width, _GRAIN)
    on_ranges(threads, height, _filter_images, *images, window, channels, filtered)
    weight = np.float32(ssim / image.size)
    on_ranges(
        threads,
        height,
        _similarity,
        window,
        channels,
        weight,
        filtered,
        filtered_gradients,
        sums[1],
    )
    weight = np.float32(l1 / image.size)
    on_ranges(
        threads,
        height,
        _gradient,
        *images,
        window,
        weight,
        filtered_gradients,
        gradient,
        sums[0],
    )
    difference, similarity = sums.sum(1) / image.size
    return float(difference), float(similarity), gradient.reshape(image.shape)


@kernel(fastmath=True)
def _weighted_sum(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, w, out):
    """Return the weighted sum of eleven rows, passed as slices to avoid index checks."""
    w0, w1, w2, w3, w4, w5 = w[0], w[1], w[2], w[3], w[4], w[5]
    for i in range(out.size):
        pairs = w0 * (s0[i] + s10[i]) + w1 * (s1[i] + s9[i]) + w2 * (s2[i] + s8[i])
        out[i] = pairs + w3 * (s3[i] + s7[i]) + w4 * (s4[i] + s6[i]) + w5 * s5[i]


@kernel(fastmath=True)
def _filter_row(padded, window, step, out):
    """Filter horizontally a row that is padded by five times `step` zeros on both sides."""
    n = out.size
    _weighted_sum(
        padded[:n],
        padded[step : step + n],
        padded[2 * step : 2 * step + n],
        padded[3 * step : 3 * step + n],
        padded[4 * step : 4 * step + n],
        padded[5 * step : 5 * step + n],
        padded[6 * step : 6 * step + n],
        padded[7 * step : 7 * step + n],
        padded[8 * step : 8 * step + n],
        padded[9 * step : 9 * step + n],
        padded[10 * step : 10 * step + n],
        window,
        out,
    )


@kernel(fastmath=True)
def _filter_columns(rows, y, window, out):
    """Filter vertically over eleven rows, from y on."""
    _weighted_sum(
        rows[y],
        rows[y + 1],
        rows[y + 2],
        rows[y + 3],
        rows[y + 4],
        rows[y + 5],
        rows[y + 6],
        rows[y + 7],
        rows[y + 8],
        rows[y + 9],
        rows[y + 10],
        window,
        out,
    )


@kernel(fastmath=True)
def _filter_images(first_row, end_row, image, truth, window, channels, filtered):
    """Filter rows of a, b, a^2, b^2 and a b horizontally, with a the image and b the truth."""
    row = image.shape[1]
    margin = _HALF * channels
    for y in range(first_row, end_row):
        a, b = image[y], truth[y]
        padded = np.zeros(row + 2 * margin, np.float32)
        inner = padded[margin : margin + row]
        for k in range(5):
            for i in range(row):
                if k == 0:
                    inner[i] = a[i]
                elif k == 1:
                    inner[i] = b[i]
                elif k == 2:
                    inner[i] = a[i] * a[i]
                elif k == 3:
                    inner[i] = b[i] * b[i]
                else:
                    inner[i] = a[i] * b[i]
            _filter_row(padded, window, channels, filtered[k, y + _HALF])


@kernel(fastmath=True)
def _similarity(first_row, end_row, window, channels, weight, filtered, filtered_gradients, sums):
    """Sum SSIM over rows, and filter its derivatives horizontally.

    The derivatives are those with respect to the filtered a, a^2 and a b, times `weight`.
    """
    row = filtered.shape[2]
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    margin = _HALF * channels
    for y in range(first_row, end_row):
        m = np.empty((5, row), np.float32)
        d = np.zeros((3, row + 2 * margin), np.float32)
        by_mean = d[0, margin : margin + row]
        by_square = d[1, margin : margin + row]
        by_product = d[2, margin : margin + row]
        for k in range(5):
            _filter_columns(filtered[k], y, window, m[k])
        total = zero
        for i in range(row):
            p, q = m[0, i], m[1, i]
            numerator1 = two * p * q + _C1
            numerator2 = two * (m[4, i] - p * q) + _C2
            inverse1 = one / (p * p + q * q + _C1)
            inverse2 = one / (m[2, i] - p * p + m[3, i] - q * q + _C2)
            value = numerator1 * numerator2 * inverse1 * inverse2
            total += value
            by_mean_half = q * (numerator2 - numerator1) * inverse1 * inverse2 + p * value * (
                inverse2 - inverse1
            )
            by_mean[i] = two * weight * by_mean_half
            by_square[i] = -weight * value * inverse2
            by_product[i] = two * weight * numerator1 * inverse1 * inverse2
        sums[y] = total
        for k in range(3):
            _filter_row(d[k], window, channels, filtered_gradients[k, y + _HALF])


@kernel(fastmath=True)
def _gradient(first_row, end_row, image, truth, window, weight, filtered_gradients, gradient, sums):
    """Sum |a - b| over rows, and add its gradient, times `weight`, to that of SSIM."""
    row = image.shape[1]
    zero, two = np.float32(0), np.float32(2)
    for y in range(first_row, end_row):
        d = np.empty((3, row), np.float32)
        for k in range(3):
            _filter_columns(filtered_gradients[k], y, window, d[k])
        total = zero
        for i in range(row):
            p, q = image[y, i], truth[y, i]
            difference = p - q
            total += abs(difference)
            sign = weight if difference > zero else (-weight if difference < zero else zero)
            gradient[y, i] = d[0, i] + two * p * d[1, i] + q * d[2, i] + sign
        sums[y] = total
