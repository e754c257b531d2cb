"""Video of 3840x2160: shrunk frame by frame, with what is given in its pixels shrunk alike."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from moving import panning

from msdyn.cli.preprocess import main
from msdyn.io import write_video
from msdyn.scene import Scene

WIDTH, HEIGHT, FRAMES = 3840, 2160, 6


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("4k") / "clip.mp4"
    small = panning(FRAMES, (216, 384), 1.0, (2.0, 0.5))[0]
    write_video(path, (cv2.resize(image, (WIDTH, HEIGHT)) for image in small), 24)
    return path


@pytest.mark.slow
def test_frames_are_shrunk_and_intrinsics_with_them(clip, tmp_path):
    stages = [part for stage in ("frames", "tracks", "masks", "cameras")
              for part in ("--only", stage)]  # fmt: skip
    intrinsics = ["--intrinsics", "8000", "8000", "1920", "1080"]
    out = tmp_path / "scene"
    assert main([str(clip), "--out", str(out), "--masks", "none", *intrinsics, *stages]) == 3
    scene = Scene(out)
    options = scene.info.stages["frames"]["options"]
    assert scene.size == (540, 960)
    assert (options["source_width"], options["source_height"]) == (WIDTH, HEIGHT)
    np.testing.assert_allclose(
        scene.cameras.intrinsics[0], [[2000, 0, 480], [0, 2000, 270], [0, 0, 1]]
    )


@pytest.mark.reliability
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_few_frames_are_in_memory_at_a_time(clip, tmp_path):
    code = (
        "import sys; from msdyn.cli.preprocess import main; main(sys.argv[1:]);"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    peaks = []
    for name, options in (("few", ["--end", "0.1"]), ("all", [])):
        arguments = [str(clip), "--out", str(tmp_path / name), "--only", "frames", *options]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split("VmHWM:")[1].split()[0]) / 1000)
    # MB: 523 and 495, of which Python and its packages are 275; a frame has 25.
    assert peaks[1] < 800 and peaks[1] < peaks[0] + 60
