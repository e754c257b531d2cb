"""A recording by calibrated cameras as a scene directory: one is the input, others are held out.

Images, cameras, masks and depth of the input camera are unpacked for the stages. After these, the
images of the held-out cameras at the times of the clip are written to `views/`, and
`recording.json` says what was read and which pixels of the held-out images count.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from msdyn.errors import InputError
from msdyn.io import MultiCamera, RecordedCamera, ScenePoints
from msdyn.preprocess.config import ImportConfig
from msdyn.preprocess.covisibility import Covisibility
from msdyn.preprocess.frames.sources import resize_frame
from msdyn.preprocess.imported import Unpacked, write_file, write_times
from msdyn.preprocess.progress import progress
from msdyn.preprocess.recorded_images import (
    ImageReader,
    has_foreground,
    read_depth,
    read_foreground,
)
from msdyn.reading import read_bytes
from msdyn.scene import (
    LENS_FILE,
    Scene,
    frame_path,
    save_npz,
    stamp_stage,
    write_cameras,
    write_depth,
    write_image,
    write_lenses,
    write_mask,
    write_view,
)
from msdyn.writing import write_json

__all__ = ["RECORDING", "unpack_recording"]

_log = logging.getLogger(__name__)

RECORDING = "recording.json"
"""What a scene directory keeps of its recording."""
_LONGEST_NAME = 80
SAME_TIME = 1e-6
"""Of the length of the clip."""


def unpack_recording(recording: MultiCamera, config: ImportConfig, folder: Path) -> Unpacked:
    """Write the input camera of a recording to a folder, and say what is held out.

    Everything that can be checked without decoding images is checked first.

    Raises:
        FileNotFoundError: a file is missing.
        InputError: see `MultiCamera.chosen` and `RecordedCamera.check_files`.
    """
    named = None if config.held_out is None else config.held_out.split(",")
    names = None if named is None else [name.strip() for name in named if name.strip()]
    camera, held_out, line = recording.chosen(config.input_camera, names)
    for each in (camera, *held_out):
        each.check_files()
    _log.warning("%s", line)
    name = f"{recording.directory.resolve().name}-{_plain(camera.name)}"
    video = _write_images(camera, folder, name, config.background)
    posed = folder / "posed"
    write_cameras(posed / "cameras.json", camera.cameras)
    if recording.points is not None:
        points = recording.points
        save_npz(posed / "points.npz", xyz=points.xyz, moving=points.moving)
    if camera.lenses is not None:
        write_lenses(folder / LENS_FILE, camera.lenses)
    masked = range(len(camera) if has_foreground(camera) else 0)
    for frame in progress(masked, "reading masks"):
        write_mask(folder, frame, read_foreground(camera, frame, camera.cameras).astype(np.uint8))
    for frame in progress(range(len(camera.depths or ())), "reading depth"):
        write_depth(folder, frame, read_depth(camera, frame, camera.cameras))
    return Unpacked(
        video,
        posed,
        None if camera.depths is None else folder / "depth",
        folder / "masks" if masked else None,
        metric=recording.metric,
        lens=None if camera.lenses is None else folder / LENS_FILE,
        finish=_Views(
            recording.layout, recording.points, camera, held_out, config.background
        ).write,
    )


def _write_images(camera: RecordedCamera, folder: Path, name: str, background: str) -> Path:
    """Copy the images of a camera, with their times; return the folder, or the video."""
    if camera.is_video:
        return camera.images[0]
    images, read = folder / name, ImageReader(camera, background)
    for frame, path in enumerate(progress(camera.images, "reading images")):
        if camera.transparent:
            write_image(frame_path(images, frame, ".png"), read(frame))
        else:
            write_file(images, frame, path.suffix.lower(), read_bytes(path))
    write_times(images, camera.seconds)
    return images


@dataclass(frozen=True)
class _Views:
    """What is written after the stages."""

    layout: str
    points: ScenePoints | None
    camera: RecordedCamera
    held_out: tuple[RecordedCamera, ...]
    background: str

    def write(self, scene: Scene) -> None:
        """Write the held-out images at the times of the clip, and `recording.json`.

        Raises:
            InputError: no held-out image is of a time of the clip.
        """
        options = scene.info.stages["frames"]["options"]
        source = np.array(options["source_frames"])
        times = self.camera.seconds[source]
        factor = scene.info.width / options["source_width"]
        views: dict[str, int] = {}
        shutil.rmtree(scene.directory / "views", ignore_errors=True)
        covisibility = Covisibility(self.points, self.camera, source)
        for held_out in self.held_out:
            rows = _rows_at(times, held_out.seconds)
            name = _plain(held_out.name)
            if not rows:
                _log.warning("%s: no image at a time of the clip; it is left out", held_out.name)
                continue
            size = (
                round(held_out.cameras.width * factor),
                round(held_out.cameras.height * factor),
            )
            cameras = held_out.cameras
            if held_out.lenses is not None:
                cameras = held_out.lenses.straightened(cameras)
            cameras = cameras.resized(*size)
            kept = np.array(list(rows))
            closest = np.abs(kept - np.arange(len(times))[:, None]).argmin(1)
            of_frames = cameras[np.array(list(rows.values()))[closest]]
            _log.info("views/%s: %d images", name, len(rows))
            write_view(
                scene.directory,
                name,
                cameras=of_frames,
                images=_Images(held_out, self.background, rows, size),
                times=_other_times(times, held_out.seconds, rows),
                covisible=covisibility.masks(held_out, rows, of_frames),
            )
            views[name] = len(rows)
        if not views:
            raise InputError(f"{scene.directory}: no held-out image is of a time of the clip")
        write_json(
            scene.directory / RECORDING,
            {
                "layout": self.layout,
                "input_camera": self.camera.name,
                "views": views,
                "covisibility": covisibility.method,
            },
        )
        if self.camera.transparent:
            _forget_white(scene)


def _forget_white(scene: Scene) -> None:
    """Take the share of white pixels out of the record: they are not over-exposed, but drawn."""
    record: dict[str, Any] = {**scene.info.stages["frames"]}
    options = {k: v for k, v in record.pop("options").items() if k != "white_share"}
    stamp_stage(scene.directory, "frames", options=options, **record)


def _rows_at(
    times: Float64[np.ndarray, " frames"], seconds: Float64[np.ndarray, " images"]
) -> dict[int, int]:
    """Return, by frame of the clip, the image nearest in time, at most half a frame away."""
    half = np.median(np.diff(times)) / 2
    apart = np.abs(seconds - times[:, None])
    nearest_image, nearest_frame = apart.argmin(1), apart.argmin(0)
    return {
        frame: int(row)
        for frame, row in enumerate(nearest_image)
        if apart[frame, row] <= half and nearest_frame[row] == frame
    }


def _other_times(
    times: Float64[np.ndarray, " frames"],
    seconds: Float64[np.ndarray, " images"],
    rows: dict[int, int],
) -> dict[int, float]:
    """Return the normalised times of held-out images that are not those of their frames."""
    length = times[-1] - times[0]
    found = {frame: float((seconds[row] - times[0]) / length) for frame, row in rows.items()}
    own = (times - times[0]) / length
    return {
        frame: min(max(time, 0.0), 1.0)
        for frame, time in found.items()
        if abs(time - own[frame]) > SAME_TIME
    }


class _Images(Mapping[int, UInt8[np.ndarray, "height width 3"]]):
    """The images of a held-out camera by frame of the clip, read one at a time."""

    def __init__(
        self, camera: RecordedCamera, background: str, rows: dict[int, int], size: tuple[int, int]
    ) -> None:
        self._read, self._rows, self._size = ImageReader(camera, background), rows, size
        self._lenses = camera.lenses

    def __getitem__(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        image = self._read(self._rows[frame])
        if self._lenses is not None:
            image = self._lenses[self._rows[frame]].image(image)
        return resize_frame(image, *self._size)

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _plain(name: str) -> str:
    """Return a name as part of the name of a folder."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_LONGEST_NAME] or "_"
