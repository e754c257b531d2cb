"""The static scene's points: those that came with the cameras, else triangulated from tracks."""

from __future__ import annotations

from msdyn.preprocess.contracts import CameraSolution, Masks, SparsePoints
from msdyn.preprocess.multiview.track_labels import assign_objects
from msdyn.preprocess.multiview.triangulation import triangulate_tracks
from msdyn.scene import STATIC, Tracks

__all__ = ["static_points"]


def static_points(
    tracks: Tracks, masks: Masks, solution: CameraSolution, at_least: int
) -> SparsePoints:
    """Return points of what stands still and where they were seen.

    Args:
        tracks: N tracks.
        masks: what moves.
        solution: cameras, and the points that they rest on.
        at_least: with fewer points than this the tracks are triangulated.

    Returns:
        The points; none where the camera stands or only turns.
    """
    if solution.motion in ("static", "rotating"):
        return SparsePoints.empty()
    if len(solution.points.xyz) >= at_least:
        return solution.points
    static = tracks.select(assign_objects(tracks, masks) == STATIC)
    points, _ = triangulate_tracks(static, solution.cameras)
    return points
