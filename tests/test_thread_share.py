"""How many threads a process takes, and what its children are told."""

import json
import os
import subprocess
import sys

import pytest

from msdyn.thread_share import thread_environment

_COUNTS = """
import json, cv2, numba, numpy, scipy.linalg, sklearn.cluster, threadpoolctl, torch
pools = {p["filepath"]: p["num_threads"] for p in threadpoolctl.threadpool_info()}
print(json.dumps([
    torch.get_num_threads(), cv2.getNumThreads(), numba.get_num_threads(), *pools.values()
]))
"""


def test_libraries_of_a_child_take_one_thread():
    run = subprocess.run(
        [sys.executable, "-c", _COUNTS],
        env=os.environ | thread_environment(1),
        capture_output=True,
        text=True,
        check=True,
    )
    counts = json.loads(run.stdout)
    assert len(counts) >= 5 and set(counts) == {1}


@pytest.mark.parametrize("threads", [0, -1])
def test_environment_of_too_few_threads(threads):
    with pytest.raises(ValueError, match="threads"):
        thread_environment(threads)
