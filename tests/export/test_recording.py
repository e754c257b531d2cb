"""rerun recordings, read by rerun's own reader."""

import sys

import numpy as np
import pytest

from msdyn.cli import export
from msdyn.export import export_rrd
from msdyn.sequence import object_poses


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
    for entity in ("/world/camera", "/world/camera/rgb", "/world/object_2/points"):
        assert rows[entity] == 3, rows
    assert rows["/world/static"] == 1
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
