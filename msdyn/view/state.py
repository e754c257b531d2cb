"""What a viewer shows at the moment, and what its controls may ask of it.

Viewer and controls both know this module and not one another's: the controls write the state, the
viewer reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from msdyn.sequence import GaussianSequence
from msdyn.view.splats import Look

if TYPE_CHECKING:
    import viser

__all__ = ["ViewState", "ViewerActions"]


@dataclass
class ViewState:
    """What is shown.

    Attributes:
        frame: fractional frame index.
        look: which levels and objects, and in which colours.
        playing: time runs.
        speed: of time, relative to the clip's own.
        trails: show where moving Gaussians came from.
        input_image: show the input image beside the controls.
    """

    frame: float = 0.0
    look: Look = field(default_factory=Look)
    playing: bool = False
    speed: float = 1.0
    trails: bool = False
    input_image: bool = False


@runtime_checkable
class ViewerActions(Protocol):
    """What controls ask of a viewer; see `Viewer` for what each does."""

    server: viser.ViserServer
    sequence: GaussianSequence
    state: ViewState

    @property
    def recording(self) -> bool: ...

    def show(self, frame: float, *, everything: bool = False) -> None: ...

    def change(self, **look: Any) -> None: ...

    def jump(self, client: Any, frame: float | None = None) -> None: ...

    def show_frusta(self, visible: bool, client: Any = None) -> None: ...

    def save_camera(self, client: viser.ClientHandle, name: str = "novel.json") -> Path: ...

    def record(self, client: viser.ClientHandle | None, name: str = "path.json") -> Path | None: ...

    def image(self, frame: int) -> np.ndarray | None: ...
