"""How many of the tracks that are taken for static the solved cameras explain.

Structure from motion keeps what fits and drops the rest: where everything moves by itself, or
images are blurred, a small error of the points kept says nothing. The tracks are a sample of the
whole image that was not selected by how well it fits.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from msdyn.geometry import Cameras
from msdyn.preprocess.multiview.triangulation import triangulate
from msdyn.scene import Tracks

__all__ = ["explained_share"]

EXPLAINED_PX, SIDE = 1.5, 854  # for images up to this longer side, in px, and in proportion above
MOST_TRACKS, FEWEST_TRACKS, MIN_OBSERVATIONS = 2000, 20, 3


def explained_share(
    cameras: Cameras, tracks: Tracks, found: Bool[np.ndarray, " frames"]
) -> float | None:
    """Return the share of static tracks that are of one point, to within `EXPLAINED_PX`.

    Args:
        cameras: one per frame.
        tracks: tracks of static points, px; of many, some are taken.
        found: frames whose camera was found, and not interpolated.

    Returns:
        The share of tracks whose root mean square reprojection error is small; None of too few
        tracks.
    """
    seen = tracks.select(slice(None, None, -(-len(tracks) // MOST_TRACKS) or 1)).observations()
    used = found[seen.frame]
    used &= np.bincount(seen.track[used], minlength=len(tracks))[seen.track] >= MIN_OBSERVATIONS
    number, track = np.unique(seen.track[used], return_inverse=True)
    if len(number) < FEWEST_TRACKS:
        return None
    solved = triangulate(cameras, track, seen.frame[used], seen.xy[used], seen.confidence[used])
    squared = np.bincount(track, solved.error**2) / np.bincount(track)
    limit = EXPLAINED_PX * max(1.0, max(cameras.width, cameras.height) / SIDE)
    return float((squared < limit**2).mean())
