"""COLMAP's files: as COLMAP reads them, and damaged ones at the cost of their size."""

import resource
import time

import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.io import load_pycolmap, read_colmap, write_colmap


@pytest.fixture
def model(tmp_path):
    """The folder of a binary model of COLMAP with 2D points, and its reconstruction."""
    pycolmap = load_pycolmap()
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 6
    options.num_points3D = 20
    options.camera_model_id = pycolmap.CameraModelId.PINHOLE
    options.camera_params = [70.0, 71, 30, 25]
    options.camera_width, options.camera_height = 64, 48
    made = pycolmap.synthesize_dataset(options)
    made.write_binary(str(tmp_path))
    return tmp_path, made


def pose_of(image):
    return np.asarray(image.cam_from_world().matrix())


def test_a_model_of_colmap_with_points(model):
    folder, made = model
    posed = read_colmap(folder)
    assert len(posed.cameras) == 6 and (posed.cameras.width, posed.cameras.height) == (64, 48)
    for image in made.images.values():
        assert image.num_points2D() > 0
        row = posed.names.index(image.name)
        np.testing.assert_allclose(posed.cameras.cam_from_world[row, :3], pose_of(image))
        np.testing.assert_allclose(posed.cameras.intrinsics[row], image.camera.calibration_matrix())
    made.write_text(str(folder))
    (folder / "images.bin").unlink()
    as_text = read_colmap(folder)
    assert as_text.names == posed.names
    np.testing.assert_allclose(as_text.cameras.cam_from_world, posed.cameras.cam_from_world)


def test_images_without_a_pose_are_not_read(model):
    folder, made = model
    made.deregister_frame(next(iter(made.frames)))
    made.write_binary(str(folder))
    assert len(read_colmap(folder).cameras) == 5


def with_bytes(path, start, data):
    content = bytearray(path.read_bytes())
    content[start : start + len(data)] = data
    path.write_bytes(content)


def handled(folder):
    """Read a model that may be damaged; every refusal is one line that names the folder."""
    try:
        assert len(read_colmap(folder).cameras) > 0
    except InputError as error:
        assert str(error).startswith(str(folder)) and "\n" not in str(error)
        return "refused"
    return "read"


@pytest.mark.parametrize("count", [7, 2**31, 2**62, 2**64 - 1])
@pytest.mark.parametrize("place", ["cameras", "images", "points of an image"])
def test_counts_that_are_too_large(model, place, count):
    folder, _ = model
    name = "cameras.bin" if place == "cameras" else "images.bin"
    content = (folder / name).read_bytes()
    start = content.index(b".png\0") + 5 if place == "points of an image" else 0
    count = max(count, 10**6) if start else count
    with_bytes(folder / name, start, np.array(count, "<u8").tobytes())
    assert handled(folder) == "refused"


def test_sizes_that_are_too_large(model):
    folder, _ = model
    with_bytes(folder / "cameras.bin", 16, np.array([2**40, 48], "<u8").tobytes())
    with pytest.raises(InputError, match=r"cameras.bin: camera 1: expected at most"):
        read_colmap(folder)


def test_damaged_models_cost_no_time_and_no_memory(model):
    folder, _ = model
    rng = np.random.default_rng(0)
    names = ("cameras.bin", "images.bin")
    whole = {name: (folder / name).read_bytes() for name in names}
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    ends = []
    for turn in range(200):
        name = names[turn % 2]
        content = bytearray(whole[name])
        for place in rng.integers(0, len(content), rng.integers(1, 5)):
            content[place] = rng.choice([0, 1, 127, 255, int(rng.integers(256))])
        if turn % 5 == 0:
            content = content[: rng.integers(len(content))]
        (folder / name).write_bytes(content)
        ends.append(handled(folder))
        (folder / name).write_bytes(whole[name])
    assert ends.count("refused") > 50 and ends.count("read") > 10
    assert time.process_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize(
    "name, text, match",
    [
        ("cameras.txt", "1 PINHOLE 64 48 70 70 32", "line 1: PINHOLE: expected 4 parameters"),
        ("cameras.txt", "1 OTHER 64 48 70 70 32 24", "line 1: .*OTHER"),
        ("cameras.txt", "1 PINHOLE 64 48 nan 70 32 24", "finite"),
        ("cameras.txt", "1 PINHOLE -64 48 70 70 32 24", "at least 1x1 px"),
        ("cameras.txt", "9 PINHOLE 64 48 70 70 32 24", "there is no camera 1"),
        ("images.txt", "1 0 0 0 0 0 0 0 1 a.png\n\n", "image 1: expected a quaternion"),
        ("images.txt", "1 1 0 0 0 0 0 inf 1 a.png\n\n", "image 1: expected a quaternion"),
        ("images.txt", "1 1 0 0 0 0 0 0 1\n\n", "line 1"),
        ("images.txt", "1 1 0 0 0 0 0 0 1 \udc80.png\n\n", "not a readable text file"),
    ],
)
def test_text_that_is_wrong(tmp_path, name, text, match):
    k = np.array([[[70.0, 0, 32], [0, 70, 24], [0, 0, 1]]])
    write_colmap(tmp_path, Cameras(k, np.eye(4)[None], 64, 48), ["a.png"])
    assert handled(tmp_path) == "read"
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=match):
        read_colmap(tmp_path)


def test_a_name_of_5000_digits(tmp_path):
    k = np.array([[[70.0, 0, 32], [0, 70, 24], [0, 0, 1]]] * 2)
    names = ["1" * 5000, "9"]
    write_colmap(tmp_path, Cameras(k, np.tile(np.eye(4), (2, 1, 1)), 64, 48), names)
    assert read_colmap(tmp_path).names == ("9", "1" * 5000)
