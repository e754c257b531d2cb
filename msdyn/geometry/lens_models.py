"""Formulas of lens models: where a ray meets the image plane of a camera with a distorted lens.

Rays are given on the *angle plane*, as `t * direction`: `t` is the angle from the optical axis in
radians, `direction` the unit vector x, y of the ray. Unlike x/z, y/z it is bounded, so that wide
fisheye lenses are as well conditioned as others. The result is the distorted point before focal
length and principal point are applied.

Names and order of the parameters are COLMAP's. `k` are radial coefficients, `p` tangential and `s`
thin prism ones.

References: OpenCV, "Camera Calibration and 3D Reconstruction" (k, p of OPENCV and FULL_OPENCV);
Kannala and Brandt, 2006 (OPENCV_FISHEYE); Devernay and Faugeras, 2001 (FOV); Fitzgibbon, 2001
(DIVISION); Khomutenko et al., 2016 (EUCM); COLMAP, src/colmap/sensor/models.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["LENS_MODELS", "LensModel", "bent", "radius_of_angle"]

Values = Mapping[str, float]


def _rational(p: Values, r: Float[np.ndarray, "*_"]) -> Float[np.ndarray, "*_"]:
    """Return the radial factor of perspective models at r = tan(angle)."""
    q = r * r
    above = 1 + q * (p.get("k1", 0) + q * (p.get("k2", 0) + q * p.get("k3", 0)))
    below = 1 + q * (p.get("k4", 0) + q * (p.get("k5", 0) + q * p.get("k6", 0)))
    return above / below


def _angular(p: Values, t: Float[np.ndarray, "*_"]) -> Float[np.ndarray, "*_"]:
    """Return the radial factor of fisheye models at an angle."""
    q, factor = t * t, np.zeros_like(t)
    for number in range(6, 0, -1):
        factor = q * (factor + p.get(f"k{number}", 0))
    return 1 + factor


def _fov(p: Values, r: Float[np.ndarray, "*_"]) -> Float[np.ndarray, "*_"]:
    omega = abs(p["omega"])
    if omega < 1e-7:
        return np.ones_like(r)
    slope = 2 * np.tan(omega / 2)
    safe = np.maximum(r, 1e-9)
    return np.arctan(slope * safe) / (omega * safe)


def _division(p: Values, r: Float[np.ndarray, "*_"]) -> Float[np.ndarray, "*_"]:
    root = np.sqrt(1 - 4 * p["k"] * r * r)  # NaN beyond the largest radius
    return 2 / (1 + root)


def _eucm(p: Values, r: Float[np.ndarray, "*_"]) -> Float[np.ndarray, "*_"]:
    return 1 / (p["alpha"] * np.sqrt(p["beta"] * r * r + 1) + 1 - p["alpha"])


@dataclass(frozen=True)
class LensModel:
    """A lens model.

    Attributes:
        names: of the parameters, in COLMAP's order: focal lengths, principal point, distortion.
        factor: the radial factor of a radius on the base plane, by the parameters.
        angular: whether the base plane is the angle plane; otherwise it is x/z, y/z.
        after: whether the tangential and thin prism terms are of the radially distorted point.
    """

    names: tuple[str, ...]
    factor: Callable[[Values, np.ndarray], np.ndarray] = _rational
    angular: bool = False
    after: bool = False


def _model(names: str, *rest: Callable | bool, **options: bool) -> LensModel:
    focal = ("f", "cx", "cy") if names.startswith("f ") else ("fx", "fy", "cx", "cy")
    return LensModel((*focal, *names.split()[1:]), *rest, **options)  # pyright: ignore


LENS_MODELS: dict[str, LensModel] = {
    "SIMPLE_PINHOLE": _model("f "),
    "PINHOLE": _model("fx,fy"),
    "SIMPLE_RADIAL": _model("f k1"),
    "RADIAL": _model("f k1 k2"),
    "OPENCV": _model("fx,fy k1 k2 p1 p2"),
    "FULL_OPENCV": _model("fx,fy k1 k2 p1 p2 k3 k4 k5 k6"),
    "SIMPLE_FISHEYE": _model("f ", _angular, True),
    "FISHEYE": _model("fx,fy", _angular, True),
    "SIMPLE_RADIAL_FISHEYE": _model("f k1", _angular, True),
    "RADIAL_FISHEYE": _model("f k1 k2", _angular, True),
    "OPENCV_FISHEYE": _model("fx,fy k1 k2 k3 k4", _angular, True),
    "THIN_PRISM_FISHEYE": _model("fx,fy k1 k2 p1 p2 k3 k4 sx1 sy1", _angular, True),
    "RAD_TAN_THIN_PRISM_FISHEYE": _model(
        "fx,fy k1 k2 k3 k4 k5 k6 p1 p2 sx1 sx2 sy1 sy2", _angular, True, after=True
    ),
    "FOV": _model("fx,fy omega", _fov),
    "SIMPLE_DIVISION": _model("f k", _division),
    "DIVISION": _model("fx,fy k", _division),
    "EUCM": _model("fx,fy alpha beta", _eucm),
}
"""Lens models by name."""


def radius_of_angle(
    model: LensModel, values: Values, t: Float[np.ndarray, " angles"]
) -> Float[np.ndarray, " angles"]:
    """Return the distance from the principal point of rays at angles, by the radial terms alone."""
    base = t if model.angular else np.tan(t)
    with np.errstate(all="ignore"):
        return base * model.factor(values, base)


def bent(
    model: LensModel, values: Values, rays: Float[np.ndarray, "*batch 2"]
) -> Float[np.ndarray, "*batch 2"]:
    """Return the distorted points of rays on the angle plane; NaN where the model has none."""
    t = np.linalg.norm(rays, axis=-1)
    base = rays
    if not model.angular:
        base = rays * np.where(t > 1e-12, np.tan(t) / np.maximum(t, 1e-12), 1.0)[..., None]
    with np.errstate(all="ignore"):
        radial = base * model.factor(values, np.linalg.norm(base, axis=-1))[..., None]
        return radial + _decentring(values, radial if model.after else base)


def _decentring(p: Values, xy: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 2"]:
    """Return the tangential and thin prism displacement."""
    if not any(p.get(name) for name in ("p1", "p2", "sx1", "sx2", "sy1", "sy2")):
        return np.zeros_like(xy)
    x, y = xy[..., 0], xy[..., 1]
    q = x * x + y * y
    # The decentring of Aria's model (RAD_TAN_THIN_PRISM_FISHEYE) has x and y in OpenCV's order
    # too once its p1 and p2 are exchanged, see `Lens`.
    p1, p2 = p.get("p1", 0), p.get("p2", 0)
    dx = 2 * p1 * x * y + p2 * (q + 2 * x * x) + q * (p.get("sx1", 0) + q * p.get("sx2", 0))
    dy = 2 * p2 * x * y + p1 * (q + 2 * y * y) + q * (p.get("sy1", 0) + q * p.get("sy2", 0))
    return np.stack([dx, dy], axis=-1)
