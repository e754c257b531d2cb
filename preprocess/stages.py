"""The stages of preprocessing, and the names of their backends."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Literal, get_args

from msdyn.plugins import declarations, import_submodules

__all__ = [
    "BACKEND_STAGES",
    "STAGES",
    "BackendStage",
    "SaliencyChoice",
    "Stage",
    "add_backends",
    "backend_names",
    "import_backends",
    "network_names",
]

Stage = Literal["frames", "tracks", "masks", "cameras", "depth"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which they run."""

BackendStage = Literal["tracks", "masks", "cameras", "depth"]
BACKEND_STAGES: tuple[BackendStage, ...] = get_args(BackendStage)
"""The stages that have backends."""

SaliencyChoice = Literal["auto", "on", "off"]

_REGISTRY = "msdyn.preprocess.registry"
_MODULES: list[str] = []
"""Modules of backends beside those in the folders of the stages."""


def add_backends(module: str) -> None:
    """Let a module be imported, for the backends that it registers, when one of them is asked for.

    Args:
        module: its name.
    """
    if module not in _MODULES:
        _MODULES.append(module)


def import_backends(stage: BackendStage) -> None:
    """Import the modules that register the backends of a stage."""
    _import_folder(stage)
    for module in _MODULES:
        import_module(module)


@cache
def _import_folder(stage: BackendStage) -> None:
    import_submodules(f"msdyn.preprocess.{stage}")


def backend_names(stage: BackendStage) -> tuple[str, ...]:
    """Return the names of the backends of a stage: without weights, from files, with weights."""
    loads = _loads_checkpoint(stage)
    return tuple(sorted(loads, key=lambda name: (loads[name], name == "files", name)))


def network_names(stage: BackendStage) -> tuple[str, ...]:
    """Return the names of the backends of a stage that load a checkpoint."""
    loads = _loads_checkpoint(stage)
    return tuple(name for name in backend_names(stage) if loads[name])


def _loads_checkpoint(stage: BackendStage) -> dict[str, bool]:
    """Return whether each backend has a checkpoint; those not imported are not imported for it."""
    found = {}
    for package in (f"msdyn.preprocess.{stage}", *_MODULES):
        for entry in declarations(package, "register_backend"):
            if entry.arguments[0] == stage:
                found[entry.arguments[1]] = "model" in entry.given
        if package == "msdyn.preprocess.depth":
            networks = declarations(package, "register_depth_network")
            found |= {entry.arguments[0]: True for entry in networks}
    if (registry := sys.modules.get(_REGISTRY)) is not None:
        found |= {n: spec.model is not None for n, spec in registry.registered(stage).items()}
    return found
