"""The camera path that suits a sequence: about its moving objects, at supported angles.

The base is a path that the camera took, so that it does not lead through walls: the mean camera
where the camera hardly moved, otherwise the input path, stabilised. On top of it, the camera swings
about the moving objects, as far as few pixels are unsupported (`InputViews`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Real

from msdyn.errors import InputError
from msdyn.geometry import (
    Cameras,
    cropped,
    focus_point,
    mean_camera,
    project,
    smoothing_weights,
    stabilised,
    swung,
    transform_points,
    world_points_from_depth,
)
from msdyn.indices import evenly_spaced
from msdyn.render.render import render_image
from msdyn.render.support import InputViews
from msdyn.sequence import GaussianSequence, living_weights

__all__ = ["MAX_UNSUPPORTED", "AutoPath", "auto_path", "focus_points"]

MAX_UNSUPPORTED = 0.03
"""Share of unsupported pixels that a path may have, mean over its views."""
_MAX_OF_VIEW = 3 * MAX_UNSUPPORTED
"""The same, for each view."""
_DEGREES = (15.0, 12.0, 10.0, 8.0, 6.0, 4.0, 3.0, 2.0)
_CROP = 1.1
"""Enlargement of the image, as video stabilisation does: what the input did not show is mostly at
the border."""
_VIEWS = 11
"""Views at which a path is measured. A prime: the views of all cycles differ in phase."""
_CLIP_VIEWS = 5
"""Input views with which they are compared, besides those of the same times."""
_SIDE = 240
"""Longer side of the measured views, px. At 160 px, a pixel covers too many of the details: the
share at full size was up to twice as large on real clips; at 240 px, it was 3.0 % at most."""
_MARGIN = 0.05
"""Border of the input image, relative to its size, in which objects need not be kept in frame."""
_STILL = 0.1
"""Extent of the camera centres, relative to the depth of the focus, below which a camera is
static; also the rotation of the optical axis, relative to the field of view."""
_CYCLE_SECONDS = 8.0
_MAX_CYCLES = 5
_MAX_POINTS = 2000
"""Number of moving Gaussians whose centre is the focus."""

Base = Literal["mean", "stabilised", "input"]
_NAMES = {
    "mean": "mean input camera",
    "stabilised": "stabilised input path",
    "input": "input cameras",
}


@dataclass(frozen=True)
class AutoPath:
    """A camera path, how it was chosen and what was measured on it.

    Attributes:
        cameras: one per time.
        base: the path without its swing: the mean of the input cameras, the input path without its
            jitter, or the input path.
        degrees: largest yaw of the swing; 0 for the base alone.
        unsupported: share of unsupported pixels (see `InputViews`), mean over sampled views of
            reduced size.
        about_objects: whether the camera swings about moving objects, not about the scene.
        in_frame: whether the centre of the moving objects is in the image wherever it is in that of
            the input camera.
    """

    cameras: Cameras
    base: Base
    degrees: float
    unsupported: float
    about_objects: bool
    in_frame: bool

    @property
    def is_supported(self) -> bool:
        """Whether the share of unsupported pixels is below the limit."""
        return self.unsupported < MAX_UNSUPPORTED

    def record(self) -> dict[str, Any]:
        """Return all but the cameras, for a JSON file."""
        return {
            "base": self.base,
            "degrees": self.degrees,
            "unsupported": self.unsupported,
            "about_objects": self.about_objects,
            "in_frame": self.in_frame,
        }

    def __str__(self) -> str:
        share = f"{self.unsupported:.1%} of the pixels unsupported"
        focus = "the moving objects" if self.about_objects else "the scene"
        text = f"{_NAMES[self.base]}, "
        if self.degrees:
            text += f"swinging up to {self.degrees:.0f} degrees about {focus}; {share}"
        else:
            text += f"without a swing, as none is supported; {share}"
        return text if self.in_frame else text + "; moving objects leave the image"


def auto_path(
    sequence: GaussianSequence,
    times: Real[np.ndarray, " times"],
    *,
    seconds: float | None = None,
    objects: Sequence[int] | None = None,
) -> AutoPath:
    """Return the camera path that suits a sequence, with one camera per time.

    Of the swings by 15, 12, 10, ... 2 degrees, the path has the largest one that leaves less than
    `MAX_UNSUPPORTED` of the pixels unsupported and keeps the centre of the moving objects in the
    image wherever the input camera does. If there is none, the path is the one without a swing that
    has the fewest unsupported pixels.

    Args:
        sequence: the fit.
        times: normalised; if all are equal, the camera swings about the input camera of that time.
        seconds: duration of the video, which determines the number of swings; by default at the
            clip's frame rate.
        objects: mask indices of the moving objects to swing about; all of them by default.

    Raises:
        InputError: no time, or one outside [0, 1].
    """
    times = np.asarray(times, np.float64)
    if not len(times):
        raise InputError("camera path: expected at least one time")
    seconds = len(times) / sequence.timeline.fps if seconds is None else seconds
    cycles = int(np.clip(round(seconds / _CYCLE_SECONDS), 1, _MAX_CYCLES))
    chooser = _Chooser(sequence, times, objects, cycles)
    for base, cameras in chooser.bases():
        for degrees in _DEGREES:
            found = chooser.path(base, cameras, degrees)
            if found is not None:
                return found
    still = [chooser.still(base, cameras) for base, cameras in chooser.bases()]
    return min(still, key=lambda path: (not path.in_frame, path.unsupported))


def focus_points(
    sequence: GaussianSequence,
    times: Real[np.ndarray, " times"],
    objects: Sequence[int] | None = None,
) -> Float[np.ndarray, "times 3"]:
    """Return the centre of the moving objects at each time, smoothed over time.

    Without moving objects, it is the median of the surface points that the input cameras view.

    Args:
        sequence: the fit.
        times: normalised.
        objects: mask indices of the moving objects; all of them by default.
    """
    frames = np.arange(len(sequence.timeline), dtype=np.float64)
    centres = _object_centres(sequence, frames, objects)
    if centres is None:
        centres = _surface_centres(sequence, frames)
    positions = sequence.timeline.frame_positions(times)
    return smoothing_weights(positions, len(frames)) @ centres


@torch.no_grad()
def _object_centres(
    sequence: GaussianSequence,
    frames: Float[np.ndarray, " frames"],
    objects: Sequence[int] | None,
) -> Float[np.ndarray, "frames 3"] | None:
    """Return the opacity-weighted centre of the moving Gaussians; None if there are none."""
    labels = sequence.labels
    own = torch.ones_like(labels, dtype=torch.bool)
    if objects is not None:
        own = torch.isin(labels, torch.tensor([*objects], device=labels.device))
    index = own.nonzero()[:, 0]
    if not len(index):
        return None
    index = index[:: -(-len(index) // _MAX_POINTS)]
    times = torch.as_tensor(frames, dtype=torch.float32, device=sequence.device)
    points = sequence.paths(index, times).double().cpu().numpy()
    weight = living_weights(sequence, index, times).cpu().numpy()
    return (points * weight[..., None]).sum(1) / weight.sum(1)[:, None]


def _surface_centres(
    sequence: GaussianSequence, frames: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames 3"]:
    """Return the median surface point of the input view at each frame, interpolated."""
    cameras = sequence.cameras.shrunk(_SIDE)
    chosen, points = [], []
    for frame in evenly_spaced(round(float(frames[-1])) + 1, _VIEWS).tolist():
        time = sequence.timeline.time_of_frame(frame)
        image = render_image(sequence, cameras[frame], time)
        known = image.alpha > 0.5
        if known.any():
            world = world_points_from_depth(image.depth, cameras[frame])
            chosen.append(frame)
            points.append(np.median(world[known], axis=0))
    if not chosen:
        return np.tile(focus_point(sequence.cameras), (len(frames), 1))
    columns = np.stack(points).T
    return np.stack([np.interp(frames, chosen, column) for column in columns], axis=1)


class _Chooser:
    """Makes paths for given times and measures them."""

    def __init__(
        self,
        sequence: GaussianSequence,
        times: Float[np.ndarray, " times"],
        objects: Sequence[int] | None,
        cycles: int,
    ) -> None:
        self.sequence, self.times, self.cycles = sequence, times, cycles
        self.positions = sequence.timeline.frame_positions(times)
        self.input = sequence.cameras.interpolated(self.positions)
        self.focus = focus_points(sequence, times, objects)
        self.centres = _object_centres(sequence, self.positions, objects)
        self.views = _sampled(len(times), cycles)
        others = np.linspace(0, len(sequence.timeline) - 1, _CLIP_VIEWS).round()
        seen = np.concatenate([self.positions[self.views], others])
        self.input_views = InputViews(sequence, seen, _SIDE)

    def bases(self) -> Iterator[tuple[Base, Cameras]]:
        """Yield paths without a swing, the preferred one first."""
        clip = self.sequence.cameras
        if np.ptp(self.positions) > 0:
            if self._is_still():
                yield "mean", mean_camera(clip)[np.zeros(len(self.times), int)]
            yield "stabilised", stabilised(clip, self.positions)
        yield "input", self.input

    def path(self, base: Base, cameras: Cameras, degrees: float) -> AutoPath | None:
        """Return a path with a swing, or None if it is not supported."""
        path = cropped(swung(cameras, self.focus, degrees, self.cycles), _CROP)
        if not self._in_frame(path):
            return None
        shares = []
        for view in self.views:
            shares.append(self._unsupported(path, view))
            # The remaining views cannot lower the sum.
            if shares[-1] > _MAX_OF_VIEW or sum(shares) >= MAX_UNSUPPORTED * len(self.views):
                return None
        moves = self.centres is not None
        return AutoPath(path, base, degrees, float(np.mean(shares)), moves, True)

    def still(self, base: Base, cameras: Cameras) -> AutoPath:
        """Return a path without a swing."""
        share = float(np.mean([self._unsupported(cameras, view) for view in self.views]))
        moves = self.centres is not None
        return AutoPath(cameras, base, 0.0, share, moves, self._in_frame(cameras))

    def _is_still(self) -> bool:
        """Whether the input camera hardly moved."""
        clip = self.sequence.cameras
        mean = mean_camera(clip)
        depth = float(np.median(transform_points(mean.cam_from_world[0], self.focus)[:, 2]))
        extent = np.linalg.norm(np.ptp(clip.centres, axis=0))
        cosine = clip.cam_from_world[:, 2, :3] @ mean.cam_from_world[0, 2, :3]
        turn = np.arccos(cosine.clip(-1, 1)).max()
        focal = mean.intrinsics[0, 0, 0]
        field = 2 * np.arctan(max(clip.width, clip.height) / (2 * focal))
        return bool(extent < _STILL * depth and turn < _STILL * field)

    def _in_frame(self, cameras: Cameras) -> bool:
        """Whether the moving objects' centre is in the image where it is in the input image."""
        if self.centres is None:
            return True
        visible = _inside(self.input, self.centres, _MARGIN)
        return bool(_inside(cameras, self.centres)[visible].all())

    def _unsupported(self, cameras: Cameras, view: int) -> float:
        return float(self.input_views.unsupported(cameras[view], float(self.times[view])).mean())


def _sampled(count: int, cycles: int) -> list[int]:
    """Return the indices of evenly spaced views, those with the largest swing first."""
    chosen = np.unique(((np.arange(_VIEWS) + 0.5) / _VIEWS * count).astype(int))
    phase = 2 * np.pi * cycles * chosen / max(count - 1, 1)
    return chosen[np.argsort(-np.abs(np.sin(phase)), kind="stable")].tolist()


def _inside(
    cameras: Cameras, points: Float[np.ndarray, "cameras 3"], margin: float = 0.0
) -> Bool[np.ndarray, " cameras"]:
    """Return whether a point is in front of each camera, and in its image without the border."""
    in_camera = transform_points(cameras.cam_from_world, points[:, None])  # [N, 1, 3]
    in_front = in_camera[:, 0, 2] > 1e-9
    in_camera = np.where(in_front[:, None, None], in_camera, 1.0)
    xy = project(cameras.intrinsics, in_camera)[:, 0] / [cameras.width, cameras.height]
    return in_front & ((xy > margin) & (xy < 1 - margin)).all(1)
