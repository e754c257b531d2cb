"""Writing, listing and showing clips: the work of `msdyn-clips`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip
from msdyn.feedforward.data.commands import (
    ConvertCommand,
    RandomCommand,
    SceneCommand,
    ShardOptions,
    ShowCommand,
)
from msdyn.feedforward.data.convert import find_converter
from msdyn.feedforward.data.library import ClipLibrary
from msdyn.feedforward.data.own_scenes import random_clips, scene_clip
from msdyn.feedforward.data.shards import ClipWriter
from msdyn.feedforward.data.sheet import save_clip_sheet
from msdyn.interruption import postponed
from msdyn.progress import track
from msdyn.writing import writing_to

__all__ = [
    "WrittenClips",
    "show",
    "write_clips",
    "write_dataset",
    "write_random",
    "write_scenes",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WrittenClips:
    """What has been done."""

    written: int
    """Clips written."""
    before: int
    """Clips that the folder had."""
    damaged: int
    """Clips left out, because they cannot be read."""


def write_clips(
    clips: Iterable[Clip],
    folder: Path,
    options: ShardOptions,
    *,
    total: int | None = None,
    skip_damaged: bool = False,
) -> WrittenClips:
    """Write clips to a folder, except those that it has, with a progress bar.

    Args:
        clips: the clips.
        folder: of shards.
        options: of the shards.
        total: clips, for the progress bar.
        skip_damaged: leave out clips of which a frame cannot be read, with a warning.
    """
    written = before = damaged = 0
    with (
        writing_to(folder),
        postponed() as asked,  # until the shard is complete
        ClipWriter(
            folder,
            shard_bytes=max(1, round(1e6 * options.shard_mb)),
            image_format=options.images,
            quality=options.quality,
        ) as writer,
    ):
        for clip in track(clips, "clips", total, "clip"):
            if asked():
                break
            if f"{clip.dataset}/{clip.name}" in writer:
                before += 1
                continue
            try:
                writer.add(clip)
            except (InputError, FileNotFoundError) as error:
                if not skip_damaged:
                    raise
                _log.warning("left out: %s", error)
                damaged += 1
            else:
                written += 1
    return WrittenClips(written, before, damaged)


def write_random(config: RandomCommand) -> WrittenClips:
    """Write clips of random scenes."""
    clips = random_clips(
        config.count, config.frames, config.size,
        options=config.scenes, seed=config.seed, dataset=config.dataset,
    )  # fmt: skip
    return write_clips(clips, config.out, config.shards, total=config.count)


def write_scenes(config: SceneCommand) -> WrittenClips:
    """Write scene directories."""
    clips = (scene_clip(scene, config.name) for scene in config.scenes)
    return write_clips(clips, config.out, config.shards, total=len(config.scenes))


def write_dataset(config: ConvertCommand) -> WrittenClips:
    """Write a public data set."""
    left_out: list[Exception] = []

    def leave_out(error: Exception) -> None:
        _log.warning("left out: %s", error)
        left_out.append(error)

    clips = find_converter(config.dataset)(
        config.source, damaged=leave_out if config.skip_damaged else None
    )
    result = write_clips(clips, config.out, config.shards, skip_damaged=config.skip_damaged)
    return replace(result, damaged=result.damaged + len(left_out))


def show(config: ShowCommand) -> None:
    """Write the contact sheet of a clip."""
    save_clip_sheet(ClipLibrary(config.folder).clip(config.clip), config.out, config.frames)
