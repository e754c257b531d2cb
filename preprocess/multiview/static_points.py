"""Points of the static scene: those of the cameras stage, or triangulated from tracks."""

from __future__ import annotations

from msdyn.preprocess.contracts import CameraSolution, SparsePoints
from msdyn.preprocess.multiview.triangulation import triangulate_tracks
from msdyn.scene import STATIC, Tracks

__all__ = ["static_points"]


def static_points(tracks: Tracks, solution: CameraSolution, at_least: int) -> SparsePoints:
    """Return static points and their observations.

    Args:
        tracks: N tracks; those with object 0 are static.
        solution: cameras, and the points that they were solved from.
        at_least: with fewer points than this the tracks are triangulated.

    Returns:
        The points; none where the camera is static or only rotates.
    """
    if solution.motion in ("static", "rotating"):
        return SparsePoints.empty()
    if len(solution.points.xyz) >= at_least:
        return solution.points
    static = tracks.select(tracks.object == STATIC)
    points, _ = triangulate_tracks(static, solution.cameras)
    return points
