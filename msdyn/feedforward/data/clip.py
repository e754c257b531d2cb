"""A clip with its annotation, as converters give it and as it is written to a shard.

T frames of H x W pixels, N tracks, K objects. Cameras have OpenCV axes. The world and its unit are
those of the data set; each training sample is normalised when it is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from msdyn.errors import InputError
from msdyn.feedforward.batches import MOTION_KINDS, MotionKind

__all__ = ["CLIP_NAME", "Clip", "ClipFrame", "ClipTracks"]

CLIP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LARGEST_ANGLE = 1e-3
"""Largest deviation of a camera's rotation from orthonormal, per entry."""


@dataclass(frozen=True)
class ClipFrame:
    """What a frame shows.

    Attributes:
        image: RGB.
        depth: z-depth in the unit of the data set, 0 where it is not known; None without depth.
        objects: 0 for what is static, k for the object whose pose is `Clip.poses[:, k - 1]`; None
            if there are no poses.
    """

    image: UInt8[np.ndarray, "height width 3"]
    depth: Float32[np.ndarray, "height width"] | None = None
    objects: UInt8[np.ndarray, "height width"] | None = None


@dataclass(frozen=True)
class ClipTracks:
    """Points followed through the clip.

    Attributes:
        points: in the world; NaN where a point is not known.
        visible: in the frame's image.
    """

    points: Float32[np.ndarray, "times tracks 3"]
    visible: Bool[np.ndarray, "times tracks"]


@dataclass(frozen=True)
class Clip:
    """Cameras and motion of a clip, whose frames are loaded one at a time.

    Attributes:
        name: unique within the data set; letters, digits, `_` and `-`.
        dataset: the data set, as training weights it.
        times: of the frames, increasing in each view, in any unit.
        world_from_cam: OpenCV axes.
        intrinsics: (fx/W, fy/H, cx/W, cy/H).
        motion: what is known of the motion: `tracks`, `poses`, that nothing moves (`static`), or
            nothing (`unknown`).
        frame: loads a frame.
        tracks: with motion `tracks`.
        poses: world_from_object, affine, with motion `poses`.
        target: frames of another view, which may only be rendered, not be input; none by default.
        about: source and licence, as JSON.
    """

    name: str
    dataset: str
    times: Float64[np.ndarray, " times"]
    world_from_cam: Float64[np.ndarray, "times 4 4"]
    intrinsics: Float64[np.ndarray, "times 4"]
    motion: MotionKind
    frame: Callable[[int], ClipFrame]
    tracks: ClipTracks | None = None
    poses: Float[np.ndarray, "times objects 4 4"] | None = None
    target: Bool[np.ndarray, " times"] | None = None
    about: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label, value in (("name", self.name), ("data set", self.dataset)):
            if not CLIP_NAME.fullmatch(value):
                raise InputError(f"clip: {label}: expected letters, digits, _ and -, got {value!r}")
        if self.motion not in MOTION_KINDS:
            raise InputError(
                f"clip {self.name}: motion: expected one of {', '.join(MOTION_KINDS)}, got "
                f"{self.motion!r}"
            )
        for kind, value in (("tracks", self.tracks), ("poses", self.poses)):
            if (self.motion == kind) != (value is not None):
                raise InputError(
                    f"clip {self.name}: expected {kind} with, and only with, motion {kind!r}"
                )
        lengths = {
            "world_from_cam": self.world_from_cam,
            "intrinsics": self.intrinsics,
            "poses": self.poses,
            "tracks": None if self.tracks is None else self.tracks.points,
            "target": self.target,
        }
        for label, value in lengths.items():
            if value is not None and len(value) != len(self):
                raise InputError(
                    f"clip {self.name}: {label}: expected one per frame, {len(self)}, got "
                    f"{len(value)}"
                )
        for label, value in (("cameras", self.world_from_cam), ("intrinsics", self.intrinsics)):
            if not np.isfinite(value).all():
                raise InputError(f"clip {self.name}: {label}: expected finite numbers")
        rotation = self.world_from_cam[:, :3, :3]
        error = np.abs(rotation @ np.swapaxes(rotation, 1, 2) - np.eye(3))
        if len(error) and (error.max() > _LARGEST_ANGLE or np.linalg.det(rotation).min() < 0):
            raise InputError(f"clip {self.name}: cameras: expected rotations without mirroring")

    def __len__(self) -> int:
        """Frames."""
        return len(self.times)
