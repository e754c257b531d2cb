"""2D point tracks and `tracks.npz`."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msdyn.errors import InputError
from msdyn.files import atomic_path

__all__ = ["Tracks", "load_npz", "npz_keys", "read_tracks", "save_npz", "write_tracks"]


@dataclass(frozen=True)
class Tracks:
    """Point tracks through a clip of T frames.

    Attributes:
        xy: [N, T, 2] float32 px, finite; meaningless where not visible.
        visible: [N, T] bool.
        confidence: [N, T] float32 in [0, 1].
        object: [N] int32, 0 static, 1..K an object instance, -1 unknown.
        query_frame: [N] int32, the frame a track was started in.
    """

    xy: np.ndarray
    visible: np.ndarray
    confidence: np.ndarray
    object: np.ndarray
    query_frame: np.ndarray

    def __post_init__(self) -> None:
        kinds = {
            "xy": np.float32,
            "visible": np.bool_,
            "confidence": np.float32,
            "object": np.int32,
            "query_frame": np.int32,
        }
        for name, kind in kinds.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name)).astype(kind, copy=False))
        if self.xy.ndim != 3 or self.xy.shape[2] != 2:
            raise InputError(f"xy: expected [tracks, frames, 2], got {self.xy.shape}")
        count, frames = self.xy.shape[:2]
        for name in ("visible", "confidence"):
            if getattr(self, name).shape != (count, frames):
                raise InputError(
                    f"{name}: expected [{count}, {frames}], got {getattr(self, name).shape}"
                )
        for name in ("object", "query_frame"):
            if getattr(self, name).shape != (count,):
                raise InputError(f"{name}: expected [{count}], got {getattr(self, name).shape}")
        if not np.isfinite(self.xy).all():
            raise InputError("xy: expected finite numbers (0 where a track is not visible)")
        if count and not (0 <= self.confidence.min() and self.confidence.max() <= 1):
            raise InputError("confidence: expected numbers in [0, 1]")
        if count and not (0 <= self.query_frame.min() and self.query_frame.max() < frames):
            raise InputError(f"query_frame: expected 0 to {frames - 1}")

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def num_frames(self) -> int:
        return self.xy.shape[1]

    def select(self, index: np.ndarray) -> Tracks:
        """Return the tracks at an index array or boolean mask."""
        return Tracks(
            self.xy[index],
            self.visible[index],
            self.confidence[index],
            self.object[index],
            self.query_frame[index],
        )


def write_tracks(path: str | os.PathLike, tracks: Tracks) -> None:
    """Write tracks as a compressed npz, atomically."""
    save_npz(
        path,
        xy=tracks.xy,
        visible=tracks.visible,
        confidence=tracks.confidence,
        object=tracks.object,
        query_frame=tracks.query_frame,
    )


def read_tracks(path: str | os.PathLike) -> Tracks:
    """Read `tracks.npz`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: an array is missing or of a wrong shape, type or range.
    """
    arrays = load_npz(path, ("xy", "visible", "confidence", "object", "query_frame"))
    try:
        return Tracks(**arrays)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def save_npz(path: str | os.PathLike, **arrays: np.ndarray) -> None:
    """Write arrays as a compressed npz, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def load_npz(path: str | os.PathLike, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read the named arrays of an npz without pickle.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an npz, or an array is missing; the message names the file and key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as content:
            missing = [key for key in keys if key not in content.files]
            if missing:
                raise InputError(
                    f"{path}: expected arrays {', '.join(keys)}; {', '.join(missing)} missing, "
                    f"found {', '.join(content.files) or 'none'}"
                )
            return {key: content[key] for key in keys}
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable npz file ({error})") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable npz file ({error})") from error


def npz_keys(path: str | os.PathLike) -> list[str]:
    """Return the names of the arrays of an npz.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an npz.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as content:
            return list(content.files)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a readable npz file ({error})") from error
