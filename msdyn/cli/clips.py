"""`msdyn-clips`: write, list and show clips to train the feed-forward network on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msdyn.cli.inputs import require_files, require_scene
from msdyn.cli.run import BEGINS_AGAIN, parse, run
from msdyn.feedforward.data.commands import (
    ConvertCommand,
    ListCommand,
    RandomCommand,
    SceneCommand,
    ShowCommand,
)
from msdyn.progress import stage

if TYPE_CHECKING:
    from msdyn.feedforward.data.run import WrittenClips

DESCRIPTION = (
    "Write clips to train the feed-forward network on, in tar shards: random scenes, scene "
    "directories of msdyn or public data sets; list and show them. docs/training_data.md describes "
    "the format."
)
CLIPS_KEPT = "complete clips are kept, the same command adds the others"
COMMANDS = {
    "random": RandomCommand,
    "scene": SceneCommand,
    "convert": ConvertCommand,
    "list": ListCommand,
    "show": ShowCommand,
}
EXAMPLES = (
    "random clips --count 100  # random scenes with exact depth and motion",
    "scene scene --out clips  # a scene directory",
    "convert tartanair TartanAir clips  # a public data set",
    "list clips",
    "show clips random/000000 --out sheet.png",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    config = parse(COMMANDS, argv, "msdyn-clips", DESCRIPTION, examples=EXAMPLES)
    only_reads = isinstance(config, ListCommand | ShowCommand)
    return run(_clips, config, interrupted=BEGINS_AGAIN if only_reads else CLIPS_KEPT)


def _clips(
    config: RandomCommand | SceneCommand | ConvertCommand | ListCommand | ShowCommand,
) -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    match config:
        case ListCommand() | ShowCommand():
            require_files(config.folder)
        case SceneCommand():
            for scene in config.scenes:
                require_scene(scene)
        case ConvertCommand():
            require_files(config.source)
    with stage("loading"):
        from msdyn.feedforward.data.run import show, write_dataset, write_random, write_scenes

    match config:
        case ListCommand():
            _list(config)
        case ShowCommand():
            show(config)
            print(f"written to {config.out}")
        case RandomCommand():
            _print_written(write_random(config), config.out)
        case SceneCommand():
            _print_written(write_scenes(config), config.out)
        case ConvertCommand():
            _print_written(write_dataset(config), config.out)


def _print_written(clips: WrittenClips, folder: object) -> None:
    before = f"; {clips.before} were there before" if clips.before else ""
    damaged = f"; {clips.damaged} left out" if clips.damaged else ""
    print(f"{clips.written} clips written to {folder}{before}{damaged}")


def _list(config: ListCommand) -> None:
    from msdyn.feedforward.data.datasets import dataset_info
    from msdyn.feedforward.data.library import ClipLibrary

    entries = ClipLibrary(config.folder).entries
    width = max(len(entry.key) for entry in entries)
    print(f"{'clip':<{width}} {'frames':>6} {'targets':>7} {'size':>9} {'motion':>8} {'depth':>5}")
    for entry in entries[: config.limit]:
        print(
            f"{entry.key:<{width}} {entry.inputs:>6} {entry.targets:>7} "
            f"{f'{entry.width}x{entry.height}':>9} {entry.motion:>8} "
            f"{'yes' if entry.has_depth else 'no':>5}"
        )
    if len(entries) > config.limit:
        print(f"... {len(entries) - config.limit} more (--limit)")
    clips = Counter(entry.dataset for entry in entries)
    frames: Counter[str] = Counter()
    for entry in entries:
        frames[entry.dataset] += entry.frames
    for name, count in sorted(clips.items()):
        info = dataset_info(name)
        print(
            f"{name}: {count} clips, {frames[name]} frames; {info.repeat} draws of each per epoch, "
            f"weights of depth {info.depth_weight} and motion {info.motion_weight}"
        )
    size = sum(path.stat().st_size for path in {entry.tar for entry in entries})
    print(f"{len(entries)} clips in {len({e.tar for e in entries})} shards, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    raise SystemExit(main())
