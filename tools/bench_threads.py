"""Measure what fits cost by themselves and two at a time, with one and two threads each.

    python tools/bench_threads.py [--frames 16] [--width 192] [--epochs 3] [--repeats 2]
                                  [--threads 1 2] [--against CHECKOUT] [--json FILE]

Each fit is a process that calls `fit_scene`, as a script of a user does: the command differs in
what it sets before it imports. All cases take turns, so that other load meets all of them; CPU
seconds (user and system) of a process depend on that load less than its seconds. `--against` runs
the same with another checkout of the repository, such as an earlier commit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import describe_machine
from tqdm import tqdm

from msdyn.synthetic import make_scene, render_truth, write_priors
from msdyn.thread_share import thread_environment
from msdyn.writing import write_json

_ROOT = Path(__file__).parents[1]
_FIT = """
import sys
from dataclasses import replace
from pathlib import Path
from msdyn.fit import fit_scene, preset
from msdyn.scene import Scene
scene, out, epochs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
config = replace(preset("quick"), scene=scene, out=out, epochs=epochs, device="cpu")
fit_scene(Scene(scene), config)
"""


@dataclass(frozen=True)
class Case:
    """Fits that run at the same time.

    Attributes:
        code: "this" checkout or the "other" one.
        threads: of each fit.
        fits: how many.
    """

    code: str
    threads: int
    fits: int


def measure(case: Case, checkout: Path, scene: Path, epochs: int) -> dict[str, float]:
    """Run the fits of a case; return their seconds, and CPU seconds per fit."""
    variables = {k: v for k, v in os.environ.items() if k not in thread_environment(1)}
    variables |= {"PYTHONPATH": str(checkout), "TQDM_DISABLE": "1"}
    checked = [sys.executable, "-c", "import msdyn; print(msdyn.__file__)"]
    found = subprocess.check_output(checked, env=variables, cwd=checkout, text=True).strip()
    if Path(found).parents[1] != checkout.resolve():
        raise RuntimeError(f"{checkout}: {found} is imported instead")
    if case.threads == 1:
        variables |= {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", _FIT, str(scene), f"{folder}/{number}", str(epochs)],
                env=variables,
                cwd=checkout,  # Python looks there first
                stdout=subprocess.DEVNULL,
            )
            for number in range(case.fits)
        ]
        before = os.times()
        codes = [run.wait() for run in runs]
        seconds, after = time.perf_counter() - started, os.times()
    if any(codes):
        raise RuntimeError(f"{case}: a fit ended with {codes}")
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return {"seconds": seconds, "cpu_seconds": used / case.fits}


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as lines of Markdown; ratios are to the first of them."""
    one = results[0]
    lines = ["| code | threads | fits at a time | CPU seconds per fit | ratio | seconds |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [
        f"| {r['code']} | {r['threads']} | {r['fits']} | {r['cpu_seconds']:.1f}"
        f" | {r['cpu_seconds'] / one['cpu_seconds']:.2f} | {r['seconds']:.1f} |"
        for r in results
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--width", type=int, default=192, help="of the images, in pixels")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", choices=(1, 2), default=(1, 2))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--against", type=Path, help="another checkout of the repository")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    checkouts = {"this": _ROOT} | ({"other": options.against} if options.against else {})
    cases = [Case(code, t, n) for code in checkouts for n in (1, 2) for t in options.threads]
    runs: dict[Case, list[dict[str, float]]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene"
        size = {"width": options.width, "height": 3 * options.width // 4}
        spec = make_scene("two-boxes", frames=options.frames, **size)
        write_priors(render_truth(spec), scene, level="sensor", seed=0)
        for code, checkout in checkouts.items():  # kernels are compiled in it
            measure(Case(code, 1, 1), checkout, scene, 1)
        for case in tqdm(cases * options.repeats, desc="cases"):
            runs[case].append(measure(case, checkouts[case.code], scene, options.epochs))
    results = [
        asdict(case)
        | {key: statistics.median(run[key] for run in of_case) for key in of_case[0]}
        | {"runs": of_case}
        for case, of_case in runs.items()
    ]
    print(table(results))
    if options.json:
        other = None
        if options.against:
            command = ["git", "-C", str(options.against), "rev-parse", "HEAD"]
            other = subprocess.check_output(command, text=True).strip()
        chosen = {k: getattr(options, k) for k in ("frames", "width", "epochs", "repeats")}
        machine = describe_machine()
        write_json(options.json, {"machine": machine, "other": other, **chosen, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
