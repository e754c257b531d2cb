"""Writing clips to tar shards in webdataset's naming, each with an index (`index.py`).

Equal clips give equal bytes. A shard is written under a temporary name and renamed, then its index;
readers ignore a tar without index.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tarfile
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip, ClipFrame
from msdyn.feedforward.data.codes import (
    ImageFormat,
    encode_arrays,
    encode_depth,
    encode_image,
    encode_objects,
)
from msdyn.feedforward.data.index import (
    FRAME_MEMBERS,
    INDEX_SUFFIX,
    ClipEntry,
    index_content,
    read_index,
)
from msdyn.interruption import forget_temporary, keep_temporary
from msdyn.writing import atomic_path, temporary_path

__all__ = ["ClipWriter", "index_paths"]

_BLOCK = 512
_SHARD_BYTES = 2**30
_FLAT = 1e-12
"""Determinant below which a pose cannot be inverted."""


def index_paths(folder: Path) -> list[Path]:
    """Return the indices of the shards of a folder, in order."""
    return sorted(folder.glob(f"*{INDEX_SUFFIX}"))


class ClipWriter:
    """Writes clips to shards in a folder, new ones besides those that it has.

        with ClipWriter(folder) as writer:
            writer.add(clip)

    One writer at a time may write to a folder. If the block raises, the clips that were added
    completely are kept.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        shard_bytes: int = _SHARD_BYTES,
        image_format: ImageFormat = "jpg",
        quality: int = 95,
    ) -> None:
        """Open a folder for writing.

        Args:
            folder: made with the first clip, if it does not exist.
            shard_bytes: a new shard is begun when the present one has this size.
            image_format: of the images.
            quality: of JPEG, at most 100.

        Raises:
            InputError: the folder has a damaged index, or an option is out of range.
        """
        if shard_bytes < 1:
            raise InputError(f"shard_bytes: expected at least 1, got {shard_bytes}")
        if not 1 <= quality <= 100:
            raise InputError(f"quality: expected 1 to 100, got {quality}")
        self.folder = Path(folder)
        self.shard_bytes = shard_bytes
        self.image_format: ImageFormat = image_format
        self.quality = quality
        self._keys = {e.key for path in index_paths(self.folder) for e in read_index(path)}
        self._file: IO[bytes] | None = None
        self._temporary = Path()
        self._entries: list[ClipEntry] = []

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._finish_shard()
        finally:
            self._discard()

    def __contains__(self, key: str) -> bool:
        """Whether the folder has a clip, by `DATASET/NAME`."""
        return key in self._keys

    def add(self, clip: Clip) -> None:
        """Write a clip; its frames are loaded one at a time.

        Raises:
            InputError: the folder has a clip of this name, or a frame is not as it should be;
                nothing of the clip is written then.
        """
        key = f"{clip.dataset}/{clip.name}"
        if key in self._keys:
            raise InputError(f"{self.folder}: has a clip {key} already; choose another name")
        _check_clip(clip)
        file = self._open_shard()
        start = file.tell()
        try:
            entry = self._write(file, clip, key)
        except BaseException as error:
            file.seek(start)
            file.truncate()
            if isinstance(error, InputError) and clip.name not in str(error):
                raise InputError(f"clip {clip.name}: {error}") from error
            raise
        self._entries.append(entry)
        self._keys.add(key)
        if file.tell() >= self.shard_bytes:
            self._finish_shard()

    def _write(self, file: IO[bytes], clip: Clip, key: str) -> ClipEntry:
        size: tuple[int, int] | None = None
        spans = {name: np.zeros((len(clip), 2), np.int64) for name in FRAME_MEMBERS}
        limits = np.ones((len(clip), 2))
        objects = 0 if clip.poses is None else clip.poses.shape[1]
        target = np.zeros(len(clip), bool) if clip.target is None else clip.target
        for index in range(len(clip)):
            frame = clip.frame(index)
            size = size or frame.image.shape[:2]
            if clip.poses is not None and frame.objects is None and not target[index]:
                raise InputError(f"frame {index}: expected a map of objects, as there are poses")
            _check_frame(frame, size, objects, index)
            parts = {
                f"image.{self.image_format}": encode_image(
                    frame.image, self.image_format, self.quality
                )
            }
            if frame.depth is not None:
                parts["depth.png"], limits[index] = encode_depth(frame.depth)
            if frame.objects is not None:
                parts["objects.png"] = encode_objects(frame.objects)
            if clip.tracks is not None:
                parts["tracks.npz"] = encode_arrays(
                    {
                        "points": clip.tracks.points[index].astype(np.float32),
                        "visible": clip.tracks.visible[index],
                    }
                )
            for name, data in parts.items():
                spans[name][index] = _write_member(file, f"{key}.{index:05d}.{name}", data)
        assert size is not None
        arrays = {
            "times": np.asarray(clip.times, np.float64),
            "world_from_cam": np.asarray(clip.world_from_cam, np.float64),
            "intrinsics": np.asarray(clip.intrinsics, np.float64),
            "target": target,
            "depth_limits": limits,
        }
        if clip.poses is not None:
            arrays["poses"] = np.asarray(clip.poses, np.float64)
        tracks = 0 if clip.tracks is None else clip.tracks.points.shape[1]
        meta = {
            "name": clip.name,
            "dataset": clip.dataset,
            "motion": clip.motion,
            "frames": len(clip),
            "width": size[1],
            "height": size[0],
            "about": clip.about,
        }
        text = json.dumps(meta, indent=1, allow_nan=False).encode()
        return ClipEntry(
            tar=Path(),
            name=clip.name,
            dataset=clip.dataset,
            motion=clip.motion,
            frames=len(clip),
            targets=int(target.sum()),
            width=size[1],
            height=size[0],
            tracks=tracks,
            objects=objects,
            members={
                "meta.json": _write_member(file, f"{key}.meta.json", text),
                "cameras.npz": _write_member(file, f"{key}.cameras.npz", encode_arrays(arrays)),
            },
            frame_members={name: s for name, s in spans.items() if s[:, 1].any()},
        )

    def _open_shard(self) -> IO[bytes]:
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._temporary = temporary_path(self.folder / "clips.tmp")
            keep_temporary(self._temporary)
            self._file = self._temporary.open("x+b")
        return self._file

    def _finish_shard(self) -> None:
        """Give the shard and its index their names, if it has clips."""
        if self._file is None:
            return
        if self._entries:
            self._file.write(bytes(2 * _BLOCK))
            self._file.flush()
            os.fsync(self._file.fileno())
            path = self._next_shard()
            content = index_content(self._entries, self._file.tell())
            text = json.dumps(content, separators=(",", ":"), allow_nan=False)
            os.replace(self._temporary, path)
            with atomic_path(path.with_suffix(INDEX_SUFFIX)) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        self._discard()

    def _next_shard(self) -> Path:
        """Return the path after those of all shards with an index."""
        found = [re.fullmatch(r"clips-(\d{6})", p.name.removesuffix(INDEX_SUFFIX))
                 for p in index_paths(self.folder)]  # fmt: skip
        number = max((int(match[1]) for match in found if match), default=-1) + 1
        return self.folder / f"clips-{number:06d}.tar"

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            forget_temporary(self._temporary)
        self._file, self._entries = None, []


def _check_clip(clip: Clip) -> None:
    """Check what `Clip` does not."""
    inputs = np.ones(len(clip), bool) if clip.target is None else ~clip.target
    if not inputs.any():
        raise InputError(f"clip {clip.name}: expected at least one frame that may be input")
    times = np.asarray(clip.times)
    if not np.isfinite(times).all() or (np.diff(times[inputs]) <= 0).any():
        raise InputError(f"clip {clip.name}: times: expected increasing numbers")
    if clip.poses is not None:
        # Both are of no use for points, and cannot be undone.
        finite = np.isfinite(clip.poses).all()
        if not finite or (np.abs(np.linalg.det(clip.poses[..., :3, :3])) < _FLAT).any():
            raise InputError(f"clip {clip.name}: poses: expected finite, invertible matrices")


def _check_frame(frame: ClipFrame, size: tuple[int, int], objects: int, index: int) -> None:
    maps = {
        "image": (frame.image, np.uint8, (*size, 3)),
        "depth": (frame.depth, np.float32, size),
        "objects": (frame.objects, np.uint8, size),
    }
    for name, (value, dtype, shape) in maps.items():
        if value is not None and (value.dtype != dtype or value.shape != shape):
            raise InputError(
                f"frame {index}: {name}: expected {np.dtype(dtype)} {shape}, got {value.dtype} "
                f"{value.shape}"
            )
    if frame.objects is not None and int(frame.objects.max(initial=0)) > objects:
        raise InputError(
            f"frame {index}: objects: expected at most {objects}, the number of poses, got "
            f"{int(frame.objects.max())}"
        )


def _write_member(file: IO[bytes], name: str, data: bytes) -> tuple[int, int]:
    """Append a member to a tar; return the offset and size of its data."""
    info = tarfile.TarInfo(name)  # no owner, time 0
    info.size = len(data)
    info.mode = 0o644
    file.write(info.tobuf(tarfile.PAX_FORMAT))
    offset = file.tell()
    file.write(data)
    file.write(bytes(-len(data) % _BLOCK))
    return offset, len(data)
