"""Writing, listing and showing clips: the work of `msdyn-clips`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip
from msdyn.feedforward.data.codes import ImageFormat
from msdyn.feedforward.data.convert import converter_names, find_converter
from msdyn.feedforward.data.library import ClipLibrary
from msdyn.feedforward.data.own_scenes import random_clips, scene_clip
from msdyn.feedforward.data.shards import ClipWriter
from msdyn.feedforward.data.sheet import save_clip_sheet
from msdyn.feedforward.scenes.random_scenes import SceneOptions
from msdyn.interruption import postponed
from msdyn.locks import writing_to
from msdyn.plugins import registered_choice

__all__ = [
    "ConvertCommand",
    "ListCommand",
    "RandomCommand",
    "SceneCommand",
    "ShardOptions",
    "ShowCommand",
    "WrittenClips",
    "show",
    "write_clips",
    "write_dataset",
    "write_random",
    "write_scenes",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardOptions:
    """How clips are stored."""

    shard_mb: float = 1000.0
    """Size of a shard, 10^6 bytes; the last clip may exceed it."""
    images: ImageFormat = "jpg"
    """Format of the images."""
    quality: int = 95
    """Quality of JPEG."""

    def __post_init__(self) -> None:
        if not 0 < self.shard_mb < 1e9:
            raise InputError(f"shard-mb: expected a positive number, got {self.shard_mb}")
        if not 1 <= self.quality <= 100:
            raise InputError(f"quality: expected 1 to 100, got {self.quality}")


@dataclass(frozen=True)
class RandomCommand:
    """Write clips of random scenes with exact depth and motion, seen by two cameras."""

    out: tyro.conf.Positional[Path]
    """Folder of shards; clips that it has are not made again."""
    count: int = 100
    """Clips."""
    frames: int = 24
    """Frames of each camera."""
    size: int = 64
    """Side of the images, px."""
    seed: int = 0
    """Of the first clip; the others have the seeds after it, which are their names."""
    dataset: str = "random"
    """Name of the data set of the clips: clips of other options need another one."""
    scenes: SceneOptions = field(default_factory=SceneOptions)
    """What is drawn at random."""
    shards: Annotated[ShardOptions, tyro.conf.arg(name="")] = field(default_factory=ShardOptions)

    def __post_init__(self) -> None:
        for name in ("count", "frames", "size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"seed: expected at least 0, got {self.seed}")


@dataclass(frozen=True)
class SceneCommand:
    """Write scene directories of msdyn as clips, with their held-out cameras and 3D tracks."""

    scenes: tyro.conf.Positional[tuple[Path, ...]]
    """Scene directories."""
    out: Path
    """Folder of shards; clips that it has are not written again."""
    name: str | None = None
    """Name of the clip of a single scene; that of its folder by default."""
    shards: Annotated[ShardOptions, tyro.conf.arg(name="")] = field(default_factory=ShardOptions)

    def __post_init__(self) -> None:
        if not self.scenes:
            raise InputError("scenes: expected at least one scene directory")
        if self.name is not None and len(self.scenes) > 1:
            raise InputError(f"name: expected a single scene, got {len(self.scenes)}")


@dataclass(frozen=True)
class ConvertCommand:
    """Write a public data set as clips."""

    dataset: Annotated[tyro.conf.Positional[str], registered_choice(converter_names)]
    """Data set."""
    source: tyro.conf.Positional[Path]
    """Its folder."""
    out: tyro.conf.Positional[Path]
    """Folder of shards; clips that it has are not written again."""
    skip_damaged: bool = False
    """Report clips that cannot be read and go on without them, instead of stopping."""
    shards: Annotated[ShardOptions, tyro.conf.arg(name="")] = field(default_factory=ShardOptions)


@dataclass(frozen=True)
class ListCommand:
    """List the clips of a folder, and what they are in training."""

    folder: tyro.conf.Positional[Path]
    """Folder of shards."""
    limit: int = 50
    """Clips that are listed; the sums are of all."""

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise InputError(f"limit: expected at least 0, got {self.limit}")


@dataclass(frozen=True)
class ShowCommand:
    """Write a contact sheet of a clip: images, depth, motion, target view."""

    folder: tyro.conf.Positional[Path]
    """Folder of shards."""
    clip: tyro.conf.Positional[str]
    """The clip, as `DATASET/NAME`."""
    out: Path
    """PNG."""
    frames: int = 6
    """Columns."""

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InputError(f"frames: expected at least 1, got {self.frames}")


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
        for clip in tqdm(clips, "clips", total, unit="clip"):
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
