"""Where a fit starts: motion from the tracks, Gaussians from the depth maps."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData
from msdyn.fit.prefit import prefit_motion
from msdyn.geometry import SurfaceSamples, sample_normals, world_points_from_depth
from msdyn.motion import Motion, ObjectSurfaces, TrackedMotion, TrackedScene, motion_class
from msdyn.scene import IGNORE, LiftedTracks, Timeline, canonical_frame
from msdyn.sequence import Gaussians, GaussianSequence

__all__ = ["initialize"]

# Frames whose depth maps give the first Gaussians.
_STATIC_FRAMES = 12
_MOVING_FRAMES = 10
# Frames, and samples of an object in each, by which the sides of an occlusion are joined.
_SURFACE_FRAMES = 24
_SURFACE_SAMPLES = 400
# Tracks whose motion a new Gaussian takes.
_NEAREST_TRACKS = 6


def initialize(
    data: FitData, config: FitConfig, timeline: Timeline, world_units: str
) -> GaussianSequence:
    """Estimate the motion from the tracks, refine it, and place Gaussians on all visible surfaces.

    Args:
        data: the scene; its tracks are those of the fitted frames.
        config: options of the fit.
        timeline, world_units: of the scene, carried along.

    Returns:
        A sequence in the world of the fit, on the CPU.
    """
    canonical = canonical_frame(data.tracks)  # among the fitted frames
    tracks = data.tracks.select(np.flatnonzero(data.tracks.visible.any(1)))
    objects = np.unique(tracks.object)
    scene = TrackedScene(
        tracks,
        canonical,
        data.frames,
        surfaces=lambda: _object_surfaces(data, objects, config.seed),
        seed=config.seed,
    )
    tracked = motion_class(config.motion.model).from_tracks(scene, config.motion)
    tracked = prefit_motion(
        tracked,
        tracks,
        data.cameras[data.frames],
        config.loss,
        steps=config.motion.prefit_steps,
        seed=config.seed,
    )
    rng = np.random.default_rng(config.seed)
    static = _static_gaussians(data, config, rng)
    moving, motion, labels = _moving_gaussians(data, tracks, tracked, config, rng)
    return GaussianSequence(
        static,
        moving,
        motion.extended(config.motion),
        labels,
        timeline=timeline,
        cameras=data.cameras,
        canonical_frame=int(data.frames[canonical]),
        world_units=world_units,
    )


def _object_surfaces(data: FitData, objects: np.ndarray, seed: int) -> ObjectSurfaces | None:
    """Sample the visible surfaces of the objects, if there are any, in frames over the clip."""
    if not len(objects):
        return None
    rng = np.random.default_rng(seed)
    samples, when, which = [], [], []
    for frame in _spread(data.frames, _SURFACE_FRAMES):
        mask = data.mask[frame].cpu().numpy()
        for instance in objects:
            inner = binary_erosion(mask == instance)  # borders are uncertain
            xyz, rgb, _ = _sample_frame(data, frame, inner, _SURFACE_SAMPLES, rng)
            samples.append(
                SurfaceSamples(xyz, rgb, sample_normals(xyz, data.cameras.centres[frame]))
            )
            when.append(np.full(len(xyz), np.searchsorted(data.frames, frame)))
            which.append(np.full(len(xyz), instance))
    whole = SurfaceSamples.concatenate(samples)
    return ObjectSurfaces(whole, np.concatenate(when), np.concatenate(which))


def _static_gaussians(data: FitData, config: FitConfig, rng: np.random.Generator) -> Gaussians:
    """Sample the static parts of depth maps spread over the clip."""
    count = config.static_gaussians
    chosen = _spread(data.frames, _STATIC_FRAMES)
    points, colours, footprints = [], [], []
    for frame in chosen:
        own = data.mask[frame].cpu().numpy() == 0
        sample = _sample_frame(data, frame, own, 3 * count // len(chosen), rng)
        points.append(sample[0])
        colours.append(sample[1])
        footprints.append(sample[2])
    kept = _thin(np.concatenate(points), np.concatenate(footprints), count)
    return _gaussians(np.concatenate(points)[kept], np.concatenate(colours)[kept], config.sh_degree)


def _moving_gaussians(
    data: FitData,
    tracks: LiftedTracks,
    tracked: TrackedMotion,
    config: FitConfig,
    rng: np.random.Generator,
) -> tuple[Gaussians, Motion, Int[torch.Tensor, " moving"]]:
    """Sample the objects in frames spread over the clip and map the points back to canonical.

    A point keeps the motion by which it was mapped back, so that in its own frame it lies where it
    was observed.
    """
    points, colours, labels, footprints = [], [], [], []
    motions: list[Motion] = []
    count = config.moving_gaussians
    chosen = _spread(data.frames, _MOVING_FRAMES)
    for frame in chosen:
        mask = data.mask[frame].cpu().numpy()
        for instance in np.unique(tracks.object):
            area = int((mask == instance).sum())
            share = 3 * count * area // max(_moving_area(data, chosen), 1)
            sample = _sample_frame(data, frame, mask == instance, share, rng)
            own = np.flatnonzero(tracks.object == instance)
            now = int(np.searchsorted(data.frames, frame))
            back, near, motion = _map_back(sample[0], own, tracked, tracks, frame, now)
            points.append(back)
            colours.append(sample[1][near])
            footprints.append(sample[2][near])
            labels.append(np.full(len(back), instance))
            motions.append(motion)
    if not sum(len(p) for p in points):
        none = torch.zeros(0, dtype=torch.long)
        return Gaussians.empty(config.sh_degree), tracked.motion.select(none), none
    position, label = np.concatenate(points), np.concatenate(labels)
    kept = _thin(position, np.concatenate(footprints), count, label)
    gaussians = _gaussians(position[kept], np.concatenate(colours)[kept], config.sh_degree)
    motion = type(tracked.motion).concatenated(motions).select(torch.from_numpy(kept))
    return gaussians, motion, torch.from_numpy(label[kept]).long()


@torch.no_grad()
def _map_back(
    points: Float[np.ndarray, "points 3"],
    own: Int[np.ndarray, " own"],
    tracked: TrackedMotion,
    tracks: LiftedTracks,
    frame: int,
    now: int,
) -> tuple[Float[np.ndarray, "kept 3"], Int[np.ndarray, " kept"], Motion]:
    """Map points of one object from a frame to the canonical frame.

    A point moves as the tracks nearest to it in that frame do, occluded ones included, which lie
    where their motion has them. Points much farther from any track than is usual are dropped: they
    lie behind the object or in front of it.

    Args:
        points: world positions at the frame.
        own: the object's tracks.
        tracked: motion of all tracks.
        tracks: their observations.
        frame: index in the clip.
        now: the same among the tracks' frames.

    Returns:
        Canonical positions of the points kept, their indices, and their motion.
    """
    motion = tracked.motion.select(torch.from_numpy(own))
    moved = motion.positions(tracked.points[own], torch.tensor([float(frame)]))[0]
    positions = np.where(
        tracks.visible[own, now, None], tracks.xyz[own, now], moved.double().numpy()
    )
    tree = KDTree(positions)
    near = np.zeros(0, int)
    if len(points):
        distance = tree.query(points)[0]
        near = np.flatnonzero(distance < 5 * np.median(distance) + 1e-6)
    count = min(_NEAREST_TRACKS, len(positions))
    distance, index = (
        v.reshape(len(near), count) for v in map(np.asarray, tree.query(points[near], k=count))
    )
    bandwidth = np.maximum(distance.mean(1, keepdims=True), 1e-12)
    weights = torch.from_numpy(np.exp(-((distance / bandwidth) ** 2))).float()
    new = motion.mixed(torch.from_numpy(index).long(), weights)
    back = new.undo(torch.from_numpy(points[near]).float(), float(frame))
    return back.numpy(), near, new


def _sample_frame(
    data: FitData, frame: int, own: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points, colours and pixel footprints of random pixels with known depth in a mask."""
    depth = data.depth[frame].cpu().numpy()
    index = np.flatnonzero((own & (depth > 0)).reshape(-1))
    index = rng.choice(index, min(count, len(index)), replace=False)
    points = world_points_from_depth(depth, data.cameras[frame]).reshape(-1, 3)[index]
    colours = data.rgb[frame].reshape(-1, 3)[torch.from_numpy(index)].cpu().numpy() / 255
    footprints = depth.reshape(-1)[index] / data.cameras.intrinsics[frame, 0, 0]
    return points, colours, footprints


def _thin(
    points: np.ndarray, footprints: np.ndarray, count: int, label: np.ndarray | None = None
) -> np.ndarray:
    """Return indices of at most about `count` points, evenly spread in the images.

    Space is divided into cells of a multiple of the pixel footprint, found by bisection; one point
    per cell is kept.
    """
    if len(points) <= count:
        return np.arange(len(points))
    # One grid per octave of footprint, so that near and far points are equally dense in images.
    octave = np.round(np.log2(np.maximum(footprints, 1e-9)))
    low, high = 0.0, 12.0
    kept = np.arange(len(points))
    for _ in range(14):
        middle = (low + high) / 2
        cell = np.floor(points / (2.0 ** (octave + middle - 4))[:, None]).astype(np.int64)
        keys = np.column_stack([cell, octave.astype(np.int64)])
        if label is not None:
            keys = np.column_stack([keys, label])
        kept = np.unique(keys, axis=0, return_index=True)[1]
        if len(kept) > count:
            low = middle
        else:
            high = middle
    return np.sort(kept)


def _gaussians(points: np.ndarray, colours: np.ndarray, degree: int) -> Gaussians:
    """Make Gaussians whose size is the mean distance to their three nearest neighbours."""
    if len(points) < 2:
        spacing = np.full(len(points), 0.01)
    else:
        count = min(4, len(points))
        spacing = KDTree(points).query(points, k=count)[0][:, 1:].mean(1)
        spacing = spacing.clip(1e-5, 3 * np.median(spacing) + 1e-5)
    return Gaussians.from_points(
        torch.from_numpy(points).float(),
        torch.from_numpy(colours).float(),
        torch.from_numpy(0.7 * spacing).float(),
        opacity=0.6,
        degree=degree,
    )


def _spread(frames: np.ndarray, count: int) -> list[int]:
    """Return at most `count` of the frames, evenly spread, the ends included."""
    return frames[np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))].tolist()


def _moving_area(data: FitData, frames: list[int]) -> int:
    mask = data.mask[frames]
    return int(((mask > 0) & (mask != IGNORE)).sum())
