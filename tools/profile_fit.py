"""Profile the steps of a fit, on a CPU or on a GPU.

    python tools/profile_fit.py SCENE [--device cpu] [--static 14000] [--moving 6000] [--batch 1]
                                [--long-side N] [--steps 100] [--json FILE]

The parts follow one another in a step, forward and backward. A timestamp is taken at each
transition, so that the parts add up to the whole:

    data            frames, tracks
    motion          the motion field, poses and colours of the Gaussians
    rasterizer      `rasterize`
    losses          all losses and regularisers
    optimiser       steps of Adam
    densification   its statistics, growing and pruning

On a GPU the timestamps are events on its stream: they do not synchronise, and the time of a part
includes the time that the GPU waits for the host. On a CPU with one thread they are the CPU time of
that thread, which depends less on other processes.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from machine import describe_machine

from msdyn.fit import DensityConfig, FitConfig, Fitter, MotionConfig, preset
from msdyn.fit.data import FitData
from msdyn.fit.density import GaussianSet
from msdyn.fit.objective import Objective
from msdyn.fit.tracks import TrackSampler
from msdyn.render import render
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence

PARTS = ("data", "motion", "rasterizer", "losses", "optimiser", "densification", "the rest")


class OutOfTime(Exception):
    """The time limit of the fit has passed."""


class Clock:
    """Timestamps of steps, each with the name of the part that ended there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        alone = device.type == "cpu" and torch.get_num_threads() == 1
        self.now = time.thread_time if alone else time.perf_counter
        self.running = False
        self.steps: list[list[tuple[str, float, Any]]] = []

    def begin(self) -> None:
        """Start a step."""
        self.running = True
        self.steps.append([])
        self.mark("")

    def mark(self, part: str) -> None:
        """Attribute the time since the last mark to a part."""
        if not self.running:
            return
        event = None
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        self.steps[-1].append((part, self.now(), event))

    def summary(self) -> dict[str, Any]:
        """Return mean milliseconds of a step and of each part, and the parts' shares."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        totals, host = dict.fromkeys(PARTS, 0.0), 0.0
        for marks in self.steps:
            for (_, before, start), (part, now, end) in zip(marks, marks[1:], strict=False):
                host += 1e3 * (now - before)
                totals[part] += 1e3 * (now - before) if end is None else start.elapsed_time(end)
        count = max(len(self.steps), 1)
        whole = sum(totals.values())
        return {
            "steps": len(self.steps),
            "step_ms": whole / count,
            # Close to step_ms where the GPU waits for the host.
            "host_ms": host / count,
            "milliseconds": {part: value / count for part, value in totals.items()},
            "shares": {part: value / max(whole, 1e-9) for part, value in totals.items()},
        }


@contextmanager
def watched(clock: Clock, *, first: int, every: int, seconds: float = math.inf) -> Iterator[None]:
    """Time the parts of every n-th step of a fit that runs in the context.

    Args:
        clock: records the times.
        first: number of the first step to time; the steps before are warm-up.
        every: n.
        seconds: raise `OutOfTime` at the first step that begins after this time.
    """
    started = time.perf_counter()
    marked: set[str] = set()

    def after(part: str, before: str | None = None) -> Callable[..., Any]:
        """Wrap a function: attribute the time before it to `before`, its own time to `part`."""

        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **options: Any) -> Any:
                if before is not None:
                    clock.mark(before)
                result = function(*arguments, **options)
                clock.mark(part)
                return result

            return run

        return wrap

    def once(name: str, part: str) -> Callable[[Any], None]:
        """Return a gradient hook that marks only the first call per name and step."""

        def hook(_: Any) -> None:
            if name not in marked:
                marked.add(name)
                clock.mark(part)

        return hook

    def rasterize(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            clock.mark("motion")
            result = function(*arguments, **options)
            clock.mark("rasterizer")
            for tensor in (result.features, result.alpha, result.depth):
                if tensor is not None and tensor.requires_grad:
                    tensor.register_hook(once("from the losses", "losses"))
            for tensor in arguments[:5]:
                if tensor.requires_grad:
                    tensor.register_hook(once("from the rasterizer", "rasterizer"))
            return result

        return run

    def optimise(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            # The first optimiser step follows the end of the backward pass.
            clock.mark("optimiser" if "backward" in marked else "motion")
            marked.add("backward")
            result = function(*arguments)
            clock.mark("optimiser")
            return result

        return run

    def one_step(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(fitter: Fitter, *arguments: Any) -> Any:
            if time.perf_counter() - started > seconds:
                raise OutOfTime
            marked.clear()
            if fitter.step >= first and (fitter.step - first) % every == 0:
                clock.begin()
            result = function(fitter, *arguments)
            clock.mark("the rest")
            clock.running = False
            return result

        return run

    wrappers = [
        (Fitter, "_one_step", one_step),
        (FitData, "batch", after("data", "the rest")),
        (TrackSampler, "sample", after("data", "losses")),
        (GaussianSequence, "posed", after("motion", "losses")),
        (render, "rasterize", rasterize),
        (Objective, "__call__", after("losses")),
        (GaussianSet, "step", optimise),
        (GaussianSet, "refine", after("densification", "optimiser")),
    ]
    with ExitStack() as stack:
        for owner, name, wrap in wrappers:
            stack.enter_context(mock.patch.object(owner, name, wrap(getattr(owner, name))))
        yield


def profile_fit(config: FitConfig, *, first: int, every: int, seconds: float) -> dict[str, Any]:
    """Run a fit, up to a time limit, and return its profile.

    Args:
        config: of the fit; it is written to its `out`.
        first, every: the steps to time; see `watched`.
        seconds: time limit of the steps.
    """
    start = time.perf_counter()
    fitter = Fitter(Scene(config.scene), config)
    clock = Clock(fitter.device)
    if fitter.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    optimisation_start = [math.inf]
    optimise = fitter._optimise

    def timed_optimise() -> None:
        optimisation_start[0] = time.perf_counter()
        optimise()

    finished = True
    with (
        mock.patch.object(fitter, "_optimise", timed_optimise),
        watched(clock, first=first, every=every, seconds=seconds),
    ):
        try:
            fitter.run()
        except OutOfTime:
            finished = False
    summary = clock.summary()
    end = time.perf_counter()
    per_step = (end - optimisation_start[0]) / max(fitter.step, 1)
    log = fitter.directory / "metrics.jsonl"
    rows = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return {
        "finished": finished,
        "frames": len(fitter.data.frames),
        "image": list(fitter.data.rgb.shape[2:0:-1]),
        "batch": config.batch,
        "steps": fitter.step,
        "steps_of_the_whole": fitter.steps,
        "seconds": end - start,
        "seconds_before_the_first_step": optimisation_start[0] - start,
        # Steps not run are extrapolated from those run.
        "seconds_of_the_whole": end - start + per_step * (fitter.steps - fitter.step),
        "last_row": json.loads(rows[-1]) if rows else None,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if clock.device.type == "cuda" else 0,
        "profile": summary,
    }


def describe(result: dict[str, Any]) -> str:
    """Return the figures as text."""
    profile = result["profile"]
    lines = [
        f"{result['steps']} of {result['steps_of_the_whole']} steps in {result['seconds']:.1f} s, "
        f"{result['seconds_before_the_first_step']:.1f} s of it before the first; "
        f"the whole {result['seconds_of_the_whole']:.0f} s; a step {profile['step_ms']:.1f} ms"
    ]
    for part, share in profile["shares"].items():
        lines.append(f"    {part:14s}{profile['milliseconds'][part]:9.2f} ms{100 * share:6.1f} %")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scene", type=Path, help="scene directory")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--static", type=int, default=14_000, help="static Gaussians")
    parser.add_argument("--moving", type=int, default=6_000, help="moving Gaussians")
    parser.add_argument("--batch", type=int, default=1, help="frames per step")
    parser.add_argument("--long-side", type=int, help="scale images down to this many pixels")
    parser.add_argument("--steps", type=int, default=100, help="steps to time, after 20 of warm-up")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    per_epoch = math.ceil(len(Scene(options.scene)) / options.batch)
    with tempfile.TemporaryDirectory() as folder:
        config = replace(
            preset("default"),
            scene=options.scene,
            out=Path(folder),
            device=options.device,
            epochs=math.ceil((options.steps + 20) / per_epoch),
            batch=options.batch,
            long_side=options.long_side,
            static_gaussians=options.static,
            moving_gaussians=options.moving,
            motion=MotionConfig(prefit_steps=50),
            # Statistics are collected, but the number of Gaussians is constant.
            density=DensityConfig(start=0.99, stop=1.0),
        )
        result = profile_fit(config, first=20, every=1, seconds=math.inf)
    result = {"machine": describe_machine(), "threads": torch.get_num_threads(), **result}
    print(describe(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
