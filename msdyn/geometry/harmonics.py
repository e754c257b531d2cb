"""Real spherical harmonics up to degree 3, in the order and sign convention of 3DGS."""

import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.errors import InputError

__all__ = ["SH_C0", "harmonics_basis"]

SH_C0 = 0.28209479177387814  # 1 / (2 sqrt(pi))
_C1 = 0.4886025119029199  # sqrt(3 / (4 pi))


def harmonics_basis(
    degree: int, directions: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch coefficients"]:
    """Evaluate the (degree + 1)^2 basis functions in unit directions.

    Args:
        degree: 0 to 3.
        directions: unit vectors, from the camera to the Gaussian.

    Raises:
        InputError: the degree is out of range.

    Reference: Sloan, "Efficient Spherical Harmonic Evaluation", 2013; Kerbl et al. 2023.
    """
    if not 0 <= degree <= 3:
        raise InputError(f"degree: expected 0 to 3, got {degree}")
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    basis = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        basis += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree >= 2:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree >= 3:
        basis += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(basis, dim=-1)
