"""The types of what `scene.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from msdyn.errors import InputError
from msdyn.reading import MOST_FRAMES, as_schema

__all__ = ["WORLD_UNITS", "SceneFile", "StageRecord", "check_stages"]

WORLD_UNITS = ("metric", "arbitrary")

_Index = Annotated[int, Meta(ge=0, lt=2**31)]
_Count = Annotated[int, Meta(ge=1, lt=2**31)]
_Seconds = Annotated[float, Meta(ge=0)]


class StageRecord(TypedDict):
    """The record of a finished stage of preprocessing."""

    backend: str
    model: str | None
    licence: str | None
    options: dict[str, Any]
    input_hash: str
    seconds: _Seconds
    quality: dict[str, Any]


class SceneFile(TypedDict):
    """`scene.json` without its format and version."""

    frame_count: Annotated[int, Meta(ge=2, le=MOST_FRAMES)]
    width: _Count
    height: _Count
    fps: Annotated[float, Meta(gt=0)]
    timestamps: list[float]
    world_units: Literal["metric", "arbitrary"]
    stages: dict[str, StageRecord]


class _Verdict(TypedDict):
    grade: Literal["good", "usable", "poor"]
    reason: str
    cure: str


class _Video(TypedDict):
    """Options of the frames stage where the frames are those of a video or a folder."""

    source: str
    source_frames: list[_Index]
    source_frame_count: _Count


class _Segment(TypedDict):
    """The part of a video that counts as the whole, in seconds of the file."""

    start: float
    end: float
    frames: _Count


class _VideoDetails(TypedDict, total=False):
    source_width: _Count
    source_height: _Count
    source_start_seconds: float
    source_names: list[str]
    fps: float | None
    shots: int
    segment: _Segment


class _Options(TypedDict, total=False):
    """Options of any stage that other code reads."""

    why: str
    preset: str


class _Quality(TypedDict, total=False):
    """Figures of any stage that other code reads."""

    verdict: _Verdict
    motion: Literal["moving", "rotating", "static", "unknown"]
    ambiguous: bool
    frames: int
    registered_frames: int
    mean_life_frames: float | None
    moving_share: float | None
    stability: float | None
    names: dict[str, str]
    unmatched: list[str]
    needs_cameras: bool
    better_with_cameras: bool
    views: str | None
    known: float | None
    measured: float | None
    assumed: float
    completed_by: str | None
    alignment_error: float | None
    disagreeing: float | None
    reprojection_difference: float | None
    trust: Annotated[float, Meta(gt=0, le=1)]


def check_stages(stages: Mapping[str, StageRecord], frames: int) -> None:
    """Check the types of what other code reads of the records of the stages.

    Args:
        stages: by name.
        frames: of the clip.

    Raises:
        InputError: the message names the key.
    """
    for name, record in stages.items():
        as_schema(record["quality"], _Quality, f"stages.{name}.quality")
        as_schema(record["options"], _Options, f"stages.{name}.options")
    record = stages.get("frames")
    if record is None or record["backend"] != "video":
        return
    where = "stages.frames.options"
    as_schema(record["options"], _VideoDetails, where)
    video = as_schema(record["options"], _Video, where)
    chosen, count = video["source_frames"], video["source_frame_count"]
    if len(chosen) != frames:
        raise InputError(
            f"{where}.source_frames: expected one for each of {frames} frames, got {len(chosen)}"
        )
    if max(chosen) >= count:
        raise InputError(f"{where}.source_frames: expected 0 to {count - 1}, got {max(chosen)}")
    names = record["options"].get("source_names")
    if names is not None and len(names) != count:
        raise InputError(f"{where}.source_names: expected {count} names, got {len(names)}")
