"""Small recordings, by the libraries of their formats or as their documentation describes them."""

import io
import json
import zipfile
from dataclasses import dataclass, field

import imageio.v3 as iio
import numpy as np
from scipy.spatial.transform import Rotation

from msdyn.io import write_video

T0 = 1_700_000_000_000_000_000
"""ns, of the first message."""
TYPES = {
    "image": "sensor_msgs/msg/Image",
    "compressed": "sensor_msgs/msg/CompressedImage",
    "info": "sensor_msgs/msg/CameraInfo",
    "video": "foxglove_msgs/msg/CompressedVideo",
}
VIDEO = "{time} timestamp\nstring frame_id\nuint8[] data\nstring format\n"


def encoded(image, extension=".png", **options):
    """Return the bytes of an image file."""
    return iio.imwrite("<bytes>", image, extension=extension, **options)


@dataclass
class Messages:
    """Messages of ROS 2 or ROS 1, serialised by rosbags, in the order in which they are stored."""

    ros1: bool = False
    rows: list = field(default_factory=list)

    def __post_init__(self):
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self.types = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_HUMBLE)
        time = "time" if self.ros1 else "builtin_interfaces/Time"
        self.types.register(get_types_from_msg(VIDEO.format(time=time), TYPES["video"]))

    def new(self, kind, *values):
        return self.types.types[kind if "/" in kind else TYPES[kind]](*values)

    def time(self, stamp):
        return self.new("builtin_interfaces/msg/Time", stamp // 10**9, stamp % 10**9)

    def header(self, stamp, frame):
        sequence = (0,) if self.ros1 else ()
        return self.new("std_msgs/msg/Header", *sequence, self.time(stamp), frame)

    def add(self, topic, kind, stamp, message, logged=None):
        write = self.types.serialize_ros1 if self.ros1 else self.types.serialize_cdr
        logged = stamp if logged is None else logged
        self.rows.append((topic, TYPES[kind], logged, bytes(write(message, TYPES[kind]))))

    def image(self, topic, stamp, values, encoding, *, frame="camera", logged=None, step=None):
        rows = values.reshape(len(values), -1).view(np.uint8)
        step = rows.shape[1] if step is None else step
        rows = np.pad(rows, ((0, 0), (0, step - rows.shape[1])))
        height, width = values.shape[:2]
        header = self.header(stamp, frame)
        fields = (header, height, width, encoding, 0, step, rows.reshape(-1))
        self.add(topic, "image", stamp, self.new("image", *fields), logged)

    def compressed(self, topic, stamp, data, form="jpeg", *, frame="camera", logged=None):
        message = self.new(
            "compressed", self.header(stamp, frame), form, np.frombuffer(data, np.uint8)
        )
        self.add(topic, "compressed", stamp, message, logged)

    def video(self, topic, stamp, data, form="h264"):
        fields = (self.time(stamp), "camera", np.frombuffer(data, np.uint8), form)
        self.add(topic, "video", stamp, self.new("video", *fields))

    def info(self, topic, stamp, k, size, *, d=(0.0,) * 5, p=None):
        k = np.asarray(k, np.float64)
        p = np.hstack([k, np.zeros((3, 1))]) if p is None else p
        roi = self.new("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        header = self.header(stamp, "camera")
        matrices = (np.array(d), k.reshape(-1), np.eye(3).reshape(-1), p.reshape(-1))
        fields = (header, *size, "plumb_bob", *matrices, 0, 0, roi)
        self.add(topic, "info", stamp, self.new("info", *fields))

    def mcap(self, path, *, protobuf=(), **options):
        """Write an MCAP file by its library; `protobuf`: topic, type, time, bytes of others."""
        from mcap.writer import Writer

        encoding = "ros1" if self.ros1 else "cdr"
        rows = [(*row, encoding) for row in self.rows]
        if self.ros1:
            rows = [(row[0], row[1].replace("/msg/", "/"), *row[2:]) for row in rows]
        rows += [(*row, "protobuf") for row in protobuf]
        with path.open("wb") as file:
            writer = Writer(file, **options)
            writer.start("ros2" if not protobuf else "")
            channels = {}
            for topic, kind, _, _, encoding in rows:
                if topic not in channels:
                    schema = writer.register_schema(kind, "ros2msg", b"")
                    channels[topic] = writer.register_channel(topic, encoding, schema)
            for topic, _, logged, data, _ in rows:
                writer.add_message(channels[topic], logged, data, logged)
            writer.finish()
        return path

    def rosbag2(self, path, plugin):
        """Write a folder of rosbag2 by rosbags; plugin: SQLITE3 or MCAP."""
        from rosbags.rosbag2 import StoragePlugin, Writer

        with Writer(path, version=9, storage_plugin=StoragePlugin[plugin]) as writer:
            self._write(writer)
        return path

    def rosbag1(self, path, compression=None):
        """Write a bag of ROS 1 by rosbags."""
        from rosbags.rosbag1 import Writer

        writer = Writer(path)
        if compression:
            writer.set_compression(Writer.CompressionFormat[compression])
        with writer:
            self._write(writer)
        return path

    def _write(self, writer):
        connections = {}
        for topic, kind, logged, data in self.rows:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=self.types)
            writer.write(connections[topic], logged, data)


def protobuf(fields):
    """Return a protobuf message: bytes, numbers of 32 bits, and tuples of doubles by number."""
    out = b""
    for number, value in fields.items():
        if isinstance(value, int):
            out += bytes([number << 3 | 5]) + value.to_bytes(4, "little")
            continue
        data = value if isinstance(value, bytes) else np.array(value, "<f8").tobytes()
        out += bytes([number << 3 | 2]) + varint(len(data)) + data
    return out


def timestamp(stamp):
    """Return google.protobuf.Timestamp."""
    return b"\x08" + varint(stamp // 10**9) + b"\x10" + varint(stamp % 10**9)


def varint(value):
    out = []
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def h264_packets(images):
    """Return an Annex B packet for each image, without frames that refer to later ones."""
    from fractions import Fraction

    import av

    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *images[0].shape[:2], "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.options = {"preset": "fast", "tune": "zerolatency", "g": "4", "crf": "5"}
    packets = []
    for number, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = number
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in [*packets, *encoder.encode(None)]]


def arkit_pose(cam_from_world):
    """Return qx qy qz qw tx ty tz of OpenGL's camera for a pose with OpenCV's axes."""
    world_from_cam = np.linalg.inv(cam_from_world)
    axes = world_from_cam[:3, :3] @ np.diag([1.0, -1.0, -1.0])
    return [*Rotation.from_matrix(axes).as_quat().tolist(), *world_from_cam[:3, 3].tolist()]


def record3d_metadata(cameras, depth_size, **changed):
    """Return the metadata of a recording; K is by columns."""
    k = cameras.intrinsics[0]
    return {
        "w": cameras.width,
        "h": cameras.height,
        "dw": depth_size[1],
        "dh": depth_size[0],
        "fps": 30,
        "K": k.T.reshape(-1).tolist(),
        "poses": [arkit_pose(pose) for pose in cameras.cam_from_world],
        "frameTimestamps": (100 + np.arange(len(cameras)) / 30).tolist(),
        **changed,
    }


def write_r3d(path, metadata, images, depths, confidences=None, pack=bytes):
    """Write an .r3d file; images are bytes, `pack` packs the others."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata", json.dumps(metadata))
        for number, image in enumerate(images):
            file.writestr(f"rgbd/{number}.jpg", image)
        for number, depth in enumerate(depths):
            file.writestr(f"rgbd/{number}.depth", pack(depth.astype("<f4").tobytes()))
            if confidences is not None:
                file.writestr(f"rgbd/{number}.conf", pack(confidences[number].tobytes()))
    return path


def exr(values, channel):
    """Return the bytes of an EXR with one channel of half or single floats."""
    import tempfile
    from pathlib import Path

    import OpenEXR

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.exr"
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {channel: np.ascontiguousarray(values)}).write(str(file))
        return file.read_bytes()


def write_vipe(folder, name, images, cameras, depths=(), masks=(), phrases=(), fps=24.0):
    """Write the results of ViPE for one clip."""
    for part in ("rgb", "pose", "intrinsics", "depth", "mask"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_video(folder / f"rgb/{name}.mp4", images, fps, crf=4)
    frames = np.arange(len(cameras))
    poses = np.linalg.inv(cameras.cam_from_world).astype(np.float32)
    np.savez(folder / f"pose/{name}.npz", data=poses, inds=frames)
    rows = cameras.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]].astype(np.float32)
    np.savez(folder / f"intrinsics/{name}.npz", data=rows, inds=frames)
    types = "".join(f"{frame}: PINHOLE\n" for frame in frames)
    (folder / f"intrinsics/{name}_camera.txt").write_text(types)
    _write_zip(
        folder / f"depth/{name}.zip", ".exr", [exr(d.astype(np.float16), "Z") for d in depths]
    )
    _write_zip(folder / f"mask/{name}.zip", ".png", [encoded(mask) for mask in masks])
    if phrases:
        lines = "".join(f"{number}: {phrase}\n" for number, phrase in phrases)
        (folder / f"mask/{name}.txt").write_text(lines)
    return folder


def _write_zip(path, suffix, contents):
    if contents:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for number, content in enumerate(contents):
                file.writestr(f"{number:05d}{suffix}", content)


def rewritten_zip(path, change):
    """Rewrite a zip file: `change` takes and returns the contents by name."""
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in change(contents).items():
            file.writestr(name, content)
    path.write_bytes(buffer.getvalue())
