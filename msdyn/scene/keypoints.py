"""`views/keypoints.npz`: manually annotated points in some frames of the clip, for evaluation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Real

from msdyn.errors import InputError
from msdyn.reading import load_npz, reading
from msdyn.scene.npz import save_npz

__all__ = ["Keypoints", "read_keypoints", "write_keypoints"]

_FILE = Path("views") / "keypoints.npz"


@dataclass(frozen=True)
class Keypoints:
    """The same J points in K frames of the clip.

    Attributes:
        frames: [K] increasing frame indices.
        xy: [K, J, 2] px in the scene's images; arbitrary finite values where not visible.
        visible: [K, J].
    """

    # Files of users are checked below.
    frames: Int[np.ndarray, ...]
    xy: Real[np.ndarray, ...]
    visible: Bool[np.ndarray, ...]

    def __post_init__(self) -> None:
        if self.frames.dtype.kind not in "iu" or (self.frames < 0).any():
            raise InputError(f"frames: expected frame indices, got {self.frames.dtype}")
        if self.visible.dtype.kind != "b" or self.xy.dtype.kind not in "fiu":
            raise InputError(
                f"visible and xy: expected bool and numbers, got {self.visible.dtype} and "
                f"{self.xy.dtype}"
            )
        if self.frames.ndim != 1 or (np.diff(self.frames) <= 0).any():
            raise InputError(f"frames: expected increasing frame indices, got {self.frames}")
        if self.xy.ndim != 3 or self.xy.shape[::2] != (len(self.frames), 2):
            raise InputError(f"xy: expected [{len(self.frames)}, points, 2], got {self.xy.shape}")
        if self.visible.shape != self.xy.shape[:2]:
            raise InputError(f"visible: expected {self.xy.shape[:2]}, got {self.visible.shape}")
        if not np.isfinite(self.xy).all():
            raise InputError("xy: expected finite numbers (0 where a point is not visible)")


def write_keypoints(scene: str | os.PathLike, keypoints: Keypoints) -> None:
    """Write the keypoints of a scene directory, atomically."""
    save_npz(
        Path(scene) / _FILE, frames=keypoints.frames, xy=keypoints.xy, visible=keypoints.visible
    )


def read_keypoints(scene: str | os.PathLike) -> Keypoints | None:
    """Read the keypoints of a scene directory; None if there is no such file.

    Raises:
        InputError: an array is missing or of a wrong shape; the message names the file.
    """
    path = Path(scene) / _FILE
    if not path.is_file():
        return None
    with reading(path, "file of keypoints"):
        arrays = load_npz(path, ("frames", "xy", "visible"))
        return Keypoints(**arrays)
