"""The first Gaussians at points: their size by the distance to the next ones, their shape."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import KDTree

from msdyn.fit.surface import discs
from msdyn.geometry import quats_wxyz_from_rotations
from msdyn.sequence import Gaussians

__all__ = ["gaussians_at", "spacing_of"]


def spacing_of(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, " points"]:
    """Return the mean distance of each point to its three nearest neighbours."""
    if len(points) < 2:
        return np.full(len(points), 0.01)
    count = min(4, len(points))
    spacing = KDTree(points).query(points, k=count)[0][:, 1:].mean(1)
    return spacing.clip(1e-5, 3 * np.median(spacing) + 1e-5)


def gaussians_at(
    points: Float[np.ndarray, "points 3"],
    colours: Float[np.ndarray, "points 3"],
    spacing: Float[np.ndarray, " points"],
    degree: int,
    tangents: Float[np.ndarray, "points 3 2"] | None = None,
) -> Gaussians:
    """Make Gaussians of 0.7 times the distance to their neighbours: spheres, or discs."""
    gaussians = Gaussians.from_points(
        torch.from_numpy(points).float(),
        torch.from_numpy(colours).float(),
        torch.from_numpy(0.7 * spacing).float(),
        opacity=0.6,
        degree=degree,
    )
    if tangents is not None and len(points):
        shapes = discs(tangents)
        with torch.no_grad():
            rotations = torch.from_numpy(shapes.rotations).float()
            gaussians.quats_wxyz.copy_(quats_wxyz_from_rotations(rotations))
            gaussians.log_scales.add_(torch.from_numpy(shapes.scales).float().log())
    return gaussians
