"""Rigid motion over time as key poses, interpolated as glTF-like formats do.

Between keys a translation is interpolated linearly and a rotation along the shorter great circle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int

from msdyn.geometry import Rigid, quats_wxyz_from_rotations

__all__ = ["RigidTrack", "rigid_track"]

_LONGEST = 32
"""Most times from one key to the next."""


@dataclass(frozen=True)
class RigidTrack:
    """Key poses of a motion.

    Attributes:
        rows: [K] of the times at which the keys are.
        motion: [T] what interpolation of the keys gives at all times.
    """

    rows: Int[np.ndarray, " keys"]
    motion: Rigid[np.ndarray]


def rigid_track(
    motion: Rigid[np.ndarray],
    seconds: Float64[np.ndarray, " times"],
    points: Float[np.ndarray, "points 3"],
    pixels: Float[np.ndarray, " times"],
    tolerance_px: float,
) -> RigidTrack:
    """Leave out poses that interpolation of the others gives within a tolerance.

    Args:
        motion: [T] poses.
        seconds: of the poses, increasing.
        points: some that move by the poses.
        pixels: [T] the most pixels that a scene unit is at one of the points.
        tolerance_px: distance in pixels up to which a point may be off.
    """
    count = len(seconds)
    true = motion.apply(points[None].repeat(count, 0))  # [T, P, 3]
    quats = quats_wxyz_from_rotations(torch.from_numpy(motion.rotation)).numpy()
    keys = [0]
    found = Rigid(motion.rotation.copy(), motion.translation.copy())
    while keys[-1] < count - 1:
        first = keys[-1]
        best = first + 1
        for last in range(first + 2, min(first + _LONGEST, count - 1) + 1):
            inner = slice(first + 1, last)
            between = _interpolated(quats, motion, seconds, first, last)
            away = np.linalg.norm(between.apply(points[None]) - true[inner], axis=-1)
            if (away.max(1) * pixels[inner]).max() > tolerance_px:
                break
            best = last
        if best > first + 1:
            inner, between = (
                slice(first + 1, best),
                _interpolated(quats, motion, seconds, first, best),
            )
            found.rotation[inner], found.translation[inner] = between.rotation, between.translation
        keys.append(best)
    return RigidTrack(np.array(keys), found)


def _interpolated(
    quats_wxyz: Float[np.ndarray, "times 4"],
    motion: Rigid[np.ndarray],
    seconds: Float64[np.ndarray, " times"],
    first: int,
    last: int,
) -> Rigid[np.ndarray]:
    """Return the poses between two rows as interpolation of these gives them."""
    from scipy.spatial.transform import Rotation, Slerp

    inner = seconds[first + 1 : last]
    ends = Rotation.from_quat(quats_wxyz[[first, last]][:, [1, 2, 3, 0]])
    rotations = Slerp(seconds[[first, last]], ends)(inner).as_matrix()
    share = ((inner - seconds[first]) / (seconds[last] - seconds[first]))[:, None]
    low, high = motion.translation[first], motion.translation[last]
    return Rigid(rotations, low + share * (high - low))
