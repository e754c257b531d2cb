"""The backends of each stage by name. To add one, add a line here and its name to the config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdyn.preprocess.config import PreprocessConfig, Stage
from msdyn.preprocess.from_files import FileCameras, FileDepth, FileMasks, FileTracks

__all__ = ["BACKENDS", "BackendSpec"]


@dataclass(frozen=True)
class BackendSpec:
    """How to make a backend, and what it reads.

    Attributes:
        make: returns the backend of a config; heavy imports happen inside.
        needs: the stages whose results it uses; when one of them changes, it runs again.
    """

    make: Callable[[PreprocessConfig], Any]
    needs: tuple[Stage, ...]


def _given(path: Path | None) -> Path:
    assert path is not None, "the config asks for a path where a backend reads files"
    return path


def _flow_tracks(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.tracks import FlowTracks

    return FlowTracks()


def _motion_masks(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.masks import MotionMasks

    return MotionMasks()


def _no_masks(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.masks import NoMasks

    return NoMasks()


def _sfm_cameras(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.cameras import SfmCameras

    return SfmCameras()


def _fused_depth(config: PreprocessConfig) -> Any:
    from msdyn.preprocess.depth import FusedDepth

    return FusedDepth()


# Masks always need tracks: an object must have some.
BACKENDS: dict[Stage, dict[str, BackendSpec]] = {
    "tracks": {
        "flow": BackendSpec(_flow_tracks, ("frames",)),
        "files": BackendSpec(lambda config: FileTracks(_given(config.tracks_path)), ("frames",)),
    },
    "masks": {
        "motion": BackendSpec(_motion_masks, ("frames", "tracks")),
        "files": BackendSpec(
            lambda config: FileMasks(_given(config.masks_path)), ("frames", "tracks")
        ),
        "none": BackendSpec(_no_masks, ("frames", "tracks")),
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
        "fused": BackendSpec(_fused_depth, ("frames", "tracks", "masks", "cameras")),
        "files": BackendSpec(
            lambda config: FileDepth(_given(config.depth_path), config.depth_scale), ("frames",)
        ),
    },
}
