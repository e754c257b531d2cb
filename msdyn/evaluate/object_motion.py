"""How objects turn and move as a whole: the rigid motion of a sequence's objects, and its error."""

from __future__ import annotations

import numpy as np
import torch

from msdyn.sequence import fit_motion, object_motions

__all__ = ["object_motions", "pose_errors", "rigid_motion"]


def rigid_motion(points: np.ndarray, reference: int) -> tuple[np.ndarray, float]:
    """Return the rigid motion of tracked points since a reference frame, and how rigid they are.

    Args:
        points: [N, T, 3], exact in every frame.
        reference: frame index.

    Returns:
        [T, 4, 4], and the root mean square distance of the points from where it carries them:
        0 for a rigid object.
    """
    target = torch.from_numpy(np.ascontiguousarray(points.swapaxes(0, 1), np.float64))  # [T, N, 3]
    source = target[reference].expand_as(target)
    motion = fit_motion(source, target, torch.ones(target.shape[:2], dtype=torch.float64))
    carried = source.numpy() @ motion[:, :3, :3].swapaxes(1, 2) + motion[:, None, :3, 3]
    return motion, float(np.sqrt(((carried - target.numpy()) ** 2).sum(-1).mean()))


def pose_errors(
    motion: np.ndarray, truth: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the errors of a rigid motion in angle and place.

    Neither depends on the frame that an object's pose is expressed in: the angle is that of the
    rotation between the two motions, the distance is between where they carry the object's centre.

    Args:
        motion, truth: [T, 4, 4] motions since the same frame.
        centre: [3] the object's centre in that frame.

    Returns:
        [T] degrees, and [T] scene units.
    """
    relative = motion[:, :3, :3].swapaxes(1, 2) @ truth[:, :3, :3]
    # From both sine and cosine: exact for small angles and for half turns.
    axis = relative - relative.swapaxes(1, 2)
    sine = np.sqrt((axis[:, [2, 0, 1], [1, 2, 0]] ** 2).sum(-1)) / 2
    cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
    apart = (motion - truth)[:, :3] @ np.append(centre, 1)
    return np.degrees(np.arctan2(sine, cosine)), np.linalg.norm(apart, axis=-1)
