"""A sequence as Gaussians that stand still, rigid parts, and what bends too much for a part."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from msdyn.export.gaussians import rotated_harmonics
from msdyn.geometry import Rigid, project, transform_points
from msdyn.progress import track
from msdyn.sequence import (
    Gaussians,
    GaussianSequence,
    PartSelection,
    PosedGaussians,
    RigidPart,
    RigidParts,
    rigid_parts,
)

__all__ = ["SplatParts", "Splats", "splat_parts"]

_FAINT = 1 / 255


@dataclass(frozen=True)
class Splats:
    """Gaussians after activation.

    Attributes:
        means: [N, 3] in the axes of their part, or of the world; scene units.
        quats_wxyz: [N, 4] unit.
        scales: [N, 3] standard deviations, scene units.
        opacities: [T, N] at each time, or [1, N] where they do not change.
        harmonics: [N, (d+1)^2, 3] of the colour minus one half, in the axes of the means.
    """

    means: Float[np.ndarray, "own 3"]
    quats_wxyz: Float[np.ndarray, "own 4"]
    scales: Float[np.ndarray, "own 3"]
    opacities: Float[np.ndarray, "#times own"]
    harmonics: Float[np.ndarray, "own coefficients 3"]

    def __len__(self) -> int:
        return len(self.means)

    def select(self, index: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " own"]) -> Splats:
        return Splats(
            self.means[index],
            self.quats_wxyz[index],
            self.scales[index],
            self.opacities[:, index],
            self.harmonics[index],
        )


@dataclass(frozen=True)
class SplatParts:
    """The chosen Gaussians of a sequence; those that are never visible are left out.

    Attributes:
        static: in the world; may be empty.
        parts: rigid parts, each with its Gaussians in its own axes.
        baked: by object, the Gaussians that bend, in the world at each time.
        error_px: as for `RigidParts`; where what bends is baked, the largest error of any other
            moving Gaussian.
        mean_error_px: as for `RigidParts`; None where some Gaussians are baked.
        summary: the same in words.
    """

    static: Splats
    parts: tuple[tuple[RigidPart, Splats], ...]
    baked: dict[int, tuple[Splats, ...]]
    error_px: float
    mean_error_px: float | None
    summary: str


@torch.no_grad()
def splat_parts(
    sequence: GaussianSequence,
    times: Real[np.ndarray, " times"],
    what: PartSelection,
    *,
    tolerance_px: float,
    baked: bool,
) -> SplatParts:
    """Divide the Gaussians of a sequence.

    Args:
        sequence: the fit.
        times: normalised.
        what: the part of the sequence to take.
        tolerance_px: see `rigid_parts`.
        baked: keep what no part describes within the tolerance at each time, instead of giving it
            to its finest part.
    """
    frames = sequence.timeline.frame_positions(times)
    levels, labels = what.num_levels(sequence), what.labels(sequence)
    at = torch.as_tensor(frames, dtype=torch.float32, device=sequence.device)
    found = rigid_parts(sequence, frames, levels=levels, labels=labels, tolerance_px=tolerance_px)
    canonical, num_static = sequence.canonical(), len(sequence.static)
    opacities = sequence.moving.opacities_at(at).cpu().numpy()
    visible = opacities.max(0) > _FAINT
    moving = _splats(canonical, 0, slice(num_static, None), opacities)
    error = np.zeros(len(visible))
    if baked:
        error = _worst_errors(sequence, times, found, moving, levels)
    parts, bent = [], {}
    for part in found.parts:
        own = part.index[visible[part.index]]
        bends = error[own] > tolerance_px
        if bends.any():
            bent.setdefault(part.label, []).append(own[bends])
        if not bends.all():
            splats = moving.select(own[~bends])
            centred = (splats.means - part.centre).astype(np.float32)
            parts.append((part, replace(splats, means=centred)))
    chosen = {label: np.sort(np.concatenate(rows)) for label, rows in bent.items()}
    largest = float(error[error <= tolerance_px].max(initial=0.0)) if baked else found.error_px
    summary = str(found)
    if baked:
        summary = (
            f"{len(parts)} rigid parts, moving Gaussians at most {largest:.2f} px off; "
            f"{sum(map(len, chosen.values()))} that bend more are stored at each time"
        )
    return SplatParts(
        _static(sequence.static, at, what.background == "on"),
        tuple(parts),
        _baked(sequence, times, chosen, levels),
        largest,
        None if baked else found.mean_error_px,
        summary,
    )


def _static(static: Gaussians, frames: Float[Tensor, " times"], keep: bool) -> Splats:
    opacities = static.opacities_at(frames).cpu().numpy()
    splats = Splats(
        static.means.cpu().numpy(),
        torch.nn.functional.normalize(static.quats_wxyz, dim=-1).cpu().numpy(),
        static.scales.cpu().numpy(),
        opacities,
        static.harmonics.cpu().numpy(),
    )
    return splats.select((opacities.max(0) > _FAINT) & keep)


def _splats(
    posed: PosedGaussians, row: int, own: slice, opacities: Float[np.ndarray, "#times own"]
) -> Splats:
    return Splats(
        posed.means[row, own].cpu().numpy(),
        torch.nn.functional.normalize(posed.quats_wxyz[row, own], dim=-1).cpu().numpy(),
        posed.scales[own].cpu().numpy(),
        opacities,
        posed.harmonics[own].cpu().numpy(),
    )


def _worst_errors(
    sequence: GaussianSequence,
    times: Real[np.ndarray, " times"],
    found: RigidParts,
    canonical: Splats,
    levels: int | None,
) -> Float[np.ndarray, " moving"]:
    """Return how far moving Gaussians are drawn from their place by their part, at worst, in px.

    Times at which a Gaussian is not visible, or not before the clip's camera, do not count.
    """
    worst = np.zeros(len(canonical))
    for row, time in enumerate(track(times, "comparing parts", unit="time")):
        posed, camera = sequence.at(float(time), levels=levels), sequence.camera_at(float(time))
        true = posed.means[0, len(sequence.static) :].double().cpu().numpy()
        found_means = true.copy()
        for part in found.parts:
            pose = Rigid.from_matrix(part.world_from_part[row])
            found_means[part.index] = pose.apply(canonical.means[part.index] - part.centre)
        in_camera = transform_points(camera.cam_from_world[0], np.stack([true, found_means]))
        opacities = canonical.opacities[row if len(canonical.opacities) > 1 else 0]
        counts = (opacities > _FAINT) & (in_camera[0, :, 2] > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = project(camera.intrinsics[0], in_camera)
        error = np.linalg.norm(pixels[1] - pixels[0], axis=-1)
        worst = np.maximum(worst, np.where(counts, error, 0.0))
    return worst


def _baked(
    sequence: GaussianSequence,
    times: Real[np.ndarray, " times"],
    chosen: dict[int, Int[np.ndarray, " own"]],
    levels: int | None,
) -> dict[int, tuple[Splats, ...]]:
    """Return the chosen moving Gaussians of each object in the world at each time."""
    if not chosen:
        return {}
    rows: dict[int, list[Splats]] = {label: [] for label in chosen}
    num_static = len(sequence.static)
    for time in track(times, "baking", unit="time"):
        posed = sequence.at(float(time), levels=levels)
        opacities = posed.opacities[:1, num_static:].cpu().numpy()
        moving = _splats(posed, 0, slice(num_static, None), opacities)
        for label, own in chosen.items():
            splats = moving.select(own)
            turned = rotated_harmonics(
                torch.from_numpy(splats.harmonics), posed.rotations[0].cpu()[torch.from_numpy(own)]
            )
            rows[label].append(replace(splats, harmonics=turned.numpy()))
    return {label: tuple(splats) for label, splats in rows.items()}
