"""What a batch is made of: clips, the stages of a clip, and a row for each stage that was run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

from msdyn.errors import InputError, printable

__all__ = [
    "STAGES",
    "Clip",
    "Job",
    "Row",
    "StageName",
    "State",
    "folder_name",
    "row_of",
    "stages_until",
]

StageName = Literal["tracks", "masks", "cameras", "refine", "depth", "fit", "evaluate"]
STAGES: tuple[StageName, ...] = get_args(StageName)
"""In the order in which they run: frames and tracks, masks, cameras, masks again with the cameras,
depth, the fit, its evaluation."""

State: TypeAlias = Literal[
    "done",
    "bad-input",
    "poor",
    "crashed",
    "out-of-memory",
    "timed-out",
    "refused",
    "lost",
]
"""How a stage ended: `done`; the command's exit code 2 (`bad-input`) or 3 (`poor`); the process
died or raised an unexpected error (`crashed`); more memory than it may hold (`out-of-memory`); more
time (`timed-out`); exit code 4 for another reason than memory, as a full disk (`refused`); its
worker or machine was lost, which is not the clip's fault (`lost`)."""

_LONGEST_ID = 120
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Clip:
    """A clip of a manifest.

    Attributes:
        id: name of the clip, unique in the manifest.
        uri: of the video: a path, or anything fsspec opens.
        start, end: seconds of the video; None for its begin and end.
        preprocess, fit: options of `msdyn-preprocess` and `msdyn-fit` for this clip, as on the
            command line; they follow those of the whole batch and override them.
        metadata: further columns of the manifest, JSON values; they travel along.
    """

    id: str
    uri: str
    start: float | None = None
    end: float | None = None
    preprocess: str = ""
    fit: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of what the result depends on."""
        facts = [self.uri, self.start, self.end, self.preprocess, self.fit]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Job:
    """A stage to run for a clip.

    Attributes:
        clip: the clip.
        stage: to run; it is not run where the clip's record says that another one is next.
        attempt: 1, or 2 for the second try, which is smaller.
        round: 0, and one more for each `msdyn-batch retry` of this clip.
    """

    clip: Clip
    stage: StageName
    attempt: int = 1
    round: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Job:
        """Return the job that `to_json` described."""
        return cls(**{**value, "clip": Clip(**value["clip"])})


@dataclass(frozen=True)
class Row:
    """What came of one try of one stage of one clip: a row of the results.

    Attributes:
        clip, stage, attempt, round: of the job.
        state: how it ended.
        smaller: whether images of half the size were used, because a first try had crashed or held
            too much memory.
        seconds: wall time, with fetching and storing files.
        cpu_seconds, gpu_seconds: of the stage; GPU time is wall time by the share of a GPU.
        peak_memory: bytes, of the worker's process.
        verdict: good, usable or poor, where the stage gives one.
        psnr: dB, of the frames that were kept out of the fit.
        error_class: the exception or signal; empty where the stage is done.
        error: its one line, which has the cure.
        uri: where the results are.
        host: machine of the worker.
        started: seconds since the epoch.
        metadata: of the clip, as JSON text.
        ended: how the clip ended with this row, `done` or the reason of its quarantine; empty where
            it goes on. Only the results have it, not the clip's record.
    """

    clip: str
    stage: str
    state: State
    attempt: int = 1
    round: int = 0
    smaller: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    peak_memory: int = 0
    verdict: str = ""
    psnr: float | None = None
    error_class: str = ""
    error: str = ""
    uri: str = ""
    host: str = ""
    started: float = 0.0
    metadata: str = "{}"
    ended: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return asdict(self)


_ROW = {f.name for f in fields(Row)}


def row_of(value: Mapping[str, Any]) -> Row:
    """Return the row of JSON values; fields of later versions are left out.

    Raises:
        InputError: fields are missing, or the state is unknown.
    """
    try:
        row = Row(**{name: value[name] for name in value if name in _ROW})
    except TypeError as error:
        raise InputError(f"row of a batch: {error}; expected {', '.join(sorted(_ROW))}") from error
    if row.state not in get_args(State):
        raise InputError(f"row of a batch: unknown state {printable(row.state, 40)!r}")
    return row


def folder_name(clip_id: str) -> str:
    """Return the name of a clip's folder: its id, with other characters as `%xx`.

    Ids that are too long for a name end with their digest.
    """
    name = _UNSAFE.sub(lambda found: "".join(f"%{b:02x}" for b in found[0].encode()), clip_id)
    if name.startswith("."):
        name = f"%2e{name[1:]}"
    if len(name) > _LONGEST_ID:
        name = (
            f"{name[:_LONGEST_ID]}-{hashlib.blake2b(clip_id.encode(), digest_size=6).hexdigest()}"
        )
    return name


def stages_until(last: StageName) -> Sequence[StageName]:
    """Return the stages up to one of them."""
    return STAGES[: STAGES.index(last) + 1]
