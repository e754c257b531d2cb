"""Cameras from the video alone: static, rotating, or moving, and in the last case their path.

A static camera is detected by the image motion of the background, a rotating one by how well
rotations alone explain the tracks. All others are solved by structure from motion, from several
initial focal lengths, because with little parallax the result depends on the initial one.

The world is the frame of the first camera, scaled so that the median depth of the static points
is 1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from msdyn.geometry import Cameras, Rigid, Similarity, transform_points
from msdyn.preprocess.cameras.camera_motion import (
    ROTATING_DEGREES,
    STATIC_PX,
    background_motion,
)
from msdyn.preprocess.cameras.explained import explained_share
from msdyn.preprocess.cameras.known_intrinsics import (
    given_intrinsics,
    lens_intrinsics,
    recorded_intrinsics,
)
from msdyn.preprocess.cameras.reliability import (
    MAX_PLANAR,
    MIN_REGISTERED,
    CameraFigures,
    error_limit,
    has_few_points,
    is_ambiguous,
    judge_cameras,
)
from msdyn.preprocess.contracts import (
    Backend,
    BackendOptions,
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
from msdyn.preprocess.multiview.colmap_mapping import Mapping, map_cameras, polish
from msdyn.preprocess.multiview.colmap_matching import match_features, match_tracks, planar_share
from msdyn.preprocess.multiview.focal_error import focal_contradiction, focal_error
from msdyn.preprocess.multiview.intrinsics import KnownIntrinsics
from msdyn.preprocess.multiview.rotation_only import RotationSolution, solve_rotations
from msdyn.preprocess.multiview.triangulation import triangulation_angles
from msdyn.preprocess.registry import register_backend
from msdyn.progress import Progress
from msdyn.scene import STATIC, Scene, Tracks
from msdyn.writing import scratch_folder

__all__ = ["SfmCameras", "may_rotate"]

_log = logging.getLogger(__name__)

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
    intrinsics: tuple[float, float, float, float] | None = None
    """fx fy cx cy in px of the video at its full size, where known."""
    intrinsics_use: Literal["fixed", "start"] = "fixed"
    """Whether these are kept, or their focal length is a start."""

    @classmethod
    def from_options(cls, options: BackendOptions) -> SfmCameras:
        """Return the backend with the intrinsics of the options."""
        return cls(intrinsics=options.intrinsics, intrinsics_use=options.intrinsics_use)

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
        known = self._known(scene)
        fixed = known is not None and known.fixed
        k = _guess(width, height) if known is None else known.matrix
        figures = CameraFigures("unknown", max(scene.size), len(scene), focal_given=fixed)
        figures = replace(figures, background_px=background_motion(tracks))
        static = _cameras(k, scene, np.tile(np.eye(4), (len(scene), 1, 1)))
        if figures.background_px < STATIC_PX:
            return _solution(static, replace(figures, motion="static", registered=len(scene)))

        rotating = solve_rotations(tracks, k, self.seed, fixed=fixed)
        if rotating is not None:
            figures = replace(figures, parallax=rotating.parallax)
            if rotating.angle < ROTATING_DEGREES and rotating.parallax < MAYBE_ROTATING_DEGREES:
                return _rotating_solution(rotating, k, figures, scene)

        with scratch_folder() as folder:
            mappings, planar = self._map(scene, tracks, masks, folder, known)
        figures = replace(figures, planar=planar)
        if not mappings:
            cameras = static if rotating is None else _rotating_cameras(rotating, k, scene)
            return _solution(cameras, figures)

        # Twice: the scale of the loss follows from the errors, which the first time reduces.
        best = polish(polish(mappings[0], fixed=fixed), fixed=fixed)
        cameras = _cameras(best.intrinsics, scene, best.cam_from_world)
        completed = complete_cameras(cameras, best.registered, tracks)
        registered = best.registered | completed.found
        # Without the points of the tracks, which are selected by their angles.
        angles = triangulation_angles(best.points, completed.cameras)
        points = best.points.joined(completed.points)
        cameras, points = _normalised(completed.cameras, points)
        centre = float(best.intrinsics[0, 2]), float(best.intrinsics[1, 2])
        solved = best.focal, centre, best.cam_from_world, best.points
        figures = replace(
            figures,
            motion="moving",
            registered=int(registered.sum()),
            error=best.error,
            angle=float(np.median(angles)) if len(angles) else 0.0,
            explained=explained_share(completed.cameras, tracks, registered),
            frame_points=int(
                np.median(np.bincount(points.frame, minlength=len(scene))[registered])
            ),
            focal_error=None if fixed else focal_error(*solved),
            focal_contradiction=focal_contradiction(*solved) if fixed else None,
            focals=tuple(
                m.focal for m in mappings if m.error < CANDIDATE_ERROR * mappings[0].error
            ),
        )
        # With a known focal length a plane tells rotation from translation.
        planar_only = planar > MAX_PLANAR and not fixed
        no_parallax = planar_only or figures.angle < MIN_ANGLE_DEGREES
        if rotating and no_parallax and may_rotate(rotating, figures):
            return _rotating_solution(rotating, k, figures, scene)
        return _solution(cameras, figures, points)

    def _known(self, scene: Scene) -> KnownIntrinsics | None:
        """Return the intrinsics of the user, or else those recorded in the images; say so."""
        if self.intrinsics is not None:
            fixed = self.intrinsics_use == "fixed"
            return given_intrinsics(scene, self.intrinsics, fixed=fixed)
        known = lens_intrinsics(scene)
        if known is not None:
            return known
        known = recorded_intrinsics(scene)
        if known is not None:
            text = scene.info.stages["frames"]["options"]["source_focal"]
            _log.warning("cameras: the focal length starts from %s", text)
        return known

    def _map(
        self,
        scene: Scene,
        tracks: Tracks,
        masks: Masks | None,
        folder: Path,
        known: KnownIntrinsics | None,
    ) -> tuple[list[Mapping], float]:
        """Return the mappings of all initial focal lengths, best first; the share of planar pairs.

        From SIFT features, and where these register too few frames, from the tracks.
        """
        frames = key_frames(len(scene), self.max_key_frames)
        starts: tuple[float | KnownIntrinsics, ...]
        starts = tuple(start * max(scene.size) for start in self.focal_starts)
        if known is not None:
            starts = (known,)
        steps = (2 + len(starts)) * len(frames)
        bar = Progress("cameras", steps)

        def progress() -> None:
            bar.update(len(frames))

        with bar:
            features = match_features(
                scene, masks, folder, seed=self.seed, frames=frames, known=known, step=bar.update
            )
            mappings = self._from_all_starts(scene, features, folder, starts, progress)
            if not mappings or mappings[0].share < MIN_REGISTERED:
                bar.restart(steps)
                flow = match_tracks(
                    scene, tracks, folder, seed=self.seed, frames=frames, known=known
                )
                bar.update(2 * len(frames))
                mappings += self._from_all_starts(scene, flow, folder, starts, progress)
                mappings.sort(key=_rank)
            planar = planar_share(features)
        if mappings and mappings[0].share >= MIN_REGISTERED:
            mappings = [m for m in mappings if m.share >= MIN_REGISTERED]
        return mappings, planar

    def _from_all_starts(
        self,
        scene: Scene,
        database: Path,
        folder: Path,
        starts: tuple[float | KnownIntrinsics, ...],
        step: Callable[[], object],
    ) -> list[Mapping]:
        """Return the mappings of all initial focal lengths, best first; call `step` after each."""
        found = []
        for start in starts:
            found.append(map_cameras(scene, database, start, folder, seed=self.seed))
            step()
        return sorted((m for m in found if m is not None), key=_rank)


def _rank(mapping: Mapping) -> tuple[bool, float]:
    """Return the sort key of mappings: by error, then those of too few frames by their number."""
    enough = mapping.share >= MIN_REGISTERED
    return not enough, mapping.error if enough else -mapping.share


def _guess(width: int, height: int) -> Float[np.ndarray, "3 3"]:
    """Return the intrinsics of a camera of which nothing is known."""
    focal = GUESSED_FOCAL * max(width, height)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def _cameras(
    intrinsics: Float[np.ndarray, "3 3"], scene: Scene, cam_from_world: Float[np.ndarray, "t 4 4"]
) -> Cameras:
    """Return cameras of one matrix of intrinsics."""
    height, width = scene.size
    return Cameras(np.tile(intrinsics, (len(scene), 1, 1)), cam_from_world, width, height)


def _rotating_cameras(
    rotating: RotationSolution, intrinsics: Float[np.ndarray, "3 3"], scene: Scene
) -> Cameras:
    """Return cameras at the origin with these rotations."""
    cam_from_world = np.tile(np.eye(4), (len(scene), 1, 1))
    cam_from_world[:, :3, :3] = rotating.rotations
    k = intrinsics.copy()
    k[:2, :2] *= rotating.focal / intrinsics[0, 0]
    return _cameras(k, scene, cam_from_world)


def may_rotate(rotating: RotationSolution, figures: CameraFigures) -> bool:
    """Return whether rotations explain a clip in which structure from motion finds no parallax.

    Where it finds no points either, there is nothing else that does: a long focal length of the
    rotations is then accepted, if they fit as well as cameras must.
    """
    if rotating.parallax < MAYBE_ROTATING_DEGREES:
        return True
    fits = rotating.angle < MAYBE_ROTATING_DEGREES and rotating.error < error_limit(figures)
    return has_few_points(figures) and fits


def _rotating_solution(
    rotating: RotationSolution,
    intrinsics: Float[np.ndarray, "3 3"],
    figures: CameraFigures,
    scene: Scene,
) -> CameraSolution:
    """Return the result for a rotating camera."""
    figures = replace(
        figures,
        motion="rotating",
        registered=len(scene),
        error=rotating.error,
        focals=(rotating.focal,),
    )
    return _solution(_rotating_cameras(rotating, intrinsics, scene), figures)


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
        if figures.explained is not None:
            quality["explained_tracks"] = round(figures.explained, 4)
        if figures.frame_points is not None:
            quality["points_per_frame"] = figures.frame_points
    if figures.focal_given:
        quality["intrinsics"] = "given"
    if figures.focal_contradiction is not None:
        quality["focal_contradiction"] = round(figures.focal_contradiction, 4)
    if is_ambiguous(figures):
        quality["ambiguous"] = True
    return CameraSolution(
        cameras,
        figures.motion,
        points if points is not None else SparsePoints.empty(),
        judge_cameras(figures),
        quality=quality,
    )
