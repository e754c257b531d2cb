"""From a video to a scene directory: frames, tracks, masks, cameras, depth."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
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

__getattr__ = lazy_names(
    __name__,
    {
        "config": ("PreprocessConfig",),
        "contracts": (
            "BACKEND_STAGES",
            "STAGES",
            "Backend",
            "BackendOptions",
            "BackendStage",
            "CameraSolution",
            "DepthMap",
            "DepthResult",
            "FileBackend",
            "Footage",
            "Mask",
            "MaskResult",
            "Masks",
            "SparsePoints",
            "Stage",
            "TrackResult",
            "Verdict",
        ),
        "depth.networks": ("register_depth_network",),
        "pipeline": ("preprocess_video",),
        "presets": ("WITHOUT_WEIGHTS",),
        "registry": (
            "BackendSpec",
            "backend_names",
            "backends",
            "find_backend",
            "register_backend",
        ),
        "streamed": ("Streamed",),
    },
)
