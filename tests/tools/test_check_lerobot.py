"""The tool that compares with lerobot, with a stand-in for that package."""

import importlib.metadata
import sys
from types import ModuleType, SimpleNamespace

import check_lerobot
import numpy as np
import pytest

from msdyn.io import LeRobotDataset, LeRobotWriter, column_values, read_video, video_feature

CAMERA = "observation.images.front"


@pytest.fixture
def dataset(tmp_path):
    features = {
        "action": {"dtype": "float32", "shape": [2], "names": None},
        "note": {"dtype": "string", "shape": [1], "names": None},
        CAMERA: video_feature(32, 48, 10),
    }
    columns = {
        "action": np.arange(8, dtype=np.float32).reshape(4, 2),
        "note": np.array(list("abcd")),
    }
    with LeRobotWriter(tmp_path / "set", features, 10) as writer:
        for task in ("pick", "place"):
            images = [np.full((32, 48, 3), 40 * k, np.uint8) for k in range(4)]
            writer.add_episode(columns, {CAMERA: images}, task)
    return tmp_path / "set"


@pytest.fixture
def lerobot(monkeypatch):
    """Let a package like lerobot be installed; return how its answers are changed."""
    change = {}

    class Theirs:
        def __init__(self, name, root):
            self.ours = LeRobotDataset(root)
            self.num_episodes, self.num_frames = len(self.ours), self.ours.info.total_frames
            self.fps = self.ours.info.fps
            self.meta = SimpleNamespace(features=self.ours.info.features)

        def __getitem__(self, index):
            episode = next(e for e in self.ours.episodes() if e.from_index <= index < e.to_index)
            table, row = self.ours.frames(episode), index - episode.from_index
            item = {name: column_values(table, name)[row] for name in table.column_names}
            segment = self.ours.video_segment(episode, CAMERA)
            image = list(read_video(segment.path, segment=segment.window))[row]
            item[CAMERA] = image.transpose(2, 0, 1) / np.float32(255)
            item["note"], item["task"] = str(item["note"]), episode.tasks[0]
            return item | {name: value(item) for name, value in change.items()}

    module = ModuleType("lerobot.datasets.lerobot_dataset")
    module.LeRobotDataset = Theirs
    for name in ("lerobot", "lerobot.datasets"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "lerobot.datasets.lerobot_dataset", module)
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "9" if name == "lerobot" else version(name)
    )
    return change


def test_equal_datasets(dataset, lerobot, capsys):
    assert check_lerobot.main([str(dataset)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("lerobot 9: 2 episodes, 8 frames, 8 features, 10.0 fps")
    assert out.count("ok ") == 9 and "FAIL" not in out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action", lambda item: item["action"] + 1),
        ("note", lambda item: "other"),
        ("task", lambda item: "other"),
        ("timestamp", lambda item: item["timestamp"] + np.float32(0.001)),
        (CAMERA, lambda item: item[CAMERA][:, ::-1] * 0.5),
    ],
)
def test_what_differs_fails(dataset, lerobot, capsys, name, value):
    lerobot[name] = value
    assert check_lerobot.main([str(dataset)]) == 1
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines() if "FAIL" in line] == [f"FAIL {name}"]


def test_without_lerobot(dataset, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lerobot", None)
    assert check_lerobot.main([str(dataset)]) == 2
    assert "error: lerobot is not installed" in capsys.readouterr().err
