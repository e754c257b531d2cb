"""A clip in a shard: its cameras in memory, its frames read from the tar one at a time."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip, ClipFrame, ClipTracks
from msdyn.feedforward.data.codes import (
    decode_arrays,
    decode_depth,
    decode_image,
    decode_objects,
)
from msdyn.feedforward.data.index import ClipEntry
from msdyn.reading import decode_json, reading

__all__ = ["StoredClip", "read_span"]


def read_span(path: Path, offset: int, size: int) -> bytes:
    """Read a part of a file.

    Raises:
        InputError: the file ends before.
    """
    # Opened for each read, so that a library is plain data: it can be sent to other processes, and
    # thousands of shards need no open files.
    handle = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(handle, size, offset)
    finally:
        os.close(handle)
    if len(data) < size:
        raise InputError(f"{path}: expected {size} bytes at {offset}, got {len(data)}")
    return data


class StoredClip:
    """A clip in a shard, whose members are read when they are asked for.

    Attributes:
        entry: from the index.
    """

    def __init__(self, entry: ClipEntry) -> None:
        self.entry = entry
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "times": ((entry.frames,), "float64"),
            "world_from_cam": ((entry.frames, 4, 4), "float64"),
            "intrinsics": ((entry.frames, 4), "float64"),
            "target": ((entry.frames,), "bool"),
            "depth_limits": ((entry.frames, 2), "float64"),
        }
        if entry.motion == "poses":
            shapes["poses"] = ((entry.frames, entry.objects, 4, 4), "float64")
        data = read_span(entry.tar, *entry.members["cameras.npz"])
        with reading(self._label("cameras.npz"), "member of a shard"):
            arrays = decode_arrays(data, shapes)
        self.times: Float64[np.ndarray, " times"] = arrays["times"]
        self.world_from_cam: Float64[np.ndarray, "times 4 4"] = arrays["world_from_cam"]
        self.intrinsics: Float64[np.ndarray, "times 4"] = arrays["intrinsics"]
        self.target: Bool[np.ndarray, " times"] = arrays["target"]
        self.poses: Float64[np.ndarray, "times objects 4 4"] | None = arrays.get("poses")
        self._limits = arrays["depth_limits"]
        for name in ("times", "world_from_cam", "intrinsics", "poses"):
            if not np.isfinite(arrays.get(name, 0)).all():
                raise InputError(f"{self._label('cameras.npz')}: {name}: expected finite numbers")
        low, high = self._limits.T
        if not (np.isfinite(self._limits).all() and (0 < low).all() and (low <= high).all()):
            raise InputError(
                f"{self._label('cameras.npz')}: depth_limits: expected 0 < low <= high"
            )
        if int(self.target.sum()) != entry.targets:
            raise InputError(
                f"{self._label('cameras.npz')}: target: expected {entry.targets} frames, got "
                f"{int(self.target.sum())}"
            )

    def __len__(self) -> int:
        """Frames."""
        return self.entry.frames

    def image(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        """Read the image of a frame."""
        name = "image.jpg" if self._has("image.jpg", frame) else "image.png"
        data = self._read(name, frame)
        with reading(self._label(name, frame), "member of a shard"):
            return decode_image(data, self.entry.size)

    def depth(self, frame: int) -> Float32[np.ndarray, "height width"] | None:
        """Read the depth of a frame, 0 for unknown; None if it has none."""
        if not self._has("depth.png", frame):
            return None
        low, high = self._limits[frame].tolist()
        with reading(self._label("depth.png", frame), "member of a shard"):
            return decode_depth(self._read("depth.png", frame), self.entry.size, (low, high))

    def objects(self, frame: int) -> UInt8[np.ndarray, "height width"] | None:
        """Read the objects of a frame, 0 for static; None if it has none."""
        if not self._has("objects.png", frame):
            return None
        with reading(self._label("objects.png", frame), "member of a shard"):
            objects = decode_objects(self._read("objects.png", frame), self.entry.size)
        if int(objects.max()) > self.entry.objects:
            raise InputError(
                f"{self._label('objects.png', frame)}: expected at most {self.entry.objects}, "
                f"got {int(objects.max())}"
            )
        return objects

    def tracks(
        self, frame: int
    ) -> tuple[Float32[np.ndarray, "tracks 3"], Bool[np.ndarray, " tracks"]]:
        """Read where the tracked points are at a frame, and which of them it shows."""
        count = self.entry.tracks
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "points": ((count, 3), "float32"),
            "visible": ((count,), "bool"),
        }
        with reading(self._label("tracks.npz", frame), "member of a shard"):
            arrays = decode_arrays(self._read("tracks.npz", frame), shapes)
        return arrays["points"], arrays["visible"]

    @cached_property
    def about(self) -> dict[str, str]:
        """Source and licence."""
        data = read_span(self.entry.tar, *self.entry.members["meta.json"])
        label = self._label("meta.json")
        with reading(label, "description of a clip"):
            about = decode_json(data, label)["about"]
            return {str(key): str(value) for key, value in about.items()}

    def frame(self, index: int) -> ClipFrame:
        """Read all that a frame shows."""
        return ClipFrame(self.image(index), self.depth(index), self.objects(index))

    def clip(self) -> Clip:
        """Return the clip as it was written; its tracks are all read."""
        tracks = None
        if self.entry.motion == "tracks":
            points, visible = zip(*(self.tracks(i) for i in range(len(self))), strict=True)
            tracks = ClipTracks(np.stack(points), np.stack(visible))
        return Clip(
            self.entry.name,
            self.entry.dataset,
            self.times,
            self.world_from_cam,
            self.intrinsics,
            self.entry.motion,
            self.frame,
            tracks,
            self.poses,
            self.target if self.entry.targets else None,
            self.about,
        )

    def _has(self, name: str, frame: int) -> bool:
        spans = self.entry.frame_members.get(name)
        return spans is not None and bool(spans[frame, 1] > 0)

    def _read(self, name: str, frame: int) -> bytes:
        spans = self.entry.frame_members.get(name)
        if spans is None or spans[frame, 1] == 0:
            raise InputError(f"{self._label(name, frame)}: not in the shard")
        offset, size = spans[frame].tolist()
        return read_span(self.entry.tar, offset, size)

    def _label(self, name: str, frame: int | None = None) -> str:
        middle = "" if frame is None else f".{frame:05d}"
        return f"{self.entry.tar}: {self.entry.key}{middle}.{name}"
