"""Options of `msdyn-eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msdyn.devices import DeviceName
from msdyn.options import POSITIONAL, OptionError, Options, Range
from msdyn.sequence.choice import SequenceSource

__all__ = ["EvaluateConfig"]


@dataclass(frozen=True)
class EvaluateConfig(Options):
    """Evaluate a fitted scene."""

    headings: ClassVar[dict[str, str]] = {
        "fit": "Input",
        "protocol": "What is measured",
        "lpips": "Weights of mLPIPS",
        "pictures": "Running and output",
        "source": "Input",
    }

    scene: Annotated[Path, POSITIONAL] = Path()
    """Scene directory with a fit; the current directory by default."""
    fit: Path | None = None
    """Folder of the fit; `fit` in the scene directory by default."""
    truth: Path | None = None
    """Scene directory with held-out views and true tracks; the scene's own views by default."""
    protocol: Literal["msdyn", "dycheck"] = "msdyn"
    """dycheck: require the setting of its published numbers (held-out views with covisibility, the
    cameras of the data), and summarise the published metrics."""
    test_time_cameras: bool = False
    """Evaluate held-out views a second time, with the camera of each image optimised on that image
    (its covisible pixels), as MoSca and its successors do; the Gaussians are not changed."""
    align: bool = False
    """Align the truth's world to the fit's by a similarity between their input cameras: for cameras
    estimated from the video alone."""
    levels: Annotated[int | None, Range(0)] = None
    """Use only the first so many motion levels."""
    frozen: bool = False
    """Render the canonical frame at every time, as a baseline without motion."""
    lpips: tuple[Path, ...] = ()
    """Files of weights for mLPIPS: AlexNet's convolutions and the heads of LPIPS v0.1. By default
    they are searched for in torch hub's folder."""
    lpips_download: bool = False
    """Fetch weights for mLPIPS that are not found (240 MB, from pytorch.org and github.com)."""
    pictures: bool = True
    """Save input, render and error side by side."""
    device: DeviceName = "auto"
    """Device to render on; auto takes a GPU if there is one."""
    source: SequenceSource = "fit"
    """Sequence of the scene directory: the fit, or the prediction of msdyn-predict."""

    def check_relations(self) -> None:
        if self.protocol == "dycheck" and self.align:
            raise OptionError(
                "align",
                "the dycheck protocol uses the cameras of the data; leave one of the two out",
            )

    @property
    def folder(self) -> Path:
        """The folder of the sequence, to which the figures are written too."""
        return self.fit or self.scene / self.source
