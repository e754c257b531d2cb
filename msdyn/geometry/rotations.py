"""Rotations in torch: matrices, quaternions, rotation vectors, the 6D form.

Matrices act on column vectors. Quaternions are `wxyz`. The 6D form of a rotation is its first two
columns, one after the other (Zhou et al., "On the Continuity of Rotation Representations in Neural
Networks", 2019). Every function broadcasts over leading dimensions and keeps dtype and device.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "interpolate_rotations",
    "multiply_quats_wxyz",
    "quats_wxyz_from_rotations",
    "rotations_from_quats_wxyz",
    "rotations_from_rotvecs",
    "rotations_from_sixd",
    "rotvecs_from_rotations",
    "sixd_from_rotations",
]


def rotations_from_sixd(sixd: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Orthonormalise two 3-vectors into a rotation by Gram-Schmidt.

    Degenerate input (zero or parallel vectors) gives finite values, but not always a rotation.

    Args:
        sixd: first two columns, not necessarily unit or orthogonal.

    Reference: Zhou et al. 2019, Eq. 15.
    """
    first = torch.nn.functional.normalize(sixd[..., :3], dim=-1, eps=1e-12)
    second = sixd[..., 3:] - (first * sixd[..., 3:]).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1, eps=1e-12)
    third = torch.linalg.cross(first, second)
    return torch.stack([first, second, third], dim=-1)


def sixd_from_rotations(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """Return the first two columns of rotations."""
    return torch.cat([rotations[..., 0], rotations[..., 1]], dim=-1)


def rotations_from_quats_wxyz(quats_wxyz: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotations of quaternions, which need not be normalised."""
    w, x, y, z = torch.nn.functional.normalize(quats_wxyz, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quats_wxyz_from_rotations(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Return unit quaternions (w >= 0 is not guaranteed) of rotations."""
    import roma

    return roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(rotations))


def multiply_quats_wxyz(
    first: Float[Tensor, "*#batch 4"], second: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*#batch 4"]:
    """Return the Hamilton product: the rotation that applies `second`, then `first`."""
    aw, ax, ay, az = first.unbind(-1)
    bw, bx, by, bz = second.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def rotations_from_rotvecs(rotvecs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the exponential map of rotation vectors (axis times angle in radians)."""
    import roma

    return roma.rotvec_to_rotmat(rotvecs)


def rotvecs_from_rotations(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Return the logarithm of rotations (axis times angle in radians, angle in [0, pi])."""
    import roma

    return roma.rotmat_to_rotvec(rotations)


def interpolate_rotations(
    start: Float[Tensor, "*#batch 3 3"],
    end: Float[Tensor, "*#batch 3 3"],
    fraction: Float[Tensor, "*#batch"],
) -> Float[Tensor, "*#batch 3 3"]:
    """Interpolate along the geodesic from `start` (fraction 0) to `end` (fraction 1).

    Fractions outside [0, 1] extrapolate. The shorter geodesic is taken; for rotations that differ
    by pi its axis is arbitrary.
    """
    delta = rotvecs_from_rotations(start.transpose(-1, -2) @ end)
    return start @ rotations_from_rotvecs(fraction.unsqueeze(-1) * delta)
