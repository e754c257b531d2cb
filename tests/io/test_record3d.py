"""Recordings of Record3D: axes against a known point, intrinsics, depth, damage."""

import json
import struct
import sys
import zipfile

import numpy as np
import pytest
from recording_writers import encoded, exr, record3d_metadata, rewritten_zip, write_r3d

from msdyn.errors import InputError, MissingExtraError
from msdyn.geometry import Cameras, project
from msdyn.io import Record3D
from msdyn.reading import unpack_lzfse

SIZE, DEPTH_SIZE, FRAMES = (24, 32), (6, 8), 3
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 255, (FRAMES, *SIZE, 3), np.uint8)
DEPTHS = RNG.uniform(0.5, 4, (FRAMES, *DEPTH_SIZE)).astype(np.float32)
JPEGS = [encoded(image, ".jpg") for image in IMAGES]


def cameras():
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 0, 3] = np.arange(FRAMES) * 0.1
    return Cameras(np.tile([[30.0, 0, 15], [0, 31, 13], [0, 0, 1]], (FRAMES, 1, 1)), poses, 32, 24)


def metadata(**changed):
    return record3d_metadata(cameras(), DEPTH_SIZE, **changed)


def recording(folder, pack=bytes, **changed):
    return write_r3d(folder / "a.r3d", metadata(**changed), JPEGS, DEPTHS, pack=pack)


def pixels(camera, point):
    """Return x, y and depth of a point in a camera."""
    xyz = camera.cam_from_world[:, :3, :3] @ np.array(point) + camera.cam_from_world[:, :3, 3]
    xy = project(camera.intrinsics, xyz[:, None])[:, 0]
    return [*xy[0].tolist(), float(xyz[0, 2])]


def test_axes(tmp_path):
    """ARKit's camera looks along -z, y is up; K is by columns."""
    half = np.sqrt(0.5)
    poses = [
        [0, 0, 0, 1, 0, 0, 0],  # at the origin
        [0, half, 0, half, 1, 0, 0],  # at x = 1, turned to the left: looks along -x
        [half, 0, 0, half, 0, 0, 2],  # at z = 2, turned up: looks along y
    ]
    found = Record3D(recording(tmp_path, poses=poses)).cameras
    # .1 to the right, .2 up, 2 in front of each.
    for frame, point in enumerate([(0.1, 0.2, -2), (-1, 0.2, -0.1), (0.1, 2, 2.2)]):
        expected = [15 + 30 * 0.05, 13 - 31 * 0.1, 2]
        assert pixels(found[frame : frame + 1], point) == pytest.approx(expected, abs=1e-9), frame


def test_content(tmp_path):
    read = Record3D(recording(tmp_path))
    assert len(read) == FRAMES and read.size == SIZE and read.intrinsics == (30, 31, 15, 13)
    np.testing.assert_allclose(read.cameras.cam_from_world, cameras().cam_from_world, atol=1e-12)
    np.testing.assert_allclose(read.seconds, np.arange(FRAMES) / 30, atol=1e-9)
    assert list(read.images()) == JPEGS
    np.testing.assert_array_equal(list(read.depths()), DEPTHS)


def test_intrinsics_of_each_frame_and_times(tmp_path):
    coefficients = [[30 + n, 31, 15, 13] for n in range(FRAMES)]
    stamps = [5, 5.1, 5.5]
    path = recording(tmp_path, perFrameIntrinsicCoeffs=coefficients, frameTimestamps=stamps)
    read = Record3D(path)
    np.testing.assert_allclose(read.cameras.intrinsics[:, 0, 0], [30, 31, 32])
    np.testing.assert_allclose(read.seconds, [0, 0.1, 0.5], atol=1e-9)
    # Of another number, or not increasing, they are not used.
    path = recording(tmp_path, perFrameIntrinsicCoeffs=coefficients[:1], frameTimestamps=[1, 1, 2])
    read = Record3D(path)
    assert (read.cameras.intrinsics[:, 0, 0] == 30).all()
    np.testing.assert_allclose(read.seconds, np.arange(FRAMES) / 30)


def test_depth_of_low_confidence_is_unknown(tmp_path):
    confidences = RNG.integers(0, 3, DEPTHS.shape, np.uint8)
    depths = DEPTHS.copy()
    depths[0, 0, :2] = np.nan, -1
    path = write_r3d(tmp_path / "a.r3d", metadata(), JPEGS, depths, confidences)
    known = confidences > 0
    known[0, 0, :2] = False
    np.testing.assert_array_equal(list(Record3D(path).depths()), np.where(known, DEPTHS, 0))


def test_without_poses_or_depth(tmp_path):
    for poses in (None, [], [[0] * 7] * FRAMES):
        path = write_r3d(tmp_path / "a.r3d", metadata(poses=poses), JPEGS, DEPTHS[:1])
        read = Record3D(path)
        assert read.cameras is None and not read.has_depth and read.intrinsics[0] == 30


def test_unpacked_and_exported_folders(tmp_path):
    path = recording(tmp_path)
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "unpacked")
    export = tmp_path / "export" / "EXR_RGBD"
    for name in ("rgb", "depth"):
        (export / name).mkdir(parents=True)
    (export / "metadata.json").write_text(json.dumps(metadata()))
    for number, (image, depth) in enumerate(zip(IMAGES, DEPTHS, strict=True)):
        (export / f"rgb/{number}.png").write_bytes(encoded(image))
        (export / f"depth/{number}.exr").write_bytes(exr(depth, "R"))
    for folder in (tmp_path / "unpacked", tmp_path / "export", export):
        read = Record3D(folder)
        assert read.has_depth and len(list(read.images())) == FRAMES
        np.testing.assert_array_equal(list(read.depths()), DEPTHS)
        np.testing.assert_allclose(read.cameras.cam_from_world, cameras().cam_from_world)


def remove(name):
    return lambda contents: {k: v for k, v in contents.items() if k != name}


def replace(name, content):
    return lambda contents: {**contents, name: content}


def changed(**values):
    return replace("metadata", json.dumps({**metadata(), **values}).encode())


def without(key):
    content = {k: v for k, v in metadata().items() if k != key}
    return replace("metadata", json.dumps(content).encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("metadata"), "no metadata in it"),
        (replace("metadata", b"\xff"), "not valid JSON"),
        (without("K"), "K: missing"),
        (changed(K=[1] * 8), "K: expected"),
        (changed(K=[0] * 9), "focal lengths > 0"),
        (changed(w=10**9), "w: expected"),
        (changed(poses=[[0, 0, 0, 1, 0, 0, 0]]), "poses: expected one for each of 3 images"),
        (changed(poses=[[0, 0, 0, 1, 0, 0, 0]] * 2 + [[0] * 7]), "expected qx qy qz qw"),
        (changed(dw=9), "0.depth"),
        (changed(dw=2**14, dh=2**14), "dw, dh: expected at most"),
        (remove("rgbd/1.jpg"), "the image of frame 1 is missing"),
        (lambda c: {k: v for k, v in c.items() if "jpg" not in k}, "no images"),
        (replace("rgbd/1.depth", b"bvx2" + bytes(60)), "1.depth"),
        (replace("rgbd/1.depth", b""), "1.depth"),
    ],
)
def test_damaged_recordings(tmp_path, change, message):
    path = recording(tmp_path)
    rewritten_zip(path, change)
    with pytest.raises(InputError, match=message) as raised:
        list(Record3D(path).depths())
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_other_files(tmp_path):
    path = recording(tmp_path)
    content = path.read_bytes()
    for damaged in (b"", b"x" * 1000, content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="not a readable zip file"):
            Record3D(path)
    at = content.index(JPEGS[1]) + 200
    path.write_bytes(content[:at] + b"\x00\x01\x02\x03" + content[at + 4 :])
    with pytest.raises(InputError, match="Bad CRC"):
        list(Record3D(path).images())
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="not a recording of Record3D"):
        Record3D(tmp_path / "folder")
    with pytest.raises(FileNotFoundError):
        Record3D(tmp_path / "none.r3d")


def test_names_in_the_zip_are_no_paths(tmp_path):
    path = recording(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 192)
    rewritten_zip(path, replace("rgbd/../../secret", b"y"))
    assert len(list(Record3D(path).images())) == FRAMES
    assert secret.read_bytes() == b"x" * 192


def lzfse_blocks(*parts):
    """Pack bytes into blocks that are not compressed, as LZFSE does with noise."""
    blocks = (b"bvx-" + struct.pack("<I", len(part)) + part for part in parts)
    return b"".join(blocks) + b"bvx$"


def test_what_lzfse_data_declare_is_checked(monkeypatch):
    monkeypatch.setitem(sys.modules, "lzfse", None)
    with pytest.raises(InputError, match="expected 5 bytes, got 7"):
        unpack_lzfse(lzfse_blocks(b"abc", b"defg"), 5, "depth")
    with pytest.raises(InputError, match="blocks for 8 bytes"):
        unpack_lzfse(lzfse_blocks(*[b"a"] * 8), 8, "depth")
    with pytest.raises(InputError, match="expected a block of LZFSE, got b'PK"):
        unpack_lzfse(b"PK\x03\x04" + bytes(20), 5, "depth")
    for cut in (b"", b"bvx", b"bvx2", lzfse_blocks(b"abcdefgh")[:-4]):
        with pytest.raises(InputError, match="depth"):
            unpack_lzfse(cut, 8, "depth")
    with pytest.raises(MissingExtraError, match=r'lzfse is not installed: pip install "msdyn\[rob'):
        unpack_lzfse(lzfse_blocks(b"abc"), 3, "depth")


def test_depth_that_lzfse_packs(tmp_path):
    lzfse = pytest.importorskip("lzfse")
    np.testing.assert_array_equal(
        list(Record3D(recording(tmp_path, lzfse.compress)).depths()), DEPTHS
    )
    smooth = np.linspace(0.3, 5, 256 * 192, dtype=np.float32).tobytes()
    constant, noise = bytes(192 * 256 * 4), RNG.bytes(10**6)
    confidence = RNG.integers(0, 3, 192 * 256, np.uint8).tobytes()
    for values in (smooth, constant, noise, confidence, b"abc", b"abcdefgh" * 200):
        packed = lzfse.compress(values)
        assert unpack_lzfse(packed, len(values), "depth") == values
        with pytest.raises(InputError, match="expected"):
            unpack_lzfse(packed, len(values) + 1, "depth")
    for place in range(0, len(packed), 7):
        damaged = packed[:place] + bytes([packed[place] ^ 0x55]) + packed[place + 1 :]
        try:
            assert len(unpack_lzfse(damaged, len(values), "depth")) == len(values)
        except InputError as error:
            assert "\n" not in str(error)
