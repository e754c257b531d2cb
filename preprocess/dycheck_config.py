"""Options of importing a sequence of DyCheck."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msdyn.options import POSITIONAL, Named, Options, Range

__all__ = ["DycheckConfig"]


@dataclass(frozen=True)
class DycheckConfig(Options):
    """Turn a sequence of DyCheck into a scene directory."""

    headings: ClassVar[dict[str, str]] = {
        "kind": "Input",
        "out": "Output",
        "factor": "Input",
        "max_frames": "Input",
        "masks": "Masks and tracks",
    }

    kind: Annotated[Literal["dycheck"], Named("from")]
    """The format of the folder: dycheck (camera/, rgb/, depth/, covisible/, splits/)."""
    data: Annotated[Path, POSITIONAL]
    """Folder of one sequence."""
    out: Path | None = None
    """Scene directory to write; by default the sequence's name and "-scene", in the current
    directory."""
    factor: Literal[1, 2] = 1
    """Take rgb/1x or rgb/2x: full or half size."""
    max_frames: Annotated[int | None, Range(2)] = None
    """Take at most this many frames, evenly spaced; all by default, as published figures do."""
    masks: Literal["motion", "files", "none"] = "motion"
    """As without --from."""
    masks_path: Path | None = None
    """As without --from."""
    tracks: Literal["flow", "files"] = "flow"
    """As without --from."""
    tracks_path: Path | None = None
    """As without --from."""

    @property
    def directory(self) -> Path:
        """The scene directory."""
        return self.out if self.out is not None else Path(f"{self.data.resolve().name}-scene")
