"""The table of exports: measured, written to a document, and drawn."""

import json

import imageio.v3 as iio
import pytest
from clips import two_boxes
from evaluate.exact_fits import exact_sequence
from export_table import BEGIN, END, main

from msdyn.sequence import save_sequence


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "sequence.safetensors"
    save_sequence(exact_sequence(two_boxes(8, 96, 72)), path)
    return path


def test_files_are_measured_and_the_table_is_replaced(fit, tmp_path, capsys):
    document = tmp_path / "formats.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    options = ["--formats", "ply,html,objects", "--count", "3", "--docs", str(document)]
    options += ["--json", str(tmp_path / "t.json"), "--sheet", str(tmp_path / "s.png")]
    assert main([str(fit), "--out", str(tmp_path / "out"), *options]) == 0
    rows = {row["format"]: row for row in json.loads((tmp_path / "t.json").read_text())["formats"]}
    assert rows["ply"]["files"] == 5  # times 0, .4, .5, 1 and the manifest
    assert min(rows["ply"]["psnr_db"]) > 80 and 40 < min(rows["html"]["psnr_db"]) < 80
    written = (tmp_path / "out" / "sequence.html").stat().st_size
    assert rows["html"]["bytes"] == written and "psnr_db" not in rows["objects"]
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| `html` |" in text and "| `objects` |" in text
    assert iio.imread(tmp_path / "s.png").std() > 10


def test_formats_that_do_not_exist(fit, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(fit), "--out", str(tmp_path), "--formats", "ply,obj"])
    assert "no such format: obj" in capsys.readouterr().err


def test_a_document_without_marks(fit, tmp_path):
    (tmp_path / "a.md").write_text("nothing\n")
    given = ["--formats", "objects", "--count", "2", "--docs", str(tmp_path / "a.md")]
    with pytest.raises(SystemExit, match="expected <!-- tools"):
        main([str(fit), "--out", str(tmp_path / "out"), *given])
