"""Fitting a Gaussian sequence to a scene directory."""

from msdyn.fit.config import (
    PRESETS,
    DensityConfig,
    FitConfig,
    LossConfig,
    MotionConfig,
    RateConfig,
    preset,
)
from msdyn.fit.fitter import Fitter, fit_scene

__all__ = [
    "PRESETS",
    "DensityConfig",
    "FitConfig",
    "Fitter",
    "LossConfig",
    "MotionConfig",
    "RateConfig",
    "fit_scene",
    "preset",
]
