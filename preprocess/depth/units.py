"""The unit of depth files beside cameras: a scale, or inverse depth, told by static tracks.

Static tracks, triangulated with the cameras, have a depth in the units of the cameras at every
pixel that observes them. Where its ratio to the stored values is the same everywhere, that is the
scale of these; where its product with them is, they are inverse depth (disparity).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from msdyn.geometry import Cameras, nearest_pixels, transform_points
from msdyn.preprocess.multiview.triangulation import triangulate_tracks
from msdyn.scene import Tracks

__all__ = ["DepthUnit", "find_unit"]

FRAMES = 12  # whose depth is compared
MIN_POINTS = 40
# Spread of the logarithm of ratios, up to which one scale explains the depth, and by which one
# meaning must be better than the other.
MAX_SPREAD, LESS_SPREAD = 0.25, 2.0
AS_IS = 1.25  # ratios below need no conversion; fits adjust the scale of each frame
NEAR_UNIT = 1.15  # ratio to a unit that is then taken exactly
_UNITS = {
    0.001: "millimetres beside cameras in metres",
    0.01: "centimetres beside cameras in metres",
    1000.0: "metres beside cameras in millimetres",
    100.0: "metres beside cameras in centimetres",
}


@dataclass(frozen=True)
class DepthUnit:
    """How stored values become depth in units of the cameras.

    Attributes:
        scale: of the values, or of one over them.
        inverse: they are inverse depth.
        text: in words, "" where nothing is converted.
    """

    scale: float = 1.0
    inverse: bool = False
    text: str = ""

    def depth(
        self, stored: Float32[np.ndarray, "height width"]
    ) -> Float32[np.ndarray, "height width"]:
        """Return depth of stored values, 0 where these are."""
        if not self.inverse:
            return stored * np.float32(self.scale)
        known = stored > 0
        return np.where(known, self.scale / np.where(known, stored, 1), 0).astype(np.float32)


def find_unit(
    tracks: Tracks,
    cameras: Cameras,
    stored: Callable[[int], Float32[np.ndarray, "file_height file_width"]],
) -> DepthUnit | None:
    """Return the unit of stored depth, None where the tracks do not tell.

    Args:
        tracks: static tracks.
        cameras: one per frame.
        stored: returns the stored values of a frame, of any size of the same shape.
    """
    points, _ = triangulate_tracks(tracks, cameras)
    if len(points.xyz) < MIN_POINTS:
        return None
    pose = cameras.cam_from_world[points.frame]
    z = transform_points(pose, points.xyz[points.point][:, None])[:, 0, 2]
    measured, values, number = [], [], []
    for frame in np.unique(np.linspace(0, len(cameras) - 1, FRAMES).astype(int)).tolist():
        here = points.frame == frame
        depth = stored(frame)
        size = np.array(depth.shape[::-1]) / (cameras.width, cameras.height)
        row, column, _ = nearest_pixels((points.xy[here] * size).astype(np.float32), *depth.shape)
        value = depth[row, column].astype(np.float64)
        used = (value > 0) & (z[here] > 0)
        measured.append(z[here][used])
        values.append(value[used])
        number.append(points.point[here][used])
    if len(np.unique(np.concatenate(number))) < MIN_POINTS:
        return None
    return _unit(np.log(np.concatenate(measured)), np.log(np.concatenate(values)))


def _unit(measured: Float[np.ndarray, " n"], stored: Float[np.ndarray, " n"]) -> DepthUnit | None:
    """Return the unit of stored values, from the logarithms of depth and of these."""
    scale, spread = _middle(measured - stored)
    inverse, inverse_spread = _middle(measured + stored)
    if spread > LESS_SPREAD * inverse_spread and inverse_spread < MAX_SPREAD:
        text = f"inverse depth (disparity), converted: depth = {inverse:.4g} / value"
        return DepthUnit(inverse, True, text)
    if spread > MAX_SPREAD:
        return None
    if 1 / AS_IS < scale < AS_IS:
        return DepthUnit()
    for unit, text in _UNITS.items():
        if 1 / NEAR_UNIT < scale / unit < NEAR_UNIT:
            return DepthUnit(unit, False, f"{text}, converted: multiplied by {unit:g}")
    return DepthUnit(
        scale, False, f"of another scale than the cameras, converted: multiplied by {scale:.4g}"
    )


def _middle(logarithms: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Return the median of positive numbers, and the robust standard deviation of logarithms."""
    middle = float(np.median(logarithms))
    return float(np.exp(middle)), 1.4826 * float(np.median(np.abs(logarithms - middle)))
