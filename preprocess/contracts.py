"""What the stages of preprocessing hand to one another, and the Protocols of their backends.

The stages run in this order, each reading what the ones before it left in the scene directory:

    frames -> tracks -> masks (two-view geometry) -> cameras -> masks (again, by what the cameras
    tell) -> cameras (again, by these masks) -> depth

The objects of the tracks are set whenever masks are made.

A backend computes; the pipeline writes, stamps and caches. Backends that make one image a frame
are generators, so that memory does not grow with the length of the clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from msdyn.geometry import Cameras
from msdyn.scene import Scene, Tracks

__all__ = [
    "CameraSolution",
    "CamerasBackend",
    "DepthBackend",
    "DepthMap",
    "Masks",
    "MasksBackend",
    "StoredMasks",
    "SparsePoints",
    "TracksBackend",
    "Verdict",
]


@dataclass(frozen=True)
class Verdict:
    """How far a result can be trusted.

    Attributes:
        grade: "good"; "usable" (a warning is printed); "poor" (preprocessing stops after cameras,
            exit code 3, unless told to accept it).
        reason: one line: what was measured and what it means; empty when good.
        cure: what the user can do about it.
    """

    grade: Literal["good", "usable", "poor"]
    reason: str = ""
    cure: str = ""


@dataclass(frozen=True)
class SparsePoints:
    """Triangulated static points and where they were seen.

    Attributes:
        xyz: [P, 3] float64 world positions.
        point: [M] int index into `xyz` of each observation.
        frame: [M] int frame of each observation.
        xy: [M, 2] float32 px of each observation.
    """

    xyz: np.ndarray
    point: np.ndarray
    frame: np.ndarray
    xy: np.ndarray

    @classmethod
    def empty(cls) -> SparsePoints:
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


@dataclass(frozen=True)
class CameraSolution:
    """Cameras of every frame and what they rest on.

    Attributes:
        cameras: one a frame; frames that could not be registered are interpolated.
        motion: how the camera moved; only "moving" gives depth by triangulation.
        points: static structure, empty for backends that have none.
        verdict: how far depth from these cameras can be trusted.
        world_units: "metric" or "arbitrary".
        quality: JSON figures: share of frames registered, reprojection error in px, triangulation
            angle in degrees, focal candidates, ...
    """

    cameras: Cameras
    motion: Literal["moving", "rotating", "static", "unknown"]
    points: SparsePoints
    verdict: Verdict
    world_units: str = "arbitrary"
    quality: dict[str, Any] = field(default_factory=dict)


class DepthMap(NamedTuple):
    """The depth of a frame, and how far each pixel of it can be trusted.

    Attributes:
        depth: [H, W] float32 z-depth, 0 = unknown.
        confidence: [H, W] uint8, 0 unknown to 255 confirmed by other frames.
    """

    depth: np.ndarray
    confidence: np.ndarray


@runtime_checkable
class Masks(Protocol):
    """T masks [H, W], of indices (uint8) or bool: an array, or one at a time when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int, /) -> np.ndarray: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


class StoredMasks:
    """The masks of a scene directory, read when asked for: a long clip's need not fit in memory."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __len__(self) -> int:
        return len(self._scene)

    def __getitem__(self, frame: int) -> np.ndarray:
        return self._scene.mask(frame)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._scene.mask, range(len(self)))


class TracksBackend(Protocol):
    """Point tracks from the frames. `scene` has its frames stage only."""

    name: str

    def track(self, scene: Scene) -> tuple[Tracks, dict[str, Any]]:
        """Return tracks (object -1) and quality figures."""
        ...


class MasksBackend(Protocol):
    """Index masks of what moves by itself."""

    name: str

    def segment(
        self, scene: Scene, tracks: Tracks, solution: CameraSolution | None
    ) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
        """Return an iterator of [H, W] uint8 masks, one a frame, and quality figures.

        The figures may still be filled in while the iterator is consumed. `solution` is None before
        the cameras are known.
        """
        ...


class CamerasBackend(Protocol):
    """Cameras of every frame from the frames, tracks and masks of the scene directory."""

    name: str

    def solve(self, scene: Scene, tracks: Tracks, masks: Masks | None) -> CameraSolution:
        """Return cameras. Nonzero pixels of the masks are left out; None: nothing is.

        A solution of a poor verdict is still returned in full.
        """
        ...


class DepthBackend(Protocol):
    """Depth maps in the scale of the cameras."""

    name: str

    def estimate(
        self, scene: Scene, tracks: Tracks, masks: Masks, solution: CameraSolution
    ) -> tuple[Iterator[np.ndarray] | Iterator[DepthMap], dict[str, Any]]:
        """Return an iterator of depth maps, one a frame, and figures.

        A map is [H, W] float32 z-depth (0 = unknown), alone or with its confidence.
        """
        ...
