"""Options of preprocessing."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from msdyn.devices import DeviceName
from msdyn.errors import InputError
from msdyn.plugins import registered_choice
from msdyn.preprocess.contracts import (
    BACKEND_STAGES,
    BackendOptions,
    BackendStage,
    SaliencyChoice,
    Stage,
)
from msdyn.preprocess.frame_matching import Numbering
from msdyn.preprocess.frames.extract import FrameOptions
from msdyn.preprocess.registry import backend_names, backends, find_backend

__all__ = ["PreprocessConfig"]

_Stages = Annotated[tuple[Stage, ...], tyro.conf.UseAppendAction]


def _backend_choice(stage: BackendStage) -> Any:
    """Return the annotation of a field whose choices are the backends of a stage."""
    return registered_choice(lambda: backend_names(stage))


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
    """Of a video with cuts, take this shot: 1, 2, ..."""
    fps: float | None = None
    """Take at most this many frames per second; by default all of them."""
    max_frames: int | None = None
    """Take at most this many frames, evenly spaced; by default all of them."""
    long_side: int = 960
    """Shrink the images so that their longer side is at most this many pixels; 0: never."""
    folder_fps: float = 30.0
    """Frame rate of a folder of images, in frames per second."""

    preset: Literal["auto", "offline", "best"] = "auto"
    """How the backends that you do not name are chosen. auto: a network with a licence for any use,
    where it is on this disk or can be fetched, else a method without weights. offline: the same, of
    what is on this disk. best: the largest networks, some for research only."""

    cameras: Annotated[str | None, _backend_choice("cameras")] = None
    """sfm: structure from motion. files: read --cameras-path."""
    cameras_path: Path | None = None
    """cameras.json of msdyn, transforms.json of nerfstudio, folder of COLMAP or DyCheck, npz of
    MegaSaM or Depth Anything 3, TUM trajectory; sizes other than the video's are scaled."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx fy cx cy in pixels of the video at its full size, upright: kept by structure from motion,
    and those of a TUM trajectory, which has none. (Of images whose EXIF data has the focal length,
    structure from motion starts from that.)"""
    intrinsics_use: Literal["fixed", "start"] = "fixed"
    """fixed: structure from motion keeps --intrinsics. start: it begins with their focal length,
    and estimates it."""
    depth: Annotated[str | None, _backend_choice("depth")] = None
    """fused: multi-view stereo, completed along image edges. files: read --depth-path. The others
    are networks, aligned to the scale of the cameras."""
    depth_path: Path | None = None
    """Folder of depth maps, .npy, .exr or 16-bit .png, one per frame, or an npz of MegaSaM or Depth
    Anything 3; other sizes are resampled."""
    depth_scale: float | None = None
    """Scene units per unit of the depth files (0.001 for millimetres in metres)."""
    depth_model: str | None = None
    """Checkpoint of the depth network: a name on the Hugging Face hub, or a folder."""
    masks: Annotated[str | None, _backend_choice("masks")] = None
    """motion: what the camera motion does not explain. files: read --masks-path. none: everything
    is static. sam2, edgetam: video segmentation networks, prompted by motion or by --prompts."""
    masks_path: Path | None = None
    """Folder of 8-bit index .png, one per frame: 0 static, 1.. the objects, 255 ignore; or of
    folders, one per object, of black and white .png."""
    masks_model: str | None = None
    """Checkpoint of the segmentation network: a name on the Hugging Face hub, or a folder."""
    saliency: SaliencyChoice = "auto"
    """Help masks by motion with a small network for salient objects (u2netp, Apache-2.0; needs
    msdyn[masks]). auto: where it is on this disk or can be fetched."""
    prompts: Path | None = None
    """JSON of clicks and boxes on the objects that sam2 or edgetam is to segment."""
    tracks: Annotated[str | None, _backend_choice("tracks")] = None
    """flow: chained optical flow. files: read --tracks-path. cotracker: CoTracker3 by torch hub,
    for research only. tapir: BootsTAPIR, where tapnet is installed. raft: flow by RAFT, chained,
    where torchvision is installed."""
    tracks_path: Path | None = None
    """tracks.npz of msdyn, or an npz in TAPVid-3D's or CoTracker's layout, in pixels of the video
    at its full size."""
    tracks_model: str | None = None
    """Folder, or repository on GitHub, with a hubconf.py that makes a network with the interface of
    the backend's; of raft also raft_small."""
    numbering: tuple[int, int, float] | None = None
    """NUMBER FRAME STEP: what numbers in the names of your files count. The file of this number is
    of this frame of the video (from 0), each next number so many frames later: 1 0 1 for names from
    1, 1 0 2 for every second frame. By default it is told by the names, of cameras also by
    tracks. Depth and masks go by it where that gives a file for every frame."""
    world_units: Literal["metric", "arbitrary"] = "arbitrary"
    """Units of cameras from files: metric (metres) or arbitrary."""

    device: DeviceName = "auto"
    """Where networks run."""

    accept_poor: bool = False
    """Estimate depth even where the cameras are too poor for it, and accept a poor result."""
    redo: _Stages = ()
    """Run this stage again, and those that depend on it; may be given several times."""
    only: _Stages = ()
    """Run this stage only, on the results in the directory; may be given several times."""

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
        if self.numbering is not None and not (
            min(self.numbering[:2]) >= 0 and 0 < self.numbering[2] < float("inf")
        ):
            raise InputError(
                "numbering: expected NUMBER FRAME STEP, the first two >= 0, the step > 0, got "
                + " ".join(f"{value:g}" for value in self.numbering)
            )
        if self.intrinsics is not None and not all(
            0 < value < float("inf") for value in self.intrinsics
        ):
            raise InputError(
                "intrinsics: expected fx fy cx cy > 0 in pixels of the video at its full size, got "
                + " ".join(f"{value:g}" for value in self.intrinsics)
            )
        for stage in BACKEND_STAGES:
            self._check_backend(stage)
        if self.prompts is not None:
            networks = _with_weights("masks")
            if self.masks not in networks:
                chosen = self.masks or "chosen by --preset"
                raise InputError(
                    f"prompts: given, but masks is {chosen}; use --masks {' or '.join(networks)}"
                )
        if self.saliency == "on" and self.masks in ("none", "files"):
            raise InputError(
                f"saliency: on, but masks is {self.masks}; use --masks motion, or leave it out"
            )

    def _check_backend(self, stage: BackendStage) -> None:
        """Check the options of a stage's backend: its name, path and checkpoint."""
        backend, path = getattr(self, stage), getattr(self, f"{stage}_path")
        if backend is not None:
            find_backend(stage, backend)
        chosen = backend or "chosen by --preset"
        flag = f"--{stage} files --{stage}-path PATH"
        if backend == "files" and path is None:
            raise InputError(f"{stage}_path: missing; {stage} from files need {flag}")
        if path is not None and backend != "files":
            raise InputError(f"{stage}_path: given, but {stage} is {chosen}; use {flag}")
        networks = _with_weights(stage)
        if getattr(self, f"{stage}_model", None) is not None and backend not in networks:
            raise InputError(
                f"{stage}_model: given, but {stage} is {chosen}; use "
                f"--{stage} {' or '.join(networks)}"
            )

    def options_of(self, stage: BackendStage) -> BackendOptions:
        """Return what these options give to the backend of a stage, which must be named.

        Raises:
            InputError: no backend of this name.
        """
        name = getattr(self, stage)
        return BackendOptions(
            name,
            path=getattr(self, f"{stage}_path"),
            model=getattr(self, f"{stage}_model", None) or find_backend(stage, name).model,
            offline=self.preset == "offline",
            device=self.device,
            depth_scale=self.depth_scale,
            prompts=self.prompts,
            world_units=self.world_units,
            intrinsics=self.intrinsics,
            intrinsics_use=self.intrinsics_use,
            saliency=self.saliency,
            numbering=None if self.numbering is None else Numbering(*self.numbering),
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
        # A folder of images is often in the current directory itself, where its name is taken.
        return Path(f"{video.name}_scene" if video.is_dir() else video.stem)

    @property
    def frames(self) -> FrameOptions:
        """Options of the frames stage."""
        return FrameOptions(
            self.start,
            self.end,
            self.shot,
            self.fps,
            self.max_frames,
            self.long_side,
            self.folder_fps,
        )


def _with_weights(stage: BackendStage) -> list[str]:
    """Return the names of the backends of a stage that load a checkpoint."""
    return [name for name, spec in backends(stage).items() if spec.model is not None]
