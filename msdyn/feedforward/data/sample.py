"""A training sample of a clip, in the canonical world of its input frames.

The canonical world is the camera of the first input frame; its unit is the mean distance of the
known points of the input frames. Without depth, the input camera that is farthest from the first
is `TRAVEL` away, and a camera that does not move keeps the unit of the data set.

F input frames, Q query times, H x W pixels, K objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8

from msdyn.errors import InputError
from msdyn.feedforward.data.datasets import dataset_info
from msdyn.feedforward.data.index import ClipEntry
from msdyn.feedforward.data.sampling import (
    Crop,
    FrameChoice,
    QueryTimes,
    choose_frames,
    largest_angle,
    random_crop,
)
from msdyn.feedforward.data.stored import StoredClip
from msdyn.feedforward.splats import points_from_depth
from msdyn.geometry import nearest_pixels

__all__ = ["ClipSample", "draw_sample", "is_static"]

TRAVEL = 0.3
"""Largest distance of an input camera to the first one, where no depth is known."""
_TRIES = 20
_LEAST_KNOWN = 0.01
_LARGEST_ANGLE = 45.0
_TRACK_MOVES = 0.005
_POSE_CHANGES = 1e-5


@dataclass(frozen=True)
class ClipSample:
    """Input and ground truth of a scene of a batch; `TrainingBatch` describes them.

    Attributes:
        objects: K for static surfaces.
        frame_poses, query_poses: with the identity as the last.
        redrawn: choices of frames that were dropped before this one.
    """

    images: UInt8[np.ndarray, "frames height width 3"]
    depth: Float32[np.ndarray, "frames height width"]
    valid: Bool[np.ndarray, "frames height width"]
    moving: Bool[np.ndarray, "frames height width"]
    objects: Int64[np.ndarray, "frames height width"]
    world_from_cam: Float32[np.ndarray, "frames 4 4"]
    intrinsics: Float32[np.ndarray, "frames 4"]
    choice: FrameChoice
    frame_poses: Float32[np.ndarray, "frames objects 4 4"]
    query_poses: Float32[np.ndarray, "queries objects 4 4"]
    target_images: UInt8[np.ndarray, "queries height width 3"] | None
    target_world_from_cam: Float32[np.ndarray, "queries 4 4"]
    target_intrinsics: Float32[np.ndarray, "queries 4"]
    displacement: Float32[np.ndarray, "queries frames height width 3"] | None
    known: Bool[np.ndarray, "queries frames height width"] | None
    redrawn: int


def is_static(entry: ClipEntry) -> bool:
    """Return whether nothing moves in a clip."""
    return entry.motion == "static" or (
        entry.motion == "unknown" and dataset_info(entry.dataset).static
    )


def draw_sample(
    clip: StoredClip,
    size: tuple[int, int],
    frames: int,
    queries: int,
    generator: np.random.Generator,
    *,
    crop: tuple[float, float],
    query_times: QueryTimes,
    targets: bool,
) -> ClipSample:
    """Draw a sample of a clip.

    Frames are chosen again where neighbouring ones are rotated by more than 45 degrees, or less
    than 1 % of the depth is known.

    Args:
        clip: the clip.
        size: height and width, px.
        frames: inputs.
        queries: outputs.
        generator: of all choices.
        crop: smallest and largest share of the image.
        query_times: as in `choose_frames`.
        targets: read the images of the outputs.

    Raises:
        InputError: no choice of frames is good enough, or the clip cannot be read.
    """
    info = dataset_info(clip.entry.dataset)
    reason = ""
    for redrawn in range(_TRIES):
        choice = choose_frames(
            clip, frames, queries, generator,
            stride=info.stride, static=is_static(clip.entry), query_times=query_times,
        )  # fmt: skip
        part = random_crop(clip.entry.size, size, crop, generator)
        angle = largest_angle(clip.world_from_cam[choice.inputs])
        if angle > _LARGEST_ANGLE:
            reason = f"neighbouring frames are rotated by {angle:.0f} degrees"
            continue
        depth = _depth(clip, choice, part)
        valid = depth > 0
        if clip.entry.has_depth and valid.mean() < _LEAST_KNOWN:
            reason = f"the depth of {valid.mean():.2%} of the pixels is known"
            continue
        if info.depth_quantiles is not None:
            valid &= _within(depth, info.depth_quantiles)
        return _sample(clip, choice, part, depth, valid, targets, redrawn)
    raise InputError(
        f"{clip.entry.tar}: clip {clip.entry.key}: none of {_TRIES} choices of {frames} frames is "
        f"usable ({reason}); remove the clip"
    )


def _depth(
    clip: StoredClip, choice: FrameChoice, crop: Crop
) -> Float32[np.ndarray, "frames height width"]:
    depth = np.zeros((len(choice.inputs), *crop.size), np.float32)
    for index, frame in enumerate(choice.inputs.tolist()):
        full = clip.depth(frame)
        if full is not None:
            depth[index] = crop.nearest(full)
    return depth


def _within(
    depth: Float32[np.ndarray, "frames height width"], quantiles: tuple[float, float]
) -> Bool[np.ndarray, "frames height width"]:
    """Return the pixels of each frame whose depth is between quantiles of its known depth."""
    within = np.zeros(depth.shape, bool)
    for own, result in zip(depth, within, strict=True):
        if (own > 0).any():
            low, high = np.quantile(own[own > 0], quantiles)
            result[:] = (own >= low) & (own <= high)
    return within


def _sample(
    clip: StoredClip,
    choice: FrameChoice,
    crop: Crop,
    depth: Float32[np.ndarray, "frames height width"],
    valid: Bool[np.ndarray, "frames height width"],
    targets: bool,
    redrawn: int,
) -> ClipSample:
    inputs, outputs = choice.inputs, choice.outputs
    first = clip.world_from_cam[inputs[0]]
    intrinsics = crop.intrinsics(clip.intrinsics)
    cameras = _canonical(clip.world_from_cam, first, 1.0)
    points = _points(depth, cameras[inputs], intrinsics[inputs])
    scale = _unit(points, valid, cameras[inputs])
    cameras = _canonical(clip.world_from_cam, first, scale).astype(np.float32)

    static = clip.entry.objects
    objects = np.full(depth.shape, static, np.int64)
    moving = np.zeros(depth.shape, bool)
    poses = np.zeros((len(clip), 0, 4, 4))
    displacement = known = None
    if clip.poses is not None:
        poses = _canonical(clip.poses, first, scale)
        for index, frame in enumerate(inputs.tolist()):
            labels = clip.objects(frame)
            if labels is not None:
                labels = crop.nearest(labels).astype(np.int64)
                objects[index] = np.where(labels > 0, labels - 1, static)
        used = poses[np.concatenate([inputs, outputs])]
        change = used @ np.linalg.inv(used[:1]) - np.eye(4)
        moves = np.append((np.abs(change) > _POSE_CHANGES).any(axis=(0, 2, 3)), False)
        moving = moves[objects]
    elif clip.entry.motion == "tracks":
        displacement, known, moving = _tracked(
            clip, choice, first, scale, cameras, intrinsics, crop.size
        )
    identity = np.broadcast_to(np.eye(4), (len(clip), 1, 4, 4))
    poses = np.concatenate([poses, identity], axis=1).astype(np.float32)
    return ClipSample(
        images=np.stack([crop.image(clip.image(frame)) for frame in inputs.tolist()]),
        depth=np.where(valid, depth / scale, 0).astype(np.float32),
        valid=valid,
        moving=moving,
        objects=objects,
        world_from_cam=cameras[inputs],
        intrinsics=intrinsics[inputs],
        choice=choice,
        frame_poses=poses[inputs],
        query_poses=poses[outputs],
        target_images=(
            np.stack([crop.image(clip.image(frame)) for frame in outputs.tolist()])
            if targets
            else None
        ),
        target_world_from_cam=cameras[outputs],
        target_intrinsics=intrinsics[outputs],
        displacement=displacement,
        known=known,
        redrawn=redrawn,
    )


def _canonical(
    poses: Float64[np.ndarray, "*batch 4 4"], first: Float64[np.ndarray, "4 4"], scale: float
) -> Float64[np.ndarray, "*batch 4 4"]:
    """Return poses relative to the first camera, in a unit of `scale`."""
    canonical = np.linalg.inv(first) @ poses
    canonical[..., :3, 3] /= scale
    return canonical


def _points(
    depth: Float32[np.ndarray, "frames height width"],
    cameras: Float64[np.ndarray, "frames 4 4"],
    intrinsics: Float32[np.ndarray, "frames 4"],
) -> Float32[np.ndarray, "frames height width 3"]:
    tensors = (torch.from_numpy(np.ascontiguousarray(a)) for a in (depth, cameras, intrinsics))
    return points_from_depth(*(tensor.float() for tensor in tensors)).numpy()


def _unit(
    points: Float32[np.ndarray, "frames height width 3"],
    valid: Bool[np.ndarray, "frames height width"],
    cameras: Float64[np.ndarray, "frames 4 4"],
) -> float:
    """Return the unit of the canonical world in that of the data set."""
    if valid.any():
        unit = float(np.linalg.norm(points[valid].astype(np.float64), axis=-1).mean())
    else:
        unit = float(np.linalg.norm(cameras[:, :3, 3], axis=-1).max()) / TRAVEL
    return unit if unit > 0 else 1.0


def _tracked(
    clip: StoredClip,
    choice: FrameChoice,
    first: Float64[np.ndarray, "4 4"],
    scale: float,
    cameras: Float32[np.ndarray, "times 4 4"],
    intrinsics: Float32[np.ndarray, "times 4"],
    size: tuple[int, int],
) -> tuple[
    Float32[np.ndarray, "queries frames height width 3"],
    Bool[np.ndarray, "queries frames height width"],
    Bool[np.ndarray, "frames height width"],
]:
    """Return the displacement of the tracks to the query times, at the pixels that show them.

    Also return where it is known, and the pixels whose track moves. Of several tracks in a pixel,
    the nearest to the camera counts.
    """
    from_world = np.linalg.inv(first)

    def canonical(points: Float[np.ndarray, "tracks 3"]) -> Float64[np.ndarray, "tracks 3"]:
        return (points @ from_world[:3, :3].T + from_world[:3, 3]) / scale

    later = np.stack([canonical(clip.tracks(frame)[0]) for frame in choice.outputs.tolist()])
    shape = (len(choice.outputs), len(choice.inputs), *size)
    displacement, known = np.zeros((*shape, 3), np.float32), np.zeros(shape, bool)
    moving = np.zeros(shape[1:], bool)
    for index, frame in enumerate(choice.inputs.tolist()):
        points, visible = clip.tracks(frame)
        points = canonical(points)
        usable = visible & np.isfinite(points).all(axis=-1)
        camera = cameras[frame].astype(np.float64)
        local = (points[usable] - camera[:3, 3]) @ camera[:3, :3]
        z = local[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            place = local[:, :2] / z[:, None] * intrinsics[frame, :2] + intrinsics[frame, 2:]
        row, column, inside = nearest_pixels(place * [size[1], size[0]], *size)
        shown = np.flatnonzero(inside & (z > 0))
        shown = shown[np.argsort(-z[shown], kind="stable")]  # the nearest is written last
        row, column, chosen = row[shown], column[shown], np.flatnonzero(usable)[shown]
        shift = later[:, chosen] - points[chosen]
        finite = np.all(np.isfinite(shift), axis=-1, keepdims=True)
        shift = np.where(finite, shift, 0)
        displacement[:, index, row, column] = shift
        known[:, index, row, column] = finite[..., 0]
        moves = np.linalg.norm(shift, axis=-1) > _TRACK_MOVES
        moving[index, row, column] = moves.any(axis=0)
    return displacement, known, moving
