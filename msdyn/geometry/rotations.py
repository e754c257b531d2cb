"""Rotations in torch: matrices, quaternions, rotation vectors, the 6D form.

Matrices act on column vectors. Quaternions are `wxyz`. The 6D form of a rotation is its first two
columns, one after the other (Zhou et al., "On the Continuity of Rotation Representations in Neural
Networks", 2019). Every function broadcasts over leading dimensions and keeps dtype and device.
"""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.devices import upload

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
    unit = torch.nn.functional.normalize(quats_wxyz, dim=-1)
    return _rotations_from_unit_quats(unit)


def quats_wxyz_from_rotations(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Return unit quaternions (w >= 0 is not guaranteed) of rotations.

    Of the four rows of 4 q q^T, which is linear in the rotation, the longest is normalised.

    Reference: Markley, "Unit quaternion from rotation matrix", 2008.
    """
    linear, identity = (constants(n, rotations.dtype, rotations.device) for n in ("outer", "one"))
    outer = (rotations.flatten(-2) @ linear + identity).unflatten(-1, (4, 4))
    longest = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    row = outer.gather(-2, longest.expand(*longest.shape[:-1], 4)).squeeze(-2)
    return torch.nn.functional.normalize(row, dim=-1)


def multiply_quats_wxyz(
    first: Float[Tensor, "*#batch 4"], second: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*#batch 4"]:
    """Return the Hamilton product: the rotation that applies `second`, then `first`."""
    products = (first.unsqueeze(-1) * second.unsqueeze(-2)).flatten(-2)
    return products @ constants("hamilton", first.dtype, first.device)


def rotations_from_rotvecs(rotvecs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the exponential map of rotation vectors (axis times angle in radians)."""
    import roma

    # Element by element: a product of matrices rounds a single rotation otherwise than many.
    return roma.rotvec_to_rotmat(rotvecs)


def rotvecs_from_rotations(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Return the logarithm of rotations (axis times angle in radians, angle in [0, pi])."""
    half, sine, vector = _half_angles(rotations)
    return 2 * _ratio(half, sine, 1) * vector


def interpolate_rotations(
    start: Float[Tensor, "*#batch 3 3"],
    end: Float[Tensor, "*#batch 3 3"],
    fraction: Float[Tensor, "*#batch"],
) -> Float[Tensor, "*#batch 3 3"]:
    """Interpolate along the geodesic from `start` (fraction 0) to `end` (fraction 1).

    Fractions outside [0, 1] extrapolate. The shorter geodesic is taken; for rotations that differ
    by pi its axis is arbitrary.
    """
    half, sine, vector = _half_angles(start.transpose(-1, -2) @ end)
    part = fraction.unsqueeze(-1) * half
    ratio = _ratio(part.sin(), sine, fraction.unsqueeze(-1))
    return start @ _rotations_from_unit_quats(torch.cat([part.cos(), ratio * vector], dim=-1))


def _half_angles(
    rotations: Float[Tensor, "*batch 3 3"],
) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 1"], Float[Tensor, "*batch 3"]]:
    """Return half of the angles, in [0, pi / 2], their sines, and the axes times the sines."""
    quats = quats_wxyz_from_rotations(rotations)
    scalar, vector = torch.where(quats[..., :1] < 0, -quats, quats).split([1, 3], dim=-1)
    sine = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return torch.atan2(sine, scalar), sine, vector


def _ratio(
    value: Float[Tensor, "*batch 1"], sine: Float[Tensor, "*batch 1"], limit: float | Tensor
) -> Float[Tensor, "*batch 1"]:
    """Return value / sine, and its limit where the sine is zero."""
    tiny = torch.finfo(sine.dtype).tiny ** 0.5
    return torch.where(sine > tiny, value / sine.clamp_min(tiny), limit)


def _rotations_from_unit_quats(unit: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    products = (unit.unsqueeze(-1) * unit.unsqueeze(-2)).flatten(-2).unsqueeze(-2)
    linear = constants("rotation", unit.dtype, unit.device)
    return (products @ linear).squeeze(-2).unflatten(-1, (3, 3))


@cache
def constants(name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a matrix of the formulas of this module, put on a device once.

    As products with these matrices, the formulas are a few operations on a GPU instead of dozens.

    Args:
        name: "hamilton" [16, 4], from the products of the elements of two quaternions to those of
            their product; "rotation" [16, 9], from the products of the elements of a unit
            quaternion to its matrix; "outer" [9, 16] and "one" [16], with which a rotation R has
            4 q q^T = R outer + one.
    """
    w, x, y, z = np.eye(4)

    def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.outer(a, b).reshape(-1)  # picks one product of elements

    hamilton = [
        times(w, w) - times(x, x) - times(y, y) - times(z, z),
        times(w, x) + times(x, w) + times(y, z) - times(z, y),
        times(w, y) - times(x, z) + times(y, w) + times(z, x),
        times(w, z) + times(x, y) - times(y, x) + times(z, w),
    ]
    rotation = [
        times(w, w) + times(x, x) - times(y, y) - times(z, z),
        2 * (times(x, y) - times(w, z)),
        2 * (times(x, z) + times(w, y)),
        2 * (times(x, y) + times(w, z)),
        times(w, w) - times(x, x) + times(y, y) - times(z, z),
        2 * (times(y, z) - times(w, x)),
        2 * (times(x, z) - times(w, y)),
        2 * (times(y, z) + times(w, x)),
        times(w, w) - times(x, x) - times(y, y) + times(z, z),
    ]
    # 4 q q^T = sum over i, j of R_ij times the symmetric matrix of the form q^T M q = R_ij, plus
    # the identity, as q^T q = 1.
    forms = np.array(rotation).reshape(9, 4, 4)
    outer = (forms + forms.transpose(0, 2, 1)) / 2
    matrices = {
        "hamilton": np.array(hamilton).T,
        "rotation": np.array(rotation).T,
        "outer": outer.reshape(9, 16),
        "one": np.eye(4).reshape(-1),
    }
    with torch.inference_mode(False):
        return upload(matrices[name], device).to(dtype)
