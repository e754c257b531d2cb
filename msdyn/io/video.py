"""Video files."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msdyn.errors import InputError
from msdyn.files import atomic_path

if TYPE_CHECKING:
    import av

__all__ = ["VideoInfo", "VideoWriter", "read_video", "scan_video", "write_video"]


@dataclass(frozen=True)
class VideoInfo:
    """What decoding a whole video showed.

    Attributes:
        seconds: [T] timestamps of the frames, strictly increasing, the first at 0.
        width, height: upright size in square pixels.
        nominal: the file's timestamps are missing or not increasing; `seconds` are evenly spaced.
        thumbnails: [T, h, w] uint8, grey, where they were asked for.
    """

    seconds: np.ndarray
    width: int
    height: int
    nominal: bool
    thumbnails: np.ndarray | None = None


def scan_video(path: str | os.PathLike, *, thumbnail_width: int = 0) -> VideoInfo:
    """Decode a video without keeping a frame: its timestamps, its size, and that it is whole.

    Args:
        path: any video that PyAV opens.
        thumbnail_width: keep a small grey picture of each frame, this many px wide; 0 keeps none.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a video, frames of differing sizes, or a video cut short: one that stops
            with an error, or well before the duration it declares. What decodes is not taken for
            the clip; the message says how many frames there are, so that the user can decide.
    """
    from av.error import FFmpegError

    times: list[float | None] = []
    thumbnails: list[np.ndarray] = []
    size: tuple[int, int] | None = None
    broken = ""
    with _open(path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        duration = _declared_duration(container, stream)
        try:
            for frame in container.decode(stream):
                frame_size = _upright_size(frame, stream)
                if size is not None and frame_size != size:
                    raise InputError(
                        f"{path}: frames of differing sizes, {size[0]}x{size[1]} and "
                        f"{frame_size[0]}x{frame_size[1]} at frame {len(times)}"
                    )
                size = frame_size
                times.append(frame.time)
                if thumbnail_width:
                    thumbnails.append(_thumbnail(frame, size, thumbnail_width))
        except FFmpegError as error:
            broken = error.strerror or str(error)
    if size is None:
        raise InputError(f"{path}: no frame of it decodes{broken and f' ({broken})'}")
    seconds, nominal = _timestamps(times, rate)
    # Three frames and 2 %: containers round, and audio may outlast the picture by a little.
    if not broken and duration and seconds[-1] + 4 / rate < 0.98 * duration:
        broken = f"it should last {duration:.2f} s"
    if broken:
        raise InputError(
            f"{path}: the video is cut short or damaged: {len(times)} frames "
            f"({seconds[-1] + 1 / rate:.2f} s) decode, then it ends ({broken}); "
            "get a whole copy, or export the part that plays as a new file"
        )
    return VideoInfo(seconds, *size, nominal, np.stack(thumbnails) if thumbnails else None)


def read_video(
    path: str | os.PathLike, frames: Sequence[int] | np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yield frames of a video, upright, in square pixels, as uint8 RGB [H, W, 3].

    Args:
        path: any video that PyAV opens.
        frames: indices of the frames to yield, in the order of the file; all by default.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a video, or decoding fails before the last wanted frame.
    """
    from av.error import FFmpegError

    wanted = None if frames is None else set(np.asarray(frames).tolist())
    last = max(wanted, default=-1) if wanted is not None else None
    with _open(path) as (container, stream):
        try:
            for index, frame in enumerate(container.decode(stream)):
                if wanted is None or index in wanted:
                    yield _upright_rgb(frame, stream)
                if index == last:
                    return
        except FFmpegError as error:
            raise InputError(f"{path}: decoding fails ({error.strerror or error})") from error
    if last is not None:
        raise InputError(f"{path}: it has no frame {last}")


def write_video(
    path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float, *, crf: int = 16
) -> None:
    """Write frames as an H.264 mp4 (yuv420p, so it plays everywhere), atomically.

    Args:
        path: file name, `.mp4`.
        frames: uint8 RGB images [H, W, 3] of one size; an odd row or column is dropped.
        fps: frames a second.
        crf: x264's constant rate factor, lower is better.

    Raises:
        InputError: no frame, or frames of differing sizes.
    """
    with VideoWriter(path, fps, crf=crf) as writer:
        for frame in frames:
            writer.add(frame)


class VideoWriter:
    """A context that takes the frames of an H.264 mp4 one by one; see `write_video`.

    The file appears when the context is left without an exception.
    """

    def __init__(self, path: str | os.PathLike, fps: float, *, crf: int = 16) -> None:
        self.path, self.crf = path, crf
        self.rate = Fraction(fps).limit_denominator(1001)
        self.stack = contextlib.ExitStack()
        self.stream: Any = None
        self.shape: tuple[int, ...] = ()

    def __enter__(self) -> VideoWriter:
        import av

        temporary = self.stack.enter_context(atomic_path(self.path))
        self.container = self.stack.enter_context(av.open(str(temporary), "w"))
        return self

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is None:
            try:
                if self.stream is None:
                    raise InputError(f"{self.path}: expected at least one frame")
                self._encode(None)
            except BaseException:
                self.stack.__exit__(*sys.exc_info())
                raise
        return self.stack.__exit__(*error)

    def add(self, frame: np.ndarray) -> None:
        """Append a frame [H, W, 3] uint8 RGB.

        Raises:
            InputError: its size is not that of the first.
        """
        import av

        if self.stream is None:
            self.shape = frame.shape
            self.stream = self.container.add_stream("libx264", rate=self.rate)
            self.stream.width, self.stream.height = frame.shape[1] // 2 * 2, frame.shape[0] // 2 * 2
            self.stream.pix_fmt = "yuv420p"
            self.stream.options = {"crf": str(self.crf), "preset": "medium"}
        if frame.shape != self.shape:
            raise InputError(
                f"{self.path}: frames of differing sizes, {self.shape} and {frame.shape}"
            )
        even = np.ascontiguousarray(frame[: self.stream.height, : self.stream.width])
        self._encode(av.VideoFrame.from_ndarray(even, format="rgb24"))

    def _encode(self, frame: Any) -> None:
        for packet in self.stream.encode(frame):
            self.container.mux(packet)


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[tuple[Any, Any]]:
    """Open a video; yield its container and its first video stream, decoded by all cores."""
    import av
    from av.error import FFmpegError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    path.open("rb").close()  # a file that may not be read is not a broken video
    try:
        container = av.open(str(path))
    except FFmpegError as error:
        raise InputError(f"{path}: not a video, or one cut short ({error.strerror})") from error
    with container:
        # libav takes any text for the recording of a terminal.
        if container.format.name == "tty" or not container.streams.video:
            raise InputError(f"{path}: not a video (it has no pictures)")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield container, stream


def _declared_duration(container: Any, stream: Any) -> float | None:
    """Return how many seconds of video the file says it holds, or None where it does not say."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if tag:
        return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1e6
    return None


def _timestamps(times: list[float | None], rate: float) -> tuple[np.ndarray, bool]:
    """Return timestamps [T] from 0 on, and whether they had to be made up from the frame rate."""
    seconds = np.array([np.nan if time is None else time for time in times])
    if np.isfinite(seconds).all() and (np.diff(seconds) > 0).all():
        return seconds - seconds[0], False
    return np.arange(len(times)) / rate, True


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Return how often a frame must be turned by 90 degrees anticlockwise to be upright."""
    return round(frame.rotation / 90) % 4


def _square_width(frame: av.VideoFrame, stream: Any) -> int:
    """Return the width of a stored frame once its pixels are made square."""
    return round(frame.width * (stream.sample_aspect_ratio or 1))


def _upright_size(frame: av.VideoFrame, stream: Any) -> tuple[int, int]:
    width, height = _square_width(frame, stream), frame.height
    return (width, height) if _quarter_turns(frame) % 2 == 0 else (height, width)


def _upright_rgb(frame: av.VideoFrame, stream: Any) -> np.ndarray:
    rgb = frame.to_ndarray(format="rgb24", width=_square_width(frame, stream), height=frame.height)
    return np.ascontiguousarray(np.rot90(rgb, _quarter_turns(frame)))


def _thumbnail(frame: av.VideoFrame, size: tuple[int, int], width: int) -> np.ndarray:
    """Return a frame small and grey [h, w] uint8, upright, of its size (width, height) upright."""
    height = max(1, round(width * size[1] / size[0]))
    turns = _quarter_turns(frame)
    stored = (width, height) if turns % 2 == 0 else (height, width)
    small = frame.to_ndarray(format="gray", width=stored[0], height=stored[1])
    return np.ascontiguousarray(np.rot90(small, turns))
