"""Masks of all frames of a clip, small enough in memory for long ones."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np

__all__ = ["MaskStack"]


class MaskStack:
    """`Masks` of few regions, bool or of any numbers, each kept compressed.

    `np.asarray` unpacks all of them.
    """

    def __init__(self, frames: Iterable[np.ndarray]) -> None:
        self._packed: list[bytes] = []
        self.frame_shape: tuple[int, ...] = (0, 0)
        self.dtype = np.dtype(np.uint8)
        for frame in frames:
            self.frame_shape, self.dtype = frame.shape, frame.dtype
            self._packed.append(zlib.compress(frame.tobytes(), 1))

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, frame: int) -> np.ndarray:
        data = zlib.decompress(self._packed[frame])
        return np.frombuffer(data, self.dtype).reshape(self.frame_shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[frame] for frame in range(len(self)))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        stacked = np.empty((len(self), *self.frame_shape), self.dtype)
        for frame, image in enumerate(self):
            stacked[frame] = image
        return stacked if dtype is None else stacked.astype(dtype)
