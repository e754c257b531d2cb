"""Depth of moving objects from their surroundings: the ground they are on, or what holds them.

The motion of the camera alone does not determine the depth of a moving object. But objects rest on
a static surface: the depth just below the lowest pixels is that of the object, or, where that is
behind it, that of the nearest quarter of its surroundings. Except for objects that hang or are
held: the surface below them in the image is a wall, say, and does not get nearer downwards as the
ground does. What holds such an object borders on it and is nearer than the rest: the nearest
twentieth of its surroundings is taken. (A third cue, the change of an object's size from frame to
frame, made it worse: its drift over a clip is larger than the errors it would correct.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from msdyn.preprocess.contracts import Mask
from msdyn.scene import STATIC

__all__ = ["Surroundings", "read_surroundings", "smooth_depths"]

MIN_PIXELS, MIN_BELOW = 20, 3
FOOT = 0.15  # share of an object's height that is its foot
BELOW_PX = 3  # outlines of masks are off by a pixel or two
RING_PX = 4
PERCENTILES = (25, 5)  # of depth
# The ground gets nearer by this share from an object's foot to this share of its height below. On
# the demo's clip by 2.6 to 8.4 % below a vehicle, the wall below an arm by 1.3 % at most.
GROUND_SLOPE, GROUND_REACH = 0.015, 0.15
# The error of one frame is some 5 %, and log depth changes by about a third of that per frame.
STIFFNESS = 10.0
OUTLIER = 0.05


@dataclass(frozen=True)
class Surroundings:
    """Depth around one object in one frame.

    Attributes:
        ground: depth of the ground just below it, 0 where no ground is visible.
        ring: depth of the nearest quarter of its surroundings, 0 where there are none.
        holder: depth of the nearest twentieth of its surroundings, 0 where there are none.
        hangs: a static surface is visible below it that is not ground.
        foot: rows [top, bottom) of the image that contain its foot.
    """

    ground: float = 0.0
    ring: float = 0.0
    holder: float = 0.0
    hangs: bool = False
    foot: tuple[int, int] = (0, 0)

    @property
    def contact(self) -> float:
        """Depth of the ground it is on, 0 where that is not visible."""
        return min(self.ground, self.ring) if self.ground and self.ring else self.ground


def read_surroundings(
    depth: Float[np.ndarray, "height width"], mask: Mask, label: int
) -> Surroundings | None:
    """Return the static depth around an object, None where the object is not visible.

    Args:
        depth: [H, W] static depth; not used on moving pixels.
        mask: [H, W] object index.
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

    def dilated(region: np.ndarray, by: int) -> np.ndarray:
        return cv2.dilate(region.astype(np.uint8), np.ones((2 * by + 1,) * 2, np.uint8)) > 0

    around = depth[dilated(own, RING_PX + 2) & ~dilated(mask > 0, 2)]
    ring, holder = np.percentile(around, PERCENTILES) if len(around) else (0.0, 0.0)
    return Surroundings(ground or 0.0, float(ring), float(holder), ground == 0, (foot, bottom + 1))


def _ground(
    depth: Float[np.ndarray, "height width"],
    mask: Mask,
    column: Int[np.ndarray, " pixels"],
    below: Int[np.ndarray, " pixels"],
    reach: int,
) -> float | None:
    """Return the depth of pixels (below, column) if they are of the ground, 0 if they are not, None
    if there are too few. Ground gets nearer within `reach` rows."""
    if len(column) < MIN_BELOW:
        return None
    here = float(np.median(depth[below, column]))
    further = below + reach
    inside = further < mask.shape[0]
    further, across = further[inside], column[inside]
    static = mask[further, across] == STATIC
    if static.sum() < MIN_BELOW:
        return here  # undecided
    nearer = depth[below, column][inside][static] / depth[further, across][static] - 1
    return here if np.median(nearer) > GROUND_SLOPE else 0.0


def smooth_depths(depths: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    """Return depths [T] that change smoothly, from measured ones [T] of which some are 0 (missing).

    Minimises  sum (log z_t - log measured_t)^2 + STIFFNESS sum (log z_t+1 - log z_t)^2  with lower
    weights of outliers. Without any measurement the result is zero.
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
