"""Dynamic Replica: synthetic stereo videos with depth, cameras and 3D tracks.

    <split>/frame_annotations_<split>.jgz     gzipped JSON, a list of one object per frame:
        sequence_name, camera_name (left or right), frame_number, frame_timestamp (s)
        image {path, size [H, W]}, depth {path, scale_adjustment}, trajectories {path}: paths are
            relative to <split>
        viewpoint {R [3, 3], T [3], focal_length [2], principal_point [2], intrinsics_format}
    depth PNGs     the 16 bits are those of a float16, z-depth in metres
    trajectories   .pth of a dict of tensors: traj_3d_world [N, 3], traj_2d [N, 3] (x px, y px,
                   depth), verts_inds_vis [N]; the same points in all frames of one camera

Cameras follow PyTorch3D: x_cam = x_world R + T for row vectors, x left, y up, z forward;
intrinsics are in its normalised device coordinates (`ndc_isotropic`: of half the shorter side,
`ndc_norm_image_bounds`: of half of each side), positive left and up of the image's centre. The
motion of a camera without trajectories is unknown (MoVieS uses the left cameras, which have them;
frames without them in a camera that has them are an error). Tensors are read by torch with
`weights_only`. 3D tracks must project to the 2D tracks, which would tell cameras of another
convention.

Reference: `notebooks/Dynamic_Replica_demo.ipynb` and `datasets/dynamic_stereo_datasets.py` of
github.com/facebookresearch/dynamic_stereo; the keys of trajectories as read by
`cotracker/datasets/dr_dataset.py` of github.com/facebookresearch/co-tracker; folders and the
conversion of cameras as in `data_processing/wai_processing/scripts/conversion/dynamicreplica.py` of
github.com/facebookresearch/map-anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip, ClipTracks
from msdyn.feedforward.data.convert.files import (
    FrameFiles,
    check_projection,
    clip_cameras,
    clip_name,
    known_depth,
    seen_in_image,
)
from msdyn.feedforward.data.convert.registry import LazyClips, register_converter
from msdyn.reading import read_gzipped_json, read_png16, read_torch, required_file

_KEYS = ("traj_3d_world", "traj_2d", "verts_inds_vis")
_ABOUT = {"source": "https://dynamic-stereo.github.io", "licence": "CC BY-NC 4.0"}


@register_converter(
    "dynamic_replica", layout="<split>/frame_annotations_<split>.jgz and the files that it names"
)
def clips(source: Path) -> Iterator[LazyClips]:
    """Yield one clip per sequence and camera."""
    found = {*source.glob("frame_annotations_*.jgz"), *source.glob("*/frame_annotations_*.jgz")}
    for path in sorted(found):
        split = path.name.removeprefix("frame_annotations_").removesuffix(".jgz")
        for (sequence, camera), frames in _sequences(path).items():
            yield partial(_clip, path, clip_name(split, sequence, camera), frames)


def _sequences(path: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the annotations of the frames by sequence and camera, in the order of time."""
    content = read_gzipped_json(path)
    if not isinstance(content, list) or not all(isinstance(frame, dict) for frame in content):
        raise InputError(f"{path}: expected a list of annotations of frames")
    sequences: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for frame in content:
        name, camera = _text(path, frame, "sequence_name"), _text(path, frame, "camera_name")
        _number(path, frame, "frame_number")
        sequences[name, camera].append(frame)
    for frames in sequences.values():
        frames.sort(key=lambda frame: frame["frame_number"])
    return dict(sequences)


def _clip(path: Path, name: str, frames: list[dict[str, Any]]) -> Clip:
    width, height = _size(path, frames[0])
    if any(_size(path, frame) != (width, height) for frame in frames):
        raise InputError(f"{path}: {name}: expected images of one size")
    world_from_cam, intrinsics = clip_cameras(
        path,
        np.stack([_intrinsics(path, frame, width, height) for frame in frames]),
        np.stack([_cam_from_world(path, frame) for frame in frames]),
        width,
        height,
    )
    times = np.array([_number(path, frame, "frame_timestamp") for frame in frames], np.float64)
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise InputError(f"{path}: {name}: expected increasing frame_timestamp")
    files = FrameFiles(
        tuple(_file(path, frame, "image") for frame in frames),
        width,
        height,
        tuple(_file(path, frame, "depth") for frame in frames),
        _read_depth,
    )
    tracks = None
    if any(map(partial(_has_tracks, path), frames)):
        tracks = _tracks(path, frames, world_from_cam, intrinsics, width, height)
    return Clip(
        name,
        "dynamic_replica",
        times,
        world_from_cam,
        intrinsics,
        "unknown" if tracks is None else "tracks",
        files,
        tracks=tracks,
        about=dict(_ABOUT),
    )


def _has_tracks(path: Path, frame: dict[str, Any]) -> bool:
    part = frame.get("trajectories")
    name = part.get("path") if isinstance(part, dict) else None
    return isinstance(name, str) and bool(name) and (path.parent / name).is_file()


def _tracks(
    path: Path,
    frames: list[dict[str, Any]],
    world_from_cam: Float64[np.ndarray, "times 4 4"],
    intrinsics: Float64[np.ndarray, "times 4"],
    width: int,
    height: int,
) -> ClipTracks:
    positions, visibilities = [], []
    for time, frame in enumerate(frames):
        file = _file(path, frame, "trajectories")
        points, pixels, visible = _read_tracks(file)
        if positions and points.shape != positions[0].shape:
            raise InputError(
                f"{file}: expected the {len(positions[0])} tracks of the sequence's first frame, "
                f"got {len(points)}"
            )
        if time == 0:
            check_projection(
                file, points, pixels, visible, world_from_cam[0], intrinsics[0], width, height
            )
        positions.append(points)
        visibilities.append(visible)
    points, visible = np.stack(positions), np.stack(visibilities)
    points[~np.isfinite(points).all(-1)] = np.nan
    visible &= seen_in_image(points, world_from_cam, intrinsics)
    seen = visible.any(0)
    return ClipTracks(points[:, seen], visible[:, seen])


def _read_tracks(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions [N, 3], pixels [N, 2] and visibility [N] of the tracks of a frame."""
    content = read_torch(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), torch.Tensor) for key in _KEYS
    ):
        raise InputError(f"{path}: expected tensors {', '.join(_KEYS)}")
    points, pixels, visible = (content[key].detach().double().numpy() for key in _KEYS)
    if (
        points.ndim != 2
        or points.shape[1] != 3
        or pixels.shape[0] != len(points)
        or pixels.ndim != 2
        or pixels.shape[1] < 2
        or visible.shape != (len(points),)
    ):
        raise InputError(
            f"{path}: expected traj_3d_world [N, 3], traj_2d [N, 3], verts_inds_vis [N], "
            f"got {points.shape}, {pixels.shape}, {visible.shape}"
        )
    return points.astype(np.float32), pixels[:, :2], visible > 0.5


def _read_depth(path: Path, index: int) -> Float32[np.ndarray, "height width"]:
    del index
    return known_depth(read_png16(path).view(np.float16).astype(np.float32))


def _intrinsics(
    path: Path, frame: dict[str, Any], width: int, height: int
) -> Float64[np.ndarray, " 4"]:
    """Return fx, fy, cx, cy, px."""
    viewpoint = _part(path, frame, "viewpoint")
    half = np.array([width, height], np.float64) / 2
    formats = {"ndc_isotropic": np.full(2, half.min()), "ndc_norm_image_bounds": half}
    name = str(viewpoint.get("intrinsics_format", "ndc_norm_image_bounds")).lower()
    if name not in formats:
        raise InputError(
            f"{path}: intrinsics_format: expected one of {', '.join(formats)}, got {name!r}"
        )
    unit = formats[name]
    focal = _array(path, viewpoint, "focal_length", (2,)) * unit
    centre = half - _array(path, viewpoint, "principal_point", (2,)) * unit
    return np.concatenate([focal, centre])


def _cam_from_world(path: Path, frame: dict[str, Any]) -> Float64[np.ndarray, "4 4"]:
    viewpoint = _part(path, frame, "viewpoint")
    opencv_from_pytorch3d = np.diag([-1.0, -1.0, 1.0])
    pose = np.eye(4)
    pose[:3, :3] = opencv_from_pytorch3d @ _array(path, viewpoint, "R", (3, 3)).T
    pose[:3, 3] = opencv_from_pytorch3d @ _array(path, viewpoint, "T", (3,))
    return pose


def _size(path: Path, frame: dict[str, Any]) -> tuple[int, int]:
    """Return width and height."""
    height, width = _array(path, _part(path, frame, "image"), "size", (2,))
    return int(width), int(height)


def _file(path: Path, frame: dict[str, Any], key: str) -> Path:
    """Return the file that an annotation names, which must be below the annotations' folder."""
    part = _part(path, frame, key)
    name = PurePosixPath(_text(path, part, "path"))
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"{path}: {key}: expected a path inside the split's folder, got {name}")
    if key == "depth" and part.get("scale_adjustment") not in (None, 1, 1.0):
        raise InputError(
            f"{path}: depth: expected scale_adjustment 1, got {part['scale_adjustment']!r}"
        )
    return required_file(path.parent / name)


def _part(path: Path, content: dict[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(content.get(key), dict):
        raise InputError(f"{path}: {key}: expected an object in each annotation")
    return content[key]


def _text(path: Path, content: dict[str, Any], key: str) -> str:
    if not isinstance(content.get(key), str):
        raise InputError(f"{path}: {key}: expected text, got {content.get(key)!r}")
    return content[key]


def _number(path: Path, content: dict[str, Any], key: str) -> float:
    if not isinstance(content.get(key), (int, float)):
        raise InputError(f"{path}: {key}: expected a number, got {content.get(key)!r}")
    return content[key]


def _array(
    path: Path, content: dict[str, Any], key: str, shape: tuple[int, ...]
) -> Float64[np.ndarray, " ..."]:
    try:
        values = np.array(content.get(key), np.float64)
    except (TypeError, ValueError):
        values = np.full((), np.nan)
    if values.shape != shape or not np.isfinite(values).all():
        expected = "x".join(map(str, shape))
        found = str(content.get(key))[:80]
        raise InputError(f"{path}: {key}: expected {expected} numbers, got {found}")
    return values
