"""Small recordings of robots, of Record3D and of ViPE, and what reads them; see `inputs`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from recording_writers import (
    T0,
    Messages,
    encoded,
    h264_packets,
    record3d_metadata,
    write_r3d,
    write_vipe,
)

from msdyn import io as files
from msdyn.scene import Scene

__all__ = ["read_record3d", "read_robots", "read_vipe", "write_recordings"]


def write_recordings(base: Path, images: list[np.ndarray], cameras, scene: Scene) -> None:
    """Write a recording of each kind to the folders record3d, vipe and robots."""
    jpegs = [encoded(image, ".jpg") for image in images]
    height, width = images[0].shape[:2]
    (base / "record3d").mkdir()
    depths = scene.depths()[:, ::4, ::4]
    confidences = np.ones(depths.shape, np.uint8)
    write_r3d(
        base / "record3d/a.r3d", record3d_metadata(cameras, depths.shape[1:]), jpegs, depths,
        confidences,
    )  # fmt: skip
    write_vipe(
        base / "vipe", "a", images, cameras, scene.depths(), scene.masks(), [(1, "sky"), (2, "cat")]
    )
    (base / "robots").mkdir()
    for ros1 in (False, True):
        made = Messages(ros1)
        made.info("/a/camera_info", T0, cameras.intrinsics[0], (height, width))
        packets = h264_packets(images)
        for n, image in enumerate(images):
            stamp = T0 + n * 10**8
            made.image("/a/image", stamp, image, "rgb8")
            made.image("/a/depth", stamp, (depths[n] * 1000).astype(np.uint16), "16UC1")
            made.compressed("/b/image", stamp, jpegs[n])
            made.video("/c/image", stamp, packets[n])
        made.mcap(base / f"robots/{'ros1' if ros1 else 'ros2'}.mcap")
        if ros1:
            made.rosbag1(base / "robots/a.bag", "BZ2")
        else:
            made.rosbag2(base / "rosbag2", "SQLITE3")
            (base / "rosbag2/rosbag2.db3").rename(base / "robots/a.db3")


def read_record3d(folder: Path) -> None:
    recording = files.Record3D(folder / "a.r3d")
    for content in recording.images():
        files.encoded_suffix(content, "image")
    for _ in recording.depths():
        pass


def read_vipe(folder: Path) -> None:
    clip = files.Vipe(folder)
    for _ in clip.masks():
        pass
    for content in clip.depth_files():
        (folder / "depth.exr").write_bytes(content)
        files.read_depth_map(folder / "depth.exr")


def read_robots(folder: Path, height: int, width: int) -> None:
    for path in sorted(folder.iterdir()):
        recording = files.RobotRecording(path)
        topics = {recording.video_topic(f"/{name}") for name in ("a/image", "b/image", "c/image")}
        topics.add(recording.depth_topic("/a/depth"))
        recording.lens("/a/image", (height, width))
        for topic, _, message in recording.images(topics):
            if topic == "/a/depth":
                files.depth_of(message, topic)
            elif message.kind == "raw":
                files.rgb_of(message, topic)
            elif message.kind == "compressed":
                files.encoded_suffix(message.data, topic)
            else:
                files.begins_stream(message.data, "h264")
