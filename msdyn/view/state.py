"""The state of a viewer, and the interface that its controls use.

The modules of viewer and controls both import this one and not each other: the controls write the
state, the viewer reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from msdyn.sequence import GaussianSequence
from msdyn.view.splats import DisplayOptions

if TYPE_CHECKING:
    import viser

__all__ = ["ViewState", "ViewerActions"]


@dataclass
class ViewState:
    """The state of a viewer.

    Attributes:
        frame: fractional frame index.
        display: motion levels, objects and colours.
        playing: whether the clip plays.
        speed: of playing, relative to the clip's own.
        trails: show the recent paths of moving Gaussians.
        input_image: show the input image beside the controls.
    """

    frame: float = 0.0
    display: DisplayOptions = field(default_factory=DisplayOptions)
    playing: bool = False
    speed: float = 1.0
    trails: bool = False
    input_image: bool = False


@runtime_checkable
class ViewerActions(Protocol):
    """The actions of a viewer that its controls call; see `Viewer`."""

    server: viser.ViserServer
    sequence: GaussianSequence
    state: ViewState

    @property
    def recording(self) -> bool: ...

    def show(self, frame: float, *, everything: bool = False) -> None: ...

    def change(self, **options: Any) -> None: ...

    def jump(self, client: viser.ClientHandle, frame: float | None = None) -> None: ...

    def show_frusta(self, visible: bool, client: viser.ClientHandle | None = None) -> None: ...

    def save_camera(self, client: viser.ClientHandle, name: str = "novel.json") -> Path: ...

    def record(self, client: viser.ClientHandle | None, name: str = "path.json") -> Path | None: ...

    def image(self, frame: int) -> UInt8[np.ndarray, "height width 3"] | None: ...
