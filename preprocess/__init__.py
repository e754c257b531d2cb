"""From a video to a scene directory: frames, tracks, masks, cameras, depth."""

from msdyn.plugins import import_submodules
from msdyn.preprocess.config import PreprocessConfig
from msdyn.preprocess.contracts import (
    BACKEND_STAGES,
    STAGES,
    Backend,
    BackendOptions,
    BackendStage,
    CameraSolution,
    DepthMap,
    DepthResult,
    FileBackend,
    Footage,
    Mask,
    MaskResult,
    Masks,
    SparsePoints,
    Stage,
    TrackResult,
    Verdict,
)
from msdyn.preprocess.depth.networks import register_depth_network
from msdyn.preprocess.pipeline import preprocess_video
from msdyn.preprocess.presets import WITHOUT_WEIGHTS
from msdyn.preprocess.registry import (
    BackendSpec,
    backend_names,
    backends,
    find_backend,
    register_backend,
)
from msdyn.preprocess.streamed import Streamed

__all__ = [
    "BACKEND_STAGES",
    "STAGES",
    "WITHOUT_WEIGHTS",
    "Backend",
    "BackendOptions",
    "BackendSpec",
    "BackendStage",
    "CameraSolution",
    "DepthMap",
    "DepthResult",
    "FileBackend",
    "Footage",
    "Mask",
    "MaskResult",
    "Masks",
    "PreprocessConfig",
    "SparsePoints",
    "Stage",
    "Streamed",
    "TrackResult",
    "Verdict",
    "backend_names",
    "backends",
    "find_backend",
    "preprocess_video",
    "register_backend",
    "register_depth_network",
]

for _stage in BACKEND_STAGES:  # each registers the backends of a folder
    import_submodules(f"{__name__}.{_stage}")
