"""Clips of 50 to 400 frames through the commands, each in a process: memory hardly grows.

Longer clips are the same one played forwards and backwards, so that their motion per frame is the
same. `pytest -s` prints the peaks.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from clips import two_boxes

from msdyn.io import write_video
from msdyn.reading import read_json
from msdyn.scene import Scene

FRAMES = (50, 100, 200, 400)
WIDTH, HEIGHT = 192, 144
SHOWN = 50
"""Frames before the clip is played backwards."""
FIT = (
    "--preset quick --epochs 2 --prefit-steps 20 --static-gaussians 2000 --moving-gaussians 500 "
    "--density.max-static 2500 --density.max-moving 1000"
)
"""Longer fits have more steps, in which more Gaussians would come."""
LIMITS = {"preprocess": 0.5, "fit": 0.3, "render": 0.3, "evaluate": 0.3}
"""MB per frame that the peak of a command may grow by.

Preprocessing grows by 0.7 up to 200 frames, which structure from motion solves together, and by 0.1
beyond."""
SCRIPT = """
import sys
from pathlib import Path
from msdyn.cli.{} import main
code = main()
words = Path("/proc/self/status").read_text().split()
print("peak", words[words.index("VmHWM:") + 1])
sys.exit(code)
"""

pytestmark = pytest.mark.reliability


def to_and_fro(frames: int) -> Iterator[np.ndarray]:
    """Yield frames of the clip, forwards and backwards."""
    images = two_boxes(SHOWN, WIDTH, HEIGHT).clip.images
    for i in range(frames):
        yield images[SHOWN - 1 - abs(SHOWN - 1 - i % (2 * SHOWN - 2))]


def peak(command: str, *arguments: object) -> float:
    """Run a command in a process of its own, and return its peak of resident memory in MB."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(command), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


@pytest.fixture(scope="module")
def peaks(tmp_path_factory) -> dict[str, list[float]]:
    """The peaks of each command, for each number of frames."""
    found: dict[str, list[float]] = {
        name: [] for name in ("preprocess", "fit", "render", "evaluate")
    }
    for frames in (FRAMES[0], *FRAMES):  # the first time, kernels are compiled
        folder = tmp_path_factory.mktemp("long")
        write_video(folder / "clip.mp4", to_and_fro(frames), 24)
        scene, video = folder / "scene", folder / "path.mp4"
        options = ("--out", scene, "--preset", "offline", "--accept-poor")
        found["preprocess"].append(peak("preprocess", folder / "clip.mp4", *options))
        found["fit"].append(peak("fit", scene, *FIT.split(), "--device", "cpu"))
        found["render"].append(peak("render", scene, "--path", "auto", "--out", video))
        found["evaluate"].append(peak("evaluate", scene))
        assert len(Scene(scene)) == frames and video.is_file()
        assert np.isfinite(read_json(scene / "fit" / "eval.json")["frames"]["mpsnr"])
    found = {name: values[1:] for name, values in found.items()}
    print(json.dumps(found))
    return found


@pytest.mark.parametrize("command", LIMITS)
def test_memory_grows_by_little_per_frame(peaks, command):
    growth = np.polyfit(FRAMES, peaks[command], 1)[0]
    print(f"{command}: {growth:.2f} MB per frame, {peaks[command]}")
    assert growth < LIMITS[command]
