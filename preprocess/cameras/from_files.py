"""Cameras from files in any layout that `msdyn.io` reads."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.io import PosedImages, read_posed_images
from msdyn.preprocess.cameras.camera_motion import motion_of_given
from msdyn.preprocess.cameras.given_points import observed_points, verdict_with_points
from msdyn.preprocess.cameras.known_intrinsics import checked_intrinsics
from msdyn.preprocess.cameras.numbering import choose_reading, possible_readings, track_error
from msdyn.preprocess.cameras.reliability import MIN_REGISTERED, judge_cameras
from msdyn.preprocess.contracts import (
    BackendOptions,
    CameraSolution,
    Figures,
    FileBackend,
    Masks,
    SparsePoints,
    Verdict,
)
from msdyn.preprocess.frame_matching import Numbering, rows_of_frames, scale_factor
from msdyn.preprocess.multiview.absolute_pose import complete_cameras, interpolate_cameras
from msdyn.preprocess.registry import register_backend
from msdyn.scene import STATIC, Scene, Tracks

__all__ = ["FileCameras"]

_log = logging.getLogger(__name__)

MODEL_STEP_PX = 16.0
"""Networks round sizes to multiples of 14 or 16 px."""
POOR_FIT = 0.02  # of the longer side of the image: the error of static tracks


@register_backend("cameras", "files", needs=("frames",), helped_by=("tracks", "masks"))
@dataclass(frozen=True)
class FileCameras(FileBackend):
    """Cameras from a file or folder, their world and scale kept.

    The pose of a frame without a camera is estimated from static tracks that the frames with one
    triangulate, or else interpolated.
    """

    world_units: str = "arbitrary"
    intrinsics: tuple[float, float, float, float] | None = None
    """fx fy cx cy in px of the video at its full size, where the file has none."""
    numbering: Numbering | None = None
    """What the numbers in names of images count; by default told by the names and the tracks."""

    @classmethod
    def from_options(cls, options: BackendOptions) -> FileCameras:
        """Return the backend that reads the path of the options."""
        return cls(
            cls.given_path(options), options.world_units, options.intrinsics, options.numbering
        )

    def solve(self, scene: Scene, tracks: Tracks | None, masks: Masks | None) -> CameraSolution:
        """Return the cameras of the frames of the scene, scaled to the size of its images.

        The figures: `layout` of the file; `resampled`, the factor of the image size;
        `track_error_px`, of static tracks; `numbering`, what names were taken for; and where
        frames have no camera, `registered_frames` of `frames`, `placed_by_tracks`; `points` of
        the file that frames show. A camera that is
        static or only rotates is judged as one that is estimated.

        Args:
            scene: the frames.
            tracks: those with object 0 are static; without tracks poses are interpolated.
            masks: where the points of the file are not shown; None where nothing is masked.

        Raises:
            FileNotFoundError: there is no such file or folder.
            InputError: the file is of no known layout, or fits neither the frames nor their size.
        """
        options = scene.info.stages["frames"]["options"]
        source_size = (options["source_height"], options["source_width"])
        if self.intrinsics is not None:
            checked_intrinsics(self.intrinsics, source_size)
        lenses = scene.lenses
        intrinsics = self.intrinsics if lenses is None else lenses[0].pinhole
        posed = read_posed_images(self.path, intrinsics, source_size)
        if posed.lenses is not None and lenses is None:
            raise InputError(
                f"{self.path}: its images have a distortion, and the frames of the scene were not "
                "undistorted; run the frames stage with it too (leave --only out)"
            )
        if self.intrinsics is not None and posed.layout != "TUM":
            raise InputError(
                f"--intrinsics: given, but {self.path} ({posed.layout}) has its own; leave it out"
            )
        size = posed.cameras.height, posed.cameras.width
        slack = MODEL_STEP_PX if posed.depths is not None else 1.0
        factor = scale_factor(scene, size, self.path, slack)
        height, width = scene.size
        posed = replace(posed, cameras=posed.cameras.resized(width, height))
        static = None if tracks is None else tracks.select(tracks.object == STATIC)
        cameras, known, chosen = self._of_frames(scene, posed, static)
        if lenses is not None:
            cameras = lenses.straightened(cameras)
        quality: Figures = {"layout": posed.layout, "resampled": factor}
        if chosen:
            quality["numbering"] = chosen
        verdict = Verdict("good")
        if not known.all():
            cameras, placed = _complete(cameras, known, static)
            quality |= {"registered_frames": int(known.sum()), "frames": len(scene)}
            quality |= {"placed_by_tracks": int(placed.sum())}
            usable = (known | placed).mean() >= MIN_REGISTERED
            verdict = Verdict(
                "usable" if usable else "poor",
                f"{self.path}: {int((~known).sum())} of {len(scene)} frames have no camera and "
                f"get one from static tracks ({int(placed.sum())}) or between their neighbours",
                "give a camera for every frame",
            )
        figures = motion_of_given(cameras, static)
        motion = figures.motion if verdict.grade != "poor" else "unknown"
        error = track_error(np.where(known, np.arange(len(scene)), -1), cameras, static)
        if error is not None and np.isfinite(error):
            quality["track_error_px"] = round(error, 3)
        if motion != "unknown":
            verdict = judge_cameras(figures)
        elif error is not None and error > POOR_FIT * max(width, height):
            verdict = _contradicted(self.path, error)
        if np.isfinite(figures.background_px):
            quality["background_motion_px"] = round(figures.background_px, 3)
            quality["unexplained_by_turning_degrees"] = round(figures.parallax, 4)
        points = SparsePoints.empty()
        if posed.points is not None:
            # Moving points are where they were in the first frame of the recording.
            first = options["source_frames"][0] == 0
            shown = posed.points if first else posed.points.at_rest()
            points = observed_points(shown, cameras, masks)
            quality["points"] = len(points.xyz)
            if motion != "unknown":
                verdict = verdict_with_points(verdict, points, len(scene))
        return CameraSolution(
            cameras,
            motion=motion,
            points=points,
            verdict=verdict,
            world_units=self.world_units,
            quality=quality,
        )

    def _of_frames(
        self, scene: Scene, posed: PosedImages, static: Tracks | None
    ) -> tuple[Cameras, Bool[np.ndarray, " frames"], str]:
        """Return a camera for each frame of the scene, which of them are known [T], and how names
        were read where there was a choice."""
        options = scene.info.stages["frames"]["options"]
        count = len(posed.cameras)
        every = count in (options["source_frame_count"], len(scene))
        if posed.seconds is not None and not every:
            return _at_times(scene, posed, self.path), np.ones(len(scene), bool), ""
        if posed.names is not None:
            what = f"{self.path}: images"
            readings = possible_readings(scene, posed.names, what, self.numbering)
            reading, line = choose_reading(readings, posed.cameras, static, what)
            if line:
                _log.warning("cameras: %s", line)
            return posed.cameras[np.maximum(reading.rows, 0)], reading.rows >= 0, reading.text
        rows = rows_of_frames(scene, count, f"{self.path}: frames")
        return posed.cameras[rows], np.ones(len(rows), bool), ""


def _contradicted(path: Path, error: float) -> Verdict:
    """Return the verdict on cameras that static tracks contradict; see `track_error`."""
    where = f"{error:.1f} px from where" if np.isfinite(error) else "of points behind"
    return Verdict(
        "poor",
        f"{path}: most static tracks are {where} these cameras "
        f"{'put them' if np.isfinite(error) else ''}".rstrip(),
        "check the cameras: of another clip, of other frames, or with other axes?",
    )


def _complete(
    cameras: Cameras, known: Bool[np.ndarray, " frames"], tracks: Tracks | None
) -> tuple[Cameras, Bool[np.ndarray, " frames"]]:
    """Return cameras for all frames, and which [T] were estimated from static tracks."""
    if tracks is None:
        return interpolate_cameras(cameras, known), np.zeros(len(known), bool)
    completed = complete_cameras(cameras, known, tracks)
    return completed.cameras, completed.found


def _at_times(scene: Scene, posed: PosedImages, path: Path) -> Cameras:
    """Return cameras at the times of the frames, interpolated between the two poses around each.

    The times of the poses are those of the video where they begin within it, else they count from
    the first pose.

    Raises:
        InputError: the poses do not cover the clip.
    """
    assert posed.seconds is not None
    options = scene.info.stages["frames"]["options"]
    wanted = scene.info.timeline.seconds + options.get("source_start_seconds", 0.0)
    stamps = posed.seconds - (posed.seconds[0] if posed.seconds[0] > wanted[-1] else 0)
    slack = 1.5 / scene.info.fps
    if wanted[0] < stamps[0] - slack or wanted[-1] > stamps[-1] + slack:
        raise InputError(
            f"{path}: expected poses from {wanted[0]:.2f} to {wanted[-1]:.2f} s, or one for every "
            f"frame; got {len(stamps)} from {stamps[0]:.2f} to {stamps[-1]:.2f} s"
        )
    positions = np.interp(wanted, stamps, np.arange(len(stamps)))  # the ends are repeated
    return posed.cameras.interpolated(positions)
