"""Folders of shards, opened for training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from msdyn.errors import InputError
from msdyn.feedforward.batches import TrainingBatch
from msdyn.feedforward.data.batch import ClipBatchOptions, batch_of, random_shape
from msdyn.feedforward.data.datasets import dataset_info
from msdyn.feedforward.data.index import ClipEntry, read_index
from msdyn.feedforward.data.sample import draw_sample, is_static
from msdyn.feedforward.data.sampler import ClipSampler
from msdyn.feedforward.data.shards import index_paths
from msdyn.feedforward.data.stored import StoredClip

__all__ = ["ClipLibrary"]

# Streams of random numbers of a batch: what its scenes share, and each scene's own.
_SHARED, _OWN = 0, 1


class ClipLibrary:
    """The clips of folders of shards.

    Attributes:
        entries: all clips, in the order of folders, shards and clips.
        redrawn: choices of frames that `batch` has dropped so far.
    """

    def __init__(self, folders: Sequence[str | os.PathLike] | str | os.PathLike) -> None:
        """Read the indices of the shards.

        Raises:
            FileNotFoundError: there is no such folder.
            InputError: a folder has no shards, an index is damaged, or two clips have one name.
        """
        if isinstance(folders, str | os.PathLike):
            folders = [folders]
        self.entries: list[ClipEntry] = []
        self.redrawn = 0
        self._usable: dict[tuple[str, int], tuple[list[ClipEntry], np.ndarray]] = {}
        for folder in map(Path, folders):
            if not folder.is_dir():
                raise FileNotFoundError(f"{folder}: no such folder of clips")
            paths = index_paths(folder)
            if not paths:
                raise InputError(
                    f"{folder}: expected shards with an index; msdyn-clips writes them"
                )
            for path in paths:
                self.entries += read_index(path)
        self._by_key = {entry.key: entry for entry in self.entries}
        if len(self._by_key) < len(self.entries):
            keys = sorted(entry.key for entry in self.entries)
            twice = next(a for a, b in zip(keys, keys[1:], strict=False) if a == b)
            raise InputError(f"clips: expected one of each name, got {twice} twice")

    def __len__(self) -> int:
        """Clips."""
        return len(self.entries)

    def __repr__(self) -> str:
        return f"ClipLibrary({len(self)} clips of {', '.join(self.datasets)})"

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets."""
        return sorted({entry.dataset for entry in self.entries})

    def clip(self, key: str) -> StoredClip:
        """Open a clip by `DATASET/NAME`.

        Raises:
            InputError: there is no such clip, or it is damaged.
        """
        if key not in self._by_key:
            raise InputError(
                f"clip {key}: expected one of {len(self)} clips, such as {self.entries[0].key}"
            )
        return StoredClip(self._by_key[key])

    def usable(self, options: ClipBatchOptions) -> list[ClipEntry]:
        """Return the clips that may be in a batch: of the kind asked for, and long enough.

        Raises:
            InputError: there are none.
        """
        return self._usable_and_repeats(options)[0]

    def _usable_and_repeats(self, options: ClipBatchOptions) -> tuple[list[ClipEntry], np.ndarray]:
        kind = (options.only, options.frames[1])
        if kind not in self._usable:
            usable = [
                entry
                for entry in self.entries
                if entry.inputs >= options.frames[1]
                and (options.only == "all" or is_static(entry) == (options.only == "static"))
            ]
            repeats = np.array([dataset_info(entry.dataset).repeat for entry in usable], np.int64)
            self._usable[kind] = usable, repeats
        usable, repeats = self._usable[kind]
        if not usable:
            which = "" if options.only == "all" else f"{options.only} "
            raise InputError(
                f"clips: expected {which}clips with at least {options.frames[1]} input frames, got "
                f"none among {len(self)}"
            )
        return usable, repeats

    def batch(
        self,
        options: ClipBatchOptions,
        *,
        seed: int,
        number: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        processes: int = 1,
    ) -> TrainingBatch:
        """Return a batch, which the arguments alone determine.

        The processes of a run take parts of one batch of `processes` x `scenes` scenes: all have
        the same shape, and together they are the batch of one process with as many scenes.

        Args:
            options: of the batch.
            seed: of all choices.
            number: of the batch, from 0.
            device: of the result.
            rank: of this process.
            processes: that take part.

        Raises:
            InputError: no clip is usable, or a clip cannot be read or has no usable frames.
        """
        usable, repeats = self._usable_and_repeats(options)
        sampler = ClipSampler(repeats, seed)
        shape = random_shape(options, _generator(seed, _SHARED, number))
        entries, samples = [], []
        for scene in range(options.scenes):
            draw = (number * processes + rank) * options.scenes + scene
            entry = usable[sampler.clip(draw)]
            sample = draw_sample(
                StoredClip(entry),
                shape.size,
                shape.frames,
                options.queries,
                _generator(seed, _OWN, draw),
                crop=options.crop,
                query_times=options.query_times,
                targets=options.targets,
            )
            self.redrawn += sample.redrawn
            entries.append(entry)
            samples.append(sample)
        return batch_of(entries, samples, device)


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)
