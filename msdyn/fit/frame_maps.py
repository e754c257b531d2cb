"""Images, depth and masks of a clip, read frame by frame: its length costs no memory.

A clip has a hundred times the pixels of a frame, and a step of a fit needs a few frames. On a CPU
the maps of a fit therefore lie in a file and are read as they are needed: what the system keeps of
the file is memory that it takes back when programs ask for it. On a GPU they are in its memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from msdyn.devices import upload
from msdyn.scene import Maps

__all__ = ["FrameMaps", "MapFile", "positive_median"]


class MapFile:
    """T maps of one shape and type, in a file without a name, which ends with the object.

    Indexed by a frame, it returns a map; `append` adds one.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: type[np.generic], folder: Path | None = None
    ) -> None:
        """Make an empty file.

        Args:
            shape: of a map.
            dtype: of its values.
            folder: in which the file takes its space, or the nearest above that exists; that of
                temporary files by default.
        """
        self.map_shape, self.dtype = shape, np.dtype(dtype)
        self._file = tempfile.TemporaryFile(dir=_existing(folder), buffering=0)
        self._bytes = int(np.prod(shape)) * self.dtype.itemsize
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [T, ...] of all maps."""
        return (self._count, *self.map_shape)

    def append(self, values: Shaped[np.ndarray, "*map"]) -> None:
        """Add the map of the next frame.

        Raises:
            OSError: there is no space left.
        """
        if values.shape != self.map_shape:
            raise ValueError(f"expected a map of {self.map_shape}, got {values.shape}")
        data = np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8).data
        written = 0
        while written < len(data):
            at = self._count * self._bytes + written
            written += os.pwrite(self._file.fileno(), data[written:], at)
        self._count += 1

    def __getitem__(self, frame: int | np.integer) -> Shaped[np.ndarray, "*map"]:
        index = int(frame)
        index += self._count if index < 0 else 0
        if not 0 <= index < self._count:
            raise IndexError(f"expected a frame from 0 to {self._count - 1}, got {frame}")
        values = np.empty(self.map_shape, self.dtype)
        data, read = values.reshape(-1).view(np.uint8).data, 0
        while read < len(data):
            part = os.pread(self._file.fileno(), len(data) - read, index * self._bytes + read)
            if not part:
                raise OSError("the file of the maps has been cut off")
            data[read : read + len(part)] = part
            read += len(part)
        return values

    def __iter__(self) -> Iterator[Shaped[np.ndarray, "*map"]]:
        return (self[frame] for frame in range(len(self)))


class FrameMaps:
    """T maps as tensors on the device of a fit.

    Indexed by a frame, it returns the map [...]; by several, the maps [B, ...].
    """

    def __init__(self, maps: MapFile, device: torch.device, folder: Path | None = None) -> None:
        """Take maps over.

        Args:
            maps: of the clip.
            device: of the tensors; those of a GPU are all copied there now.
            folder: for the files of `changed`.
        """
        self.device, self._folder, self._maps = device, folder, maps
        self._tensor: Tensor | None = None
        if device.type != "cpu":
            self._tensor = torch.empty(maps.shape, dtype=_torch_dtype(maps.dtype), device=device)
            for frame, values in enumerate(maps):
                self._tensor[frame] = torch.from_numpy(values)

    def __len__(self) -> int:
        return self._maps.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [T, ...] of all maps."""
        return self._maps.shape

    def __getitem__(
        self, frames: int | np.integer | Sequence[int] | Int[np.ndarray, " frames"]
    ) -> Shaped[Tensor, "*_"]:
        if self._tensor is not None:
            if np.ndim(frames) == 0:
                return self._tensor[frames]
            return self._tensor.index_select(0, upload(np.asarray(frames), self.device))
        if np.ndim(frames) == 0:
            return torch.from_numpy(self._maps[frames])  # type: ignore[index]
        maps = [self._maps[frame] for frame in np.asarray(frames)]
        return torch.from_numpy(np.stack(maps))

    def batch(
        self, frames: Int[np.ndarray, " frames"], index: Int[Tensor, " frames"]
    ) -> Shaped[Tensor, "frames ..."]:
        """Return the maps of several frames; `index` are the same frames on the device."""
        return self[frames] if self._tensor is None else self._tensor.index_select(0, index)

    def numpy(self, frame: int | np.integer) -> Shaped[np.ndarray, "*_"]:
        """Return the map of a frame in the memory of the CPU."""
        return self._maps[frame]

    def changed(
        self, change: Callable[[int, Shaped[np.ndarray, "*_"]], Shaped[np.ndarray, "*_"]]
    ) -> FrameMaps:
        """Return maps, each the result of a function of its frame and its present map."""
        maps = MapFile(self._maps.map_shape, self._maps.dtype.type, self._folder)
        for frame, values in enumerate(self._maps):
            maps.append(change(frame, values))
        return FrameMaps(maps, self.device, self._folder)


def positive_median(maps: Maps) -> np.float32 | None:
    """Return the median of the positive values of float32 maps, None if there are none.

    It equals `np.median` of them all, and takes no more memory than a map: the bits of positive
    numbers are in the order of the numbers, so that the middle ones are found by counting the upper
    half of their bits, then the lower half of those in the same place.

    Args:
        maps: T arrays of float32, finite.
    """
    upper = np.zeros(2**16, np.int64)
    for frame in range(len(maps)):
        upper += np.bincount(_bits_of_positive(maps[frame]) >> 16, minlength=2**16)
    total = int(upper.sum())
    if not total:
        return None
    places = [(total - 1) // 2, total // 2]  # of the two middle values; one if they are odd
    ends = np.cumsum(upper)
    bins = [int(np.searchsorted(ends, place, side="right")) for place in places]
    lower = {number: np.zeros(2**16, np.int64) for number in bins}
    for frame in range(len(maps)):
        bits = _bits_of_positive(maps[frame])
        for number in lower:
            lower[number] += np.bincount(bits[bits >> 16 == number] & 0xFFFF, minlength=2**16)
    found = []
    for place, number in zip(places, bins, strict=True):
        before = int(ends[number] - upper[number])
        rest = int(np.searchsorted(np.cumsum(lower[number]), place - before, side="right"))
        found.append(number << 16 | rest)
    return np.array(found, np.uint32).view(np.float32).mean()


def _bits_of_positive(values: Shaped[np.ndarray, "*_"]) -> Int[np.ndarray, " positive"]:
    positive = values[values > 0]
    return positive.astype(np.float32, copy=False).view(np.uint32).astype(np.int64)


def _torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _existing(folder: Path | None) -> Path | None:
    """Return the folder, or the nearest above it that exists, if files can be made there."""
    if folder is None:
        return None
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder if os.access(folder, os.W_OK) else None
