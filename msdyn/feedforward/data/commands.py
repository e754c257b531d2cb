"""Options of `msdyn-clips`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msdyn.feedforward.scenes.options import SceneOptions
from msdyn.options import POSITIONAL, Choices, Named, OptionError, Options, Range, Seed
from msdyn.plugins import declared_names

__all__ = [
    "ConvertCommand",
    "ImageFormat",
    "ListCommand",
    "RandomCommand",
    "SceneCommand",
    "ShardOptions",
    "ShowCommand",
]

ImageFormat = Literal["jpg", "png"]

_CONVERTERS = "msdyn.feedforward.data.convert"


def _data_sets() -> tuple[str, ...]:
    """Return the names of the converters; those of msdyn are not imported for it."""
    if (package := sys.modules.get(_CONVERTERS)) is not None:
        return package.converter_names()  # of plugins, which import the package, too
    return declared_names(_CONVERTERS, "register_converter")


@dataclass(frozen=True)
class ShardOptions(Options):
    """How clips are stored."""

    shard_mb: Annotated[float, Range(above=0, most=1e6, unit="MB")] = 1000.0
    """Size of a shard, 10^6 bytes; the last clip may exceed it."""
    images: ImageFormat = "jpg"
    """Format of the images."""
    quality: Annotated[int, Range(1, 100)] = 95
    """Quality of JPEG."""


@dataclass(frozen=True)
class RandomCommand(Options):
    """Write clips of random scenes with exact depth and motion, seen by two cameras."""

    out: Annotated[Path, POSITIONAL]
    """Folder of shards; clips that it has are not made again."""
    count: Annotated[int, Range(1, unit="clips")] = 100
    """Clips."""
    frames: Annotated[int, Range(1, 10_000, unit="frames")] = 24
    """Frames of each camera."""
    size: Annotated[int, Range(1, 4096, unit="px")] = 64
    """Side of the images, px."""
    seed: Seed = 0
    """Of the first clip; the others have the seeds after it, which are their names."""
    dataset: str = "random"
    """Name of the data set of the clips: clips of other options need another one."""
    scenes: SceneOptions = field(default_factory=SceneOptions)
    """What is drawn at random."""
    shards: Annotated[ShardOptions, Named("")] = field(default_factory=ShardOptions)


@dataclass(frozen=True)
class SceneCommand(Options):
    """Write scene directories of msdyn as clips, with their held-out cameras and 3D tracks."""

    scenes: Annotated[tuple[Path, ...], POSITIONAL]
    """Scene directories."""
    out: Path
    """Folder of shards; clips that it has are not written again."""
    name: str | None = None
    """Name of the clip of a single scene; that of its folder by default."""
    shards: Annotated[ShardOptions, Named("")] = field(default_factory=ShardOptions)

    def check_relations(self) -> None:
        if not self.scenes:
            raise OptionError("scenes", "expected at least one scene directory, got none")
        if self.name is not None and len(self.scenes) > 1:
            raise OptionError("name", f"expected a single scene, got {len(self.scenes)}")


@dataclass(frozen=True)
class ConvertCommand(Options):
    """Write a public data set as clips."""

    dataset: Annotated[str, POSITIONAL, Choices(_data_sets)]
    """Data set."""
    source: Annotated[Path, POSITIONAL]
    """Its folder."""
    out: Annotated[Path, POSITIONAL]
    """Folder of shards; clips that it has are not written again."""
    skip_damaged: bool = False
    """Report clips that cannot be read and go on without them, instead of stopping."""
    shards: Annotated[ShardOptions, Named("")] = field(default_factory=ShardOptions)


@dataclass(frozen=True)
class ListCommand(Options):
    """List the clips of a folder, and what they are in training."""

    folder: Annotated[Path, POSITIONAL]
    """Folder of shards."""
    limit: Annotated[int, Range(0, unit="clips")] = 50
    """Clips that are listed; the sums are of all."""


@dataclass(frozen=True)
class ShowCommand(Options):
    """Write a contact sheet of a clip: images, depth, motion, target view."""

    folder: Annotated[Path, POSITIONAL]
    """Folder of shards."""
    clip: Annotated[str, POSITIONAL]
    """The clip, as `DATASET/NAME`."""
    out: Path
    """PNG."""
    frames: Annotated[int, Range(1, 1000, unit="frames")] = 6
    """Columns."""
