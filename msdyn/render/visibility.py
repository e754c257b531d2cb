"""Whether points are visible: a comparison of their depth with the depth rendered there."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Real

__all__ = ["ON_SURFACE", "is_on_surface"]

ON_SURFACE = 0.05
"""Maximum distance of a visible point from the rendered depth: 5 cm in a metric world, as in
shape-of-motion's evaluation; in one of arbitrary units, this share of the rendered depth."""


def is_on_surface(
    depth: Float[np.ndarray, "*points"],
    rendered: Real[np.ndarray, "*points"],
    *,
    metric: bool,
    scale: float = 1.0,
) -> Bool[np.ndarray, "*points"]:
    """Return which points lie on the surface rendered at their pixels.

    Args:
        depth: z-depth of the points, scene units.
        rendered: z-depth rendered there; NaN where nothing is, which makes the point invisible.
        metric: whether the world is in metres, up to `scale`.
        scale: scene units per metre.
    """
    tolerance = ON_SURFACE * (np.full_like(depth, scale) if metric else rendered)
    return np.abs(rendered - depth) < tolerance
