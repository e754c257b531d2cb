"""Types that the stages of preprocessing exchange, and the Protocols of their backends.

The stages run in this order, each reading from the scene directory what the ones before it wrote
(`chosen_backends.stage_order` changes it where a backend needs a later stage):

    frames -> tracks -> masks (two-view geometry) -> cameras -> masks (again, with the cameras)
    -> cameras (again, with these masks) -> depth

The masks stage also sets `Tracks.object`, the object that each track lies on.

A backend computes; the pipeline writes, stamps and caches. Masks and depth maps are streamed frame
by frame (`Streamed`), so that memory does not grow with the length of the clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.preprocess.frame_matching import Numbering
from msdyn.preprocess.frames.footage import Footage
from msdyn.preprocess.stages import (
    BACKEND_STAGES,
    STAGES,
    BackendStage,
    SaliencyChoice,
    Stage,
)
from msdyn.preprocess.streamed import Figures, Streamed
from msdyn.scene import Scene, Tracks

__all__ = [
    "BACKEND_STAGES",
    "STAGES",
    "Backend",
    "BackendInfo",
    "BackendOptions",
    "BackendStage",
    "CameraMotion",
    "CameraSolution",
    "CamerasBackend",
    "DepthBackend",
    "DepthMap",
    "DepthResult",
    "Figures",
    "FileBackend",
    "Footage",
    "Mask",
    "MaskResult",
    "Masks",
    "MasksBackend",
    "SaliencyChoice",
    "SparsePoints",
    "Stage",
    "TrackResult",
    "TracksBackend",
    "Verdict",
]

Mask: TypeAlias = UInt8[np.ndarray, "height width"]
"""0 static, 1..254 objects, 255 ignore."""

CameraMotion = Literal["moving", "rotating", "static", "unknown"]

AnyBackend = TypeVar("AnyBackend", bound="Backend")
AnyInfo = TypeVar("AnyInfo", bound="BackendInfo")
AnyFileBackend = TypeVar("AnyFileBackend", bound="FileBackend")


@dataclass(frozen=True)
class Verdict:
    """How far a result can be trusted.

    Attributes:
        grade: "good"; "usable" (a warning is printed); "poor" (preprocessing stops after cameras,
            exit code 3, unless the user accepts it).
        reason: one line: what was measured and what it means; empty when good.
        cure: what the user can do about it.
    """

    grade: Literal["good", "usable", "poor"]
    reason: str = ""
    cure: str = ""


@dataclass(frozen=True)
class SparsePoints:
    """Triangulated static points and their observations.

    Attributes:
        xyz: [P, 3] world positions, scene units.
        point: [M] index into `xyz` of each observation.
        frame: [M] frame of each observation.
        xy: [M, 2] px of each observation.
    """

    xyz: Float[np.ndarray, "points 3"]
    point: Int[np.ndarray, " observations"]
    frame: Int[np.ndarray, " observations"]
    xy: Float[np.ndarray, "observations 2"]

    def check(self, frames: int) -> None:
        """Check points that were read from a file.

        Args:
            frames: of the clip.

        Raises:
            InputError: shapes, types or indices that do not fit.
        """
        count = len(self.point) if self.point.ndim == 1 else -1
        shapes = {"xyz": (len(self.xyz), 3), "frame": (count,), "xy": (count, 2)}
        for name, shape in {"point": (count,), **shapes}.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"{name}: expected {shape}, got {getattr(self, name).shape}")
        for name, below in (("point", len(self.xyz)), ("frame", frames)):
            index = getattr(self, name)
            if index.dtype.kind not in "iu" or not ((index >= 0) & (index < below)).all():
                raise InputError(f"{name}: expected indices from 0 to {below - 1}")
        for name in ("xyz", "xy"):
            value = getattr(self, name)
            if value.dtype.kind != "f" or not np.isfinite(value).all():
                raise InputError(f"{name}: expected finite numbers")

    @classmethod
    def empty(cls) -> SparsePoints:
        """Return no points."""
        return cls(
            np.zeros((0, 3)), np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2), np.float32)
        )

    def joined(self, other: SparsePoints) -> SparsePoints:
        """Return these points followed by others."""
        return SparsePoints(
            np.concatenate([self.xyz, other.xyz]),
            np.concatenate([self.point, other.point + len(self.xyz)]),
            np.concatenate([self.frame, other.frame]),
            np.concatenate([self.xy, other.xy]),
        )


@runtime_checkable
class Masks(Protocol):
    """T masks [H, W], of indices or bool: an array, or a container that reads them on demand."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int, /) -> Shaped[np.ndarray, "height width"]: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


@dataclass(frozen=True)
class TrackResult:
    """Result of a tracks backend.

    Attributes:
        tracks: N tracks, their object -1.
        figures: of their quality.
    """

    tracks: Tracks
    figures: Figures


@dataclass(frozen=True)
class MaskResult:
    """Result of a masks backend.

    Attributes:
        masks: one per frame.
        needs_cameras: the masks are unreliable without cameras: the cameras are solved without
            them, and masks are made again with the cameras.
        better_with_cameras: good cameras would improve the masks: they are made again with these,
            and the cameras are then solved again.

    Among the figures of the masks may be `names`, of their objects, by label, and `unmatched`,
    phrases of the user to which nothing answers.
    """

    masks: Streamed[Mask]
    needs_cameras: bool = False
    better_with_cameras: bool = False


@dataclass(frozen=True)
class CameraSolution:
    """Result of a cameras backend.

    Attributes:
        cameras: one per frame; those of frames that could not be registered are interpolated.
        motion: how the camera moved; only "moving" gives depth by triangulation.
        points: static structure, empty for backends that have none.
        verdict: how far depth from these cameras can be trusted.
        world_units: "metric" or "arbitrary".
        quality: figures: share of frames registered, reprojection error in px, triangulation angle
            in degrees, focal candidates, ...
    """

    cameras: Cameras
    motion: CameraMotion
    points: SparsePoints
    verdict: Verdict
    world_units: str = "arbitrary"
    quality: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class DepthMap:
    """The depth of a frame.

    Attributes:
        depth: [H, W] z-depth in scene units, 0 = unknown.
        confidence: [H, W] 0 unknown to 255 confirmed by other frames; None of backends that do not
            estimate it.
    """

    depth: Float[np.ndarray, "height width"]
    confidence: UInt8[np.ndarray, "height width"] | None = None


@dataclass(frozen=True)
class DepthResult:
    """Result of a depth backend: a depth map per frame."""

    maps: Streamed[DepthMap]


@dataclass(frozen=True)
class BackendOptions:
    """What a config gives to a backend of one stage.

    Attributes:
        name: name under which the backend is registered.
        path: the files that a backend "files" reads.
        model: checkpoint, the user's or the default of the backend; None without weights.
        offline: fetch nothing from a network.
        device: of a neural network, as in `msdyn.devices`.
        depth_scale: scene units per unit of depth files; None where the user gives none.
        prompts: file of prompts for a segmentation network.
        phrases: that name what such a network is to segment.
        world_units: "metric" or "arbitrary", of cameras from files.
        intrinsics: fx fy cx cy in px of the video at full size, where the user gives them.
        intrinsics_use: whether structure from motion keeps them, or starts from them.
        saliency: whether masks by motion use a network for salient objects.
        numbering: what numbers in names of files count, where the user says it.
    """

    name: str
    path: Path | None = None
    model: str | None = None
    offline: bool = False
    device: str = "auto"
    depth_scale: float | None = None
    prompts: Path | None = None
    phrases: tuple[str, ...] = ()
    world_units: str = "arbitrary"
    intrinsics: tuple[float, float, float, float] | None = None
    intrinsics_use: Literal["fixed", "start"] = "fixed"
    saliency: SaliencyChoice = "auto"
    numbering: Numbering | None = None


class Backend:
    """Base of backends: those without weights and files inherit everything.

    Backends are frozen dataclasses. Their fields are the options in the record of the stage, but
    for fields with `metadata={"option": False}`.

    Attributes:
        name: set by `register_backend`, unless the dataclass has a field of this name.
        model: checkpoint, None without weights.
        licence: of the checkpoint.
        path: files of the user that it reads; when their content changes, the stage runs again.
    """

    name: str = ""
    model: str | None = None
    licence: str | None = None
    path: Path | None = None

    @classmethod
    def from_options(cls: type[AnyBackend], options: BackendOptions) -> AnyBackend:
        """Return the backend that the options of a config describe."""
        return cls()


@dataclass(frozen=True)
class FileBackend(Backend):
    """Base of the backends that read files of the user."""

    # Without `field()` the dataclass would take the None of the base class for a default.
    path: Path = field()

    @classmethod
    def from_options(cls: type[AnyFileBackend], options: BackendOptions) -> AnyFileBackend:
        """Return the backend that reads the path of the options."""
        return cls(cls.given_path(options))

    @staticmethod
    def given_path(options: BackendOptions) -> Path:
        """Return the path of the options."""
        assert options.path is not None, "a config refuses the backend `files` without a path"
        return options.path


@runtime_checkable
class BackendInfo(Protocol):
    """What the record of a stage needs of its backend; see `Backend`."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str | None: ...

    @property
    def licence(self) -> str | None: ...

    @property
    def path(self) -> Path | None: ...

    @classmethod
    def from_options(cls: type[AnyInfo], options: BackendOptions) -> AnyInfo: ...


@runtime_checkable
class TracksBackend(BackendInfo, Protocol):
    """Point tracks through the frames."""

    def track(self, scene: Scene, footage: Footage | None = None) -> TrackResult:
        """Return tracks in the frames of the scene.

        Args:
            scene: of it only the frames are there.
            footage: the same frames with those of the video between them, so that motion from one
                to the next is small; None where there are no others. Positions are returned in the
                frames of the scene alone, those at `footage.kept`.
        """
        ...


@runtime_checkable
class MasksBackend(BackendInfo, Protocol):
    """Index masks of moving objects."""

    def segment(self, scene: Scene, tracks: Tracks, solution: CameraSolution | None) -> MaskResult:
        """Return a mask per frame. `solution` is None before the cameras are known."""
        ...


@runtime_checkable
class CamerasBackend(BackendInfo, Protocol):
    """Cameras of every frame. What its `needs` do not name is None."""

    def solve(self, scene: Scene, tracks: Tracks | None, masks: Masks | None) -> CameraSolution:
        """Return cameras, in full even where the verdict is poor.

        Args:
            scene: its frames are there.
            tracks: only those with object 0 are static.
            masks: nonzero pixels are not static; None also where nothing is masked.
        """
        ...


@runtime_checkable
class DepthBackend(BackendInfo, Protocol):
    """Depth maps in the scale of the cameras. What its `needs` do not name is None."""

    def estimate(
        self,
        scene: Scene,
        tracks: Tracks | None,
        masks: Masks | None,
        solution: CameraSolution | None,
    ) -> DepthResult:
        """Return a depth map per frame.

        Args:
            scene: its frames are there.
            tracks: with their objects.
            masks: an index mask per frame.
            solution: the cameras.
        """
        ...
