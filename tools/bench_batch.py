"""What `msdyn-batch` costs: beside a plain loop over the clips, per clip, and in memory.

    python tools/bench_batch.py loop VIDEOS --json FILE  # the same clips in a loop and in batches
    python tools/bench_batch.py overhead --json FILE     # stages that do nothing
    python tools/bench_batch.py memory --json FILE       # the driver, by the rows of a manifest

Figures of `loop` are ratios within one run, in which the ways take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from msdyn.batch import LocalEngine, Row, RunConfig, WorkerOptions, run_batch
from msdyn.batch.engine import Event, Worker
from msdyn.batch.manifest import VIDEOS

STAGES = Path(__file__).parents[1] / "tests" / "batch_stages.py"
PREPROCESS = "--preset offline --accept-poor"
FIT = "--preset quick --epochs 3 --prefit-steps 5 --static-gaussians 300 --moving-gaussians 150"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("part", choices=["loop", "overhead", "memory", "driver"])
    parser.add_argument("videos", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--preprocess", default=PREPROCESS)
    parser.add_argument("--fit", default=FIT)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        match given.part:
            case "loop":
                result = loop(given.videos, Path(folder), given)
            case "overhead":
                result = overhead(Path(folder), given.clips)
            case "driver":
                return _drive(given.videos, given.rows)
            case _:
                result = memory(Path(folder), given.rows)
    print(json.dumps(result, indent=1))
    if given.json:
        from machine import describe_machine  # it loads torch, which drivers do not

        parts = json.loads(given.json.read_text()) if given.json.is_file() else {}
        parts[given.part] = {"machine": describe_machine(), **result}
        given.json.write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    return 0


def loop(videos: Path, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run the clips of a folder in a loop of commands, and in batches; return clips per hour."""
    paths = [path for path in sorted(videos.iterdir()) if path.suffix in VIDEOS]
    batch = [
        "msdyn-batch",
        "run",
        str(videos),
        f"--preprocess={given.preprocess}",
        f"--fit={given.fit}",
    ]
    ways = {
        "loop": None,
        "batch, 1 worker": ["--workers", "1"],
        "batch, 2 workers": ["--workers", "2"],
        "Ray, 2 workers": ["--workers", "2", "--engine", "ray"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    for number in range(given.rounds):
        for name, options in ways.items():
            out = folder / f"{number}-{name.replace(' ', '-')}"
            start = time.perf_counter()
            if options is None:
                for path in paths:
                    scene = out / path.stem
                    calls = (
                        ["msdyn-preprocess", path, "--out", scene, *shlex.split(given.preprocess)],
                        ["msdyn-fit", scene, *shlex.split(given.fit)],
                        ["msdyn-eval", scene],
                    )
                    for call in calls:
                        _call(call, environment)
            else:
                _call([*batch, "--out", out, *options], environment)
            seconds[name].append(time.perf_counter() - start)
            shutil.rmtree(out)
    return {
        "clips": len(paths),
        "seconds": seconds,
        "clips_per_hour": {n: 3600 * len(paths) / min(s) for n, s in seconds.items()},
        "times_the_loop": {n: min(seconds["loop"]) / min(s) for n, s in seconds.items()},
    }


def _call(arguments: Sequence[object], environment: dict[str, str]) -> None:
    command = [str(Path(sys.executable).parent / str(arguments[0])), *map(str, arguments[1:])]
    subprocess.run(command, check=True, env=environment, capture_output=True)


def overhead(folder: Path, clips: int) -> dict[str, Any]:
    """Run clips whose stages do nothing on two workers; return seconds of a clip."""
    manifest = folder / "m.csv"
    lines = [f"c{i:06d},ok" for i in range(clips)]
    manifest.write_text("\n".join(["clip,uri", *lines]) + "\n", encoding="utf-8")
    result: dict[str, Any] = {"clips": clips, "stages": 7}
    for name in ("local", "ray"):
        out = folder / name
        options = WorkerOptions(str(out), command=(sys.executable, str(STAGES)))
        if name == "local":
            engine: Any = LocalEngine(options, 2)
        else:
            from msdyn.batch.ray_engine import RayEngine, connect

            engine = RayEngine(connect(None, 2)[0], options, 2)
        begun = time.perf_counter()
        summary = run_batch(RunConfig(str(manifest), str(out)), engine)
        assert summary.done == clips
        result[name] = {
            "seconds_per_clip": (time.perf_counter() - begun) / clips,
            # From the first stage on: without the start of processes.
            "seconds_per_clip_running": summary.seconds / clips,
        }
    return result


def memory(folder: Path, rows: int) -> dict[str, Any]:
    """Run manifests of a hundredth of the rows, and of all; return the memory of their drivers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    result: dict[str, Any] = {}
    for count in (rows // 100, rows):
        manifest = folder / f"{count}.parquet"
        table = {"clip": [f"clip-{i:08d}" for i in range(count)], "uri": ["ok"] * count}
        pq.write_table(pa.table(table), manifest)
        command = [sys.executable, __file__, "driver", str(manifest), "--rows", str(count)]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        result[str(count)] = json.loads(run.stdout)
    peaks = [figures["peak_mb"] for figures in result.values()]
    return result | {"bytes_per_row": 1e6 * (peaks[1] - peaks[0]) / (0.99 * rows)}


def _drive(manifest: Path, rows: int) -> int:
    """Drive a batch whose stages do nothing at all, in this process; print its memory."""
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        summary = run_batch(RunConfig(str(manifest), out), Nothing())
        seconds = time.perf_counter() - begun
    assert summary.done == rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_mb": peak / 1e6, "seconds": seconds}))
    return 0


class Nothing:
    """An engine whose workers have done everything at once."""

    cpu_workers, cards = 16, 0

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._rows: dict[str, list[Row]] = {}

    def start(self, worker: Worker) -> None:
        self._events.append(Event(worker, ready=True, host="here"))

    def submit(self, worker: Worker, job: Any) -> None:
        rows = self._rows.setdefault(job.clip.id, [])
        rows.append(Row(job.clip.id, job.stage, "done", started=time.time(), seconds=0.1))
        answer = list(rows)
        if job.stage == "evaluate":
            del self._rows[job.clip.id]
            answer[-1] = replace(answer[-1], verdict="good", psnr=20.0)
        self._events.append(Event(worker, rows=answer))

    def wait(self, seconds: float) -> list[Event]:
        events, self._events = self._events, []
        return events

    def stop(self, worker: Worker) -> None: ...

    def close(self) -> None: ...


if __name__ == "__main__":
    sys.exit(main())
