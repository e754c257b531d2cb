"""Video of high dynamic range (HLG, PQ) as pixels of the standard range.

Displayed light is computed by the transfer of the video, diffuse white (203 cd/m2) becomes white,
brighter light is compressed into the upper fifth of the range, primaries are converted from BT.2020
to BT.709, and the result is encoded for a display of BT.1886 (a power of 2.4).

Reference: ITU-R BT.2100 (transfer functions), BT.2087 (primaries), BT.2408 (level of diffuse
white), BT.1886.
"""

from __future__ import annotations

import functools
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

__all__ = ["Transfer", "to_standard_range", "transfer_of"]

Transfer: TypeAlias = Literal["HLG", "PQ"]
_TRANSFERS: dict[int, Transfer] = {16: "PQ", 18: "HLG"}
"""By number in ITU-T H.273."""
WHITE_NITS, PEAK_NITS = 203.0, 1000.0
HLG_GAMMA = 1.2  # of a display of 1000 cd/m2
KNEE = 0.8  # of diffuse white, above which light is compressed
DISPLAY_GAMMA = 2.4
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
_BT709_FROM_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)


def transfer_of(number: int) -> Transfer | None:
    """Return the transfer of a number of ITU-T H.273, None where it is of the standard range."""
    return _TRANSFERS.get(number)


def to_standard_range(
    rgb: UInt16[np.ndarray, "height width 3"], transfer: Transfer
) -> UInt8[np.ndarray, "height width 3"]:
    """Return BT.2020 pixels of a transfer, 0 to 65535, as BT.709 pixels of the standard range."""
    light = _linear(transfer)[rgb]  # of diffuse white 1
    if transfer == "HLG":
        # Scene light times its luminance to the power of the display's gamma - 1.
        luminance = light @ _LUMINANCE
        gain = np.maximum(luminance, 1e-6) ** (HLG_GAMMA - 1) * (PEAK_NITS / WHITE_NITS)
        light *= gain[..., None]
    brightest = light.max(axis=2, keepdims=True)
    above = np.maximum(brightest - KNEE, 0)
    # At the knee the slope is 1; white of the standard range is reached by the brightest light.
    peak = PEAK_NITS / WHITE_NITS - KNEE
    bend = 1 / (1 - KNEE) - 1 / peak
    compressed = np.minimum(brightest, KNEE) + above / (1 + bend * above)
    light *= np.minimum(compressed, 1) / np.maximum(brightest, 1e-6)
    light = np.clip(light @ _BT709_FROM_BT2020.T, 0, 1)
    return _encoded()[np.round(light * 65535).astype(np.uint16)]


@functools.cache
def _linear(transfer: Transfer) -> Float32[np.ndarray, " 65536"]:
    """Return the light of each code: of HLG that of the scene, of PQ that of the display."""
    signal = np.arange(65536) / 65535
    if transfer == "HLG":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        return light.astype(np.float32)
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    nits = 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return (nits / WHITE_NITS).astype(np.float32)


@functools.cache
def _encoded() -> UInt8[np.ndarray, " 65536"]:
    """Return the 8-bit code of light, 0 to 65535."""
    light = np.arange(65536) / 65535
    return np.round(255 * light ** (1 / DISPLAY_GAMMA)).astype(np.uint8)
