"""Video topics of recordings of robots: MCAP, rosbag2 and bags of ROS 1.

The intrinsics of a camera are those of the calibration topic beside its images: of
`/camera/image_raw` and `/camera/image_raw/compressed`, `/camera/camera_info`. Images of a topic
whose name has "rect" are taken for rectified ones.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from msdyn.errors import InputError, printable
from msdyn.geometry import Lens
from msdyn.io.ros_messages import CalibrationMessage, ImageMessage, kind_of, parse_message
from msdyn.reading import MOST_FRAMES, RecordedMessage, Recording, reading, shown

__all__ = ["RobotRecording"]

_IMAGES = ("raw", "compressed", "video")
_MOST_LISTED = 20
_LONGEST_LIST = 1200


class RobotRecording:
    """A recording opened for reading.

    Attributes:
        path: of the file or folder.
        videos: names of the topics of images that are not said to be depth; all, if there are none.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Read which topics a recording has.

        Raises:
            FileNotFoundError: there is no such file or folder.
            InputError: no recording, or a damaged one.
            MissingExtraError: the packages of `msdyn[robots]` are not installed.
        """
        self.path = Path(path)
        self._recording = Recording(path)
        topics = self._recording.topics
        images = sorted(n for n, t in topics.items() if kind_of(t) in _IMAGES and t.count)
        self.videos = [name for name in images if "depth" not in name.lower()] or images

    def video_topic(self, name: str | None) -> str:
        """Return the topic of the video.

        Args:
            name: of the user; None takes the only one.

        Raises:
            InputError: no such topic of images, or several to choose from; the message lists them.
        """
        if name is None and len(self.videos) == 1:
            return self.videos[0]
        return self._topic(name, "--topic")

    def depth_topic(self, name: str) -> str:
        """Return the topic of depth that the user names.

        Raises:
            InputError: no such topic of images; the message lists those that there are.
        """
        return self._topic(name, "--depth-topic")

    def images(self, topics: Collection[str]) -> Iterator[tuple[str, int, ImageMessage]]:
        """Yield topic, time of recording (ns) and content of messages, in the order of the file.

        Raises:
            InputError: the recording or a message is damaged.
        """
        for count, message in enumerate(self._recording.messages(topics)):
            if count > 2 * MOST_FRAMES:
                raise InputError(f"{self.path}: expected at most {MOST_FRAMES} images, got more")
            parsed = self._parsed(message)
            assert isinstance(parsed, ImageMessage)
            yield message.topic.name, message.log_time, parsed

    def lens(self, topic: str, size: tuple[int, int]) -> Lens | None:
        """Return the lens of the images of a topic; None where nothing gives it.

        Args:
            topic: of images.
            size: height and width of the images; a calibration of another size is scaled.

        Raises:
            InputError: a model of distortion that is not known, one that cannot be inverted, or
                the calibration is of other images.
        """
        calibration = self._calibration(topic)
        if calibration is None:
            return None
        rectified = "rect" in topic.lower()
        matrix = calibration.rectified if rectified else calibration.intrinsics
        if not matrix[0, 0] > 0:  # drivers without a calibration write zeros
            return None
        height, width = size
        whole = calibration.width or width, calibration.height or height
        if abs(whole[1] * width / whole[0] - height) > 1:
            raise InputError(
                f"{self.path}: {topic}: images of {width}x{height} px, but its calibration is of "
                f"{calibration.width}x{calibration.height}"
            )
        # The centre of the first pixel is at (0, 0) in ROS.
        cx, cy = (matrix[:2, 2] + 0.5).tolist()
        pinhole = float(matrix[0, 0]), float(matrix[1, 1]), cx, cy
        if not np.isfinite(pinhole).all() or not pinhole[1] > 0:
            raise InputError(f"{self.path}: {topic}: its calibration has no focal length")
        where = f"{self.path}: {topic}"
        model, distortion = "PINHOLE", ()
        if not rectified:
            model, distortion = _distortion(calibration, where)
        with reading(where, "calibration"):
            lens = Lens(model, (*pinhole, *distortion), *whole).resized(width, height)
            _ = lens.displacement  # raises where it cannot be inverted
        return lens

    def _calibration(self, topic: str) -> CalibrationMessage | None:
        """Return the first message of the calibration topic beside a topic of images."""
        topics, place = self._recording.topics, PurePosixPath(topic)
        folders = [place.parent]
        if kind_of(topics[topic]) != "raw":
            folders.append(place.parent.parent)  # of /image_raw/compressed
        names = [n for n, t in topics.items() if kind_of(t) == "calibration" and t.count]
        beside = [n for f in folders for n in names if PurePosixPath(n).parent == f]
        if not beside:
            return None
        message = next(self._recording.messages(beside[:1]), None)
        parsed = None if message is None else self._parsed(message)
        assert parsed is None or isinstance(parsed, CalibrationMessage)
        return parsed

    def _parsed(self, message: RecordedMessage) -> ImageMessage | CalibrationMessage:
        try:
            return parse_message(message)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    def _topic(self, name: str | None, option: str) -> str:
        topics = self._recording.topics
        if name in topics and kind_of(topics[name]) in _IMAGES and topics[name].count:
            return name
        images = [t for t in topics.values() if kind_of(t) in _IMAGES and t.count]
        names = (f"{t.name} ({t.type}, {t.count})" for t in images[:_MOST_LISTED])
        listed = printable(", ".join(names), _LONGEST_LIST)
        listed += ", ..." if len(images) > _MOST_LISTED else ""
        if not images:
            raise InputError(f"{self.path}: it has no topic of images that is read")
        got = "" if name is None else f", got {shown(name)}"
        if name in topics and not topics[name].count:
            got += ", which has no messages"
        elif name in topics:
            kind, encoding = topics[name].type, topics[name].encoding
            got += f", whose messages are {printable(kind)} in {printable(encoding)}"
        raise InputError(f"{self.path}: {option}: expected one of {listed}{got}")


_POLYNOMIALS = ("plumb_bob", "rational_polynomial")
_FISHEYES = ("equidistant", "fisheye", "kannala_brandt")


def _distortion(calibration: CalibrationMessage, where: str) -> tuple[str, tuple[float, ...]]:
    """Return the model of a lens and its coefficients, in COLMAP's order.

    Reference: sensor_msgs/msg/CameraInfo and sensor_msgs/distortion_models.hpp of ROS.
    """
    d, name = calibration.distortion, calibration.model.lower()
    if not (d != 0).any():
        return "PINHOLE", ()
    if name in _FISHEYES and len(d) == 4:
        return "OPENCV_FISHEYE", tuple(d.tolist())
    if name in ("", *_POLYNOMIALS) and len(d) >= 4 and not (d[8:] != 0).any():
        # k1 k2 p1 p2 k3 k4 k5 k6, in OpenCV's order; coefficients after these are of thin prisms.
        return "FULL_OPENCV", (*d[:8].tolist(), *[0.0] * (8 - len(d)))
    raise InputError(
        f"{where}: distortion: expected {' or '.join(_POLYNOMIALS)} with 4 to 8 coefficients, or "
        f"{_FISHEYES[0]} with 4, got {shown(calibration.model)} with {len(d)}; choose a topic of "
        "rectified images"
    )
