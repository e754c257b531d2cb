"""Which pixels of held-out images show what the input camera saw, from geometry of a recording.

Three ways, the first that the recording allows:

    depth    of both cameras: the surface at the pixel is at the front of the input camera at the
             same time or, where it is static (masks of the held-out camera), at any time
    points   of the scene: static points that the held-out camera sees, and the input camera too;
             pixels of moving foreground (masks) all count
    none     all pixels count

The estimated depth of the input is not used: it is part of what is evaluated.

Reference: covisibility of Gao et al., "Monocular Dynamic View Synthesis: A Reality Check", 2022,
there by optical flow, which does not match cameras as far apart as those of a rig.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int

from msdyn.geometry import (
    Cameras,
    depth_in_camera,
    nearest_pixels,
    project,
    transform_points,
    world_points_from_depth,
)
from msdyn.io import RecordedCamera, ScenePoints
from msdyn.preprocess.multiview.point_visibility import seen_points
from msdyn.preprocess.recorded_images import has_foreground, read_depth, read_foreground

__all__ = ["Covisibility"]

AGREEING = 0.03
"""Difference of depth, as a share of it, up to which a point lies on a surface."""
OTHER_TIMES = 12
"""Frames of the clip in which static surfaces are looked for."""
MIN_POINTS = 200
SHARE = 0.5
"""Of the points of a cell that another camera must see too."""


@dataclass
class Covisibility:
    """The covisibility of held-out cameras with the clip of an input camera.

    Attributes:
        points: of the scene, or None.
        camera: the input camera.
        rows: images of the input camera that are the frames of the clip.
        methods: by held-out camera, how its masks were made.
    """

    points: ScenePoints | None
    camera: RecordedCamera
    rows: Int[np.ndarray, " frames"]
    methods: dict[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """How masks were made, in words."""
        found = sorted(set(self.methods.values()))
        return found[0] if len(found) == 1 else "; ".join(
            f"{name}: {method}" for name, method in self.methods.items()
        )  # fmt: skip

    def masks(
        self, held_out: RecordedCamera, images: dict[int, int], cameras: Cameras
    ) -> Mapping[int, Bool[np.ndarray, "height width"]]:
        """Return the covisible pixels by frame; none where all pixels count.

        Args:
            held_out: the held-out camera.
            images: of it, by frame of the clip.
            cameras: its cameras by frame, of the size of the masks.
        """
        static = None if self.points is None else self.points.xyz[~self.points.moving]
        if self.camera.depths is not None and held_out.depths is not None:
            self.methods[held_out.name] = "from the depth of both cameras"
            return _Lazy(images, lambda t: self._by_depth(held_out, images[t], t, cameras[t]))
        if static is not None and len(static) >= MIN_POINTS:
            movers = "foreground counts" if has_foreground(held_out) else "what moves is not known"
            self.methods[held_out.name] = f"from static points of the recording, {movers}"
            return _Lazy(
                images, lambda t: self._by_points(held_out, images[t], t, cameras[t], static)
            )
        self.methods[held_out.name] = "none: all pixels count"
        return {}

    def _by_depth(
        self, held_out: RecordedCamera, image: int, frame: int, camera: Cameras
    ) -> Bool[np.ndarray, "height width"]:
        """Return the covisible pixels of a held-out image with depth."""
        depth = read_depth(held_out, image, camera)
        xyz = world_points_from_depth(depth, camera)[depth > 0]
        seen = self._on_surface(xyz, frame)
        if has_foreground(held_out):
            static = ~read_foreground(held_out, image, camera)[depth > 0]
            count = min(OTHER_TIMES, len(self.rows))
            for other in np.linspace(0, len(self.rows) - 1, count).astype(int).tolist():
                left = static & ~seen
                seen[left] = self._on_surface(xyz[left], other)
        covisible = np.zeros(depth.shape, bool)
        covisible[depth > 0] = seen
        return covisible

    def _on_surface(
        self, xyz: Float64[np.ndarray, "points 3"], frame: int
    ) -> Bool[np.ndarray, " points"]:
        """Return which points lie on a surface that the input camera sees in a frame."""
        row = int(self.rows[frame])
        camera = self.camera.cameras[row]
        z = depth_in_camera(camera.cam_from_world[0], xyz)
        local = transform_points(camera.cam_from_world[0], xyz)
        ahead = z > 0
        xy = np.full((len(xyz), 2), -1.0)
        xy[ahead] = project(camera.intrinsics[0], local[ahead])
        y, x, inside = nearest_pixels(xy, camera.height, camera.width)
        depth = read_depth(self.camera, row, camera)[y, x]
        return inside & ahead & (depth > 0) & (np.abs(z - depth) <= AGREEING * depth)

    def _by_points(
        self,
        held_out: RecordedCamera,
        image: int,
        frame: int,
        camera: Cameras,
        static: Float64[np.ndarray, "points 3"],
    ) -> Bool[np.ndarray, "height width"]:
        """Return the covisible pixels of a held-out image by static points."""
        row = int(self.rows[frame])
        key = (camera.cam_from_world.tobytes(), self.camera.cameras.cam_from_world[row].tobytes())
        if self._cached[0] != key:
            self._cached = (key, _by_seen_points(static, camera, self.camera.cameras[row]))
        background = self._cached[1]
        if not has_foreground(held_out):
            return background
        return background | read_foreground(held_out, image, camera)

    _cached: tuple[tuple[bytes, bytes], Bool[np.ndarray, "height width"]] = field(
        default_factory=lambda: ((b"", b""), np.zeros((0, 0), bool)), init=False, repr=False
    )


def _by_seen_points(
    static: Float64[np.ndarray, "points 3"], camera: Cameras, other: Cameras
) -> Bool[np.ndarray, "height width"]:
    """Return the pixels of a camera whose nearest visible points another camera sees too."""
    from scipy.ndimage import distance_transform_edt

    seen, there = seen_points(static, camera), seen_points(static, other)
    both = np.isin(seen.index, there.index)
    row, column = (seen.xy[:, ::-1] // seen.cell).astype(int).T
    total, common = np.zeros(seen.front.shape), np.zeros(seen.front.shape)
    np.add.at(total, (row, column), 1)
    np.add.at(common, (row, column), both)
    share = common / np.maximum(total, 1)
    if not (total > 0).any():
        return np.zeros((camera.height, camera.width), bool)
    near = distance_transform_edt(total == 0, return_distances=False, return_indices=True)
    assert isinstance(near, np.ndarray), "indices alone were asked for"
    share = share[near[0], near[1]]
    rows = (np.arange(camera.height) // seen.cell).astype(int)
    columns = (np.arange(camera.width) // seen.cell).astype(int)
    return share[rows[:, None], columns] >= SHARE


class _Lazy(Mapping[int, np.ndarray]):
    """Masks by frame, made one at a time."""

    def __init__(self, frames: dict[int, int], make: Callable[[int], np.ndarray]) -> None:
        self._frames, self._make = frames, make

    def __getitem__(self, frame: int) -> np.ndarray:
        return self._make(frame)

    def __iter__(self) -> Iterator[int]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)
