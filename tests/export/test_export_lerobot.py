"""An episode that is exported: columns as they were, what is added against the exact truth."""

import dataclasses
import shutil

import numpy as np
import pytest
from commands import exit_code
from scipy.ndimage import uniform_filter
from scipy.spatial.transform import Rotation

from msdyn.cli import export
from msdyn.errors import InputError
from msdyn.export.lerobot import export_episode
from msdyn.geometry import Cameras, invert_transforms, project, transform_points
from msdyn.io import (
    LeRobotDataset,
    column_values,
    depth_codes,
    read_depth_segment,
    read_video,
)
from msdyn.scene import RobotEpisode, Scene, stamp_stage, write_robot
from msdyn.sequence import save_sequence
from msdyn.synthetic import link_motions, render_truth, write_truth

CAMERA = "observation.images.front"
FRAMES = 8
LINKS = {1: "red", 2: "green"}


def robot_of(frames, episode=4):
    rng = np.random.default_rng(episode)
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": ["x", "y", "grip"]},
        "action": {"dtype": "float32", "shape": [2], "names": None},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        "note": {"dtype": "string", "shape": [1], "names": None},
    }
    columns = {
        "observation.state": rng.normal(size=(frames, 3)).astype(np.float32),
        "action": rng.normal(size=(frames, 2)).astype(np.float32),
        "next.done": np.arange(frames) == frames - 1,
        "note": np.array([f"n{k}" for k in range(frames)]),
        "timestamp": (np.arange(frames) / 24).astype(np.float32),
        "index": np.arange(100, 100 + frames),
    }
    tasks = ("push the boxes",) * frames
    return RobotEpisode("boxes", "0", episode, CAMERA, 24.0, tasks, features, columns, "arm")


def scene_of(truth, robot, folder, rows):
    write_truth(truth, folder)
    write_robot(folder, robot)
    options = {"source": "boxes", "source_frames": [*rows], "source_frame_count": len(robot)}
    stamp_stage(folder, "frames", backend="video", options=options, input_hash="0", seconds=0.0)
    return Scene(folder)


@pytest.fixture(scope="session")
def exported(truth, exact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lerobot")
    robot = robot_of(FRAMES)
    scene = scene_of(truth, robot, folder / "scene", range(FRAMES))
    export_episode(exact, scene, folder / "out", views=2, degrees=8, tracks=20)
    dataset = LeRobotDataset(folder / "out")
    return dataset, dataset.frames(dataset.episode(0)), robot, scene


def images_of(dataset, key, episode=0):
    segment = dataset.video_segment(dataset.episode(episode), key)
    return np.stack(list(read_video(segment.path, segment=segment.window)))


def test_columns_of_the_episode_are_untouched(exported, truth):
    dataset, table, robot, _ = exported
    for name in ("observation.state", "action", "next.done", "note"):
        values = column_values(table, name)
        assert values.tobytes() == robot.columns[name].tobytes()
        assert dataset.raw_info["features"][name] == robot.features[name]
    seconds = column_values(table, "timestamp")
    assert seconds.tobytes() == robot.columns["timestamp"].tobytes()
    assert column_values(table, "index").tolist() == list(range(FRAMES))
    assert dataset.tasks == {0: "push the boxes"} and dataset.info.robot_type == "arm"
    error = np.abs(images_of(dataset, CAMERA).astype(int) - truth.clip.images)
    assert error.mean() < 9  # 8.3: chroma has half the resolution


def test_object_poses_are_those_of_the_truth(exported, truth):
    _, table, _, _ = exported
    for label, motion in link_motions(truth.spec).items():
        name = {link: k for k, link in LINKS.items()}[label]
        values = column_values(table, f"observation.object_pose.object_{name}").astype(np.float64)
        poses = np.tile(np.eye(4), (FRAMES, 1, 1))
        poses[:, :3, :3] = Rotation.from_quat(values[:, 3:]).as_matrix()
        poses[:, :3, 3] = values[:, :3]
        assert poses @ invert_transforms(poses[:1]) == pytest.approx(motion, abs=1e-4)


def test_tracks_are_those_of_the_truth(exported, truth):
    dataset, table, _, _ = exported
    xyz = column_values(table, "observation.tracks.xyz").astype(np.float64)
    labels = column_values(table, "observation.tracks.object")
    visible = column_values(table, "observation.tracks.visible")
    assert xyz.shape == (FRAMES, 20, 3) and (labels == labels[0]).all()
    assert set(labels[0].tolist()) == {0, 1, 2} and visible.mean() > 0.6
    motions = link_motions(truth.spec)
    errors = []
    for index, label in enumerate(labels[0]):
        expected = np.broadcast_to(xyz[0, index], (FRAMES, 3))
        if label:
            motion = motions[LINKS[label]]
            expected = (motion @ np.append(xyz[0, index], 1))[:, :3]
        errors.append(np.linalg.norm(xyz[:, index] - expected, axis=1).max())
    # The motion is that of the blended centres of the Gaussians, which are up to 1 cm away.
    assert np.median(errors) < 0.005 and max(errors) < 0.05
    cameras = truth.spec.cameras
    seen = transform_points(cameras.cam_from_world, xyz)
    xy = project(cameras.intrinsics, seen)
    for frame, index in np.argwhere(visible):
        column, row = xy[frame, index].astype(int)
        around = truth.clip.depths[
            frame, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2
        ]
        assert np.abs(around - seen[frame, index, 2]).min() < 0.06


def test_depth_and_masks_are_those_of_the_truth(exported, truth):
    dataset, _, _, _ = exported
    name = f"{CAMERA}_depth"
    codes = depth_codes(dataset.info.features[name], name)
    segment = dataset.video_segment(dataset.episode(0), name)
    depth = np.stack(list(read_depth_segment(segment, codes)))
    # Gaussians of all frames overlap at grazing angles: .014 m.
    assert np.median(np.abs(depth - truth.clip.depths)) < 0.02
    assert dataset.info.features[name].info["world_units"] == "metric"
    for label in LINKS:
        mask = images_of(dataset, f"observation.masks.front.object_{label}")
        assert set(np.unique(mask)) == {0, 255}
        own, true = mask[..., 0] > 128, truth.clip.masks == label
        assert (own & true).sum() / (own | true).sum() > 0.85


def smooth(images):
    """Return images averaged over 3x3 pixels: the textures are finer than a pixel."""
    return uniform_filter(images.astype(float), (0, 3, 3, 0))


def test_novel_views_are_those_of_their_cameras(exported, truth):
    """Each view, rendered by tracing rays through the true scene with the exported cameras."""
    dataset, table, _, _ = exported
    for view in ("novel_0", "novel_1"):
        k = column_values(table, f"observation.intrinsics.{view}").astype(np.float64)
        poses = column_values(table, f"observation.extrinsics.{view}").astype(np.float64)
        cameras = Cameras(k, invert_transforms(poses), 96, 72)
        spec = dataclasses.replace(truth.spec, cameras=cameras, views={})
        expected = render_truth(spec, samples=1).clip
        images = images_of(dataset, f"observation.images.{view}")
        supported = images_of(dataset, f"observation.masks.{view}.supported")[..., 0]
        assert set(np.unique(supported)) <= {0, 255}
        share = column_values(table, f"observation.supported.{view}")
        assert share == pytest.approx((supported > 128).mean((1, 2)), abs=1e-6)
        assert 0.6 < share.min() and share.max() <= 1
        known = supported > 128
        error = np.abs(smooth(images) - smooth(expected.images)).mean(-1)
        elsewhere = np.abs(smooth(images) - smooth(truth.clip.images)).mean(-1)
        # 16 grey levels; 84 where it is not supported, 29 beside the images of the input camera.
        assert error[known].mean() < 18
        assert error[known].mean() < 0.65 * elsewhere[known].mean()
        assert error[known].mean() < 0.5 * error[~known].mean()
        angle = np.arccos((poses[:, :3, 2] * truth.spec.cameras.cam_from_world[:, 2, :3]).sum(1))
        assert np.rad2deg(angle) == pytest.approx(np.full(FRAMES, 8), abs=1.5)
    centres = column_values(table, "observation.extrinsics.front")[:, :3, 3]
    assert centres == pytest.approx(truth.spec.cameras.centres, abs=1e-5)


def test_episodes_of_several_scenes_in_one_dataset(exported, truth, exact, tmp_path):
    dataset, _, _, scene = exported
    out = shutil.copytree(dataset.root, tmp_path / "out")
    with pytest.raises(InputError, match="holds a dataset; --append"):
        export_episode(exact, scene, out, views=2, tracks=20)
    other = robot_of(FRAMES, episode=5)
    second = scene_of(truth, other, tmp_path / "second", range(FRAMES))
    export_episode(exact, second, out, views=2, tracks=20, append=True)
    grown = LeRobotDataset(out)
    assert len(grown) == 2
    table = grown.frames(grown.episode(1))
    assert column_values(table, "action").tobytes() == other.columns["action"].tobytes()
    assert (column_values(table, "episode_index") == 1).all()
    with pytest.raises(InputError, match="other features"):
        export_episode(exact, second, out, views=1, tracks=20, append=True)


def test_a_given_number_of_objects(exported, truth, exact, tmp_path, caplog):
    """Episodes of more and of fewer objects fit into one dataset."""
    _, table, _, scene = exported
    out = tmp_path / "out"
    for objects in (3, 1):
        export_episode(exact, scene, tmp_path / f"of-{objects}", views=0, tracks=0, objects=objects)
    assert "objects 2 are left out" in caplog.text
    export_episode(exact, scene, out, views=0, tracks=0, objects=3)
    export_episode(exact, scene, out, views=0, tracks=0, objects=3, append=True)
    assert len(LeRobotDataset(out)) == 2
    dataset = LeRobotDataset(tmp_path / "of-3")
    rows = dataset.frames(dataset.episode(0))
    present = column_values(rows, "observation.objects_present")
    assert present.tolist() == [[1, 1, 0]] * FRAMES
    for label in (1, 2):
        name = f"observation.object_pose.object_{label}"
        assert (column_values(rows, name) == column_values(table, name)).all()
    nothing = column_values(rows, "observation.object_pose.object_3")
    assert nothing.tolist() == [[0, 0, 0, 0, 0, 0, 1]] * FRAMES
    assert images_of(dataset, "observation.masks.front.object_3").max() < 20
    one = LeRobotDataset(tmp_path / "of-1")
    assert "observation.object_pose.object_2" not in one.info.features


def test_rows_between_the_frames_of_a_thinned_scene(truth, exact, tmp_path):
    """Of a scene of every second frame, poses are interpolated, and the video is left out."""
    rows = 2 * FRAMES - 1
    robot = robot_of(rows)
    scene = scene_of(truth, robot, tmp_path / "scene", range(0, rows, 2))
    export_episode(exact, scene, tmp_path / "out", views=0, tracks=0)
    dataset = LeRobotDataset(tmp_path / "out")
    table = dataset.frames(dataset.episode(0))
    assert dataset.episode(0).length == rows and CAMERA not in dataset.info.features
    centres = column_values(table, "observation.extrinsics.front")[:, :3, 3]
    assert centres[::2] == pytest.approx(truth.spec.cameras.centres, abs=1e-5)
    middle = (centres[:-2:2] + centres[2::2]) / 2
    assert centres[1::2] == pytest.approx(middle, abs=1e-5)
    assert not [n for n in dataset.info.features if "tracks" in n or "novel" in n]


def test_scenes_that_are_no_episode(truth, exact, tmp_path):
    robot = robot_of(FRAMES + 2)
    scene = scene_of(truth, robot, tmp_path / "part", range(1, FRAMES + 1))
    with pytest.raises(InputError, match="all 10 rows of the episode, got rows 1 to 8"):
        export_episode(exact, scene, tmp_path / "out")
    (tmp_path / "part/robot.json").unlink()
    with pytest.raises(InputError, match="expected the scene of an episode"):
        export_episode(exact, scene, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(truth, exact, tmp_path, capsys):
    scene = scene_of(truth, robot_of(FRAMES), tmp_path / "scene", range(FRAMES)).directory
    save_sequence(exact, scene / "fit" / "sequence.safetensors")
    out = tmp_path / "out"
    argv = [str(scene), "--format", "lerobot", "--out", str(out), "--views", "0"]
    argv += ["--track-count", "4", "--device", "cpu"]
    assert export.main(argv) == 0
    assert capsys.readouterr().out.startswith(f"{out} (")
    assert len(LeRobotDataset(out)) == 1
    assert export.main(argv) == 2
    assert "--append" in capsys.readouterr().err
    assert export.main([*argv, "--append"]) == 0
    assert len(LeRobotDataset(out)) == 2
    for more, text in [(["--fps", "3"], "--fps"), (["--frame", "1"], "--frame")]:
        assert exit_code(export.main, [*argv, *more]) == 2
        assert text in capsys.readouterr().err
    assert exit_code(export.main, [str(scene), "--append"]) == 2
    single = [str(scene / "fit/sequence.safetensors"), *argv[1:]]
    assert export.main(single) == 2
    assert "scene directory of an episode" in capsys.readouterr().err
