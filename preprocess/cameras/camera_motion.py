"""Whether a camera is static, rotates in one place or moves, from static tracks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from msdyn.geometry import Cameras
from msdyn.preprocess.cameras.reliability import CameraFigures
from msdyn.preprocess.multiview.rotation_only import rotation_parallax
from msdyn.scene import Tracks

__all__ = ["ROTATING_DEGREES", "STATIC_PX", "background_motion", "motion_of_given"]

STATIC_PX, STATIC_GAP = 0.5, 10  # image motion of the background over so many frames
ROTATING_DEGREES = 0.25  # residual of a rotating camera, below which it explains the clip


def background_motion(tracks: Tracks) -> float:
    """Return the image motion (px) of the typical static point in ten frames, where it is large.

    The median over the points for each frame, then the 90th percentile over the frames; infinite
    where no track lives that long. A clip shorter than ten frames is measured from end to end.
    """
    gap = min(STATIC_GAP, tracks.num_frames - 1)
    medians = []
    for frame in range(tracks.num_frames - gap):
        rows, here, there = tracks.between(frame, frame + gap)
        if len(rows):
            medians.append(float(np.median(np.linalg.norm(there - here, axis=1))))
    return float(np.percentile(medians, 90)) if medians else float("inf")


def motion_of_given(cameras: Cameras, tracks: Tracks | None) -> CameraFigures:
    """Return how cameras of the user move: static, rotating or, otherwise, "unknown".

    By the same limits as cameras that are estimated from the clip.

    Args:
        cameras: one per frame.
        tracks: static tracks; without any, only cameras with one common centre do not move.
    """
    count = len(cameras)
    side = max(cameras.width, cameras.height)
    figures = CameraFigures("unknown", side, count, registered=count, given=True)
    if tracks is not None:
        figures = replace(figures, background_px=background_motion(tracks))
        parallax = rotation_parallax(tracks, cameras)
        if parallax is not None:
            figures = replace(figures, parallax=parallax)
        if figures.background_px < STATIC_PX:
            return replace(figures, motion="static")
        if parallax is not None and parallax < ROTATING_DEGREES:
            return replace(figures, motion="rotating")
    else:
        figures = replace(figures, background_px=float("inf"))
    if cameras.share_centre:
        return replace(figures, motion="static" if cameras.share_pose else "rotating")
    return figures
