"""Options of preprocessing."""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msdyn.devices import DeviceName
from msdyn.memory import MemorySize
from msdyn.options import (
    POSITIONAL,
    REPEATED,
    Choices,
    Named,
    OptionError,
    Options,
    Positive,
    Range,
)
from msdyn.preprocess.phrases import TEXT_MASKS, parse_phrases, prompts_file, refused_prompts
from msdyn.preprocess.stages import (
    BACKEND_STAGES,
    BackendStage,
    SaliencyChoice,
    Stage,
    backend_names,
    network_names,
)

if TYPE_CHECKING:
    from msdyn.preprocess.contracts import BackendOptions
    from msdyn.preprocess.frames.extract import FrameOptions

__all__ = ["IMPORT_KINDS", "CheckConfig", "ImportConfig", "PreprocessConfig"]

_Stages = Annotated[tuple[Stage, ...], REPEATED]
_Fps = Range(above=0, most=100_000, unit="fps")
_Seconds = Range(0, unit="seconds")
_Focal = Annotated[float, Range(above=0, unit="px")]
_Number = Annotated[int, Range(0)]
_Step = Annotated[float, Range(above=0, unit="frames")]


def _backend_choice(stage: BackendStage) -> Choices:
    """Return the annotation of a field whose choices are the backends of a stage."""
    return Choices(lambda: backend_names(stage))


@dataclass(frozen=True)
class PreprocessConfig(Options):
    """Turn a video into a scene directory: frames, tracks, masks, cameras, depth."""

    headings: ClassVar[dict[str, str]] = {
        "out": "Output",
        "start": "Frames",
        "preset": "Choice of methods",
        "cameras": "Cameras",
        "depth": "Depth",
        "masks": "Masks",
        "tracks": "Tracks",
        "numbering": "Files of your own",
        "world_units": "Cameras",
        "device": "Running",
    }

    video: Annotated[Path, POSITIONAL]
    """Video file (mp4, mov, mkv, webm, gif: anything PyAV opens), folder of images, or pattern of
    their names, in quotes ("shots/*.png")."""
    out: Path | None = None
    """Scene directory to write; by default the video's name (of a folder of images: followed by
    _scene), in the current directory."""

    start: Annotated[float | None, _Seconds] = None
    """Begin at this second of the video."""
    end: Annotated[float | None, _Seconds] = None
    """End at this second of the video."""
    shot: Annotated[int | None, Range(1)] = None
    """Of a video with cuts, take this shot: 1, 2, ..."""
    fps: Annotated[float | None, _Fps] = None
    """Take at most this many frames per second; by default all of them."""
    max_frames: Annotated[int | None, Range(2, unit="frames")] = None
    """Take at most this many frames, evenly spaced; by default all of them."""
    long_side: Annotated[int, Range(64, 65_536, also=(0,), unit="px")] = 960
    """Shrink the images so that their longer side is at most this many pixels; 0: never."""
    folder_fps: Annotated[float, _Fps] = 30.0
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
    intrinsics: tuple[_Focal, _Focal, _Focal, _Focal] | None = None
    """fx fy cx cy in pixels of the video at its full size, upright: kept by structure from motion,
    and those of a TUM trajectory, which has none. (Of images whose EXIF data has the focal length,
    structure from motion starts from that.)"""
    lens: str | None = None
    """The lens of the video, which is undistorted: MODEL,PARAMETERS in COLMAP's order and pixels of
    the video at its full size, as OPENCV,fx,fy,cx,cy,k1,k2,p1,p2 or
    OPENCV_FISHEYE,fx,fy,cx,cy,k1,k2,k3,k4; or a file: lens.json of a scene, a COLMAP model,
    transforms.json. Files of cameras with a distortion need no --lens."""
    intrinsics_use: Literal["fixed", "start"] = "fixed"
    """fixed: structure from motion keeps --intrinsics. start: it begins with their focal length,
    and estimates it."""
    depth: Annotated[str | None, _backend_choice("depth")] = None
    """fused: multi-view stereo, completed along image edges. files: read --depth-path. The others
    are networks, aligned to the scale of the cameras."""
    depth_path: Path | None = None
    """Folder of depth maps, .npy, .exr or 16-bit .png, one per frame, or an npz of MegaSaM or Depth
    Anything 3; other sizes are resampled."""
    depth_scale: Annotated[float | None, Positive] = None
    """Scene units per unit of the depth files (0.001 for millimetres in metres)."""
    depth_model: str | None = None
    """Checkpoint of the depth network: a name on the Hugging Face hub, or a folder."""
    masks: Annotated[str | None, _backend_choice("masks")] = None
    """motion: what the camera motion does not explain. files: read --masks-path. none: everything
    is static. sam2, edgetam, sam3: video segmentation networks, prompted by motion or by --prompts;
    sam3 also finds what phrases name."""
    masks_path: Path | None = None
    """Folder of 8-bit index .png, one per frame: 0 static, 1.. the objects, 255 ignore; or of
    folders, one per object, of black and white .png."""
    masks_model: str | None = None
    """Checkpoint of the segmentation network: a name on the Hugging Face hub, or a folder."""
    saliency: SaliencyChoice = "auto"
    """Help masks by motion with a small network for salient objects (u2netp, Apache-2.0; needs
    msdyn[masks]). auto: where it is on this disk or can be fetched."""
    prompts: str | None = None
    """What the network is to segment: noun phrases, separated by commas ("gripper, red mug"), whose
    objects sam3 finds, moving or not; or FILE.json of clicks, boxes and phrases."""
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
    numbering: tuple[_Number, _Number, _Step] | None = None
    """NUMBER FRAME STEP: what numbers in the names of your files count. The file of this number is
    of this frame of the video (from 0), each next number so many frames later: 1 0 1 for names from
    1, 1 0 2 for every second frame. By default it is told by the names, of cameras also by
    tracks. Depth and masks go by it where that gives a file for every frame."""
    world_units: Literal["metric", "arbitrary"] = "arbitrary"
    """Units of cameras from files: metric (metres) or arbitrary."""

    device: DeviceName = "auto"
    """Where networks run."""
    max_memory: MemorySize | None = None
    """Most memory to hold, such as 8G, 500M or 8 (GB): a clip that is expected to need more is
    refused, a stage that comes to hold more ends, and the finished ones are kept. By default there
    is a warning where more is expected than is free."""

    accept_poor: bool = False
    """Estimate depth even where the cameras are too poor for it, and accept a poor result."""
    redo: _Stages = ()
    """Run this stage again, and those that depend on it; may be given several times."""
    only: _Stages = ()
    """Run this stage only, on the results in the directory; may be given several times."""

    def __post_init__(self) -> None:
        if isinstance(self.prompts, Path):
            object.__setattr__(self, "prompts", str(self.prompts))
        super().__post_init__()

    def check_relations(self) -> None:
        if self.end is not None and not self.end > (self.start or 0):
            raise OptionError(
                "end", f"expected seconds after the start ({self.start or 0:g}), got {self.end}"
            )
        if refused := refused_prompts(self.prompts, self.masks, network_names("masks")):
            raise OptionError("prompts", refused)
        for stage in BACKEND_STAGES:
            self._check_backend(stage)
        if self.lens is not None and self.intrinsics is not None:
            raise OptionError(("lens", "intrinsics"), "expected one of them only: a lens has both")
        if self.saliency == "on" and self.masks in ("none", "files"):
            raise OptionError(
                "saliency", f"on, but masks is {self.masks}; use --masks motion, or leave it out"
            )

    def _check_backend(self, stage: BackendStage) -> None:
        """Check the options of a stage's backend: its name, path and checkpoint."""
        backend, path = getattr(self, stage), getattr(self, f"{stage}_path")
        if stage == "masks" and self.phrases:
            backend = TEXT_MASKS
        chosen = backend or "chosen by --preset"
        flag = f"--{stage} files --{stage}-path PATH"
        if backend == "files" and path is None:
            raise OptionError(f"{stage}_path", f"missing; {stage} from files need {flag}")
        if path is not None and backend != "files":
            raise OptionError(f"{stage}_path", f"given, but {stage} is {chosen}; use {flag}")
        networks = network_names(stage)
        if getattr(self, f"{stage}_model", None) is not None and backend not in networks:
            raise OptionError(
                f"{stage}_model",
                f"given, but {stage} is {chosen}; use --{stage} {' or '.join(networks)}",
            )

    def options_of(self, stage: BackendStage) -> BackendOptions:
        """Return what these options give to the backend of a stage, which must be named.

        Raises:
            InputError: no backend of this name.
        """
        from msdyn.preprocess.contracts import BackendOptions
        from msdyn.preprocess.frame_matching import Numbering
        from msdyn.preprocess.registry import find_backend

        name = getattr(self, stage)
        return BackendOptions(
            name,
            path=getattr(self, f"{stage}_path"),
            model=getattr(self, f"{stage}_model", None) or find_backend(stage, name).model,
            offline=self.preset == "offline",
            device=self.device,
            depth_scale=self.depth_scale,
            prompts=self.prompts_file,
            phrases=self.phrases,
            world_units=self.world_units,
            intrinsics=self.intrinsics,
            intrinsics_use=self.intrinsics_use,
            saliency=self.saliency,
            numbering=None if self.numbering is None else Numbering(*self.numbering),
        )

    @property
    def prompts_file(self) -> Path | None:
        """The file of prompts, None without one."""
        return None if self.prompts is None else prompts_file(self.prompts)

    @property
    def phrases(self) -> tuple[str, ...]:
        """The phrases that name what is to be segmented, none without."""
        named = self.prompts is not None and self.prompts_file is None
        return parse_phrases(self.prompts or "") if named else ()

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
    def source_name(self) -> str:
        """The name under which the scene keeps where its frames are from."""
        return self.video.name

    @property
    def frames(self) -> FrameOptions:
        """Options of the frames stage."""
        from msdyn.preprocess.frames.extract import FrameOptions

        return FrameOptions(
            self.start,
            self.end,
            self.shot,
            self.fps,
            self.max_frames,
            self.long_side,
            self.folder_fps,
        )


_OWN_OPTIONS = ("dycheck", "lerobot")
"""Kinds of imports whose options are a class of their own, not `ImportConfig`."""
IMPORT_KINDS = (
    "mcap",
    "record3d",
    "vipe",
    "panoptic",
    "blender",
    "nerfies",
    "recording",
    *_OWN_OPTIONS,
)
"""What `--from` takes: the modules of `msdyn.preprocess.importers`."""
_ImportKind = Annotated[str, Choices(lambda: IMPORT_KINDS), Named("from")]


@dataclass(frozen=True)
class ImportConfig(PreprocessConfig):
    """Turn a recording that has more than a video into a scene directory."""

    headings: ClassVar[dict[str, str]] = {
        "kind": "Input",
        **PreprocessConfig.headings,
    }

    kind: _ImportKind = field(kw_only=True)
    """What the recording is. mcap: a video topic of an MCAP file, of rosbag2 or of a bag of ROS 1.
    record3d: an .r3d file of Record3D, or its export with EXR. vipe: a folder of ViPE's results.
    panoptic: a sequence of CMU Panoptic as Dynamic 3D Gaussians packages it. blender: a folder of
    transforms_train.json, as of D-NeRF. nerfies: a capture of Nerfies, HyperNeRF or NeRF-DS, which
    has no depth. recording: a folder of cameras.json and images per camera.
    auto, or no --from at all: found by the names of its files.
    (dycheck has options of its own: --from dycheck --help.)"""
    video: Annotated[Path, POSITIONAL]
    """The recording: a file or folder."""
    out: Path | None = None
    """Scene directory to write; by default the recording's name and "-scene", in the current
    directory."""
    topic: str | None = None
    """Of mcap: the topic of the video; by default the only one."""
    depth_topic: str | None = None
    """Of mcap: a topic of depth that is registered to the video."""
    clip: str | None = None
    """Of vipe: the name of the clip, where there are several."""
    input_camera: str | None = None
    """Of calibrated recordings (panoptic, blender, nerfies, recording): the camera that is the
    clip; by default, of those that are not held out, the one whose viewing direction differs
    least from those of the held-out ones; of blender, train."""
    held_out: str | None = None
    """Of calibrated recordings: the cameras to evaluate on, separated by commas; by default those
    that the recording holds out, or all but the input; of blender test, or else val."""
    background: Literal["white", "black"] = "white"
    """Of transparent images: the colour behind them, in the clip and in held-out images."""

    def check_relations(self) -> None:
        super().check_relations()
        if self.kind in _OWN_OPTIONS:
            raise OptionError("kind", f"{self.kind} has options of its own")
        for name, kinds in _OPTIONS_OF_KINDS.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise OptionError(
                    name, f"is an option of --from {' or '.join(kinds)}, got --from {self.kind}"
                )

    @property
    def directory(self) -> Path:
        """The scene directory."""
        name = self.clip or self.video.resolve().stem
        return self.out if self.out is not None else Path(f"{name}-scene")


_CALIBRATED = ("panoptic", "blender", "nerfies", "recording")
_OPTIONS_OF_KINDS = {
    "topic": ("mcap",),
    "depth_topic": ("mcap",),
    "clip": ("vipe",),
    "input_camera": _CALIBRATED,
    "held_out": _CALIBRATED,
}
"""Kinds of recordings that an option belongs to."""


@dataclass(frozen=True)
class CheckConfig(Options):
    """Check a scene directory."""

    check: Path
    """Scene directory to check; all of its files are read."""
