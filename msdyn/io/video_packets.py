"""Streams of H.264 and H.265 (Annex B), which have no time stamps, into mp4 files that have."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from msdyn.errors import InputError
from msdyn.reading import opened_video
from msdyn.writing import atomic_path

__all__ = ["STREAM_SUFFIXES", "begins_stream", "write_stream_as_mp4"]

STREAM_SUFFIXES = {"h264": ".h264", "h265": ".hevc", "hevc": ".hevc"}
"""Suffix of a file with a stream, by the name of its format."""
_TIMESCALE = 1_000_000


def begins_stream(packet: bytes, format: str) -> bool:
    """Return whether a decoder can begin with a packet: it has the parameters of its stream."""
    headers = {match[1][0] for match in re.finditer(rb"\x00\x00\x01(.)", packet, re.S)}
    if format == "h264":
        return any(header & 0x1F == 7 for header in headers)  # SPS
    return any(header >> 1 & 0x3F == 33 for header in headers)


def write_stream_as_mp4(
    stream: Path, path: str | os.PathLike, seconds: Float64[np.ndarray, " frames"]
) -> None:
    """Write the frames of a stream, as they are, to an mp4 with time stamps; atomically.

    Args:
        stream: file of a stream without frames that refer to later ones.
        path: the mp4.
        seconds: one per frame, increasing.

    Raises:
        InputError: not a stream, or one of another number of frames.
    """
    import av

    stamps = np.round((seconds - seconds[0]) * _TIMESCALE).astype(int).tolist()
    count = 0
    with (
        opened_video(stream) as (container, source),
        atomic_path(path) as temporary,
        av.open(
            str(temporary), "w", format="mp4", options={"video_track_timescale": str(_TIMESCALE)}
        ) as output,
    ):
        target = output.add_stream_from_template(source)
        for packet in container.demux(source):
            if not packet.size:
                continue
            if count < len(stamps):
                packet.stream, packet.time_base = target, Fraction(1, _TIMESCALE)
                packet.pts = packet.dts = stamps[count]
                packet.duration = 0
                output.mux(packet)
            count += 1
        if count != len(stamps):
            raise InputError(f"{path}: expected {len(stamps)} frames, one a message, got {count}")
