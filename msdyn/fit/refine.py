"""Refinement of cameras and depth on static tracks, before the fit.

Estimated or recorded poses have errors of about a pixel, and the scale of depth drifts between
frames. Both blur the background and corrupt the lifted motion. Static tracks constrain them: a
static point must project to its track in every frame, at the depth measured there. This is bundle
adjustment with the depth maps as further observations: Gauss-Newton over the poses, two depth
parameters per frame, and the points, which are eliminated (Schur complement). Weak priors on the
corrections fix the gauge. What remains between the depth maps and the points is corrected by a
smooth function of the image position (`depth_field.py`), in alternation with the adjustment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from msdyn.fit.frame_maps import positive_median
from msdyn.fit.static_adjustment import StaticAdjustment, frame_rotations
from msdyn.fit.static_observations import (
    MIN_TRACKS,
    longest_static_tracks,
    observe_static_tracks,
)
from msdyn.geometry import Cameras
from msdyn.scene import Maps, Tracks

__all__ = ["Refinement", "adjust_depth", "interpolate_missing", "refine_on_static_tracks"]

_POSE, _DEPTH = slice(0, 6), slice(6, 8)


@dataclass(frozen=True)
class Refinement:
    """Corrections of each frame's pose and depth.

    Attributes:
        cameras: refined, in the world of the input cameras.
        log_scale, exponent: [T] per frame; the corrected depth is
            exp(log_median + log_scale + distortion) * (depth / exp(log_median)) ** (1 + exponent).
        log_median: logarithm of the median depth.
        distortion: [T, rows, columns] on a grid of cells over the image; None if there is none.
        tracks: number of static tracks used; 0 if there were too few and nothing was changed.
        pixels_before, pixels_after: median reprojection error.
    """

    cameras: Cameras
    log_scale: Float[np.ndarray, " frames"]
    exponent: Float[np.ndarray, " frames"]
    log_median: float
    distortion: Float[np.ndarray, "frames rows columns"] | None = None
    tracks: int = 0
    pixels_before: float = 0.0
    pixels_after: float = 0.0

    def summary(self, input_cameras: Cameras) -> dict[str, float]:
        """Return the magnitude of the corrections, relative to the input cameras."""
        return {
            "tracks": self.tracks,
            "pixels_before": self.pixels_before,
            "pixels_after": self.pixels_after,
            **self.change(input_cameras, self.cameras),
            "depth_scale_min": float(np.exp(self.log_scale.min())),
            "depth_scale_max": float(np.exp(self.log_scale.max())),
            "depth_distortion": 0.0 if self.distortion is None else float(self.distortion.std()),
        }

    def change(self, before: Cameras, after: Cameras) -> dict[str, float]:
        """Return the mean rotation and shift between cameras of the same frames."""
        relative = after.cam_from_world[:, :3, :3] @ before.world_from_cam[:, :3, :3]
        cosine = ((np.trace(relative, axis1=1, axis2=2) - 1) / 2).clip(-1, 1)
        moved = np.linalg.norm(after.centres - before.centres, axis=1)
        return {
            "degrees": float(np.degrees(np.arccos(cosine)).mean()),
            "shift": float(moved.mean()),
            "shift_share_of_depth": float(moved.mean() / np.exp(self.log_median)),
        }


def adjust_depth(
    depth: Float[np.ndarray, "height width"], refinement: Refinement, frame: int
) -> Float[np.ndarray, "height width"]:
    """Return the corrected depth map of a frame; unknown pixels (0) stay unknown."""
    log_scale, exponent = refinement.log_scale[frame], refinement.exponent[frame]
    if not (log_scale or exponent or refinement.distortion is not None):
        return depth
    known = depth > 0
    relative = np.log(np.where(known, depth, 1.0)) - refinement.log_median
    log_depth = refinement.log_median + log_scale + (1 + exponent) * relative
    if refinement.distortion is not None:
        log_depth += _resized(refinement.distortion[frame], depth.shape)
    return np.where(known, np.exp(log_depth), 0.0).astype(depth.dtype)


def _resized(
    cells: Float[np.ndarray, "rows columns"], shape: tuple[int, ...]
) -> Float[np.ndarray, "height width"]:
    """Interpolate values at the centres of cells to all pixels."""
    import torch

    values = torch.from_numpy(cells)[None, None]
    return torch.nn.functional.interpolate(values, shape, mode="bicubic")[0, 0].numpy()


def refine_on_static_tracks(
    tracks: Tracks,
    depths: Maps,
    masks: Maps,
    cameras: Cameras,
    frames: Int[np.ndarray, " frames"],
    *,
    poses: bool = True,
    depth: bool = True,
    match: Callable[[Tracks], Tracks] | None = None,
    seed: int = 0,
) -> Refinement:
    """Refine poses and depth scales on the static tracks of a scene.

    Args:
        tracks: of the whole clip; only observations of static tracks (object 0) on static pixels
            (mask 0) are used.
        depths: [T, H, W] z-depth, float32, 0 unknown.
        masks: [T, H, W] object index.
        cameras: one per frame.
        frames: frames whose tracks are used; the corrections of others are interpolated.
        poses: whether to refine the poses.
        depth: whether to refine the depth of each frame.
        match: improves the positions of the tracks that are used, see `track_matching.py`.
        seed: of the selection of tracks.

    Returns:
        The corrections; unchanged if there are fewer than `MIN_TRACKS` usable tracks.
    """
    log_median = float(np.log(positive_median(depths) or 1.0))
    count = len(cameras)
    unchanged = Refinement(cameras, np.zeros(count), np.zeros(count), log_median)
    if not (poses or depth):
        return unchanged
    static = longest_static_tracks(tracks, frames, seed)
    observations = observe_static_tracks(
        static if match is None else match(static), depths, masks, cameras, frames
    )
    if observations is None:
        return unchanged
    solver = StaticAdjustment(observations, cameras, log_median, free=_free(poses, depth))
    before = solver.median_pixels()
    solver.solve()
    distortion = solver.solve_distortion() if depth else None
    visible = np.bincount(observations.frame, minlength=count)
    correction = interpolate_missing(solver.correction, visible >= MIN_TRACKS)
    return Refinement(
        _corrected(cameras, correction, solver.unit),
        correction[:, 6],
        correction[:, 7],
        log_median,
        distortion,
        len(observations.points),
        before,
        solver.median_pixels(),
    )


def _free(poses: bool, depth: bool) -> Bool[np.ndarray, " 8"]:
    """Return which of a frame's corrections are free parameters."""
    free = np.zeros(8, bool)
    free[_POSE], free[_DEPTH] = poses, depth
    return free


def interpolate_missing(
    correction: Float[np.ndarray, "frames numbers"], known: Bool[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames numbers"]:
    """Interpolate the corrections of unknown frames over time; zero if none is known."""
    if known.all() or not known.any():
        return correction if known.any() else np.zeros_like(correction)
    frames = np.arange(len(correction))
    index = frames[known]
    return np.stack([np.interp(frames, index, column[known]) for column in correction.T], axis=1)


def _corrected(cameras: Cameras, correction: Float[np.ndarray, "frames 8"], unit: float) -> Cameras:
    """Apply corrections of the poses, with translations in multiples of `unit`."""
    pose = cameras.cam_from_world.copy()
    delta = frame_rotations(correction[:, :3])
    pose[:, :3, :3] = delta @ pose[:, :3, :3]
    pose[:, :3, 3] = (delta @ pose[:, :3, 3, None])[..., 0] + unit * correction[:, 3:6]
    return Cameras(cameras.intrinsics, pose, cameras.width, cameras.height)
