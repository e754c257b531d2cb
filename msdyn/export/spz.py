"""`spz` and `compressed-ply`: Gaussians in a few bytes each, one file per time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Real

from msdyn.export.gaussians import WorldGaussians, export_per_time, world_gaussians
from msdyn.io import write_compressed_ply, write_spz
from msdyn.sequence import GaussianSequence, PartSelection

__all__ = ["export_compressed_ply", "export_spz"]

_RIGHT_UP_BACK = np.diag([1.0, -1.0, -1.0])
"""`spz_from_world`: half a turn about x, from OpenCV's axes to those of SPZ."""


def export_spz(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
) -> list[Path]:
    """Write SPZ files, with a manifest where there are several times; return the files.

    The axes are those of the format (right, up, back). Gaussians whose opacity is zero at a time
    are left out of its file.

    Args:
        sequence: the fit.
        out: folder; or a file name, `.spz`, for a single time.
        times: normalised.
        what: the part of the sequence to export; everything by default.

    Raises:
        InputError: nothing is visible, or a position is too large for the format.
        MissingExtraError: gsply is not installed.
    """
    gaussians = world_gaussians(sequence, times, what, axes=_RIGHT_UP_BACK)
    about = {
        "axes": "right, up, back: x and the quaternion's x as in the world of the input cameras, "
        "y and z negated"
    }
    return export_per_time(
        sequence, out, times, gaussians, _visible(write_spz), name="spz", suffix=".spz", about=about
    )


def export_compressed_ply(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
) -> list[Path]:
    """Write PlayCanvas's compressed PLY files, with a manifest for several times; return the files.

    The axes are those of the world, as for `export_ply`. Gaussians whose opacity is zero at a time
    are left out of its file, and the order is a spatial one.

    Args:
        sequence: the fit.
        out: folder; or a file name, `.ply`, for a single time.
        times: normalised.
        what: the part of the sequence to export; everything by default.

    Raises:
        InputError: nothing is visible.
        MissingExtraError: gsply is not installed.
    """
    return export_per_time(
        sequence,
        out,
        times,
        world_gaussians(sequence, times, what),
        _visible(write_compressed_ply),
        name="compressed-ply",
        suffix=".compressed.ply",
        about={},
    )


def _visible(write: Callable[..., Any]) -> Callable[[Path, WorldGaussians], None]:
    """Return a writer of the Gaussians that are visible."""

    def write_visible(path: Path, posed: WorldGaussians) -> None:
        seen = posed.visible()
        write(path, **{field.name: getattr(seen, field.name) for field in fields(seen)})

    return write_visible
