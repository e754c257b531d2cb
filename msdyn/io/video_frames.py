"""The frames of an open video: all of them, or those between two times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from msdyn.errors import InputError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["decoded", "decoded_segment", "frames_of_segment"]

_STEPS_BACK = (0.0, 1.0, 10.0)
"""Seconds before a time from which decoding is tried; then from the beginning."""


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield the frames of a video.

    Packets before the first frame that refer to frames before the beginning, as in a recording that
    starts between two key frames, are left out.
    """
    from av.error import InvalidDataError

    begun = False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except InvalidDataError:
            if begun or packet.is_keyframe:
                raise
            continue
        for frame in frames:
            begun = True
            yield cast("av.VideoFrame", frame)


def decoded_segment(
    container: InputContainer, stream: VideoStream, start: float, end: float
) -> Iterator[av.VideoFrame]:
    """Yield the frames of a video with times from `start` to before `end`.

    Decoding begins at a key frame before `start`. Containers index key frames by the time at which
    they are decoded, which with B-frames is before the one at which they are shown: where the first
    frame is later than `start`, an earlier key frame is taken.

    Args:
        container, stream: of `opened_video`.
        start, end: seconds in the file.
    """
    base = stream.time_base
    for back in (*_STEPS_BACK, None):
        earliest = 0.0 if back is None else max(start - back, 0.0)
        offset = int(earliest / base) if base else 0
        container.seek(offset, stream=stream, backward=True)
        frames = decoded(container, stream)
        first = next(frames, None)
        if first is None or first.time is None:
            continue
        if first.time > start and earliest > 0:
            continue
        if start <= first.time < end:
            yield first
        for frame in frames:
            if frame.time is None or frame.time < start:
                continue
            if frame.time >= end:
                return
            yield frame
        return


def frames_of_segment(
    frames: Iterator[av.VideoFrame], count: int, where: str
) -> Iterator[av.VideoFrame]:
    """Yield frames, which must be `count`.

    Raises:
        InputError: there are more or fewer.
    """
    found = 0
    for frame in frames:
        found += 1
        if found <= count:
            yield frame
    if found != count:
        raise InputError(
            f"{where}: expected {count} frames of the episode in this part of the video, "
            f"got {found}"
        )
