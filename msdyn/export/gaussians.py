"""`ply`: a file of 3D Gaussian Splatting for every time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from msdyn.export.manifest import manifest
from msdyn.geometry import (
    harmonics_basis,
    multiply_quats_wxyz,
    quats_wxyz_from_rotations,
)
from msdyn.io import write_gaussians_ply
from msdyn.progress import track
from msdyn.scene import frame_path
from msdyn.sequence import (
    GaussianSequence,
    PartSelection,
    PosedGaussians,
    keep_objects,
)
from msdyn.writing import write_json

__all__ = [
    "WorldGaussians",
    "export_per_time",
    "export_ply",
    "rotated_harmonics",
    "world_gaussians",
]

_LEAST_OPACITY = 1e-7
_LEAST_LOGIT_OF_A_BYTE = math.log(0.5 / 254.5)
"""The logit of the opacity 0.5/255."""


@dataclass(frozen=True)
class WorldGaussians:
    """Gaussians at one time as other programs take them: parameters before activation.

    Attributes:
        means: [G, 3] scene units, in the world of the input cameras.
        log_scales: [G, 3] natural logarithms of the standard deviations.
        quats_wxyz: [G, 4], not necessarily unit.
        opacity_logits: [G], finite.
        harmonics: [G, (d+1)^2, 3] of the colour minus one half, evaluated in the world.
    """

    means: Float[np.ndarray, "gaussians 3"]
    log_scales: Float[np.ndarray, "gaussians 3"]
    quats_wxyz: Float[np.ndarray, "gaussians 4"]
    opacity_logits: Float[np.ndarray, " gaussians"]
    harmonics: Float[np.ndarray, "gaussians coefficients 3"]

    def visible(self) -> WorldGaussians:
        """Return those whose opacity is not zero in steps of 1/255."""
        seen = self.opacity_logits > _LEAST_LOGIT_OF_A_BYTE
        return WorldGaussians(*(getattr(self, field.name)[seen] for field in fields(self)))


def world_gaussians(
    sequence: GaussianSequence,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
    *,
    axes: Float[np.ndarray, "3 3"] | None = None,
) -> Iterator[WorldGaussians]:
    """Yield the Gaussians at one time after the other, always the same ones in the same order.

    Other programs evaluate spherical harmonics in the world, so those of moving Gaussians are
    rotated with them. Outside their life span, Gaussians have an opacity of about zero.

    Args:
        sequence: the fit.
        times: normalised.
        what: the part of the sequence; everything by default.
        axes: a rotation `file_from_world`, where a format has axes of its own.
    """
    what = what or PartSelection()
    levels, labels = what.num_levels(sequence), what.labels(sequence)
    static, moving = sequence.static, sequence.moving
    objects = torch.cat([sequence.labels.new_zeros(len(static)), sequence.labels])
    keep = keep_objects(objects, labels, background=what.background == "on").cpu()
    log_scales = torch.cat([static.log_scales, moving.log_scales]).detach().cpu()[keep].numpy()
    turn = None if axes is None else torch.from_numpy(axes).to(static.means)
    unmoving = static.harmonics.detach()
    if turn is not None:
        unmoving = rotated_harmonics(unmoving, turn.expand(len(static), 3, 3))
    for time in times:
        with torch.no_grad():
            posed = sequence.at(float(time), levels=levels)
            means, quats, rotations = posed.means[0], posed.quats_wxyz[0], posed.rotations[0]
            if turn is not None:
                means, rotations = means @ turn.T, turn @ rotations
                quats = multiply_quats_wxyz(quats_wxyz_from_rotations(turn), quats)
            harmonics = torch.cat([unmoving, rotated_harmonics(moving.harmonics, rotations)])
            logits = _logits(sequence, posed)
        yield WorldGaussians(
            means.cpu()[keep].numpy(),
            log_scales,
            quats.cpu()[keep].numpy(),
            logits.cpu()[keep].numpy(),
            harmonics.cpu()[keep].numpy(),
        )


def export_per_time(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    gaussians: Iterable[WorldGaussians],
    write: Callable[[Path, WorldGaussians], None],
    *,
    name: str,
    suffix: str,
    about: dict[str, Any],
) -> list[Path]:
    """Write Gaussians as one file per time into a folder, and `manifest.json`; return the files.

    Args:
        sequence: the fit.
        out: folder; or a file with the suffix, for a single time: then there is no manifest.
        times: normalised.
        gaussians: at these times.
        write: writes one file.
        name: of the format.
        suffix: of the files, with its dot.
        about: further entries of the manifest.
    """
    if out.suffix and suffix.endswith(out.suffix.lower()):
        (only,) = gaussians
        write(out, only)
        return [out]
    (out / "manifest.json").unlink(missing_ok=True)  # written last, as a mark of completeness
    paths, counts = [], []
    for number, posed in enumerate(
        track(gaussians, f"export {name}", total=len(times), unit="file")
    ):
        paths.append(frame_path(out, number, suffix))
        write(paths[-1], posed)
        counts.append(len(posed.means))
    content = manifest(sequence, times, paths, "gaussians")
    write_json(out / "manifest.json", content | {"gaussians": max(counts, default=0)} | about)
    return [*paths, out / "manifest.json"]


def export_ply(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
) -> list[Path]:
    """Write one PLY per time into a folder, and `manifest.json`; return the files.

    Values are those of the sequence itself, before activation; see `world_gaussians`.

    Args:
        sequence: the fit.
        out: folder.
        times: normalised.
        what: the part of the sequence to export; everything by default.
    """

    def write(path: Path, posed: WorldGaussians) -> None:
        write_gaussians_ply(path, **{f.name: getattr(posed, f.name) for f in fields(posed)})

    about = {
        "properties": "f_dc_*, f_rest_*: spherical harmonics of the colour minus one half, the "
        "rest channel by channel; opacity: logit; scale_*: logarithm; rot_*: quaternion wxyz"
    }
    gaussians = world_gaussians(sequence, times, what)
    return export_per_time(
        sequence, out, times, gaussians, write, name="ply", suffix=".ply", about=about
    )


def _logits(sequence: GaussianSequence, posed: PosedGaussians) -> Float[Tensor, " gaussians"]:
    """Return the logits of the opacities at the first time, finite."""
    logits, first = [], 0
    for part in (sequence.static, sequence.moving):
        shown = posed.opacities[0, first : first + len(part)]
        changes = part.life_spans is not None
        logits.append(torch.logit(shown, eps=_LEAST_OPACITY) if changes else part.opacity_logits)
        first += len(part)
    return torch.cat(logits)


def rotated_harmonics(
    harmonics: Float[Tensor, "gaussians coefficients 3"],
    rotations: Float[Tensor, "gaussians 3 3"],
) -> Float[Tensor, "gaussians coefficients 3"]:
    """Return the spherical harmonics coefficients of rotated functions.

    A function f(d) of direction becomes f(R^T d). The harmonics of one degree span a space that
    rotations map to itself, so solving for the new coefficients by least squares over more
    directions than coefficients is exact.
    """
    degree = int(harmonics.shape[1] ** 0.5) - 1
    if degree == 0 or not len(harmonics):
        return harmonics
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4 * harmonics.shape[1], 3, generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(directions, dim=-1).to(harmonics.device)
    solve = torch.linalg.pinv(harmonics_basis(degree, directions))  # [coefficients, directions]
    unrotated = directions @ rotations.double()  # [G, directions, 3], rows R^T d
    values = harmonics_basis(degree, unrotated) @ harmonics.double()  # [G, directions, 3]
    return (solve @ values).to(harmonics.dtype)
