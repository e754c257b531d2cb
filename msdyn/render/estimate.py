"""What rendering to files is expected to take.

The constants were fitted to renderings on a CPU of fits of 3,000 to 37,000 Gaussians, at 96x72 to
1536x1152 px (`tools/calibrate_estimates.py render`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msdyn.estimates import Estimate
from msdyn.sequence import GaussianSequence

__all__ = ["estimate_rendering", "smaller_renderings"]

_PROCESS = 310e6
"""Bytes of Python, its packages and compiled kernels."""
_GAUSSIAN = 800
"""Bytes per Gaussian: the sequence, posed and projected."""
_PIXEL = 80
"""Bytes per pixel of an image, with what is made of it."""
_PASSES = ("objects", "flow", "tracks")
"""Outputs that are rendered on their own."""
_PIXEL_OF_PASS = 450
"""The same of these, one at a time."""
_STORED = {"rgb": 0.8, "depth": 0.8, "alpha": 0.3, "objects": 0.05, "flow": 2.0, "tracks": 1.0}
"""Bytes on the disk per pixel of an image by its output; of arrays and videos other."""
_ARRAY = {"rgb": 12, "depth": 4, "alpha": 4, "objects": 1, "flow": 8, "tracks": 3}
_VIDEO = 0.15
_START = 6.0
"""Seconds to the first image."""
_SECONDS_A_GAUSSIAN, _SECONDS_A_PIXEL = 6e-7, 3e-7


def estimate_rendering(
    sequence: GaussianSequence,
    images: int,
    size: tuple[int, int],
    outputs: Sequence[str],
    suffix: str = ".png",
) -> Estimate:
    """Return what rendering takes: the most memory, the disk, and its time on a CPU.

    Args:
        sequence: what is rendered.
        images: number of cameras and times.
        size: width and height of an image, px.
        outputs: names of what is written of each.
        suffix: of the files, ".mp4" for videos; images in a folder by default.
    """
    gaussians, pixels = len(sequence.static) + len(sequence.moving), size[0] * size[1]
    table = _ARRAY if suffix == ".npy" else _STORED
    stored = sum(_VIDEO if suffix == ".mp4" else table.get(name, 4) for name in outputs)
    further = sum(name in _PASSES for name in outputs)
    seconds = (1 + further) * (_SECONDS_A_GAUSSIAN * gaussians + _SECONDS_A_PIXEL * pixels)
    return Estimate(
        _PROCESS + _GAUSSIAN * gaussians + (_PIXEL + bool(further) * _PIXEL_OF_PASS) * pixels,
        stored * images * pixels,
        _START + images * seconds,
    )


def smaller_renderings(
    sequence: GaussianSequence, images: int, size: tuple[int, int], outputs: Sequence[str]
) -> Iterator[tuple[str, Estimate]]:
    """Yield what takes less memory, each with its estimate."""
    for name in outputs[:1] if len(outputs) > 1 else ():
        yield f"--output {name}", estimate_rendering(sequence, images, size, [name])
    for divisor in (2, 4, 8):
        smaller = (max(1, size[0] // divisor), max(1, size[1] // divisor))
        option = f"a camera of {smaller[0]}x{smaller[1]} px (--camera FILE)"
        yield option, estimate_rendering(sequence, images, smaller, outputs[:1])
