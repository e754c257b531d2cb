"""What a prediction is expected to take.

The constants were fitted to predictions of the small network on a CPU
(`tools/calibrate_estimates.py predict`); of larger networks the weights are counted by their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msdyn.estimates import Estimate

__all__ = ["estimate_prediction", "smaller_predictions"]

_PROCESS = 260e6
"""Bytes of Python and its packages."""
_WEIGHT = 4.5
"""Bytes per parameter."""
_ACTIVATION = 5800
"""Bytes per pixel of a window's frames, while it is computed."""
_NUMBERS = 15
"""Numbers per pixel that a window keeps, beside its displacements."""
_COPIES = 2
"""Windows are kept as predicted and at one scale."""
_MOVING = 0.6
"""Share of the pixels that are moving, whose displacements to all frames are kept."""
_STORED = 60
"""Bytes on the disk per Gaussian, without displacements."""
_SECONDS_A_PIXEL = 3e-5
"""Per pixel of a window's frames, and per ten million parameters."""
_START = 5.0


def estimate_prediction(
    windows: Sequence[Sequence[int]], size: tuple[int, int], parameters: int
) -> Estimate:
    """Return what a prediction takes: the most memory, the disk, and its time on a CPU.

    Args:
        windows: input frames of each.
        size: width and height of the network's images, px.
        parameters: of the network.
    """
    pixels = size[0] * size[1]
    keys = len({frame for window in windows for frame in window})
    of_windows = [len(w) * pixels * (_NUMBERS + 3 * len(w)) for w in windows]
    longest = max(len(window) for window in windows)
    joined = keys * pixels * (_NUMBERS + 3 * _MOVING * keys)
    memory = _PROCESS + _WEIGHT * parameters + 4 * _COPIES * sum(of_windows)
    memory += max(_ACTIVATION * longest * pixels, 4 * _COPIES * joined)
    disk = keys * pixels * (_STORED / 2 + 12 * _MOVING * keys)
    seconds = _SECONDS_A_PIXEL * sum(map(len, windows)) * pixels * max(1.0, parameters / 1e7)
    return Estimate(memory, disk, _START + seconds)


def smaller_predictions(
    windows: Sequence[Sequence[int]], size: tuple[int, int], parameters: int
) -> Iterator[tuple[str, Estimate]]:
    """Yield options with which a prediction takes less memory, each with its estimate."""
    for side in (448, 384, 320, 256, 192, 128):
        if side < max(size):
            factor = side / max(size)
            smaller = (round(factor * size[0]), round(factor * size[1]))
            yield f"--long-side {side}", estimate_prediction(windows, smaller, parameters)
