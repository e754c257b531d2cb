"""Options of `msdyn-predict`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msdyn.devices import DeviceName
from msdyn.memory import MemorySize
from msdyn.options import POSITIONAL, Named, Options, Range, Share

__all__ = ["DEFAULT_MODEL", "Precision", "PredictConfig", "Pruning"]

DEFAULT_MODEL = "small"
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Pruning(Options):
    """Which predicted Gaussians to keep."""

    opacity: Share = 0.01
    """Drop Gaussians whose opacity is below this."""
    voxel: Annotated[float, Range(0, unit="px")] = 2.0
    """Merge static Gaussians within voxels of this many pixels, as wide as a pixel is at their
    depth; 0 keeps all."""


@dataclass(frozen=True)
class PredictConfig(Options):
    """Predict a Gaussian sequence with the feed-forward network."""

    headings: ClassVar[dict[str, str]] = {
        "model": "Network",
        "frames": "Windows of the clip",
        "long_side": "Network",
        "scale": "Scale",
        "prune": "Gaussians that are kept",
        "out": "Running and output",
    }

    scene: Annotated[Path, POSITIONAL] = Path()
    """Scene directory with frames and cameras; the current directory by default."""
    model: str = DEFAULT_MODEL
    """File of weights (ours, or the released MoVieS checkpoint), or the name of a network that
    comes with msdyn."""
    frames: Annotated[int | None, Range(2, 10_000, unit="frames")] = None
    """Input frames of a window, which the network sees at once; by default as many as in its
    training."""
    every: Annotated[int | None, Range(1, unit="frames")] = None
    """Distance of the input frames; by default as one window needs to span the clip, at most 4."""
    overlap: Annotated[int | None, Range(1, 10_000, unit="frames")] = None
    """Input frames that neighbouring windows share; a quarter of them by default."""
    long_side: Annotated[int | None, Range(16, 16_384, unit="px")] = None
    """Longer side of the network's images, px; that of its training by default."""
    scale: Annotated[float | None, Range(above=0, unit="scene units")] = None
    """Mean distance of the scene's points to the first camera, scene units. By default it is that
    of the depth maps, or, without these, the one that agrees with what is predicted."""
    prune: Pruning = field(default_factory=Pruning)
    out: Path | None = None
    """Folder to write; `predict` in the scene directory by default."""
    precision: Precision = "auto"
    """Precision of the network's tokens: bfloat16 on a GPU and for large networks by default."""
    compiled: Annotated[bool, Named("compile")] = False
    """Compile encoder and aggregator with torch.compile first; pays off for many windows of a large
    network."""
    device: DeviceName = "auto"
    """Device to predict on; auto takes a GPU if there is one."""
    max_memory: MemorySize | None = None
    """Most memory to hold, such as 8G, 500M or 8 (GB); a prediction that is expected to need more
    is refused. By default there is a warning where more is expected than is free."""
