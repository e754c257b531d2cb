"""A sequence as Gaussians that exist for a while each and move straight in an object's frame."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Real
from torch import Tensor

from msdyn.export.gaussians import rotated_harmonics
from msdyn.export.rigid_tracks import RigidTrack, rigid_track
from msdyn.export.segments import Paths, Segments, straight_segments
from msdyn.geometry import (
    Cameras,
    Rigid,
    multiply_quats_wxyz,
    quats_wxyz_from_rotations,
    rotations_from_quats_wxyz,
    transform_points,
)
from msdyn.progress import track
from msdyn.sequence import (
    Gaussians,
    GaussianSequence,
    PartSelection,
    keep_objects,
    object_motions,
    rigid_parts,
)

__all__ = ["PathError", "Pieces", "moving_pieces", "numbers_per_part", "static_pieces"]


_FRAMES_AT_A_TIME = 8
_FAINT = 0.5 / 255
_NEAREST = 0.05
"""Gaussians nearer than this share of the median depth count as that far away."""
_SHARE_OF_TRACKS = 0.5
"""The share of the tolerance that keys left out of the objects' tracks may take."""
_MOST_TURN = float(np.radians(20.0))
"""Rotation within a piece of view-dependent colours, which readers do not rotate with objects."""
_POINTS = 64
_BYTES_OF_A_KEY, _BYTES_OF_A_PIECE = 64, 14


@dataclass(frozen=True)
class Pieces:
    """Gaussians, each valid for a while.

    Attributes:
        label: [N] 0 static, otherwise the number of the track that moves it.
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


def numbers_per_part(sequence: GaussianSequence) -> int:
    """Return by how much the numbers of the tracks of one object differ; labels are smaller."""
    return max(256, 1 << max(sequence.objects, default=0).bit_length())


Group: TypeAlias = tuple[Int[np.ndarray, " _group"], Rigid[np.ndarray]]
"""Rows of Gaussians that move together, and how, since the canonical frame."""


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
        paths = paths.of(slice(None), slice(1))
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
    """Return the moving Gaussians as pieces, the tracks that move them, and the error.

    An object has one track or, where that needs less space, one for each of its rigid parts.

    Args:
        sequence: the fit.
        times: normalised, increasing.
        seconds: the same in seconds.
        what: the part of the sequence.
        tolerance_px: how far a Gaussian may be from its true place, in the clip's cameras.

    Returns:
        The pieces, with the number of their track; by this number, which is the object's mask index
        plus a multiple of `numbers_per_part`, the tracks from the canonical frame; the error.
    """
    what = what or PartSelection()
    levels, chosen = what.num_levels(sequence), what.labels(sequence)
    frames = sequence.timeline.frame_positions(times)
    index = torch.nonzero(keep_objects(sequence.labels, chosen, background=False))[:, 0]
    posed = _posed(sequence, frames, index, levels)
    moving, labels = sequence.moving.select(index), sequence.labels[index].cpu().numpy()
    means = moving.means.double().cpu().numpy()
    scales = moving.scales.double().cpu().numpy()
    paths = Paths(
        seconds, posed.means, posed.quats_wxyz, posed.opacities,
        _pixels(sequence.cameras.interpolated(frames), posed.means),
        scales.max(1, initial=0.0) - scales.min(1, initial=np.inf),
    )  # fmt: skip
    found, tracks = [], {}
    groups_of = _groups(sequence, frames, levels, chosen, index, tolerance_px)
    for label, groups in track(groups_of.items(), "straight pieces", unit="object"):
        own = np.flatnonzero(labels == label)
        numbered = [
            {label + part * numbers_per_part(sequence): group for part, group in enumerate(way)}
            for way in groups
        ]
        ways = [_moved_by(way, own, means, paths, posed, tolerance_px) for way in numbered]
        best = min(ways, key=lambda way: way.size)
        found.append(best)
        tracks |= best.tracks
    if not found:
        none = straight_segments(paths, tolerance_px)
        return _pieces(moving, none, labels, posed.rotations_wxyz), {}, PathError(0.0, 0.0)
    segments = Segments(
        *(np.concatenate([getattr(w.segments, f.name) for w in found]) for f in fields(Segments))
    )
    numbers = np.zeros(len(labels), int)
    for way in found:
        for number, own in way.members.items():
            numbers[own] = number
    return (
        _pieces(moving, segments, numbers, posed.rotations_wxyz),
        tracks,
        PathError(
            sum(way.total_px for way in found) / max(sum(way.weight for way in found), 1e-12),
            max(way.most_px for way in found),
        ),
    )


def _groups(
    sequence: GaussianSequence,
    frames: Float[np.ndarray, " times"],
    levels: int | None,
    chosen: list[int] | None,
    index: Int[Tensor, " moving"],
    tolerance_px: float,
) -> dict[int, list[list[Group]]]:
    """Return, by label, ways to divide the object into groups of Gaussians with a rigid motion."""
    row = np.full(len(sequence.moving), -1)
    row[index.cpu().numpy()] = np.arange(len(index))
    wholes = object_motions(sequence, frames, levels=levels)
    parts = rigid_parts(
        sequence, frames, levels=levels, labels=chosen, tolerance_px=tolerance_px
    ).parts
    ways = {}
    for label in sequence.objects if chosen is None else chosen:
        own = row[torch.nonzero(sequence.labels == label)[:, 0].cpu().numpy()]
        ways[label] = [[(own, wholes[label])]]
        divided = []
        for part in (part for part in parts if part.label == label):
            moved = Rigid.from_matrix(part.world_from_part)
            divided.append((row[part.index], moved @ Rigid(np.eye(3), -part.centre)))
        if len(divided) > 1:
            ways[label].append(divided)
    return ways


@dataclass(frozen=True)
class _Way:
    """An object moved by tracks and straight pieces; `members` by the number of the track."""

    segments: Segments
    tracks: dict[int, RigidTrack]
    members: dict[int, Int[np.ndarray, " _group"]]
    total_px: float
    weight: float
    most_px: float

    @property
    def size(self) -> int:
        """About how many bytes it takes in a file."""
        keys = sum(len(motion.rows) for motion in self.tracks.values())
        return _BYTES_OF_A_KEY * keys + _BYTES_OF_A_PIECE * len(self.segments)


def _moved_by(
    groups: dict[int, Group],
    own: Int[np.ndarray, " own"],
    canonical: Float64[np.ndarray, "moving 3"],
    paths: Paths,
    posed: _Posed,
    tolerance_px: float,
) -> _Way:
    """Return an object's Gaussians as pieces in the frames of the groups of these numbers."""
    means, quats = np.empty_like(paths.means[:, own]), np.empty_like(paths.quats_wxyz[:, own])
    place = np.full(len(canonical), -1)
    place[own] = np.arange(len(own))
    tracks, members = {}, {}
    for number, (group, motion) in groups.items():
        members[number] = group
        some = canonical[group[:: max(len(group) // _POINTS, 1)]]
        pixels = paths.pixels[:, group].max(1)
        share = _SHARE_OF_TRACKS * tolerance_px
        tracks[number] = rigid_track(motion, paths.seconds, some, pixels, share)
        found = tracks[number].motion
        away = paths.means[:, group] - found.translation[:, None]
        means[:, place[group]] = np.einsum("tji,tnj->tni", found.rotation, away)
        back = quats_wxyz_from_rotations(torch.from_numpy(found.rotation.swapaxes(1, 2).copy()))
        turned = multiply_quats_wxyz(back[:, None], torch.from_numpy(paths.quats_wxyz[:, group]))
        quats[:, place[group]] = turned.numpy()
    inside = Paths(
        paths.seconds, means, quats, paths.opacities[:, own], paths.pixels[:, own],
        paths.anisotropies[own],
    )  # fmt: skip
    turning = None if posed.rotations_wxyz is None else posed.rotations_wxyz[:, own]
    segments = straight_segments(inside, tolerance_px, turning=turning, most_turn=_MOST_TURN)
    segments = segments.select(segments.opacity > _FAINT)
    total, weight, most = _error(inside, segments)
    segments = replace(segments, owner=own[segments.owner])
    return _Way(segments, tracks, members, total, weight, most)


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


def _error(paths: Paths, segments: Segments) -> tuple[float, float, float]:
    """Return the sum of the distances in pixels, by opacity, its weight, and the largest."""
    total, weight, most = 0.0, 0.0, 0.0
    for row, second in enumerate(paths.seconds):
        now = segments.select((segments.first <= row) & (row <= segments.last))
        away = now.origin + now.velocity * second - paths.means[row, now.owner]
        pixels = np.linalg.norm(away, axis=1) * paths.pixels[row, now.owner]
        total += float(pixels @ now.opacity)
        weight += float(now.opacity.sum())
        most = max(most, float(pixels.max(initial=0.0)))
    return total, weight, most
