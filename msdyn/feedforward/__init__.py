"""The feed-forward network (MoVieS): one Gaussian per pixel and its motion, in one pass."""

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
