"""Recordings of robots that the libraries of the formats write: topics, times, pixels, damage."""

import bz2
import struct

import numpy as np
import pytest
import zstandard
from recording_writers import T0, Messages, encoded, h264_packets, protobuf, timestamp

from msdyn.errors import InputError, MissingExtraError
from msdyn.io import (
    RobotRecording,
    begins_stream,
    depth_of,
    read_video,
    rgb_of,
    scan_video,
    write_stream_as_mp4,
)
from msdyn.reading import Recording
from msdyn.reading.packed import unpack

pytest.importorskip("mcap")
pytest.importorskip("rosbags")

TOPIC, DEPTH, INFO = "/cam/image_raw", "/cam/depth", "/cam/camera_info"
K = [[50.0, 0, 15.5], [0, 60.0, 11.5], [0, 0, 1]]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 255, (4, 24, 32, 3), np.uint8)
STAMPS = [T0 + n for n in (0, 31_000_000, 70_000_000, 99_000_000)]


def messages(ros1=False):
    """A camera of four images and a calibration; the second image is stored last."""
    made = Messages(ros1)
    made.info(INFO, T0, K, (24, 32))
    for number in (0, 2, 3, 1):
        logged = T0 + 10**9 + len(made.rows)
        made.image(TOPIC, STAMPS[number], IMAGES[number], "rgb8", logged=logged)
    return made


WRITERS = {
    "mcap": lambda path: messages().mcap(path / "a.mcap"),
    "mcap lz4": lambda path: messages().mcap(path / "a.mcap", compression=compression("LZ4")),
    "mcap unpacked": lambda path: messages().mcap(path / "a.mcap", compression=compression("NONE")),
    "mcap bare": lambda path: messages().mcap(path / "a.mcap", **BARE),
    "mcap ros1": lambda path: messages(ros1=True).mcap(path / "a.mcap"),
    "rosbag2 sqlite3": lambda path: messages().rosbag2(path / "bag", "SQLITE3"),
    "rosbag2 mcap": lambda path: messages().rosbag2(path / "bag", "MCAP"),
    "db3": lambda path: messages().rosbag2(path / "bag", "SQLITE3") / "bag.db3",
    "bag": lambda path: messages(ros1=True).rosbag1(path / "a.bag"),
    "bag bz2": lambda path: messages(ros1=True).rosbag1(path / "a.bag", "BZ2"),
    "bag lz4": lambda path: messages(ros1=True).rosbag1(path / "a.bag", "LZ4"),
}
BARE = {
    "use_chunking": False,
    "use_statistics": False,
    "repeat_channels": False,
    "repeat_schemas": False,
    "use_summary_offsets": False,
}


def compression(name):
    from mcap.writer import CompressionType

    return CompressionType[name]


@pytest.mark.parametrize("kind", WRITERS)
def test_topics_images_and_calibration(tmp_path, kind):
    recording = RobotRecording(WRITERS[kind](tmp_path))
    assert recording.videos == [TOPIC] and recording.video_topic(None) == TOPIC
    found = {message.stamp: message for _, _, message in recording.images({TOPIC})}
    assert sorted(found) == STAMPS
    for stamp, image in zip(STAMPS, IMAGES, strict=True):
        assert found[stamp].frame_id == "camera"
        np.testing.assert_array_equal(rgb_of(found[stamp], "image"), image)
    # ROS has the centre of the first pixel at (0, 0), msdyn at (.5, .5).
    assert recording.lens(TOPIC, (24, 32)).pinhole == (50, 60, 16, 12)
    assert recording.lens(TOPIC, (48, 64)).pinhole == (100, 120, 32, 24)
    with pytest.raises(InputError, match="calibration is of 32x24"):
        recording.lens(TOPIC, (32, 32))


def test_which_topic(tmp_path):
    made = messages()
    made.compressed("/other/image/compressed", T0, encoded(IMAGES[0]), "png")
    made.compressed("/depth/video", T0, b"x", "h264")
    made.image(DEPTH, T0, np.ones((24, 32), np.uint16), "16UC1")
    recording = RobotRecording(made.mcap(tmp_path / "a.mcap"))
    assert recording.video_topic(TOPIC) == TOPIC and recording.depth_topic(DEPTH) == DEPTH
    assert recording.videos == [TOPIC, "/other/image/compressed"]
    (kind,) = (message.kind for _, _, message in recording.images({"/depth/video"}))
    assert kind == "video"
    listed = r"/cam/image_raw \(sensor_msgs/msg/Image, 4\), /other/image/compressed \(sensor"
    with pytest.raises(InputError, match=f"--topic: expected one of {listed}"):
        recording.video_topic(None)
    with pytest.raises(InputError, match="got '/nothing'"):
        recording.video_topic("/nothing")
    with pytest.raises(InputError, match="whose messages are sensor_msgs/msg/CameraInfo in cdr"):
        recording.video_topic(INFO)
    assert recording.lens("/other/image/compressed", (24, 32)) is None


def test_distorted_and_rectified_images(tmp_path):
    made = Messages()
    p = np.array([[40.0, 0, 9.5, 0], [0, 40.0, 9.5, 0], [0, 0, 1, 0]])
    made.info(INFO, T0, K, (24, 32), d=(0.1, 0, 0, 0, 0), p=p)
    made.info("/raw/camera_info", T0, np.zeros((3, 3)), (24, 32))
    for topic in (TOPIC, "/cam/image_rect", "/raw/image"):
        made.image(topic, T0, IMAGES[0], "rgb8")
    recording = RobotRecording(made.mcap(tmp_path / "a.mcap"))
    lens = recording.lens(TOPIC, (24, 32))
    assert (lens.model, lens.params[4:]) == ("FULL_OPENCV", (0.1, 0, 0, 0, 0, 0, 0, 0))
    assert recording.lens("/cam/image_rect", (24, 32)).pinhole == (40, 40, 10, 10)
    assert recording.lens("/raw/image", (24, 32)) is None  # not calibrated


def test_which_calibration(tmp_path):
    """That of the same folder or, of a topic of compressed images, of the one above."""
    made = Messages()
    for number, name in enumerate(("/camera_info", "/a/camera_info", "/a/b/camera_info"), 1):
        made.info(name, T0, np.diag([number, number, 1]), (24, 32))
    made.image("/a/image", T0, IMAGES[0], "rgb8")
    made.image("/a/c/image", T0, IMAGES[0], "rgb8")
    made.compressed("/a/image/compressed", T0, encoded(IMAGES[0]), "png")
    made.compressed("/a/b/compressed", T0, encoded(IMAGES[0]), "png")
    recording = RobotRecording(made.mcap(tmp_path / "a.mcap"))
    expected = {"/a/image": 2, "/a/c/image": None, "/a/image/compressed": 2, "/a/b/compressed": 3}
    for topic, focal in expected.items():
        found = recording.lens(topic, (24, 32))
        assert (found and found.pinhole[0]) == focal, topic


def test_names_of_strangers(tmp_path):
    made = Messages()
    for name in ("/a\x1b[31m\nb", "/../../" + "x" * 300):
        made.image(name, T0, IMAGES[0], "rgb8")
    recording = RobotRecording(made.mcap(tmp_path / "a.mcap"))
    with pytest.raises(InputError) as raised:
        recording.video_topic(None)
    assert str(raised.value).isprintable()


def test_messages_of_foxglove(tmp_path):
    raw = {1: timestamp(STAMPS[1]), 2: 32, 3: 24, 4: b"bgr8", 5: 96, 7: b"eye"}
    raw[6] = IMAGES[1][..., ::-1].tobytes()
    jpeg = {1: timestamp(STAMPS[2]), 2: encoded(IMAGES[2]), 3: b"png", 4: b"eye"}
    video = {1: timestamp(STAMPS[3]), 2: b"eye", 3: b"abc", 4: b"h264"}
    info = {1: timestamp(T0), 2: 32, 3: 24, 4: b"plumb_bob", 6: np.ravel(K), 9: b"eye"}
    types = ("RawImage", "CompressedImage", "CompressedVideo", "CameraCalibration")
    contents = (raw, jpeg, video, info)
    rows = [
        (f"/cam/{name}", f"foxglove.{name}", T0, protobuf(content))
        for name, content in zip(types, contents, strict=True)
    ]
    recording = RobotRecording(Messages().mcap(tmp_path / "a.mcap", protobuf=rows))
    assert recording.videos == ["/cam/CompressedImage", "/cam/CompressedVideo", "/cam/RawImage"]
    found = {topic: message for topic, _, message in recording.images(set(recording.videos))}
    np.testing.assert_array_equal(rgb_of(found["/cam/RawImage"], "image"), IMAGES[1])
    assert found["/cam/CompressedImage"].data == encoded(IMAGES[2])
    assert (found["/cam/CompressedVideo"].data, found["/cam/RawImage"].frame_id) == (b"abc", "eye")
    assert [found[f"/cam/{name}"].stamp for name in types[:3]] == STAMPS[1:]
    assert recording.lens("/cam/RawImage", (24, 32)).pinhole == (50, 60, 16, 12)


@pytest.mark.parametrize(
    ("encoding", "values"),
    [
        ("rgb8", IMAGES[0]),
        ("bgr8", IMAGES[0][..., ::-1]),
        ("rgba8", np.dstack([IMAGES[0], IMAGES[0][..., :1]])),
        ("bgra8", np.dstack([IMAGES[0][..., ::-1], IMAGES[0][..., :1]])),
    ],
)
def test_encodings_of_colours(tmp_path, encoding, values):
    made = Messages()
    made.image(TOPIC, T0, np.ascontiguousarray(values), encoding, step=200)
    ((_, _, message),) = RobotRecording(made.mcap(tmp_path / "a.mcap")).images({TOPIC})
    np.testing.assert_array_equal(rgb_of(message, "image"), IMAGES[0])


@pytest.mark.parametrize(
    ("pattern", "colours"),
    [("rggb", "RGGB"), ("bggr", "BGGR"), ("gbrg", "GBRG"), ("grbg", "GRBG")],
)
def test_colour_filters(tmp_path, pattern, colours):
    """A red surface lights the red pixels of a filter only."""
    tile = np.array([200 if c == "R" else 0 for c in colours], np.uint8).reshape(2, 2)
    made = Messages()
    made.image(TOPIC, T0, np.tile(tile, (8, 8)), f"bayer_{pattern}8")
    ((_, _, message),) = RobotRecording(made.mcap(tmp_path / "a.mcap")).images({TOPIC})
    inside = rgb_of(message, "image")[4:-4, 4:-4]
    assert inside[..., 0].min() == 200 and inside[..., 1:].max() == 0


def test_grey_and_yuv(tmp_path):
    made = Messages()
    grey = np.full((4, 6), 90, np.uint8)
    made.image("/a/image", T0, grey, "mono8")
    made.image("/b/image", T0, np.tile(np.uint8([128, 90]), (4, 6)).reshape(4, 6, 2), "uyvy")
    made.image("/c/image", T0, np.tile(np.uint8([90, 128]), (4, 6)).reshape(4, 6, 2), "yuyv")
    recording = RobotRecording(made.mcap(tmp_path / "a.mcap"))
    a, b, c = (rgb_of(m, t) for t, _, m in recording.images({"/a/image", "/b/image", "/c/image"}))
    assert (a == 90).all() and np.ptp(b) <= 2 and (b == c).all() and abs(int(b[0, 0, 0]) - 86) <= 2


def test_depth(tmp_path):
    metres = np.array([[0, 1.5], [2.25, np.nan]], np.float32)
    millimetres = np.array([[0, 1500], [2250, 0]], np.uint16)
    made = Messages()
    made.image("/1/depth", T0, metres, "32FC1")
    made.image("/2/depth", T0, millimetres, "16UC1")
    packed = struct.pack("<iff", 0, 0, 0) + encoded(millimetres)
    made.compressed("/3/depth", T0, packed, "16UC1; compressedDepth png")
    made.compressed("/4/depth", T0, encoded(millimetres), "png")
    recording = RobotRecording(made.mcap(tmp_path / "a.mcap"))
    for topic, _, message in recording.images({f"/{n}/depth" for n in range(1, 5)}):
        expected = [[0, 1.5], [2.25, 0]]
        np.testing.assert_allclose(depth_of(message, topic), expected, rtol=1e-6, err_msg=topic)
    with pytest.raises(InputError, match="expected depth as 16UC1 or 32FC1, got 'rgb8'"):
        made.image(TOPIC, T0, IMAGES[0], "rgb8")
        recording = RobotRecording(made.mcap(tmp_path / "b.mcap"))
        depth_of(next(recording.images({TOPIC}))[2], TOPIC)


def file_of(path):
    """Return the file of a recording with its messages."""
    if path.is_file():
        return path
    return next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))


def read_all(path):
    recording = RobotRecording(path)
    return [rgb_of(m, t) for t, _, m in recording.images({recording.video_topic(None)})]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_recordings_cut_short(tmp_path, kind, share):
    path = WRITERS[kind](tmp_path)
    path = (
        next(p for p in path.iterdir() if p.suffix in (".mcap", ".db3")) if path.is_dir() else path
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError) as raised:
        read_all(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_recordings_are_refused_or_read(tmp_path, kind):
    path = WRITERS[kind](tmp_path)
    path = (
        next(p for p in path.iterdir() if p.suffix in (".mcap", ".db3")) if path.is_dir() else path
    )
    content, rng = path.read_bytes(), np.random.default_rng(1)
    refused = 0
    for _ in range(40):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_all(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused or "bag" not in kind  # images alone are most of the others


def test_sizes_are_checked_before_memory_is_taken(tmp_path):
    """Chunks that declare or unpack to more than they may."""
    zeros = bytes(2**27)
    small = zstandard.compress(zeros)
    with pytest.raises(InputError, match="no measured data is so compressible"):
        unpack(small, "zstd", "chunk", len(zeros))
    with pytest.raises(InputError, match="expected 1000 bytes, got more than 1000"):
        unpack(small, "zstd", "chunk", 1000)
    with pytest.raises(InputError, match="far more than data of its size"):
        unpack(bz2.compress(zeros), "bz2", "chunk")
    with pytest.raises(InputError, match="expected zstd, lz4, bz2"):
        unpack(small, "snappy", "chunk", 1000)
    made = Messages()
    made.image(TOPIC, T0, IMAGES[0], "rgb8")
    topic, kind, logged, data = made.rows[0]
    height = IMAGES[0].shape[0].to_bytes(4, "little") + IMAGES[0].shape[1].to_bytes(4, "little")
    huge = data.replace(height, (2**31 - 1).to_bytes(4, "little") * 2)
    made.rows[0] = (topic, kind, logged, huge)
    with pytest.raises(InputError, match="expected at most 67 megapixels"):
        read_all(made.mcap(tmp_path / "a.mcap"))


def test_what_is_no_recording(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="expected a recording"):
        Recording(tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no recording in this folder"):
        Recording(tmp_path / "empty")
    (tmp_path / "empty" / "a.db3.zstd").write_bytes(b"")
    with pytest.raises(InputError, match="unpack them"):
        Recording(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        Recording(tmp_path / "nothing.mcap")
    made = Messages()
    made.info(INFO, T0, K, (24, 32))
    with pytest.raises(InputError, match="no topic of images"):
        RobotRecording(made.mcap(tmp_path / "a.mcap")).video_topic(None)


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    path = messages().mcap(tmp_path / "a.mcap")
    monkeypatch.setitem(__import__("sys").modules, "mcap.reader", None)
    with pytest.raises(MissingExtraError, match=r'mcap is not installed: pip install "msdyn\[rob'):
        Recording(path)


def test_frames_of_a_stream(tmp_path):
    """H.264 gets the time stamps of its messages; each fourth frame begins the stream."""
    images = [np.full((64, 96, 3), 20 + 25 * n, np.uint8) for n in range(8)]
    packets = h264_packets(images)
    begins = [begins_stream(packet, "h264") for packet in packets]
    assert begins == [True, False, False, False] * 2
    assert not begins_stream(packets[0], "h265") and not begins_stream(b"", "h264")
    (tmp_path / "a.h264").write_bytes(b"".join(packets))
    seconds = 5 + np.cumsum(RNG.uniform(0.01, 0.3, 8))
    write_stream_as_mp4(tmp_path / "a.h264", tmp_path / "a.mp4", seconds)
    found = scan_video(tmp_path / "a.mp4")
    assert not found.nominal
    np.testing.assert_allclose(found.seconds, seconds - seconds[0], atol=1e-6)
    means = [image.mean() for image in read_video(tmp_path / "a.mp4")]
    np.testing.assert_allclose(means, [image.mean() for image in images], atol=1.5)
    for count in (7, 9):
        with pytest.raises(InputError, match=f"expected {count} frames, one a message, got 8"):
            write_stream_as_mp4(tmp_path / "a.h264", tmp_path / "b.mp4", np.arange(count) / 10)
    (tmp_path / "a.h264").write_bytes(b"x" * 1000)
    with pytest.raises(InputError):
        write_stream_as_mp4(tmp_path / "a.h264", tmp_path / "b.mp4", seconds)
    assert not (tmp_path / "b.mp4").exists()
