"""Options of `msdyn-demo`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from msdyn.devices import DeviceName
from msdyn.options import OptionError, Options, Range, Seed

__all__ = ["DemoConfig"]


@dataclass(frozen=True)
class DemoConfig(Options):
    """Reconstruct a synthetic clip with known truth, and evaluate the result."""

    headings: ClassVar[dict[str, str]] = {
        "out": "Output",
        "quick": "What is reconstructed",
        "frames": "The clip",
        "epochs": "The fit",
    }

    out: Path = Path("out/demo")
    """Folder to write; finished steps in it are not repeated."""
    quick: bool = False
    """A small clip and a short fit, in about a minute: 16 frames of 160 px, 8 epochs."""
    bare: bool = False
    """Also reconstruct from the mp4 alone, with estimated depth and cameras instead of those of a
    phone with a depth sensor, and print the difference."""
    frames: Annotated[int, Range(2, 10_000, unit="frames")] = 48
    """Frames of the clip."""
    width: Annotated[int, Range(64, 8192, unit="px")] = 320
    """Width of the clip in pixels; its height is three quarters of it."""
    epochs: Annotated[int | None, Range(1, 1_000_000)] = None
    """Passes of the fit over the frames; the quick preset's by default."""
    seed: Seed = 0
    """Random seed of the clip and the fit."""
    device: DeviceName = "auto"
    """Device to fit on; auto takes a GPU if there is one."""

    def check_relations(self) -> None:
        for name, value in _QUICK.items() if self.quick else ():
            if getattr(self, name) not in (value, _FIELDS[name].default):
                raise OptionError(("quick", name), "expected one of them only")

    def sized(self) -> DemoConfig:
        """Return the options with the sizes of `quick`, where it is given."""
        return replace(self, **_QUICK) if self.quick else self


_QUICK = {"frames": 16, "width": 160, "epochs": 8}
_FIELDS = DemoConfig.__dataclass_fields__
