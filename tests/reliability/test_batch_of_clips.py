"""24 clips, of which eight are poison, on two workers of Ray; workers and drivers are killed."""

import csv
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from batch_driver import ends

from msdyn.batch import Store, read_rows
from msdyn.io import write_video
from msdyn.synthetic import make_scene, render_truth

pytestmark = pytest.mark.reliability
COMMAND = str(Path(sys.executable).parent / "msdyn-batch")
FIT = (
    "--preset quick --epochs 3 --prefit-steps 5 --static-gaussians 300 --moving-gaussians 150 "
    "--holdout-every 8 --device cpu"
)
OPTIONS = (
    *("--preprocess", "--preset offline", "--fit", FIT),
    *("--max-memory", "1200M", "--time-limit", "90"),
)
REASONS = {
    "truncated": "bad-input",
    "no-video": "bad-input",
    "missing": "bad-input",
    "blank": "poor",
    "still": "poor",
    "crash": "crashed",
    "eat": "out-of-memory",
    "hang": "timed-out",
}
GOOD = 16


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Write the clips; return the manifest."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []

    def add(name, frames, options=""):
        write_video(folder / f"{name}.mp4", frames, 24)
        rows.append((name, f"{name}.mp4", options, f"robot of {name}"))

    for seed in range(GOOD):
        scene = make_scene("articulated", frames=12, width=192, height=144, seed=seed)
        frames = render_truth(scene).clip.images
        add(f"good-{seed:02d}", frames)
    for name in ("crash", "eat", "hang"):
        add(name, frames, f"--masks {name}")
    add("still", np.repeat(frames[:1], 12, 0))
    noise = np.random.default_rng(0).integers(0, 2, frames.shape)
    add("blank", (90 + noise).astype(np.uint8))
    whole = (folder / "good-00.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "no-video.mp4").write_bytes(b"a text" * 100)
    rows += [(n, f"{n}.mp4", "", "") for n in ("truncated", "no-video", "missing")]
    random.Random(1).shuffle(rows)
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "uri", "preprocess", "robot"])
        writer.writerows(rows)
    return folder / "clips.csv"


def started(manifest, out, *options):
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    plugins = {"MSDYN_PLUGINS": "poison", "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(
            [COMMAND, "run", str(manifest), "--out", str(out), *OPTIONS, *options],
            env=os.environ | plugins,
            stdout=log,
            stderr=log,
        )


def results(out):
    """Return the files of all clips that are the same in every run."""
    kept = ("cameras.json", "tracks.npz", "masks", "depth", "sequence.safetensors")
    found = {}
    for path in sorted(out.glob("clips/*/scene/**/*")):
        if path.is_file() and (path.name in kept or path.parent.name in kept):
            found[str(path.relative_to(out))] = path.read_bytes()
    return found


RAY = ("--engine", "ray", "--workers", "2")


@pytest.fixture(scope="module")
def whole(manifest, tmp_path_factory):
    """Return the folder of a batch that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert started(manifest, out, *RAY).wait() == 0
    return out


def same_ends(one, other):
    """Return whether the clips of two batches ended alike; peaks and times differ."""
    return ends(one) == ends(other)


def test_every_clip_has_its_end(whole):
    rows = ends(whole)
    assert len(rows) == 24
    reasons = {clip: clip_rows[-1][6] for clip, clip_rows in rows.items()}
    assert {clip: reasons[clip] for clip in REASONS} == REASONS
    assert [reasons[f"good-{seed:02d}"] for seed in range(GOOD)] == ["done"] * GOOD
    table = {row["clip"]: row for row in pq.read_table(whole / "quarantine.parquet").to_pylist()}
    assert set(table) == set(REASONS)
    assert table["crash"]["attempts"] == table["eat"]["attempts"] == 2
    assert table["hang"]["attempts"] == 1
    assert all("\n" not in row["error"] and row["cure"] for row in table.values())
    psnr = {row.clip: row.psnr for row in read_rows(Store(str(whole))) if row.ended == "done"}
    assert len(psnr) == GOOD and all(value is not None and value > 10 for value in psnr.values())


def test_a_worker_is_killed(manifest, whole, tmp_path):
    out = tmp_path / "out"
    driver = started(manifest, out, *RAY)
    rng, killed = random.Random(5), 0
    while driver.poll() is None and killed < 3:
        time.sleep(rng.uniform(5, 25))
        pids = _workers(out)
        if pids:
            os.kill(rng.choice(pids), 9)
            killed += 1
    assert driver.wait() == 0 and killed == 3
    assert same_ends(out, whole)
    assert results(out) == results(whole)


def test_the_driver_is_killed(manifest, whole, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        driver = started(manifest, out, *RAY)
        time.sleep(random.Random(7).uniform(25, 50))
        assert driver.poll() is None
        driver.kill()
        driver.wait()
    assert started(manifest, out, *RAY).wait() == 0
    assert same_ends(out, whole)
    assert results(out) == results(whole)


def test_shards(manifest, whole, tmp_path):
    out = tmp_path / "out"
    local = ("--engine", "local", "--workers", "1")
    drivers = [started(manifest, out, *local, "--shard", f"{i}/2") for i in (1, 2)]
    assert [driver.wait() for driver in drivers] == [0, 0]
    assert same_ends(out, whole)
    assert results(out) == results(whole)
    for path in out.glob("clips/*/log.txt"):
        lines = [line.split()[1:4] for line in path.read_text().splitlines() if line[:3] == "== "]
        assert len(lines) == len({tuple(line) for line in lines}), "a stage ran twice"


def _workers(out):
    """Return the numbers of the processes that run stages, and of those that watch them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
            if b"msdyn.cli.batch_worker" in command and str(out).encode() in command:
                status = (path.parent / "status").read_text()
                parent = int(status.partition("PPid:")[2].split()[0])
                found += [int(path.parent.name), parent]
        except OSError:
            continue
    return found
