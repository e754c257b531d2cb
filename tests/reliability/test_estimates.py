"""Estimates beside what commands are measured to take, at both ends of lengths and sizes.

Of memory the estimate is 0.8 to 2 times what is measured, of disk 0.7 to 1.5 times; of time a
factor of ten either way, in seconds of the processor, whatever else the machine does. The limit of
memory of a running fit is kept, and the fit resumes with a greater one.
"""

import os
import re
import subprocess
import sys

import pytest
from calibrate_estimates import fits, preprocessing

from msdyn.io import write_video
from msdyn.synthetic import make_scene, render_truth

pytestmark = pytest.mark.reliability

SIZES = [(12, 96), (12, 384), (100, 96), (100, 192)]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A clip of 100 frames of 384x288."""
    truth = render_truth(make_scene("two-boxes", frames=100, width=384, height=288))
    path = tmp_path_factory.mktemp("estimates") / "clip.mp4"
    write_video(path, list(truth.clip.images), 24)
    return path


def check(row):
    ratios = row.ratios()
    print(row.name, ratios, row.measured)
    assert 0.8 <= ratios["memory"] <= 2, row
    assert 0.7 <= ratios["disk"] <= 1.5, row
    assert row.measured.processor is not None and row.estimate.seconds is not None
    assert 0.1 <= row.estimate.seconds / row.measured.processor <= 10, row


@pytest.mark.parametrize("frames, side", SIZES)
def test_preprocessing_and_fits(video, frames, side, tmp_path):
    for row in preprocessing(video, [frames], [side], tmp_path):
        check(row)
    for row in fits([tmp_path / f"{video.stem}_{frames}_{side}"], 1, tmp_path):
        check(row)


def test_a_real_limit_ends_a_fit_that_resumes_with_a_greater_one(video, tmp_path):
    """The fit needs less than is expected, so the limit is set within the process."""
    for _ in preprocessing(video, [24], [192], tmp_path):
        pass
    scene = tmp_path / f"{video.stem}_24_192"
    script = (
        "import sys\nfrom dataclasses import fields\nfrom msdyn.fit import estimate\n"
        "estimate._BYTES = estimate._Bytes(*[1.0 for _ in fields(estimate._Bytes)])\n"
        "from msdyn.cli.fit import main\nsys.exit(main())\n"
    )

    def run(limit, out):
        return subprocess.run(
            [sys.executable, "-c", script, str(scene), "--preset", "quick", "--epochs", "3",
             "--out", str(tmp_path / out), "--max-memory", limit],
            capture_output=True, text=True, check=False, env=os.environ | {"TQDM_DISABLE": "1"},
        )  # fmt: skip

    assert run("900G", "whole").returncode == 0
    ended = run("330M", "fit")
    assert ended.returncode == 4 and ended.stderr.count("\n") == 1
    assert re.search(r"[MG]B of memory are in use, more than --max-memory 330M; ", ended.stderr)
    assert run("900G", "fit").returncode == 0
    for name in ("checkpoint.safetensors", "sequence.safetensors"):
        assert (tmp_path / "fit" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
