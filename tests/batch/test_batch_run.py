"""Whole batches: results, quarantine, what an end in the middle leaves, shards, retries."""

import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from batch_driver import contents, ends, retry, run

from msdyn.batch import Store, batch_status, read_rows
from msdyn.errors import InputError

DRIVER = Path(__file__).parents[1] / "batch_driver.py"
KINDS = {
    "bad@tracks": "bad-input",
    "poor@cameras": "poor",
    "crash@fit": "crashed",
    "crash@first": "done",
    "eat@masks": "out-of-memory",
    "hang@depth": "timed-out",
    "raise@evaluate": "crashed",
}
IN_S3 = tuple(KINDS)[:4]


def write_manifest(path, kinds, good):
    uris = {f"k{i}": kind for i, kind in enumerate(kinds)} | {f"g{i}": "ok" for i in range(good)}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "uri", "robot"])
        writer.writerows([name, uri, "arm"] for name, uri in uris.items())
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a manifest and the folder of a batch that ran in one go."""
    folder = tmp_path_factory.mktemp("batch")
    manifest = write_manifest(folder / "m.csv", KINDS, 3)
    run(manifest, folder / "out")
    return manifest, folder / "out"


def test_results(whole):
    _, out = whole
    rows = ends(out)
    assert set(rows) == {f"k{i}" for i in range(7)} | {f"g{i}" for i in range(3)}
    for number, (kind, end) in enumerate(KINDS.items()):
        clip = rows[f"k{number}"]
        assert clip[-1][6] == end, (kind, clip)
        assert [row[6] for row in clip[:-1]] == [""] * (len(clip) - 1)
        tries = {"crashed": 2, "out-of-memory": 2}.get(end, 2 if kind == "crash@first" else 1)
        assert max(row[1] for row in clip) == tries
    assert {tuple(json.loads(row[9]).items()) for clip in rows.values() for row in clip} == {
        (("robot", "arm"),)
    }


def test_quarantine_and_page(whole):
    _, out = whole
    table = {row["clip"]: row for row in pq.read_table(out / "quarantine.parquet").to_pylist()}
    expected = {f"k{i}": end for i, end in enumerate(KINDS.values()) if end != "done"}
    assert {clip: row["reason"] for clip, row in table.items()} == expected
    assert all(row["cure"] and row["error"] and row["uri"] for row in table.values())
    assert table["k2"]["attempts"] == 2 and table["k0"]["attempts"] == 1
    page = (out / "index.html").read_text()
    assert "10 of 10" in page and "out-of-memory" in page and 'href="clips/k4/log.txt"' in page
    plan, summary = batch_status(str(out))
    assert plan.clips == 10 and summary.done == 4 and summary.quarantined == 6
    assert summary.counts == Counter(KINDS.values()) + Counter({"done": 3})
    assert len(summary.worst) == 4 and summary.worst[0][0] == 22.0
    assert not (out / ".drivers" / "all").exists()


def test_nothing_runs_twice(whole):
    manifest, out = whole
    rows, files = ends(out), contents(out)
    logs = {path: path.read_bytes() for path in out.glob("clips/*/log.txt")}
    run(manifest, out)
    assert ends(out) == rows and contents(out) == files
    assert {path: path.read_bytes() for path in out.glob("clips/*/log.txt")} == logs


@pytest.mark.parametrize("lost_parts", [pytest.param(False, marks=pytest.mark.reliability), True])
def test_a_driver_that_is_killed(whole, tmp_path, lost_parts):
    """The same call goes on, and ends with the same results."""
    manifest, out = whole
    driver = subprocess.Popen([sys.executable, DRIVER, manifest, tmp_path])
    while len(list(tmp_path.glob("clips/*/record.json"))) < 8:
        assert driver.poll() is None
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    if lost_parts:  # it was killed before it had written any rows
        for part in tmp_path.glob("results/*"):
            part.unlink()
    assert 0 < len(contents(tmp_path)) < len(contents(out))
    run(manifest, tmp_path)
    assert ends(tmp_path) == ends(out) and contents(tmp_path) == contents(out)
    assert not list(tmp_path.rglob("*~*"))


def test_shards(whole, tmp_path):
    """Two processes at a time, each with its part: the same results, no clip twice."""
    manifest, out = whole
    drivers = [
        subprocess.Popen([sys.executable, DRIVER, manifest, tmp_path, f"{i}/2"]) for i in (1, 2)
    ]
    assert [driver.wait() for driver in drivers] == [0, 0]
    assert ends(tmp_path) == ends(out) and contents(tmp_path) == contents(out)
    names = {path.name.split("-0179")[0] for path in tmp_path.glob("results/*")}
    assert names == {"part-00001-of-00002", "part-00002-of-00002"}
    for path in tmp_path.glob("clips/*/log.txt"):
        headings = [line for line in path.read_text().splitlines() if line.startswith("==")]
        parts = [tuple(line.split()[1:4]) for line in headings]
        assert len(set(parts)) == len(parts), "a stage ran twice"
    table = pq.read_table(tmp_path / "quarantine.parquet").to_pylist()
    assert len(table) == 6
    assert "10 of 10" in (tmp_path / "index.html").read_text()


def test_retry(tmp_path):
    manifest = write_manifest(tmp_path / "m.csv", ["hang@fit", "bad@tracks", "poor@cameras"], 1)
    out = tmp_path / "out"
    assert run(manifest, out).counts == {"done": 1, "timed-out": 1, "bad-input": 1, "poor": 1}
    with pytest.raises(InputError, match="no clip in quarantine for crashed; its clips: "):
        retry(out, "crashed")
    summary = retry(out, "timed-out", "poor")
    assert +summary.counts == {"done": 1, "timed-out": 1, "bad-input": 1, "poor": 1}
    rows = ends(out)
    assert [row[0] for row in rows["k0"]] == [0] * 6 + [1] * 6
    assert {row[0] for row in rows["k1"]} == {0} and {row[0] for row in rows["k2"]} == {0, 1}
    # The cause is mended: a second retry brings it through.
    text = manifest.read_text().replace("hang@fit", "ok")
    manifest.write_text(text)
    summary = retry(out, "timed-out")
    assert +summary.counts == {"done": 2, "bad-input": 1, "poor": 1}
    assert len(pq.read_table(out / "quarantine.parquet")) == 2
    before = ends(out)
    run(manifest, out)
    assert ends(out) == before


def test_clips_that_are_added(tmp_path):
    manifest, out = write_manifest(tmp_path / "m.csv", [], 2), tmp_path / "out"
    run(manifest, out)
    write_manifest(manifest, [], 4)
    assert run(manifest, out).done == 4
    assert batch_status(str(out))[0].clips == 4


def test_another_batch_is_refused(whole):
    manifest, out = whole
    with pytest.raises(InputError, match="was begun with preprocess '', not '--depth fused'"):
        run(manifest, out, preprocess="--depth fused")
    with pytest.raises(InputError, match="was begun with until 'evaluate', not 'depth'"):
        run(manifest, out, until="depth")
    with pytest.raises(FileNotFoundError, match="no batch here"):
        batch_status(str(manifest.parent / "nothing"))


@pytest.mark.parametrize("text", ["{", '{"version": 9}', '{"version": 1, "plan": {"a": 1}}'])
def test_damaged_plans(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json"):
        batch_status(str(tmp_path))


def test_damaged_results(whole, tmp_path):
    _, out = whole
    (tmp_path / "run.json").write_bytes((out / "run.json").read_bytes())
    (tmp_path / "results").mkdir()
    part = next((out / "results").iterdir())
    (tmp_path / "results" / part.name).write_bytes(part.read_bytes()[:-9])
    with pytest.raises(InputError, match="not a readable parquet file"):
        batch_status(str(tmp_path))


def test_results_in_s3(whole, tmp_path, s3):
    """A store elsewhere has the same results as a folder."""
    from batch_driver import LIMITS
    from batch_stages import options

    from msdyn.batch import LocalEngine, RunConfig, Store, run_batch

    manifest = write_manifest(tmp_path / "m.csv", IN_S3, 1)
    names = [f"k{i}" for i in range(len(IN_S3))] + ["g0"]
    given = options(f"{s3}/a", tmp_path / "scratch", **LIMITS | {"time_limit": 60.0})
    summary = run_batch(RunConfig(str(manifest), f"{s3}/a"), LocalEngine(given, 2))
    assert summary.counts == Counter(KINDS[kind] for kind in IN_S3) + Counter({"done": 1})
    rows, files = ends(whole[1]), contents(whole[1])
    assert ends(f"{s3}/a") == {name: rows[name] for name in names}
    store = Store(f"{s3}/a")
    found = {name: store.read(name) for name in store.names("clips", deep=True)}
    found = {name: content for name, content in found.items() if "/scene/" in name}
    assert found == {name: files[name] for name in files if name.split("/")[1] in names}
    assert b"5 of 5" in (store.read("index.html") or b"")
    assert not list((tmp_path / "scratch").glob("*/*"))


@pytest.mark.slow
def test_actors_of_ray(whole, tmp_path):
    """The same results with Ray, also where a worker's actor is killed."""
    pytest.importorskip("ray")
    manifest, out = whole
    driver = subprocess.Popen([sys.executable, DRIVER, manifest, tmp_path, "ray"])
    while not (killed := _actors(tmp_path, driver.pid)) or len(list(tmp_path.glob("clips/*"))) < 4:
        assert driver.poll() is None
        time.sleep(0.1)
    os.kill(killed[0], 9)
    assert driver.wait() == 0
    assert ends(tmp_path) == ends(out) and contents(tmp_path) == contents(out)


@pytest.mark.reliability
def test_gpus_of_ray(tmp_path):
    """A fit has a GPU by itself, networks a quarter of one, others none."""
    pytest.importorskip("ray")
    manifest, out = write_manifest(tmp_path / "m.csv", ["die@fit"], 4), tmp_path / "out"
    subprocess.run([sys.executable, DRIVER, manifest, out, "ray", "gpus"], check=True)
    rows = list(read_rows(Store(str(out))))
    shares = {"tracks": 0, "cameras": 0, "fit": 1}
    for row in rows:
        share = shares.get(row.stage, 0.25)
        assert row.gpu_seconds == pytest.approx(share * row.seconds), row
    assert [row.clip for row in rows if row.ended == "lost"] == ["k0"]
    assert sum(row.ended == "done" for row in rows) == 4
    for log in out.glob("clips/*/log.txt"):
        lines = [line for line in log.read_text().splitlines() if line.startswith("GPU of ")]
        for line in lines:
            stage, gpu = line.removeprefix("GPU of ").split(":")
            assert gpu.strip() in (("0", "1") if shares.get(stage, 0.25) else ("",)), line


def _actors(out, driver):
    """Return the numbers of the processes of actors that have a process of stages of a batch."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
            if b"batch_stages.py" in command and str(out).encode() in command:
                status = (path.parent / "status").read_text()
                parent = int(status.partition("PPid:")[2].split()[0])
                if parent != driver:
                    found.append(parent)
        except OSError:
            continue
    return found
