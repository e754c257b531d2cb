"""Calibrated recordings by one or more cameras: what their layouts have in common.

One camera is the input, others are held out for evaluation. Images are read when they are needed;
what can be wrong in a recording without decoding its images is found when it is opened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.io.posed_images import ScenePoints
from msdyn.reading import LARGEST_SIDE, image_size, required_file, shown
from msdyn.scene import FrameLenses

__all__ = [
    "MultiCamera",
    "RecordedCamera",
    "checked_times",
    "inside",
]


@dataclass(frozen=True)
class RecordedCamera:
    """One camera of a recording, or one list of images of a camera that moves.

    Attributes:
        name: as the user names it.
        cameras: one per image; OpenCV axes, pixel centres at +0.5.
        seconds: time of each image on the clock of the recording, increasing.
        images: a file per image; or a single video.
        masks: a file per image, anything but 0 is foreground; None where there are none.
        depths: a file of z-depth per image, in units of the world; None where there are none.
        depth_scale: units of the world per unit of the depth files.
        transparent: images are RGBA, and where alpha is 0 there is nothing.
        lenses: of the images, one by one, where they have a distortion; `cameras` are then the same
            without it. None where there is none.
    """

    name: str
    cameras: Cameras
    seconds: Float64[np.ndarray, " images"]
    images: tuple[Path, ...]
    masks: tuple[Path, ...] | None = None
    depths: tuple[Path, ...] | None = None
    depth_scale: float = 1.0
    transparent: bool = False
    lenses: FrameLenses | None = None

    def __len__(self) -> int:
        return len(self.cameras)

    @property
    def is_video(self) -> bool:
        """Whether the images are the frames of one video."""
        return len(self.images) == 1 and len(self) > 1

    def check_files(self) -> None:
        """Check that all files are there and that images have the size of the cameras.

        Raises:
            FileNotFoundError: a file is missing.
            InputError: an image cannot be read, or has another size.
        """
        size = self.cameras.width, self.cameras.height
        for path in () if self.is_video else self.images:
            found = image_size(path)
            if found != size:
                raise InputError(
                    f"{path}: expected an image of {size[0]}x{size[1]} px, as its camera says, got "
                    f"{found[0]}x{found[1]}"
                )
        for path in (*(self.masks or ()), *(self.depths or ())):
            required_file(path)


@dataclass(frozen=True)
class MultiCamera:
    """A recording by calibrated cameras.

    Attributes:
        layout: name of the format.
        directory: of the recording.
        cameras: all of them, by name.
        held_out: names of those that the recording itself keeps for evaluation; may be none.
        points: of the scene, None where the recording has none.
        metric: whether the world is in metres.
        clip: name of the camera that is the input unless another one is named.
    """

    layout: str
    directory: Path
    cameras: dict[str, RecordedCamera]
    held_out: tuple[str, ...] = ()
    points: ScenePoints | None = None
    metric: bool = False
    clip: str | None = None

    def chosen(
        self, input_camera: str | None, held_out: Sequence[str] | None
    ) -> tuple[RecordedCamera, tuple[RecordedCamera, ...], str]:
        """Return the input camera, the held-out ones, and a line on what was chosen.

        Args:
            input_camera: name; by default the camera, of those that are not held out, whose viewing
                direction differs least from those of the held-out ones (with none held out by the
                recording: from those of all).
            held_out: names; by default those of the recording, or all but the input.

        Raises:
            InputError: no such camera, one that is both, or none left to hold out.
        """
        wanted = self.held_out if held_out is None else tuple(held_out)
        for option, names in (("--held-out", wanted), ("--input-camera", [input_camera])):
            unknown = [name for name in names if name is not None and name not in self.cameras]
            if unknown:
                raise InputError(
                    f"{self.directory}: {option}: expected one of {_listed(self.cameras)}, got "
                    f"{shown(unknown[0])}"
                )
        if len(set(wanted)) != len(wanted):
            raise InputError(f"{self.directory}: --held-out: a camera is named twice")
        if held_out is None:
            wanted = tuple(name for name in wanted if name != input_camera)
        elif input_camera in wanted:
            raise InputError(
                f"{self.directory}: --held-out: {input_camera} is the input camera; hold out others"
            )
        free = [name for name in self.cameras if name not in wanted]
        if not free:
            raise InputError(
                f"{self.directory}: expected a camera that is not held out, to be the input"
            )
        chosen = input_camera or (self.clip if self.clip in free else None)
        if chosen is None:
            chosen = free[0] if len(free) == 1 else self._most_central(free, wanted or free)
        wanted = wanted or tuple(name for name in self.cameras if name != chosen)
        if not wanted:
            raise InputError(
                f"{self.directory}: expected at least two cameras, one of them to be held out, got "
                f"{_listed(self.cameras)} alone; for a clip of one camera leave --from out "
                "(--cameras files)"
            )
        line = (
            f"{self.layout}: input camera {chosen}, "
            f"{'' if chosen in (input_camera, self.clip) else 'chosen by msdyn, '}held out "
            f"{_listed(wanted)}"
        )
        return self.cameras[chosen], tuple(self.cameras[name] for name in wanted), line

    def _most_central(self, free: Sequence[str], targets: Sequence[str]) -> str:
        """Return the camera whose viewing direction has the least mean angle to those of others."""
        axes = {name: self.cameras[name].cameras.cam_from_world[0, 2, :3] for name in self.cameras}

        def mean_angle(name: str) -> float:
            cosines = [float(axes[name] @ axes[other]) for other in targets if other != name]
            return float(np.mean(np.arccos(np.clip(cosines, -1, 1)))) if cosines else 0.0

        return min(free, key=mean_angle)


def checked_times(seconds: Float[np.ndarray, " images"], what: str) -> Float64[np.ndarray, " n"]:
    """Return time stamps that are finite and increase.

    Raises:
        InputError: they are not.
    """
    seconds = np.asarray(seconds, np.float64)
    if not np.isfinite(seconds).all():
        raise InputError(f"{what}: expected finite times, got NaN or infinity")
    wrong = np.flatnonzero(np.diff(seconds) <= 0)
    if len(wrong):
        pair = seconds[wrong[0] : wrong[0] + 2]
        raise InputError(
            f"{what}: expected increasing times, one image at each, got {pair[1]:g} after "
            f"{pair[0]:g} (image {int(wrong[0]) + 1})"
        )
    return seconds


def inside(folder: Path, name: object, what: str) -> Path:
    """Return the path of a file that a recording names, which must lie in its folder.

    Raises:
        InputError: not a name, or one that leads out of the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name or len(name) > LARGEST_SIDE:
        raise InputError(f"{what}: expected the name of a file, got {shown(name)}")
    relative = os.path.normpath(name)
    if os.path.isabs(relative) or relative.split(os.sep, 1)[0] == os.pardir:
        raise InputError(f"{what}: expected a file in {folder}, got {shown(name)}")
    return folder / relative


def _listed(names: Sequence[str] | dict[str, RecordedCamera]) -> str:
    """Return names in a line, shortened."""
    names = list(names)
    return ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
