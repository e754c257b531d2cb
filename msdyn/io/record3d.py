"""Record3D's recordings: video, poses, intrinsics and LiDAR depth of an iPhone or iPad.

An `.r3d` file is a zip, which may also be unpacked to a folder:

    metadata         JSON: w h (images), dw dh (depth), fps, K, poses, perFrameIntrinsicCoeffs,
                     frameTimestamps
    rgbd/<n>.jpg     the image of frame n = 0, 1, ...
    rgbd/<n>.depth   z-depth [dh, dw] in metres, float32, packed by LZFSE; NaN unknown
    rgbd/<n>.conf    confidence [dh, dw], uint8, packed by LZFSE: 0 low, 1 medium, 2 high

The export "EXR + RGB" is a folder, `EXR_RGBD`:

    metadata.json, rgb/<n>.jpg or .png, depth/<n>.exr (channel R, metres)

K is stored by columns, in pixels of w x h; images may be larger. A row of poses is qx qy qz qw tx
ty tz, world from camera, in OpenGL's axes (y up, z backward), metres; a row of
perFrameIntrinsicCoeffs is fx fy cx cy.

Reference: the author's answers in issues 7, 27, 36, 64 and 67 of github.com/marek-simonik/record3d.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Float32, Float64

from msdyn.errors import InputError
from msdyn.geometry import Cameras, invert_transforms
from msdyn.io.depth_maps import read_depth_map
from msdyn.io.posed_images import checked_cameras
from msdyn.reading import (
    LARGEST_SIDE,
    MOST_FRAMES,
    ZipMembers,
    as_schema,
    check_image_size,
    decode_json,
    opened_zip,
    read_bytes,
    reading,
    unpack_lzfse,
)

__all__ = ["Record3D"]

_LARGEST_MEMBER = 2**28
_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_EXPORT = "EXR_RGBD"
_IMAGE = re.compile(r"(?:rgbd|rgb)/(\d{1,9})\.(?:jpe?g|png)", re.IGNORECASE)

_Side = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_SIDE)]


@dataclass(frozen=True)
class _Metadata:
    """What is read of the metadata."""

    w: _Side
    h: _Side
    K: tuple[float, float, float, float, float, float, float, float, float]
    fps: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 60.0
    dw: int = 192
    dh: int = 256
    poses: list[tuple[float, float, float, float, float, float, float]] | None = None
    perFrameIntrinsicCoeffs: list[list[float]] | None = None
    frameTimestamps: list[float] | None = None


class Record3D:
    """A recording opened for reading.

    Attributes:
        path: of the file or folder.
        seconds: time stamps of the frames, the first at 0.
        cameras: one per frame, in metres, OpenCV axes, for images of `w` x `h`; None where the
            recording has no poses, as those with the front camera.
        intrinsics: fx fy cx cy of the first frame.
        size: height and width that the intrinsics belong to.
        has_depth: whether every frame has depth.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Read the metadata and the names of the frames.

        Raises:
            FileNotFoundError: there is no such file or folder.
            InputError: no recording of Record3D, or its metadata are damaged.
        """
        self.path = _export_in(Path(path))
        with self._opened() as members, reading(self.path, "recording of Record3D"):
            self._images = _images_of(members.names, self.path)
            self._depths = _depths_of(members.names, self._images)
            self._confidences = {name for name in members.names if name.endswith(".conf")}
            self._metadata = _read_metadata(members, self.path)
        self.size = self._metadata.h, self._metadata.w
        self.has_depth = len(self._depths) == len(self._images)
        self.seconds = self._seconds()
        rows = self._intrinsics()
        self.intrinsics = tuple(rows[0].tolist())
        self.cameras = self._cameras(rows)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._images)

    def images(self) -> Iterator[bytes]:
        """Yield the JPEG, or PNG, of each frame."""
        with self._opened() as members:
            for name in self._images:
                yield members.read(name, _LARGEST_MEMBER)

    def depths(self) -> Iterator[Float32[np.ndarray, "height width"]]:
        """Yield the z-depth of each frame in metres, 0 where it is unknown.

        Values of low confidence are unknown. The size is that of the sensor.

        Raises:
            InputError: a depth map is damaged or of another size.
            MissingExtraError: the package that unpacks it is not installed.
        """
        with self._opened() as members:
            for name in self._depths:
                if name.endswith(".exr"):
                    yield read_depth_map(self.path / name)
                    continue
                depth = self._map(members, name, np.dtype("<f4"))
                known = np.isfinite(depth) & (depth > 0)
                confidence = name.removesuffix(".depth") + ".conf"
                if confidence in self._confidences:
                    known &= self._map(members, confidence, np.dtype(np.uint8)) > 0
                yield np.where(known, depth, np.float32(0))

    def _map(self, members: _Members, name: str, dtype: np.dtype) -> np.ndarray:
        """Return an image of the size of the depth sensor."""
        where = f"{self.path}: {name}"
        width, height = self._metadata.dw, self._metadata.dh
        check_image_size(width, height, f"{where}: dw, dh")
        size = width * height * dtype.itemsize
        data = members.read(name, _LARGEST_MEMBER)
        data = data if len(data) == size else unpack_lzfse(data, size, where)
        return np.frombuffer(data, dtype).reshape(height, width)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[_Members]:
        if self.path.is_dir():
            yield _Folder(self.path)
        else:
            with opened_zip(self.path) as members:
                yield members

    def _seconds(self) -> Float64[np.ndarray, " frames"]:
        stamps = np.array(self._metadata.frameTimestamps or (), np.float64)[: len(self)]
        if len(stamps) == len(self) and np.isfinite(stamps).all() and (np.diff(stamps) > 0).all():
            return stamps - stamps[0]
        return np.arange(len(self)) / self._metadata.fps

    def _intrinsics(self) -> Float64[np.ndarray, "frames 4"]:
        """Return fx fy cx cy of each frame."""
        k = self._metadata.K
        rows = np.tile(np.array([k[0], k[4], k[6], k[7]]), (len(self), 1))
        own = (self._metadata.perFrameIntrinsicCoeffs or [])[: len(self)]
        if len(own) == len(self) and all(len(row) == 4 for row in own):
            rows = np.array(own, np.float64)
        if not np.isfinite(rows).all() or not (rows[:, :2] > 0).all():
            raise InputError(f"{self.path}: metadata: expected focal lengths > 0")
        return rows

    def _cameras(self, rows: Float64[np.ndarray, "frames 4"]) -> Cameras | None:
        from scipy.spatial.transform import Rotation

        poses = np.array(self._metadata.poses or (), np.float64).reshape(-1, 7)
        if not np.any(poses[:, :4]):
            return None
        if len(poses) < len(self):
            raise InputError(
                f"{self.path}: metadata: poses: expected one for each of {len(self)} images, got "
                f"{len(poses)}"
            )
        poses = poses[: len(self)]
        if not np.isfinite(poses).all() or not np.linalg.norm(poses[:, :4], axis=1).all():
            raise InputError(f"{self.path}: metadata: poses: expected qx qy qz qw tx ty tz")
        world_from_cam = np.tile(np.eye(4), (len(poses), 1, 1))
        world_from_cam[:, :3, :3] = Rotation.from_quat(poses[:, :4]).as_matrix()
        world_from_cam[:, :3, 3] = poses[:, 4:]
        intrinsics = np.tile(np.eye(3), (len(rows), 1, 1))
        intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]] = rows
        pose = invert_transforms(world_from_cam @ _OPENGL_FROM_OPENCV)
        return checked_cameras(self.path, intrinsics, pose, self.size[1], self.size[0])


class _Folder:
    """The files of an unpacked recording, by the names that a zip file gives them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        folders = [path, *(path / name for name in ("rgbd", "rgb", "depth"))]
        files = (f for folder in folders if folder.is_dir() for f in folder.iterdir())
        self.names = tuple(f.relative_to(path).as_posix() for f in files if f.is_file())

    def read(self, name: str, largest: int) -> bytes:
        """Return the content of a file."""
        return read_bytes(self._path / name, largest)


_Members = ZipMembers | _Folder


def _export_in(path: Path) -> Path:
    """Return the folder that holds the metadata, where there is one within another."""
    return path / _EXPORT if (path / _EXPORT).is_dir() else path


def _read_metadata(members: _Members, path: Path) -> _Metadata:
    names = [name for name in ("metadata", "metadata.json") if name in members.names]
    if not names:
        raise InputError(f"{path}: not a recording of Record3D (no metadata in it)")
    where = f"{path}: {names[0]}"
    return as_schema(decode_json(members.read(names[0], _LARGEST_MEMBER), where), _Metadata, where)


def _images_of(names: tuple[str, ...], path: Path) -> list[str]:
    """Return the names of the images, by frame."""
    found = {int(match[1]): name for name in names if (match := _IMAGE.fullmatch(name))}
    if len(found) < 2:
        raise InputError(
            f"{path}: not a recording of Record3D (no images rgbd/0.jpg, ... or rgb/0.jpg, ...)"
        )
    missing = sorted(set(range(min(len(found), MOST_FRAMES))) - set(found))
    if missing:
        raise InputError(f"{path}: the image of frame {missing[0]} is missing")
    return [found[frame] for frame in range(len(found))]


def _depths_of(names: tuple[str, ...], images: list[str]) -> list[str]:
    """Return the names of the depth maps of the images that have one."""
    present = set(names)
    stems = [Path(name).stem for name in images]
    found = [
        next((n for n in (f"rgbd/{s}.depth", f"depth/{s}.exr") if n in present), "") for s in stems
    ]
    return [name for name in found if name]
