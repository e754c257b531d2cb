"""Options of `msdyn-batch`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msdyn.batch.clips import StageName
from msdyn.memory import MemorySize
from msdyn.options import OTHER_OPTIONS, POSITIONAL, REPEATED, Options, Pattern, Range

__all__ = ["Reason", "RetryConfig", "RunConfig", "StatusConfig", "WorkersConfig"]

Reason = Literal["bad-input", "poor", "crashed", "out-of-memory", "timed-out", "refused", "lost"]
"""Why a clip is in quarantine; see `msdyn.batch.State`."""
_Shard = Annotated[
    str, Pattern(r"[1-9]\d{0,6}/[1-9]\d{0,6}", "I/N, from 1/N to N/N, such as 3/64", "I/N")
]
_WHERE = "Where it runs"


@dataclass(frozen=True, kw_only=True)
class WorkersConfig(Options):
    """Where the stages run, and what they may take."""

    engine: Literal["auto", "local", "ray"] = "auto"
    """local: processes of this machine. ray: actors of Ray, on a cluster or on this machine. auto:
    ray with --address or where RAY_ADDRESS is set, else local."""
    address: str | None = None
    """Cluster of Ray, as host:port, or auto for that of this machine; ray starts one by default."""
    workers: Annotated[int | None, Range(1, 100_000)] = None
    """Workers without a GPU; by default one for every --threads cores, as far as memory goes. GPUs
    have workers of their own: one for a fit, or four for networks."""
    threads: Annotated[int, Range(1, 1024)] = 1
    """Threads of a worker."""
    max_memory: MemorySize | None = None
    """Most memory of a worker, such as 8G; what needs more ends, and is tried once more with
    smaller images. By default the worker's share of the machine."""
    time_limit: Annotated[float | None, Range(above=0, most=1e7, unit="seconds")] = None
    """Most time of one stage of one clip, in seconds; by default it is not limited."""
    scratch: Path | None = None
    """Folder of each machine for the files of clips, where OUT is not a folder; by default in the
    folder for temporary files."""


@dataclass(frozen=True)
class RunConfig(WorkersConfig):
    """Run the clips of a manifest; the same command again goes on where it ended."""

    headings: ClassVar[dict[str, str]] = {
        "engine": _WHERE,
        "manifest": "Input",
        "out": "Output",
        "shard": _WHERE,
        "camera": "Input",
        "preprocess": "What is done with each clip",
        "dry_run": "Running",
    }

    manifest: Annotated[str, POSITIONAL]
    """Parquet or CSV file with columns clip and uri (and start, end, preprocess, fit, and others,
    which travel along), or a folder of videos; paths, or URLs that fsspec opens. Or the folder of a
    LeRobotDataset, with a clip for each episode."""
    out: str | None = None
    """Folder or URL of the results; by default the manifest's name and _batch, in the current
    directory."""
    shard: _Shard | None = None
    """Run only this part of the clips, as task I of N of a cluster's queue."""
    camera: Annotated[tuple[str, ...], REPEATED] = ()
    """Of a LeRobotDataset, take this camera; may be given several times. By default all."""
    preprocess: Annotated[str | None, OTHER_OPTIONS] = None
    """Options of msdyn-preprocess for all clips, in quotes: "--depth fused --max-frames 60"."""
    fit: Annotated[str, OTHER_OPTIONS] = "--holdout-every 8"
    """Options of msdyn-fit for all clips, in quotes."""
    until: StageName = "evaluate"
    """Last stage: tracks, masks, cameras, refine (masks again), depth, fit or evaluate."""
    dry_run: bool = False
    """Print what would run, and what it is expected to take."""


@dataclass(frozen=True)
class RetryConfig(WorkersConfig):
    """Run clips in quarantine again."""

    headings: ClassVar[dict[str, str]] = {
        "engine": _WHERE,
        "run": "Input",
        "only": "Which clips",
        "preprocess": "What is done with each clip",
    }

    run: Annotated[str, POSITIONAL]
    """Folder or URL of the results."""
    only: Annotated[tuple[Reason, ...], REPEATED] = ()
    """Only clips that are in quarantine for this reason; may be given several times. By default
    all of them."""
    preprocess: Annotated[str | None, OTHER_OPTIONS] = None
    """Options of msdyn-preprocess in place of those of the run, in quotes."""
    fit: Annotated[str | None, OTHER_OPTIONS] = None
    """Options of msdyn-fit in place of those of the run, in quotes."""


@dataclass(frozen=True)
class StatusConfig(Options):
    """Show how far a batch is, and write its index.html again."""

    run: Annotated[str, POSITIONAL]
    """Folder or URL of the results."""
