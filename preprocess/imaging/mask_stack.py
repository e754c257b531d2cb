"""Masks of all frames of a clip, compressed in memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Shaped

__all__ = ["MaskStack"]


class MaskStack:
    """`Masks` of few regions, bool or of any numbers, each compressed.

    `np.asarray` decompresses all of them.
    """

    def __init__(self, frames: Iterable[Shaped[np.ndarray, "height width"]]) -> None:
        self._packed: list[bytes] = []
        self.frame_shape: tuple[int, ...] = (0, 0)
        self.dtype = np.dtype(np.uint8)
        for frame in frames:
            self.frame_shape, self.dtype = frame.shape, frame.dtype
            self._packed.append(zlib.compress(frame.tobytes(), 1))

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, frame: int) -> Shaped[np.ndarray, "height width"]:
        data = zlib.decompress(self._packed[frame])
        return np.frombuffer(data, self.dtype).reshape(self.frame_shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[frame] for frame in range(len(self)))

    def __array__(
        self, dtype: np.dtype | None = None, copy: bool | None = None
    ) -> Shaped[np.ndarray, "frames height width"]:
        stacked = np.empty((len(self), *self.frame_shape), self.dtype)
        for frame, image in enumerate(self):
            stacked[frame] = image
        return stacked if dtype is None else stacked.astype(dtype)
