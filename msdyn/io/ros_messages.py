"""Messages of images and of camera calibrations in recordings of robots.

    sensor_msgs/Image             pixels by rows of `step` bytes, in one of several encodings
    sensor_msgs/CompressedImage   JPEG, PNG or WebP; depth as PNG after 12 bytes
    sensor_msgs/CameraInfo        K, P and distortion D of a camera
    foxglove_msgs/CompressedVideo one frame of H.264, H.265 (Annex B), VP9 or AV1
    foxglove.RawImage, .CompressedImage, .CompressedVideo, .CameraCalibration   as protobuf

ROS serialises them as CDR (ROS 2) or as ROS 1 does. Types are those of the packages, whatever a
recording says of them.

Reference: sensor_msgs in github.com/ros2/common_interfaces; compressed_depth_image_transport in
github.com/ros-perception/image_transport_plugins; schemas of github.com/foxglove/foxglove-sdk.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from msdyn.errors import InputError, printable
from msdyn.reading import RecordedMessage, Topic, load_robots, reading

__all__ = ["CalibrationMessage", "ImageMessage", "kind_of", "parse_message"]

Kind = Literal["raw", "compressed", "video", "calibration"]

_KINDS: dict[str, Kind] = {
    "sensor_msgs/Image": "raw",
    "sensor_msgs/CompressedImage": "compressed",
    "sensor_msgs/CameraInfo": "calibration",
    "foxglove_msgs/CompressedVideo": "video",
    "foxglove.RawImage": "raw",
    "foxglove.CompressedImage": "compressed",
    "foxglove.CompressedVideo": "video",
    "foxglove.CameraCalibration": "calibration",
}
_STREAMS = ("h264", "h265", "hevc")
"""Formats of compressed images that are frames of a video: some drivers publish it so."""
_VIDEO = "{time} timestamp\nstring frame_id\nuint8[] data\nstring format\n"
# Numbers of the fields of foxglove's messages, and what is read of them.
_FIELDS: dict[str, dict[int, str]] = {
    "foxglove.RawImage": {
        2: "width", 3: "height", 4: "encoding", 5: "step", 6: "data", 7: "frame_id"
    },
    "foxglove.CompressedImage": {2: "data", 3: "format", 4: "frame_id"},
    "foxglove.CompressedVideo": {2: "frame_id", 3: "data", 4: "format"},
    "foxglove.CameraCalibration": {
        2: "width", 3: "height", 4: "model", 5: "D", 6: "K", 8: "P", 9: "frame_id"
    },
}  # fmt: skip
_TIMESTAMP = 1


@dataclass(frozen=True)
class ImageMessage:
    """An image, or a frame of a video.

    Attributes:
        kind: "raw", "compressed" or "video".
        stamp: ns, when it was taken; 0 where that is not known.
        frame_id: name of the camera's coordinate frame.
        format: encoding of pixels, or of the compressed image or video.
        data: the bytes.
        width, height, step: of raw images, px and bytes of a row.
        big_endian: order of the bytes of raw values of 16 bits.
    """

    kind: Kind
    stamp: int
    frame_id: str
    format: str
    data: bytes
    width: int = 0
    height: int = 0
    step: int = 0
    big_endian: bool = False


@dataclass(frozen=True)
class CalibrationMessage:
    """The calibration of a camera.

    Attributes:
        frame_id: name of the camera's coordinate frame.
        width, height: of the images that it belongs to, px.
        intrinsics: K, of the images as they were taken.
        rectified: the first three columns of P, of the images without distortion.
        model: of the distortion: plumb_bob, rational_polynomial, equidistant, ...; "" if none.
        distortion: D, any number of coefficients.
    """

    frame_id: str
    width: int
    height: int
    intrinsics: Float64[np.ndarray, "3 3"]
    rectified: Float64[np.ndarray, "3 3"]
    distortion: Float64[np.ndarray, " coefficients"]
    model: str = ""


def kind_of(topic: Topic) -> Kind | None:
    """Return what the messages of a topic are; None for others than images and calibrations."""
    name = _plain(topic.type)
    readable = ("protobuf",) if "." in name else ("cdr", "ros1")
    return _KINDS.get(name) if topic.encoding in readable else None


def parse_message(message: RecordedMessage) -> ImageMessage | CalibrationMessage:
    """Return the content of a message of a kind that `kind_of` names.

    Raises:
        InputError: it is damaged.
        MissingExtraError: the packages of `msdyn[robots]` are not installed.
    """
    topic = message.topic
    kind = kind_of(topic)
    if kind is None:
        raise InputError(f"{printable(topic.name)}: messages of {topic.type!r} are not read")
    with reading(f"{printable(topic.name)}: message at {message.log_time} ns", topic.type):
        if topic.encoding == "protobuf":
            parsed = _of_protobuf(topic.type, kind, message.data)
        else:
            parsed = _of_ros(topic, kind, message.data)
    if isinstance(parsed, ImageMessage) and parsed.format.lower() in _STREAMS:
        return replace(parsed, kind="video")
    return parsed


def _plain(name: str) -> str:
    """Return the name of a type without what ROS 2 adds to it."""
    return name.replace("/msg/", "/")


@functools.cache
def _types(encoding: str) -> Any:
    """Return the types of messages that ROS serialises in a way."""
    typesys = load_robots("rosbags.typesys")
    ros1 = encoding == "ros1"
    store = typesys.Stores.ROS1_NOETIC if ros1 else typesys.Stores.ROS2_FOXY
    types = typesys.get_typestore(store)
    video = _VIDEO.format(time="time" if ros1 else "builtin_interfaces/Time")
    types.register(typesys.get_types_from_msg(video, "foxglove_msgs/msg/CompressedVideo"))
    return types


def _of_ros(topic: Topic, kind: Kind, data: bytes) -> ImageMessage | CalibrationMessage:
    types = _types(topic.encoding)
    name = _plain(topic.type).replace("/", "/msg/")
    parse = types.deserialize_ros1 if topic.encoding == "ros1" else types.deserialize_cdr
    parsed = parse(data, name)
    if kind == "calibration":
        capital = hasattr(parsed, "K")
        k, p, d = (getattr(parsed, n if capital else n.lower()) for n in "KPD")
        model = parsed.distortion_model
        return _calibration(parsed.header.frame_id, parsed.width, parsed.height, k, p, d, model)
    header = parsed if kind == "video" else parsed.header
    time = header.timestamp if kind == "video" else header.stamp
    stamp = int(time.sec) * 10**9 + int(time.nanosec)
    content = parsed.data.tobytes()
    if kind != "raw":
        return ImageMessage(kind, stamp, header.frame_id, parsed.format, content)
    size = int(parsed.width), int(parsed.height), int(parsed.step)
    return ImageMessage(
        kind, stamp, header.frame_id, parsed.encoding, content, *size, bool(parsed.is_bigendian)
    )


def _calibration(
    frame_id: str, width: int, height: int, k: Any, p: Any, d: Any, model: str
) -> CalibrationMessage:
    k, p, d = (np.array(values, np.float64) for values in (k, p, d))
    rectified = p.reshape(3, 4)[:, :3] if p.size else np.zeros((3, 3))
    size = int(width), int(height)
    return CalibrationMessage(frame_id, *size, k.reshape(3, 3), rectified, d, model)


def _of_protobuf(name: str, kind: Kind, data: bytes) -> ImageMessage | CalibrationMessage:
    found: dict[str, Any] = {"frame_id": b"", "data": b"", "format": b"", "encoding": b""}
    stamp = 0
    for number, value in _fields(data):
        if number == _TIMESTAMP and isinstance(value, bytes):
            parts = dict(_fields(value))
            stamp = int(parts.get(1, 0)) * 10**9 + int(parts.get(2, 0))
        elif field := _FIELDS[name].get(number):
            repeated = field in ("D", "K", "P")  # packed or not
            found[field] = found.get(field, b"") + value if repeated else value
    frame_id = found["frame_id"].decode()
    if kind == "calibration":
        k, p, d = (np.frombuffer(found.get(field, b""), "<f8") for field in "KPD")
        model = found.get("model", b"").decode()
        return _calibration(frame_id, found["width"], found["height"], k, p, d, model)
    if kind != "raw":
        return ImageMessage(kind, stamp, frame_id, found["format"].decode(), found["data"])
    width, height, step = (int(found.get(field, 0)) for field in ("width", "height", "step"))
    encoding = found["encoding"].decode()
    return ImageMessage(kind, stamp, frame_id, encoding, found["data"], width, height, step)


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """Return number and value of the fields of a protobuf message; doubles are eight bytes."""
    fields: list[tuple[int, int | bytes]] = []
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            fields.append((number, value))
            continue
        if wire == 5:
            fields.append((number, struct.unpack_from("<I", data, place)[0]))
            place += 4
            continue
        size = 8
        if wire == 2:
            size, place = _varint(data, place)
        elif wire != 1:
            raise InputError(f"expected a message of protobuf, got wire type {wire}")
        if place + size > len(data):
            raise InputError(f"it ends {place + size - len(data)} bytes early")
        fields.append((number, data[place : place + size]))
        place += size
    return fields


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of protobuf and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
    raise InputError("expected a number of protobuf, got one that does not end")
