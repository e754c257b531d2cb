"""`.4dgs` files, read by the format's own package."""

import sys

import numpy as np
import pytest
import torch
from evaluate.exact_fits import moving_points
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation
from sequence.test_parts import two_halves
from splats import compare

from msdyn.cli import export
from msdyn.errors import InputError
from msdyn.export import export_as
from msdyn.geometry import project, transform_points
from msdyn.sequence import object_centres, object_motions

fourdgs = pytest.importorskip("fourdgs")
read_4dgs = pytest.importorskip("read_4dgs")


def written(sequence, folder, **options):
    path = folder / "a.4dgs"
    export_as(sequence, "4dgs", path, **options)
    return path


def psnr(sequence, path, times):
    return [row[0] for row in compare(sequence, lambda t: read_4dgs.splats_at(path, t), times)]


@pytest.fixture
def swarm():
    """Thirty points of one object that move on waves of their own, 24 frames."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.6, -0.4, 2.5], [0.6, 0.4, 3.5], (30, 3))
    waves = np.sin(np.arange(24)[None, :, None] * rng.uniform(0.1, 0.8, (30, 1, 3)))
    sequence = moving_points(points, 0.08 * waves + 0.01 * np.arange(24)[None, :, None])
    return sequence.replaced(labels=torch.ones_like(sequence.labels))


def test_pictures_are_those_of_the_sequence(sparse, tmp_path):
    path = written(sparse, tmp_path)
    found = psnr(sparse, path, [0.0, 0.4, 1.0])
    assert min(found) > 45  # measured 47.4
    still = written(sparse, tmp_path, time=0.0)  # motion matters in this comparison
    assert min(psnr(sparse, still, [1.0])) < 30


def test_the_file_is_valid_and_names_its_conventions(sparse, tmp_path):
    from fourdgs.validate import validate

    path = written(sparse, tmp_path)
    report = validate(path.read_bytes())
    assert report.ok and not report.findings, report
    scene = fourdgs.read(path)
    frame = scene.provenance.frame
    assert (frame.handedness, frame.up_axis, frame.forward_axis) == (1, 4, 2)  # right, -y, +z
    assert scene.header.attributes["visibility_profile"] == "box"
    assert scene.header.attributes["object_track_role"] == "authoritative"
    centres = object_centres(sparse)
    for entry in scene.objects.table.entries:
        np.testing.assert_allclose(entry.anchor, centres[entry.object_id], rtol=1e-6)
    assert [entry.object_id for entry in scene.objects.table.entries] == [1, 2]
    assert set(scene.gaussians.object_id) == {0, 1, 2}


def test_rigid_objects_are_their_tracks(sparse, tmp_path):
    scene = fourdgs.read(written(sparse, tmp_path))
    assert scene.header.gaussian_count == sparse.num_gaussians  # none is divided
    frames = np.arange(len(sparse.timeline), dtype=float)
    for label, motion in object_motions(sparse, frames).items():
        for row, second in enumerate(sparse.timeline.seconds):
            pose = scene.objects.pose_at(label, float(second))
            turned = Rotation.from_quat(pose.rotation).as_matrix()
            np.testing.assert_allclose(turned, motion.rotation[row], atol=2e-3)
            centre = object_centres(sparse)[label]
            moved = turned @ centre + pose.translation
            np.testing.assert_allclose(moved, motion.apply(centre[None, None])[row, 0], atol=2e-3)


def test_an_object_of_two_rigid_parts_has_two_tracks(tmp_path):
    sequence, half = two_halves(400)
    with torch.no_grad():  # one half shakes, so that no straight piece is its path
        sequence.motion.patterns.translations[1][1, :, 0] = torch.tensor([0.0, 1, 0, 1, 0])
    path = written(sequence, tmp_path)
    scene = fourdgs.read(path)
    assert scene.header.gaussian_count == 400  # none is divided
    ids = scene.gaussians.object_id
    assert set(ids) == {1, 257} and (ids % 256 == 1).all()
    assert (ids == 1).sum() in (int((half == 0).sum()), int((half == 1).sum()))
    names = [entry.label for entry in scene.objects.table.entries]
    assert names == ["object 1, part 1", "object 1, part 2"]
    for time in sequence.timeline.times:
        found = read_4dgs.splats_at(path, float(time)).means
        true = sequence.at(float(time)).means[0].detach().numpy()
        nearest = np.linalg.norm(found[:, None] - true[None], axis=-1).min(1)
        assert nearest.max() < 0.01  # where one part moves by 1


def test_more_objects_than_a_byte_counts(tmp_path):
    points = np.random.default_rng(0).uniform([-1, -1, 3], [1, 1, 4], (300, 3))
    sequence = moving_points(points, np.zeros((300, 2, 3)))
    scene = fourdgs.read(written(sequence, tmp_path))
    assert sorted(scene.gaussians.object_id) == list(range(1, 301))
    assert scene.header.attributes["object_of_id"].startswith("object_id % 512 ")


def test_keys_are_left_out_where_interpolation_gives_them(tmp_path):
    points = np.random.default_rng(0).uniform([-0.5, -0.5, 2], [0.5, 0.5, 3], (20, 3))
    steady = np.arange(24)[None, :, None] * np.array([0.01, 0, 0.005]) + np.zeros((20, 1, 1))
    sequence = moving_points(points, steady)
    sequence = sequence.replaced(labels=torch.ones_like(sequence.labels))
    (track,) = fourdgs.read(written(sequence, tmp_path)).objects.tracks
    np.testing.assert_allclose(track.times, [0, 2.3])


@pytest.mark.parametrize("tolerance", [0.1, 0.5])
def test_no_gaussian_is_further_than_the_tolerance(swarm, tmp_path, tolerance):
    path = written(swarm, tmp_path, tolerance_px=tolerance)
    count, most = fourdgs.read(path).header.gaussian_count, 0.0
    assert count > 60
    for row, time in enumerate(swarm.timeline.times):
        found = read_4dgs.splats_at(path, float(time)).means
        true = swarm.at(float(time)).means[0].detach().numpy()
        camera = swarm.cameras[row]
        pixels = [
            project(camera.intrinsics, transform_points(camera.cam_from_world, p[None]))[0]
            for p in (found.astype(float), true.astype(float))
        ]
        assert len(found) == len(true)
        away = np.linalg.norm(pixels[0][:, None] - pixels[1][None], axis=-1)
        most = max(most, away[linear_sum_assignment(away)].max())
    assert 0.3 * tolerance < most < tolerance + 0.05  # rounding of the format adds a little


def test_a_smaller_tolerance_makes_more_pieces(swarm, tmp_path):
    counts = [
        fourdgs.read(written(swarm, tmp_path, tolerance_px=t)).header.gaussian_count
        for t in (0.0, 0.2, 1.0)
    ]
    assert counts[0] == 30 * 23 > counts[1] > counts[2] > 30


def test_all_exist_once_at_any_time(swarm, tmp_path):
    path = written(swarm, tmp_path)
    for seconds in np.random.default_rng(0).uniform(0, 2.39, 100):
        assert len(read_4dgs.splats_at_seconds(path, seconds).means) == 30


def test_between_the_times_pieces_interpolate(swarm, tmp_path):
    path = written(swarm, tmp_path, tolerance_px=0.02)
    for time in (0.11, 0.49, 0.93):
        found = read_4dgs.splats_at(path, time).means
        true = swarm.at(time).means[0].detach().numpy()
        nearest = np.linalg.norm(found[:, None] - true[None], axis=-1).min(1)
        assert nearest.max() < 0.02  # of waves of 0.16 and more


def test_view_dependent_colours_of_rotating_objects(shiny, tmp_path):
    path = written(shiny, tmp_path, times="0:1:4")
    found = psnr(shiny, path, [0.0, 1.0])
    assert min(found) > 33  # measured 34.5


def test_lives_are_windows(succeeding, tmp_path):
    path = written(succeeding, tmp_path)
    frames = np.arange(len(succeeding.timeline))
    expected = succeeding.posed(torch.from_numpy(frames).float()).opacities.detach()
    for row in frames:
        stored = read_4dgs.splats_at(path, float(succeeding.timeline.times[row])).opacities
        assert stored.sum() == pytest.approx(float(expected[row].sum()), rel=0.01)
    assert min(psnr(succeeding, path, [0.0, 1.0])) > 42


def test_static_gaussians_with_lives(sparse, tmp_path):
    spans = torch.tensor([[-np.inf, 2.5], [2.5, np.inf]]).repeat(len(sparse.static) // 2 + 1, 1)
    sequence = sparse.replaced(
        static=sparse.static.with_life_spans(spans[: len(sparse.static)].float())
    )
    path = written(sequence, tmp_path, background="on")
    assert min(psnr(sequence, path, [0.0, 1.0])) > 42


def test_the_camera_of_the_clip(sparse, tmp_path):
    scene = fourdgs.read(written(sparse, tmp_path))
    (sensor,) = scene.provenance.sensors
    k = sparse.cameras.intrinsics[0]
    assert (sensor.fx, sensor.cx, sensor.width_px) == (k[0, 0], k[0, 2], sparse.cameras.width)
    for row, second in enumerate(sparse.timeline.seconds):
        pose = scene.provenance.sensor_pose_at("camera", float(second))
        np.testing.assert_allclose(pose.translation, sparse.cameras.centres[row], atol=1e-9)
        turned = Rotation.from_quat(pose.rotation).as_matrix()
        np.testing.assert_allclose(turned, sparse.cameras.world_from_cam[row, :3, :3], atol=1e-9)
        view = np.array(scene.camera.targets[row]) - scene.camera.positions[row]
        np.testing.assert_allclose(view / np.linalg.norm(view), turned[:, 2], atol=1e-9)


def test_parts_of_the_sequence(sparse, tmp_path):
    scene = fourdgs.read(written(sparse, tmp_path, objects="2", background="off"))
    assert set(scene.gaussians.object_id) == {2}
    assert scene.header.gaussian_count == int((sparse.labels == 2).sum())
    assert [track.object_id for track in scene.objects.tracks] == [2]


def test_without_objects_there_is_no_object_layer(sparse, tmp_path):
    none = torch.zeros(0, dtype=torch.long)
    sequence = sparse.replaced(
        moving=sparse.moving.select(none),
        motion=sparse.motion.select(none),
        labels=sparse.labels[none],
    )
    scene = fourdgs.read(written(sequence, tmp_path))
    assert scene.header.gaussian_count == len(sparse.static) and not scene.objects
    with pytest.raises(InputError, match="at least one Gaussian"):
        written(sequence, tmp_path, background="off")


def test_times_must_increase(sparse, tmp_path):
    with pytest.raises(InputError, match="increasing times"):
        written(sparse, tmp_path, times="1,0")


def test_without_the_package_the_extra_is_named(exact_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fourdgs", None)
    out = tmp_path / "a.4dgs"
    assert export.main([str(exact_file), "--format", "4dgs", "--out", str(out)]) == 2
    assert 'pip install "msdyn[4dgs]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
