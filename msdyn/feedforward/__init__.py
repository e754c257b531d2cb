"""The feed-forward network (MoVieS): one Gaussian per pixel and its motion, in one pass."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.feedforward.checkpoint import (
        load_model,
        load_vggt,
        published_names,
        save_model,
        start_from,
    )
    from msdyn.feedforward.config import ModelConfig
    from msdyn.feedforward.model import ClipTensors, Features, Movies, PixelMotion, StaticPixels
    from msdyn.feedforward.splats import SplatterPixels

__all__ = [
    "ClipTensors",
    "Features",
    "ModelConfig",
    "Movies",
    "PixelMotion",
    "SplatterPixels",
    "StaticPixels",
    "load_model",
    "load_vggt",
    "published_names",
    "save_model",
    "start_from",
]

__getattr__ = lazy_names(
    __name__,
    {
        "checkpoint": (
            "load_model",
            "load_vggt",
            "published_names",
            "save_model",
            "start_from",
        ),
        "config": ("ModelConfig",),
        "model": (
            "ClipTensors",
            "Features",
            "Movies",
            "PixelMotion",
            "StaticPixels",
        ),
        "splats": ("SplatterPixels",),
    },
)
