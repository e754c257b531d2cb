"""A batch of clips, round and round in one process, and what is left of each round.

    python tests/reliability/soak.py FOLDER --seconds 7200

The batch has clips that are fitted, one of them new in every round, a folder of images, a blank
clip that is refused, and a damaged file. A line per round is printed as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

# It is run as a script, where pytest does not set the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands import exit_code  # noqa: E402

from msdyn.cli import evaluate, export, fit, preprocess, render  # noqa: E402
from msdyn.cli.view import ViewConfig, open_viewer  # noqa: E402
from msdyn.interruption import install  # noqa: E402
from msdyn.io import write_video  # noqa: E402
from msdyn.synthetic import make_scene, render_truth  # noqa: E402
from msdyn.writing import LOCK  # noqa: E402

__all__ = ["Round", "faults", "growth", "measured"]

IN_USE_PER_ROUND, RESIDENT_PER_ROUND = 1.0, 2.0
"""Limits of the growth of memory in MB, beyond twice its standard error.

What the allocator has given out stays the same where the clips do (207.3 MB over ten of them), and
grew by 0.1 to 0.4 MB for a clip of a new size, by what libraries cache for it. The resident size
also has the free memory between what is in use. Frames and depth of one clip take 0.7 MB.
"""
SETTLED = 3
"""Rounds after which counts may not grow any more."""
WARM = 10
"""Rounds before memory is watched, 40 clips.

In a process with clips of a new size each, the resident size grew from 750 to 875 MB over the first
20, by free memory between what is in use, and not over the next 12.
"""
FIT = "--preset quick --prefit-steps 5 --static-gaussians 300 --moving-gaussians 150 --epochs 3"
HALF_WRITTEN = re.compile(r"~[0-9a-f]+-")


@dataclass(frozen=True)
class Round:
    """What is there after a round, when its results have been removed.

    Attributes:
        seconds: that it took.
        resident: MB, after a collection of garbage.
        in_use: MB that the allocator of C has given out; 0 where it does not tell.
        descriptors, threads, children, temporary: open files, threads, child processes, and files
            in the temporary folder.
        digests: of results of the clips that are the same in every round.
        state: digests of signal handlers, current folder and environment; the first round's are
            those to compare with, as libraries change them when they are imported.
        wrong: unexpected exit codes and messages, and files that only a running command has.
    """

    number: int
    seconds: float
    resident: float
    in_use: float
    descriptors: int
    threads: int
    children: int
    temporary: int
    digests: dict[str, str]
    state: dict[str, str]
    wrong: list[str]


def growth(rounds: Sequence[Round], name: str) -> tuple[float, float]:
    """Return the growth of `resident` or `in_use` in MB per round, and its standard error.

    By least squares over the warm rounds; both are 0 for fewer than four of them.
    """
    warm = rounds[WARM:]
    if len(warm) < 4:
        return 0.0, 0.0
    numbers, memory = [r.number for r in warm], [getattr(r, name) for r in warm]
    line, covariance = np.polyfit(numbers, memory, 1, cov=True)
    return float(line[0]), float(np.sqrt(covariance[0, 0]))


def faults(rounds: Sequence[Round]) -> list[str]:
    """Return what is wrong with the rounds of a soak, a line each."""
    found = [f"round {r.number}: {line}" for r in rounds for line in r.wrong]
    for name, first in rounds[0].digests.items():
        others = [r.number for r in rounds if r.digests.get(name) != first]
        if others:
            found.append(f"{name}: other bytes in rounds {others[:10]}")
    for name, first in rounds[0].state.items():
        others = [r.number for r in rounds if r.state.get(name) != first]
        if others:
            found.append(f"{name}: changed in rounds {others[:10]}")
    settled = rounds[SETTLED - 1 :]
    for name in ("descriptors", "threads", "children", "temporary"):
        counts = [getattr(r, name) for r in settled]
        if counts and max(counts) > counts[0]:
            found.append(f"{name}: {counts[0]} after round {SETTLED}, later up to {max(counts)}")
    for name, limit in (("in_use", IN_USE_PER_ROUND), ("resident", RESIDENT_PER_ROUND)):
        slope, error = growth(rounds, name)
        if slope - 2 * error > limit:
            found.append(f"{name}: grows by {slope:.2f} MB per round (standard error {error:.2f})")
    return found


def rounds_of(folder: Path, seconds: float) -> Iterator[Round]:
    """Go through the batch until the time is over; yield what is there after each round."""
    sources = _write_sources(folder / "sources")
    end, number = time.monotonic() + seconds, 0
    while number < SETTLED or time.monotonic() < end:
        start = time.monotonic()
        work = folder / "work"
        work.mkdir()
        wrong: list[str] = []
        sources["new"] = _new_clip(work / "new.mp4", number)
        digests: dict[str, str] = {}
        for name, source in sources.items():
            digests |= _through(name, source, work / name, wrong)
        wrong += [
            f"left: {path.relative_to(work)}"
            for path in work.rglob("*")
            if path.name == LOCK or HALF_WRITTEN.search(path.name)
        ]
        shutil.rmtree(work)
        number += 1
        yield measured(number, time.monotonic() - start, digests, wrong)


def _write_sources(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    for name, frames, width, height, seed in (("wide", 8, 128, 96, 1), ("tall", 9, 88, 120, 2)):
        write_video(folder / f"{name}.mp4", _frames(frames, width, height, seed), 24)
    (folder / "images").mkdir()
    for i, image in enumerate(_frames(8, 112, 84, 3)):
        Image.fromarray(image).save(folder / "images" / f"{i:03d}.png")
    noise = np.random.default_rng(0).integers(0, 2, (10, 72, 96, 3))
    write_video(folder / "blank.mp4", (90 + noise).astype(np.uint8), 24)
    whole = (folder / "wide.mp4").read_bytes()
    (folder / "damaged.mp4").write_bytes(whole[: len(whole) // 2])
    return {path.stem: path for path in sorted(folder.iterdir())}


def _frames(frames: int, width: int, height: int, seed: int) -> np.ndarray:
    scene = make_scene("two-boxes", frames=frames, width=width, height=height, seed=seed)
    return render_truth(scene).clip.images


def _new_clip(path: Path, number: int) -> Path:
    """Write a clip of a size that no round before had, as far as there are sizes."""
    rng = np.random.default_rng(number)
    frames, width, height = rng.integers([7, 40, 36], [11, 70, 56])
    write_video(path, _frames(int(frames), 2 * int(width), 2 * int(height), 10 + number), 24)
    return path


def _through(name: str, source: Path, scene: Path, wrong: list[str]) -> dict[str, str]:
    """Take a clip through all commands; return digests of results if it is the same each time."""

    def call(main: Callable[..., int], *arguments: object, codes: tuple[int, ...] = (0,)) -> int:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = exit_code(main, arguments)
            except Exception:  # a bug, after which the soak goes on
                traceback.print_exc()
                code = 1
        lines = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
        if code not in codes or len(lines) != (code != 0) or "Traceback" in err.getvalue():
            module = main.__module__.rpartition(".")[2]
            wrong.append(f"{name}: {module} ended with {code}, expected {codes}: {err.getvalue()}")
        return code

    codes = {"blank": (3,), "damaged": (2,), "new": (0, 2, 3)}.get(name, (0,))
    accept = () if name == "blank" else ("--accept-poor",)
    options = ("--out", scene, "--preset", "offline", *accept)
    if call(preprocess.main, source, *options, codes=codes):
        call(fit.main, scene, "--device", "cpu", codes=(2,))
        return {}
    call(fit.main, scene, *FIT.split(), "--device", "cpu")
    call(render.main, scene, "--time", 0.5, "--out", scene / "middle.png")
    call(render.main, scene, "--path", "auto", "--frames", 4, "--out", scene / "auto.mp4")
    call(evaluate.main, scene)
    for kind in ("ply", "html", "report"):
        call(export.main, scene, "--format", kind)
    call(render.main, scene, "--time", "2", codes=(2,))
    if name == "wide":
        open_viewer(ViewConfig(scene, port=0)).stop()
    if name == "new":
        return {}
    results = ("cameras.json", "tracks.npz", "fit/sequence.safetensors", "middle.png")
    return {
        f"{name}/{result}": hashlib.sha256((scene / result).read_bytes()).hexdigest()
        for result in results
    }


def _state() -> dict[str, str]:
    handlers = {number.name: repr(signal.getsignal(number)) for number in signal.valid_signals()
                if isinstance(number, signal.Signals)}  # fmt: skip
    return {
        "signals": json.dumps(handlers),
        "folder": str(Path.cwd()),
        "environment": json.dumps(dict(sorted(os.environ.items()))),
    }


def measured(number: int, seconds: float, digests: dict[str, str], wrong: list[str]) -> Round:
    """Return what the process has now."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident is not None
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return Round(
        number=number,
        seconds=round(seconds, 1),
        resident=round(int(resident[1]) / 1024, 2),
        in_use=round(_in_use() / 2**20, 2),
        descriptors=len(os.listdir("/proc/self/fd")) - 1,  # without that of the listing
        threads=len(os.listdir("/proc/self/task")),
        children=sum(map(len, children)),
        temporary=sum(1 for _ in Path(tempfile.gettempdir()).rglob("*")),
        digests=digests,
        state={key: hashlib.sha256(value.encode()).hexdigest() for key, value in _state().items()},
        wrong=wrong,
    )


class _MallocInfo(ctypes.Structure):
    """The `struct mallinfo2` of glibc 2.33 and later."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks "
        "keepcost".split()
    )


def _in_use() -> int:
    """Return the bytes that malloc has given out, 0 where it does not tell."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return 0
    ask.restype = _MallocInfo
    info = ask()
    return info.uordblks + info.hblkhd


def main() -> int:
    """Run the soak; 1 where something is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=7200)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "tmp").mkdir()
    os.environ["TMPDIR"] = str(options.folder / "tmp")
    tempfile.tempdir = None
    install()
    rounds = []
    for each in rounds_of(options.folder, options.seconds):
        rounds.append(each)
        print(json.dumps(asdict(each)), flush=True)
    found = faults(rounds)
    names = sorted(thread.name for thread in threading.enumerate())
    for name in ("in_use", "resident"):
        slope, error = growth(rounds, name)
        print(f"{name}: {slope:.2f} MB per round, standard error {error:.2f}", file=sys.stderr)
    print(f"{len(rounds)} rounds; threads of Python: {', '.join(names)}", file=sys.stderr)
    print(*found, sep="\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
