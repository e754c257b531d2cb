"""Digests of everything that the result of a stage depends on."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

from msdyn.errors import InputError
from msdyn.preprocess.config import PreprocessConfig
from msdyn.preprocess.contracts import BackendInfo, BackendStage, Stage
from msdyn.preprocess.frames.extract import FrameOptions
from msdyn.preprocess.frames.sources import source_files, times_file
from msdyn.preprocess.records import StageRecords, content_digest, recorded_options

__all__ = ["InputDigests"]


class InputDigests:
    """The digests of the stages of one run."""

    def __init__(
        self, config: PreprocessConfig, frames: FrameOptions, records: StageRecords
    ) -> None:
        self._config, self._frames, self._records = config, frames, records

    @cached_property
    def _contents(self) -> list[str]:
        """The digest of each file of the video."""
        return [content_digest(file) for file in source_files(self._config.video)]

    @property
    def source(self) -> str | None:
        """The digest of the content of the video; None if it is gone."""
        try:
            return _digest(self._contents)
        except FileNotFoundError:
            return None

    @property
    def frames(self) -> str:
        """The digest of everything that the frames depend on."""
        files = source_files(self._config.video)
        names = [file.name for file in files] if len(files) > 1 else []
        options = self._frames.recorded()
        times = times_file(self._config.video)
        stamps = [] if times is None else [content_digest(times)]
        return _digest([options, names, self._contents, *stamps])

    def of(self, stage: BackendStage, backend: BackendInfo, needs: tuple[Stage, ...]) -> str:
        """Return the digest of everything that the result of a backend depends on.

        Args:
            stage: of the backend.
            backend: the backend.
            needs: the stages whose results it uses.

        Raises:
            InputError: one of these is not done.
        """
        options = {k: v for k, v in recorded_options(backend).items() if k != "path"}
        parts = [backend.name, options, content_digest(backend.path) if backend.path else None]
        for need in needs:
            record = self._records.record(need)
            if record is None:
                raise InputError(
                    f"{self._records.directory}: {stage} need the {need} stage, which is not done; "
                    f"add --only {need}, or leave --only out"
                )
            parts.append(record["input_hash"])
        return _digest(parts)


def _digest(parts: list[Any]) -> str:
    """Return the digest of JSON values."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
