"""The world of a simulator: metres, z up, the floor at z = 0."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from jaxtyping import Float

from msdyn.geometry import Rigid, Similarity, ground_plane
from msdyn.sequence import GaussianSequence

__all__ = ["sim_from_world"]

_log = logging.getLogger(__name__)

_GROUND = 0.01
"""Half the thickness of the layer of the ground's points, relative to the cameras' distance."""


def sim_from_world(
    sequence: GaussianSequence,
    vertices: Float[np.ndarray, "vertices 3"],
    *,
    units_per_metre: float | None,
    up: str,
) -> tuple[Similarity, dict[str, Any]]:
    """Return the simulator's world: x to the right of the cameras, z up, the floor at z = 0.

    Args:
        sequence: the fit.
        vertices: of all objects, in the world; the floor is below them.
        units_per_metre: units of the world in a metre; None for 1, with a warning where the world
            is not metric.
        up: "auto" (the normal of the ground, else the cameras' mean), "camera", or three numbers, a
            direction of the world.

    Returns:
        `sim_from_world`, and what the manifest tells of the direction up and of the floor.
    """
    units = units_per_metre
    if units is None:
        units = 1.0
        if sequence.world_units != "metric":
            _log.warning(
                "the scale of the world is not known: one unit is written as one metre; "
                "--units-per-metre gives another"
            )
    upwards, height, source = _upwards(sequence, up)
    rotations = sequence.cameras.cam_from_world[:, :3, :3]
    right = rotations[:, 0].mean(0)
    right = right - upwards * (right @ upwards)
    if np.linalg.norm(right) < 1e-6:
        right = np.cross(upwards, np.eye(3)[np.abs(upwards).argmin()])
    right = right / np.linalg.norm(right)
    axes = np.stack([right, np.cross(upwards, right), upwards])
    turned = vertices @ axes.T
    lowest = float(turned[:, 2].min())
    floor = lowest if height is None else min(height, lowest)
    origin = np.r_[turned[:, :2].mean(0), floor]
    world = Similarity(1 / units, Rigid(axes, -origin / units))
    told = {
        "direction": upwards.tolist(),
        "from": source,
        "floor_from": "the ground" if height is not None and height <= lowest else "lowest point",
    }
    return world, told


def _upwards(
    sequence: GaussianSequence, text: str
) -> tuple[Float[np.ndarray, " 3"], float | None, str]:
    """Return the direction up, the height of the ground along it (None if not found), and how."""
    cameras = sequence.cameras
    up = -cameras.cam_from_world[:, 1, :3].mean(0)
    up = up / max(float(np.linalg.norm(up)), 1e-12)
    if text not in ("auto", "camera"):
        given = np.array([float(value) for value in text.split(",")])
        return given / np.linalg.norm(given), None, "given"
    if text == "auto":
        opaque = sequence.static.opacities > 0.3
        points = sequence.static.means[opaque].detach().double().cpu().numpy()
        distance = float(np.median(np.linalg.norm(points - cameras.centres[0], axis=1))
                         ) if len(points) else 0.0  # fmt: skip
        plane = ground_plane(points, up, _GROUND * distance)
        if plane is not None:
            return plane[0], plane[1], "ground plane"
    return up, None, "cameras"
