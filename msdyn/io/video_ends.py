"""Whether all of a video is there: what containers declare of its frames and length.

A file that ends early decodes without an error up to there. What its container declares tells: the
size of the file, the number of its frames, or its duration. A file is whole if one of these is
reached: the last frame may be held for seconds, the first one may be later than 0, and edit lists
leave frames out.

Reference: RFC 8794 (EBML), RFC 9559 (Matroska), the GIF89a specification (trailer).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["missing_end"]

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_GIF_TRAILER = b"\x3b"


def missing_end(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    times: Sequence[float | None],
    last_duration: float,
    rate: float,
) -> str:
    """Return what a video declares that its decoded frames do not reach, "" where it is whole.

    Args:
        path: of the video.
        container, stream: opened.
        times: timestamps of its decoded frames, seconds.
        last_duration: of the last frame, seconds; 0 unknown.
        rate: frames per second.
    """
    if container.format.name == "gif":
        return "" if _has_trailer(path) else "the end of the file is missing"
    if "matroska" in container.format.name and _has_whole_segment(path):
        return ""
    if stream.frames and len(times) >= stream.frames:
        return ""
    duration, absolute = _declared_duration(container, stream)
    if not duration:
        return ""
    known = [time for time in times if time is not None]
    last = known[-1] if len(known) == len(times) else (len(times) - 1) / rate
    begin = known[0] if known and not absolute else 0.0
    if stream.start_time is not None and stream.time_base is not None:
        # Frames at the beginning may not decode, in a recording that starts between key frames.
        begin = min(begin, float(stream.start_time * stream.time_base))
    end = last - begin
    # Tolerance of three frames and 2 %: containers round, and the audio may be slightly longer.
    if end + max(4 / rate, last_duration) >= 0.98 * duration:
        return ""
    return f"its declared duration is {duration:.2f} s"


def _declared_duration(container: InputContainer, stream: VideoStream) -> tuple[float | None, bool]:
    """Return the duration, seconds, in the file's metadata, or None; and whether it is a time of
    the end, counted from 0, not from the first frame."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base), False
    matroska = "matroska" in container.format.name
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if tag:
        return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3]), matroska
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1e6, matroska
    return None, False


def _has_trailer(path: Path) -> bool:
    """Return whether a GIF ends with its trailer."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return file.read().rstrip(b"\0").endswith(_GIF_TRAILER)


def _has_whole_segment(path: Path) -> bool:
    """Return whether a Matroska file is as long as the sizes in its beginning say."""
    with path.open("rb") as file:
        head = file.read(4096)
    size, at = path.stat().st_size, 0
    for expected in (_EBML, _SEGMENT):
        identifier, length, at = _element(head, at)
        if identifier != expected or length is None:
            return False
        at += length
    return size >= at


def _element(data: bytes, at: int) -> tuple[int, int | None, int]:
    """Return the id of an EBML element, the size of its content (None where it is not known), and
    where that begins."""
    if at + 12 > len(data):
        return 0, None, at
    identifier = int.from_bytes(data[at : at + 4], "big")
    first = data[at + 4]
    if first == 0:
        return identifier, None, at
    width = 9 - first.bit_length()
    value = int.from_bytes(data[at + 4 : at + 4 + width], "big") & ((1 << 7 * width) - 1)
    unknown = value == (1 << 7 * width) - 1
    return identifier, None if unknown else value, at + 4 + width
