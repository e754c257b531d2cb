"""Intrinsics that are known before cameras are solved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["KnownIntrinsics"]


@dataclass(frozen=True)
class KnownIntrinsics:
    """Intrinsics that are known before cameras are solved.

    Attributes:
        fx, fy, cx, cy: px of the scene.
        fixed: they are kept; otherwise the focal length is a start.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    fixed: bool

    @property
    def focal(self) -> float:
        """px, the mean focal length."""
        return (self.fx * self.fy) ** 0.5

    @property
    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """Of fixed intrinsics; of a start with the mean focal length."""
        fx, fy = (self.fx, self.fy) if self.fixed else (self.focal, self.focal)
        return np.array([[fx, 0, self.cx], [0, fy, self.cy], [0, 0, 1]])
