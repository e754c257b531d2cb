"""Damaged inputs of every kind: each is read, or refused in one line, in time and in memory.

    python tests/reliability/fuzz.py FOLDER --cases 5000 --seed 1 [--only scene] [--case 1234]

A case is found again by its number: target, file and damage depend on seed and number alone.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from inputs import Target, targets, write_inputs  # noqa: E402
from mutations import damaged  # noqa: E402

from msdyn.errors import MsdynError  # noqa: E402

__all__ = ["Figures", "fuzz", "inputs_of"]

SECONDS = 20
"""Of a case. Whatever is read takes less than two."""
MEMORY = 2**30
"""Bytes that all cases together may take beyond what the process has before them."""


@dataclass
class Figures:
    """What became of the cases.

    Attributes:
        read, refused: how many were read, and refused in one line.
        wrong: by place, the cases that ended in another way: number and what was seen.
    """

    read: int = 0
    refused: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        """All of them."""
        return self.read + self.refused + sum(map(len, self.wrong.values()))

    def __str__(self) -> str:
        lines = [
            f"{self.cases} damaged inputs: {self.read} read, {self.refused} refused in one line, "
            f"{self.cases - self.read - self.refused} otherwise, at {len(self.wrong)} places"
        ]
        for place, found in sorted(self.wrong.items(), key=lambda item: -len(item[1])):
            lines.append(f"{len(found):5d} {place}: {found[0]}")
        return "\n".join(lines)


def fuzz(
    folder: Path, cases: range, seed: int, *, slow: bool = True, only: str = "", log: bool = False
) -> Figures:
    """Read damaged inputs and return what became of them.

    Args:
        folder: for the inputs, which are made once.
        cases: numbers of the cases.
        seed: of their damage.
        slow: also by commands, which take seconds.
        only: a part of the name of the targets.
        log: print each case that ends wrongly.
    """
    base, work = inputs_of(folder), folder / "work"
    chosen = [t for t in targets() if (slow or not t.slow) and only in t.name]
    figures, seen = Figures(), Counter()
    for number in cases:
        rng = np.random.default_rng((seed, number))
        target = chosen[number % len(chosen)]
        found = sorted(p for p in (base / target.folder).glob(target.files) if p.is_file())
        path = found[int(rng.integers(len(found)))]
        place = path.relative_to(base / target.folder)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base / target.folder, work)
        if rng.random() < 0.02:
            (work / place).unlink()
        else:
            (work / place).write_bytes(damaged(rng, path.read_bytes(), path.name))
        wrong = _outcome(target, work, figures)
        if wrong is not None:
            where, what = wrong
            seen[where] += 1
            figures.wrong.setdefault(where, []).append(
                f"case {number} {target.name} {place} {what}"
            )
            if log:
                print(f"{where}: {figures.wrong[where][-1]}", flush=True)
    return figures


def inputs_of(folder: Path) -> Path:
    """Return the folder of the undamaged inputs, which are made once."""
    if not (folder / "base").is_dir():
        write_inputs(folder / "new")
        (folder / "new").rename(folder / "base")
    return folder / "base"


def _outcome(target: Target, work: Path, figures: Figures) -> tuple[str, str] | None:
    """Read an input and count it; return place and description of a wrong end."""
    start = time.monotonic()
    try:
        with _limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(work)
        figures.read += 1
    except (MsdynError, FileNotFoundError) as error:
        text = str(error)
        if "\n" in text or len(text) > 2000 or not text:
            return _place(error), f"not one line: {text[:200]!r}"
        figures.refused += 1
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return _place(error), f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if time.monotonic() - start > SECONDS:
        return target.name, f"{time.monotonic() - start:.0f} s"
    return None


class _Late(BaseException):
    """A case took too long."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Limit the time and the address space of a block."""

    def late(*_: object) -> None:
        raise _Late(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, limits[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


def _place(error: BaseException) -> str:
    """Return the last line of msdyn in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/msdyn/" in f.filename or "/preprocess/" in f.filename] or frames
    return f"{'/'.join(Path(own[-1].filename).parts[-3:])}:{own[-1].lineno} {type(error).__name__}"


def main() -> int:
    """Run the fuzzer; 1 where a case ended wrongly."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    cases = range(options.cases) if options.case is None else [options.case]
    start = time.monotonic()
    figures = fuzz(
        options.folder, cases, options.seed, slow=not options.quick, only=options.only, log=True
    )
    print(f"{figures}\nin {time.monotonic() - start:.0f} s")
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
