"""Which frame of a scene each named image of a camera file is.

Names of a folder of images are those of its images. Otherwise names end with numbers, and what
these count is not always certain: the frames of the video from 0 or from 1, the frames of the
scene, or frames extracted at a lower rate. A wrong choice moves every camera by a frame or more,
with nothing else amiss, so that where there are several readings static tracks decide: with cameras
in the wrong frames, their points are farther from their observations. A camera of even motion fits
them equally well a frame later; then nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.preprocess.frame_matching import (
    NUMBERING_CURE,
    Numbering,
    frame_numbers,
    series_gaps,
)
from msdyn.preprocess.multiview.absolute_pose import longest_in_cells
from msdyn.preprocess.multiview.triangulation import triangulate
from msdyn.scene import Scene, Tracks

__all__ = ["Reading", "choose_reading", "possible_readings", "track_error"]

# Readings whose error is within this factor, or this many px, of the lowest fit as well.
AS_GOOD, AS_GOOD_PX = 1.25, 0.05
WORST_FIT = 0.01  # of the longer side of the image: readings with a larger error fit nothing
COVERED = 0.75  # share of the video that images extracted at a lower rate extend over
MAX_STEP = 60
TRACKS, FRAMES_SAMPLED, MIN_TRACKS = 240, 8, 20


@dataclass(frozen=True)
class Reading:
    """One meaning of the names of images.

    Attributes:
        rows: [T] the image of each frame of the scene, -1 where it has none.
        text: in words.
        option: arguments of --numbering that choose it; "" where these cannot.
        likely: to be taken unless another one fits better.
    """

    rows: Int[np.ndarray, " frames"]
    text: str
    option: str = ""
    likely: bool = False


def possible_readings(
    scene: Scene, names: tuple[str, ...], what: str, numbering: Numbering | None = None
) -> list[Reading]:
    """Return what names of images may mean, each with a camera for two frames of the scene.

    Args:
        scene: the scene.
        names: of images.
        what: begins the error: file and what the names are of.
        numbering: of the user, the only reading then.

    Raises:
        InputError: names without frame numbers, or of fewer than two frames.
    """
    options = scene.info.stages["frames"]["options"]
    kept, count = options["source_frames"], options["source_frame_count"]
    numbers = frame_numbers(names)
    if numbering is not None:
        if numbers is None:
            raise InputError(f"{what}: --numbering needs names that end with different numbers")
        readings = [_reading(kept, numbering.frames(numbers).tolist(), "as --numbering says")]
    else:
        readings = _by_name(options, names) if "source_names" in options else []
        if numbers is not None:
            readings += _by_number(numbers, kept, count)
        if not readings and not series_gaps(numbers or []) and len(names) in (count, len(kept)):
            # Names of another kind, as times: in their order.
            frames = kept if len(names) == len(kept) else list(range(count))
            readings = [_reading(kept, frames, "one for every frame in the order of their names")]
    found: list[Reading] = []
    for reading in readings:
        same = any(np.array_equal(reading.rows, other.rows) for other in found)
        if not same and (reading.rows >= 0).sum() >= 2:
            found.append(reading)
    if readings and not found:
        raise InputError(f"{what}: fewer than two of them are of the {len(scene)} frames kept")
    if not found:
        raise InputError(
            f"{what}: expected names that end with frame numbers of the video (0 to {count - 1}), "
            f"got {names[0]} to {names[-1]}; give one camera per frame, or {NUMBERING_CURE}"
        )
    return found


def choose_reading(
    readings: list[Reading], cameras: Cameras, tracks: Tracks | None, what: str
) -> tuple[Reading, str]:
    """Return the reading that static tracks confirm, and a line on how it was chosen.

    Args:
        readings: at least one.
        cameras: of all images, in px of the scene.
        tracks: static tracks.
        what: begins messages: file and what the names are of.

    Returns:
        The reading, and the line, "" where the names left no choice.

    Raises:
        InputError: several readings fit equally well, or none fits.
    """
    if len(readings) == 1:
        return readings[0], ""
    measured = [track_error(reading.rows, cameras, tracks) for reading in readings]
    told = any(error is not None for error in measured)
    errors = [np.inf if error is None else error for error in measured]
    best = min(errors)
    as_good = [
        reading
        for reading, error in zip(readings, errors, strict=True)
        if error <= max(AS_GOOD * best, best + AS_GOOD_PX)  # all where none is measured
    ]
    likely = [reading for reading in as_good if reading.likely]
    if likely:
        return likely[0], ""
    if told and best > WORST_FIT * max(cameras.width, cameras.height):
        raise InputError(
            f"{what}: the tracks fit the cameras in no reading of their names ("
            f"{f'{best:.1f} px off at best' if np.isfinite(best) else 'points lie behind them'}"
            f", as {as_good[0].text}); cameras of another clip? Otherwise "
            f"{NUMBERING_CURE}"
        )
    if len(as_good) > 1:
        texts = " or ".join(
            reading.text + (f" (--numbering {reading.option})" if reading.option else "")
            for reading in as_good[:4]
        )
        raise InputError(
            f"{what}: they may be {texts}, and the tracks fit the cameras equally well; say which, "
            "or give a camera for every frame"
        )
    others = sorted(
        (error, reading.text)
        for reading, error in zip(readings, errors, strict=True)
        if reading is not as_good[0]
    )
    return as_good[0], (
        f"{what}: taken for {as_good[0].text}, as the tracks show ({best:.2f} px off; "
        f"{others[0][0]:.2f} px as {others[0][1]})"
    )


def track_error(
    rows: Int[np.ndarray, " frames"], cameras: Cameras, tracks: Tracks | None
) -> float | None:
    """Return the median distance, px, of static tracks from points triangulated from them.

    Args:
        rows: [T] the camera of each frame, -1 where it has none.
        cameras: in px of the scene.
        tracks: static tracks.

    Returns:
        The distance; infinite if most points are behind a camera; None where too few tracks are
        observed in three frames with a camera.
    """
    known = np.flatnonzero(rows >= 0)
    if tracks is None or len(known) < 3:
        return None
    sampled = known[np.unique(np.linspace(0, len(known) - 1, FRAMES_SAMPLED).astype(int))]
    chosen = np.unique(np.concatenate([longest_in_cells(tracks, int(t)) for t in sampled]))
    if len(chosen) > TRACKS:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, TRACKS, replace=False))
    point, frame, xy, confidence = tracks.select(chosen).observations()
    used = rows[frame] >= 0
    used &= np.bincount(point[used], minlength=len(chosen))[point] >= 3
    if len(np.unique(point[used])) < MIN_TRACKS:
        return None
    placed = cameras[np.maximum(rows, 0)]
    solved = triangulate(placed, point[used], frame[used], xy[used], confidence[used])
    ahead = solved.in_front[point[used]]
    return float(np.median(np.where(ahead, solved.error, np.inf)))


def _by_name(options: dict, names: tuple[str, ...]) -> list[Reading]:
    """Return the reading by the names of the images of a folder, if some are the same."""
    stems = [Path(name).stem for name in options["source_names"]]
    index = {stem: i for i, stem in enumerate(stems)}
    frames = [index.get(Path(name).stem, -1) for name in names]
    matched = [frame for frame in frames if frame >= 0]
    if len(matched) < 2 or len(set(matched)) < len(matched) or len(index) < len(stems):
        return []
    text = "the images of the same names"
    return [_reading(options["source_frames"], frames, text, likely=len(matched) == len(frames))]


def _by_number(numbers: list[int], kept: list[int], count: int) -> list[Reading]:
    """Return the readings by numbers: of frames of the video or of the scene, or at a lower rate.

    Args:
        numbers: of the images.
        kept: frames of the video that are in the scene.
        count: frames of the video.
    """
    low, high, even = min(numbers), max(numbers), set(np.diff(sorted(numbers))) <= {1}
    readings = []
    whole = len(numbers) == count and len(set(np.diff(numbers))) == 1
    if whole:  # whatever they begin with
        frames = list(range(count))
        readings.append(_reading(kept, frames, "one for every frame of the video", likely=True))
    for first in (0, 1):
        start = f"numbered from {first}"
        if low >= first and high - first < len(kept) < count:
            frames = [kept[number - first] for number in numbers]
            likely = even and len(numbers) == len(kept)
            text = f"frames of the scene, {start}"
            readings.append(_reading(kept, frames, text, likely=likely))
        if low >= first and high - first < count:
            frames = [number - first for number in numbers]
            text = f"frames of the video, {start}"
            readings.append(_reading(kept, frames, text, f"{first} 0 1"))
        if whole or low < first:
            continue
        for step in range(2, MAX_STEP + 1):
            if not COVERED * count <= (high - first + 1) * step <= count + step - 1:
                continue
            # The middle is what ffmpeg's filter fps takes of a faster video, the start what others
            # take.
            for phase in sorted({0, (step - 1) // 2}):
                frames = [phase + step * (number - first) for number in numbers]
                if max(frames) >= count:
                    continue
                text = f"every {_ordinal(step)} frame of the video from frame {phase}, {start}"
                readings.append(_reading(kept, frames, text, f"{first} {phase} {step}"))
    return readings


def _reading(
    kept: list[int], frames: list[int], text: str, option: str = "", *, likely: bool = False
) -> Reading:
    """Return the reading in which each image is of a frame of the video."""
    row_of = {frame: row for row, frame in enumerate(frames) if frame >= 0}
    rows = np.array([row_of.get(frame, -1) for frame in kept], int)
    return Reading(rows, text, option, likely)


def _ordinal(number: int) -> str:
    """Return 2 as 2nd, and so on."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number in (11, 12, 13) else ending}"
