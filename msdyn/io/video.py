"""Video files, by PyAV. Frames are upright, with square pixels."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int, UInt8

from msdyn.errors import InputError
from msdyn.io.hdr import to_standard_range, transfer_of
from msdyn.io.video_ends import missing_end
from msdyn.io.video_frames import decoded, decoded_segment
from msdyn.reading import MOST_FRAMES, check_image_size, opened_video
from msdyn.writing import atomic_path

if TYPE_CHECKING:
    import av
    from av.container import OutputContainer
    from av.video.stream import VideoStream

__all__ = [
    "VideoInfo",
    "VideoWriter",
    "read_video",
    "scan_video",
    "thumbnail_size",
    "write_video",
]

LEAST_THUMBNAIL = 16
"""OpenCV's optical flow (DIS, 5.0.0) ends the process on images with less px a side."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, from decoding all of it.

    Attributes:
        seconds: timestamps of the frames, strictly increasing, the first at 0.
        width, height: size of the upright frames in square pixels.
        nominal: the file's timestamps are missing or not increasing; `seconds` are evenly spaced.
        thumbnails: small grey images of the frames, if requested.
        hdr: transfer of a video of high dynamic range, HLG or PQ; "" of others.
    """

    seconds: Float64[np.ndarray, " frames"]
    width: int
    height: int
    nominal: bool
    thumbnails: UInt8[np.ndarray, "frames thumbnail_height thumbnail_width"] | None = None
    hdr: str = ""


def scan_video(
    path: str | os.PathLike,
    *,
    thumbnail_side: int = 0,
    segment: tuple[float, float] | None = None,
) -> VideoInfo:
    """Return the timestamps and size of a video, after decoding all of it to check it is complete.

    Args:
        path: any video that PyAV opens.
        thumbnail_side: longer side, px, of the thumbnails to return; 0 for none.
        segment: take only the frames with times, in seconds of the file, from the first of these
            to before the second; the rest is neither decoded nor checked.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a video, frames of differing sizes, or a video that is cut short: decoding
            ends with an error, or well before the declared end. The message gives the number
            of frames that decode.
    """
    from av.error import FFmpegError

    times: list[float | None] = []
    thumbnails: list[np.ndarray] = []
    size: tuple[int, int] | None = None
    damage, hdr, last_duration = "", "", 0.0
    with opened_video(path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        try:
            frames = (
                decoded(container, stream)
                if segment is None
                else decoded_segment(container, stream, *segment)
            )
            for frame in frames:
                frame_size = _upright_size(frame, stream)
                if size is None:
                    check_image_size(*frame_size, str(path))
                if len(times) == MOST_FRAMES:
                    raise InputError(f"{path}: expected at most {MOST_FRAMES} frames, got more")
                if size is not None and frame_size != size:
                    raise InputError(
                        f"{path}: frames of differing sizes, {size[0]}x{size[1]} and "
                        f"{frame_size[0]}x{frame_size[1]} at frame {len(times)}"
                    )
                size = frame_size
                times.append(frame.time)
                hdr = transfer_of(frame.color_trc) or ""
                last_duration = float((frame.duration or 0) * (frame.time_base or 0))
                if thumbnail_side:
                    thumbnails.append(_thumbnail(frame, thumbnail_size(*size, thumbnail_side)))
        except FFmpegError as error:
            damage = error.strerror or str(error)
        if not damage and times and segment is None:
            damage = missing_end(Path(path), container, stream, times, last_duration, rate)
    if size is None:
        raise InputError(f"{path}: no frame of it decodes{damage and f' ({damage})'}")
    seconds, nominal = _timestamps(times, rate)
    if damage:
        raise InputError(
            f"{path}: the video is cut short or damaged: {len(times)} frames "
            f"({seconds[-1] + 1 / rate:.2f} s) decode, then it ends ({damage}); "
            "get a complete copy, or export the part that plays as a new file"
        )
    return VideoInfo(seconds, *size, nominal, np.stack(thumbnails) if thumbnails else None, hdr)


def thumbnail_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the width and height, px, of a thumbnail with a longer side of `side` px.

    Of narrow images the shorter side is `LEAST_THUMBNAIL`, whatever their shape.
    """
    factor = side / max(width, height)
    return (
        max(LEAST_THUMBNAIL, round(factor * width)),
        max(LEAST_THUMBNAIL, round(factor * height)),
    )


def read_video(
    path: str | os.PathLike,
    frames: Sequence[int] | Int[np.ndarray, " wanted"] | None = None,
    *,
    segment: tuple[float, float] | None = None,
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield RGB frames of a video.

    Args:
        path: any video that PyAV opens.
        frames: indices of the frames to yield, in the order of the file; all by default.
        segment: as of `scan_video`; indices count its frames.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a video, or decoding fails or ends before the last requested frame.
    """
    from av.error import FFmpegError

    wanted = None if frames is None else set(np.asarray(frames).tolist())
    last = max(wanted, default=-1) if wanted is not None else None
    count = 0
    with opened_video(path) as (container, stream):
        try:
            found = (
                decoded(container, stream)
                if segment is None
                else decoded_segment(container, stream, *segment)
            )
            for index, frame in enumerate(found):
                count = index + 1
                if wanted is None or index in wanted:
                    check_image_size(*_upright_size(frame, stream), str(path))
                    yield _upright_rgb(frame, stream)
                if index == last:
                    return
        except FFmpegError as error:
            raise InputError(f"{path}: decoding fails ({error.strerror or error})") from error
    if last is not None:
        raise InputError(f"{path}: it has no frame {last}, only {count} frames")


def write_video(
    path: str | os.PathLike,
    frames: Iterable[UInt8[np.ndarray, "height width 3"]],
    fps: float,
    *,
    crf: int = 16,
) -> None:
    """Write frames as an H.264 mp4 (yuv420p, which all players support), atomically.

    Args:
        path: file name, `.mp4`.
        frames: RGB images of one size; an odd row or column is dropped.
        fps: frames per second.
        crf: x264's constant rate factor, lower is better.

    Raises:
        InputError: no frame, or frames of differing sizes.
    """
    with VideoWriter(path, fps, crf=crf) as writer:
        for frame in frames:
            writer.add(frame)


class VideoWriter:
    """A context manager that writes the frames of an H.264 mp4 one by one; see `write_video`.

    The file is created when the context exits without an exception.
    """

    def __init__(self, path: str | os.PathLike, fps: float, *, crf: int = 16) -> None:
        self.path, self.crf = path, crf
        self.rate = Fraction(fps).limit_denominator(1001)
        self.stack = contextlib.ExitStack()
        self.container: OutputContainer | None = None
        self.stream: VideoStream | None = None
        self.size = (0, 0)

    def __enter__(self) -> VideoWriter:
        import av

        temporary = self.stack.enter_context(atomic_path(self.path))
        self.container = self.stack.enter_context(av.open(str(temporary), "w"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if kind is None:
            try:
                if self.stream is None:
                    raise InputError(f"{self.path}: expected at least one frame, got none")
                self._encode(self.stream, None)
            except BaseException:
                self.stack.__exit__(*sys.exc_info())
                raise
        return self.stack.__exit__(kind, error, traceback)

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Append an RGB frame.

        Raises:
            InputError: its size is not that of the first.
        """
        import av

        height, width = frame.shape[:2]
        if self.stream is None:
            self.size = (width, height)
            self.stream = self._new_stream(width // 2 * 2, height // 2 * 2)
        if (width, height) != self.size:
            raise InputError(
                f"{self.path}: frames of differing sizes, {self.size[0]}x{self.size[1]} and "
                f"{width}x{height}"
            )
        even = np.ascontiguousarray(frame[: self.stream.height, : self.stream.width])
        self._encode(self.stream, av.VideoFrame.from_ndarray(even, format="rgb24"))

    def _new_stream(self, width: int, height: int) -> VideoStream:
        assert self.container is not None, "VideoWriter: add frames inside its `with` block"
        stream = self.container.add_stream("libx264", rate=self.rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(self.crf), "preset": "medium"}
        return stream

    def _encode(self, stream: VideoStream, frame: av.VideoFrame | None) -> None:
        assert self.container is not None
        for packet in stream.encode(frame):
            self.container.mux(packet)


def _timestamps(
    times: list[float | None], rate: float
) -> tuple[Float64[np.ndarray, " frames"], bool]:
    """Return timestamps that start at 0, and whether they are derived from the frame rate."""
    seconds = np.array([np.nan if time is None else time for time in times])
    if np.isfinite(seconds).all() and (np.diff(seconds) > 0).all():
        return seconds - seconds[0], False
    return np.arange(len(times)) / rate, True


def _quarter_rotations(frame: av.VideoFrame) -> int:
    """Return the number of rotations by 90 degrees anticlockwise that make a frame upright."""
    return round(frame.rotation / 90) % 4


def _square_width(frame: av.VideoFrame, stream: VideoStream) -> int:
    """Return the width of a stored frame after resampling to square pixels."""
    return round(frame.width * (stream.sample_aspect_ratio or 1))


def _upright_size(frame: av.VideoFrame, stream: VideoStream) -> tuple[int, int]:
    width, height = _square_width(frame, stream), frame.height
    return (width, height) if _quarter_rotations(frame) % 2 == 0 else (height, width)


def _upright_rgb(frame: av.VideoFrame, stream: VideoStream) -> UInt8[np.ndarray, "height width 3"]:
    width, transfer = _square_width(frame, stream), transfer_of(frame.color_trc)
    if transfer is None:
        rgb = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    else:
        deep = frame.to_ndarray(format="rgb48le", width=width, height=frame.height)
        rgb = to_standard_range(deep, transfer)
    return np.ascontiguousarray(np.rot90(rgb, _quarter_rotations(frame)))


def _thumbnail(frame: av.VideoFrame, size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    """Return an upright, grey image of a frame, of this upright size (width, height)."""
    rotations = _quarter_rotations(frame)
    stored = size if rotations % 2 == 0 else size[::-1]
    small = frame.to_ndarray(format="gray", width=stored[0], height=stored[1])
    return np.ascontiguousarray(np.rot90(small, rotations))
