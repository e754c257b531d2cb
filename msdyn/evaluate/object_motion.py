"""The rigid motion of tracked objects, and its errors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from msdyn.geometry import Rigid, procrustes

__all__ = ["pose_errors", "rigid_motion"]


def rigid_motion(
    points: Float[np.ndarray, "points frames 3"], reference: int
) -> tuple[Rigid[np.ndarray], float]:
    """Return the rigid motion of tracked points since a reference frame, and its residual.

    Args:
        points: exact in every frame, scene units.
        reference: frame index.

    Returns:
        The motion [frames], and the root mean square distance of the points from it: 0 for a rigid
        object.
    """
    target = np.ascontiguousarray(points.swapaxes(0, 1), np.float64)  # [T, N, 3]
    motion = procrustes(target[reference][None], target, np.ones(target.shape[:2])).rigid
    error = motion.apply(target[reference]) - target
    return motion, float(np.sqrt((error**2).sum(-1).mean()))


def pose_errors(
    motion: Rigid[np.ndarray], truth: Rigid[np.ndarray], centre: Float[np.ndarray, " 3"]
) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, " frames"]]:
    """Return the errors of a rigid motion in rotation (degrees) and position (scene units).

    Neither depends on the frame that an object's pose is expressed in: the angle is that of the
    rotation between the two motions, the distance is between the positions of the object's centre.

    Args:
        motion, truth: [frames] motions since the same frame.
        centre: the object's centre in that frame.
    """
    relative = motion.rotation.swapaxes(1, 2) @ truth.rotation
    # Sine and cosine together: accurate for small angles and near 180 degrees.
    axis = relative - relative.swapaxes(1, 2)
    sine = np.sqrt((axis[:, [2, 0, 1], [1, 2, 0]] ** 2).sum(-1)) / 2
    cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
    difference = (motion.apply(centre[None]) - truth.apply(centre[None]))[:, 0]
    return np.degrees(np.arctan2(sine, cosine)), np.linalg.norm(difference, axis=-1)
