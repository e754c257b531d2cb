"""Stereo4D: VR180 videos with cameras and 3D tracks from stereo.

    <folder>/<clip>.npz                           annotation; the folder is train, test or npz
        camera2world [T, 3, 4]    of the rectified left frames, OpenCV axes, metres
        timestamps [T]            microseconds of the video
        track_lengths [N], track_indices [M], track_coordinates [M, 3]
                                  the frames in which each track is known, one track after
                                  another, and its positions in the world
    processed/<clip>/<clip>-left_rectified.mp4    the left frames, as the authors' `rectify.py`
                                                  writes them: square, 60 degrees wide

The data set has no video: it is made from the original one by that script, with its default field
of view, which no file records. Clips without it are left out. Tracks are known only where they are
visible. No depth is published; that of a frame is the z-depth of its tracks, at their pixels, as
the authors' own depth maps of tracks and as MoVieS does.

Reference: `README.md`, `rectify.py`, `utils.py` (`load_dataset_npz`, `world_2_pix_np`) and
`track_optimization.py` of github.com/Stereo4d/stereo4d-code; depth as in
`src/data/stereo4d_dataset.py` of github.com/chenguolin/MoVieS.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip, ClipFrame, ClipTracks
from msdyn.feedforward.data.convert.files import clip_cameras, clip_name, seen_in_image
from msdyn.feedforward.data.convert.registry import LazyClips, register_converter
from msdyn.geometry import invert_transforms, nearest_pixels, project, transform_points
from msdyn.io.video import read_video, scan_video
from msdyn.reading import check_bytes, load_npz

_FIELD_OF_VIEW = math.radians(60)
_KEYS = ("camera2world", "timestamps", "track_lengths", "track_indices", "track_coordinates")
_ABOUT = {"source": "https://stereo4d.github.io", "licence": "CC BY 4.0"}


@register_converter(
    "stereo4d",
    layout="<folder>/<clip>.npz and processed/<clip>/<clip>-left_rectified.mp4",
)
def clips(source: Path) -> Iterator[LazyClips]:
    """Yield the clips whose rectified video is there."""
    for path in sorted({*source.glob("*.npz"), *source.glob("*/*.npz")}):
        video = source / "processed" / path.stem / f"{path.stem}-left_rectified.mp4"
        if video.is_file():
            yield partial(_clip, path, video)


def _clip(path: Path, video: Path) -> Clip:
    arrays = load_npz(path, _KEYS)
    times = arrays["timestamps"]
    if (
        times.ndim != 1
        or times.dtype.kind not in "fiu"
        or (np.diff(times.astype(float)) <= 0).any()
    ):
        raise InputError(f"{path}: timestamps: expected increasing numbers")
    count = len(times)
    info = scan_video(video)
    if len(info.seconds) != count:
        raise InputError(
            f"{video}: expected {count} frames, as {path.name} has, got {len(info.seconds)}"
        )
    if info.width != info.height:
        raise InputError(f"{video}: expected square frames, got {info.width}x{info.height} px")
    focal = info.width / 2 / math.tan(_FIELD_OF_VIEW / 2)
    world_from_cam, intrinsics = clip_cameras(
        path,
        np.tile([focal, focal, info.width / 2, info.height / 2], (count, 1)),
        _cam_from_world(path, arrays["camera2world"], count),
        info.width,
        info.height,
    )
    points = _points(path, arrays, count)
    visible = seen_in_image(points, world_from_cam, intrinsics)
    return Clip(
        clip_name(path.parent.name, path.stem),
        "stereo4d",
        times.astype(np.float64),
        world_from_cam,
        intrinsics,
        "tracks",
        _Frames(video, info.width, points, world_from_cam, focal),
        tracks=ClipTracks(points, visible),
        about=dict(_ABOUT),
    )


def _cam_from_world(path: Path, poses: np.ndarray, count: int) -> Float64[np.ndarray, "times 4 4"]:
    if poses.shape != (count, 3, 4) or poses.dtype.kind != "f" or not np.isfinite(poses).all():
        raise InputError(
            f"{path}: camera2world: expected finite numbers [{count}, 3, 4], got {poses.shape}"
        )
    world_from_cam = np.tile(np.eye(4), (count, 1, 1))
    world_from_cam[:, :3] = poses
    return invert_transforms(world_from_cam)


def _points(
    path: Path, arrays: dict[str, np.ndarray], count: int
) -> Float32[np.ndarray, "times tracks 3"]:
    """Return the tracks, NaN where they are not known."""
    lengths, frames = arrays["track_lengths"], arrays["track_indices"]
    positions = arrays["track_coordinates"]
    whole = lengths.dtype.kind in "iu" and frames.dtype.kind in "iu"
    if not whole or lengths.ndim != 1 or (lengths < 0).any():
        raise InputError(f"{path}: track_lengths, track_indices: expected whole numbers")
    known = int(lengths.sum())
    if frames.shape != (known,) or positions.shape != (known, 3) or positions.dtype.kind != "f":
        raise InputError(
            f"{path}: expected track_indices [{known}] and track_coordinates [{known}, 3], as "
            f"track_lengths has, got {frames.shape} and {positions.shape}"
        )
    if known and (frames.min() < 0 or frames.max() >= count):
        raise InputError(
            f"{path}: track_indices: expected frames 0 to {count - 1}, got {frames.min()} to "
            f"{frames.max()}"
        )
    check_bytes(count * len(lengths) * 12, f"{path}: {len(lengths)} tracks")
    points = np.full((count, len(lengths), 3), np.nan, np.float32)
    points[frames, np.repeat(np.arange(len(lengths)), lengths)] = positions
    points[~np.isfinite(points).all(-1)] = np.nan
    return points


class _Frames:
    """Loads frames of a video, fastest in their order, with the depth of tracks."""

    def __init__(
        self,
        video: Path,
        size: int,
        points: Float32[np.ndarray, "times tracks 3"],
        world_from_cam: Float64[np.ndarray, "times 4 4"],
        focal: float,
    ) -> None:
        self._video, self._size, self._points = video, size, points
        self._cam_from_world = invert_transforms(world_from_cam)
        self._k = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        self._images: Iterator[UInt8[np.ndarray, "height width 3"]] = iter(())
        self._next = len(points)

    def __call__(self, index: int) -> ClipFrame:
        return ClipFrame(self._image(index), self._depth(index))

    def _image(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        if index < self._next:
            self._images, self._next = read_video(self._video), 0
        for image in self._images:
            self._next += 1
            if self._next == index + 1:
                return image
        raise InputError(f"{self._video}: it has no frame {index}")

    def _depth(self, index: int) -> Float32[np.ndarray, "height width"]:
        points = self._points[index].astype(np.float64)
        points = points[np.isfinite(points).all(-1)]
        points = transform_points(self._cam_from_world[index], points)
        points = points[points[:, 2] > 0]
        row, column, inside = nearest_pixels(project(self._k, points), self._size, self._size)
        depth = np.full((self._size, self._size), np.inf, np.float32)
        np.minimum.at(depth, (row[inside], column[inside]), points[inside, 2].astype(np.float32))
        return np.where(np.isfinite(depth), depth, 0)
