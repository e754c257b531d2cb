"""Points of the scene that come with cameras from files, as observations in the frames."""

from __future__ import annotations

import numpy as np

from msdyn.geometry import Cameras, nearest_pixels
from msdyn.io import ScenePoints
from msdyn.preprocess.contracts import Masks, SparsePoints, Verdict
from msdyn.preprocess.multiview.point_visibility import SeenPoints, seen_points
from msdyn.scene import STATIC

__all__ = ["ENOUGH", "observed_points", "verdict_with_points"]

MOST_POINTS = 8000
"""Per frame; of more, some are taken at random."""
ENOUGH = 50
"""Points per frame that give depth where the camera does not move."""


def observed_points(points: ScenePoints, cameras: Cameras, masks: Masks | None) -> SparsePoints:
    """Return where the frames show points: static ones in all frames, moving ones in the first.

    Static points behind others, and at pixels of a mask, are not shown. Moving points that the
    first frame does not show, as those of the back, are kept without observations.

    Args:
        points: of the scene in the first frame.
        cameras: one per frame.
        masks: nonzero pixels are not static; None where nothing is masked.
    """
    rng = np.random.default_rng(0)
    frame, index, xy = [], [], []
    seen: SeenPoints | None = None
    for number in range(len(cameras)):
        moved = number == 0 or not np.array_equal(
            cameras.cam_from_world[number], cameras.cam_from_world[number - 1]
        )
        if moved or number == 1 or seen is None:
            # Those of the first frame occlude one another also where they move.
            shown = np.flatnonzero(~points.moving) if number else np.arange(len(points))
            seen = seen_points(points.xyz[shown], cameras[number])
            rows, positions = shown[seen.index], seen.xy
        free = np.ones(len(rows), bool)
        if masks is not None:
            y, x, _ = nearest_pixels(positions, cameras.height, cameras.width)
            free = (masks[number][y, x] == STATIC) ^ points.moving[rows]
        chosen = np.flatnonzero(free)
        if len(chosen) > MOST_POINTS:
            chosen = np.sort(rng.choice(chosen, MOST_POINTS, replace=False))
        index.append(rows[chosen])
        xy.append(positions[chosen])
        frame.append(np.full(len(chosen), number))
    point = np.concatenate(index)
    used = np.union1d(point, np.flatnonzero(points.moving))
    point = np.searchsorted(used, point)
    return SparsePoints(points.xyz[used], point, np.concatenate(frame), np.concatenate(xy))


def verdict_with_points(verdict: Verdict, points: SparsePoints, frames: int) -> Verdict:
    """Return the verdict on a camera that does not move, of which points of the scene are known."""
    shown = np.bincount(points.frame, minlength=frames)
    if verdict.grade != "poor" or np.median(shown) < ENOUGH:
        return verdict
    return Verdict(
        "usable",
        f"the camera does not move: depth is that of points given with it ({int(np.median(shown))} "
        "per frame), completed, and the depth of what moves is estimated",
        "give depth maps (--depth files --depth-path DIR) where there are any",
    )
