"""rerun recordings, read by rerun's own reader."""

import sys

import numpy as np
import pytest
import torch
from evaluate.exact_fits import moving_points
from sequence.test_parts import two_halves
from splats import compare

from msdyn.cli import export
from msdyn.export import export_rrd
from msdyn.sequence import PartSelection, object_poses


def test_without_rerun_the_extra_is_named(exact_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    out = tmp_path / "a.rrd"
    assert export.main([str(exact_file), "--format", "rrd", "--out", str(out)]) == 2
    assert 'pip install "msdyn[rerun]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_reader_finds_what_was_written(exact, tmp_path):
    pytest.importorskip("rerun")
    chunk = pytest.importorskip("rerun.chunk")
    times = exact.timeline.times[[1, 4, 6]]
    export_rrd(exact, tmp_path / "a.rrd", times)
    chunks = list(chunk.RrdReader(tmp_path / "a.rrd").stream())
    rows = {}
    for part in chunks:
        rows[part.entity_path] = rows.get(part.entity_path, 0) + part.num_rows
    for entity in ("/world/camera", "/world/camera/rgb", "/world/tracks/points"):
        assert rows[entity] == 3, rows
    assert rows["/world/static"] == rows["/world/tracks/paths"] == 1
    assert rows["/world/object_2/part_0"] == 1 + 3  # the splats once, their pose at each time
    places = {}
    for part in chunks:
        if part.entity_path != "/world/object_1":
            continue
        table = part.to_record_batch()
        if "clip" not in table.schema.names:
            continue
        nanoseconds = table.column("clip").cast("int64").to_pylist()
        translations = table.column("Transform3D:translation").to_pylist()
        for at, place in zip(nanoseconds, translations, strict=True):
            places[at / 1e9] = np.ravel(place)
    expected = object_poses(exact, np.array([1.0, 4.0, 6.0]))[1][:, :3, 3]
    seconds = times * exact.timeline.seconds[-1]
    assert sorted(places) == pytest.approx(seconds, abs=1e-5)
    found = np.stack([places[key] for key in sorted(places)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture
def read_rrd():
    pytest.importorskip("rerun.chunk")
    return pytest.importorskip("read_rrd")


def psnr(read_rrd, sequence, path, times):
    found = compare(sequence, lambda time: read_rrd.splats_at(path, time), times)
    return [row[0] for row in found]


def test_splats_of_rigid_objects_are_logged_once(shiny, tmp_path, read_rrd):
    path = tmp_path / "a.rrd"
    times = shiny.timeline.times[[0, 4, 7]]
    export_rrd(shiny, path, times)
    assert min(psnr(read_rrd, shiny, path, list(times))) > 50  # measured 57
    rows = read_rrd.rows_of(path)
    for entity in ("/world/static", "/world/object_1/part_0", "/world/object_2/part_0"):
        ((second, _),) = rows[entity, "GaussianSplats3D.centers"]
        assert second == -np.inf


def test_what_deforms_is_logged_at_every_time(tmp_path, read_rrd, one_part):
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.6, -0.4, 2.5], [0.6, 0.4, 3.5], (30, 3))
    waves = np.sin(np.arange(6)[None, :, None] * rng.uniform(0.1, 0.8, (30, 1, 3)))
    sequence = moving_points(points, 0.08 * waves)
    sequence = sequence.replaced(labels=torch.ones_like(sequence.labels))
    path = tmp_path / "a.rrd"
    export_rrd(sequence, path, sequence.timeline.times)
    rows = read_rrd.rows_of(path)["/world/object_1/splats", "GaussianSplats3D.centers"]
    assert len(rows) == 6
    for time in sequence.timeline.times:
        found = read_rrd.splats_at(path, float(time)).means
        expected = sequence.at(float(time)).means[0].detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_parts_of_an_object_move_in_it(tmp_path, read_rrd):
    sequence, _ = two_halves()
    path = tmp_path / "a.rrd"
    export_rrd(sequence, path, sequence.timeline.times)
    rows = read_rrd.rows_of(path)
    for entity in ("/world/object_1/part_0", "/world/object_1/part_1"):
        assert len(rows[entity, "GaussianSplats3D.centers"]) == 1
        assert len(rows[entity, "Transform3D.translation"]) == len(sequence.timeline)
    for time in sequence.timeline.times:
        found = read_rrd.splats_at(path, float(time)).means
        true = sequence.at(float(time)).means[0].detach().numpy()
        assert np.linalg.norm(found[:, None] - true[None], axis=-1).min(1).max() < 1e-4


def test_lives_change_opacities(succeeding, tmp_path, read_rrd):
    path = tmp_path / "a.rrd"
    times = succeeding.timeline.times[[0, 4, 7]]
    export_rrd(succeeding, path, times)
    assert min(psnr(read_rrd, succeeding, path, list(times))) > 50
    for time in times:
        stored = read_rrd.splats_at(path, float(time)).opacities
        expected = succeeding.at(float(time)).opacities[0].detach().numpy()
        assert stored.sum() == pytest.approx(expected.sum(), rel=0.01)


def test_an_object_alone(sparse, tmp_path, read_rrd):
    path = tmp_path / "a.rrd"
    export_rrd(sparse, path, np.array([0.0, 1.0]), PartSelection(objects="2", background="off"))
    entities = {entity for entity, _ in read_rrd.rows_of(path)}
    assert "/world/object_2/part_0" in entities
    assert not {"/world/static", "/world/object_1"} & entities


def test_versions_without_splats_get_points(sparse, tmp_path, monkeypatch):
    rerun = pytest.importorskip("rerun")
    chunk = pytest.importorskip("rerun.chunk")
    monkeypatch.delattr(rerun, "GaussianSplats3D")
    export_rrd(sparse, tmp_path / "a.rrd", np.array([0.0, 1.0]))
    names = set()
    for part in chunk.RrdReader(tmp_path / "a.rrd").stream():
        names |= {(part.entity_path, name) for name in part.to_record_batch().schema.names}
    assert ("/world/static", "Points3D:positions") in names
    assert ("/world/object_2/points", "Points3D:positions") in names
    assert not [name for _, name in names if name.startswith("GaussianSplats3D")]
