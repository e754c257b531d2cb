"""The frames stage: a video, or images, into `images/` and `scene.json`."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from msdyn.errors import InputError
from msdyn.preprocess.frames.given_lens import GivenLens
from msdyn.preprocess.frames.shots import MIN_CONTRAST, find_cuts
from msdyn.preprocess.frames.sources import Source, open_source, resize_frame
from msdyn.preprocess.progress import progress
from msdyn.scene import (
    LENS_FILE,
    FrameLenses,
    Timeline,
    create_scene,
    frame_path,
    write_image,
    write_lenses,
)

__all__ = ["FrameOptions", "Segment", "write_frames"]

_log = logging.getLogger(__name__)

IMAGE_WHITE = 255
# Mean difference, in grey levels, of frames that differ, and the least share of such frames in a
# clip that moves; a frame is a copy of the one before if its difference is below this share.
MOVING_LEVELS, LEAST_MOVING, REPEATED = 0.5, 0.2, 0.05
# Grey levels that are white, also after compression, and the least share of them that is recorded.
# Of seven real clips that are not over-exposed the share is .001 at most.
WHITE_LEVEL, LEAST_WHITE = 250, 0.05
MIN_SIDE = 32
"""Smaller images are too small for optical flow."""


@dataclass(frozen=True)
class Segment:
    """A part of a video that counts as the whole clip, such as one of several episodes.

    Attributes:
        start, end: seconds in the file; frames from `start` to before `end` belong to it.
        frames: how many these must be.
    """

    start: float
    end: float
    frames: int


@dataclass(frozen=True)
class FrameOptions:
    """Which frames are taken, and at what size.

    Attributes:
        start, end: seconds of the video, from its first frame; None is its beginning, or end.
        shot: of a video with cuts, take this shot, from 1.
        fps: take at most this many frames per second; None takes all.
        max_frames: take at most this many frames, evenly spaced; None takes all.
        long_side: shrink images so that their longer side is at most this many px; 0 does not.
        folder_fps: frame rate of images, which have no timestamps.
        segment: what counts as the video; None is all of it.
        lens: of the video, which is undistorted; None is a pinhole camera.
    """

    start: float | None = None
    end: float | None = None
    shot: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    long_side: int = 960
    folder_fps: float = 30.0
    segment: Segment | None = None
    lens: GivenLens | None = None

    def recorded(self) -> dict[str, Any]:
        """Return the options as JSON values; the segment and the lens where there is one."""
        options = asdict(replace(self, lens=None))
        options["lens"] = None if self.lens is None else self.lens.recorded()
        return {k: v for k, v in options.items() if v is not None or k not in ("segment", "lens")}


def write_frames(video: Path, directory: Path, options: FrameOptions) -> dict[str, Any]:
    """Write the frames of a clip to a scene directory, one at a time, and a new `scene.json`.

    Args:
        video: a video file, upright as its rotation metadata says, a folder of images, or a
            pattern of image names.
        directory: the scene directory; its `images/` must be empty.
        options: what to take.

    Returns:
        The source, for the record of the stage: `source_frames`, the index in the source of every
        frame; `source_frame_count`, `source_width`, `source_height`; `source_start_seconds`, the
        time of the first frame; `source_names`, of images; `shots`, their number between --start
        and --end; `timestamps`, "true" or, where the source has none that increase, "nominal";
        `blank_frames`, those of the scene without contrast; `repeated_frames`, the number of those
        that are copies of the one before, in a clip that moves; `white_share` of the pixels;
        `source_white` of 16-bit images; `source_hdr`, the transfer of a video of high dynamic
        range; and `source_focal_px`, `source_focal`, the focal length that images recorded.

    Raises:
        FileNotFoundError: there is no such file or folder.
        InputError: not a video, cut short, of one frame, of frames of differing sizes, of several
            shots, or with nothing left of it.
    """
    segment = options.segment
    window = None if segment is None else (segment.start, segment.end)
    source = open_source(video, options.folder_fps, window)
    if segment is not None and len(source.seconds) != segment.frames:
        raise InputError(
            f"{video}: expected {segment.frames} frames from {segment.start:.3f} to "
            f"{segment.end:.3f} s, got {len(source.seconds)}"
        )
    if len(source.seconds) < 2:
        raise InputError(
            f"{video}: it holds one frame; a moving scene needs at least 2, "
            "from a camera that moves"
        )
    chosen = _within(source.seconds, options, video)
    chosen, shots = _one_shot(source, chosen, options.shot, video)
    chosen = _thinned(source.seconds, chosen, options)
    if len(chosen) < 2:
        raise InputError(
            f"{video}: one of its {len(source.seconds)} frames is left; raise --fps or --max-frames"
        )
    contrast = np.array([source.thumbnails[frame].std() for frame in chosen])
    blank = np.flatnonzero(contrast < MIN_CONTRAST).tolist()
    width, height = _fit_size(source.width, source.height, options.long_side)
    if min(width, height) < MIN_SIDE:
        raise InputError(
            f"{video}: {width}x{height} is too small; expected at least {MIN_SIDE} pixels a side"
        )
    names = tuple(file.name for file in source.files)
    lenses = None
    if options.lens is not None:
        whole = source.width, source.height
        lenses = options.lens.of_frames(whole, len(source.seconds), chosen, names)
    images = progress(source.read(chosen), "frames", total=len(chosen))
    for frame, image in enumerate(images):
        write_image(
            frame_path(directory / "images", frame, ".png"),
            resize_frame(image, width, height, None if lenses is None else lenses[frame]),
        )
    seconds = source.seconds[chosen] - source.seconds[chosen[0]]
    create_scene(
        directory,
        width=width,
        height=height,
        fps=(len(chosen) - 1) / seconds[-1],
        timeline=Timeline(seconds),
    )
    if lenses is not None:
        write_lenses(directory / LENS_FILE, lenses)
        _log.warning("frames: %s", _said(lenses))
    record = {
        "source": video.name,
        "source_frames": chosen.tolist(),
        "source_frame_count": len(source.seconds),
        "source_width": source.width,
        "source_height": source.height,
        "source_start_seconds": float(source.seconds[chosen[0]]),
        "shots": shots,
        "timestamps": "nominal" if source.nominal else "true",
    }
    if blank:
        record["blank_frames"] = blank
    white = float((source.thumbnails[chosen] >= WHITE_LEVEL).mean())
    if white >= LEAST_WHITE:
        record["white_share"] = round(white, 3)
    repeated = _repeated(source.thumbnails[chosen])
    if repeated:
        record["repeated_frames"] = repeated
    if source.files:
        record["source_names"] = list(names)
    if source.white > IMAGE_WHITE:
        record["source_white"] = source.white
        _log.warning(
            "frames: %s: images of 16 bits; 0 to %d is shown black to white", video, source.white
        )
    if source.hdr:
        record["source_hdr"] = source.hdr
        _log.warning(
            "frames: %s: high dynamic range (%s), mapped to the standard range", video, source.hdr
        )
    if source.focal is not None:
        record["source_focal_px"] = round(source.focal.px, 2)
        record["source_focal"] = source.focal.text
    return record


def _said(lenses: FrameLenses) -> str:
    """Return in words what the lenses are and what is done with them."""
    item = lenses[0]
    model, moved = item.lens.model, item.lens.displacement
    if item.is_identity:
        return f"the lens ({model}) has no distortion to speak of; images are kept as they are"
    (fx, fy, _, _), (wide, high) = item.pinhole, (item.lens.width, item.lens.height)
    view = (2 * np.degrees(np.arctan(s / (2 * f))) for s, f in ((wide, fx), (high, fy)))
    far = f"by up to {moved:.0f} px" if np.isfinite(moved) else "in part beyond the lens' fold"
    return (
        f"the lens ({model}) moves pixels {far}; images are undistorted, and show "
        f"{' x '.join(f'{angle:.0f}' for angle in view)} degrees"
    )


def _repeated(thumbnails: UInt8[np.ndarray, "frames h w"]) -> int:
    """Return how many frames repeat the one before, in a clip in which others differ."""
    pairs = zip(thumbnails, thumbnails[1:], strict=False)
    change = np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs])
    moving = change > MOVING_LEVELS
    if moving.mean() < LEAST_MOVING:
        return 0
    return int((change < REPEATED * np.median(change[moving])).sum())


def _within(
    seconds: Float[np.ndarray, " frames"], options: FrameOptions, video: Path
) -> Int[np.ndarray, " chosen"]:
    """Return the indices of the frames from `start` to `end`."""
    start = 0.0 if options.start is None else options.start
    end = np.inf if options.end is None else options.end
    # Containers round times, and so do users.
    chosen = np.flatnonzero((seconds >= start - 1e-3) & (seconds <= end + 1e-3))
    if len(chosen) < 2:
        raise InputError(
            f"{video}: {len(chosen)} of its frames lie between --start {start:g} and --end "
            f"{min(end, seconds[-1]):g}; it lasts {seconds[-1]:.2f} s"
        )
    return chosen


def _one_shot(
    source: Source, chosen: Int[np.ndarray, " chosen"], shot: int | None, video: Path
) -> tuple[Int[np.ndarray, " kept"], int]:
    """Return the frames of one shot, and the number of shots among the chosen frames."""
    cuts = find_cuts(source.thumbnails[chosen])
    shots = np.split(chosen, cuts)
    number = len(shots)
    if shot is None and number > 1:
        first = int(chosen[cuts[0]])
        ranges = ", ".join(f"{i} (frames {s[0]} to {s[-1]})" for i, s in enumerate(shots[:5], 1))
        raise InputError(
            f"{video}: it is cut at frame {first} ({source.seconds[first]:.2f} s); a scene is one "
            f"shot: choose one of {number} with --shot: {ranges}{', ...' if number > 5 else ''}"
        )
    if shot is not None and shot > number:
        raise InputError(f"{video}: shot: expected 1 to {number}, got {shot}")
    kept = shots[(shot or 1) - 1]
    if len(kept) < 2:
        raise InputError(f"{video}: shot {shot} is one frame; choose another --shot")
    return kept, number


def _thinned(
    seconds: Float[np.ndarray, " frames"],
    chosen: Int[np.ndarray, " chosen"],
    options: FrameOptions,
) -> Int[np.ndarray, " kept"]:
    """Return which of the frames to take for `fps` and `max_frames`."""
    if options.fps is not None:
        own = seconds[chosen] - seconds[chosen[0]]
        wanted = np.arange(0, own[-1] + 1e-6, 1 / options.fps)
        after = np.searchsorted(own, wanted).clip(1, len(own) - 1)
        nearer = wanted - own[after - 1] <= own[after] - wanted
        chosen = chosen[np.unique(after - nearer)]
    if options.max_frames is not None and len(chosen) > options.max_frames:
        spaced = np.linspace(0, len(chosen) - 1, options.max_frames)
        chosen = chosen[np.round(spaced).astype(int)]
    return chosen


def _fit_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Return the size of an image shrunk to a longer side of at most `long_side` px."""
    factor = min(1.0, long_side / max(width, height)) if long_side else 1.0
    return max(1, round(width * factor)), max(1, round(height * factor))
