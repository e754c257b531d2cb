"""`msdyn-preprocess --from mcap PATH`: a video topic of a recording of a robot.

MCAP files, databases and folders of rosbag2, and bags of ROS 1. Frames are in the order of their
time stamps, which are those of the messages' headers or, where these are missing or not all
different, those of the recording.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int

from msdyn.errors import InputError
from msdyn.geometry import NEGLIGIBLE_PX
from msdyn.io import (
    STREAM_SUFFIXES,
    ImageMessage,
    RobotRecording,
    begins_stream,
    depth_of,
    encoded_suffix,
    rgb_of,
    write_stream_as_mp4,
)
from msdyn.preprocess.config import ImportConfig
from msdyn.preprocess.imported import Unpacked, write_file, write_times
from msdyn.preprocess.progress import progress
from msdyn.reading import image_size, opened_video, read_npy
from msdyn.scene import (
    LENS_FILE,
    FrameLenses,
    frame_path,
    write_depth,
    write_image,
    write_lenses,
)

__all__ = ["unpack"]

_LEAST_TIME_APART = 1
"""ns between frames."""
_LONGEST_NAME = 80


@dataclass
class _Messages:
    """The messages of a topic, in the order in which they are stored.

    Attributes:
        topic: its name.
        stamps: ns, of the headers; 0 where that is not known.
        logged: ns, when they were recorded.
        suffixes: of the files that their images were written to.
        frame_id: of the first.
    """

    topic: str
    stamps: list[int] = field(default_factory=list)
    logged: list[int] = field(default_factory=list)
    suffixes: list[str] = field(default_factory=list)
    frame_id: str = ""

    def add(self, message: ImageMessage, logged: int, suffix: str) -> None:
        """Take note of a message."""
        self.frame_id = self.frame_id or message.frame_id
        self.stamps.append(message.stamp)
        self.logged.append(logged)
        self.suffixes.append(suffix)

    @property
    def stamped(self) -> bool:
        """Whether the stamps of the headers can be used."""
        return min(self.stamps) > 0 and len(set(self.stamps)) == len(self.stamps)


def unpack(config: ImportConfig, folder: Path) -> Unpacked:
    """Write the images and, where a topic of depth is named, the depth of a recording."""
    recording = RobotRecording(config.video)
    topic = recording.video_topic(config.topic)
    video = _Messages(topic)
    depth = None
    if config.depth_topic is not None:
        depth = _Messages(recording.depth_topic(config.depth_topic))
        if depth.topic == topic:
            raise InputError(f"--depth-topic: is the topic of the video, {topic}")
    name = f"{config.video.resolve().name}{re.sub(r'[^A-Za-z0-9_-]', '.', topic)[:_LONGEST_NAME]}"
    images, maps = folder / name, folder / "messages"
    stream = folder / "stream"
    wanted = {topic} if depth is None else {topic, depth.topic}
    for source, logged, message in progress(recording.images(wanted), "reading the recording"):
        if depth is not None and source == depth.topic:
            what = f"{recording.path}: {source}: message {len(depth.stamps)}"
            write_depth(maps, len(depth.stamps), depth_of(message, what))
            depth.add(message, logged, ".npy")
        elif message.kind == "video":
            _append(video, message, logged, stream, recording.path)
        else:
            what = f"{recording.path}: {source}: message {len(video.stamps)}"
            video.add(message, logged, _write(message, images, len(video.stamps), what))
    if len(video.stamps) < 2:
        raise InputError(
            f"{recording.path}: {topic}: expected at least 2 images, got {len(video.stamps)}"
        )
    headers = video.stamped and (depth is None or not depth.stamps or depth.stamped)
    times = np.array(video.stamps if headers else video.logged, np.int64)
    order = np.argsort(times, kind="stable")
    if (np.diff(times[order]) < _LEAST_TIME_APART).any():
        raise InputError(f"{recording.path}: {topic}: two images have the same time stamp")
    seconds = (times[order] - times[order[0]]) / 1e9
    if stream.with_suffix(video.suffixes[0]).is_file():
        images = images.with_name(f"{name}.mp4")
        size = _as_video(stream.with_suffix(video.suffixes[0]), images, order, seconds)
    else:
        size = _in_order(images, video.suffixes, order)
        write_times(images, seconds)
    given = config.intrinsics is not None or config.lens is not None
    lens = None if given else recording.lens(topic, size)
    intrinsics, lens_file = (None if lens is None else lens.pinhole), None
    if lens is not None and lens.displacement > NEGLIGIBLE_PX:
        intrinsics, lens_file = None, folder / LENS_FILE
        write_lenses(lens_file, FrameLenses.of((lens,)))
        if depth is not None and "rect" in depth.topic.lower():
            raise InputError(
                f"{recording.path}: --depth-topic: expected depth of the images as they were "
                f"taken, got {depth.topic}, of rectified ones; choose a topic of rectified images"
            )
    if depth is None:
        return Unpacked(images, intrinsics=intrinsics, lens=lens_file)
    if video.frame_id and depth.frame_id and video.frame_id != depth.frame_id:
        raise InputError(
            f"{recording.path}: --depth-topic: expected depth in the frame of the images "
            f"({video.frame_id}), got {depth.topic} in {depth.frame_id}; choose one that is "
            "registered to them"
        )
    depth_times = np.array(depth.stamps if headers else depth.logged, np.int64)
    _match_depth(maps / "depth", folder / "depth", times[order], depth_times, depth.topic)
    shutil.rmtree(maps)
    return Unpacked(images, depth=folder / "depth", intrinsics=intrinsics, lens=lens_file)


def _append(video: _Messages, message: ImageMessage, logged: int, stream: Path, path: Path) -> None:
    """Append a frame of a video to its stream; frames before the first that begins it are left
    out."""
    suffix = STREAM_SUFFIXES.get(message.format.lower())
    if suffix is None or (video.suffixes and video.suffixes[0] != suffix):
        raise InputError(
            f"{path}: {video.topic}: expected video in one of {', '.join(STREAM_SUFFIXES)}, got "
            f"{message.format!r}"
        )
    if not video.stamps and not begins_stream(message.data, message.format.lower()):
        return
    stream.parent.mkdir(parents=True, exist_ok=True)
    with stream.with_suffix(suffix).open("ab") as file:
        file.write(message.data)
    video.add(message, logged, suffix)


def _write(message: ImageMessage, images: Path, number: int, what: str) -> str:
    """Write the image of a message; return the suffix of its file."""
    if message.kind == "compressed":
        suffix = encoded_suffix(message.data, what)
        write_file(images, number, suffix, message.data)
        return suffix
    write_image(frame_path(images, number, ".png"), rgb_of(message, what))
    return ".png"


def _as_video(
    stream: Path,
    video: Path,
    order: Int[np.ndarray, " frames"],
    seconds: Float64[np.ndarray, " frames"],
) -> tuple[int, int]:
    """Write a stream to a video with time stamps; return its height and width."""
    if (np.diff(order) != 1).any():
        raise InputError(f"{video.stem}: the frames of a compressed video are not in time order")
    write_stream_as_mp4(stream, video, seconds)
    stream.unlink()
    with opened_video(video) as (_, opened):
        return opened.height, opened.width


def _in_order(
    images: Path, suffixes: list[str], order: Int[np.ndarray, " frames"]
) -> tuple[int, int]:
    """Number the files of images by their times; return the height and width of the first."""
    if (np.diff(order) != 1).any():
        stored = images.with_name("stored")
        images.rename(stored)
        images.mkdir()
        for frame, number in enumerate(order.tolist()):
            suffix = suffixes[number]
            frame_path(stored, number, suffix).rename(frame_path(images, frame, suffix))
        stored.rmdir()
    first = frame_path(images, 0, suffixes[int(order[0])])
    width, height = image_size(first)
    return height, width


def _match_depth(
    stored: Path,
    folder: Path,
    times: Int[np.ndarray, " frames"],
    depth_times: Int[np.ndarray, " maps"],
    topic: str,
) -> None:
    """Write the depth map nearest in time to each frame, at most half a frame away.

    Frames without one have a map of zeros.
    """
    if not len(depth_times):
        raise InputError(f"--depth-topic: {topic}: it has no messages")
    apart = np.abs(depth_times - times[:, None])
    nearest = apart.argmin(1)
    near = apart.min(1) <= np.median(np.diff(times)) / 2
    if not near.any():
        raise InputError(f"--depth-topic: {topic}: no depth at the times of the images")
    unknown = np.zeros_like(read_npy(frame_path(stored, int(nearest[near][0]), ".npy")))
    for frame, (number, known) in enumerate(zip(nearest.tolist(), near.tolist(), strict=True)):
        if known:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(frame_path(stored, number, ".npy"), frame_path(folder, frame, ".npy"))
        else:
            write_depth(folder.parent, frame, unknown)
