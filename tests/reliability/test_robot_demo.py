"""The whole way of a robot's episode: dataset, scene, fit, augmented dataset, against the truth."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from msdyn.io import LeRobotDataset

ROOT = Path(__file__).parents[2]


@pytest.mark.reliability
def test_the_robot_demo(tmp_path):
    command = [sys.executable, ROOT / "examples/robot_demo.py", tmp_path / "out", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    augmented = LeRobotDataset(tmp_path / "out/augmented")
    assert len(augmented) == 2
    for episode in (0, 1):
        text = done.stdout.split(f"episode {episode}: ")[1].split("\nepisode ")[0]
        assert text.startswith("states and actions untouched")
        block = re.search(r"block \(overlap ([\d.]+)\), position off by (\d+) mm", text)
        assert block and float(block[1]) > 0.8 and int(block[2]) < 30
        static = re.search(r"static, off by (\d+) mm", text)
        assert static and int(static[1]) < 5
        views = re.findall(r"([\d.]+)% supported; PSNR ([\d.]+) dB there, ([\d.]+) dB else", text)
        assert len(views) == 2
        for share, there, elsewhere in (map(float, view) for view in views):
            assert share > 85 and there > 20 and there > elsewhere + 5
