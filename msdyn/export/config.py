"""Options of `msdyn-export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from msdyn.devices import DeviceName
from msdyn.options import POSITIONAL, Named, OptionError, Options, Pattern, Range
from msdyn.sequence.choice import PartSelection, SequenceSource, TimeSelection

__all__ = ["FORMATS", "ExportConfig", "Format"]

Format = Literal[
    "ply", "glb", "usdc", "4dgs", "spz", "compressed-ply", "tracks", "objects", "flow", "cameras",
    "points", "html", "rrd", "mjcf", "urdf", "lerobot", "report",
]  # fmt: skip
FORMATS: tuple[str, ...] = get_args(Format)

_PIXELS = Pattern(
    r"[-+.\d]+,[-+.\d]+(:[-+.\d]+,[-+.\d]+)*", "x,y or x,y:x,y in pixels", "X,Y:X,Y..."
)
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)"
_DIRECTION = Pattern(
    rf"auto|camera|{_NUMBER},{_NUMBER},{_NUMBER}", "auto, camera or x,y,z", "auto|camera|X,Y,Z"
)


@dataclass(frozen=True)
class ExportConfig(Options):
    """Write a fitted scene in a format that other programs read."""

    headings: ClassVar[dict[str, str]] = {
        "format": "What is written",
        "when": "Times",
        "what": "Parts of the scene",
        "lens": "Options of single formats",
        "fps": "Times",
        "points": "Options of single formats",
        "views": "Options of single formats",
        "device": "Running",
        "moving_px": "Options of single formats",
        "tolerance_px": "Options of single formats",
        "baked": "Options of single formats",
        "source": "What is written",
    }

    scene: Annotated[Path, POSITIONAL] = Path()
    """Scene directory with a fit, or a sequence.safetensors; the current directory by default."""
    format: Format = "ply"
    """ply: Gaussians per time; glb: glTF with KHR_gaussian_splatting, rigid parts as animated
    nodes; usdc: OpenUSD with ParticleField3DGaussianSplat and time samples; 4dgs: moving Gaussians
    in one small file; spz and compressed-ply: Gaussians per time in a few bytes each; html: a page
    that plays the sequence; rrd: a recording for rerun; tracks: 3D and 2D point tracks; objects:
    6-DoF trajectories; flow: optical and scene flow from each time to the next; cameras: COLMAP,
    nerfstudio, TUM; points: coloured point clouds; mjcf: objects as bodies with joints for MuJoCo;
    urdf: the same for other simulators; lerobot: the episode that the scene was made of, with
    novel views, depth, masks, poses and tracks; report: the fit's report.html once more."""
    out: Path | None = None
    """File or folder to write; export/<format> in the scene directory by default."""
    when: Annotated[TimeSelection, Named("")] = field(default_factory=TimeSelection)
    what: Annotated[PartSelection, Named("")] = field(default_factory=PartSelection)
    lens: Literal["pinhole", "original"] = "pinhole"
    """tracks, flow, cameras: original: in pixels of the images as they were taken, in their size;
    cameras with the lens and its distortion. For scenes whose images were undistorted."""
    fps: Annotated[float | None, Range(above=0, most=10_000, unit="fps")] = None
    """Resample times at this rate, in frames per second of the clip; its own frames by default."""
    points: Annotated[str | None, _PIXELS] = None
    """tracks: the query pixels, as 120,80 or several, 120,80:64.5,33 (centres at +0.5)."""
    grid: Annotated[int, Range(1, unit="px")] = 8
    """tracks: without --points, spacing in pixels of a grid of query pixels."""
    query_frame: Annotated[int | None, Range(0)] = None
    """tracks: the frame of the query pixels; the canonical frame by default."""
    views: Annotated[int, Range(0, 100)] = 2
    """lerobot: number of novel views beside the input camera."""
    degrees: Annotated[float, Range(0, 90, unit="degrees")] = 10.0
    """lerobot: how far novel views are rotated about the moving objects."""
    track_count: Annotated[int, Range(0, 100_000)] = 64
    """lerobot: number of 3D tracks."""
    object_count: Annotated[int | None, Range(0, 254)] = None
    """lerobot: number of objects with features, the same for all episodes of a dataset; by default
    those of the scene."""
    append: bool = False
    """lerobot: add the episode to the dataset that is there."""
    device: DeviceName = "auto"
    """Device to render on; auto takes a GPU if there is one."""
    moving_px: Annotated[float, Range(0, unit="px")] = 1.0
    """flow: a pixel is moving where its flow differs from that of the camera by more than this."""
    tolerance_px: Annotated[float, Range(0, unit="px")] = 0.5
    """glb, usdc, 4dgs, rrd: how far moving Gaussians may be from their true place, in pixels of the
    clip's cameras; html: eight steps of the stored positions."""
    baked: bool = False
    """glb, usdc: store Gaussians that bend more than that at each time, instead of moving them
    with their finest part."""
    lives: Annotated[int, Range(1, 1000)] = 8
    """glb: most meshes of a rigid part, for Gaussians that exist at different times; more of them
    are nearer to the sequence and slower to show."""
    clean: bool = False
    """points: merge points in voxels, remove statistical outliers and write normals, by open3d."""
    voxel: Annotated[float | None, Range(above=0)] = None
    """points: with --clean, the side of a voxel in units of the world; by default the size of a
    pixel at the median depth."""
    units_per_metre: Annotated[float | None, Range(above=0)] = None
    """mjcf, urdf: units of the world in a metre; 1 by default, with a warning where the world is
    not metric."""
    up: Annotated[str, _DIRECTION] = "auto"
    """mjcf, urdf: the direction up: auto (the normal of the ground if there is one, else camera),
    camera (that of the images on average), or x,y,z in the world."""
    floor: bool = True
    """mjcf: add a floor, at the ground or the lowest point of the objects."""
    joints: bool = True
    """mjcf, urdf: divide objects into bodies with joints; otherwise each is one body."""
    body_tolerance_px: Annotated[float, Range(above=0, unit="px")] = 2.0
    """mjcf, urdf: groups of Gaussians are one body if one rigid motion explains both to within
    this."""
    triangles: Annotated[int, Range(100, 1_000_000)] = 4000
    """mjcf, urdf: most triangles of a body's mesh."""
    source: SequenceSource = "fit"
    """Sequence of the scene directory: the fit, or the prediction of msdyn-predict."""

    def check_relations(self) -> None:
        when = self.when
        for name in ("time", "frame", "seconds", "times"):
            if self.fps is not None and getattr(when, name) is not None:
                raise OptionError(("fps", f"when.{name}"), "expected one of them only")
            if self.format == "lerobot" and getattr(when, name) is not None:
                raise OptionError(f"when.{name}", "expected none: lerobot exports all rows")
        if self.format == "lerobot" and self.fps is not None:
            raise OptionError("fps", "expected none: lerobot keeps the rate of the dataset")
        if self.baked and self.format not in ("glb", "usdc"):
            raise OptionError("baked", "expected with --format glb or usdc only")
        if self.lens == "original" and self.format not in ("tracks", "flow", "cameras"):
            raise OptionError("lens", "expected with --format tracks, flow or cameras only")
        if self.voxel is not None and not self.clean:
            raise OptionError("voxel", "expected with --clean only")
        if self.up not in ("auto", "camera"):
            if not any(float(value) for value in self.up.split(",")):
                raise OptionError("up", f"expected a direction, got {self.up}")
        if self.append and self.format != "lerobot":
            raise OptionError("append", "expected with --format lerobot only")
