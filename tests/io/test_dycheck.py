"""DyCheck's format: round trip of a scene with exact truth, a hand-made sequence, invalid files."""

import json
import shutil

import imageio.v3 as iio
import numpy as np
import pytest
from clips import two_boxes

from msdyn.cli.evaluate import main as evaluate
from msdyn.cli.preprocess import main as preprocess
from msdyn.errors import InputError
from msdyn.evaluate import evaluate_points, evaluate_views
from msdyn.fit import FitConfig, MotionConfig, fit_scene
from msdyn.geometry import project, transform_points
from msdyn.io import Dycheck, write_dycheck, write_dycheck_views
from msdyn.reading import read_json
from msdyn.scene import Keypoints, Scene, read_keypoints, write_keypoints
from msdyn.synthetic import write_truth
from msdyn.writing import write_json


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two boxes with exact truth and two held-out cameras, 8 frames of 64x48."""
    truth = two_boxes(8, 64, 48)
    return Scene(write_truth(truth, tmp_path_factory.mktemp("io") / "boxes"))


@pytest.fixture(scope="module")
def written(scene, tmp_path_factory):
    return write_dycheck(scene, tmp_path_factory.mktemp("io") / "boxes-dycheck")


@pytest.fixture
def copy(written, tmp_path):
    """A copy of the sequence, to be changed by a test."""
    return shutil.copytree(written, tmp_path / "boxes-dycheck")


def edit(path, **changes):
    write_json(path, {**read_json(path), **changes})


def blocks(array):
    """Return the means over blocks of 2x2 pixels."""
    height, width = array.shape[:2]
    return array.reshape(height // 2, 2, width // 2, 2, -1).astype(float).mean((1, 3))


def test_the_round_trip_is_exact(scene, written):
    read = Dycheck(written)
    assert len(read) == len(scene) and read.fps == scene.info.fps and read.size == scene.size
    assert read.depth_unit == "metres"
    # Translations are converted to positions and back: worst rounding error 2.3e-16.
    np.testing.assert_allclose(
        read.cameras.cam_from_world, scene.cameras.cam_from_world, atol=1e-14
    )
    np.testing.assert_allclose(read.cameras.intrinsics, scene.cameras.intrinsics, rtol=1e-15)
    for frame, name in enumerate(read.names):
        image, known = read.image(name)
        np.testing.assert_array_equal(image, scene.image(frame))
        assert known.all()
        np.testing.assert_array_equal(read.depth(name), scene.depth(frame))
    for (name, view), original in zip(read.views.items(), scene.views.values(), strict=True):
        assert name in ("camera1", "camera2") and list(view.names) == original.frames
        np.testing.assert_allclose(
            view.cameras.cam_from_world, original.cameras.cam_from_world, atol=1e-14
        )
        for frame, image_name in view.names.items():
            np.testing.assert_array_equal(read.image(image_name)[0], original.image(frame))
            np.testing.assert_array_equal(read.covisible(image_name), original.covisible(frame))


def test_views_of_the_sequence_equal_the_original(scene, written, tmp_path):
    """Views written from the sequence hold the same pixels, masks and cameras."""
    other = shutil.copytree(scene.directory, tmp_path / "again")
    shutil.rmtree(other / "views")
    report = write_dycheck_views(Dycheck(written), other)
    assert report["views"] == {"camera1": 8, "camera2": 8}
    assert report["images_without_covisibility"] == 0 and report["keypoints"] == 20
    again = Scene(other)
    for a, b in zip(again.views.values(), scene.views.values(), strict=True):
        np.testing.assert_allclose(a.cameras.cam_from_world, b.cameras.cam_from_world, atol=1e-14)
        for frame in range(len(scene)):
            np.testing.assert_array_equal(a.image(frame), b.image(frame))
            np.testing.assert_array_equal(a.covisible(frame), b.covisible(frame))


def test_half_size_is_the_mean_of_blocks(scene, written):
    half = Dycheck(written, 2)
    assert half.size == (24, 32)
    for frame, name in enumerate(half.names):
        image, _ = half.image(name)
        # Rounded to 8 bits.
        assert np.abs(image - blocks(scene.image(frame))).max() <= 0.5
        np.testing.assert_allclose(half.depth(name), blocks(scene.depth(frame))[..., 0], rtol=1e-6)
    np.testing.assert_allclose(
        half.cameras.intrinsics[:, :2], scene.cameras.intrinsics[:, :2] / 2, rtol=1e-15
    )
    view, original = half.views["camera2"], scene.views["right28"]
    for frame, name in view.names.items():
        expected = blocks(original.covisible(frame))[..., 0] == 1
        np.testing.assert_array_equal(half.covisible(name), expected)


def test_unknown_depth_stays_unknown(scene, tmp_path):
    """A pixel without depth makes its block at half size unknown, and no other."""
    holed = shutil.copytree(scene.directory, tmp_path / "holed")
    depth = scene.depth(3).copy()
    depth[10, 21] = 0
    np.save(holed / "depth" / "00003.npy", depth)
    path = write_dycheck(Scene(holed), tmp_path / "out")
    whole, half = Dycheck(path).depth("0_00003"), Dycheck(path, 2).depth("0_00003")
    assert np.argwhere(whole == 0).tolist() == [[10, 21]]
    assert np.argwhere(half == 0).tolist() == [[5, 10]]


def test_keypoints_are_projections_of_the_true_tracks(scene, written):
    """The first pixel's centre is at (0, 0) in the files and at (0.5, 0.5) in msdyn."""
    found = Dycheck(written).keypoints()
    assert found is not None and found.frames.tolist() == list(range(8))
    assert found.xy.shape == (8, 20, 2) and found.visible.mean() > 0.9
    tracks = next(iter(scene.views.values())).tracks3d
    assert tracks is not None
    xyz = transform_points(scene.cameras.cam_from_world, tracks.xyz.swapaxes(0, 1))
    xy = project(scene.cameras.intrinsics, xyz).swapaxes(0, 1)  # [N, T, 2]
    for point in range(20):
        visible = found.visible[:, point]
        distance = np.abs(xy[:, visible] - found.xy[visible, point]).max((1, 2))
        nearest = distance.argmin()
        assert distance[nearest] < 1e-9 and tracks.object[nearest] > 0
        np.testing.assert_array_equal(tracks.visible[nearest], visible)
    stored = json.loads((written / "keypoint/1x/train/0_00000.json").read_text())
    assert stored[0] == pytest.approx([*(found.xy[0, 0] - 0.5), 1.0])
    half = Dycheck(written, 2).keypoints()
    assert half is not None
    np.testing.assert_allclose(half.xy, found.xy / 2, atol=1e-12)


def test_keypoints_of_a_scene_are_written(scene, tmp_path):
    rng = np.random.default_rng(0)
    visible = rng.random((3, 5)) < 0.7
    xy = np.where(visible[..., None], rng.uniform(0, 48, (3, 5, 2)), 0)
    marked = shutil.copytree(scene.directory, tmp_path / "marked")
    write_keypoints(marked, Keypoints(np.array([1, 4, 6]), xy, visible))
    path = write_dycheck(Scene(marked), tmp_path / "out")
    for only_size in (None, 1, 2):
        if (
            only_size is not None
        ):  # keypoints of the other size are scaled if there are none of this size
            shutil.rmtree(path / "keypoint")
            shutil.copytree(tmp_path / "both" / f"{only_size}x", path / f"keypoint/{only_size}x")
        else:
            shutil.copytree(path / "keypoint", tmp_path / "both")
        for factor in (1, 2):
            found = Dycheck(path, factor).keypoints()
            assert found is not None and found.frames.tolist() == [1, 4, 6]
            np.testing.assert_array_equal(found.visible, visible)
            np.testing.assert_allclose(found.xy, xy / factor, atol=1e-12)


def write_by_hand(folder):
    """Write a sequence without msdyn: two frames, one held-out image, a rotation by 90 degrees."""
    (folder / "camera").mkdir(parents=True)
    rotation = [[0, 0, -1], [0, 1, 0], [1, 0, 0]]  # the camera looks along world x
    for name, position in (("0_00000", [1, 2, 3]), ("0_00001", [1, 2, 4]), ("2_00001", [0, 0, 0])):
        (folder / "camera" / f"{name}.json").write_text(
            json.dumps(
                {
                    "orientation": rotation, "position": position, "focal_length": 40.0,
                    "principal_point": [10.5, 8.0], "skew": 0, "pixel_aspect_ratio": 1.25,
                    "radial_distortion": [0, 0, 0], "tangential": [0, 0], "image_size": [20, 16],
                }
            )
        )  # fmt: skip
        (folder / "rgb" / "2x").mkdir(parents=True, exist_ok=True)
        rgba = np.full((8, 10, 4), 255, np.uint8)
        rgba[2, 3] = 0
        iio.imwrite(folder / "rgb" / "2x" / f"{name}.png", rgba)
    ids = ["0_00000", "0_00001", "2_00001"]
    (folder / "dataset.json").write_text(json.dumps({"ids": ids}))
    (folder / "metadata.json").write_text(
        json.dumps({n: {"warp_id": int(n[-1]), "camera_id": int(n[0])} for n in ids})
    )
    (folder / "extra.json").write_text(json.dumps({"fps": 30, "factor": 2}))
    (folder / "depth" / "2x").mkdir(parents=True)
    for name in ids[:2]:
        np.save(folder / "depth/2x" / f"{name}.npy", np.full((8, 10, 1), 1500, np.uint16))
    masks = folder / "flow3d_preprocessed" / "covisible" / "1x" / "val"
    masks.mkdir(parents=True)
    mask = np.zeros((16, 20), np.uint8)
    mask[:, 10:] = 1
    iio.imwrite(masks / "2_00001.png", mask)
    return folder


def test_a_sequence_made_by_hand(tmp_path):
    """No splits, the older name of distortion, non-square pixels, millimetres, resampled masks."""
    read = Dycheck(write_by_hand(tmp_path / "hand"), 2)
    assert read.names == ["0_00000", "0_00001"] and read.fps == 30 and read.size == (8, 10)
    assert list(read.views) == ["camera2"] and read.views["camera2"].names == {1: "2_00001"}
    assert len(read.views["camera2"].cameras) == 2  # its one camera serves both frames
    # 2 forward (x), 0.5 to the right (-z) and 0.25 down (y); at half size f = 20 and 25 px.
    point = np.array([[[1 + 2, 2 + 0.25, 3 - 0.5]]])
    in_camera = transform_points(read.cameras.cam_from_world[:1], point)
    np.testing.assert_allclose(in_camera, [[[0.5, 0.25, 2]]], atol=1e-12)
    xy = project(read.cameras.intrinsics[:1], in_camera)[0, 0]
    np.testing.assert_allclose(xy, [20 * 0.25 + 5.25, 25 * 0.125 + 4])
    assert read.depth_unit == "millimetres"
    np.testing.assert_array_equal(read.depth("0_00001"), np.full((8, 10), 1.5, np.float32))
    known = read.image("0_00000")[1]
    assert np.argwhere(~known).tolist() == [[2, 3]]
    covisible = read.covisible("2_00001")
    assert covisible is not None and covisible[:, 5:].all() and not covisible[:, :5].any()
    assert read.keypoints() is None


def test_frames_missing_from_a_view(copy):
    """In frames that the split omits, a view has no image, and the camera of the nearest image."""
    split = read_json(copy / "splits" / "val.json")
    rows = [
        r
        for r in zip(split["frame_names"], split["camera_ids"], split["time_ids"], strict=True)
        if r[0] not in ("1_00000", "1_00003")
    ]
    edit(
        copy / "splits/val.json",
        **dict(zip(split, map(list, zip(*rows, strict=True)), strict=True)),
    )
    for name in ("1_00000", "1_00003"):
        (copy / "rgb/1x" / f"{name}.png").unlink()
        (copy / "camera" / f"{name}.json").unlink()
    moved = [5.0, 6.0, 7.0]
    edit(copy / "camera" / "1_00001.json", position=moved)
    view = Dycheck(copy).views["camera1"]
    assert list(view.names) == [1, 2, 4, 5, 6, 7]
    np.testing.assert_allclose(view.cameras.centres[[0, 1]], [moved, moved])


def test_images_without_covisibility_are_counted(copy, scene, tmp_path):
    for factor in (1, 2):
        (copy / "covisible" / f"{factor}x" / "val" / "1_00002.png").unlink()
    target = shutil.copytree(scene.directory, tmp_path / "scene")
    shutil.rmtree(target / "views")
    sequence = Dycheck(copy)
    assert sequence.covisible("1_00002") is None
    assert write_dycheck_views(sequence, target)["images_without_covisibility"] == 1
    assert Scene(target).views["camera1"].covisible(2).all()


def test_gaps_and_fewer_frames(copy, scene):
    """Times with a gap are kept as they are; held-out images without a frame are left out."""
    split = read_json(copy / "splits/train.json")
    kept = [0, 1, 2, 5, 6, 7]
    edit(copy / "splits/train.json", **{key: [row[t] for t in kept] for key, row in split.items()
                                        if isinstance(row, list)})  # fmt: skip
    fps = scene.info.fps
    for limit, times in ((None, kept), (6, kept), (3, [0, 2, 7])):
        read = Dycheck(copy, max_frames=limit)
        assert read.names == [f"0_{t:05d}" for t in times]
        np.testing.assert_allclose(read.seconds, np.array(times) / fps)
        expected = {frame: f"1_{t:05d}" for frame, t in enumerate(times)}
        assert read.views["camera1"].names == expected
        pose = next(iter(scene.views.values())).cameras.cam_from_world
        np.testing.assert_allclose(read.views["camera1"].cameras.cam_from_world, pose[times],
                                   atol=1e-14)  # fmt: skip


def remove(name):
    return lambda d: (d / name).unlink()


def change(name, **values):
    return lambda d: edit(d / name, **values)


def save(name, array):
    return lambda d: np.save(d / name, array)


CAMERA = "camera/0_00002.json"
DEPTH = "depth/1x/0_00000.npy"


@pytest.mark.parametrize(
    "damage, message",
    [
        (remove("dataset.json"), "not a DyCheck sequence"),
        (remove("extra.json"), "extra.json: no such file"),
        (change("extra.json", fps=-1), "fps: expected a number > 0"),
        (remove(CAMERA), "0_00002.json: no such file"),
        (change(CAMERA, orientation=[[1, 0], [0, 1]]), "orientation: expected"),
        (change(CAMERA, orientation=np.ones((3, 3)).tolist()), "0_00002.json: cam_from_world"),
        (change(CAMERA, position="here"), "position: not a readable array of numbers"),
        (change(CAMERA, radial_distortion=[-9, 0, 0]), "can be inverted on"),
        (change(CAMERA, skew="much"), "skew: not a readable array of numbers"),
        (change(CAMERA, image_size=[60, 48]), "expected images of one size"),
        (lambda d: shutil.rmtree(d / "rgb/1x"), "expected a folder 1x, found 2x"),
        (remove("rgb/1x/0_00001.png"), "0_00001.png: no such file"),
        (lambda d: (d / "rgb/1x/0_00001.png").write_bytes(b"x"), "not a readable image"),
        (lambda d: shutil.copy(d / "rgb/2x/0_00001.png", d / "rgb/1x"), "expected 64x48"),
        (remove(DEPTH), "0_00000.npy: no such file"),
        (lambda d: (d / DEPTH).write_bytes(b"x"), "not a readable npy"),
        (save(DEPTH, np.full((48, 64), np.nan)), "NaN or infinite"),
        (save(DEPTH, np.ones((24, 32))), "expected 64x48"),
        (change("splits/train.json", time_ids=[0, 1, 2, 3, 3, 5, 6, 7]), "one image at each time"),
        (change("splits/train.json", time_ids=[0]), "of one length"),
        (change("splits/val.json", time_ids=list(range(8, 24))), "a time from 0 to 7"),
        (lambda d: (d / "keypoint/1x/train/0_00000.json").write_text("[[1]]"), "rows of x, y"),
    ],
)
def test_invalid_sequences_give_one_line_and_exit_code_2(copy, tmp_path, capsys, damage, message):
    damage(copy)
    arguments = ["--from", "dycheck", str(copy), "--masks", "none", "--out", str(tmp_path / "out")]
    assert preprocess(arguments) == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]


def test_scenes_that_cannot_be_written(scene, tmp_path):
    bare = shutil.copytree(
        scene.directory, tmp_path / "bare", ignore=shutil.ignore_patterns("views")
    )
    with pytest.raises(InputError, match="no held-out views"):
        write_dycheck(Scene(bare), tmp_path / "out")


@pytest.fixture(scope="module")
def imported(scene, written, tmp_path_factory):
    """The scene directory that the command makes from the sequence, with the true masks."""
    out = tmp_path_factory.mktemp("io") / "imported"
    arguments = ["--from", "dycheck", written, "--out", out]
    masks = ["--masks", "files", "--masks-path", scene.directory / "masks"]
    assert preprocess([str(a) for a in arguments + masks]) == 0
    return Scene(out)


def test_the_command_makes_a_scene_directory(imported, scene, written, capsys):
    np.testing.assert_array_equal(imported.images(), scene.images())
    np.testing.assert_array_equal(imported.depths(), scene.depths())
    np.testing.assert_array_equal(imported.masks(), scene.masks())
    np.testing.assert_allclose(
        imported.cameras.cam_from_world, scene.cameras.cam_from_world, atol=1e-14
    )
    assert imported.info.world_units == "metric"
    np.testing.assert_allclose(imported.info.timeline.seconds, scene.info.timeline.seconds)
    assert list(imported.views) == ["camera1", "camera2"]
    keypoints = read_keypoints(imported.directory)
    assert keypoints is not None and keypoints.xy.shape == (8, 20, 2)
    record = read_json(imported.directory / "dycheck.json")
    assert record["depth_unit"] == "metres" and record["factor"] == 1
    assert record["views"] == {"camera1": 8, "camera2": 8} and record["pixels_unseen"] == 0
    # A second run has nothing to update, so no stage runs.
    before = (imported.directory / "scene.json").read_text()
    arguments = ["--from", "dycheck", written, "--out", imported.directory, "--masks", "files"]
    masks = ["--masks-path", scene.directory / "masks"]
    assert preprocess([str(a) for a in arguments + masks]) == 0
    assert (imported.directory / "scene.json").read_text() == before
    assert "next: msdyn-fit" in capsys.readouterr().out


def test_pixels_that_the_sensor_did_not_record_are_ignored(copy, scene, tmp_path):
    for factor in (1, 2):
        path = copy / "rgb" / f"{factor}x" / "0_00003.png"
        image = iio.imread(path).copy()
        image[: 10 // factor] = 0
        iio.imwrite(path, image)
    out = tmp_path / "out"
    arguments = ["--from", "dycheck", copy, "--out", out, "--masks", "files"]
    masks = ["--masks-path", scene.directory / "masks"]
    assert preprocess([str(a) for a in arguments + masks]) == 0
    mask = Scene(out).mask(3)
    assert (mask[:10] == 255).all()
    np.testing.assert_array_equal(mask[10:], scene.mask(3)[10:])
    assert read_json(out / "dycheck.json")["pixels_unseen"] == pytest.approx(10 / 48 / 8, abs=1e-4)


def test_other_directories_are_not_overwritten(copy, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for out, message in ((tmp_path / "mine", "was not made by"), (copy, "the sequence itself")):
        assert preprocess(["--from", "dycheck", str(copy), "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["notes.txt"]


@pytest.mark.slow
def test_preprocess_fit_and_evaluate_by_the_protocol(imported, capsys):
    """The fit is short, to save time."""
    fit = FitConfig(
        epochs=4, static_gaussians=1500, moving_gaussians=800, motion=MotionConfig(prefit_steps=20),
        device="cpu",
    )  # fmt: skip
    sequence = fit_scene(imported, fit)
    assert evaluate([str(imported.directory), "--protocol", "dycheck", "--no-pictures"]) == 0
    figures = read_json(imported.directory / "fit" / "eval.json")
    summary = figures["dycheck"]
    assert summary["images"] == 16
    assert summary["mpsnr"] == evaluate_views(sequence, imported)["mpsnr"] > 12
    points = evaluate_points(sequence, imported)
    assert points is not None and points["source"] == "keypoints and depth"
    assert summary["pck_t"] == points["pck_t"] > 0.5
    assert summary["mlpips"] is None or summary["mlpips"] > 0
    assert figures["protocol"]["resolution"] == [64, 48]
    assert "keypoints and depth" in capsys.readouterr().out
