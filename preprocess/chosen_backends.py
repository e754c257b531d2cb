"""The backends that a config names, and the order in which their stages run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msdyn.errors import InputError
from msdyn.preprocess.config import PreprocessConfig
from msdyn.preprocess.contracts import (
    BACKEND_STAGES,
    BackendInfo,
    BackendStage,
    CamerasBackend,
    DepthBackend,
    MasksBackend,
    Stage,
    TracksBackend,
)
from msdyn.preprocess.registry import BackendSpec, find_backend

__all__ = ["Backends", "stage_order"]


@dataclass(frozen=True)
class Backends:
    """The backend of each stage."""

    tracks: TracksBackend
    masks: MasksBackend
    cameras: CamerasBackend
    depth: DepthBackend

    @classmethod
    def of(cls, config: PreprocessConfig) -> Backends:
        """Return the backends that a config names for all stages."""
        tracks, masks, cameras, depth = (config.options_of(stage) for stage in BACKEND_STAGES)
        return cls(
            find_backend("tracks", tracks.name).make(tracks),
            find_backend("masks", masks.name).make(masks),
            find_backend("cameras", cameras.name).make(cameras),
            find_backend("depth", depth.name).make(depth),
        )

    def info(self, stage: BackendStage) -> BackendInfo:
        """Return the backend of a stage."""
        return getattr(self, stage)


def stage_order(
    specs: Mapping[BackendStage, BackendSpec[Any]],
) -> dict[BackendStage, tuple[Stage, ...]]:
    """Return what each stage reads, in an order in which each comes after the stages it reads.

    The order is that of `STAGES`, unless a backend needs a later stage, as tracks that need
    cameras. Stages that only help a backend are read unless they need it in turn.

    Raises:
        InputError: stages need each other.
    """
    order: dict[BackendStage, tuple[Stage, ...]] = {}
    helped = True
    while len(order) < len(specs):
        done = {"frames", *order}
        for stage in BACKEND_STAGES:
            reads = specs[stage].needs + (specs[stage].helped_by if helped else ())
            if stage not in order and done.issuperset(reads):
                order[stage] = reads
                helped = True
                break
        else:
            if not helped:
                left: list[BackendStage] = [s for s in BACKEND_STAGES if s not in order]
                first = left[0]
                missing = ", ".join(sorted(set(specs[first].needs) - done))
                raise InputError(
                    f"{first}: this backend needs {missing}, which need {first}; give these from "
                    f"files, as with --cameras files --cameras-path PATH"
                )
            helped = False
    return order
