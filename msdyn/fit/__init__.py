"""Fitting a Gaussian sequence to a scene directory."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.fit.config import (
        PRESETS,
        DensityConfig,
        FitConfig,
        LearningRateConfig,
        LossConfig,
        preset,
    )
    from msdyn.fit.fitter import Fitter, fit_scene
    from msdyn.fit.step import Step, register_loss
    from msdyn.motion import MotionConfig

__all__ = [
    "PRESETS",
    "DensityConfig",
    "FitConfig",
    "Fitter",
    "LearningRateConfig",
    "LossConfig",
    "MotionConfig",
    "Step",
    "fit_scene",
    "preset",
    "register_loss",
]

__getattr__ = lazy_names(
    __name__,
    {
        "config": (
            "PRESETS",
            "DensityConfig",
            "FitConfig",
            "LearningRateConfig",
            "LossConfig",
            "preset",
        ),
        "fitter": (
            "Fitter",
            "fit_scene",
        ),
        "step": (
            "Step",
            "register_loss",
        ),
        "msdyn.motion": ("MotionConfig",),
    },
)
