"""The cameras and times that `msdyn-render` renders, from its options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Real

from msdyn.errors import InputError
from msdyn.geometry import Cameras, make_path
from msdyn.io import read_camera_file
from msdyn.render import AutoPath, auto_path, focus_points
from msdyn.sequence import GaussianSequence

__all__ = ["Plan", "make_plan"]

_AUTO = "auto"
_BULLET_TIME = "bullet-time"


@dataclass(frozen=True)
class Plan:
    """Images to render.

    Attributes:
        cameras: one per image.
        times: the normalised time of each.
        name: default name of the file.
        chosen: how the path was chosen, for the path `auto`.
    """

    cameras: Cameras
    times: Real[np.ndarray, " images"]
    name: str
    chosen: AutoPath | None = None

    def __len__(self) -> int:
        return len(self.times)


def make_plan(
    sequence: GaussianSequence,
    moments: Real[np.ndarray, " times"] | None,
    *,
    camera: Path | None = None,
    path: str | None = None,
    frames: int | None = None,
    fps: float | None = None,
    objects: list[int] | None = None,
    video: bool = False,
) -> Plan:
    """Return the cameras and times to render.

    Args:
        sequence: the fit; its cameras are those of the input.
        moments: normalised times, or None if not given.
        camera: a camera file.
        path: name of a camera path, or "auto".
        frames: number of images.
        fps: frames per second of the video; those of the clip by default.
        objects: mask indices of the objects that paths lead around; all of them by default.
        video: play through the clip if neither times nor a number of images are given.

    Raises:
        FileNotFoundError: no such camera file.
        InputError: contradictory options.
    """
    if camera is not None and path is not None:
        raise InputError("render: expected --camera or --path, got both")
    if frames is not None and frames < 1:
        raise InputError(f"--frames: expected at least 1, got {frames}")
    if frames is not None and moments is not None and len(moments) > 1:
        raise InputError("render: expected --frames or --times, got both")
    count = frames or len(sequence.timeline)
    if path is not None:
        return _along_path(sequence, path, moments, count, fps, objects)
    if camera is not None:
        return _from_file(sequence, camera, moments, count, play=video or frames is not None)
    if moments is None:
        moments = np.linspace(0, 1, count) if video or frames is not None else np.zeros(1)
    elif len(moments) == 1 and frames is not None:
        moments = np.full(frames, moments[0])
    positions = sequence.timeline.frame_positions(moments)
    return Plan(sequence.cameras.interpolated(positions), moments, "input")


def _along_path(
    sequence: GaussianSequence,
    path: str,
    moments: Real[np.ndarray, " times"] | None,
    count: int,
    fps: float | None,
    objects: list[int] | None,
) -> Plan:
    """Return a plan along a named camera path."""
    cameras = sequence.cameras
    if path == _BULLET_TIME and moments is None:
        moments = np.array([0.5])
    if moments is not None and len(moments) > 1:
        if path == _BULLET_TIME:
            raise InputError("--path bullet-time: expected one --time, got several")
        times = moments
    else:
        times = np.linspace(0, 1, count) if moments is None else np.full(count, moments[0])
    if path == _AUTO:
        seconds = len(times) / (fps or sequence.timeline.fps)
        chosen = auto_path(sequence, times, seconds=seconds, objects=objects)
        return Plan(chosen.cameras, times, path, chosen)
    if path == "input":
        # The camera of the same time, interpolated between frames.
        playing = np.linspace(0, 1, len(times)) if moments is None or len(moments) == 1 else times
        positions = sequence.timeline.frame_positions(playing)
        return Plan(cameras.interpolated(positions), times, path)
    if path == _BULLET_TIME:
        cameras = sequence.camera_at(float(times[0]))
    focus = np.median(focus_points(sequence, times, objects), axis=0)
    return Plan(make_path(path, cameras, len(times), focus), times, path)


def _from_file(
    sequence: GaussianSequence,
    camera: Path,
    moments: Real[np.ndarray, " times"] | None,
    count: int,
    *,
    play: bool,
) -> Plan:
    """Return a plan for the cameras of a file."""
    timed = read_camera_file(camera)
    cameras, number = timed.cameras, len(timed.cameras)
    if moments is not None:
        if 1 not in (number, len(moments)) and number != len(moments):
            raise InputError(
                f"render: expected one time, or one for each of the {number} cameras of {camera}, "
                f"got {len(moments)} times"
            )
        total = max(number, len(moments))
        index = np.zeros(total, int) if number == 1 else np.arange(total)
        return Plan(cameras[index], np.resize(moments, total), camera.stem)
    if timed.times is not None:
        try:
            sequence.timeline.frame_positions(timed.times)
        except InputError as error:
            raise InputError(f"{camera}: {error}") from error
        return Plan(cameras, timed.times, camera.stem)
    if number > 1:
        return Plan(cameras, np.linspace(0, 1, number), camera.stem)
    times = np.linspace(0, 1, count) if play else np.zeros(1)
    return Plan(cameras[np.zeros(len(times), int)], times, camera.stem)
