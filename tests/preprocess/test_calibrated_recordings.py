"""Calibrated recordings of several cameras, from their files to scene directories."""

import functools
import json

import numpy as np
import pytest
from multi_camera_writers import (
    ball_at,
    cloud,
    draw_ball,
    shots_of,
    static_rig,
    write_blender,
    write_camera_folder,
    write_panoptic,
)

from msdyn.cli.preprocess import main
from msdyn.geometry import Cameras, look_at, transform_points, world_points_from_depth
from msdyn.io import ScenePoints
from msdyn.preprocess.cameras.given_points import observed_points
from msdyn.preprocess.multiview.point_visibility import seen_points
from msdyn.preprocess.multiview.soft_hull import meeting_point, shell_depth
from msdyn.reading import load_npz
from msdyn.scene import STATIC, Scene

FRAMES, SIZE = 8, (60, 80)


@functools.cache
def truth():
    return static_rig("two-boxes", FRAMES, SIZE[1], SIZE[0])


def run(*arguments):
    return main([str(argument) for argument in arguments])


def in_input_image(shot, frame):
    """Return which pixels of a held-out image show points within the image of the input camera."""
    local = transform_points(
        truth().clip.cameras.cam_from_world[frame],
        world_points_from_depth(shot.depths[frame], shot.cameras[frame]).reshape(-1, 3),
    )
    xy = local @ truth().clip.cameras.intrinsics[frame].T
    xy = xy[:, :2] / xy[:, 2:]
    inside = (local[:, 2] > 0) & (xy >= 0).all(1) & (xy < (SIZE[1], SIZE[0])).all(1)
    return inside.reshape(SIZE)


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panoptic")
    write_panoptic(folder / "boxes", truth())
    out = folder / "scene"
    options = ("--depth", "fused", "--accept-poor", "--long-side", 80)
    code = run("--from", "panoptic", folder / "boxes", "--out", out, *options)
    return code, folder / "boxes", Scene(out)


def test_a_static_camera_gets_depth_of_the_points(panoptic):
    code, _, scene = panoptic
    shot = truth().clip
    assert code == 0
    np.testing.assert_allclose(scene.cameras.cam_from_world, shot.cameras.cam_from_world, atol=1e-6)
    np.testing.assert_array_equal(scene.images(), shot.images)
    np.testing.assert_array_equal(scene.masks() > 0, shot.masks > 0)
    error = np.abs(np.log(scene.depths() / shot.depths))
    static = shot.masks == 0
    # The worst frame: median .003, 90 % .06 (AVX-512 CPU).
    assert np.median(error[static]) < 0.01 and np.percentile(error[static], 90) < 0.12
    verdict = scene.info.stages["cameras"]["quality"]["verdict"]
    assert verdict["grade"] == "usable" and "depth is that of points" in verdict["reason"]


def test_moving_points_are_those_of_the_first_frame_of_the_recording(panoptic):
    _, folder, scene = panoptic
    moving = cloud(truth())[:, 6] > 0
    kept = load_npz(scene.directory / ".cache/points.npz", ("xyz",))["xyz"]
    assert np.isin(cloud(truth())[moving, 0], kept[:, 0]).all()  # also those of its back
    assert scene.info.stages["depth"]["quality"]["objects"]["1"]["placed_by"] == "tracks"
    later = folder.parent / "later"
    stages = [("--only", stage) for stage in ("frames", "tracks", "masks", "cameras")]
    options = ("--start", 0.06, "--accept-poor", *(word for pair in stages for word in pair))
    assert run("--from", "panoptic", folder, "--out", later, *options) == 0
    kept = load_npz(later / ".cache/points.npz", ("xyz",))["xyz"]
    assert len(kept) and not np.isin(cloud(truth())[moving, 0], kept[:, 0]).any()


def test_held_out_cameras(panoptic):
    _, _, scene = panoptic
    shots = shots_of(truth())
    assert list(scene.views) == ["10", "20"]
    for name, view in scene.views.items():
        shot = shots[name]
        assert view.frames == list(range(FRAMES)) and view.times == {}
        np.testing.assert_allclose(view.cameras.cam_from_world, shot.cameras.cam_from_world,
                                   atol=1e-6)  # fmt: skip
        for frame in (0, 5):
            np.testing.assert_array_equal(view.image(frame), shot.images[frame])
            found, static = view.covisible(frame), shot.masks[frame] == 0
            assert found[~static].all()
            # Truth counts pixels that are visible in most frames; points are 3 px apart.
            assert found[shot.covisible[frame] & static].mean() > 0.95
            # The room has next to nothing static that occludes: .907, .928, .945, .956.
            assert (found == in_input_image(shot, frame))[static].mean() > 0.88
    recording = json.loads((scene.directory / "recording.json").read_text())
    assert recording["input_camera"] == "3" and recording["views"] == {"10": FRAMES, "20": FRAMES}
    assert recording["covisibility"] == "from static points of the recording, foreground counts"


def test_depth_of_both_cameras_gives_covisibility(tmp_path):
    folder = write_camera_folder(tmp_path / "rig", truth(), depth=True, axes="opengl", key="c2w")
    out = tmp_path / "scene"
    options = ("--max-frames", 4, "--long-side", 64, "--accept-poor")
    assert run("--from", "recording", folder, "--out", out, *options) == 0
    scene, shot = Scene(out), truth().views["right28"]
    assert scene.info.world_units == "metric" and list(scene.views) == ["20"]
    assert scene.size == (48, 64) and scene.views["20"].cameras.width == 64
    kept = scene.info.stages["frames"]["options"]["source_frames"]
    for frame, row in enumerate(kept):
        found = scene.views["20"].covisible(frame)
        y, x = ((np.arange(n) + 0.5) * 1.25 for n in (48, 64))
        at = np.ix_(y.astype(int), x.astype(int))
        static = shot.masks[row][at] == 0
        assert found[shot.covisible[row][at] & static].mean() > 0.95
        assert found[~in_input_image(shot, row)[at]].mean() < 0.05  # pixels at the border
    recording = json.loads((out / "recording.json").read_text())
    assert recording["covisibility"] == "from the depth of both cameras"


def test_without_geometry_all_pixels_count(tmp_path):
    folder = write_camera_folder(tmp_path / "rig", truth(), masks=False)
    options = ("--only", "frames", "--held-out", "10")
    assert run("--from", "recording", folder, "--out", tmp_path / "scene", *options) == 0
    scene = Scene(tmp_path / "scene")
    assert list(scene.views) == ["10"] and scene.views["10"].covisible(0).all()
    recording = json.loads((scene.directory / "recording.json").read_text())
    assert recording["covisibility"] == "none: all pixels count"


def test_a_camera_that_jumps(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("msdyn.preprocess.multiview.soft_hull.VOXELS", 48)
    write_blender(tmp_path / "ball", 24, 5, (48, 48))
    out = tmp_path / "scene"
    assert run("--from", "blender", tmp_path / "ball", "--out", out, "--accept-poor") == 0
    assert "depth and tracks come from the silhouettes" in caplog.text
    scene = Scene(out)
    poses = np.linalg.inv(scene.cameras.cam_from_world @ np.eye(4)) @ np.diag([1, -1, -1, 1.0])
    for frame in (3, 12, 20):
        image, depth = draw_ball(poses[frame], 0.69, frame / 23, 48, 48)
        alpha = image[..., 3:] / 255
        expected = image[..., :3] * alpha + 255 * (1 - alpha)
        np.testing.assert_allclose(scene.image(frame), expected, atol=1)
        ball = image[..., 3] > 0
        np.testing.assert_array_equal(scene.mask(frame) > 0, ball)
        off = np.abs(scene.depth(frame)[ball] - depth[ball])
        assert np.median(off) < 0.1  # of a ball of radius .7, 4 away, that moves
        assert (scene.depth(frame)[~ball] > 8).all()
    assert "white_share" not in scene.info.stages["frames"]["options"]  # not over-exposed
    trust = {name: record["quality"].get("trust") for name, record in scene.info.stages.items()}
    assert {k: v for k, v in trust.items() if v} == {"tracks": 0.05, "depth": 0.2}
    tracks = scene.tracks
    assert len(tracks) > 500 and (tracks.object == 1).all()
    view = scene.views["test"]
    assert len(view.frames) == 5
    times = [view.times.get(frame, frame / 23) for frame in view.frames]
    np.testing.assert_allclose(times, np.linspace(0, 1, 5), atol=1e-9)
    assert view.times  # of the images between the frames


def test_the_shell_is_one_sphere():
    eye = np.array([[4.0, 0, 1], [0, 4, 1], [-3, 0, 2]])
    pose = np.stack([look_at(e, np.zeros(3), np.array([0, 0, 1.0])) for e in eye])
    cameras = Cameras.pinhole(40, 32, 24, pose)
    centre = meeting_point(cameras)
    np.testing.assert_allclose(centre, 0, atol=1e-9)
    for frame in range(3):
        depth = shell_depth(cameras, frame, centre)
        y, x = 5, 20
        local = np.linalg.inv(cameras.intrinsics[frame]) @ [x + 0.5, y + 0.5, 1] * depth[y, x]
        world = cameras.world_from_cam[frame] @ np.append(local, 1)
        assert np.linalg.norm(world[:3]) == pytest.approx(2 * np.sqrt(17), rel=1e-5)


def test_points_behind_a_surface_are_not_seen():
    rng = np.random.default_rng(0)
    near, far = rng.uniform(-1, 1, (2, 4000, 2))
    wall = np.concatenate([np.c_[0.4 * near, np.full(4000, 2.0)], np.c_[3 * far, np.full(4000, 4)]])
    camera = Cameras.pinhole(60, 80, 60, np.eye(4))
    seen = seen_points(wall, camera)
    behind = np.abs(wall[:, :2]).max(1) < 0.35 * 2
    behind[:4000] = False
    assert np.isin(np.arange(4000), seen.index).mean() > 0.98
    assert not np.isin(np.flatnonzero(behind), seen.index).any()


def test_moving_points_are_shown_in_the_first_frame_only():
    data = cloud(truth())
    points = ScenePoints(data[:, :3], data[:, 6] > 0)
    masks = list(truth().clip.masks)
    shown = observed_points(points, truth().clip.cameras, masks)
    shown.check(FRAMES)
    moving = points.moving[[np.flatnonzero((points.xyz == p).all(1))[0] for p in shown.xyz]]
    assert moving[shown.point][shown.frame == 0].any()
    assert not moving[shown.point][shown.frame > 0].any()
    column, row = shown.xy.astype(int).T
    label = np.stack(masks)[shown.frame, row, column]
    assert ((label == STATIC) == ~moving[shown.point]).all()
    depth = truth().clip.depths[shown.frame, row, column]
    pose = truth().clip.cameras.cam_from_world[0]
    z = (shown.xyz @ pose[2, :3] + pose[2, 3])[shown.point]
    assert (np.abs(z / depth - 1) < 0.1).mean() > 0.93


@pytest.mark.parametrize(
    "options, message",
    [
        (("--input-camera", "5"), "--input-camera: expected one of 3, 10, 20, got '5'"),
        (("--held-out", "3,3"), "--held-out: a camera is named twice"),
    ],
)
def test_what_is_refused_before_any_stage(panoptic, tmp_path, capsys, options, message):
    _, folder, _ = panoptic
    out = tmp_path / "scene"
    assert run("--from", "panoptic", folder, "--out", out, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0]
    assert not (out / "scene.json").exists()


def test_jumps_without_silhouettes_are_refused(tmp_path, capsys):
    import imageio.v3 as iio

    write_blender(tmp_path / "ball", 6, 3, (16, 16))
    for path in (tmp_path / "ball").rglob("*.png"):
        iio.imwrite(path, iio.imread(path)[..., :3])
    assert run("--from", "blender", tmp_path / "ball", "--out", tmp_path / "scene") == 2
    assert "the camera jumps from image to image" in capsys.readouterr().err
    assert ball_at(0)[1] == 0.7
