"""Cameras from the video alone: static, rotating, or moving, and in the last case their path.

A static camera is detected by the image motion of the background, a rotating one by how well
rotations alone explain the tracks. All others are solved by structure from motion, from several
initial focal lengths, because with little parallax the result depends on the initial one.

The world is the frame of the first camera, scaled so that the median depth of the static points
is 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msdyn.geometry import Cameras, Rigid, Similarity, transform_points
from msdyn.preprocess.cameras.camera_motion import (
    ROTATING_DEGREES,
    STATIC_PX,
    background_motion,
)
from msdyn.preprocess.cameras.reliability import (
    MAX_PLANAR,
    MIN_REGISTERED,
    CameraFigures,
    is_ambiguous,
    judge_cameras,
)
from msdyn.preprocess.contracts import (
    Backend,
    CameraSolution,
    Figures,
    Masks,
    SparsePoints,
)
from msdyn.preprocess.multiview.absolute_pose import (
    MAX_KEY_FRAMES,
    complete_cameras,
    key_frames,
)
from msdyn.preprocess.multiview.colmap import (
    Mapping,
    map_cameras,
    match_features,
    match_tracks,
    planar_share,
    polish,
)
from msdyn.preprocess.multiview.focal_error import focal_error
from msdyn.preprocess.multiview.rotation_only import RotationSolution, solve_rotations
from msdyn.preprocess.multiview.triangulation import triangulation_angles
from msdyn.preprocess.registry import register_backend
from msdyn.progress import Progress
from msdyn.scene import STATIC, Scene, Tracks

__all__ = ["SfmCameras"]

GUESSED_FOCAL = 0.85  # of the longer side: the main camera of a phone filming video
# Residual up to which a rotating camera explains the clip where structure from motion finds no
# parallax either.
MAYBE_ROTATING_DEGREES = 1.0
MIN_ANGLE_DEGREES = 1.5
# Focal lengths whose reprojection error is within this factor of the lowest one are candidates.
CANDIDATE_ERROR = 1.5


@register_backend("cameras", "sfm", needs=("frames", "tracks", "masks"))
@dataclass(frozen=True)
class SfmCameras(Backend):
    """Cameras by structure from motion, with one focal length for the whole clip."""

    focal_starts: tuple[float, ...] = (0.7, 1.2)
    """Initial focal lengths, in units of the longer side of the image."""
    max_key_frames: int = MAX_KEY_FRAMES
    """Of a longer clip so many frames, evenly spaced, are solved jointly, so that memory and time
    do not grow with it; the poses of the others are estimated from their points."""
    seed: int = 0
    """Of every random choice."""

    def solve(self, scene: Scene, tracks: Tracks | None, masks: Masks | None) -> CameraSolution:
        """Return the cameras.

        Args:
            scene: the frames.
            tracks: those with object 0 are used.
            masks: features on nonzero pixels are left out; None: all features are used.
        """
        assert tracks is not None, "this backend needs tracks"
        tracks = tracks.select(tracks.object == STATIC)
        height, width = scene.size
        focal = GUESSED_FOCAL * max(width, height)
        figures = CameraFigures("unknown", width, len(scene))
        figures = replace(figures, background_px=background_motion(tracks))
        static = Cameras.pinhole(focal, width, height, np.tile(np.eye(4), (len(scene), 1, 1)))
        if figures.background_px < STATIC_PX:
            return _solution(static, replace(figures, motion="static", registered=len(scene)))

        rotating = solve_rotations(tracks, width, height, focal, self.seed)
        if rotating is not None:
            figures = replace(figures, parallax=rotating.parallax)
            if rotating.parallax < ROTATING_DEGREES:
                return _rotating_solution(rotating, figures, scene)

        with tempfile.TemporaryDirectory(prefix="msdyn-cameras-") as folder:
            mappings, planar = self._map(scene, tracks, masks, Path(folder))
        figures = replace(figures, planar=planar)
        if not mappings:
            cameras = static if rotating is None else _rotating_cameras(rotating, scene)
            return _solution(cameras, figures)

        # Twice: the scale of the loss follows from the errors, which the first time reduces.
        best = polish(polish(mappings[0]))
        cameras = Cameras.pinhole(best.focal, width, height, best.cam_from_world)
        completed = complete_cameras(cameras, best.registered, tracks)
        registered = best.registered | completed.found
        # Without the points of the tracks, which are selected by their angles.
        angles = triangulation_angles(best.points, completed.cameras)
        points = best.points.joined(completed.points)
        cameras, points = _normalised(completed.cameras, points)
        figures = replace(
            figures,
            motion="moving",
            registered=int(registered.sum()),
            error=best.error,
            angle=float(np.median(angles)) if len(angles) else 0.0,
            focal_error=focal_error(
                best.focal, (width / 2, height / 2), best.cam_from_world, best.points
            ),
            focals=tuple(
                m.focal for m in mappings if m.error < CANDIDATE_ERROR * mappings[0].error
            ),
        )
        no_parallax = planar > MAX_PLANAR or figures.angle < MIN_ANGLE_DEGREES
        if rotating and no_parallax and rotating.parallax < MAYBE_ROTATING_DEGREES:
            return _rotating_solution(rotating, figures, scene)
        return _solution(cameras, figures, points)

    def _map(
        self, scene: Scene, tracks: Tracks, masks: Masks | None, folder: Path
    ) -> tuple[list[Mapping], float]:
        """Return the mappings of all initial focal lengths, best first; the share of planar pairs.

        From SIFT features, and where these register too few frames, from the tracks.
        """
        frames = key_frames(len(scene), self.max_key_frames)
        steps = (2 + len(self.focal_starts)) * len(frames)
        bar = Progress("cameras", steps)

        def progress() -> None:
            bar.update(len(frames))

        with bar:
            features = match_features(
                scene, masks, folder, seed=self.seed, frames=frames, step=bar.update
            )
            mappings = self._from_all_starts(scene, features, folder, progress)
            if not mappings or mappings[0].share < MIN_REGISTERED:
                bar.restart(steps)
                flow = match_tracks(scene, tracks, folder, seed=self.seed, frames=frames)
                bar.update(2 * len(frames))
                mappings += self._from_all_starts(scene, flow, folder, progress)
                mappings.sort(key=_rank)
            planar = planar_share(features)
        if mappings and mappings[0].share >= MIN_REGISTERED:
            mappings = [m for m in mappings if m.share >= MIN_REGISTERED]
        return mappings, planar

    def _from_all_starts(
        self, scene: Scene, database: Path, folder: Path, step: Callable[[], object]
    ) -> list[Mapping]:
        """Return the mappings of all initial focal lengths, best first; call `step` after each."""
        found = []
        for start in self.focal_starts:
            focal = start * max(scene.size)
            found.append(map_cameras(scene, database, focal, folder, seed=self.seed))
            step()
        return sorted((m for m in found if m is not None), key=_rank)


def _rank(mapping: Mapping) -> tuple[bool, float]:
    """Return the sort key of mappings: by error, then those of too few frames by their number."""
    enough = mapping.share >= MIN_REGISTERED
    return not enough, mapping.error if enough else -mapping.share


def _rotating_cameras(rotating: RotationSolution, scene: Scene) -> Cameras:
    """Return cameras at the origin with these rotations."""
    height, width = scene.size
    cam_from_world = np.tile(np.eye(4), (len(scene), 1, 1))
    cam_from_world[:, :3, :3] = rotating.rotations
    return Cameras.pinhole(rotating.focal, width, height, cam_from_world)


def _rotating_solution(
    rotating: RotationSolution, figures: CameraFigures, scene: Scene
) -> CameraSolution:
    """Return the result for a rotating camera."""
    figures = replace(
        figures,
        motion="rotating",
        registered=len(scene),
        error=rotating.error,
        focals=(rotating.focal,),
    )
    return _solution(_rotating_cameras(rotating, scene), figures)


def _normalised(cameras: Cameras, points: SparsePoints) -> tuple[Cameras, SparsePoints]:
    """Move the world to the first camera and scale it to a median depth of 1."""
    first = cameras.cam_from_world[0]
    xyz = transform_points(first, points.xyz)
    # Rows of the cameras' z axes; points are in the frame of the first camera.
    rows = (cameras.cam_from_world[:, 2] @ np.linalg.inv(first))[points.frame]
    depth = (rows[:, :3] * xyz[points.point]).sum(1) + rows[:, 3]
    depth = depth[depth > 0]
    scale = 1 / float(np.median(depth)) if len(depth) else 1.0
    world = Similarity(scale, Rigid(first[:3, :3], scale * first[:3, 3]))
    return cameras.transformed(world), replace(points, xyz=scale * xyz)


def _solution(
    cameras: Cameras, figures: CameraFigures, points: SparsePoints | None = None
) -> CameraSolution:
    """Return the result of these cameras, with figures and verdict."""
    quality: Figures = {
        "motion": figures.motion,
        "registered_frames": figures.registered,
        "frames": figures.frames,
        "reprojection_px": round(figures.error, 4),
        "focal_px": round(float(cameras.intrinsics[0, 0, 0]), 3),
        "unexplained_by_turning_degrees": round(figures.parallax, 4),
    }
    if np.isfinite(figures.background_px):
        quality["background_motion_px"] = round(figures.background_px, 3)
    if figures.planar is not None:  # structure from motion was tried
        quality["triangulation_degrees"] = round(figures.angle, 3)
        quality["focal_candidates_px"] = [round(focal, 2) for focal in figures.focals]
        if figures.focal_error is not None:
            quality["focal_error"] = round(figures.focal_error, 4)
        quality["planar_pairs"] = round(figures.planar, 4)
    if is_ambiguous(figures):
        quality["ambiguous"] = True
    return CameraSolution(
        cameras,
        figures.motion,
        points if points is not None else SparsePoints.empty(),
        judge_cameras(figures),
        quality=quality,
    )
