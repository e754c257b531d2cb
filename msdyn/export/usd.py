"""`usdc`: an OpenUSD stage of Gaussians (ParticleField3DGaussianSplat) with time samples.

Reference: OpenUSD 26.03 and later, schemas of `usdVol`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Real
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError, MissingExtraError, ResourceError
from msdyn.export.gaussians import rotated_harmonics
from msdyn.export.splat_parts import Splats, splat_parts
from msdyn.geometry import SH_C0, Cameras, Rigid, multiply_quats_wxyz
from msdyn.progress import track, write_line
from msdyn.sequence import GaussianSequence, PartSelection, object_poses
from msdyn.version import __version__
from msdyn.writing import atomic_path

__all__ = ["export_usd"]

_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0])
_APERTURE = 20.955
"""Width of the image in a camera, in tenths of a scene unit; only ratios to it have a meaning."""
_CHANGE = 1e-7
"""Smallest change that is worth time samples."""


def export_usd(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
    *,
    tolerance_px: float = 0.5,
    baked: bool = False,
) -> list[Path]:
    """Write a stage with static Gaussians, an Xform per object, its rigid parts and the camera.

    Time codes are frames of the clip. Poses of objects and parts, opacities that change, and what
    is baked have time samples, between which USD interpolates.

    Args:
        sequence: the fit.
        out: file name, `.usdc`, or `.usda` for text.
        times: normalised, increasing.
        what: the part of the sequence to export; everything by default.
        tolerance_px: error in pixels up to which Gaussians are one rigid part.
        baked: store positions, orientations and colours of what bends more at each time, instead
            of moving it with its finest part.

    Raises:
        MissingExtraError: OpenUSD is not installed, or has no schema for Gaussians.
        InputError: times that do not increase, or no Gaussians.
    """
    usd = _Usd.load()
    if (np.diff(times) <= 0).any():
        raise InputError("usdc: expected increasing times, as --times 0:1:60")
    what = what or PartSelection()
    parts = splat_parts(sequence, times, what, tolerance_px=tolerance_px, baked=baked)
    if not (len(parts.static) or parts.parts or parts.baked):
        raise InputError("usdc: expected Gaussians that are visible at these times, got none")
    write_line(f"usdc: {parts.summary}")
    timeline = sequence.timeline
    duration = float(timeline.seconds[-1] - timeline.seconds[0])
    frames = timeline.frame_positions(times)
    stage = _Stage(usd, np.asarray(times, float) * duration * timeline.fps)
    stage.describe(
        timeline.fps,
        {
            "msdyn": __version__,
            "axes": "below /World: the world of the input cameras, OpenCV's axes (x right, y down, "
            "z forward)",
            "world_units": sequence.world_units,
            "colours": "display-referred sRGB (BT.709 primaries), harmonics too",
            "duration": duration,
            "tolerance_px": tolerance_px,
            "error_px": parts.error_px,
        },
        metric=sequence.world_units == "metric",
    )
    if len(parts.static):
        stage.add_splats("/World/Static", [parts.static])
    poses = object_poses(sequence, frames, levels=what.num_levels(sequence))
    world_from_object = {label: Rigid.from_matrix(pose) for label, pose in poses.items()}
    for label in sorted({part.label for part, _ in parts.parts} | set(parts.baked)):
        stage.add_xform(f"/World/Object_{label}", world_from_object[label])
    for number, (part, splats) in enumerate(parts.parts):
        path = f"/World/Object_{part.label}/Part_{number}"
        world_from_part = Rigid.from_matrix(part.world_from_part)
        splats_prim = stage.add_splats(path, [splats])
        stage.set_pose(splats_prim, world_from_object[part.label].inverse() @ world_from_part)
    for label, rows in parts.baked.items():
        object_from_world = world_from_object[label].inverse()
        own = [
            _transformed(splats, object_from_world[row])
            for row, splats in enumerate(track(rows, "export usdc", unit="time"))
        ]
        stage.add_splats(f"/World/Object_{label}/Bent", own)
    stage.add_camera("/World/Camera", sequence.cameras.interpolated(frames))
    with atomic_path(out) as temporary:
        stage.write(temporary)
    return [out]


def _transformed(splats: Splats, to: Rigid[np.ndarray]) -> Splats:
    """Return Gaussians in other axes, colours included."""
    quat = np.roll(Rotation.from_matrix(to.rotation).as_quat(), 1).astype(np.float32)
    turned = multiply_quats_wxyz(torch.from_numpy(quat), torch.from_numpy(splats.quats_wxyz))
    rotation = torch.from_numpy(to.rotation.astype(np.float32)).expand(len(splats), 3, 3)
    return replace(
        splats,
        means=to.apply(splats.means.astype(np.float64)).astype(np.float32),
        quats_wxyz=turned.numpy(),
        harmonics=rotated_harmonics(torch.from_numpy(splats.harmonics), rotation).numpy(),
    )


@dataclass(frozen=True)
class _Usd:
    """The modules of OpenUSD."""

    Gf: Any
    Usd: Any
    UsdGeom: Any
    UsdVol: Any
    Vt: Any

    @classmethod
    def load(cls) -> _Usd:
        try:
            modules = [import_module(f"pxr.{name}") for name in cls.__dataclass_fields__]
        except ImportError as error:
            raise MissingExtraError('OpenUSD is not installed: pip install "msdyn[usd]"') from error
        usd = cls(*modules)
        if not hasattr(usd.UsdVol, "ParticleField3DGaussianSplat"):
            raise MissingExtraError(
                "OpenUSD: expected 26.3 or later, which knows Gaussians, got "
                f'{".".join(map(str, usd.Usd.GetVersion()))}: pip install "msdyn[usd]"'
            )
        return usd


class _Stage:
    """A stage in memory, with time samples at given time codes."""

    def __init__(self, usd: _Usd, codes: Float[np.ndarray, " times"]) -> None:
        self.usd = usd
        self.codes = codes.tolist()
        self.stage = usd.Usd.Stage.CreateInMemory()

    def describe(self, fps: float, data: dict[str, Any], *, metric: bool) -> None:
        """Set what is said of the whole stage, and make the root prim.

        USD's y points up, OpenCV's down: the root is rotated by half a turn about x.
        """
        usd, stage = self.usd, self.stage
        usd.UsdGeom.SetStageUpAxis(stage, usd.UsdGeom.Tokens.y)
        usd.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        if not metric:
            data = data | {"metersPerUnit": "not known: the scale of the world is arbitrary"}
        stage.SetTimeCodesPerSecond(fps)
        stage.SetFramesPerSecond(fps)
        stage.SetStartTimeCode(self.codes[0])
        stage.SetEndTimeCode(self.codes[-1])
        root = usd.UsdGeom.Xform.Define(stage, "/World")
        root.AddOrientOp().Set(usd.Gf.Quatf(0.0, 1.0, 0.0, 0.0))
        stage.SetDefaultPrim(root.GetPrim())
        colours = usd.Usd.ColorSpaceAPI.Apply(root.GetPrim())
        colours.CreateColorSpaceNameAttr().Set(usd.Gf.ColorSpaceNames.SRGBRec709)
        stage.GetRootLayer().customLayerData = data

    def add_xform(self, path: str, pose: Rigid[np.ndarray]) -> None:
        """Add an Xform with a pose at each time."""
        self.set_pose(self.usd.UsdGeom.Xform.Define(self.stage, path), pose)

    def set_pose(self, prim: Any, pose: Rigid[np.ndarray]) -> None:
        """Set the pose of a prim at each time, once if it does not change."""
        quats = Rotation.from_matrix(pose.rotation).as_quat().reshape(-1, 4)
        turns = np.where((quats[1:] * quats[:-1]).sum(1) < 0, -1.0, 1.0)
        quats[1:] *= np.cumprod(turns)[:, None]
        Gf = self.usd.Gf
        translations = [Gf.Vec3d(*row.tolist()) for row in pose.translation]
        self._set(prim.AddTranslateOp(), translations, pose.translation)
        orientations = [Gf.Quatf(float(q[3]), *map(float, q[:3])) for q in quats]
        self._set(prim.AddOrientOp(), orientations, quats)

    def add_splats(self, path: str, rows: list[Splats]) -> Any:
        """Add Gaussians, one set for all times or one per time; return their prim."""
        usd, first = self.usd, rows[0]
        prim = usd.UsdVol.ParticleField3DGaussianSplat.Define(self.stage, path)
        Vt, degree = usd.Vt, int(first.harmonics.shape[1] ** 0.5) - 1
        opacities = np.concatenate([row.opacities for row in rows])
        columns = {
            "Positions": (Vt.Vec3fArray, [row.means for row in rows]),
            "Orientations": (Vt.QuatfArray, [row.quats_wxyz[:, [1, 2, 3, 0]] for row in rows]),
            "Scales": (Vt.Vec3fArray, [first.scales]),
            "Opacities": (Vt.FloatArray, list(opacities.clip(0, 1))),
            "RadianceSphericalHarmonicsCoefficients": (
                Vt.Vec3fArray,
                [row.harmonics.reshape(-1, 3) for row in rows],
            ),
        }
        for name, (kind, values) in columns.items():
            arrays = np.stack(values).astype(np.float32)
            samples = [kind.FromNumpy(np.ascontiguousarray(array)) for array in arrays]
            self._set(getattr(prim, f"Create{name}Attr")(), samples, arrays)
        prim.CreateRadianceSphericalHarmonicsDegreeAttr().Set(degree)
        prim.CreateSortingModeHintAttr().Set("zDepth")
        prim.CreateProjectionModeHintAttr().Set("perspective")
        reach = 3 * first.scales.max(1, keepdims=True)
        extents = np.stack([[(r.means - reach).min(0), (r.means + reach).max(0)] for r in rows])
        extents = extents.astype(np.float32)
        boxes = [Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(extent)) for extent in extents]
        self._set(prim.CreateExtentAttr(), boxes, extents)
        colours = (first.harmonics[:, 0] * SH_C0 + 0.5).clip(0, 1).astype(np.float32)
        display = usd.UsdGeom.Gprim(prim).CreateDisplayColorPrimvar(usd.UsdGeom.Tokens.vertex)
        display.Set(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(colours)))
        return prim

    def add_camera(self, path: str, cameras: Cameras) -> None:
        """Add a camera with its principal point; USD's cameras look along -z, with y up."""
        prim = self.usd.UsdGeom.Camera.Define(self.stage, path)
        pose = Rigid.from_matrix(cameras.world_from_cam)
        self.set_pose(prim, Rigid(pose.rotation @ _OPENGL_FROM_OPENCV, pose.translation))
        k, width, height = cameras.intrinsics, cameras.width, cameras.height
        # One focal length for both directions: the aperture has the ratio of the pixels' sides.
        wide = np.full(len(k), _APERTURE)
        focal = k[:, 0, 0] / width * wide
        high = height / k[:, 1, 1] * focal
        values = {
            "FocalLength": focal,
            "HorizontalAperture": wide,
            "VerticalAperture": high,
            "HorizontalApertureOffset": (0.5 - k[:, 0, 2] / width) * wide,
            "VerticalApertureOffset": (k[:, 1, 2] / height - 0.5) * high,
        }
        for name, numbers in values.items():
            self._set(getattr(prim, f"Create{name}Attr")(), numbers.tolist(), numbers[:, None])
        prim.CreateClippingRangeAttr().Set(self.usd.Gf.Vec2f(0.01, 1e6))

    def write(self, path: Path) -> None:
        """Write the stage; the suffix says whether as text.

        Raises:
            ResourceError: OpenUSD could not write the file.
        """
        if not self.stage.GetRootLayer().Export(str(path)):
            raise ResourceError(f"{path}: OpenUSD could not write the file")

    def _set(
        self, attribute: Any, samples: list[Any], numbers: Float[np.ndarray, "times ..."]
    ) -> None:
        """Set an attribute: time samples if it changes, and its first value as a default."""
        attribute.Set(samples[0])
        if len(samples) > 1 and np.ptp(numbers, axis=0).max(initial=0) > _CHANGE:
            for code, sample in zip(self.codes, samples, strict=True):
                attribute.Set(sample, code)
