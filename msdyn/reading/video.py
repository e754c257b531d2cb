"""Video files: opened by PyAV with limits, and so that a file names no other file or address."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msdyn.errors import InputError
from msdyn.reading.guard import reading, required_file
from msdyn.reading.limits import MOST_PIXELS, check_image_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["opened_video"]

_FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "gif", "apng", "flv"),
    *("mpegts", "mpeg", "mpegvideo", "m4v", "mjpeg", "h264", "hevc", "av1", "obu", "ivf", "dv"),
    *("asf", "ogg", "mxf", "nut", "wtv", "rm", "webp", "avif", "yuv4mpegpipe"),
)
"""libav's names of containers that hold their video. Playlists, which name other files, do not."""
_OPTIONS = {
    "format_whitelist": ",".join(_FORMATS),
    "protocol_whitelist": "file",
    "max_pixels": str(MOST_PIXELS),  # of frames that the decoder allocates
}


@contextlib.contextmanager
def opened_video(path: str | os.PathLike) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video for decoding in the block; yield its container and its first video stream.

    It is decoded on all cores. What fails in the block is an `InputError`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a video, a playlist of other files, or frames that are too large.
    """
    import av
    from av.error import ArgumentError, FFmpegError

    path = required_file(path)
    path.open("rb").close()  # raises PermissionError, which is not an invalid video
    with contextlib.ExitStack() as stack:
        stack.enter_context(reading(path, "video"))
        try:
            # An absolute path: a name such as "concat:a|b" is a protocol of libav's.
            container = av.open(str(path.absolute()), options=_OPTIONS)
        except ArgumentError as error:  # of a format that is not in the list
            raise InputError(
                f"{path}: not a video that holds its frames, as mp4, mov, mkv, webm, avi, gif and "
                "others do; playlists are not read"
            ) from error
        except FFmpegError as error:
            raise InputError(f"{path}: not a video, or one cut short ({error.strerror})") from error
        stack.enter_context(container)
        if not container.streams.video:
            raise InputError(f"{path}: not a video (it has no video stream)")
        stream = container.streams.video[0]
        if stream.width or stream.height:
            check_image_size(stream.width, stream.height, str(path))
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        stream.thread_type = "AUTO"
        try:
            yield container, stream
        except FFmpegError as error:  # some are errors of the system in name
            raise InputError(f"{path}: decoding fails ({error.strerror})") from error
