"""Measure the size of pages of msdyn-export --format html, and how fast they play in a browser.

    python tools/bench_player.py fit/export/sequence.html
    python tools/bench_player.py old.html new.html --rounds 3 --json benchmarks/player_cpu.json

The pages are played in turn, round after round, in one headless Chromium that draws in software,
with a canvas of 480x360 and at full resolution (a page that lowers it by itself is told not to).
`fps` are the frames that the page draws, the median over whole seconds; `cpu_ms` is the time that
all processes of the browser compute per frame, which depends less on what else the machine does
(`load`); `auto` is a page that may choose its resolution, and `scale` what it chose.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from browser import Browser
from machine import describe_machine

from msdyn.writing import write_json

# Steps of playing drawn in each of some seconds.
STEPS = """new Promise(done => {{
  const counts = [], step = player.steps;
  let begun = performance.now(), last = step;
  (function look() {{
    if (performance.now() - begun >= 1000) {{
      counts.push((player.steps - last) * 1000 / (performance.now() - begun));
      last = player.steps;
      begun = performance.now();
    }}
    if (counts.length < {seconds}) setTimeout(look, 5);
    else done(counts);
  }})();
}})"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--width", type=int, default=480, help="of the canvas, px")
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--seconds", type=int, default=6, help="of playing, per page and round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--webgl", choices=("swiftshader", "mesa"), nargs="+", default=["swiftshader"]
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]  # processes that want a core besides this
    size, rows = (options.width, options.height), []
    for webgl in options.webgl:
        rates = measure(
            options.pages, size, seconds=options.seconds, rounds=options.rounds, webgl=webgl
        )
        for page in options.pages:
            row = {"webgl": webgl, "page": page.name, "bytes": page.stat().st_size}
            rows.append(row | summary(rates[page]))
            print(json.dumps(rows[-1]), flush=True)
    if options.json:
        setting = {
            name: getattr(options, name) for name in ("width", "height", "seconds", "rounds")
        }
        machine = describe_machine()
        write_json(options.json, {"machine": machine, "load": load, **setting, "pages": rows})
    return 0


def summary(rates: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Return the medians of each mode."""
    return {
        mode: {name: round(float(np.median(values)), 2) for name, values in row.items()}
        for mode, row in rates.items()
    }


def measure(
    pages: list[Path], size: tuple[int, int], *, seconds: int, rounds: int, webgl: str
) -> dict[Path, dict[str, dict[str, list[float]]]]:
    """Return the frames drawn in each second, by page and mode."""
    found: dict[Path, dict[str, dict[str, list[float]]]] = {page: {} for page in pages}
    with (
        tempfile.TemporaryDirectory() as folder,
        Browser(Path(folder), *size, webgl=webgl) as browser,
    ):
        for _ in range(rounds):
            for page in pages:
                browser.open(page.resolve().as_uri())
                browser.until("window.player && player.ready")
                browser.run("document.getElementById('bar').style.display = 'none'")
                adaptive = browser.run("'adaptive' in player")
                for mode in ("full", "auto") if adaptive else ("full",):
                    browser.run(f"player.playing = true; player.adaptive = {mode == 'auto':d} > 0")
                    browser.run("new Promise(done => setTimeout(done, 1500))")
                    before, steps = cpu_seconds(browser.process.pid), browser.run("player.steps")
                    counts = browser.run(STEPS.format(seconds=seconds))
                    used = cpu_seconds(browser.process.pid) - before
                    drawn = browser.run("player.steps") - steps
                    rows = found[page].setdefault(mode, {"fps": [], "cpu_ms": [], "scale": []})
                    rows["fps"] += counts
                    rows["cpu_ms"].append(1000 * used / max(drawn, 1))
                    rows["scale"].append(browser.run("player.scale || 1"))
                assert browser.errors() == []
    return found


def cpu_seconds(root: int) -> float:
    """Return the processor time that a process and its descendants have taken."""
    parents, times = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            times[int(stat.parent.name)] = int(fields[11]) + int(fields[12])
    own = {root}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(times.get(pid, 0) for pid in own) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
