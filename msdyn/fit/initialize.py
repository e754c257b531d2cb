"""Where a fit starts: motion from the tracks, Gaussians from the depth maps."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData
from msdyn.fit.prefit import PrefitTracks, prefit_motion
from msdyn.geometry import SurfaceSamples, sample_normals, world_points_from_depth
from msdyn.motion import (
    Blend,
    MotionField,
    MotionHierarchy,
    ObjectSurfaces,
    blends_from_neighbours,
    blends_from_votes,
    build_hierarchy,
    build_single,
)
from msdyn.scene import IGNORE, LiftedTracks, Timeline, canonical_frame
from msdyn.sequence import Gaussians, GaussianSequence

__all__ = ["initialize"]

# Frames whose depth maps give the first Gaussians.
_STATIC_FRAMES = 12
_MOVING_FRAMES = 10
# Frames, and samples of an object in each, by which the sides of an occlusion are joined.
_SURFACE_FRAMES = 24
_SURFACE_SAMPLES = 400


def initialize(
    data: FitData, config: FitConfig, timeline: Timeline, world_units: str
) -> GaussianSequence:
    """Build the hierarchy from the tracks, refine it, and place Gaussians on all surfaces seen.

    Args:
        data: the scene; its tracks are those of the fitted frames.
        config: options of the fit.
        timeline, world_units: of the scene, carried along.

    Returns:
        A sequence in the world of the fit, on the CPU.
    """
    canonical = canonical_frame(data.tracks)  # among the fitted frames
    seen = np.flatnonzero(data.tracks.visible.any(1))
    tracks = data.tracks.select(seen)
    hierarchy = _hierarchy(tracks, canonical, config, data)
    field = MotionField.from_hierarchy(hierarchy, data.frames)
    fitted = prefit_motion(
        field,
        hierarchy,
        tracks,
        data.cameras[data.frames],
        config.loss,
        steps=config.motion.prefit_steps,
        seed=config.seed,
    )
    rng = np.random.default_rng(config.seed)
    static = _static_gaussians(data, config, rng)
    moving, blends, objects = _moving_gaussians(data, field, tracks, fitted, config, rng)
    keys = len(field.key_frames)
    if config.motion.weights == "time-varying":
        # Memory of its own for every frame, to be optimised.
        blends = [Blend(b.index, b.logits[..., None].repeat(1, 1, keys)) for b in blends]
    free = config.motion.levels == 4 and config.motion.layout == "hierarchy"
    return GaussianSequence(
        static,
        moving,
        field,
        blends,
        objects,
        timeline=timeline,
        cameras=data.cameras,
        canonical_frame=int(data.frames[canonical]),
        world_units=world_units,
        residual=torch.zeros(len(moving), keys, 3) if free else None,
    )


def _hierarchy(
    tracks: LiftedTracks, canonical: int, config: FitConfig, data: FitData
) -> MotionHierarchy:
    motion = config.motion
    if motion.layout == "single":
        return build_single(tracks, canonical, patterns=motion.k, seed=config.seed)
    return build_hierarchy(
        tracks,
        canonical,
        levels=min(motion.levels, 3),
        k_primitive=motion.k_primitive,
        k_grain=motion.k_grain,
        seed=config.seed,
        surfaces=_object_surfaces(data, np.unique(tracks.object), config.seed),
    )


def _object_surfaces(data: FitData, objects: np.ndarray, seed: int) -> ObjectSurfaces | None:
    """Sample what is seen of the objects, if there are any, in frames spread over the clip."""
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
    field: MotionField,
    tracks: LiftedTracks,
    fitted: PrefitTracks,
    config: FitConfig,
    rng: np.random.Generator,
) -> tuple[Gaussians, list[Blend], torch.Tensor]:
    """Sample the objects in frames spread over the clip and carry the points back to canonical.

    A point keeps the weights that carried it, so that in its own frame it is where it was seen.
    """
    points, colours, objects, footprints = [], [], [], []
    levels: list[list[Blend]] = [[] for _ in range(field.num_levels)]
    count = config.moving_gaussians
    chosen = _spread(data.frames, _MOVING_FRAMES)
    for frame in chosen:
        mask = data.mask[frame].cpu().numpy()
        now = int(np.searchsorted(data.frames, frame))
        for instance in np.unique(fitted.objects):
            area = int((mask == instance).sum())
            share = 3 * count * area // max(_moving_area(data, chosen), 1)
            sample = _sample_frame(data, frame, mask == instance, share, rng)
            # Where the tracks of this object are now, by its motion: occluded ones too.
            own = fitted.objects == instance
            back, near, blends = _carry_back(field, sample[0], own, fitted, frame, tracks, now)
            points.append(back)
            colours.append(sample[1][near])
            footprints.append(sample[2][near])
            objects.append(np.full(len(back), instance))
            for level, blend in zip(levels, blends, strict=True):
                level.append(blend)
    if not sum(len(p) for p in points):
        empty = torch.zeros(0, 1, dtype=torch.long)
        blends = [Blend(empty, torch.zeros(0, 1)) for _ in range(field.num_levels)]
        return Gaussians.empty(config.sh_degree), blends, torch.zeros(0, dtype=torch.long)
    place, label = np.concatenate(points), np.concatenate(objects)
    kept = _thin(place, np.concatenate(footprints), count, label)
    blends = [
        Blend(torch.cat([b.index for b in level])[kept], torch.cat([b.logits for b in level])[kept])
        for level in levels
    ]
    gaussians = _gaussians(place[kept], np.concatenate(colours)[kept], config.sh_degree)
    return gaussians, blends, torch.from_numpy(label[kept]).long()


def _carry_back(
    field: MotionField,
    points: np.ndarray,
    own: np.ndarray,
    fitted: PrefitTracks,
    frame: int,
    tracks: LiftedTracks,
    now: int,
) -> tuple[np.ndarray, np.ndarray, list[Blend]]:
    """Carry points [P, 3] of one object from a frame to the canonical one.

    A point takes the weights of the tracks nearest to it in that frame. Points much further from
    any track than is usual are dropped: they lie behind the object or in front of it.

    Returns:
        Canonical positions of the points kept, their indices, and their weights on each level.
    """
    votes = [vote[own] for vote in fitted.votes]
    with torch.no_grad():
        _, moved = field(
            torch.from_numpy(fitted.points[own]).float(),
            blends_from_votes(field, votes, fitted.places),
            torch.tensor([float(frame)]),
        )
    places = np.where(
        tracks.visible[own, now, None], tracks.xyz[own, now], moved[0].double().numpy()
    )
    near = np.zeros(0, int)
    if len(points):
        distance = KDTree(places).query(points)[0]
        near = np.flatnonzero(distance < 5 * np.median(distance) + 1e-6)
    instance = np.zeros(len(near), int)
    blends = blends_from_neighbours(
        field,
        points[near],
        instance,
        places,
        np.zeros(len(places), int),
        votes,
        places=fitted.places,
    )
    with torch.no_grad():
        back = field.undo(torch.from_numpy(points[near]).float(), blends, float(frame))
    return back.numpy(), near, blends


def _sample_frame(
    data: FitData, frame: int, own: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points, colours and pixel footprints of random pixels of known depth in a mask."""
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
    """Return indices of at most about `count` points, evenly spread as the camera saw them.

    Space is cut into cells of a multiple of the pixel footprint, found by bisection; one point a
    cell stays.
    """
    if len(points) <= count:
        return np.arange(len(points))
    # Octaves of footprint share a grid, so that near and far points are equally dense in the image.
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
