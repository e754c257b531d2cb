"""The ablation: its list of fits, the summary of their figures, and a tiny run."""

import json
from pathlib import Path

import numpy as np
import pytest
from ablation import main, make_scenes, run_cell
from ablation_spec import MAIN_ROWS, PRIORS, ROWS, SCENES, Cell, Size, cells_of
from ablation_table import FIGURES, summarise, write_figure, write_table

from msdyn.scene import Scene


def test_the_small_suite_is_the_main_rows_on_every_scene():
    cells = cells_of("small", list(SCENES), ["sensor"], list(MAIN_ROWS), 3)
    assert len(cells) == len(set(cells)) == 20
    assert {c.priors for c in cells} == {"sensor"} and {c.seed for c in cells} == {0}


def test_the_full_suite_repeats_the_main_rows_with_other_seeds():
    cells = cells_of("full", list(SCENES), list(PRIORS), list(ROWS), 3)
    assert len(cells) == len(set(cells)) == len(ROWS) * 5 * 3 + 2 * 4 * 5
    repeated = [c for c in cells if c.seed]
    assert {c.row for c in repeated} == set(MAIN_ROWS) and {c.priors for c in repeated} == {
        "sensor"
    }
    # Every fit has its own folder, and sensor priors come first.
    assert len({c.folder(Path()) for c in cells}) == len(cells)
    assert all(c.priors == "sensor" for c in cells[:20])


def fake(row: str, scene: str, seed: int, value: float) -> dict:
    return {
        "row": row, "scene": scene, "priors": "sensor", "seed": seed, "stamp": {"commit": "abc"},
        "seconds": {"fit": 60.0}, **dict.fromkeys(FIGURES, value),
    }  # fmt: skip


def test_means_are_over_scenes_and_spreads_over_seeds(tmp_path):
    results = [fake("full", s, n, 10 * i + n) for i, s in enumerate("ab") for n in range(3)]
    results += [fake("single", s, 0, 7.0) for s in "ab"]
    summary = summarise(results, 1.0, ["--suite", "small"])
    row = summary["priors"]["sensor"]["full"]
    assert row["mpsnr"] == pytest.approx(6.0) and row["seeds"] == 3
    assert row["spread"]["mpsnr"] == pytest.approx(np.std([5, 6, 7]))
    assert row["scenes"]["b"]["epe3d"] == pytest.approx(11.0)
    assert not summary["priors"]["sensor"]["single"]["spread"]
    table = write_table(summary, tmp_path / "table.md")
    assert "| full | 6.00 ± 0.82 |" in table and "| single | 7.00 |" in table
    write_figure(summary, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_tiny_run_and_its_resumption(tmp_path, monkeypatch, capsys):
    size = Size(frames=6, width=80, epochs=1)
    out = tmp_path / "6x80x1"
    make_scenes("rigid", [("sensor", 0)], size, out)
    cell = Cell("L1", "rigid", "sensor", 0)
    first = run_cell(cell, size, out)
    assert np.isfinite([first[key] for key in ("mpsnr", "mssim", "epe3d")]).all()
    assert len(Scene(cell.folder(out).parent)) == 6
    # Both are finished: neither is repeated, and the command only summarises.
    monkeypatch.setattr("msdyn.synthetic.render_truth", None)
    make_scenes("rigid", [("sensor", 0)], size, out)
    assert run_cell(cell, size, out) == json.loads(json.dumps(first))
    arguments = ["--scenes", "rigid", "--rows", "L1", "--frames", "6", "--width", "80"]
    arguments += ["--epochs", "1", "--jobs", "1", "--out", str(tmp_path)]
    arguments += ["--json", str(tmp_path / "figures.json")]
    monkeypatch.setattr("sys.argv", ["ablation.py", *arguments])
    assert main() == 0
    assert "| L1 |" in capsys.readouterr().out
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["results"] == [first] and written["commits"] == [str(first["stamp"]["commit"])]
    assert (out / "pictures.png").is_file() and (out / "figure.png").is_file()
