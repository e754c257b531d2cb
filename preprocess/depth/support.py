"""Where moving objects are: by what they stand on, and what surrounds them.

A camera that moves past a moving object cannot tell its depth from its own motion alone. An object
rests on something, though, and what it rests on is static: the depth just below its lowest pixels
is its own, or, where that is behind it, that of the nearest quarter of what surrounds it. Unless it
hangs or is held up: what appears below it is then a wall, say, and comes no nearer downwards as the
ground does. What holds it borders on it, and is nearer than the rest: the nearest twentieth of what
surrounds it is taken. (A third cue, the change of an object's size from frame to frame, was
tried and made it worse: its drift over a clip is larger than the errors it would even out.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdyn.scene import STATIC

__all__ = ["Reading", "read_surroundings", "smooth_depths"]

MIN_PIXELS, MIN_BELOW = 20, 3
FOOT = 0.15  # share of an object's height that counts as its foot
BELOW_PX = 3  # masks are a pixel or two too tight or too wide
RING_PX = 4
PERCENTILES = (25, 5)  # of depth
# Ground comes nearer by this share from an object's foot to this share of its height below. On the
# demo's clip it does by 2.6 to 8.4 % below a vehicle, the wall below an arm by 1.3 % at most.
GROUND_SLOPE, GROUND_REACH = 0.015, 0.15
# One reading is off by some 5 %, and log depth changes by about a third of that between frames.
STIFFNESS = 10.0
OUTLIER = 0.05


@dataclass(frozen=True)
class Reading:
    """What one frame says about the depth of one object.

    Attributes:
        ground: depth of the ground just below it, 0 where none is seen.
        ring: depth of the nearest quarter of its surroundings, 0 where there are none.
        holder: depth of the nearest twentieth of its surroundings, 0 where there are none.
        hangs: something static is seen below it, which is not ground.
        foot: rows [top, bottom) of the image that hold its foot.
    """

    ground: float = 0.0
    ring: float = 0.0
    holder: float = 0.0
    hangs: bool = False
    foot: tuple[int, int] = (0, 0)

    @property
    def contact(self) -> float:
        """Depth of what it stands on, 0 where that cannot be seen."""
        return min(self.ground, self.ring) if self.ground and self.ring else self.ground


def read_surroundings(depth: np.ndarray, mask: np.ndarray, label: int) -> Reading | None:
    """Return what the static depth around an object says, None where it is not in the picture.

    Args:
        depth: [H, W] static depth; of no account where something moves.
        mask: [H, W] uint8 object index.
        label: the object.
    """
    import cv2

    own = mask == label
    if own.sum() < MIN_PIXELS:
        return None
    rows, columns = np.nonzero(own)
    top, bottom = int(np.percentile(rows, 2)), int(rows.max())
    foot = int(bottom - FOOT * (bottom - top))

    lowest = np.full(mask.shape[1], -1)
    np.maximum.at(lowest, columns, rows)
    column = np.flatnonzero(lowest >= foot)
    below = lowest[column] + BELOW_PX
    inside = below < mask.shape[0]
    column, below = column[inside], below[inside]
    static = mask[below, column] == STATIC
    column, below = column[static], below[static]
    ground = _ground(depth, mask, column, below, max(4, round(GROUND_REACH * (bottom - top))))

    def grown(what: np.ndarray, by: int) -> np.ndarray:
        return cv2.dilate(what.astype(np.uint8), np.ones((2 * by + 1,) * 2, np.uint8)) > 0

    around = depth[grown(own, RING_PX + 2) & ~grown(mask > 0, 2)]
    ring, holder = np.percentile(around, PERCENTILES) if len(around) else (0.0, 0.0)
    return Reading(ground or 0.0, float(ring), float(holder), ground == 0, (foot, bottom + 1))


def _ground(
    depth: np.ndarray, mask: np.ndarray, column: np.ndarray, below: np.ndarray, reach: int
) -> float | None:
    """Return the depth of pixels (below, column) if they are of the ground, 0 if they are not, None
    if there are too few."""
    if len(column) < MIN_BELOW:
        return None
    here = float(np.median(depth[below, column]))
    further = below + reach
    seen = further < mask.shape[0]
    further, across = further[seen], column[seen]
    static = mask[further, across] == STATIC
    if static.sum() < MIN_BELOW:
        return here  # it cannot be told
    nearer = depth[below, column][seen][static] / depth[further, across][static] - 1
    return here if np.median(nearer) > GROUND_SLOPE else 0.0


def smooth_depths(depths: np.ndarray) -> np.ndarray:
    """Return depths [T] that change smoothly, from readings [T] of which some are 0 (missing).

    Minimises  sum (log z_t - log reading_t)^2 + STIFFNESS sum (log z_t+1 - log z_t)^2  with
    readings far off the result weighing less. Without any reading the result is zero.
    """
    from scipy.linalg import solveh_banded

    known = depths > 0
    if not known.any():
        return np.zeros(len(depths))
    target = np.log(np.where(known, depths, 1))
    weight = known.astype(np.float64)
    band = np.zeros((2, len(depths)))  # the upper form of a symmetric tridiagonal matrix
    result = target
    for _ in range(5):
        band[0, 1:] = -STIFFNESS
        band[1] = weight
        band[1, 1:] += STIFFNESS
        band[1, :-1] += STIFFNESS
        result = solveh_banded(band, weight * target)
        weight = known / (1 + ((result - target) / OUTLIER) ** 2)
    return np.exp(result)
