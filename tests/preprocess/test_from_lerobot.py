"""An episode of a LeRobotDataset as a scene directory: frames, cameras, depth, states, actions."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robots import edit_info

from msdyn.cli.preprocess import main
from msdyn.errors import InputError
from msdyn.geometry import invert_transforms
from msdyn.io import LeRobotDataset, column_values, find_calibration, image_size
from msdyn.io.lerobot_layout import Feature
from msdyn.preprocess.importers.lerobot import preprocess_lerobot
from msdyn.preprocess.lerobot_config import LerobotConfig
from msdyn.scene import Scene, read_robot
from msdyn.synthetic import make_manipulation, render_truth, without_views, write_manipulations

CAMERA = "observation.images.front"
FRAMES, LONGER = 8, 10


@pytest.fixture(scope="session")
def robots(tmp_path_factory):
    """A dataset of two episodes, and what they are made of."""
    episodes = []
    for seed, frames in ((1, FRAMES), (2, LONGER)):
        episode = without_views(make_manipulation(frames=frames, width=64, height=48, seed=seed))
        episodes.append((episode, render_truth(episode.spec, samples=1)))
    root = tmp_path_factory.mktemp("robots") / "pick"
    return write_manipulations(root, episodes), episodes


@pytest.fixture(scope="session")
def imported(robots, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "scene"
    config = LerobotConfig(
        video=robots[0], kind="lerobot", episode=1, out=out, masks="none", preset="offline"
    )
    return preprocess_lerobot(config)


@pytest.fixture
def copy(robots, tmp_path):
    shutil.copytree(robots[0], tmp_path / "pick")
    return tmp_path / "pick"


def rename_column(root, old, new):
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.rename_columns([new if n == old else n for n in table.column_names]), path)

    def change(info):
        info["features"][new] = info["features"].pop(old)

    edit_info(root, change)


def arguments(root, out, *more):
    return ["--from", "lerobot", str(root), "--episode", "1", "--out", str(out),
            "--masks", "none", "--preset", "offline", *more]  # fmt: skip


def test_frames_are_those_of_the_episode(robots, imported):
    truth = robots[1][1][1]
    assert len(imported) == LONGER and imported.size == (48, 64)
    assert imported.info.fps == pytest.approx(10)
    assert imported.info.timeline.seconds == pytest.approx(np.arange(LONGER) / 10, abs=1e-3)
    # A frame is nearer to its own image than to those beside it.
    for k in range(LONGER):
        error = [np.abs(imported.image(k).astype(int) - i).mean() for i in truth.clip.images]
        assert int(np.argmin(error)) == k and error[k] < 12


def test_cameras_and_depth_are_those_of_the_dataset(robots, imported):
    episode, truth = robots[1][1]
    assert imported.info.world_units == "metric"
    assert imported.cameras.cam_from_world == pytest.approx(
        episode.spec.cameras.cam_from_world, abs=1e-5
    )
    assert imported.cameras.intrinsics == pytest.approx(episode.spec.cameras.intrinsics, abs=1e-4)
    assert np.abs(imported.depths() - truth.clip.depths).max() < 0.002
    stages = imported.info.stages
    assert {stages[s]["backend"] for s in ("cameras", "depth")} == {"files"}
    assert stages["frames"]["options"]["source"] == f"pick episode 1 {CAMERA}"


def test_states_and_actions_are_carried_along(robots, imported):
    episode = robots[1][1][0]
    robot = read_robot(imported.directory)
    assert robot.state.tobytes() == episode.state.tobytes()
    assert robot.action.tobytes() == episode.action.tobytes()
    assert robot.names("action")[-1] == "opening"
    assert robot.seconds == pytest.approx(np.arange(LONGER) / 10)
    assert set(robot.tasks) == {episode.task} and len(robot) == LONGER
    assert (robot.dataset, robot.episode, robot.camera) == ("pick", 1, CAMERA)
    assert (robot.fps, robot.robot_type) == (10, "parallel_jaw")
    assert robot.rows_of(imported).tolist() == list(range(LONGER))
    assert "used" in robot.found[0] and "world_from_cam" in robot.found[0]
    with pytest.raises(InputError, match="expected one of observation.state"):
        robot.column("effort")


def test_the_command_imports_and_resumes(robots, tmp_path, capsys, caplog):
    out = tmp_path / "scene"
    thinned = arguments(robots[0], out, "--max-frames", "4", "--accept-poor")
    assert main(thinned) == 0
    assert "next: msdyn-fit" in capsys.readouterr().out
    assert "extrinsics of observation.extrinsics.front, read as world_from_cam: used" in caplog.text
    scene = Scene(out)
    rows = read_robot(out).rows_of(scene)
    assert len(scene) == 4 and rows.tolist() == [0, 3, 6, 9]
    expected = robots[1][1][0].spec.cameras.cam_from_world[rows]
    assert scene.cameras.cam_from_world == pytest.approx(expected, abs=1e-5)
    written = (out / "images").stat().st_mtime_ns
    assert main(thinned) == 0
    assert (out / "images").stat().st_mtime_ns == written
    other = [a if a != "1" else "0" for a in thinned]
    assert main(other) == 2
    assert "holds the scene of pick episode 1" in capsys.readouterr().err
    assert read_robot(out).episode == 1


def test_parts_of_an_episode(robots, tmp_path):
    assert main(arguments(robots[0], tmp_path / "s", "--start", "0.3", "--end", "0.7")) == 0
    scene = Scene(tmp_path / "s")
    assert read_robot(tmp_path / "s").rows_of(scene).tolist() == [3, 4, 5, 6, 7]


def one_error(argv, capsys):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


def test_wrong_choices_are_one_line(robots, copy, tmp_path, capsys):
    out = tmp_path / "s"
    argv = arguments(robots[0], out)
    argv[4] = "9"
    assert "episode: expected 0 to 1, got 9" in one_error(argv, capsys)
    err = one_error(arguments(robots[0], out, "--camera", "wrist"), capsys)
    assert f"--camera: expected one of {CAMERA}, got 'wrist'" in err
    err = one_error(arguments(tmp_path / "none", out), capsys)
    assert "no such file or folder" in err
    (tmp_path / "empty").mkdir()
    assert "meta/info.json: no such file" in one_error(arguments(tmp_path / "empty", out), capsys)
    edit_info(copy, lambda i: i["features"].update(side=i["features"][CAMERA]))
    err = one_error(arguments(copy, out), capsys)
    assert f"--camera: expected one of {CAMERA}, side, got none" in err
    err = one_error(arguments(copy, copy / "scene", "--camera", CAMERA), capsys)
    assert "is in the dataset itself" in err
    for name in (CAMERA, "side"):
        edit_info(copy, lambda i, name=name: i["features"][name].update(dtype="image"))
    assert "convert them with lerobot-edit-dataset" in one_error(arguments(copy, out), capsys)
    assert not out.exists()


def test_cameras_of_the_user_go_before_those_of_the_dataset(robots, tmp_path):
    episode = robots[1][1][0]
    from msdyn.scene import write_cameras

    shifted = episode.spec.cameras.cam_from_world.copy()
    shifted[:, 2, 3] += 0.5
    cameras = type(episode.spec.cameras)(episode.spec.cameras.intrinsics, shifted, 64, 48)
    write_cameras(tmp_path / "cameras.json", cameras)
    more = ["--cameras", "files", "--cameras-path", str(tmp_path / "cameras.json")]
    main(arguments(robots[0], tmp_path / "s", *more, "--accept-poor"))
    assert Scene(tmp_path / "s").cameras.cam_from_world == pytest.approx(shifted, abs=1e-9)


def test_depth_that_is_not_defined_is_estimated(copy, tmp_path, caplog):
    name = f"{CAMERA}_depth"
    edit_info(copy, lambda i: i["features"][name]["info"].pop("video.use_log"))
    main(arguments(copy, tmp_path / "s", "--accept-poor"))
    assert "is not read, and estimated" in caplog.text and "video.use_log" in caplog.text
    assert Scene(tmp_path / "s").info.stages["depth"]["backend"] != "files"


@pytest.mark.parametrize(
    ("intrinsics", "extrinsics"),
    [
        ("observation.intrinsic.front", "observation.extrinsic.front"),
        ("observation.camera_intrinsics.front", "observation.camera_extrinsics.front"),
        ("observation.camera_intrinsics", "observation.camera_extrinsics_world"),
        (f"{CAMERA}.intrinsics", f"{CAMERA}.extrinsics"),
    ],
)
def test_names_of_cameras(robots, copy, intrinsics, extrinsics):
    rename_column(copy, "observation.intrinsics.front", intrinsics)
    rename_column(copy, "observation.extrinsics.front", extrinsics)
    dataset = LeRobotDataset(copy)
    found = find_calibration(dataset, dataset.frames(dataset.episode(0)), CAMERA)
    cameras = robots[1][0][0].spec.cameras
    assert found.intrinsics == pytest.approx(cameras.intrinsics, abs=1e-4)
    assert found.cam_from_world == pytest.approx(cameras.cam_from_world, abs=1e-5)


@pytest.mark.parametrize("shape", [(4, 4), (3, 4), (16,), (12,)])
@pytest.mark.parametrize("inverse", [False, True])
def test_shapes_and_conventions_of_cameras(robots, shape, inverse):
    cameras = robots[1][0][0].spec.cameras
    poses = cameras.cam_from_world if inverse else invert_transforms(cameras.cam_from_world)
    values = poses.reshape(-1, 16)[:, : int(np.prod(shape))]
    k = cameras.intrinsics
    columns = {
        "observation.extrinsics.front": list(values.reshape(-1, *shape).tolist()),
        "observation.intrinsics.front": k[:, [0, 1, 0, 1], [0, 1, 2, 2]].tolist(),
    }
    dataset = LeRobotDataset(robots[0])
    info = {"convention": "cam_from_world"} if inverse else None
    dataset.info.features["observation.extrinsics.front"] = Feature("float32", shape, None, info)
    found = find_calibration(dataset, pa.table(columns), CAMERA)
    assert found.cam_from_world == pytest.approx(cameras.cam_from_world, abs=1e-9)
    assert found.intrinsics == pytest.approx(k, abs=1e-9)


def test_what_is_no_camera_is_one_line(robots):
    dataset = LeRobotDataset(robots[0])
    table = dataset.frames(dataset.episode(0))
    for name, values, match in [
        ("observation.extrinsics.front", np.zeros((8, 3)), "expected poses of shape"),
        ("observation.extrinsics.front", np.zeros((8, 4, 4)), "expected rotations"),
        ("observation.extrinsics.front", np.full((8, 4, 4), np.nan), "expected finite"),
        ("observation.intrinsics.front", np.zeros((8, 2, 2)), "expected intrinsics of shape"),
    ]:
        column = pa.array(values.tolist())
        changed = table.set_column(table.column_names.index(name), name, column)
        with pytest.raises(InputError, match=match) as caught:
            find_calibration(dataset, changed, CAMERA)
        assert name in str(caught.value)
    bad = find_calibration(dataset, table, CAMERA)
    bad.intrinsics[:, 0, 0] *= -1
    with pytest.raises(InputError, match="pick: focal length"):
        bad.cameras((48, 64), "pick")


def test_sizes_of_images():
    assert image_size(Feature("video", (3, 48, 64), ["channels", "height", "width"])) == (48, 64)
    assert image_size(Feature("video", (48, 64, 3), ["height", "width", "channels"])) == (48, 64)
    assert image_size(Feature("video", (3, 48, 64))) == (48, 64)
    assert image_size(Feature("video", (48, 64, 1))) == (48, 64)
    with pytest.raises(InputError, match="shape: expected height"):
        image_size(Feature("video", (48, 64)))


def test_a_video_of_other_frames_than_the_table(copy, tmp_path, capsys):
    path = copy / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[1][f"videos/{CAMERA}/from_timestamp"] = 1.2
    pq.write_table(pa.Table.from_pylist(rows), path)
    err = one_error(arguments(copy, tmp_path / "s"), capsys)
    assert "expected 10 frames from 1.150 to 2.150 s, got 6" in err


@pytest.mark.parametrize("name", ["robot.json", "robot.npz"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": "msdyn-robot"}'])
def test_damaged_files_of_the_robot(imported, tmp_path, name, content):
    for file in ("robot.json", "robot.npz"):
        shutil.copy(imported.directory / file, tmp_path / file)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        read_robot(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_scene_without_a_robot(tmp_path):
    assert read_robot(tmp_path) is None


def test_texts_and_empty_names(tmp_path):
    from msdyn.scene import RobotEpisode, write_robot

    columns = {
        "path": np.arange(2),
        "note": np.array(["a", "b\n"]),
        "done": np.array([True, False]),
    }
    robot = RobotEpisode("d", "0", 0, "c", 10.0, ("t", "t"), {}, columns)
    write_robot(tmp_path, robot)
    read = read_robot(tmp_path)
    for name, values in columns.items():
        assert read.column(name).dtype == values.dtype and (read.column(name) == values).all()
    assert column_values(pa.table({"a": ["x", "x"]}), "a").tolist() == ["x", "x"]
