"""Cameras optimised at test time, on images whose true camera is known."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import exit_code
from exact_fits import exact_sequence, save_fit, three_points, write_scene_of
from scipy.spatial.transform import Rotation

from msdyn.cli.evaluate import main
from msdyn.evaluate import evaluate_views, masked_psnr
from msdyn.evaluate.camera_search import CameraSearch, Schedule
from msdyn.geometry import Similarity
from msdyn.reading import read_json
from msdyn.render import draw, render_image
from msdyn.scene import Scene, frame_path, write_cameras, write_image

QUICK = Schedule(first=70, static=10, moving=40)
FRAME = 4


def perturbed(camera, seed, degrees=0.6, shift=0.01):
    """Return cameras rotated about their centres and moved, each by the same."""
    rng = np.random.default_rng(seed)
    axis, direction = rng.normal(size=(2, 3))
    rotation = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    moved = camera.cam_from_world.copy()
    moved[:, :3] = rotation @ moved[:, :3]
    moved[:, :3, 3] += shift * direction / np.linalg.norm(direction)
    return replace(camera, cam_from_world=moved)


def errors(camera, truth):
    relative = camera.cam_from_world[0, :3, :3] @ truth.cam_from_world[0, :3, :3].T
    degrees = np.degrees(np.linalg.norm(Rotation.from_matrix(relative).as_rotvec()))
    return degrees, np.linalg.norm(camera.centres - truth.centres)


@pytest.fixture(scope="module")
def drawn(boxes_truth):
    """A sequence at one time, and its own image from a camera beside that of the clip."""
    sequence = exact_sequence(boxes_truth, [3, 7])
    time = sequence.timeline.time_of_frame(FRAME)
    camera = boxes_truth.clip.cameras[FRAME]
    image = render_image(sequence, camera, time).rgb8
    return sequence.at(time), camera, image, lambda c: render_image(sequence, c, time).rgb8


def test_a_perturbed_camera_is_recovered(drawn):
    posed, truth, image, render = drawn
    given = perturbed(truth, 0)
    mask = np.zeros(image.shape[:2], bool)
    mask[4:, :58] = True
    found = CameraSearch(QUICK)(posed, given, image, mask)
    before, after = errors(given, truth), errors(found.camera, truth)
    # 0.6 degrees and 1.8 cm before (the rotation moves the centre's coordinates too).
    assert after[0] < 0.12 and after[1] < 0.004 and after[0] < before[0] / 5
    assert found.degrees == pytest.approx(errors(found.camera, given)[0], abs=1e-6)
    assert found.shift == pytest.approx(errors(found.camera, given)[1], abs=1e-9)
    psnr = [masked_psnr(render(c) / 255, image / 255, mask) for c in (given, found.camera)]
    assert psnr[0] < 24 and psnr[1] > 34  # 8 bits: 59 at most


def test_a_true_camera_stays(drawn):
    posed, truth, image, _ = drawn
    found = CameraSearch(Schedule(first=8))(posed, truth, image, np.ones(image.shape[:2], bool))
    np.testing.assert_array_equal(found.camera.cam_from_world, truth.cam_from_world)
    assert found.degrees == 0 and found.shift == 0


def test_nothing_outside_the_mask_is_seen(drawn):
    posed, truth, image, _ = drawn
    mask = np.zeros(image.shape[:2], bool)
    mask[10:40, 8:50] = True
    given, other = perturbed(truth, 1), image.copy()
    other[~mask] = np.random.default_rng(0).integers(0, 256, (int((~mask).sum()), 3))
    schedule = Schedule(first=6, rate=5e-4)
    first, second = (CameraSearch(schedule)(posed, given, i, mask) for i in (image, other))
    assert first.degrees > 0
    assert first == replace(second, camera=first.camera)
    np.testing.assert_array_equal(first.camera.cam_from_world, second.camera.cam_from_world)


def test_scenes_in_other_units_give_the_same(drawn, boxes_truth):
    """The world in feet: the same rotation, and the same shift in metres."""
    _, truth, image, _ = drawn
    sequence = exact_sequence(boxes_truth, [3, 7])
    short = Schedule(first=5, rate=5e-4)
    feet = Similarity.of(1 / 0.3048)
    time = sequence.timeline.time_of_frame(FRAME)
    given, mask = perturbed(truth, 2), np.ones(image.shape[:2], bool)
    metres = CameraSearch(short)(sequence.at(time), given, image, mask)
    scaled = sequence.rescaled(feet)
    other = CameraSearch(short)(scaled.at(time), given.transformed(feet), image, mask)
    assert metres.degrees > 0
    assert other.degrees == pytest.approx(metres.degrees, rel=1e-2)
    assert 0.3048 * other.shift == pytest.approx(metres.shift, rel=1e-2)


def test_further_images_begin_at_the_last_correction(drawn):
    posed, truth, image, _ = drawn
    given, mask = perturbed(truth, 3), np.ones(image.shape[:2], bool)
    search = CameraSearch(replace(QUICK, static=0))
    first = search(posed, given, image, mask)
    second = search(posed, given, image, mask)  # no steps of its own
    assert first.degrees > 0.3
    np.testing.assert_allclose(second.camera.cam_from_world, first.camera.cam_from_world, atol=1e-9)
    # A correction that does not help is not taken.
    third = CameraSearch(replace(QUICK, moving=0))
    third._last = search._last
    assert third(posed, truth, image, mask).degrees == 0


@pytest.mark.parametrize("degenerate", ["empty mask", "nothing rendered"])
def test_degenerate_images_keep_their_camera(drawn, degenerate):
    posed, truth, image, _ = drawn
    mask = np.zeros(image.shape[:2], bool)
    given = truth
    if degenerate == "nothing rendered":
        mask[:] = True
        turned = truth.cam_from_world.copy()
        turned[0, :3] = np.diag([-1, 1, -1]) @ turned[0, :3]
        given = replace(truth, cam_from_world=turned)
        assert not render_image_is_anything(posed, given)
    found = CameraSearch(QUICK)(posed, given, image, mask)
    np.testing.assert_array_equal(found.camera.cam_from_world, given.cam_from_world)


def render_image_is_anything(posed, camera):
    with torch.no_grad():
        return bool((draw(posed, camera.tensors()).alpha > 0.01).any())


@pytest.fixture
def points_scene(tmp_path, monkeypatch):
    """A scene of renders of three points, whose held-out camera is 0.5 degrees off."""
    points = three_points(3)
    scene = write_scene_of(points, tmp_path / "points")
    save_fit(points, scene.directory / "fit")
    view = next(iter(scene.views.values()))
    wrong = perturbed(view.cameras, 1, 0.5, 0.0)
    write_cameras(view.directory / "cameras.json", wrong)
    quick = Schedule(first=24, static=4, moving=12)
    monkeypatch.setattr("msdyn.evaluate.protocol.CameraSearch", lambda: CameraSearch(quick))
    return Scene(scene.directory)


def test_both_figures_and_the_stamp(points_scene, capsys):
    code = exit_code(main, [points_scene.directory, "--test-time-cameras", "--no-pictures"])
    out = capsys.readouterr().out
    written = read_json(points_scene.directory / "fit" / "eval.json")
    plain, optimised = written["views"], written["views_test_time_cameras"]
    assert code == 0
    assert plain["mpsnr"] < optimised["mpsnr"] - 10
    assert "camera_degrees" not in plain and "flicker" not in optimised
    assert 0.1 < optimised["camera_degrees"] < 2
    stamp = written["protocol"]["test_time_optimisation"]
    assert "camera of each held-out image" in stamp and "covisible" in stamp
    for name, row in (("held-out views", plain), ("held-out, cameras optimised", optimised)):
        line = next(line for line in out.splitlines() if line.startswith(f"{name}, mean"))
        assert line.split()[-5:-3] == ["3", f"{row['mpsnr']:.2f}"]
    assert "cameras optimised at test time" in out
    assert "dycheck_test_time_cameras" not in written


def test_the_summary_of_the_dycheck_protocol(points_scene):
    view = next(iter(points_scene.views.values()))
    mask = np.full((48, 64), 255, np.uint8)
    for frame in view.frames:
        mask[:, 50:] = 0
        write_image(frame_path(view.directory / "covisible", frame, ".png"), mask)
    write_image(frame_path(view.directory / "covisible", 1, ".png"), np.zeros_like(mask))
    argv = [points_scene.directory, "--protocol", "dycheck", "--no-pictures"]
    assert exit_code(main, [*argv, "--test-time-cameras"]) == 0
    both = read_json(points_scene.directory / "fit" / "eval.json")
    assert exit_code(main, argv) == 0
    without = read_json(points_scene.directory / "fit" / "eval.json")
    assert without["protocol"]["test_time_optimisation"] == "none"
    assert json.dumps(both["dycheck"]) == json.dumps(without["dycheck"])
    assert both["views"] == without["views"] and "dycheck_test_time_cameras" not in without
    assert both["dycheck_test_time_cameras"]["mpsnr"] > both["dycheck"]["mpsnr"] + 10
    assert both["dycheck_test_time_cameras"]["images"] == both["dycheck"]["images"] == 2


def test_without_held_out_views_it_is_refused(points_scene, capsys):
    shutil.rmtree(points_scene.directory / "views")
    assert exit_code(main, [points_scene.directory, "--test-time-cameras"]) == 2
    err = capsys.readouterr().err
    assert "no held-out views, whose cameras --test-time-cameras optimises" in err


def test_an_aligned_world(points_scene):
    """The truth in a world ten times as large: the change of the cameras is in its units."""
    points = three_points(3)
    # A camera that moves, so that the alignment is determined.
    poses = points.cameras.cam_from_world.copy()
    poses[:, 0, 3], poses[:, 1, 3] = [0, 0.1, 0.2], [0, 0.05, 0]
    sequence = points.replaced(cameras=replace(points.cameras, cam_from_world=poses))
    scene = write_scene_of(sequence, points_scene.directory / "moving")
    view = next(iter(scene.views.values()))
    wrong = perturbed(view.cameras, 2, 0.5, 0.01)
    write_cameras(view.directory / "cameras.json", wrong)
    same = evaluate_views(sequence, Scene(scene.directory), test_time_cameras=True)
    world = Similarity.of(10.0, (1.0, 2.0, 3.0))
    write_cameras(scene.directory / "cameras.json", scene.cameras.transformed(world))
    write_cameras(view.directory / "cameras.json", wrong.transformed(world))
    other = evaluate_views(sequence, Scene(scene.directory), align=True, test_time_cameras=True)
    assert other["camera_shift"] == pytest.approx(10 * same["camera_shift"], rel=0.05)
    assert other["camera_degrees"] == pytest.approx(same["camera_degrees"], rel=0.05)
