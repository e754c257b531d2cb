"""Gaussians of an OpenUSD stage at a time, read and moved by OpenUSD itself (pxr)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from gaussian_colours import rotated
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from splats import Splats

_OPENCV_FROM_USD = np.diag([1.0, -1.0, -1.0])


class UsdFile:
    """An open stage; `at(time)` are its splats, `camera(time)` is its camera."""

    def __init__(self, path: Path) -> None:
        from pxr import Usd

        self.stage = Usd.Stage.Open(str(path))

    def code(self, time: float) -> Any:
        """Return the time code of a normalised time of the clip."""
        from pxr import Usd

        duration = self.stage.GetRootLayer().customLayerData["duration"]
        return Usd.TimeCode(time * duration * self.stage.GetTimeCodesPerSecond())

    def at(self, time: float) -> Splats:
        """Return the splats at a normalised time, in the world of the input cameras."""
        from pxr import UsdGeom, UsdVol

        code = self.code(time)
        cache = UsdGeom.XformCache(code)
        pieces = []
        for prim in self.stage.Traverse():
            if not prim.IsA(UsdVol.ParticleField3DGaussianSplat):
                continue
            # Row vectors: points are multiplied from the left.
            matrix = np.array(cache.GetLocalToWorldTransform(prim)).T
            splats = UsdVol.ParticleField3DGaussianSplat(prim)
            degree = splats.GetRadianceSphericalHarmonicsDegreeAttr().Get()
            means = np.array(splats.GetPositionsAttr().Get(code), np.float64).reshape(-1, 3)
            harmonics = np.array(
                splats.GetRadianceSphericalHarmonicsCoefficientsAttr().Get(code), np.float64
            ).reshape(len(means), (degree + 1) ** 2, 3)
            rotation = _OPENCV_FROM_USD @ matrix[:3, :3]
            # As arrays, quaternions of OpenUSD are xyzw.
            own = Rotation.from_quat(np.array(splats.GetOrientationsAttr().Get(code)))
            turned = Rotation.from_matrix(rotation) * own
            pieces.append(
                Splats(
                    (means @ matrix[:3, :3].T + matrix[:3, 3]) @ _OPENCV_FROM_USD,
                    np.roll(turned.as_quat(), 1, axis=1),
                    np.array(splats.GetScalesAttr().Get(code), np.float64),
                    np.array(splats.GetOpacitiesAttr().Get(code), np.float64),
                    rotated(harmonics, rotation),
                )
            )
        names = ("means", "quats_wxyz", "scales", "opacities", "harmonics")
        return Splats(
            *(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names)
        )

    def camera(
        self, time: float, width: int, height: int
    ) -> tuple[Float[np.ndarray, "4 4"], Float[np.ndarray, "3 3"]]:
        """Return world_from_cam (OpenCV's axes, world of the input) and the intrinsics in px."""
        from pxr import UsdGeom

        prim = next(p for p in self.stage.Traverse() if p.IsA(UsdGeom.Camera))
        camera = UsdGeom.Camera(prim).GetCamera(self.code(time))
        flip = np.diag([1.0, -1.0, -1.0, 1.0])
        world_from_cam = flip @ np.array(camera.transform).T @ flip
        window = camera.frustum.window  # at distance 1, y up
        (left, bottom), (right, top) = window.GetMin(), window.GetMax()
        fx, fy = width / (right - left), height / (top - bottom)
        return world_from_cam, np.array([[fx, 0, -left * fx], [0, fy, top * fy], [0, 0, 1]])


@lru_cache(maxsize=1)
def _opened(path: Path) -> UsdFile:
    return UsdFile(path)


def splats_at(path: Path, time: float) -> Splats:
    """Return the splats of a stage at a normalised time."""
    return _opened(path).at(time)
