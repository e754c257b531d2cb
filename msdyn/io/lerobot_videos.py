"""Videos of a LeRobotDataset: those of colour, and depth in videos of 12 bits.

Depth z (metres) is stored as a code of 0 to 4095: linear between `depth_min` and `depth_max`, or,
with `use_log`, in log(z + shift). We write code 0 where depth is unknown, and read it so.

Reference: huggingface/lerobot, `src/lerobot/datasets/depth_utils.py` and
`src/lerobot/configs/video.py`, 0.6.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float32, Shaped, UInt16

from msdyn.errors import InputError
from msdyn.io.lerobot_layout import Feature, VideoSegment
from msdyn.io.video_frames import decoded_segment, frames_of_segment
from msdyn.reading import opened_video, shown
from msdyn.writing import atomic_path

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

__all__ = ["DepthCodes", "EpisodeVideo", "depth_codes", "read_depth_segment", "video_feature"]

_LARGEST_CODE = 4095
_DEPTH_FORMAT = "gray12le"
_DEPTH_FORMATS = (_DEPTH_FORMAT, "yuv420p12le")
"""Formats of pixels that lerobot writes; the codes are the luma."""
_CODECS = {"rgb": ("libx264", "h264", "yuv420p"), "depth": ("libx265", "hevc", _DEPTH_FORMAT)}
_GROUP = 2
"""Frames from key frame to key frame, as lerobot writes them, for random access."""


@dataclass(frozen=True)
class DepthCodes:
    """How depth is stored in a video.

    Attributes:
        depth_min, depth_max: metres of the codes 0 and 4095.
        shift: metres, added before the logarithm.
        use_log: whether codes are linear in the logarithm.
    """

    depth_min: float = 0.01
    depth_max: float = 10.0
    shift: float = 3.5
    use_log: bool = True

    def __post_init__(self) -> None:
        numbers = (self.depth_min, self.depth_max, self.shift)
        if not np.isfinite(numbers).all() or not 0 <= self.depth_min < self.depth_max:
            raise InputError(f"depth: expected 0 <= depth_min < depth_max, got {numbers[:2]}")
        if self.use_log and not self.depth_min + self.shift > 0:
            raise InputError(f"depth: expected depth_min + shift > 0, got {numbers}")

    def encode(
        self, depth: Float32[np.ndarray, "height width"]
    ) -> UInt16[np.ndarray, "height width"]:
        """Return the codes of depth in metres: 1 to 4095, and 0 where it is unknown."""
        low, high = self._ends
        value = np.clip(depth, self.depth_min, self.depth_max).astype(np.float64)
        value = np.log(value + self.shift) if self.use_log else value
        code = np.rint((value - low) / (high - low) * _LARGEST_CODE).clip(1, _LARGEST_CODE)
        return np.where(depth > 0, code, 0).astype(np.uint16)

    def decode(
        self, code: Shaped[np.ndarray, "height width"]
    ) -> Float32[np.ndarray, "height width"]:
        """Return the depth of codes in metres, 0 for code 0."""
        low, high = self._ends
        value = low + code.astype(np.float64) * ((high - low) / _LARGEST_CODE)
        value = np.exp(value) - self.shift if self.use_log else value
        known = np.asarray(code > 0)
        return np.where(known, value.clip(self.depth_min, self.depth_max), 0).astype(np.float32)

    @property
    def _ends(self) -> tuple[float, float]:
        if not self.use_log:
            return self.depth_min, self.depth_max
        ends = np.log([self.depth_min + self.shift, self.depth_max + self.shift])
        return float(ends[0]), float(ends[1])


def depth_codes(feature: Feature, name: str) -> DepthCodes:
    """Return how the depth of a feature is stored.

    Args:
        feature: a depth video.
        name: for the message.

    Raises:
        InputError: it does not say, as datasets of lerobot before 0.6 do not.
    """
    info = {**(feature.video_info or {}), **(feature.info or {})}
    keys = ("depth_min", "depth_max", "shift", "use_log")
    missing = [f"video.{key}" for key in keys if f"video.{key}" not in info]
    if missing:
        raise InputError(
            f"{name}: its depth cannot be decoded, as info.json does not say {', '.join(missing)}"
        )
    low, high, shift, use_log = (info[f"video.{key}"] for key in keys)
    if type(use_log) is not bool or not all(type(n) in (int, float) for n in (low, high, shift)):
        raise InputError(f"{name}: expected numbers, got {shown([low, high, shift, use_log])}")
    return DepthCodes(float(low), float(high), float(shift), use_log)


def read_depth_segment(
    segment: VideoSegment, codes: DepthCodes
) -> Iterator[Float32[np.ndarray, "height width"]]:
    """Yield the depth [H, W] of an episode, metres, 0 where it is unknown.

    Raises:
        FileNotFoundError: there is no such video.
        InputError: not a video of 12 bits, or not the frames of the episode.
    """
    with opened_video(segment.path) as (container, stream):
        frames = decoded_segment(container, stream, *segment.window)
        for frame in frames_of_segment(frames, segment.frames, str(segment.path)):
            name = frame.format.name
            if name not in _DEPTH_FORMATS:
                expected = " or ".join(_DEPTH_FORMATS)
                raise InputError(f"{segment.path}: expected depth as {expected}, got {name}")
            luma = frame.planes[0]
            rows = np.frombuffer(bytes(luma), "<u2").reshape(luma.height, luma.line_size // 2)
            yield codes.decode(rows[: frame.height, : frame.width])


def video_feature(
    height: int,
    width: int,
    fps: float,
    *,
    depth: DepthCodes | None = None,
    mask: bool = False,
) -> dict[str, Any]:
    """Return the feature of a video that `EpisodeVideo` writes, as in `info.json`.

    Args:
        height, width: px, even.
        fps: frames per second.
        depth: how depth is stored; None for colour.
        mask: images are black and white, and compressed without loss.
    """
    channels = 3 if depth is None else 1
    _, codec, pixels = _CODECS["rgb" if depth is None else "depth"]
    info: dict[str, Any] = {
        "video.height": height,
        "video.width": width,
        "video.codec": codec,
        "video.pix_fmt": pixels,
        "video.fps": fps,
        "video.channels": channels,
        "has_audio": False,
        "is_depth_map": depth is not None,
    }
    if depth is not None:
        info |= {
            "video.depth_min": depth.depth_min,
            "video.depth_max": depth.depth_max,
            "video.shift": depth.shift,
            "video.use_log": depth.use_log,
            "depth_unit": "m",
        }
    if mask:
        info["is_mask"] = True
    return {
        "dtype": "video",
        "shape": [height, width, channels],
        "names": ["height", "width", "channels"],
        "info": info,
    }


class EpisodeVideo:
    """A context manager that writes a video of several episodes, frame by frame.

    Attributes:
        count: frames written.
        size: bytes written, about.
    """

    def __init__(self, path: Path, fps: float, depth: DepthCodes | None, crf: int = 18) -> None:
        self.path, self.depth, self.crf = path, depth, crf
        self.rate = Fraction(fps).limit_denominator(1001)
        self.count = self.size = 0
        self._stack = contextlib.ExitStack()
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None

    @property
    def seconds(self) -> float:
        """The time of the next frame."""
        return float(self.count / self.rate)

    def __enter__(self) -> EpisodeVideo:
        import av

        temporary = self._stack.enter_context(atomic_path(self.path))
        self._container = self._stack.enter_context(av.open(str(temporary), "w"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if kind is None and self._stream is not None:
            self._mux(self._stream.encode(None))
        return self._stack.__exit__(kind, error, traceback)

    def add(self, image: Shaped[np.ndarray, "height width ..."], *, first: bool) -> None:
        """Append a frame: RGB [H, W, 3], or depth [H, W] in metres.

        Args:
            image: of even size.
            first: whether an episode begins with it, and thus a group of frames.

        Raises:
            InputError: another size, or not of this kind.
        """
        import av
        from av.video.frame import PictureType

        if self.depth is None:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        else:
            codes = self.depth.encode(np.asarray(image, np.float32))
            frame = av.VideoFrame.from_ndarray(codes, format=_DEPTH_FORMAT)
        if self._stream is None:
            self._stream = self._new_stream(frame.width, frame.height)
        stream = self._stream
        if (frame.width, frame.height) != (stream.width, stream.height):
            raise InputError(
                f"{self.path}: frames of differing sizes, {stream.width}x{stream.height} and "
                f"{frame.width}x{frame.height}"
            )
        frame.pts, frame.time_base = self.count, 1 / self.rate
        frame.pict_type = PictureType.I if first else PictureType.NONE
        self._mux(stream.encode(frame))
        self.count += 1

    def _new_stream(self, width: int, height: int) -> VideoStream:
        assert self._container is not None, "EpisodeVideo: add frames inside its `with` block"
        if width % 2 or height % 2:
            raise InputError(f"{self.path}: expected an even size, got {width}x{height}")
        encoder, _, pixels = _CODECS["rgb" if self.depth is None else "depth"]
        stream = cast("VideoStream", self._container.add_stream(encoder, rate=self.rate))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = 1 / self.rate
        stream.options = {"g": str(_GROUP), "crf": str(self.crf)}
        if self.depth is not None:
            stream.options = {"g": str(_GROUP), "x265-params": "lossless=1:log-level=none"}
        return stream

    def _mux(self, packets: list[Any]) -> None:
        assert self._container is not None
        for packet in packets:
            self.size += packet.size
            self._container.mux(packet)
