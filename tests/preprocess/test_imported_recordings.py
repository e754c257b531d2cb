"""`msdyn-preprocess --from` on recordings of a synthetic clip: the scene against its truth."""

import dataclasses
import functools
import shutil

import numpy as np
import pytest
from clips import two_boxes
from recording_writers import (
    T0,
    Messages,
    encoded,
    h264_packets,
    record3d_metadata,
    write_r3d,
    write_vipe,
)

from msdyn.cli.preprocess import main
from msdyn.errors import InputError
from msdyn.preprocess.config import ImportConfig
from msdyn.preprocess.frame_matching import nearest
from msdyn.preprocess.frames.sources import open_source
from msdyn.preprocess.imported import import_clip
from msdyn.scene import Scene

SIZE, FRAMES = (72, 96), 8
LIDAR = (36, 48)
STAMPS = [T0 + int(n * 1e9 / 24) + 3_000_000 * (n % 3) for n in range(FRAMES)]
"""ns, not quite even."""
SECONDS = (np.array(STAMPS) - T0) / 1e9


@functools.cache
def truth():
    return two_boxes(FRAMES, SIZE[1], SIZE[0])


def small_depths():
    return np.stack([nearest(depth, LIDAR) for depth in truth().clip.depths])


def run(*arguments):
    return main([str(argument) for argument in arguments])


def same_cameras(found, expected):
    """Check cameras whose world may be another rigid one, of the same scale."""
    relative = [
        cameras.cam_from_world @ np.linalg.inv(cameras.cam_from_world[:1])
        for cameras in (found, expected)
    ]
    np.testing.assert_allclose(*relative, atol=2e-5)
    np.testing.assert_allclose(found.intrinsics, expected.intrinsics, rtol=1e-5)


def same_pictures(found, expected):
    """Check frames that have been compressed: the nearest true frame of each is its own."""
    grey = [images.mean(-1) for images in (found, expected)]  # colours have half the size
    error = np.abs(grey[0][:, None] - grey[1]).mean((2, 3))  # [found, expected]
    np.testing.assert_array_equal(error.argmin(1), np.arange(len(error)))
    assert np.diag(error).max() < 3


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    """A recording of Record3D, images twice as large as its intrinsics, and its scene."""
    folder = tmp_path_factory.mktemp("phone")
    images = [np.repeat(np.repeat(i, 2, 0), 2, 1) for i in truth().clip.images]
    jpegs = [encoded(image, ".jpg", quality=95, subsampling=0) for image in images]
    seconds = (50 + SECONDS).tolist()
    metadata = record3d_metadata(truth().clip.cameras, LIDAR, frameTimestamps=seconds)
    confidence = np.full((FRAMES, *LIDAR), 2, np.uint8)
    confidence[:, :4] = 0
    path = write_r3d(folder / "desk.r3d", metadata, jpegs, small_depths(), confidence)
    assert run("--from", "record3d", path, "--out", folder / "scene", "--long-side", 96) == 0
    return path, Scene(folder / "scene")


def test_record3d(phone, capsys):
    path, scene = phone
    shot = truth().clip
    assert scene.size == SIZE and scene.info.world_units == "metric"
    same_cameras(scene.cameras, shot.cameras)
    np.testing.assert_allclose(scene.info.timeline.seconds, SECONDS, atol=1e-6)
    same_pictures(scene.images(), shot.images)
    known = np.repeat(np.repeat(small_depths(), 2, 1), 2, 2)
    known[:, :8] = 0  # of low confidence
    np.testing.assert_allclose(scene.depths(), known, rtol=1e-6)
    options = scene.info.stages["frames"]["options"]
    assert options["source"] == "desk.r3d" and options["timestamps"] == "true"
    assert [scene.info.stages[s]["backend"] for s in ("cameras", "depth")] == ["files", "files"]
    capsys.readouterr()
    assert run("--check", scene.directory) == 0
    assert "a scene directory that msdyn-fit can take" in capsys.readouterr().out


def test_a_second_run_has_nothing_to_do(phone):
    path, scene = phone
    before = (scene.directory / "scene.json").read_text()
    assert run("--from", "record3d", path, "--out", scene.directory, "--long-side", 96) == 0
    assert (scene.directory / "scene.json").read_text() == before


def test_other_recordings_and_directories_are_refused(phone, tmp_path, capsys):
    path, scene = phone
    copy = shutil.copy(path, tmp_path / "kitchen.r3d")
    assert run("--from", "record3d", copy, "--out", scene.directory) == 2
    assert "holds the scene of desk.r3d, not of kitchen.r3d" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    assert run("--from", "record3d", path, "--out", tmp_path / "mine") == 2
    assert "was not made by msdyn-preprocess" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_options_of_the_user_take_the_place_of_the_recording(phone, tmp_path):
    path, _ = phone
    options = ("--max-frames", 4, "--masks", "none", "--depth", "fused", "--accept-poor")
    out = tmp_path / "scene"
    assert run("--from", "record3d", path, "--out", out, "--long-side", 96, *options) == 0
    scene = Scene(out)
    assert len(scene) == 4 and not scene.masks().any()
    assert scene.info.stages["depth"]["backend"] == "fused"
    rows = scene.info.stages["frames"]["options"]["source_frames"]
    same_cameras(scene.cameras, truth().clip.cameras[rows])


def test_what_the_stages_are_given(phone, tmp_path, monkeypatch):
    """Cameras and depth of the recording or, by structure from motion, its intrinsics."""
    path, scene = phone
    configs = []
    monkeypatch.setattr(
        "msdyn.preprocess.imported.preprocess_video", lambda config: configs.append(config) or scene
    )
    k = truth().clip.cameras.intrinsics[0]
    focal = (2 * k[0, 0], 2 * k[1, 1], 2 * k[0, 2], 2 * k[1, 2])  # images are twice as large

    def given(source, **options):
        import_clip(ImportConfig(source, tmp_path / "scene", kind="record3d", **options))
        return configs[-1]

    config = given(path)
    assert (config.cameras, config.depth, config.masks) == ("files", "files", None)
    assert (config.world_units, config.depth_scale, config.intrinsics) == ("metric", 1, None)
    config = given(path, cameras="sfm", start=1.0)
    assert (config.cameras, config.depth, config.start) == ("sfm", "files", 1)
    assert (config.world_units, config.depth_scale) == ("arbitrary", None)
    assert config.intrinsics == pytest.approx(focal)
    assert given(path, cameras="sfm", intrinsics=(1, 2, 3, 4)).intrinsics == (1, 2, 3, 4)
    metadata = record3d_metadata(truth().clip.cameras, LIDAR, poses=None)
    images = [encoded(image, ".jpg") for image in truth().clip.images]
    config = given(write_r3d(tmp_path / "front.r3d", metadata, images, []))
    assert (config.cameras, config.depth) == (None, None)
    assert config.intrinsics == pytest.approx([value / 2 for value in focal])


@pytest.fixture(scope="module")
def vipe(tmp_path_factory):
    shot = truth().clip
    folder = tmp_path_factory.mktemp("vipe")
    phrases = [(1, "box"), (2, "box")]
    write_vipe(folder, "desk", shot.images, shot.cameras, shot.depths, shot.masks, phrases)
    write_vipe(folder, "other", shot.images, shot.cameras)
    return folder


def test_vipe(vipe, tmp_path, capsys):
    shot = truth().clip
    out = tmp_path / "scene"
    assert run("--from", "vipe", vipe, "--clip", "desk", "--out", out) == 0
    scene = Scene(out)
    same_cameras(scene.cameras, shot.cameras)
    np.testing.assert_allclose(scene.depths(), shot.depths, rtol=1e-3)  # half floats
    np.testing.assert_array_equal(scene.masks(), shot.masks)
    same_pictures(scene.images(), shot.images)
    np.testing.assert_allclose(scene.info.timeline.seconds, np.arange(FRAMES) / 24, atol=1e-3)
    assert scene.info.world_units == "metric"
    assert scene.info.stages["frames"]["options"]["source"] == "desk.mp4"
    assert run("--check", out) == 0


def test_vipe_of_poses_alone_and_of_several_clips(vipe, tmp_path, capsys):
    out = tmp_path / "scene"
    assert run("--from", "vipe", vipe, "--out", out) == 2
    assert "--clip: expected one of desk, other" in capsys.readouterr().err
    options = ("--only", "frames", "--only", "tracks", "--only", "cameras", "--only", "masks")
    assert run("--from", "vipe", vipe, "--clip", "other", "--out", out, *options) == 0
    same_cameras(Scene(out).cameras, truth().clip.cameras)


def robot_messages(kind, shuffled=True):
    """A camera with its calibration and registered depth; images are stored out of order."""
    shot, made = truth().clip, Messages()
    k = shot.cameras.intrinsics[0].copy()
    k[:2, 2] -= 0.5  # ROS has the centre of the first pixel at (0, 0)
    made.info("/cam/camera_info", T0, k, SIZE)
    order = [0, 2, 1, *range(3, FRAMES)] if shuffled else range(FRAMES)
    packets = h264_packets(list(shot.images)) if kind == "h264" else []
    for n in order:
        if kind == "raw":
            made.image("/cam/image", STAMPS[n], shot.images[n], "rgb8")
        elif kind == "png":
            made.compressed("/cam/image", STAMPS[n], encoded(shot.images[n]), "png")
        else:
            made.video("/cam/image", STAMPS[n], packets[n])
        depth = (shot.depths[n] * 1000).round().astype(np.uint16)
        if n != 5:
            made.image("/cam/depth", STAMPS[n] + 2_000_000, depth, "16UC1")
    return made


STAGES = ("--only", "frames")


@pytest.mark.parametrize("kind", ["raw", "png"])
def test_images_of_a_robot(tmp_path, kind):
    pytest.importorskip("mcap")
    path = robot_messages(kind).mcap(tmp_path / "drive.mcap")
    out = tmp_path / "scene"
    assert run("--from", "mcap", path, "--out", out, *STAGES) == 0
    scene = Scene(out)
    np.testing.assert_array_equal(scene.images(), truth().clip.images)
    np.testing.assert_allclose(scene.info.timeline.seconds, SECONDS, atol=1e-9)
    options = scene.info.stages["frames"]["options"]
    assert options["source"] == "drive.mcap.cam.image" and options["timestamps"] == "true"


def test_video_of_a_robot(tmp_path):
    pytest.importorskip("mcap")
    path = robot_messages("h264", shuffled=False).mcap(tmp_path / "drive.mcap")
    out = tmp_path / "scene"
    assert run("--from", "mcap", path, "--out", out, *STAGES) == 0
    scene = Scene(out)
    np.testing.assert_allclose(scene.info.timeline.seconds, SECONDS, atol=2e-6)
    same_pictures(scene.images(), truth().clip.images)


def test_calibration_and_depth_of_a_robot(tmp_path, capsys):
    pytest.importorskip("mcap")
    path = robot_messages("raw").rosbag2(tmp_path / "drive", "SQLITE3")
    out = tmp_path / "scene"
    options = ("--depth-topic", "/cam/depth", "--masks", "none")
    assert run("--from", "mcap", path, "--out", out, *options, "--accept-poor") == 0
    scene, shot = Scene(out), truth().clip
    np.testing.assert_allclose(scene.cameras.intrinsics, shot.cameras.intrinsics, rtol=1e-6)
    with_depth = np.arange(FRAMES) != 5
    depths = scene.depths()
    assert not depths[5].any()
    # Cameras by structure from motion have a scale of their own.
    ratio = depths[with_depth] / shot.depths[with_depth]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=2e-3)


def test_what_does_not_fit(tmp_path):
    pytest.importorskip("mcap")
    shot, out = truth().clip, tmp_path / "scene"

    def refused(made, message, **options):
        path = made.mcap(tmp_path / "drive.mcap")
        with pytest.raises(InputError, match=message):
            import_clip(ImportConfig(path, out, kind="mcap", **options))
        shutil.rmtree(out, ignore_errors=True)

    made = robot_messages("h264")
    refused(made, "not in time order")
    made = robot_messages("raw")
    refused(made, "is the topic of the video", topic="/cam/depth", depth_topic="/cam/depth")
    made.image("/lidar/depth", T0, np.ones(SIZE, np.uint16), "16UC1", frame="lidar")
    refused(made, r"in the frame of the images \(camera\), got", depth_topic="/lidar/depth")
    made.image("/late/depth", T0 + 10**11, np.ones(SIZE, np.uint16), "16UC1")
    refused(made, "no depth at the times", depth_topic="/late/depth")
    made.video("/vp9/image", T0, b"x", "vp9")
    refused(made, "expected video in one of h264, h265", topic="/vp9/image")
    made.video("/late/image", T0, h264_packets(list(shot.images))[1])
    refused(made, "expected at least 2 images, got 0", topic="/late/image")
    twice = Messages()
    for _ in range(3):
        twice.image("/cam/image", T0, shot.images[0], "rgb8")
    refused(twice, "two images have the same time stamp")


def test_stamps_of_the_recording_where_those_of_the_headers_are_missing(tmp_path):
    pytest.importorskip("mcap")
    made = Messages()
    for n in range(3):
        made.image("/cam/image", 0, truth().clip.images[n], "rgb8", logged=STAMPS[n])
    path, out = made.mcap(tmp_path / "drive.mcap"), tmp_path / "scene"
    assert run("--from", "mcap", path, "--out", out, *STAGES) == 0
    np.testing.assert_allclose(Scene(out).info.timeline.seconds, SECONDS[:3], atol=1e-9)


def test_names_of_topics_are_no_paths(tmp_path):
    pytest.importorskip("mcap")
    made, topic = Messages(), "/../../\0" + "x" * 300
    for n in range(3):
        made.image(topic, STAMPS[n], truth().clip.images[n], "rgb8")
    out = tmp_path / "scene"
    assert run("--from", "mcap", made.mcap(tmp_path / "drive.mcap"), "--out", out, *STAGES) == 0
    source = Scene(out).info.stages["frames"]["options"]["source"]
    assert source == "drive.mcap........" + "x" * 72
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drive.mcap", "scene"]


def test_options_of_other_kinds_are_refused(tmp_path, capsys):
    for arguments, message in (
        (("mcap", "--clip", "a"), "--clip: is an option of --from vipe, got --from mcap"),
        (("vipe", "--topic", "a"), "--topic: is an option of --from mcap, got --from vipe"),
        (
            ("mcap", "--held-out", "1"),
            "--held-out: is an option of --from panoptic or blender or nerfies or recording, "
            "got --from mcap",
        ),
        (
            ("nothing",),
            "--from: expected one of mcap, record3d, vipe, panoptic, blender, nerfies, recording, "
            "dycheck, lerobot, got 'nothing'",
        ),
    ):
        with pytest.raises(SystemExit) as end:
            run("--from", *arguments, tmp_path)
        assert end.value.code == 2 and message in capsys.readouterr().err
    config = ImportConfig(tmp_path / "a.r3d", kind="record3d")
    assert config.directory.name == "a-scene"
    assert dataclasses.replace(config, out=tmp_path).directory == tmp_path


def test_time_stamps_of_a_folder_of_images(tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(encoded(truth().clip.images[n]))
    assert open_source(tmp_path, 10).nominal
    (tmp_path / "seconds.txt").write_text("5\n5.5\n\n5.6")
    source = open_source(tmp_path, 10)
    assert not source.nominal
    np.testing.assert_allclose(source.seconds, [0, 0.5, 0.6], atol=1e-12)
    for text, message in (
        ("5\n6", "expected 3 time stamps, one an image, got 2"),
        ("5\n6\n6", "increasing"),
        ("5\n6\nnan", "finite"),
        ("a\nb\nc", "not a readable list of seconds"),
    ):
        (tmp_path / "seconds.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            open_source(tmp_path, 10)
