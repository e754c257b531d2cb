"""Cameras from the video alone: still, turning, or moving, and in the last case their path.

A still camera is known by its background, a turning one by how well rotations alone explain the
tracks; what remains is solved by structure from motion, from several focal lengths, because at
little parallax the one it starts from decides the one it ends with.

The world is the first camera's frame, scaled so that the median depth of the static points is 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from msdyn.geometry import Cameras, Rigid, Similarity, transform_points
from msdyn.preprocess.cameras.reliability import MIN_REGISTERED, CameraFigures, judge_cameras
from msdyn.preprocess.contracts import CameraSolution, Masks, SparsePoints
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
from msdyn.preprocess.multiview.rotation_only import RotationSolution, solve_rotations
from msdyn.preprocess.multiview.track_labels import assign_objects
from msdyn.preprocess.multiview.triangulation import triangulation_angles
from msdyn.scene import STATIC, Scene, Tracks

__all__ = ["SfmCameras", "background_motion"]

GUESSED_FOCAL = 0.85  # of the longer side: a phone's main camera filming video
STILL_PX, STILL_GAP = 0.5, 10
# Below the first a turning camera explains everything. Up to the second it is the better account
# where structure from motion agrees that there is no parallax: near and far at the same distance.
TURNING_DEGREES, MAYBE_TURNING_DEGREES = 0.25, 1.0
MIN_ANGLE_DEGREES = 1.5
MAX_PLANAR = 0.95
# A focal length is a rival of the best one while its reprojection error is within this factor.
RIVAL_ERROR = 1.5


@dataclass(frozen=True)
class SfmCameras:
    """Cameras by structure from motion, with one focal length for the whole clip."""

    focal_starts: tuple[float, ...] = (0.7, 1.2)
    """Focal lengths to start from, in units of the longer side of the image."""
    max_key_frames: int = MAX_KEY_FRAMES
    """Of a longer clip so many frames, evenly spaced, are solved together, in memory and time that
    do not grow with it; the others find their place among what those have triangulated."""
    seed: int = 0
    """Of every random choice."""

    name = "sfm"

    def solve(self, scene: Scene, tracks: Tracks, masks: Masks | None) -> CameraSolution:
        """Return the cameras; tracks and features on nonzero pixels of `masks` are left out."""
        if masks is not None:
            tracks = tracks.select(assign_objects(tracks, masks) == STATIC)
        height, width = scene.size
        focal = GUESSED_FOCAL * max(width, height)
        figures = CameraFigures("unknown", width, len(scene))
        figures = replace(figures, background_px=background_motion(tracks))
        if figures.background_px < STILL_PX:
            still = np.tile(np.eye(4), (len(scene), 1, 1))
            figures = replace(figures, motion="static", registered=len(scene))
            return _solution(Cameras.pinhole(focal, width, height, still), figures)

        turning = solve_rotations(tracks, width, height, focal, self.seed)
        if turning is not None:
            figures = replace(figures, parallax=turning.parallax)
            if turning.parallax < TURNING_DEGREES:
                return _turning_solution(turning, figures, scene)

        with tempfile.TemporaryDirectory(prefix="msdyn-cameras-") as folder:
            mappings, planar = self._map(scene, tracks, masks, Path(folder))
        figures = replace(figures, planar=planar)
        if not mappings:
            if turning is not None:
                cameras = _turning_cameras(turning, scene)
            else:
                still = np.tile(np.eye(4), (len(scene), 1, 1))
                cameras = Cameras.pinhole(focal, width, height, still)
            return _solution(cameras, figures)

        best = polish(mappings[0])
        cameras = Cameras.pinhole(best.focal, width, height, best.cam_from_world)
        rest = complete_cameras(cameras, best.registered, tracks)
        registered = best.registered | rest.found
        # Those of the tracks are chosen for their angles and would flatter.
        angles = triangulation_angles(best.points, rest.cameras)
        cameras, points = _normalised(rest.cameras, best.points.joined(rest.points))
        figures = replace(
            figures,
            motion="moving",
            registered=int(registered.sum()),
            error=best.error,
            angle=float(np.median(angles)) if len(angles) else 0.0,
            focals=tuple(m.focal for m in mappings if m.error < RIVAL_ERROR * mappings[0].error),
        )
        no_parallax = planar > MAX_PLANAR or figures.angle < MIN_ANGLE_DEGREES
        if turning and no_parallax and turning.parallax < MAYBE_TURNING_DEGREES:
            return _turning_solution(turning, figures, scene)
        return _solution(cameras, figures, points)

    def _map(
        self, scene: Scene, tracks: Tracks, masks: Masks | None, folder: Path
    ) -> tuple[list[Mapping], float]:
        """Return the mappings from every starting focal length, best first; planar pairs' share."""
        frames = key_frames(len(scene), self.max_key_frames)
        steps = (2 + len(self.focal_starts)) * len(frames)
        bar = tqdm(desc="cameras ", total=steps, unit="step", disable=None, leave=False)
        how: dict[str, Any] = {"seed": self.seed, "frames": frames}

        def progress() -> None:
            bar.update(len(frames))

        with bar:
            features = match_features(scene, masks, folder, **how, step=bar.update)
            mappings = self._from_all_starts(scene, features, folder, progress)
            if not mappings or mappings[0].share < MIN_REGISTERED:
                bar.reset(steps)
                flow = match_tracks(scene, tracks, folder, **how)
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
        found = []
        for start in self.focal_starts:
            focal = start * max(scene.size)
            found.append(map_cameras(scene, database, focal, folder, seed=self.seed))
            step()
        return sorted((m for m in found if m is not None), key=_rank)


def background_motion(tracks: Tracks) -> float:
    """Return how far (px) the typical static point moves in ten frames where it moves most.

    The median over the points for each frame, then the 90th percentile over the frames; infinite
    where no track lives that long. A clip shorter than ten frames is measured from end to end.
    """
    gap = min(STILL_GAP, tracks.num_frames - 1)
    medians = []
    for frame in range(tracks.num_frames - gap):
        rows, here, there = tracks.between(frame, frame + gap)
        if len(rows):
            medians.append(float(np.median(np.linalg.norm(there - here, axis=1))))
    return float(np.percentile(medians, 90)) if medians else float("inf")


def _rank(mapping: Mapping) -> tuple[bool, float]:
    """Order mappings: enough frames first, then the lower error (or, short of frames, the more)."""
    enough = mapping.share >= MIN_REGISTERED
    return not enough, mapping.error if enough else -mapping.share


def _turning_cameras(turning: RotationSolution, scene: Scene) -> Cameras:
    height, width = scene.size
    cam_from_world = np.tile(np.eye(4), (len(scene), 1, 1))
    cam_from_world[:, :3, :3] = turning.rotations
    return Cameras.pinhole(turning.focal, width, height, cam_from_world)


def _turning_solution(
    turning: RotationSolution, figures: CameraFigures, scene: Scene
) -> CameraSolution:
    figures = replace(
        figures,
        motion="rotating",
        registered=len(scene),
        error=turning.error,
        focals=(turning.focal,),
    )
    return _solution(_turning_cameras(turning, scene), figures)


def _normalised(cameras: Cameras, points: SparsePoints) -> tuple[Cameras, SparsePoints]:
    """Move the world to the first camera and scale it to a median depth of 1."""
    first = cameras.cam_from_world[0]
    xyz = transform_points(first, points.xyz)
    # In the first camera's frame each frame sees its points at the depth of its own axis.
    rows = (cameras.cam_from_world[:, 2] @ np.linalg.inv(first))[points.frame]
    depth = (rows[:, :3] * xyz[points.point]).sum(1) + rows[:, 3]
    depth = depth[depth > 0]
    scale = 1 / float(np.median(depth)) if len(depth) else 1.0
    world = Similarity(scale, Rigid(first[:3, :3], scale * first[:3, 3]))
    return cameras.transformed(world), replace(points, xyz=scale * xyz)


def _solution(
    cameras: Cameras, figures: CameraFigures, points: SparsePoints | None = None
) -> CameraSolution:
    quality: dict[str, Any] = {
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
        quality["planar_pairs"] = round(figures.planar, 4)
    return CameraSolution(
        cameras,
        figures.motion,
        points if points is not None else SparsePoints.empty(),
        judge_cameras(figures),
        quality=quality,
    )
