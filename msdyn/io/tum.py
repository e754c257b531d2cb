"""TUM trajectories: one pose `world_from_x` per line, `seconds tx ty tz qx qy qz qw`.

Reference: the file formats of the TUM RGB-D benchmark; format "tum" of `evo`.
"""

from __future__ import annotations

import math
import os

import numpy as np
from jaxtyping import Float, Float64

from msdyn.errors import InputError
from msdyn.reading import MOST_FRAMES, read_lines, shown
from msdyn.writing import atomic_path

__all__ = ["read_tum", "write_tum"]


def write_tum(
    path: str | os.PathLike,
    seconds: Float[np.ndarray, " poses"],
    poses: Float[np.ndarray, "poses 4 4"],
    *,
    comment: str = "",
) -> None:
    """Write poses, atomically.

    Args:
        path: file name, usually `.txt`.
        seconds: timestamps.
        poses: `world_from_x`, rigid; translations in scene units.
        comment: first line of the file.
    """
    from scipy.spatial.transform import Rotation

    quats_xyzw = Rotation.from_matrix(poses[:, :3, :3]).as_quat().reshape(-1, 4)
    # q and -q are the same rotation: choose the sign closest to the previous, for interpolation.
    for row in range(1, len(quats_xyzw)):
        if quats_xyzw[row] @ quats_xyzw[row - 1] < 0:
            quats_xyzw[row] *= -1
    lines = [f"# {comment}"] if comment else []
    lines.append("# seconds tx ty tz qx qy qz qw")
    for second, pose, quat in zip(seconds, poses, quats_xyzw, strict=True):
        values = [float(second), *pose[:3, 3].tolist(), *quat.tolist()]
        lines.append(" ".join(f"{value:.9f}" for value in values))
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_tum(
    path: str | os.PathLike,
) -> tuple[Float64[np.ndarray, " poses"], Float64[np.ndarray, "poses 4 4"]]:
    """Read timestamps, seconds, and poses `world_from_x`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a line is not eight numbers, or a quaternion has length zero.
    """
    from scipy.spatial.transform import Rotation

    rows = []
    for number, line in read_lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            rows.append([float(part) for part in line.split()])
        except ValueError as error:
            raise InputError(f"{path}: line {number}: expected numbers ({error})") from error
        if len(rows) > MOST_FRAMES:
            raise InputError(f"{path}: expected at most {MOST_FRAMES} poses, got more")
        if len(rows[-1]) != 8 or not 0 < math.hypot(*rows[-1][4:]) < math.inf:
            raise InputError(
                f"{path}: line {number}: expected seconds tx ty tz qx qy qz qw, got {shown(line)}"
            )
    values = np.array(rows).reshape(-1, 8)
    poses = np.tile(np.eye(4), (len(values), 1, 1))
    if len(values):
        poses[:, :3, :3] = Rotation.from_quat(values[:, 4:]).as_matrix()
    poses[:, :3, 3] = values[:, 1:4]
    return values[:, 0], poses
