"""`msdyn-batch`: run many clips, on this machine or on a cluster."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any

from msdyn import events
from msdyn.batch.config import RetryConfig, RunConfig, StatusConfig
from msdyn.batch.needs import free_words
from msdyn.cli.run import RESUMES, parse, run
from msdyn.errors import InputError
from msdyn.progress import stage

if TYPE_CHECKING:
    from msdyn.batch.plan import BatchPlan
    from msdyn.batch.summary import Summary

DESCRIPTION = (
    "Run many clips through preprocessing, fit and evaluation, in processes of this machine or on "
    "a cluster of Ray. The same command again goes on where it ended. docs/scale.md has more."
)
COMMANDS = {"run": RunConfig, "status": StatusConfig, "retry": RetryConfig}
EXAMPLES = (
    "run videos --out runs/a  # a folder of videos, in processes of this machine",
    "run clips.parquet --out s3://bucket/run-7 --engine ray --workers 16",
    "run clips.csv --out runs/a --shard 3/64  # as one task of a cluster's queue",
    "status runs/a",
    "retry runs/a --only poor --preprocess '--accept-poor'",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    config = parse(COMMANDS, argv, "msdyn-batch", DESCRIPTION, examples=EXAMPLES)
    return run(_batch, config, interrupted=RESUMES)


def _batch(config: RunConfig | RetryConfig | StatusConfig) -> None:
    logging.basicConfig(format="%(message)s")
    if isinstance(config, StatusConfig):
        with stage("loading"):
            from msdyn.batch import batch_status
            from msdyn.batch.plan import open_run

        plan, summary = batch_status(config.run)
        _print_table(plan, summary)
        store, _ = open_run(config.run)
        print(f"page: {store.place('index.html')}")
        return
    for command, text in (("preprocess", config.preprocess), ("fit", config.fit)):
        _options(command, text or "")
    with stage("loading"):
        from msdyn.batch.plan import open_run, plan_of
        from msdyn.batch.run import retry_batch, run_batch

    if isinstance(config, RunConfig):
        if config.dry_run:
            from msdyn.batch.dry_run import Options, dry_run

            readers = Options(
                lambda video, text: _options("preprocess", text, video),
                lambda text: _options("fit", text).config,
            )
            for line in dry_run(config, readers):
                print(line)
            return
        _, store, _ = plan_of(config)
        summary = run_batch(config)
    else:
        store, _ = open_run(config.run)
        summary = retry_batch(config)
    _, plan = open_run(store.url)
    _print_table(plan, summary)
    print(f"page: {store.place('index.html')}")
    if summary.quarantined:
        print(
            f"in quarantine: {summary.quarantined} clips, see {store.place('quarantine.parquet')}"
        )


def _options(command: str, text: str, of: str = "a.mp4") -> Any:
    """Return the options of a command that a text has.

    Args:
        command: preprocess or fit.
        text: options, as on the command line.
        of: the video, or the scene.

    Raises:
        InputError: as the command itself would say, or an option that the batch sets.
    """
    from msdyn.cli import fit, preprocess

    words = free_words(text, f"--{command}")
    messages = io.StringIO()
    with events.as_text(), redirect_stderr(messages):
        try:
            if command == "preprocess":
                return preprocess.options([of, *words])
            return fit.options([of, *words])
        except SystemExit as end:
            line = messages.getvalue().strip().removeprefix("error: ")
            raise InputError(f"--{command}: {line}") from end


def _print_table(plan: BatchPlan, summary: Summary) -> None:
    """Print how the clips ended, and what the stages took."""
    from msdyn.batch.steps import CURES
    from msdyn.estimates import shown_seconds
    from msdyn.memory import shown_bytes

    ended = sum(summary.counts.values())
    print(f"{ended} of {plan.clips} clips have ended, {summary.clips_per_hour:.3g} an hour")
    for name, count in summary.counts.most_common():
        if count:
            print(f"  {name:<14} {count:>8}  {CURES.get(name, '')}".rstrip())
    print(f"  {'stage':<14} {'done':>8} {'failed':>8} {'mean s':>8} {'CPU s':>8} {'peak':>8}")
    for name, figures in summary.stages.items():
        tries = figures.done + figures.failed
        if tries:
            print(
                f"  {name:<14} {figures.done:>8} {figures.failed:>8} "
                f"{figures.seconds / tries:>8.1f} {figures.cpu_seconds / tries:>8.1f} "
                f"{shown_bytes(figures.peak_memory):>8}"
            )
    if summary.done:
        print(
            f"a clip took {shown_seconds(summary.per_clip('seconds'))}, "
            f"{shown_seconds(summary.per_clip('cpu_seconds'))} of a CPU core and "
            f"{summary.per_clip('gpu_seconds') / 3600:.3f} GPU-hours"
        )


if __name__ == "__main__":
    import sys

    sys.exit(main())
