"""`lens.json`: the lenses of the images that the frames of a scene were undistorted from.

    format, version    msdyn-lens, 1
    lenses             model, width, height, params as COLMAP's, skew (0 if missing), and
                       pinhole: fx fy cx cy of the undistorted images, px of width x height
    of_frame           the lens of each frame; missing or empty where all have the first one

A scene without the file has images of a pinhole camera. `--lens` of preprocessing reads the file
too; `pinhole` may be missing then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np
from jaxtyping import Int
from msgspec import Meta

from msdyn.errors import InputError
from msdyn.geometry import Cameras, Lens, Undistortion
from msdyn.reading import MOST_FRAMES, as_schema, read_json, reading
from msdyn.writing import write_json

__all__ = ["LENS_FILE", "FrameLenses", "original_lenses", "read_lenses", "write_lenses"]

LENS_FILE = "lens.json"
_FORMAT = "msdyn-lens"


class _LensEntry(TypedDict):
    model: str
    width: int
    height: int
    params: Annotated[list[float], Meta(max_length=16)]
    skew: NotRequired[float]
    pinhole: NotRequired[Annotated[list[float], Meta(min_length=4, max_length=4)]]


class _LensFile(TypedDict):
    lenses: Annotated[list[_LensEntry], Meta(min_length=1, max_length=MOST_FRAMES)]
    of_frame: NotRequired[Annotated[list[int], Meta(max_length=MOST_FRAMES)]]


@dataclass(frozen=True)
class FrameLenses:
    """The lens of each frame, and the pinhole camera of its undistorted images.

    Attributes:
        undistortions: different ones.
        of_frame: for each frame the index of its own; empty where there is one for all.
    """

    undistortions: tuple[Undistortion, ...]
    of_frame: tuple[int, ...] = ()

    @classmethod
    def of(cls, lenses: tuple[Lens, ...]) -> FrameLenses:
        """Return the undistortion of one lens for all frames, or one per frame.

        Raises:
            InputError: a distortion cannot be inverted.
        """
        different = list(dict.fromkeys(lenses))
        undistortions = tuple(Undistortion.of(lens) for lens in different)
        if len(different) == 1:
            return cls(undistortions)
        return cls(undistortions, tuple(different.index(lens) for lens in lenses))

    def __getitem__(self, frame: int) -> Undistortion:
        """Return the undistortion of a frame."""
        return self.undistortions[self.of_frame[frame] if self.of_frame else 0]

    def chosen(self, frames: Int[np.ndarray, " chosen"]) -> FrameLenses:
        """Return the lenses of some of the frames."""
        if not self.of_frame:
            return self
        return FrameLenses(self.undistortions, tuple(self.of_frame[f] for f in frames.tolist()))

    def straightened(self, cameras: Cameras) -> Cameras:
        """Return cameras, one per frame, with the intrinsics of the undistorted images."""
        k = [self[f].intrinsics(cameras.width, cameras.height) for f in range(len(cameras))]
        return Cameras(np.stack(k), cameras.cam_from_world, cameras.width, cameras.height)

    def content(self) -> dict[str, Any]:
        """Return the content of the file, JSON values."""
        return {
            "lenses": [
                {
                    "model": item.lens.model,
                    "width": item.lens.width,
                    "height": item.lens.height,
                    "params": list(item.lens.params),
                    "skew": item.lens.skew,
                    "pinhole": list(item.pinhole),
                }
                for item in self.undistortions
            ],
            "of_frame": list(self.of_frame),
        }


def write_lenses(path: str | os.PathLike, lenses: FrameLenses) -> None:
    """Write the file, atomically."""
    write_json(path, {"format": _FORMAT, "version": 1} | lenses.content())


def read_lenses(path: str | os.PathLike, num_frames: int | None = None) -> FrameLenses:
    """Read the file.

    Args:
        path: of the file.
        num_frames: of the clip, where known.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another format, a lens that is not known or cannot be inverted, or another
            number of frames; the message names the key.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"{path}: format: expected {_FORMAT!r}; not a lens file of msdyn")
    if content.get("version") != 1:
        raise InputError(f"{path}: version: expected 1, got {content.get('version')!r}")
    with reading(path, "lens file"):
        checked = as_schema(content, _LensFile, str(path))
        undistortions = tuple(_undistortion(entry) for entry in checked["lenses"])
        of_frame = tuple(checked.get("of_frame", []))
        if len({(item.lens.width, item.lens.height) for item in undistortions}) > 1:
            raise InputError("lenses: expected images of one size")
        if not all(0 <= index < len(undistortions) for index in of_frame):
            raise InputError(f"of_frame: expected 0 to {len(undistortions) - 1}")
        if not of_frame and len(undistortions) > 1:
            raise InputError("of_frame: missing; there are several lenses")
        if num_frames is not None and of_frame and len(of_frame) != num_frames:
            raise InputError(f"of_frame: expected {num_frames} frames, got {len(of_frame)}")
    return FrameLenses(undistortions, of_frame)


def original_lenses(scene: str | os.PathLike, num_frames: int) -> FrameLenses:
    """Read the lenses of a scene directory, for --lens original.

    Raises:
        InputError: the images of the scene were not undistorted, or the file is wrong.
    """
    path = Path(scene) / LENS_FILE
    if not path.is_file():
        raise InputError(
            f"--lens original: {scene} has no {LENS_FILE}: expected a scene directory whose images "
            "were undistorted; leave the option out"
        )
    return read_lenses(path, num_frames)


def _undistortion(entry: _LensEntry) -> Undistortion:
    params = tuple(entry["params"])
    lens = Lens(entry["model"], params, entry["width"], entry["height"], entry.get("skew", 0.0))
    if "pinhole" not in entry:
        return Undistortion.of(lens)
    _ = lens.displacement  # raises where the distortion cannot be inverted
    fx, fy, cx, cy = entry["pinhole"]
    if not (np.isfinite([fx, fy, cx, cy]).all() and min(fx, fy) > 0):
        raise InputError(f"pinhole: expected fx fy > 0, cx, cy, got {entry['pinhole']}")
    return Undistortion(lens, (fx, fy, cx, cy))
