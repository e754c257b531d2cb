"""What a batch would do, and what it is expected to take: `msdyn-batch run --dry-run`.

The layers estimate their own work (`preprocess/estimate.py`, `fit/estimate.py`); a batch is a
sample of its clips, times their number. Nothing is written, and no clip is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msdyn.batch.clips import Clip
from msdyn.batch.config import RunConfig
from msdyn.batch.engines import default_workers, gpu_names
from msdyn.batch.manifest import Shard, key_of
from msdyn.batch.needs import needs_of
from msdyn.batch.plan import open_run, plan_of
from msdyn.batch.results import ClipEnds, read_rows
from msdyn.batch.store import local_path
from msdyn.estimates import Estimate, shown_seconds
from msdyn.fit.config import FitConfig
from msdyn.fit.estimate import FitSize, estimate_fit
from msdyn.memory import shown_bytes
from msdyn.preprocess.config import PreprocessConfig
from msdyn.preprocess.estimate import estimate_preprocessing, expected_clip, uses_saliency
from msdyn.progress import stage

__all__ = ["Options", "dry_run"]

_SAMPLE = 16
"""Clips that are looked at."""
_TRACKS_OF_PIXEL = 1 / 60
"""Tracks on objects for each pixel on them, roughly; the time of a fit hardly depends on it."""


@dataclass(frozen=True)
class Options:
    """How the options of the commands are read, which is a matter of the command line.

    Attributes:
        preprocess: returns those of a clip: its video, and the texts of the batch and the clip.
        fit: returns those of a fit.
    """

    preprocess: Callable[[str, str], PreprocessConfig]
    fit: Callable[[str], FitConfig]


def dry_run(config: RunConfig, options: Options) -> Iterator[str]:
    """Yield lines: the clips, the stages, where they would run, what they would take.

    Args:
        config: as of `run_batch`.
        options: reads the options of the commands.

    Raises:
        FileNotFoundError: there is no manifest.
        InputError: the manifest is invalid, or the folder is of another batch.
    """
    manifest, store, plan = plan_of(config)
    shard = Shard.parse(config.shard) if config.shard else Shard()
    with stage("reading the manifest"):
        keys = shard.of(manifest.keys())
    ends = ClipEnds(keys)
    if store.read("run.json") is not None:
        open_run(store.url)
        for row in read_rows(store):
            ends.end(row)
    left = len(keys) - ends.count
    step, sample = max(1, left // _SAMPLE), list[Clip]()
    clips = (c for c in manifest.clips() if shard.has(key_of(c.id)) and not ends.state(c.id))
    for number, clip in enumerate(clips):
        if number % step == 0 and len(sample) < _SAMPLE:
            sample.append(clip)
    yield f"{plan.manifest}: {left} clips to run, {ends.count} have ended; results in {store.url}"
    needs = needs_of(plan.preprocess, plan.fit)
    kinds = {"cpu": "CPU", "part": "a quarter of a GPU", "gpu": "a GPU"}
    cards = len(gpu_names())
    stages = (f"{name} ({kinds[needs[name] if cards else 'cpu']})" for name in plan.stages)
    yield f"stages: {', '.join(stages)}"
    workers = config.workers or default_workers(config.threads)
    yield f"this machine: {workers} workers of {config.threads} threads, {cards} GPUs"
    if not sample:
        return
    with stage("looking at clips"):
        found = [_estimates(clip, plan.preprocess, plan.fit, options) for clip in sample]
    known = [pair for pair in found if pair is not None]
    yield f"looked at {len(sample)} clips; {len(sample) - len(known)} of them cannot be read here"
    if not known:
        return
    fits = "fit" in plan.stages
    memory = max(max(p.memory, f.memory if fits else 0) for p, f in known)
    seconds = float(np.mean([(p.seconds or 0) + fits * (f.seconds or 0) for p, f in known]))
    disk = float(np.mean([p.disk + fits * f.disk for p, f in known]))
    yield (
        f"a clip: up to {shown_bytes(memory)} of memory, roughly {shown_seconds(seconds)} on two "
        f"cores, {shown_bytes(disk)} of disk"
    )
    total = shown_seconds(2 * seconds * left / (workers * config.threads))
    yield f"all: roughly {total} on this machine without GPUs, {shown_bytes(disk * left)} of disk"


def _estimates(
    clip: Clip, preprocess: str, fit: str, options: Options
) -> tuple[Estimate, Estimate] | None:
    """Return what preprocessing and the fit of a clip take; None where its video cannot be read."""
    path = local_path(clip.uri)
    if path is None or not Path(path).exists():
        return None
    config = options.preprocess(str(path), f"{preprocess} {clip.preprocess}")
    config = replace(config, start=clip.start, end=clip.end)
    size = expected_clip(config)
    if size is None:
        return None
    pixels = round(0.1 * size.width * size.height)
    fit_size = FitSize(size.frames, size.width, size.height, round(pixels * _TRACKS_OF_PIXEL))
    return (
        estimate_preprocessing(size, saliency=uses_saliency(config)),
        estimate_fit(fit_size, options.fit(f"{fit} {clip.fit}")),
    )
