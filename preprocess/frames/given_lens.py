"""The lens of a clip, known before its frames are taken: that of --lens, or of the camera files.

The frames stage undistorts the frames, so that all other stages see images of pinhole cameras.
Files of the user (depth, masks, tracks, prompts) belong to the images as they were taken, and are
mapped by `frame_matching.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from msdyn.errors import InputError
from msdyn.geometry import LENS_MODELS, Lens
from msdyn.io import read_posed_images
from msdyn.reading import read_json, shown
from msdyn.scene import FrameLenses, read_lenses

__all__ = ["GivenLens", "given_lens"]

_SEPARATORS = r"[,;\s]+"
_MOST_TEXT = 1000


@dataclass(frozen=True)
class GivenLens:
    """A lens, or one for each of several images, of images of a size that may not be known yet.

    Attributes:
        where: names the option or file in errors.
        model: of a lens given by its parameters.
        params: of the video at its full size.
        lenses: of a file, in place of these.
        names: of the images of the file.
    """

    where: str
    model: str = ""
    params: tuple[float, ...] = ()
    lenses: FrameLenses | None = None
    names: tuple[str, ...] | None = None

    def recorded(self) -> dict[str, Any]:
        """Return what the frames depend on, as JSON values: short, `lens.json` has the lenses."""
        if self.lenses is None:
            return {"model": self.model, "params": list(self.params)}
        models = sorted({item.lens.model for item in self.lenses.undistortions})
        content = json.dumps([self.lenses.content(), self.names]).encode()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return {"model": " ".join(models), "lenses": len(self.lenses.undistortions),
                "digest": digest}  # fmt: skip

    def of_frames(
        self,
        size: tuple[int, int],
        count: int,
        frames: Int[np.ndarray, " frames"],
        names: tuple[str, ...] = (),
    ) -> FrameLenses:
        """Return the lenses of the frames that are taken.

        Args:
            size: width and height of the video.
            count: number of frames of the video.
            frames: the indices of those that are taken.
            names: of a folder of images, their names.

        Raises:
            InputError: the lens is of images of another shape, cannot be inverted, or it is not
                known which frame has which lens.
        """
        try:
            return self._of_frames(size, count, frames, names)
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from error

    def _of_frames(
        self,
        size: tuple[int, int],
        count: int,
        frames: Int[np.ndarray, " frames"],
        names: tuple[str, ...],
    ) -> FrameLenses:
        width, height = size
        if self.lenses is None:
            return FrameLenses.of((Lens(self.model, self.params, width, height),))
        first = self.lenses[0].lens
        if abs(first.width * height - first.height * width) > max(size):
            raise InputError(
                f"expected a lens of images of {width}x{height} or a size of that shape, got "
                f"{first.width}x{first.height}"
            )
        resized = tuple(item.resized(width, height) for item in self.lenses.undistortions)
        for item in resized:
            if not item.is_covered:
                raise InputError(
                    f"pinhole: expected an undistorted image within that of the lens, got "
                    f"{', '.join(f'{value:g}' for value in item.pinhole)}; leave it out"
                )
        lenses = FrameLenses(resized, self.lenses.of_frame)
        if not lenses.of_frame:
            return lenses
        return lenses.chosen(self._rows(len(lenses.of_frame), count, frames, names))

    def _rows(
        self, images: int, count: int, frames: Int[np.ndarray, " frames"], names: tuple[str, ...]
    ) -> Int[np.ndarray, " frames"]:
        """Return which image of the file each frame is; one without an image has the next one's."""
        if self.names is not None and names:
            rows = {Path(name).stem: row for row, name in enumerate(self.names)}
            known = [(f, rows[Path(n).stem]) for f, n in enumerate(names) if Path(n).stem in rows]
            if known:
                at, row = np.array(known).T
                nearest = np.abs(at - frames[:, None]).argmin(1)
                return row[nearest]
        if images in (count, len(frames)):
            return frames if images == count else np.arange(len(frames))
        raise InputError(
            f"its images have different lenses, and it is not known which frame has which: "
            f"expected {count} images, one for every frame of the video, got {images}; give one "
            "lens for all by --lens"
        )


def given_lens(text: str | None, cameras: Path | None) -> GivenLens | None:
    """Return the lens that the options or the camera files give; None where they give none.

    Args:
        text: of --lens.
        cameras: file or folder of the cameras, where they are read from one.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a lens of an unknown model, or with wrong parameters; or two of them.
    """
    own = None if cameras is None else _of_cameras(cameras)
    if text is None:
        return own
    if own is not None:
        raise InputError(f"--lens: given, but {cameras} has the lens of its images; leave it out")
    text = text.strip()
    if len(text) < _MOST_TEXT and Path(text).exists():
        return _of_file(Path(text))
    model, *params = re.split(_SEPARATORS, text)
    if model.upper() not in LENS_MODELS:
        raise InputError(
            f"--lens: expected a file, or one of the models {', '.join(LENS_MODELS)} with its "
            f"parameters, as OPENCV,fx,fy,cx,cy,k1,k2,p1,p2; got {shown(text)}"
        )
    model = model.upper()
    names = LENS_MODELS[model].names
    try:
        values = tuple(float(value) for value in params)
    except ValueError as error:
        raise InputError(f"--lens: {model}: expected numbers ({error})") from error
    if len(values) != len(names):
        raise InputError(
            f"--lens: {model}: expected {len(names)} parameters ({','.join(names)}), got "
            f"{len(values)}"
        )
    return GivenLens("--lens", model, values)


def _of_cameras(path: Path) -> GivenLens | None:
    """Return the lens of camera files; None where these have none."""
    if not (path.is_dir() or path.suffix.lower() == ".json"):
        return None  # trajectories and the npz of networks have pinhole cameras
    posed = read_posed_images(path)
    if posed.lenses is None:
        return None
    return GivenLens(str(path), lenses=FrameLenses.of(posed.lenses), names=posed.names)


def _of_file(path: Path) -> GivenLens:
    """Return the lens of a file of --lens."""
    where = f"--lens: {path}"
    if path.is_file() and path.suffix.lower() == ".json":
        content = read_json(path)
        if isinstance(content, dict) and "lenses" in content:
            return GivenLens(where, lenses=read_lenses(path))
    found = _of_cameras(path)
    if found is None:
        raise InputError(
            f"{where}: it has no lens with a distortion; expected lens.json of a scene, a COLMAP "
            "model, transforms.json of nerfstudio or a sequence of DyCheck"
        )
    return found
