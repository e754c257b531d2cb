"""The log of a run, as lines and as curves of TensorBoard."""

import json
import sys
import time

import imageio.v3 as iio
import numpy as np
import pytest

from msdyn.feedforward.training.records import Records


def test_an_entry_is_a_line_and_curves(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    records = Records(tmp_path)
    records.add({"step": 10, "stage": "matches", "depth": 0.5})
    records.add({"step": 20, "stage": "matches", "depth": 0.25})
    records.add({"step": 20, "unseen": {"epe": 0.125}})
    iio.imwrite(tmp_path / "sheet.png", np.full((4, 6, 3), 200, np.uint8))
    records.add_picture("unseen", tmp_path / "sheet.png", 20)
    records.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 10, "stage": "matches", "depth": 0.5} and len(lines) == 3
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curve = [(event.step, event.value) for event in events.Scalars("training/depth")]
    assert curve == [(10, 0.5), (20, 0.25)]
    assert [event.value for event in events.Scalars("unseen/epe")] == [0.125]
    assert events.Images("unseen")[0].width == 6


def test_without_tensorboard_there_are_lines_only(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    records = Records(tmp_path)
    records.add({"step": 1, "depth": 0.5})
    records.add_picture("unseen", tmp_path / "missing.png", 1)
    records.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl"]


def test_a_resumed_run_drops_entries_after_its_checkpoint(tmp_path):
    first = Records(tmp_path)
    for step in (10, 20, 30):
        first.add({"step": step, "depth": 1.0})
    first.close()
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 4')
    time.sleep(1 - time.time() % 1)  # files of TensorBoard are ordered by the second
    again = Records(tmp_path, step=20)
    again.add({"step": 30, "depth": 0.5})
    again.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["depth"]) for line in lines] == [(10, 1.0), (20, 1.0), (30, 0.5)]
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curve = [(event.step, event.value) for event in events.Scalars("training/depth")]
    assert curve == [(10, 1.0), (20, 1.0), (30, 0.5)]
