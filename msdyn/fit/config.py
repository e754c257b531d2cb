"""Options of a fit. The `paper` preset has the values that the paper gives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from msdyn.devices import DeviceName
from msdyn.errors import InputError
from msdyn.logs.names import LogNames
from msdyn.memory import MemorySize
from msdyn.motion.config import MotionConfig
from msdyn.options import POSITIONAL, Named, Options, Range, Seed, Share, Weight

if TYPE_CHECKING:
    from msdyn.motion.protocol import MotionLearningRates

__all__ = [
    "PRESETS",
    "DensityConfig",
    "FitConfig",
    "LearningRateConfig",
    "LossConfig",
    "MotionConfig",
    "preset",
]


_Rate = Annotated[float, Range(0, 10)]
_Gaussians = Annotated[int, Range(1, 50_000_000, unit="gaussians")]
_Limit = Annotated[int, Range(0, 50_000_000, unit="gaussians")]


@dataclass(frozen=True)
class LossConfig(Options):
    """Weights of the losses (Eq. 12). The paper gives none, these are ours."""

    rgb: Weight = 1.0
    """Colour: 0.8 L1 + 0.2 (1 - SSIM)."""
    mask: Weight = 0.5
    """Rendered mask of moving Gaussians against the input masks, L1."""
    depth: Weight = 0.5
    """Inverse depth, for a median depth of one, L1."""
    track: Weight = 2.0
    """Rendered tracks against 2D tracks (fraction of the image's longer side) and their depth."""
    rigidity: Weight = 0.1
    """Change of the relative position of neighbouring Gaussians (fraction of their distance)."""
    smooth: Weight = 1.0
    """Acceleration of the patterns."""
    residual: Weight = 0.01
    """Magnitude of the residual patterns (levels 2 and 3)."""
    scale: Weight = 0.01
    """Variance of the two larger log scales of each Gaussian, against needles."""
    exposure: Weight = 0.01
    """Square of the log gains of --exposure."""
    extra: dict[str, Weight] = field(default_factory=dict)
    """Weights of further losses, as name and number: --loss.extra mine 0.5."""

    def weight_of(self, name: str, default: float) -> float:
        """Return the weight of a loss; `default` if there is no option of that name."""
        return self.extra.get(name, getattr(self, name, default))


@dataclass(frozen=True)
class LearningRateConfig(Options):
    """Learning rates of Adam, for a scene scaled to a median depth of one. They are ours."""

    means: _Rate = 4e-4
    """Positions; decays to a tenth of this."""
    scales: _Rate = 5e-3
    """Log scales."""
    quats: _Rate = 2e-3
    """Quaternions."""
    opacities: _Rate = 3e-2
    """Opacity logits."""
    harmonics: _Rate = 5e-3
    """Colours (spherical harmonics of degree 0; a twentieth of this for higher degrees)."""
    blends: _Rate = 1e-2
    """Logits of the blend weights."""
    life_spans: _Rate = 2e-2
    """Ends of life spans, in frames."""
    patterns: _Rate = 4e-4
    """6D rotations and translations of the patterns; decays to a tenth of this."""
    exposure: _Rate = 0.05
    """Log gains of the frames, of gradient descent without Adam (see --exposure)."""
    cameras: _Rate = 3e-4
    """Camera poses (radians, translations) with --refine joint; decays to a hundredth of this."""

    @property
    def motion(self) -> MotionLearningRates:
        """The learning rates of a motion model."""
        from msdyn.motion.protocol import MotionLearningRates

        return MotionLearningRates(self.blends, self.patterns, self.patterns)


@dataclass(frozen=True)
class DensityConfig(Options):
    """Adaptive density control by gsplat's strategy of 3D Gaussian Splatting."""

    start: Share = 0.1
    """Start of densification, as a fraction of the steps."""
    stop: Share = 0.6
    """End of densification, as a fraction of the steps."""
    every: Annotated[int, Range(1, unit="steps")] = 100
    """Steps between densifications."""
    grow_gradient: Annotated[float, Range(0)] = 4e-4
    """Mean gradient of the 2D position (half image sizes) above which a Gaussian is densified."""
    prune_opacity: Share = 0.02
    """Gaussians of lower opacity are pruned."""
    max_static: _Limit = 60_000
    """Number of static Gaussians from which on none are added; with life spans, of those that exist
    in a frame, on average."""
    max_moving: _Limit = 30_000
    """Number of moving Gaussians from which on none are added; with life spans, of those that exist
    in a frame, on average, and there may be three times as many in all."""
    reset_every: Annotated[int, Range(0, unit="steps")] = 0
    """Steps between resets of all opacities to twice the pruning threshold; 0 for none. 3D Gaussian
    Splatting has 3000."""


@dataclass(frozen=True)
class FitConfig(Options):
    """Fit a Gaussian sequence to a scene directory."""

    headings: ClassVar[dict[str, str]] = {
        "epochs": "Optimisation",
        "long_side": "Input: size, cameras, depth",
        "sh_degree": "Initialisation and appearance",
        "motion": "Motion",
        "holdout_every": "Evaluation",
        "device": "Running and output",
        "losses": "Losses",
        "loss": "Weights of the losses",
        "density": "Density control",
        "rate": "Learning rates",
    }

    scene: Annotated[Path, POSITIONAL] = Path()
    """Scene directory; the current directory by default."""
    motion: Annotated[MotionConfig, Named("")] = field(default_factory=MotionConfig)
    losses: Literal["all", "rgb"] = "all"
    """all: Eq. 12 and our regularisers; rgb: colour only."""
    loss: LossConfig = field(default_factory=LossConfig)
    rate: LearningRateConfig = field(default_factory=LearningRateConfig)
    density: DensityConfig = field(default_factory=DensityConfig)
    epochs: Annotated[int, Range(1, 1_000_000)] = 40
    """Passes over the frames."""
    batch: Annotated[int, Range(1, 10_000, unit="frames")] = 1
    """Frames per step."""
    long_side: Annotated[int | None, Range(32, 16_384, unit="px")] = None
    """Downscale images to this longer side, in pixels; the input size by default."""
    refine: Literal["auto", "both", "cameras", "depth", "none", "joint"] = "auto"
    """Refine camera poses, and the scale of each frame's depth, on the static tracks first; auto
    does so unless msdyn-preprocess estimated the cameras by bundle adjustment; joint: as auto, and
    then optimise the poses with the Gaussians."""
    static_tracks: Literal["matched", "given"] = "matched"
    """Refine cameras and depth on static tracks whose positions are first matched between images,
    where that is more accurate than the tracker; given: on the positions in the scene."""
    initial_depth: Literal["fused", "given"] = "fused"
    """Place the first Gaussians at the depth on which the frames agree that see the same point, no
    static one in front of what most frames see; given: at that of one frame, as in the paper."""
    initial_shape: Literal["surface", "sphere"] = "surface"
    """Start with Gaussians that lie flat in the surfaces of the depth maps, so that novel views
    show slanted ones where they are; or with spheres, as in the paper."""
    order_jitter: Annotated[float, Range(0, 45, unit="degrees")] = 8.0
    """Turn the axis along which Gaussians are sorted by random angles of this standard deviation in
    every step, so that novel views, which need another order, look the same; 0 for that of the
    camera, as in the paper."""
    object_depth: Literal["corrected", "given"] = "corrected"
    """Correct the scale and slope of the depth of each moving object in every frame, so that its
    parts keep their size as they move; given: keep the depth of the scene, as in the paper."""
    exposure: Literal["auto", "on", "off"] = "auto"
    """Fit a gain of each colour channel per frame, for clips whose exposure or white balance
    changes; auto does so if the colours of static tracks change together all over the image."""
    sh_degree: Literal[0, 1, 2, 3] = 0
    """Degree of the spherical harmonics of colour; 0 for view-independent colours."""
    init: Literal["tracks", "predict", "both"] = "tracks"
    """Start from the tracks and depth maps; or from the prediction of msdyn-predict: patterns from
    its trajectories, instead of the tracks (predict) or beside them (both), and its Gaussians."""
    static_gaussians: _Gaussians = 25_000
    """Initial number of static Gaussians."""
    moving_gaussians: _Gaussians = 12_000
    """Initial number of moving Gaussians."""
    life_spans: Literal["on", "off"] = "on"
    """Moving Gaussians exist only in the frames to which the tracks carry them; with "off" in all
    frames, as in the paper."""
    holdout_every: Annotated[int, Range(2, also=(0,), unit="frames")] = 0
    """Hold out every n-th frame for evaluation; 0 for none."""
    device: DeviceName = "auto"
    """Device of the fit; auto uses a GPU if there is one."""
    max_memory: MemorySize | None = None
    """Most memory to hold, such as 8G, 500M or 8 (GB): a fit that is expected to need more is
    refused, one that comes to hold more saves its steps and ends. By default there is a warning
    where more is expected than is free."""
    seed: Seed = 0
    """Random seed."""
    out: Path | None = None
    """Folder for the result; `fit` in the scene directory by default."""
    log: LogNames = ()
    """Write curves and previews for tensorboard (in the folder), wandb (offline, in the folder) or
    trackio (in its database) too, where installed; may be given several times."""
    restart: bool = False
    """Start from scratch instead of resuming from a checkpoint with the same options."""


def preset(name: str, **changes: Any) -> FitConfig:
    """Return the options of a preset: "quick" (minutes on a CPU), "default" or "paper" (for a GPU).

    Args:
        name: of the preset.
        changes: options that override those of the preset, as in `preset("paper", epochs=100)`.

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
        life_spans="off",
        static_tracks="given",
        initial_depth="given",
        initial_shape="sphere",
        order_jitter=0.0,
        object_depth="given",
        exposure="off",
        motion=MotionConfig(joint_refinement="off", key_interpolation="linear", prefit_steps=1000),
        static_gaussians=100_000,
        moving_gaussians=40_000,
        density=DensityConfig(max_static=300_000, max_moving=150_000),
    ),
}
