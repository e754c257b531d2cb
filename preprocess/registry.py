"""Backends of the stages by name. To add one, write a class and register it:

    @register_backend("depth", "toy", needs=("frames", "cameras"))
    @dataclass(frozen=True)
    class ToyDepth(Backend):
        def estimate(self, scene, tracks, masks, solution) -> DepthResult: ...

The module lies in the folder of its stage, or is a plugin (see `msdyn.plugins`). `msdyn-preprocess
--depth toy` then uses it. A checkpoint on the Hugging Face hub has an entry, with its licence, in
`checkpoints/huggingface.py`. For a network of depth `register_depth_network` is all that is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

from msdyn.errors import InputError
from msdyn.preprocess.contracts import (
    BackendInfo,
    BackendOptions,
    BackendStage,
    CamerasBackend,
    DepthBackend,
    MasksBackend,
    Stage,
    TracksBackend,
)
from msdyn.preprocess.stages import backend_names, import_backends

__all__ = [
    "BackendSpec",
    "backend_names",
    "backends",
    "find_backend",
    "register_backend",
    "registered",
]

Needs: TypeAlias = tuple[Stage, ...]
Made_co = TypeVar("Made_co", bound=BackendInfo, covariant=True)


@dataclass(frozen=True)
class BackendSpec(Generic[Made_co]):
    """How to make a backend, and what it reads.

    Attributes:
        make: returns the backend of some options.
        needs: the stages whose results it uses; when one of them changes, it runs again.
        helped_by: further stages whose results it uses if these do not need it in turn.
        model: its default checkpoint, None without weights.
        triangulates: it triangulates depth, and so is not run with poor cameras.
    """

    make: Callable[[BackendOptions], Made_co]
    needs: Needs
    model: str | None = None
    triangulates: bool = False
    helped_by: Needs = ()


_SPECS: dict[BackendStage, dict[str, BackendSpec[Any]]] = {
    "tracks": {},
    "masks": {},
    "cameras": {},
    "depth": {},
}

OfTracks = TypeVar("OfTracks", bound=TracksBackend)
OfMasks = TypeVar("OfMasks", bound=MasksBackend)
OfCameras = TypeVar("OfCameras", bound=CamerasBackend)
OfDepth = TypeVar("OfDepth", bound=DepthBackend)


@overload
def register_backend(
    stage: Literal["tracks"], name: str, *, needs: Needs, model: str | None = ...
) -> Callable[[type[OfTracks]], type[OfTracks]]: ...
@overload
def register_backend(
    stage: Literal["masks"], name: str, *, needs: Needs, model: str | None = ...
) -> Callable[[type[OfMasks]], type[OfMasks]]: ...
@overload
def register_backend(
    stage: Literal["cameras"],
    name: str,
    *,
    needs: Needs,
    model: str | None = ...,
    helped_by: Needs = ...,
) -> Callable[[type[OfCameras]], type[OfCameras]]: ...
@overload
def register_backend(
    stage: Literal["depth"],
    name: str,
    *,
    needs: Needs,
    model: str | None = ...,
    triangulates: bool = ...,
    helped_by: Needs = ...,
) -> Callable[[type[OfDepth]], type[OfDepth]]: ...
def register_backend(
    stage: BackendStage,
    name: str,
    *,
    needs: Needs,
    model: str | None = None,
    triangulates: bool = False,
    helped_by: Needs = (),
) -> Callable[[Any], Any]:
    """Return the decorator that makes a backend of a stage known by a name.

    Args:
        stage: "tracks", "masks", "cameras" or "depth".
        name: as on the command line.
        needs: the stages whose results the backend uses.
        model: its default checkpoint, None without weights.
        triangulates: it triangulates depth from the motion of the cameras, and so is not run with
            poor ones.
        helped_by: further stages that the backend uses if these do not need it in turn.
    """

    def register(cls: Any) -> Any:
        if "name" not in getattr(cls, "__dataclass_fields__", {}):
            cls.name = name
        _SPECS[stage][name] = BackendSpec(cls.from_options, needs, model, triangulates, helped_by)
        return cls

    return register


def registered(stage: BackendStage) -> dict[str, BackendSpec[Any]]:
    """Return the backends of a stage that have been imported, by name."""
    return _SPECS[stage]


def backends(stage: BackendStage) -> dict[str, BackendSpec[Any]]:
    """Return the backends of a stage by name: without weights, from files, with weights."""
    import_backends(stage)
    return {name: _SPECS[stage][name] for name in backend_names(stage)}


@overload
def find_backend(stage: Literal["tracks"], name: str) -> BackendSpec[TracksBackend]: ...
@overload
def find_backend(stage: Literal["masks"], name: str) -> BackendSpec[MasksBackend]: ...
@overload
def find_backend(stage: Literal["cameras"], name: str) -> BackendSpec[CamerasBackend]: ...
@overload
def find_backend(stage: Literal["depth"], name: str) -> BackendSpec[DepthBackend]: ...
def find_backend(stage: BackendStage, name: str) -> BackendSpec[Any]:
    """Return a backend of a stage by its name.

    Raises:
        InputError: no such backend.
    """
    if name not in _SPECS[stage]:
        import_backends(stage)
    if name not in _SPECS[stage]:
        names = ", ".join(backend_names(stage))
        raise InputError(f"{stage}: expected one of {names}, got {name!r}")
    return _SPECS[stage][name]
