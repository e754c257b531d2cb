"""The tour, a notebook, runs from its first cell to its last."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_notebook import run_cells

import msdyn

TOUR = Path(__file__).parents[1] / "examples/tour.ipynb"


def tour() -> dict:
    return json.loads(TOUR.read_text(encoding="utf-8"))


def images(notebook: dict) -> int:
    outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    return sum("image/jpeg" in out.get("data", {}) for out in outputs)


def test_every_cell_runs(fitted_plane_scene, tmp_path, monkeypatch):
    """On a small scene that is there already, so that none is rendered."""
    shutil.copytree(fitted_plane_scene, tmp_path / "scene", ignore=shutil.ignore_patterns("fit"))
    monkeypatch.chdir(tmp_path)
    short = replace(msdyn.preset("quick"), epochs=1, static_gaussians=500, moving_gaussians=200)
    monkeypatch.setattr(msdyn, "preset", lambda _: short)
    notebook = tour()
    names = run_cells(notebook)
    assert names["seen"].rgb.shape == (24, 32, 3)
    assert names["edited"].objects == [] and len(names["sequence"].moving) > 0
    assert np.isfinite(names["points"].xyz).all()
    assert (tmp_path / "out/objects/objects.json").is_file()
    assert (tmp_path / "out/sequence.html").stat().st_size > 10_000
    assert images(notebook) == 4


@pytest.mark.reliability
def test_the_tour_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_cells(tour())
    assert len(names["sequence"].objects) == 3


def test_outputs_are_kept_and_small():
    notebook = tour()
    assert images(notebook) == 4
    assert TOUR.stat().st_size < 150_000
    counts = [c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run the cells in order"


def test_a_cell_that_fails_is_told():
    broken = {"cells": [{"cell_type": "code", "source": ["a = 1\n", "a + missing"]}]}
    with pytest.raises(NameError, match="missing"):
        run_cells(broken)


def test_what_cells_show():
    cells = [["print(2)\n", "3"], ["x = 4"], ["x + y"]]
    notebook = {"cells": [{"cell_type": "code", "source": source} for source in cells]}
    names = run_cells(notebook, {"y": 1})
    first, second, third = (cell["outputs"] for cell in notebook["cells"])
    assert first[0]["text"] == ["2\n"] and first[1]["data"] == {"text/plain": ["3"]}
    assert second == [] and third[0]["data"] == {"text/plain": ["5"]} and names["x"] == 4
