"""The backends of each stage by name. To add one, add a line here and its name to the config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdyn.preprocess.cameras.from_files import FileCameras
from msdyn.preprocess.config import MODEL_BACKENDS, PreprocessConfig, Stage
from msdyn.preprocess.depth.from_files import FileDepth
from msdyn.preprocess.masks.from_files import FileMasks
from msdyn.preprocess.tracks.from_files import FileTracks

__all__ = ["BACKENDS", "BackendSpec"]


@dataclass(frozen=True)
class BackendSpec:
    """How to make a backend, and what it reads.

    Attributes:
        make: returns the backend of a config; heavy imports happen inside.
        needs: the stages whose results it uses; when one of them changes, it runs again.
        triangulates: it makes depth from the cameras' motion, and so not from poor cameras.
    """

    make: Callable[[PreprocessConfig], Any]
    needs: tuple[Stage, ...]
    triangulates: bool = False


def _given(path: Path | None) -> Path:
    assert path is not None, "the config asks for a path where a backend reads files"
    return path


def _flow_tracks(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.tracks.chained_flow import FlowTracks

    return FlowTracks()


def _motion_masks(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.masks.motion import MotionMasks

    return MotionMasks()


def _no_masks(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.masks.motion import NoMasks

    return NoMasks()


def _sfm_cameras(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.cameras.structure_from_motion import SfmCameras

    return SfmCameras()


def _fused_depth(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.depth.fused import FusedDepth

    return FusedDepth()


def _model_depth(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.depth.networks import ModelDepth

    model, name = config.depth_model, config.depth
    assert model is not None and name not in (None, "fused", "files")
    return ModelDepth(name, model, offline=config.preset == "offline")


def _sam_masks(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.masks.sam_video import SamMasks

    model, name = config.masks_model, config.masks
    assert model is not None and name in ("sam2", "edgetam")
    return SamMasks(name, model, config.prompts, offline=config.preset == "offline")


def _cotracker_tracks(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.tracks.cotracker import CoTracker

    assert config.tracks_model is not None
    return CoTracker(config.tracks_model, offline=config.preset == "offline")


def _tapir_tracks(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.tracks.tapir import Tapir

    assert config.tracks_model is not None
    return Tapir(config.tracks_model, offline=config.preset == "offline")


def _raft_tracks(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.tracks.raft import RaftTracks

    assert config.tracks_model is not None
    return RaftTracks(model=config.tracks_model, offline=config.preset == "offline")


_DEPTH_NEEDS: tuple[Stage, ...] = ("frames", "tracks", "masks", "cameras")

# Masks always need tracks: an object must have some.
BACKENDS: dict[Stage, dict[str, BackendSpec]] = {
    "tracks": {
        "flow": BackendSpec(_flow_tracks, ("frames",)),
        "files": BackendSpec(lambda config: FileTracks(_given(config.tracks_path)), ("frames",)),
        "cotracker": BackendSpec(_cotracker_tracks, ("frames",)),
        "tapir": BackendSpec(_tapir_tracks, ("frames",)),
        "raft": BackendSpec(_raft_tracks, ("frames",)),
    },
    "masks": {
        "motion": BackendSpec(_motion_masks, ("frames", "tracks")),
        "files": BackendSpec(
            lambda config: FileMasks(_given(config.masks_path)), ("frames", "tracks")
        ),
        "none": BackendSpec(_no_masks, ("frames", "tracks")),
        **{name: BackendSpec(_sam_masks, ("frames", "tracks")) for name in MODEL_BACKENDS["masks"]},
    },
    "cameras": {
        "sfm": BackendSpec(_sfm_cameras, ("frames", "tracks", "masks")),
        "files": BackendSpec(
            lambda config: FileCameras(
                _given(config.cameras_path), config.world_units, config.intrinsics
            ),
            ("frames",),
        ),
    },
    "depth": {
        "fused": BackendSpec(_fused_depth, _DEPTH_NEEDS, triangulates=True),
        "files": BackendSpec(
            lambda config: FileDepth(_given(config.depth_path), config.depth_scale), ("frames",)
        ),
        **{name: BackendSpec(_model_depth, _DEPTH_NEEDS) for name in MODEL_BACKENDS["depth"]},
    },
}
