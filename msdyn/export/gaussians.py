"""`ply`: a file of 3D Gaussian Splatting for every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Real, Shaped
from torch import Tensor

from msdyn.export.manifest import manifest
from msdyn.geometry import harmonics_basis
from msdyn.io import write_gaussians_ply
from msdyn.progress import track
from msdyn.scene import frame_path
from msdyn.sequence import (
    Gaussians,
    GaussianSequence,
    PartSelection,
    PosedGaussians,
    keep_objects,
)
from msdyn.writing import write_json

__all__ = ["export_ply", "rotated_harmonics"]

_LEAST_OPACITY = 1e-7


@torch.no_grad()
def export_ply(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
) -> list[Path]:
    """Write one PLY per time into a folder, and `manifest.json`; return the files.

    Values are those of the sequence itself, before activation. Other programs evaluate spherical
    harmonics in the world, so those of moving Gaussians are rotated with them. All files have the
    same Gaussians in the same order; those outside their life span have an opacity of about zero.

    Args:
        sequence: the fit.
        out: folder.
        times: normalised.
        what: the part of the sequence to export; everything by default.
    """
    what = what or PartSelection()
    levels, labels = what.num_levels(sequence), what.labels(sequence)
    static, moving = sequence.static, sequence.moving
    objects = torch.cat([sequence.labels.new_zeros(len(static)), sequence.labels])
    keep = keep_objects(objects, labels, background=what.background == "on").cpu()

    def static_and_moving(name: str) -> Shaped[np.ndarray, "gaussians ..."]:
        return torch.cat([getattr(static, name), getattr(moving, name)]).cpu()[keep].numpy()

    log_scales = static_and_moving("log_scales")
    paths = []
    (out / "manifest.json").unlink(missing_ok=True)  # written last, as a mark of completeness
    for number, time in enumerate(track(times, "export ply", unit="file")):
        posed = sequence.at(float(time), levels=levels)
        path = frame_path(out, number, ".ply")
        write_gaussians_ply(
            path,
            means=posed.means[0].cpu()[keep].numpy(),
            quats_wxyz=posed.quats_wxyz[0].cpu()[keep].numpy(),
            harmonics=_harmonics(static, moving, posed.rotations[0]).cpu()[keep].numpy(),
            log_scales=log_scales,
            opacity_logits=_logits(sequence, posed).cpu()[keep].numpy(),
        )
        paths.append(path)
    content = manifest(sequence, times, paths, "gaussians") | {
        "gaussians": int(keep.sum()),
        "properties": "f_dc_*, f_rest_*: spherical harmonics of the colour minus one half, the "
        "rest channel by channel; opacity: logit; scale_*: logarithm; rot_*: quaternion wxyz",
    }
    write_json(out / "manifest.json", content)
    return [*paths, out / "manifest.json"]


def _logits(sequence: GaussianSequence, posed: PosedGaussians) -> Float[Tensor, " gaussians"]:
    """Return the logits of the opacities at the first time, finite."""
    logits, first = [], 0
    for part in (sequence.static, sequence.moving):
        shown = posed.opacities[0, first : first + len(part)]
        changes = part.life_spans is not None
        logits.append(torch.logit(shown, eps=_LEAST_OPACITY) if changes else part.opacity_logits)
        first += len(part)
    return torch.cat(logits)


def _harmonics(
    static: Gaussians, moving: Gaussians, rotations: Float[Tensor, "moving 3 3"]
) -> Float[Tensor, "gaussians coefficients 3"]:
    return torch.cat([static.harmonics, rotated_harmonics(moving.harmonics, rotations)])


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
