"""Initialisation of a fit: motion from the tracks, Gaussians from the depth maps."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from msdyn.fit.candidates import Candidates
from msdyn.fit.config import FitConfig
from msdyn.fit.coverage import choose_by_coverage, spacing_among_living
from msdyn.fit.data import FitData
from msdyn.fit.first_gaussians import gaussians_at, spacing_of
from msdyn.fit.fusion import Carried, Sampled, fuse_depth
from msdyn.fit.initial_lives import Lives, MovingRule, estimate_lives
from msdyn.fit.initial_motion import estimate_motion
from msdyn.fit.initial_static import FUSED_FRAMES, static_gaussians
from msdyn.fit.object_depth import ObjectDepth
from msdyn.fit.predicted_start import predicted_points, predicted_tracks
from msdyn.fit.sampling import evenly_spaced, sample_frame, subsample
from msdyn.motion import Motion, TrackedMotion
from msdyn.scene import IGNORE, LiftedObservations, LiftedTracks, Timeline, canonical_frame
from msdyn.sequence import Gaussians, GaussianSequence

__all__ = ["Initialisation", "initialize"]

# Number of frames whose depth maps are sampled for the initial moving Gaussians.
_MOVING_FRAMES = 10
# The same for Gaussians with life spans.
_MOVING_FRAMES_OF_LIVES = 64
# Number of candidates for each initial moving Gaussian, without and with life spans.
_CANDIDATES, _CANDIDATES_OF_LIVES = 3, 4
# Number of nearest tracks from which the motion of a Gaussian is averaged.
_NEAREST_TRACKS = 6


class Initialisation(NamedTuple):
    """The start of a fit: a sequence, the data that it is fitted to, and what was corrected."""

    sequence: GaussianSequence
    data: FitData
    object_depth: ObjectDepth


def initialize(
    data: FitData,
    config: FitConfig,
    timeline: Timeline,
    world_units: str,
    predicted: GaussianSequence | None = None,
) -> Initialisation:
    """Estimate the motion from the tracks, refine it, and place Gaussians on all visible surfaces.

    With a prediction, trajectories and Gaussians are its own; see `FitConfig.init`.

    Args:
        data: input data of the fit.
        config: options of the fit.
        timeline, world_units: of the scene, stored in the sequence.
        predicted: a sequence of the same clip, in the world of the fit.

    Returns:
        A sequence in the world of the fit, on the CPU, the data with corrected depth, and these
        corrections.
    """
    rng = np.random.default_rng(config.seed)
    given = data
    if predicted is not None:
        tracks = predicted_tracks(predicted, data, rng)
        if config.init == "both":
            tracks = LiftedObservations.joined([data.tracks, tracks])
        data = replace(data, tracks=tracks)
    tracked, object_depth, data = estimate_motion(data, config)
    tracks = data.motion_tracks()
    if predicted is None:
        static = static_gaussians(data, config, rng)
        moving, motion, labels = _moving_gaussians(data, tracks, tracked, config, rng)
    else:
        # The losses keep the tracks of the scene.
        data = given.with_object_depth(object_depth)
        static, moving, motion, labels = _predicted_gaussians(
            predicted, data, tracks, tracked, config
        )
    sequence = GaussianSequence(
        static,
        moving,
        motion.extended(config.motion),
        labels,
        timeline=timeline,
        cameras=data.cameras,
        canonical_frame=int(data.frames[canonical_frame(tracks)]),
        world_units=world_units,
    )
    return Initialisation(sequence, data, object_depth)


def _predicted_gaussians(
    predicted: GaussianSequence,
    data: FitData,
    tracks: LiftedTracks,
    tracked: TrackedMotion,
    config: FitConfig,
) -> tuple[Gaussians, Gaussians, Motion, Int[torch.Tensor, " moving"]]:
    """Place Gaussians on the points of a prediction, moving ones by way of its canonical frame."""
    source = int(np.abs(data.frames - predicted.canonical_frame).argmin())
    frame = int(data.frames[source])
    found = predicted_points(
        predicted, data, frame, static=config.static_gaussians, moving=config.moving_gaussians
    )
    rest = found.labels == 0
    static = gaussians_at(
        found.points[rest], found.colours[rest], spacing_of(found.points[rest]), config.sh_degree
    )
    points, colours, labels = [], [], []
    motions: list[Motion] = []
    for instance in np.unique(tracks.object):
        own = np.flatnonzero(found.labels == instance)
        of_object = np.flatnonzero(tracks.object == instance)
        canonical, kept, motion = _map_back(
            found.points[own], of_object, tracked, tracks, frame, source
        )
        points.append(canonical)
        colours.append(found.colours[own][kept])
        labels.append(np.full(len(canonical), instance))
        motions.append(motion)
    if not sum(len(part) for part in points):
        none = torch.zeros(0, dtype=torch.long)
        return static, Gaussians.empty(config.sh_degree), tracked.motion.select(none), none
    position = np.concatenate(points)
    moving = gaussians_at(position, np.concatenate(colours), spacing_of(position), config.sh_degree)
    joined = type(tracked.motion).concatenated(motions)
    return static, moving, joined, torch.from_numpy(np.concatenate(labels)).long()


def _moving_gaussians(
    data: FitData,
    tracks: LiftedTracks,
    tracked: TrackedMotion,
    config: FitConfig,
    rng: np.random.Generator,
) -> tuple[Gaussians, Motion, Int[torch.Tensor, " moving"]]:
    """Choose Gaussians among points of the objects in frames over the clip.

    A Gaussian keeps the motion by which its point was mapped to the canonical frame, so that its
    position in the sampled frame is the observed one.
    """
    lives = config.life_spans == "on"
    candidates = _candidates(
        data,
        tracks,
        tracked,
        evenly_spaced(data.frames, _MOVING_FRAMES_OF_LIVES if lives else _MOVING_FRAMES),
        (_CANDIDATES_OF_LIVES if lives else _CANDIDATES) * config.moving_gaussians,
        rng,
    )
    if candidates is not None and config.initial_depth == "fused":
        candidates = _fused(data, candidates)
    if candidates is None:
        none = torch.zeros(0, dtype=torch.long)
        return Gaussians.empty(config.sh_degree), tracked.motion.select(none), none
    if lives:
        gaussians, kept = _living_gaussians(data, candidates, tracks, tracked, config)
    else:
        kept = subsample(
            candidates.points, candidates.footprints, config.moving_gaussians, candidates.labels
        )
        points = candidates.points[kept]
        gaussians = gaussians_at(
            points,
            candidates.colours[kept],
            spacing_of(points),
            config.sh_degree,
            candidates.tangents[kept] if config.initial_shape == "surface" else None,
        )
    motion = candidates.motion.select(torch.from_numpy(kept))
    return gaussians, motion, torch.from_numpy(candidates.labels[kept]).long()


def _candidates(
    data: FitData,
    tracks: LiftedTracks,
    tracked: TrackedMotion,
    frames: list[int],
    count: int,
    rng: np.random.Generator,
) -> Candidates | None:
    """Sample about `count` points of the objects in some frames; None if there are none."""
    points, colours, labels, footprints, tangents, sources = [], [], [], [], [], []
    motions: list[Motion] = []
    total = max(_moving_area(data, frames), 1)
    for frame in frames:
        mask = data.mask.numpy(frame)
        for instance in np.unique(tracks.object):
            number = count * int((mask == instance).sum()) // total
            sample = sample_frame(data, frame, mask == instance, number, rng)
            own = np.flatnonzero(tracks.object == instance)
            source = int(np.searchsorted(data.frames, frame))
            canonical, near, motion = _map_back(sample.points, own, tracked, tracks, frame, source)
            points.append(canonical)
            colours.append(sample.colours[near])
            footprints.append(sample.footprints[near])
            tangents.append(_turned_back(sample.tangents[near], canonical, motion, frame))
            labels.append(np.full(len(canonical), instance))
            motions.append(motion)
            sources.append(np.full(len(canonical), source))
    if not sum(len(p) for p in points):
        return None
    return Candidates(
        np.concatenate(points),
        np.concatenate(colours),
        np.concatenate(labels),
        np.concatenate(sources),
        np.concatenate(footprints),
        np.concatenate(tangents),
        type(tracked.motion).concatenated(motions),
    )


@torch.no_grad()
def _fused(data: FitData, candidates: Candidates) -> Candidates:
    """Fuse the depth of candidates over the frames to which their motion carries them.

    None is left out: where the motion is wrong, their life spans end.
    """

    def carry(sampled: Float[np.ndarray, "points 3"]) -> Carried:
        points = torch.from_numpy(candidates.canonical(sampled, data.frames)).float()

        def at(frame: int) -> Float[np.ndarray, "points 3"]:
            moved = candidates.motion.positions(points, torch.tensor([float(frame)]))
            return moved[0].double().numpy()

        return at

    sampled = Sampled(
        candidates.sampled(data.frames), data.frames[candidates.source], candidates.labels
    )
    fused = fuse_depth(data, sampled, evenly_spaced(data.frames, FUSED_FRAMES), carry)
    return replace(candidates, points=candidates.canonical(fused.points, data.frames))


def _living_gaussians(
    data: FitData,
    candidates: Candidates,
    tracks: LiftedTracks,
    tracked: TrackedMotion,
    config: FitConfig,
) -> tuple[Gaussians, Int[np.ndarray, " kept"]]:
    """Choose candidates that cover the objects in every frame; return them, and their indices."""
    lives = estimate_lives(data, candidates, MovingRule(data, tracks, tracked))
    kept, spacing = choose_by_coverage(
        lives, candidates.source, data.frames, data.mask.shape[2], config.moving_gaussians
    )
    chosen = Lives(lives.spans[kept], lives.pixel[kept])
    between = spacing_among_living(chosen, candidates.source[kept], data.mask.shape[2], spacing)
    gaussians = gaussians_at(
        candidates.points[kept],
        candidates.colours[kept],
        between * candidates.footprints[kept],
        config.sh_degree,
        candidates.tangents[kept] if config.initial_shape == "surface" else None,
    )
    return gaussians.with_life_spans(torch.from_numpy(lives.spans[kept]).float()), kept


@torch.no_grad()
def _map_back(
    points: Float[np.ndarray, "points 3"],
    own: Int[np.ndarray, " own"],
    tracked: TrackedMotion,
    tracks: LiftedTracks,
    frame: int,
    track_frame: int,
) -> tuple[Float[np.ndarray, "kept 3"], Int[np.ndarray, " kept"], Motion]:
    """Map points of one object from a frame to the canonical frame.

    The motion of a point is averaged from the nearest tracks in that frame; occluded tracks are at
    the positions predicted by their motion. Points much farther from all tracks than the median are
    dropped, because their depth is probably that of the background or of an occluder.

    Args:
        points: world positions at the frame.
        own: indices of the object's tracks.
        tracked: motion of all tracks.
        tracks: their observations.
        frame: index in the clip.
        track_frame: index of the same frame in the tracks.

    Returns:
        Canonical positions of the points kept, their indices, and their motion.
    """
    motion = tracked.motion.select(torch.from_numpy(own))
    moved = motion.positions(tracked.points[own], torch.tensor([float(frame)]))[0]
    positions = np.where(
        tracks.visible[own, track_frame, None], tracks.xyz[own, track_frame], moved.double().numpy()
    )
    tree = KDTree(positions)
    kept = np.zeros(0, int)
    if len(points):
        distance = tree.query(points)[0]
        kept = np.flatnonzero(distance < 5 * np.median(distance) + 1e-6)
    count = min(_NEAREST_TRACKS, len(positions))
    distance, index = (
        v.reshape(len(kept), count) for v in map(np.asarray, tree.query(points[kept], k=count))
    )
    bandwidth = np.maximum(distance.mean(1, keepdims=True), 1e-12)
    weights = torch.from_numpy(np.exp(-((distance / bandwidth) ** 2))).float()
    averaged = motion.mixed(torch.from_numpy(index).long(), weights)
    canonical = averaged.undo(torch.from_numpy(points[kept]).float(), float(frame))
    return canonical.numpy(), kept, averaged


@torch.no_grad()
def _turned_back(
    tangents: Float[np.ndarray, "points 3 2"],
    canonical: Float[np.ndarray, "points 3"],
    motion: Motion,
    frame: int,
) -> Float[np.ndarray, "points 3 2"]:
    """Turn the tangents of points from a frame to the canonical frame."""
    quats = torch.eye(4)[0].expand(len(canonical), 4)
    points, times = torch.from_numpy(canonical).float(), torch.tensor([float(frame)])
    rotations = motion.pose(points, quats, times).rotations[0].double().numpy()
    return rotations.swapaxes(1, 2) @ tangents


def _moving_area(data: FitData, frames: list[int]) -> int:
    """Return the number of pixels on objects in some frames."""
    masks = (data.mask.numpy(frame) for frame in frames)
    return sum(int(((mask > 0) & (mask != IGNORE)).sum()) for mask in masks)
