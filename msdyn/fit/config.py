"""Options of a fit. Where the paper gives a number, the `paper` preset has it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from msdyn.devices import DeviceName
from msdyn.errors import InputError
from msdyn.motion import MotionConfig, MotionRates

__all__ = [
    "PRESETS",
    "DensityConfig",
    "FitConfig",
    "LossConfig",
    "MotionConfig",
    "RateConfig",
    "preset",
]


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses (Eq. 12). The paper gives none: these are ours."""

    rgb: float = 1.0
    """Colour: 0.8 L1 + 0.2 (1 - SSIM)."""
    mask: float = 0.5
    """Share of moving Gaussians against the masks, L1."""
    depth: float = 0.5
    """Inverse depth relative to the median, L1."""
    track: float = 2.0
    """Rendered tracks against 2D tracks (share of the image's longer side) and their depth."""
    rigidity: float = 0.1
    """Change of relative position of neighbouring Gaussians (share of their distance)."""
    smooth: float = 1.0
    """Acceleration of the patterns."""
    residual: float = 0.01
    """Size of the residual patterns (levels 2 and 3)."""
    scale: float = 0.01
    """Variance of each Gaussian's log scales: prevents needles."""
    extra: dict[str, float] = field(default_factory=dict)
    """Weights of further losses, as name and number: --loss.extra mine 0.5."""

    def of(self, name: str, default: float) -> float:
        """Return the weight of a loss; `default` where these options do not have it."""
        return self.extra.get(name, getattr(self, name, default))


@dataclass(frozen=True)
class RateConfig:
    """Learning rates of Adam, for a scene scaled to a median depth of one. Ours."""

    means: float = 4e-4
    """Positions; decays to a tenth."""
    scales: float = 5e-3
    """Log scales."""
    quats: float = 2e-3
    """Quaternions."""
    opacities: float = 3e-2
    """Opacity logits."""
    harmonics: float = 5e-3
    """Colours (spherical harmonics of degree 0; higher ones a twentieth)."""
    blends: float = 1e-2
    """Logits of the blend weights."""
    patterns: float = 4e-4
    """6D rotations and translations of the patterns; decays to a tenth."""

    @property
    def motion(self) -> MotionRates:
        """The rates of a motion model."""
        return MotionRates(self.blends, self.patterns, self.patterns)


@dataclass(frozen=True)
class DensityConfig:
    """Adaptive density control, by gsplat's strategy of 3D Gaussian Splatting."""

    start: float = 0.1
    """Refine from this share of the steps on."""
    stop: float = 0.6
    """Until this share."""
    every: int = 100
    """Steps between refinements."""
    grow_gradient: float = 4e-4
    """Mean gradient of the 2D position (half image sizes) above which a Gaussian is grown."""
    prune_opacity: float = 0.02
    """Gaussians fainter than this are removed."""
    max_static: int = 60_000
    """No more static Gaussians are grown above this number."""
    max_moving: int = 30_000
    """Nor moving ones above this."""
    reset_every: int = 0
    """Steps between resets of all opacities to twice the pruning threshold; 0 for none. 3D Gaussian
    Splatting has 3000."""


@dataclass(frozen=True)
class FitConfig:
    """Fit a Gaussian sequence to a scene directory."""

    scene: tyro.conf.Positional[Path] = Path()
    """Scene directory; the current directory by default."""
    motion: Annotated[MotionConfig, tyro.conf.arg(name="")] = field(default_factory=MotionConfig)
    losses: Literal["all", "rgb"] = "all"
    """all: Eq. 12 and our regularisers; rgb: colour alone."""
    loss: LossConfig = field(default_factory=LossConfig)
    rate: RateConfig = field(default_factory=RateConfig)
    density: DensityConfig = field(default_factory=DensityConfig)
    epochs: int = 40
    """Passes over the frames."""
    batch: int = 1
    """Frames a step."""
    long_side: int | None = None
    """Fit to images scaled down to this longer side, in pixels; their own size by default."""
    refine: Literal["auto", "both", "cameras", "depth", "none"] = "auto"
    """Correct the poses, and the scale of each frame's depth, on the static tracks first; auto does
    so unless msdyn-preprocess estimated the cameras itself, which are adjusted already."""
    sh_degree: Literal[0, 1, 2, 3] = 0
    """Degree of the spherical harmonics of colour; 0 for colours that no view changes."""
    static_gaussians: int = 25_000
    """Static Gaussians to start with."""
    moving_gaussians: int = 12_000
    """Moving Gaussians to start with."""
    holdout_every: int = 0
    """Keep every n-th frame out of the fit, to measure it on; 0 for none."""
    device: DeviceName = "auto"
    """Where to fit; auto takes a GPU if there is one."""
    seed: int = 0
    """Of everything random."""
    out: Path | None = None
    """Folder for the result; `fit` in the scene directory by default."""
    restart: bool = False
    """Start anew rather than go on from a checkpoint of the same options."""

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 1)
        _at_least("batch", self.batch, 1)
        _at_least("static_gaussians", self.static_gaussians, 1)
        _at_least("moving_gaussians", self.moving_gaussians, 1)
        if self.long_side is not None:
            _at_least("long_side", self.long_side, 32)
        if self.holdout_every != 0:
            _at_least("holdout_every", self.holdout_every, 2)


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise InputError(f"{name}: expected at least {least}, got {value}")


def preset(name: str, **changes: Any) -> FitConfig:
    """Return the options of a preset: "quick" (minutes on a CPU), "default" or "paper" (for a GPU).

    Args:
        name: of the preset.
        changes: options that override it, as `preset("paper", epochs=100)`.

    Raises:
        InputError: no such preset, or an option out of range.
    """
    if name not in PRESETS:
        raise InputError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return replace(PRESETS[name], **changes)


_DEFAULT = FitConfig()
PRESETS: dict[str, FitConfig] = {
    "quick": replace(
        _DEFAULT,
        epochs=20,
        motion=MotionConfig(prefit_steps=200),
        static_gaussians=12_000,
        moving_gaussians=6_000,
        density=DensityConfig(max_static=20_000, max_moving=12_000),
    ),
    "default": _DEFAULT,
    "paper": replace(
        _DEFAULT,
        epochs=500,
        batch=8,
        motion=MotionConfig(prefit_steps=1000),
        static_gaussians=100_000,
        moving_gaussians=40_000,
        density=DensityConfig(max_static=300_000, max_moving=150_000),
    ),
}
