"""The ablation: its list of fits, the summary of their figures, and a tiny run."""

import json
from pathlib import Path

import numpy as np
import pytest
from ablation import main, make_scenes, run_cell
from ablation_ceiling import STEPS, decompose, psnr_at, write_decomposition
from ablation_spec import FROZEN, MAIN_ROWS, PRIORS, ROWS, SCENES, Cell, Size, cells_of
from ablation_table import COLUMNS, FIGURES, count_wins, summarise, write_figure, write_table
from machine import describe_command

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


def test_rows_without_motion_leave_its_figures_empty(tmp_path):
    frozen = fake("frozen", "a", 0, 30.0) | {"epe3d": None, "flicker": None}
    summary = summarise([fake("full", "a", 0, 1.0), frozen], 1.0, [])
    table = write_table(summary, tmp_path / "table.md")
    line = next(line for line in table.splitlines() if line.startswith("| frozen"))
    cells = [cell.strip() for cell in line.split("|")[2:]]
    assert cells[list(COLUMNS).index("mpsnr")] == "30.00"
    assert cells[list(COLUMNS).index("epe3d")] == cells[list(COLUMNS).index("flicker")] == ""
    assert "mLPIPS" in table and "| frozen | 30.00 /  |" in table


def test_wins_are_counted_by_scene_and_seed_where_both_rows_have_the_figure():
    results = [fake("full", "a", 0, 2.0), fake("single", "a", 0, 1.0)]
    results += [fake("full", "a", 1, 2.0), fake("single", "a", 1, 3.0)]
    results += [fake("full", "b", 0, 2.0)]  # without its other
    wins = count_wins(results, "full", "single")
    assert wins["mpsnr"] == [1, 2] and wins["epe3d"] == [1, 2]
    results[1]["flicker"] = None
    results[0]["epe3d"] = 0.5
    wins = count_wins(results, "full", "single")
    # 2 > 1 and 2 < 3 for the seed that is left; an EPE of .5 is better than 1, and 2 than 3.
    assert wins["flicker"] == [1, 1] and wins["epe3d"] == [2, 2] and wins["mlpips"] == [1, 2]
    assert summarise(results, 1.0, [])["wins"]["sensor"]["epe3d"] == [2, 2]


def with_errors(row: str, priors: str, moving: float, static: float) -> dict:
    """Return a result whose frame 3 has these squared errors, of 100 and of 300 pixels."""
    other = [5, 9.0, 100, 9.0, 300]
    images = [[0 if row in FROZEN else 3, 100 * moving, 100, 300 * static, 300], other]
    parts = {"images": {"left": images, "right": images}}
    return fake(row, "a", 0, 1.0) | {"priors": priors, "parts": parts}


def test_the_decomposition_compares_one_frame():
    assert psnr_at(with_errors("full", "sensor", 0.01, 0.01), 3) == pytest.approx([20, 20, 20])
    uneven = psnr_at(with_errors("full", "sensor", 0.1, 0.001), 3)
    assert uneven == pytest.approx([-10 * np.log10(0.02575), 10, 30])
    nothing_moves = with_errors("full", "sensor", 0.0, 0.01)
    for images in nothing_moves["parts"]["images"].values():
        images[0][1:3] = [0.0, 0]
    assert np.isnan(psnr_at(nothing_moves, 3)[1])
    results = [
        with_errors(row, priors, 10.0 ** -(2 + step / 10), 10.0 ** -(2 + step / 10))
        for step, (row, priors) in enumerate(STEPS)
    ]
    results.append({**results[0], "scene": "b"})  # of which nothing else is known
    table = decompose(results, 3)
    assert np.array(table["a"])[:, 0] == pytest.approx([20, 21, 22, 23, 24])
    text = write_decomposition(table)
    assert "| a | 20.00 (20.0, 20.0) | 21.00" in text and "| mean | 20.00" in text
    gains = [f"{name} +1.00 dB (1 scenes)" for name in ("motion", "priors", "moving", "views")]
    assert ", ".join(gains) in text


@pytest.mark.reliability
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
    options = {k: v for k, v in first["options"].items() if k not in ("scene", "out")}
    assert written["results"] == [first | {"options": options}] and written["commits"] == [
        str(first["stamp"]["commit"])
    ]
    assert (out / "pictures.png").is_file() and (out / "figure.png").is_file()


def test_commands_beside_figures_name_no_folder_of_this_machine():
    command = describe_command("ablation.py", ["--out", "/somewhere/far", "--rows", "levels apart"])
    assert command == "python tools/ablation.py --out far --rows 'levels apart'"
    assert "/a/b" not in json.dumps(
        summarise(
            [
                {
                    **{"row": "full", "scene": "rigid", "priors": "exact", "seed": 0},
                    **{"options": {"scene": "/a/b", "out": "/a/b/c", "epochs": 1}},
                    **{"seconds": {"fit": 1.0}, "stamp": {"commit": "abc"}},
                }
            ],
            1.0,
            ["--out", "/a/b"],
        )
    )
