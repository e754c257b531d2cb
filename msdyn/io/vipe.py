"""ViPE's results: video, cameras, metric depth and masks of instances of one or more clips.

    rgb/<clip>.mp4                    the frames
    pose/<clip>.npz                   data [N, 4, 4] world from camera, OpenCV axes; inds [N] frames
    intrinsics/<clip>.npz             data [N, 4] fx fy cx cy in pixels of the video; inds [N]
    intrinsics/<clip>_camera.txt      a line per frame, `0: PINHOLE`
    depth/<clip>.zip                  00000.exr, ...: channel Z, half floats, metres
    mask/<clip>.zip, mask/<clip>.txt  00000.png, ...: 0 background, 1.. instances; `1: person`

Depth and masks may be missing. Where an instance is sky, it is background here.

Reference: vipe/utils/io.py and vipe/utils/cameras.py in github.com/nv-tlabs/vipe (Huang et al.,
2025).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras, invert_transforms
from msdyn.io.posed_images import checked_cameras
from msdyn.reading import (
    load_npz,
    natural_order,
    opened_video,
    opened_zip,
    read_lines,
    read_pixels,
    shown,
)

__all__ = ["Vipe"]

_SKY = "sky"
_HEADER_BYTES, _PIXEL_BYTES = 2**16, 16
"""Most bytes of an EXR or a PNG beside its pixels, and of a pixel."""


class Vipe:
    """The result of one clip.

    Attributes:
        name: of the clip.
        video: its file.
        cameras: one per frame; OpenCV axes.
        has_depth, has_masks: whether there are any.
    """

    def __init__(self, directory: str | os.PathLike, name: str | None = None) -> None:
        """Read the cameras of a clip.

        Args:
            directory: of the results.
            name: of the clip, where there are several.

        Raises:
            FileNotFoundError: not a directory of results, or a file is missing.
            InputError: no such clip, a file is damaged, or its camera is no pinhole camera.
        """
        self.directory = Path(directory)
        videos = {path.stem: path for path in (self.directory / "rgb").glob("*.mp4")}
        if not videos:
            raise FileNotFoundError(f"{directory}: not a result of ViPE (no rgb/*.mp4 in it)")
        names = sorted(videos, key=natural_order)
        if name is None and len(names) > 1 or name is not None and name not in videos:
            listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            got = "" if name is None else f", got {shown(name)}"
            raise InputError(f"{directory}: --clip: expected one of {listed}{got}")
        self.name = names[0] if name is None else name
        self.video = videos[self.name]
        self.cameras = self._cameras()
        self.has_depth = self._file("depth", ".zip").is_file()
        self.has_masks = self._file("mask", ".zip").is_file()

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.cameras)

    def depth_files(self) -> Iterator[bytes]:
        """Yield the content of the EXR of each frame: z-depth in metres.

        Raises:
            InputError: a frame is missing, or the file is damaged.
        """
        return self._members("depth", ".exr")

    def masks(self) -> Iterator[UInt8[np.ndarray, "height width"]]:
        """Yield the index mask of each frame: 0 background and sky, else the instance.

        Raises:
            InputError: a frame is missing, or a file is damaged.
        """
        table = np.arange(256, dtype=np.uint8)
        table[self._sky()] = 0
        for frame, data in enumerate(self._members("mask", ".png")):
            where = f"{self._file('mask', '.zip')}: frame {frame}"
            mask = read_pixels(data, where, size=(self.cameras.height, self.cameras.width))
            if mask.ndim != 2 or mask.dtype != np.uint8:
                raise InputError(
                    f"{where}: expected one 8-bit channel, got {mask.dtype} {mask.shape}"
                )
            yield table[mask]

    def _members(self, folder: str, suffix: str) -> Iterator[bytes]:
        """Yield the members of a zip file, one per frame, which their names number."""
        path = self._file(folder, ".zip")
        largest = _HEADER_BYTES + _PIXEL_BYTES * self.cameras.width * self.cameras.height
        with opened_zip(path) as members:
            names = {
                int(Path(name).stem): name
                for name in members.names
                if re.fullmatch(rf"\d{{1,9}}{re.escape(suffix)}", name)
            }
            missing = sorted(set(range(len(self))) - set(names))
            if missing:
                raise InputError(
                    f"{path}: expected {len(self)} frames ({0:05d}{suffix}, ...); "
                    f"{missing[0]:05d}{suffix} is missing"
                )
            for frame in range(len(self)):
                yield members.read(names[frame], largest)

    def _sky(self) -> list[int]:
        """Return the instances that are sky."""
        path = self._file("mask", ".txt")
        if not path.is_file():
            return []
        phrases = [
            re.fullmatch(r"\s*(\d{1,3})\s*:\s*(.*?)\s*", line) for _, line in read_lines(path)
        ]
        return [int(m[1]) for m in phrases if m and m[2].lower() == _SKY and int(m[1]) < 256]

    def _cameras(self) -> Cameras:
        types = self._file("intrinsics", "_camera.txt")
        for number, line in read_lines(types) if types.is_file() else ():
            kind = line.partition(":")[2].strip()
            if line.strip() and kind != "PINHOLE":
                raise InputError(
                    f"{types}: line {number}: expected PINHOLE, got {shown(kind)}; results of the "
                    "pipelines for wide angles and panoramas are not read"
                )
        poses = self._per_frame("pose", (4, 4))
        rows = self._per_frame("intrinsics", (4,))
        if len(poses) != len(rows):
            raise InputError(
                f"{self._file('intrinsics', '.npz')}: expected {len(poses)} frames as in "
                f"{self._file('pose', '.npz')}, got {len(rows)}"
            )
        intrinsics = np.tile(np.eye(3), (len(rows), 1, 1))
        intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]] = rows
        with opened_video(self.video) as (_, stream):
            width, height = stream.width, stream.height
        path = self._file("pose", ".npz")
        return checked_cameras(path, intrinsics, invert_transforms(poses), width, height)

    def _per_frame(self, folder: str, shape: tuple[int, ...]) -> Float64[np.ndarray, "frames ..."]:
        """Return the array of an npz that has a row for every frame."""
        path = self._file(folder, ".npz")
        arrays = load_npz(path, ("data", "inds"))
        data, frames = arrays["data"], arrays["inds"]
        if data.ndim == 0 or data.shape[1:] != shape or data.dtype.kind != "f" or not len(data):
            expected = ", ".join(map(str, ("frames", *shape)))
            raise InputError(f"{path}: data: expected [{expected}], got {data.shape}")
        if not np.array_equal(frames, np.arange(len(data))):
            raise InputError(f"{path}: inds: expected every frame, 0 to {len(data) - 1}")
        if not np.isfinite(data).all():
            raise InputError(f"{path}: data: expected finite numbers")
        return data.astype(np.float64)

    def _file(self, folder: str, end: str) -> Path:
        return self.directory / folder / f"{self.name}{end}"
