"""Options of `msdyn-render`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msdyn.devices import DeviceName
from msdyn.memory import MemorySize
from msdyn.options import POSITIONAL, Named, OptionError, Options, Range
from msdyn.sequence.choice import PartSelection, SequenceSource, TimeSelection

__all__ = ["OUTPUTS", "RenderConfig"]

OUTPUTS = ("rgb", "depth", "alpha", "objects", "flow", "tracks")


@dataclass(frozen=True)
class RenderConfig(Options):
    """Render a fitted scene to images or videos."""

    headings: ClassVar[dict[str, str]] = {
        "output": "What is rendered",
        "when": "Times",
        "camera": "Cameras",
        "what": "Parts of the scene",
        "out": "Output",
        "device": "Running",
        "source": "What is rendered",
    }

    scene: Annotated[Path, POSITIONAL] = Path()
    """Scene directory with a fit, or a sequence.safetensors; the current directory by default."""
    output: str = "rgb"
    """Outputs, separated by commas: rgb, depth, alpha, objects, flow (to the next image, or to one
    frame later), tracks (trails of points over rgb)."""
    when: Annotated[TimeSelection, Named("")] = field(default_factory=TimeSelection)
    camera: Path | None = None
    """Camera file of msdyn, nerfstudio or DyCheck, with or without times; several cameras make a
    video. The input camera of that time by default."""
    path: (
        Literal["auto", "input", "stabilised", "orbit", "spiral", "dolly", "away", "bullet-time"]
        | None
    ) = None
    """Camera path, as a video: auto, about the moving objects, as far as the input supports it; the
    input cameras; the same, smoothed; an arc around the moving objects; a spiral; towards them;
    away from the input; or an arc at a fixed time."""
    lens: Literal["pinhole", "original"] = "pinhole"
    """original: images as the lens of the clip shows them, in the size of the images as they were
    taken; for scenes whose images were undistorted. Of --camera only the poses are used then."""
    what: Annotated[PartSelection, Named("")] = field(default_factory=PartSelection)
    exposure: Literal["none", "clip"] = "none"
    """Exposure and white balance of colours: none, the same at all times, the mean of the clip;
    clip, as fitted for the frames of the clip (msdyn-fit --exposure)."""
    out: Path | None = None
    """File to write, .png, .npy or .mp4, or a folder for numbered images; render.png or
    <path>.mp4 by default. With several outputs, the name of each is appended."""
    depth_as: Literal["png16", "float", "colour"] = "png16"
    """Format of depth: 16-bit PNG (its step, in scene units, is stored in the file), .npy, or
    coloured."""
    frames: Annotated[int | None, Range(1, 1_000_000, unit="images")] = None
    """Number of images of a video; as many as the clip by default."""
    fps: Annotated[float | None, Range(above=0, most=10_000, unit="fps")] = None
    """Frames per second of the video; those of the clip by default."""
    device: DeviceName = "auto"
    """Device to render on; auto takes a GPU if there is one."""
    max_memory: MemorySize | None = None
    """Most memory to hold, such as 8G, 500M or 8 (GB); a rendering that is expected to need more is
    refused. By default there is a warning where more is expected than is free."""
    source: SequenceSource = "fit"
    """Sequence of the scene directory: the fit, or the prediction of msdyn-predict."""

    def check_relations(self) -> None:
        names = self.outputs
        if set(names) - set(OUTPUTS) or len(set(names)) != len(names):
            raise OptionError(
                "output", f"expected some of {', '.join(OUTPUTS)}, each once, got {self.output!r}"
            )
        if self.camera is not None and self.path is not None:
            raise OptionError(("camera", "path"), "expected one of them only")
        if self.frames is not None and self.when.times is not None:
            raise OptionError(("frames", "when.times"), "expected one of them only")

    @property
    def outputs(self) -> list[str]:
        """The names in `output`."""
        return [name.strip() for name in self.output.split(",")]
