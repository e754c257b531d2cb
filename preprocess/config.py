"""What a user can choose in preprocessing."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from msdyn.errors import InputError
from msdyn.preprocess.frames.extract import FrameOptions

__all__ = ["MODEL_BACKENDS", "STAGES", "PreprocessConfig", "Stage"]

Stage = Literal["frames", "tracks", "masks", "cameras", "depth"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which they run."""

MODEL_BACKENDS: dict[str, tuple[str, ...]] = {
    "depth": ("depth-anything", "depth-anything-metric", "depth-pro", "zoedepth"),
    "masks": ("sam2", "edgetam"),
    "tracks": ("cotracker", "tapir", "raft"),
}
"""Backends that load a checkpoint."""

_Stages = Annotated[tuple[Stage, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class PreprocessConfig:
    """Turn a video into a scene directory: frames, tracks, masks, cameras, depth."""

    video: tyro.conf.Positional[Path]
    """Video file (mp4, mov, mkv, webm, gif: anything PyAV opens), folder of images, or pattern of
    their names, in quotes ("shots/*.png")."""
    out: Path | None = None
    """Scene directory to write; by default the video's name (of a folder of images: followed by
    _scene), in the current directory."""

    start: float | None = None
    """Begin at this second of the video."""
    end: float | None = None
    """End at this second of the video."""
    shot: int | None = None
    """Of a video that is cut, take this shot: 1, 2, ..."""
    fps: float | None = None
    """Take at most this many frames a second; by default all of them."""
    max_frames: int | None = None
    """Take at most this many frames, evenly spaced; by default all of them."""
    long_side: int = 960
    """Shrink the images so that their longer side is at most this many pixels; 0: never."""
    folder_fps: float = 30.0
    """Frames a second of images, which have no timestamps."""

    preset: Literal["auto", "offline", "best"] = "auto"
    """Which methods do the stages that you name none for. auto: a model that may be used for
    anything, where it is on this disk or can be fetched, else a method without weights. offline:
    the same, with what is on this disk. best: the largest models, some for research only."""

    cameras: Literal["sfm", "files"] | None = None
    """sfm: structure from motion. files: read --cameras-path."""
    cameras_path: Path | None = None
    """cameras.json of msdyn, transforms.json of nerfstudio, folder of COLMAP or DyCheck, npz of
    MegaSaM or Depth Anything 3, TUM trajectory; sizes other than the video's are scaled."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx fy cx cy in pixels of the video at its full size, for a TUM trajectory, which has none."""
    depth: (
        Literal[
            "fused", "files", "depth-anything", "depth-anything-metric", "depth-pro", "zoedepth"
        ]
        | None
    ) = None
    """fused: triangulated and densified along edges. files: read --depth-path. The others are
    networks, brought to the cameras' scale."""
    depth_path: Path | None = None
    """Folder of depth maps, .npy, .exr or 16-bit .png, one a frame, or an npz of MegaSaM or Depth
    Anything 3; other sizes are resampled."""
    depth_scale: float | None = None
    """Scene units of one unit of the depth files (0.001 for millimetres in metres)."""
    depth_model: str | None = None
    """Checkpoint of the depth network: a name on the Hugging Face hub, or a folder."""
    masks: Literal["motion", "files", "none", "sam2", "edgetam"] | None = None
    """motion: what the camera's motion does not explain. files: read --masks-path. none: nothing
    moves. sam2, edgetam: video segmentation networks, told what to follow by motion or by
    --prompts."""
    masks_path: Path | None = None
    """Folder of 8-bit index .png, one a frame: 0 static, 1.. the objects, 255 ignore; or of
    folders, one an object, of black and white .png."""
    masks_model: str | None = None
    """Checkpoint of the segmentation network: a name on the Hugging Face hub, or a folder."""
    prompts: Path | None = None
    """JSON of clicks and boxes that tell sam2 or edgetam what to follow."""
    tracks: Literal["flow", "files", "cotracker", "tapir", "raft"] | None = None
    """flow: chained optical flow. files: read --tracks-path. cotracker: CoTracker3 by torch hub,
    for research only. tapir: BootsTAPIR, where tapnet is installed. raft: flow by RAFT, chained,
    where torchvision is installed."""
    tracks_path: Path | None = None
    """tracks.npz of msdyn, or an npz in TAPVid-3D's or CoTracker's layout, in pixels of the video
    at its full size."""
    tracks_model: str | None = None
    """Folder, or repository on GitHub, with a hubconf.py that makes a network like the backend's;
    of raft also raft_small."""
    world_units: Literal["metric", "arbitrary"] = "arbitrary"
    """Units of cameras from files: metric (metres) or arbitrary."""

    accept_poor: bool = False
    """Go on to depth even where the cameras are too poor for it."""
    redo: _Stages = ()
    """Run this stage again, and what hangs on it; may be given several times."""
    only: _Stages = ()
    """Run this stage only, on what the directory holds; may be given several times."""

    def __post_init__(self) -> None:
        for name in ("fps", "folder_fps", "depth_scale"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name}: expected a number > 0, got {value}")
        if self.start is not None and not 0 <= self.start < float("inf"):
            raise InputError(f"start: expected seconds >= 0, got {self.start}")
        if self.end is not None and not self.end > (self.start or 0):
            raise InputError(
                f"end: expected seconds after the start ({self.start or 0:g}), got {self.end}"
            )
        if self.shot is not None and self.shot < 1:
            raise InputError(f"shot: expected 1 or more, got {self.shot}")
        if self.max_frames is not None and self.max_frames < 2:
            raise InputError(f"max_frames: expected at least 2, got {self.max_frames}")
        if self.long_side < 0 or 0 < self.long_side < 64:
            raise InputError(f"long_side: expected at least 64, or 0, got {self.long_side}")
        for stage in ("cameras", "depth", "masks", "tracks"):
            from_files = getattr(self, stage) == "files"
            path = getattr(self, f"{stage}_path")
            flag = f"--{stage} files --{stage}-path PATH"
            if from_files and path is None:
                raise InputError(f"{stage}_path: missing; {stage} from files need {flag}")
            if path is not None and not from_files:
                chosen = getattr(self, stage) or "chosen by --preset"
                raise InputError(f"{stage}_path: given, but {stage} is {chosen}; use {flag}")
        for stage, models in MODEL_BACKENDS.items():
            given, backend = getattr(self, f"{stage}_model"), getattr(self, stage)
            if given is not None and backend not in models:
                raise InputError(
                    f"{stage}_model: given, but {stage} is {backend or 'chosen by --preset'}; use "
                    f"--{stage} {' or '.join(models)}"
                )
        if self.prompts is not None and self.masks not in MODEL_BACKENDS["masks"]:
            raise InputError(
                f"prompts: given, but masks is {self.masks or 'chosen by --preset'}; "
                f"use --masks {' or '.join(MODEL_BACKENDS['masks'])}"
            )

    @property
    def directory(self) -> Path:
        """The scene directory."""
        if self.out is not None:
            return self.out
        video = self.video.resolve()
        if not video.exists() and glob.has_magic(str(self.video)):
            video = Path(*(p for p in video.parts if not glob.has_magic(p)))
            video = video.parent if video.suffix else video
        # A folder of images most often lies in the current directory itself.
        return Path(f"{video.name}_scene" if video.is_dir() else video.stem)

    @property
    def frames(self) -> FrameOptions:
        return FrameOptions(
            self.start,
            self.end,
            self.shot,
            self.fps,
            self.max_frames,
            self.long_side,
            self.folder_fps,
        )
