"""Cameras with a distorted lens: between pixels of their images and rays.

Pixel centres are at +0.5, as everywhere; a calibration by OpenCV has them at 0, so that half a
pixel is added to its principal point. Normalised points are x/z, y/z of a ray, as of a pinhole
camera of focal length 1. `lens_models` has the formulas, `undistortion` the images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64

from msdyn.errors import InputError
from msdyn.geometry.lens_models import LENS_MODELS, bent, radius_of_angle
from msdyn.reading import check_image_size

__all__ = ["NEGLIGIBLE_PX", "Lens"]

NEGLIGIBLE_PX = 0.1
"""Largest displacement of pixels by a lens for images to count as undistorted."""
_WIDEST = np.radians(89.5)
"""Rays that are farther from the optical axis have no place in a pinhole image."""
_ANGLES = 4096
_STEPS = 12
_LONGEST_STEP = 0.3
"""Of Newton's method, radians."""
_CONVERGED = 1e-10
"""Distance of a distorted point from the one that is wanted, at focal length 1."""
_BEYOND = 1.1
"""Of the largest radius of the radial terms: beyond it no tangential terms reach."""
_LEAST_INVERTIBLE = 0.5
_LARGEST = 1e6
_POLYNOMIAL = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
"""Models that are pinhole cameras where all coefficients are zero."""


@dataclass(frozen=True)
class Lens:
    """A lens of known distortion, and the size of its images.

    Attributes:
        model: a name of `LENS_MODELS`, as COLMAP's.
        params: in COLMAP's order: focal lengths and principal point in px, then the distortion.
        width, height: of the images, px.
        skew: px in x for a distorted point at y = 1 (DyCheck's cameras).
    """

    model: str
    params: tuple[float, ...]
    width: int
    height: int
    skew: float = 0.0

    def __post_init__(self) -> None:
        if self.model not in LENS_MODELS:
            raise InputError(
                f"lens: expected one of the models {', '.join(LENS_MODELS)}, got {self.model!r}"
            )
        names = LENS_MODELS[self.model].names
        if len(self.params) != len(names):
            raise InputError(
                f"lens: {self.model}: expected {len(names)} parameters ({' '.join(names)}), got "
                f"{len(self.params)}"
            )
        object.__setattr__(self, "params", tuple(float(value) for value in self.params))
        check_image_size(self.width, self.height, "lens: size")
        values = np.array([*self.params, self.skew])
        if not np.isfinite(values).all() or np.abs(values).max() > _LARGEST:
            raise InputError(f"lens: {self.model}: expected finite numbers, got {self.params}")
        fx, fy, cx, cy = self.pinhole
        if min(fx, fy) <= 0:
            raise InputError(f"lens: expected a focal length > 0, got {fx:g} {fy:g}")
        if not (0 < cx < self.width and 0 < cy < self.height):
            raise InputError(
                f"lens: expected a principal point within {self.width}x{self.height} px, got "
                f"{cx:g} {cy:g}"
            )

    @cached_property
    def _values(self) -> dict[str, float]:
        values = dict(zip(LENS_MODELS[self.model].names, self.params, strict=True))
        if LENS_MODELS[self.model].after:  # Aria's tangential terms have the other order
            values |= {"p1": values["p2"], "p2": values["p1"]}
        return values

    @property
    def pinhole(self) -> tuple[float, float, float, float]:
        """fx fy cx cy, px: the camera without its distortion."""
        values = self._values
        fx = values.get("fx", values.get("f", 0.0))
        return fx, values.get("fy", fx), values["cx"], values["cy"]

    def resized(self, width: int, height: int) -> Lens:
        """Return the same lens for images resampled to another size.

        Models with one focal length keep it where the aspect ratio is kept, to within rounding.
        """
        if (width, height) == (self.width, self.height):
            return self
        x, y = width / self.width, height / self.height
        factors = {"f": (x + y) / 2, "fx": x, "cx": x, "fy": y, "cy": y}
        names = LENS_MODELS[self.model].names
        params = tuple(
            value * factors.get(name, 1.0) for name, value in zip(names, self.params, strict=True)
        )
        return replace(self, params=params, width=width, height=height, skew=self.skew * x)

    def pixels(self, points: Float[np.ndarray, "*batch 2"]) -> Float64[np.ndarray, "*batch 2"]:
        """Return the pixels of normalised points [..., 2], NaN beyond what the lens images."""
        shape = np.shape(points)
        points = np.asarray(points, np.float64).reshape(-1, 2)
        r = np.linalg.norm(points, axis=-1)
        t = np.arctan(r)
        rays = points * np.where(r > 1e-12, t / np.maximum(r, 1e-12), 1.0)[..., None]
        xy = self._to_pixels(bent(LENS_MODELS[self.model], self._values, rays))
        return np.where((t < self.widest)[..., None], xy, np.nan).reshape(shape)

    def normalised(
        self, xy: Float[np.ndarray, "*batch 2"]
    ) -> tuple[Float64[np.ndarray, "*batch 2"], Bool[np.ndarray, "*batch"]]:
        """Return the normalised points of pixels, and which are valid; the others are NaN.

        By Newton's method on the angle plane, from the inverse of the radial terms. A pixel is
        valid if it converges to a ray on the near side of the fold of the lens and within 89.5
        degrees of the optical axis.
        """
        fx, fy, cx, cy = self.pinhole
        xy = np.asarray(xy, np.float64)
        shape = xy.shape
        wanted = np.empty((xy.size // 2, 2))
        wanted[:, 1] = (xy.reshape(-1, 2)[:, 1] - cy) / fy
        wanted[:, 0] = (xy.reshape(-1, 2)[:, 0] - cx - self.skew * wanted[:, 1]) / fx
        radius = np.linalg.norm(wanted, axis=1)
        angles, radii = self._profile
        start = np.interp(radius, radii, angles)
        rays = wanted * np.where(radius > 1e-12, start / np.maximum(radius, 1e-12), 1.0)[:, None]
        valid = np.zeros(len(rays), bool)
        left = np.flatnonzero(radius < _BEYOND * radii[-1])  # false for NaN
        for _ in range(_STEPS):
            if not len(left):
                break
            error, determinant, change = self._newton(rays[left], wanted[left])
            done = error < _CONVERGED * (1 + radius[left])
            valid[left[done]] = determinant[done] > 0
            rays[left[~done]] -= change[~done]
            left = left[~done]
        t = np.linalg.norm(rays, axis=1)
        valid &= t < self.widest
        with np.errstate(all="ignore"):
            points = rays * np.where(t > 1e-12, np.tan(t) / np.maximum(t, 1e-12), 1.0)[:, None]
        points = np.where(valid[:, None], points, np.nan)
        return points.reshape(shape), valid.reshape(shape[:-1])

    def _newton(
        self, rays: Float64[np.ndarray, "rays 2"], wanted: Float64[np.ndarray, "rays 2"]
    ) -> tuple[
        Float64[np.ndarray, " rays"], Float64[np.ndarray, " rays"], Float64[np.ndarray, "rays 2"]
    ]:
        """Return the error of rays, the determinant of the Jacobian and Newton's step."""
        model, values, side = LENS_MODELS[self.model], self._values, 1e-6
        residual = bent(model, values, rays) - wanted
        (a, c), (b, d) = (
            ((bent(model, values, rays + h) - bent(model, values, rays - h)) / (2 * side)).T
            for h in (np.array([side, 0.0]), np.array([0.0, side]))
        )
        determinant = a * d - b * c
        with np.errstate(all="ignore"):
            by_x = (d * residual[:, 0] - b * residual[:, 1]) / determinant
            by_y = (a * residual[:, 1] - c * residual[:, 0]) / determinant
        change = np.stack([by_x, by_y], axis=1)
        length = np.linalg.norm(change, axis=1, keepdims=True)
        change *= np.minimum(1.0, _LONGEST_STEP / np.maximum(length, 1e-12))
        change = np.where(np.isfinite(change), change, 0)
        return np.linalg.norm(residual, axis=1), determinant, change

    @property
    def widest(self) -> float:
        """The angle from the optical axis, radians, up to which the radial terms are invertible."""
        return float(self._profile[0][-1])

    @cached_property
    def displacement(self) -> float:
        """How far the distortion moves pixels within the image, px: the largest over a grid.

        Raises:
            InputError: the distortion cannot be inverted on half of the image.
        """
        if self._is_pinhole:
            return 0.0
        grid = self._grid()
        points, valid = self.normalised(grid)
        if valid.mean() < _LEAST_INVERTIBLE:
            raise InputError(
                f"lens: {self.model}: its distortion can be inverted on {valid.mean():.0%} of the "
                f"image ({self.width}x{self.height}) only; check the parameters {self.params}"
            )
        fx, fy, cx, cy = self.pinhole
        straight = points[valid] * [fx, fy] + [cx, cy]
        return float(np.abs(straight - grid[valid]).max()) if valid.all() else np.inf

    @property
    def _is_pinhole(self) -> bool:
        """Whether all coefficients are zero, of a model that is then a pinhole camera."""
        if self.model not in _POLYNOMIAL:
            return False
        count = len(self.params) - (3 if LENS_MODELS[self.model].names[0] == "f" else 4)
        return not self.skew and not any(self.params[len(self.params) - count :])

    def _grid(self) -> Float64[np.ndarray, "points 2"]:
        """Return pixels on a grid that contains the border of the image."""
        x, y = np.meshgrid(np.linspace(0, self.width, 17), np.linspace(0, self.height, 17))
        return np.stack([x.ravel(), y.ravel()], axis=1)

    def _to_pixels(self, bent_points: Float[np.ndarray, "*batch 2"]) -> np.ndarray:
        fx, fy, cx, cy = self.pinhole
        x, y = bent_points[..., 0], bent_points[..., 1]
        return np.stack([fx * x + self.skew * y + cx, fy * y + cy], axis=-1)

    @cached_property
    def _profile(self) -> tuple[np.ndarray, np.ndarray]:
        """Return angles and the radii that the radial terms give them, while these increase."""
        angles = np.linspace(0, _WIDEST, _ANGLES)
        radii = radius_of_angle(LENS_MODELS[self.model], self._values, angles)
        rising = np.diff(radii) > 0  # False for NaN
        count = len(angles) if rising.all() else int(rising.argmin()) + 1
        if count < 2:
            raise InputError(
                f"lens: {self.model}: its distortion cannot be inverted; check the parameters "
                f"{self.params}"
            )
        return angles[:count], radii[:count]
