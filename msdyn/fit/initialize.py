"""Initialisation of a fit: motion from the tracks, Gaussians from the depth maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from scipy.spatial import KDTree

from msdyn.fit.candidates import Candidates
from msdyn.fit.config import FitConfig
from msdyn.fit.coverage import Gaps, choose_by_coverage, moving_area, spacing_among_living
from msdyn.fit.data import FitData
from msdyn.fit.first_gaussians import gaussians_at, spacing_of
from msdyn.fit.fusion import Carried, Sampled, fuse_depth
from msdyn.fit.initial_lives import Lives, estimate_lives
from msdyn.fit.initial_motion import estimate_motion
from msdyn.fit.initial_static import FUSED_FRAMES, static_gaussians
from msdyn.fit.life_evidence import MovingRule
from msdyn.fit.object_depth import ObjectDepth
from msdyn.fit.predicted_start import predicted_points, predicted_tracks
from msdyn.fit.sampling import sample_frame, spread_over, subsample
from msdyn.motion import Motion, TrackedMotion
from msdyn.scene import LiftedObservations, LiftedTracks, Timeline, canonical_frame
from msdyn.sequence import Gaussians, GaussianSequence

__all__ = ["Initialisation", "initialize"]

# Number of frames whose depth maps are sampled for the initial moving Gaussians.
_MOVING_FRAMES = 10
# The same for Gaussians with life spans.
_MOVING_FRAMES_OF_LIVES = 64
# Number of candidates for each initial moving Gaussian, without and with life spans.
_CANDIDATES, _CANDIDATES_OF_LIVES = 3, 4
# Points of an object, in a frame, from which it is measured how far they are from tracks.
_USUAL = 1000
# Points are dropped that are so many times as far from the tracks, from the third nearest of them,
# as one or two outliers may lie on whatever is behind the object.
_FARTHEST, _NOT_STRAY = 5.0, 3
# Number of nearest tracks from which the motion of a Gaussian is averaged.
_NEAREST_TRACKS = 6


Where = Callable[[int], Bool[np.ndarray, "height width"]]
"""Returns which pixels of a frame of the clip are sampled."""


Sampler = Callable[[int, Where | None], Candidates | None]
"""Samples about so many candidates, everywhere or somewhere."""


class Chosen(NamedTuple):
    """N points that were chosen.

    Attributes:
        candidates: the points.
        spans: [N, 2] their life spans; None if they exist always.
        spacing: [N] their distance to the next ones, world of the fit.
    """

    candidates: Candidates
    spans: Float[np.ndarray, "points 2"] | None
    spacing: Float[np.ndarray, " points"]


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

    def sample(count: int, where: Where | None) -> Candidates | None:
        most = _MOVING_FRAMES_OF_LIVES if lives else _MOVING_FRAMES
        frames = spread_over(data.frames, most)
        found = _candidates(data, tracks, tracked, frames, count, rng, where)
        if found is None or config.initial_depth == "given":
            return found
        return _fused(data, found)

    if lives:
        chosen = _choose_living(data, sample, MovingRule(data, tracks, tracked), config)
    else:
        chosen = _choose(sample, config)
    if chosen is None:
        none = torch.zeros(0, dtype=torch.long)
        return Gaussians.empty(config.sh_degree), tracked.motion.select(none), none
    found = chosen.candidates
    assert found.motion is not None
    tangents = found.tangents if config.initial_shape == "surface" else None
    gaussians = gaussians_at(
        found.points, found.colours, chosen.spacing, config.sh_degree, tangents
    )
    if chosen.spans is not None:
        gaussians = gaussians.with_life_spans(torch.from_numpy(chosen.spans).float())
    return gaussians, found.motion, torch.from_numpy(found.labels).long()


def _candidates(
    data: FitData,
    tracks: LiftedTracks,
    tracked: TrackedMotion,
    frames: list[int],
    count: int,
    rng: np.random.Generator,
    where: Where | None = None,
) -> Candidates | None:
    """Sample about `count` points of the objects in some frames; None if there are none."""
    found: list[Candidates] = []

    def moving(frame: int) -> Integer[np.ndarray, "height width"]:
        mask = data.mask.numpy(frame)
        return mask if where is None else np.where(where(frame), mask, 0)

    total = max(sum(moving_area(moving(frame)) for frame in frames), 1)
    for frame in frames:
        mask = moving(frame)
        for instance in np.unique(tracks.object):
            number = count * int((mask == instance).sum()) // total
            sample = sample_frame(data, frame, mask == instance, number, rng)
            own = np.flatnonzero(tracks.object == instance)
            source = int(np.searchsorted(data.frames, frame))
            usual = sample.points
            if where is not None:  # these points alone may all be of something else
                whole = data.mask.numpy(frame) == instance
                usual = sample_frame(data, frame, whole, _USUAL, rng).points
            canonical, near, motion = _map_back(
                sample.points, own, tracked, tracks, frame, source, usual
            )
            part = Candidates(
                canonical,
                sample.colours[near],
                np.full(len(canonical), instance),
                np.full(len(canonical), source),
                sample.footprints[near],
                _turned_back(sample.tangents[near], canonical, motion, frame),
                motion,
            )
            found.append(part)
    return Candidates.joined(found) if sum(len(part.points) for part in found) else None


@torch.no_grad()
def _fused(data: FitData, candidates: Candidates) -> Candidates:
    """Fuse the depth of candidates over the frames to which their motion carries them.

    None is left out: where the motion is wrong, their life spans end.
    """

    def carry(sampled: Float[np.ndarray, "points 3"]) -> Carried:
        return replace(candidates, points=candidates.canonical(sampled, data.frames)).positions

    sampled = Sampled(
        candidates.sampled(data.frames), data.frames[candidates.source], candidates.labels
    )
    fused = fuse_depth(data, sampled, spread_over(data.frames, FUSED_FRAMES), carry)
    return replace(candidates, points=candidates.canonical(fused.points, data.frames))


def _choose(sample: Sampler, config: FitConfig) -> Chosen | None:
    """Choose candidates that are spread evenly; None if there are none."""
    found = sample(_CANDIDATES * config.moving_gaussians, None)
    if found is None:
        return None
    kept = subsample(found.points, found.footprints, config.moving_gaussians, found.labels)
    found = found.select(kept)
    return Chosen(found, None, spacing_of(found.points))


def _choose_living(
    data: FitData, sample: Sampler, rule: MovingRule, config: FitConfig
) -> Chosen | None:
    """Choose candidates that cover the objects in every frame; None if there are none.

    Many are sampled everywhere at first; then as many again where none of these lives, as where
    the motion does not carry one frame's points to the others, every frame needs its own.
    """
    count = config.moving_gaussians
    candidates = sample(_CANDIDATES_OF_LIVES * count, None)
    if candidates is None:
        return None
    lives = estimate_lives(data, candidates, rule, data.frames)
    gaps = Gaps(data, lives, count)
    if gaps.cells:
        more = sample(min(_CANDIDATES_OF_LIVES * count, gaps.cells), gaps)
        if more is not None:
            found = estimate_lives(data, more, rule, data.frames, (candidates, lives))
            lives = Lives.joined([lives, found])
            candidates = Candidates.joined([candidates, more])
    width, source = data.mask.shape[2], candidates.source
    kept, spacing = choose_by_coverage(lives, source, data.frames, width, count)
    chosen, lives = candidates.select(kept), lives.select(kept)
    between = spacing_among_living(lives, chosen.source, width, spacing)
    return Chosen(chosen, lives.spans, between * chosen.footprints)


@torch.no_grad()
def _map_back(
    points: Float[np.ndarray, "points 3"],
    own: Int[np.ndarray, " own"],
    tracked: TrackedMotion,
    tracks: LiftedTracks,
    frame: int,
    track_frame: int,
    usual: Float[np.ndarray, "usual 3"] | None = None,
) -> tuple[Float[np.ndarray, "kept 3"], Int[np.ndarray, " kept"], Motion]:
    """Map points of one object from a frame to the canonical frame.

    The motion of a point is averaged from the nearest tracks in that frame; occluded tracks are at
    the positions predicted by their motion. Points much farther from the tracks than the object's
    points usually are, are dropped: their depth is probably that of the background or of an
    occluder.

    Args:
        points: world positions at the frame.
        own: indices of the object's tracks.
        tracked: motion of all tracks.
        tracks: their observations.
        frame: index in the clip.
        track_frame: index of the same frame in the tracks.
        usual: points all over the object in that frame; by default those above.

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
        farthest = _FARTHEST * np.median(_to_tracks(tree, points if usual is None else usual))
        kept = np.flatnonzero(_to_tracks(tree, points) < farthest + 1e-6)
    count = min(_NEAREST_TRACKS, len(positions))
    distance, index = (
        v.reshape(len(kept), count) for v in map(np.asarray, tree.query(points[kept], k=count))
    )
    bandwidth = np.maximum(distance.mean(1, keepdims=True), 1e-12)
    weights = torch.from_numpy(np.exp(-((distance / bandwidth) ** 2))).float()
    averaged = motion.mixed(torch.from_numpy(index).long(), weights)
    canonical = averaged.undo(torch.from_numpy(points[kept]).float(), float(frame))
    return canonical.numpy(), kept, averaged


def _to_tracks(tree: KDTree, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, " points"]:
    """Return the distance of points to the third nearest track: the nearest may be an outlier."""
    distance, _ = tree.query(points, k=min(_NOT_STRAY, tree.n))
    return np.asarray(distance).reshape(len(points), -1)[:, -1]


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
