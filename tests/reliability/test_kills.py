"""Commands that are killed again and again end in order, and finish with the same result.

The number of kills of each command is that of MSDYN_KILLS, 100 by default.
"""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from clips import two_boxes

from msdyn.io import write_video
from msdyn.synthetic import write_priors
from msdyn.writing import LOCK

KILLS = int(os.environ.get("MSDYN_KILLS", "100"))
# From its first line on; before that Python itself is still starting.
SCRIPT = """
import sys
import msdyn.cli
print("started", flush=True)
from msdyn.cli.{} import main
sys.exit(main())
"""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}

pytestmark = pytest.mark.reliability


def start(command, folder, *arguments):
    script = folder / f"msdyn-{command}"
    script.write_text(SCRIPT.format(command))
    process = subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TQDM_DISABLE": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    return process


def digests(folder, patterns):
    """Return the digests of the files whose content does not depend on the time taken."""
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    assert files
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def left_over(folder):
    """Return names of files that only a running process has."""
    return [
        str(path)
        for path in folder.rglob(".*")
        if path.is_file() and (path.name == LOCK or re.search(r"~[0-9a-f]+-", path.name))
    ]


def kill_often(command, folder, out, arguments, patterns):
    """Kill a command at random moments; return the ends that were not in order."""
    begin = time.monotonic()
    process = start(command, folder, *arguments)
    error = process.communicate()[1]
    assert process.returncode == 0, error
    duration = time.monotonic() - begin
    expected = digests(out, patterns)
    shutil.rmtree(out)
    rng = random.Random(0)
    bad, finished, kills = [], 0, 0
    while kills < KILLS:
        number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
        wait = rng.uniform(0, duration)
        before = left_over(folder)  # of a process that was killed by SIGKILL
        process = start(command, folder, *arguments)
        try:
            error = process.communicate(timeout=wait)[1]
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            error = process.communicate(timeout=60)[1]
            kills += 1
        if process.returncode == 0:  # it was quicker
            finished += 1
            if digests(out, patterns) != expected:
                bad.append(("another result", wait))
            shutil.rmtree(out)
            continue
        lines = [line for line in error.splitlines() if not line.startswith("warning: ")]
        in_order = process.returncode == CODES[number] and len(lines) == (number != signal.SIGKILL)
        if number != signal.SIGKILL and set(left_over(folder)) - set(before):
            in_order = False
        if not in_order:
            bad.append((number.name, round(wait, 2), process.returncode, error[-500:]))
    print(*bad, sep="\n")
    print(f"{command}: {kills - len(bad)} of {kills} ends in order, {finished} runs finished")
    return bad


def test_kills_of_preprocess(tmp_path):
    truth = two_boxes(8, 128, 96)
    write_video(tmp_path / "clip.mp4", truth.clip.images, 24)
    out = tmp_path / "scene"
    arguments = (tmp_path / "clip.mp4", "--out", out, "--preset", "offline", "--accept-poor")
    patterns = ("images/*", "masks/*", "depth/*", "tracks.npz", "cameras.json")
    assert kill_often("preprocess", tmp_path, out, arguments, patterns) == []


def test_kills_of_a_fit(tmp_path):
    write_priors(two_boxes(12, 96, 72), tmp_path / "scene", level="exact", seed=0)
    out = tmp_path / "scene" / "fit"
    options = "--preset quick --prefit-steps 5 --static-gaussians 300 --moving-gaussians 150"
    options += " --epochs 30 --device cpu"
    arguments = (tmp_path / "scene", *options.split())
    patterns = ("sequence.safetensors", "checkpoint.safetensors", "previews/*")
    assert kill_often("fit", tmp_path, out, arguments, patterns) == []
