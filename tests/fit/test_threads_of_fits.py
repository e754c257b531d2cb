"""How many threads a fit has, and that its result does not depend on them."""

import json
import os
import subprocess
import sys

import pytest
import torch
from small_fits import config
from threadpoolctl import threadpool_info

from msdyn.fit import fit_scene
from msdyn.thread_share import thread_environment

_WORKER = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from msdyn.fit import MotionConfig, fit_scene, preset
from msdyn.scene import Scene
tasks = []
scene, out = Path(sys.argv[1]), Path(sys.argv[2])
config = replace(preset("quick"), epochs=8, static_gaussians=200, moving_gaussians=100,
                 device="cpu", motion=MotionConfig(prefit_steps=2, joint_refinement="off"), out=out)
fit_scene(Scene(scene), config, watch=lambda _: tasks.append(len(os.listdir("/proc/self/task"))))
print(json.dumps(tasks))
"""


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.reliability
@pytest.mark.usefixtures("two_threads")
def test_small_steps_have_one_thread_of_torch_and_blas(plane_scene, tmp_path):
    seen = []

    def watch(_):
        pools = [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]
        seen.append((torch.get_num_threads(), max(pools)))

    fit_scene(plane_scene, config(tmp_path), watch=watch)
    assert set(seen) == {(1, 1)}
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_equal_bytes_with_one_and_two_threads(plane_scene, tmp_path):
    written, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            fit_scene(plane_scene, config(tmp_path / str(threads)))
            written.append((tmp_path / str(threads) / "fit/sequence.safetensors").read_bytes())
    finally:
        torch.set_num_threads(before)
    assert written[0] == written[1]


@pytest.mark.reliability
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_a_worker_with_a_share_of_one_has_one_thread(plane_scene, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", _WORKER, str(plane_scene.directory), str(tmp_path / "fit")],
        env=os.environ | thread_environment(1),
        capture_output=True,
        text=True,
        check=True,
    )
    tasks = json.loads(run.stdout)
    assert tasks and set(tasks) == {1}
