"""SPZ files as their published format describes them, without the package that writes them.

Reference: README of github.com/nianticlabs/spz (versions 2 and 3).
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from splats import Splats

from msdyn.reading import read_json

MAGIC = 0x5053474E
OTHER_COEFFICIENTS = (0, 3, 8, 15)
NEGATED = (
    (0,), (1, 1, 0), (1, 0, 0, 1, 0), (1, 0, 1, 1, 0, 1, 0),
)  # fmt: skip
"""By degree, the harmonics that change sign where y and z do; 3DGS's order."""


def spz_splats(path: Path) -> Splats:
    """Return the Gaussians of a file in OpenCV's axes (right, down, forward)."""
    content = gzip.decompress(path.read_bytes())
    magic, version, count, degree, bits, _, _ = struct.unpack_from("<IIIBBBB", content)
    if magic != MAGIC or version not in (2, 3):
        raise ValueError(f"{path}: expected SPZ of version 2 or 3, got {magic:#x}, {version}")
    rest = np.frombuffer(content, np.uint8, offset=16)

    def take(columns: int) -> np.ndarray:
        nonlocal rest
        part, rest = rest[: count * columns], rest[count * columns :]
        return part.reshape(count, columns)

    low, middle, high = take(9).reshape(count, 3, 3).astype(np.int64).transpose(2, 0, 1)
    fixed = low + (middle << 8) + (high << 16)
    means = np.where(fixed >= 2**23, fixed - 2**24, fixed) / 2.0**bits
    opacities = take(1)[:, 0] / 255
    colours = (take(3) / 255 - 0.5) / 0.15
    scales = np.exp(take(3) / 16 - 10)
    quats_xyzw = _smallest_three(take(4)) if version == 3 else _first_three(take(3))
    higher = (take(3 * OTHER_COEFFICIENTS[degree]).astype(float) - 128) / 128
    if len(rest):
        raise ValueError(f"{path}: {len(rest)} bytes are left")
    harmonics = np.concatenate([colours[:, None], higher.reshape(count, -1, 3)], 1)
    signs = np.concatenate(NEGATED[: degree + 1])
    return Splats(
        means * [1, -1, -1],
        quats_xyzw[:, [3, 0, 1, 2]] * [1, 1, -1, -1],
        scales,
        opacities,
        harmonics * np.where(signs, -1, 1)[:, None],
    )


def _smallest_three(packed: np.ndarray) -> np.ndarray:
    """Return quaternions xyzw of 32 bits: the index of the largest, three signs and magnitudes."""
    words = packed.copy().view("<u4")[:, 0].astype(np.int64)
    largest = words >> 30
    quats = np.zeros((len(words), 4))
    for axis in (3, 2, 1, 0):
        other = largest != axis
        values = (words & 511) / 511 * np.sqrt(0.5) * np.where(words >> 9 & 1, -1, 1)
        quats[other, axis] = values[other]
        words = np.where(other, words >> 10, words)
    rest = np.sqrt(np.maximum(1 - (quats**2).sum(1), 0))
    quats[np.arange(len(quats)), largest] = rest
    return quats


def _first_three(packed: np.ndarray) -> np.ndarray:
    first = packed / 127.5 - 1
    return np.concatenate([first, np.sqrt(np.maximum(1 - (first**2).sum(1, keepdims=True), 0))], 1)


def splats_at(path: Path, time: float) -> Splats:
    """Return the Gaussians of a file, or of the file of a folder that is nearest in time."""
    return spz_splats(path if path.is_file() else file_at(path, time))


def file_at(folder: Path, time: float) -> Path:
    """Return the file of a folder's manifest that is nearest to a normalised time."""
    manifest = read_json(folder / "manifest.json")
    nearest = int(np.abs(np.array(manifest["times"]) - time).argmin())
    return folder / manifest["files"][nearest]
