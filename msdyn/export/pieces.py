"""A sequence as Gaussians that exist for a while each and move straight in an object's frame."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Real
from torch import Tensor

from msdyn.export.gaussians import rotated_harmonics
from msdyn.export.rigid_tracks import RigidTrack, rigid_track
from msdyn.export.segments import Paths, Segments, straight_segments
from msdyn.geometry import (
    Cameras,
    multiply_quats_wxyz,
    quats_wxyz_from_rotations,
    rotations_from_quats_wxyz,
    transform_points,
)
from msdyn.sequence import (
    Gaussians,
    GaussianSequence,
    PartSelection,
    keep_objects,
    object_motions,
)

__all__ = ["PathError", "Pieces", "moving_pieces", "static_pieces"]

_FRAMES_AT_A_TIME = 8
_FAINT = 0.5 / 255
_NEAREST = 0.05
"""Gaussians nearer than this share of the median depth count as that far away."""
_SHARE_OF_TRACKS = 0.2
"""The share of the tolerance that keys left out of the objects' tracks may take."""
_MOST_TURN = float(np.radians(20.0))
"""Rotation within a piece of view-dependent colours, which readers do not rotate with objects."""
_POINTS = 64


@dataclass(frozen=True)
class Pieces:
    """Gaussians, each valid for a while.

    Attributes:
        label: [N] 0 static, otherwise the mask index of the object.
        begin, end: [N] seconds; infinite where they exist from the beginning or to the end.
        origin: [N, 3] position at second 0, in the canonical frame: before the object's motion.
        velocity: [N, 3] scene units per second.
        quats_wxyz: [N, 4], in the canonical frame.
        log_scales: [N, 3].
        opacity: [N] in [0, 1].
        harmonics: [N, (d+1)^2, 3], evaluated in the world.
    """

    label: Int[np.ndarray, " pieces"]
    begin: Float64[np.ndarray, " pieces"]
    end: Float64[np.ndarray, " pieces"]
    origin: Float64[np.ndarray, "pieces 3"]
    velocity: Float64[np.ndarray, "pieces 3"]
    quats_wxyz: Float64[np.ndarray, "pieces 4"]
    log_scales: Float[np.ndarray, "pieces 3"]
    opacity: Float64[np.ndarray, " pieces"]
    harmonics: Float[np.ndarray, "pieces coefficients 3"]

    def __len__(self) -> int:
        return len(self.label)

    def beside(self, other: Pieces) -> Pieces:
        """Return both."""
        both = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Pieces(*(np.concatenate(pair) for pair in both))


@dataclass(frozen=True)
class PathError:
    """Distances of moving Gaussians from their true places, in pixels of the clip's cameras.

    Attributes:
        mean_px: over Gaussians, by opacity, and times.
        most_px: the largest.
    """

    mean_px: float
    most_px: float

    def __str__(self) -> str:
        return (
            f"moving Gaussians are {self.mean_px:.2f} px off on average, "
            f"at most {self.most_px:.2f} px"
        )


@torch.no_grad()
def static_pieces(
    sequence: GaussianSequence,
    times: Real[np.ndarray, " times"],
    seconds: Float64[np.ndarray, " times"],
    what: PartSelection | None,
) -> Pieces:
    """Return the static Gaussians: one piece each, or one for each opacity of a life."""
    shown = what is None or what.background == "on"
    static = sequence.static.select(torch.arange(len(sequence.static) if shown else 0))
    frames = torch.from_numpy(sequence.timeline.frame_positions(times)).to(sequence.device)
    opacities = static.opacities_at(frames.float()).double().cpu().numpy()
    means = static.means.double().cpu().numpy()
    count = (len(seconds), len(means))
    unit = torch.nn.functional.normalize(static.quats_wxyz.double(), dim=-1).cpu().numpy()
    paths = Paths(
        seconds,
        np.broadcast_to(means, (*count, 3)),
        np.broadcast_to(unit, (*count, 4)),
        np.broadcast_to(opacities, count),
        np.broadcast_to(1.0, count),
        np.zeros(len(means)),
    )
    if len(opacities) == 1:  # of all times
        paths = Paths(
            seconds[:1],
            *(getattr(paths, f.name)[:1] for f in fields(paths)[1:5]),
            np.zeros(count[1]),
        )
    segments = straight_segments(paths, np.inf)
    segments = segments.select(segments.opacity > _FAINT)
    return _pieces(static, segments, np.zeros(len(means), int), None)


@torch.no_grad()
def moving_pieces(
    sequence: GaussianSequence,
    times: Real[np.ndarray, " times"],
    seconds: Float64[np.ndarray, " times"],
    what: PartSelection | None,
    tolerance_px: float,
) -> tuple[Pieces, dict[int, RigidTrack], PathError]:
    """Return the moving Gaussians as pieces, the tracks of their objects, and the error.

    Args:
        sequence: the fit.
        times: normalised, increasing.
        seconds: the same in seconds.
        what: the part of the sequence.
        tolerance_px: how far a Gaussian may be from its true place, in the clip's cameras.
    """
    what = what or PartSelection()
    levels, chosen = what.num_levels(sequence), what.labels(sequence)
    frames = sequence.timeline.frame_positions(times)
    index = torch.nonzero(keep_objects(sequence.labels, chosen, background=False))[:, 0]
    posed = _posed(sequence, frames, index, levels)
    moving, labels = sequence.moving.select(index), sequence.labels[index].cpu().numpy()
    pixels = _pixels(sequence.cameras.interpolated(frames), posed.means)
    tracks = {}
    means, quats = np.empty_like(posed.means), np.empty_like(posed.quats_wxyz)
    for label, motion in object_motions(sequence, frames, levels=levels).items():
        own = np.flatnonzero(labels == label)
        if not len(own):
            continue
        points = moving.means.double().cpu().numpy()[own[:: max(len(own) // _POINTS, 1)]]
        tracks[label] = rigid_track(
            motion, seconds, points, pixels[:, own].max(1), _SHARE_OF_TRACKS * tolerance_px
        )
        found = tracks[label].motion
        means[:, own] = np.einsum(
            "tji,tnj->tni", found.rotation, posed.means[:, own] - found.translation[:, None]
        )
        back = quats_wxyz_from_rotations(torch.from_numpy(found.rotation.swapaxes(1, 2).copy()))
        turned = multiply_quats_wxyz(back[:, None], torch.from_numpy(posed.quats_wxyz[:, own]))
        quats[:, own] = turned.numpy()
    scales = moving.scales.double().cpu().numpy()
    paths = Paths(
        seconds, means, quats, posed.opacities, pixels,
        scales.max(1, initial=0.0) - scales.min(1, initial=np.inf),
    )  # fmt: skip
    segments = straight_segments(
        paths, tolerance_px, turning=posed.rotations_wxyz, most_turn=_MOST_TURN
    )
    segments = segments.select(segments.opacity > _FAINT)
    return (
        _pieces(moving, segments, labels, posed.rotations_wxyz),
        tracks,
        _error(paths, segments),
    )


@dataclass(frozen=True)
class _Posed:
    """Moving Gaussians at all times; rotations are those since the canonical frame."""

    means: Float64[np.ndarray, "times moving 3"]
    quats_wxyz: Float64[np.ndarray, "times moving 4"]
    opacities: Float64[np.ndarray, "times moving"]
    rotations_wxyz: Float64[np.ndarray, "times moving 4"] | None


def _posed(
    sequence: GaussianSequence,
    frames: Float[np.ndarray, " times"],
    index: Int[Tensor, " moving"],
    levels: int | None,
) -> _Posed:
    times = torch.as_tensor(frames, dtype=torch.float32, device=sequence.device)
    view_dependent = sequence.moving.harmonics.shape[1] > 1
    own = index + len(sequence.static)
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for part in times.split(_FRAMES_AT_A_TIME):
        posed = sequence.posed(part, levels=levels)
        quats = torch.nn.functional.normalize(posed.quats_wxyz[:, own].double(), dim=-1)
        opacities = posed.opacities[:, own].double().expand(len(part), -1)
        rows = [posed.means[:, own].double(), quats, opacities]
        if view_dependent:
            rows.append(quats_wxyz_from_rotations(posed.rotations[:, index].double()))
        for column, row in zip(columns, rows, strict=False):
            column.append(row.cpu().numpy())
    means, quats, opacities, rotations = (np.concatenate(c) if c else None for c in columns)
    assert means is not None and quats is not None and opacities is not None
    return _Posed(means, quats, opacities, rotations)


def _pixels(
    cameras: Cameras, means: Float64[np.ndarray, "times gaussians 3"]
) -> Float64[np.ndarray, "times gaussians"]:
    """Return how many pixels a scene unit is at most, in any direction, where Gaussians are."""
    seen = transform_points(cameras.cam_from_world, means)
    depth = seen[..., 2]
    nearest = _NEAREST * max(float(np.median(np.abs(depth))) if depth.size else 0.0, 1e-6)
    depth = np.maximum(depth, nearest)
    aside = (seen[..., :2] ** 2).sum(-1) / depth**2
    # The larger singular value of the projection's derivative; more only beside the image.
    focal = cameras.intrinsics[:, [0, 1], [0, 1]].max(1)[:, None]
    return focal / depth * np.sqrt(1 + np.minimum(aside, 1.0))


def _pieces(
    gaussians: Gaussians,
    segments: Segments,
    labels: Int[np.ndarray, " gaussians"],
    rotations_wxyz: Float64[np.ndarray, "times gaussians 4"] | None,
) -> Pieces:
    owner = segments.owner
    harmonics = gaussians.harmonics.cpu()[torch.from_numpy(owner)]
    if rotations_wxyz is not None and len(owner):
        middle = (segments.first + segments.last) // 2
        turn = rotations_from_quats_wxyz(torch.from_numpy(rotations_wxyz[middle, owner]))
        harmonics = rotated_harmonics(harmonics, turn)
    return Pieces(
        labels[owner],
        segments.begin,
        segments.end,
        segments.origin,
        segments.velocity,
        segments.quats_wxyz,
        gaussians.log_scales.cpu().numpy()[owner],
        segments.opacity,
        harmonics.numpy(),
    )


def _error(paths: Paths, segments: Segments) -> PathError:
    total, weight, most = 0.0, 0.0, 0.0
    for row, second in enumerate(paths.seconds):
        now = segments.select((segments.first <= row) & (row <= segments.last))
        away = now.origin + now.velocity * second - paths.means[row, now.owner]
        pixels = np.linalg.norm(away, axis=1) * paths.pixels[row, now.owner]
        total += float(pixels @ now.opacity)
        weight += float(now.opacity.sum())
        most = max(most, float(pixels.max(initial=0.0)))
    return PathError(total / max(weight, 1e-12), most)
