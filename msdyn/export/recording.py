"""`rrd`: a recording for rerun's viewer, on the clip's own timeline."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real, UInt8
from torch import Tensor

from msdyn.errors import MissingExtraError
from msdyn.geometry import (
    SH_C0,
    invert_transforms,
    multiply_quats_wxyz,
    quats_wxyz_from_rotations,
)
from msdyn.progress import track
from msdyn.render import grid_points, point_tracks, render_image
from msdyn.sequence import (
    GaussianSequence,
    PartSelection,
    PosedGaussians,
    RigidPart,
    object_poses,
    rigid_parts,
)
from msdyn.writing import atomic_path

__all__ = ["export_rrd"]

_OPAQUE = 0.3
"""Minimum opacity of a Gaussian that is exported as a point."""
_RADIUS = 0.7
"""Radius of a point in the viewer, relative to the mean standard deviation of its Gaussian."""
_COEFFICIENTS = 15
"""Harmonics above degree 0 that a splat of rerun has; those of lower degrees are zero-padded."""
_FEWEST = 16
"""Fewest Gaussians of a rigid part of an object that bends elsewhere."""
_TRACKS = 300


@torch.no_grad()
def export_rrd(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
    *,
    tolerance_px: float = 0.5,
) -> list[Path]:
    """Write a recording: Gaussians as splats, cameras with renders and depth, poses, tracks.

    Entities are `world/static`; `world/object_<k>` with the object's 6-DoF pose; in it `part_<n>`,
    rigid parts within the tolerance, whose splats are logged once and moved by the part's pose in
    the object, and `splats`, the others, in the object's frame at every time; `world/paths`,
    `world/tracks`, and `world/camera` with `rgb` and `depth`. The timeline is `clip`, in seconds.
    Versions of rerun without splats get points.

    Args:
        sequence: the fit.
        out: file name, `.rrd`.
        times: normalised.
        what: the part of the sequence to export; everything by default.
        tolerance_px: in pixels of the clip's cameras, up to which a part counts as rigid.

    Raises:
        MissingExtraError: rerun is not installed; the message names the extra.
    """
    try:
        rr: Any = import_module("rerun")
    except ImportError as error:
        raise MissingExtraError('rerun is not installed: pip install "msdyn[rerun]"') from error
    what = what or PartSelection()
    levels, labels = what.num_levels(sequence), what.labels(sequence)
    duration = float(sequence.timeline.seconds[-1] - sequence.timeline.seconds[0])
    frames = sequence.timeline.frame_positions(times)
    cameras = sequence.cameras.interpolated(frames)
    poses = object_poses(sequence, frames, levels=levels)
    poses = {k: pose for k, pose in poses.items() if labels is None or k in labels}
    with atomic_path(out) as temporary:
        recording = rr.RecordingStream("msdyn")
        recording.save(str(temporary))
        recording.log("world", rr.ViewCoordinates.RDF, static=True)
        splats = _Splats(rr, recording, sequence, what, poses)
        splats.log_once(frames, tolerance_px)
        for row, time in enumerate(track(times, "export rrd", unit="time")):
            recording.set_time("clip", duration=float(time) * duration)
            for label, pose in poses.items():
                recording.log(f"world/object_{label}", _transform(rr, pose[row]))
            splats.log_at(row, sequence.at(float(time), levels=levels))
            camera = cameras[row]
            image = render_image(sequence, camera, float(time), levels=levels, objects=labels,
                                 background=what.background == "on")  # fmt: skip
            recording.log(
                "world/camera",
                _transform(rr, camera.world_from_cam[0]),
                rr.Pinhole(
                    image_from_camera=camera.intrinsics[0],
                    resolution=[camera.width, camera.height],
                    camera_xyz=rr.ViewCoordinates.RDF,
                ),
            )
            recording.log("world/camera/rgb", rr.Image(image.rgb8).compress(jpeg_quality=90))
            recording.log("world/camera/depth", rr.DepthImage(image.depth, meter=1.0))
        for label, pose in poses.items():
            strip = rr.LineStrips3D([pose[:, :3, 3]], labels=[f"object {label}"])
            recording.log(f"world/paths/object_{label}", strip, static=True)
        _log_tracks(rr, recording, sequence, frames, times * duration, what)
        recording.flush()
        recording.disconnect()
    return [out]


def _transform(rr: Any, world_from_entity: Float[np.ndarray, "4 4"]) -> Any:
    return rr.Transform3D(translation=world_from_entity[:3, 3], mat3x3=world_from_entity[:3, :3])


@dataclass
class _Splats:
    """The Gaussians of a recording, as splats or, where rerun has none, as points."""

    rr: Any
    recording: Any
    sequence: GaussianSequence
    what: PartSelection
    poses: dict[int, Float[np.ndarray, "times 4 4"]]

    def __post_init__(self) -> None:
        self.has_splats = hasattr(self.rr, "GaussianSplats3D")
        self.parts: dict[int, list[RigidPart]] = {}
        """By label, the rigid parts whose splats are logged once."""
        self.rest: dict[int, Int[Tensor, " own"]] = {}
        """By label, the Gaussians that are in none of these."""

    def log_once(self, frames: Float[np.ndarray, " times"], tolerance_px: float) -> None:
        """Log what does not change in its own frame."""
        canonical = self.sequence.canonical()
        if self.what.background == "on" and len(self.sequence.static):
            if self.has_splats:
                self._log("world/static", canonical, canonical.labels == 0)
            else:
                points = _points(self.rr, canonical, canonical.labels == 0)
                self.recording.log("world/static", points, static=True)
        if not self.has_splats:
            return
        levels = self.what.num_levels(self.sequence)
        found = rigid_parts(
            self.sequence, frames, levels=levels, labels=[*self.poses], tolerance_px=tolerance_px
        )
        for label in self.poses:
            own = [part for part in found.parts if part.label == label]
            rigid = [part for part in own if part.error_px.max(initial=0.0) <= tolerance_px]
            if len(rigid) < len(own):
                rigid = [part for part in rigid if len(part.index) >= _FEWEST]
            self.parts[label] = rigid
            for number, part in enumerate(rigid):
                index = torch.from_numpy(part.index) + canonical.num_static
                entity = f"world/object_{label}/part_{number}"
                self._log(entity, canonical, index, origin=part.centre)
            left = (canonical.labels == label).cpu()
            for part in rigid:
                left[torch.from_numpy(part.index) + canonical.num_static] = False
            self.rest[label] = torch.nonzero(left)[:, 0]
            if len(self.rest[label]):
                self._log(f"world/object_{label}/splats", canonical, self.rest[label], moves=True)

    def log_at(self, row: int, posed: PosedGaussians) -> None:
        """Log the poses of parts, and what changes, at the current time."""
        if not self.has_splats:
            for label, pose in self.poses.items():
                points = _points(self.rr, posed, posed.labels == label, pose[row])
                self.recording.log(f"world/object_{label}/points", points)
            return
        static = self.sequence.static
        if static.life_spans is not None and self.what.background == "on" and len(static):
            self._log_colours("world/static", posed, posed.labels == 0)
        living = self.sequence.moving.life_spans is not None
        for label, pose in self.poses.items():
            rest = self.rest[label]
            if len(rest):
                entity = f"world/object_{label}/splats"
                means, quats = _in_frame(posed, rest, pose[row])
                changed = self.rr.GaussianSplats3D.from_fields(centers=means, quaternions=quats)
                self.recording.log(entity, changed)
                if living:
                    self._log_colours(entity, posed, rest)
            object_from_world = invert_transforms(pose[row])
            for number, part in enumerate(self.parts[label]):
                entity = f"world/object_{label}/part_{number}"
                object_from_part = object_from_world @ part.world_from_part[row]
                self.recording.log(entity, _transform(self.rr, object_from_part))
                if living:
                    index = torch.from_numpy(part.index) + posed.num_static
                    self._log_colours(entity, posed, index)

    def _log_colours(self, entity: str, posed: PosedGaussians, own: Tensor) -> None:
        colours = self.rr.GaussianSplats3D.from_fields(colors=_rgba(posed, own))
        self.recording.log(entity, colours)

    def _log(
        self,
        entity: str,
        posed: PosedGaussians,
        own: Tensor,
        *,
        origin: Float[np.ndarray, " 3"] | None = None,
        moves: bool = False,
    ) -> None:
        """Log once, for all times, what does not change of these splats.

        Colours are left out where Gaussians have life spans, positions and orientations where they
        move: rerun does not accept a value at a time beside one for all times.
        """
        own = own.cpu()
        group = self.sequence.static if entity == "world/static" else self.sequence.moving
        values: dict[str, Any] = {"scales": posed.scales.cpu()[own].numpy()}
        if not moves:
            frame = np.eye(4)
            frame[:3, 3] = 0.0 if origin is None else origin
            values["centers"], values["quaternions"] = _in_frame(posed, own, frame)
        if group.life_spans is None:
            values["colors"] = _rgba(posed, own)
        higher = posed.harmonics[:, 1:].cpu()[own].numpy()
        if higher.shape[1]:
            padding = ((0, 0), (0, _COEFFICIENTS - higher.shape[1]), (0, 0))
            values["sh_coefficients"] = np.pad(higher, padding)
        splats = self.rr.GaussianSplats3D.from_fields(**values)
        self.recording.log(entity, splats, static=True)


def _in_frame(
    posed: PosedGaussians,
    own: Bool[Tensor, " gaussians"] | Int[Tensor, " own"],
    world_from_frame: Float[np.ndarray, "4 4"],
) -> tuple[Float[np.ndarray, "own 3"], Float[np.ndarray, "own 4"]]:
    """Return positions and quaternions xyzw in a frame, of the first time."""
    own = own.cpu()
    rotation, translation = world_from_frame[:3, :3], world_from_frame[:3, 3]
    means = (posed.means[0].cpu()[own].double().numpy() - translation) @ rotation
    back = quats_wxyz_from_rotations(torch.from_numpy(rotation.T.copy()))
    quats = torch.nn.functional.normalize(posed.quats_wxyz[0].cpu()[own].double(), dim=-1)
    quats = multiply_quats_wxyz(back, quats).numpy()
    return means.astype(np.float32), quats[:, [1, 2, 3, 0]].astype(np.float32)


def _rgba(
    posed: PosedGaussians, own: Bool[Tensor, " gaussians"] | Int[Tensor, " own"]
) -> UInt8[np.ndarray, "own 4"]:
    """Return the colours of degree 0 and the opacities, of the first time, in bytes."""
    own = own.cpu()
    rgb = posed.harmonics[:, 0].cpu()[own] * SH_C0 + 0.5
    values = torch.cat([rgb, posed.opacities[0].cpu()[own, None]], 1)
    return (values.clamp(0, 1) * 255).round().byte().numpy()


def _log_tracks(
    rr: Any,
    recording: Any,
    sequence: GaussianSequence,
    frames: Float[np.ndarray, " times"],
    seconds: Float[np.ndarray, " times"],
    what: PartSelection,
) -> None:
    """Log tracks of surface points: where they are at each time, and the paths on objects."""
    cameras, labels = sequence.cameras, what.labels(sequence)
    spacing = int(np.ceil(np.sqrt(cameras.width * cameras.height / _TRACKS)))
    found = point_tracks(
        sequence, grid_points(sequence, spacing), sequence.canonical_frame, frames=frames,
        levels=what.num_levels(sequence),
    )  # fmt: skip
    allowed = [*(labels or sequence.objects)] + ([0] if what.background == "on" else [])
    kept = np.isin(found.object, allowed) & np.isfinite(found.xyz).all((1, 2))
    if not kept.any():
        return
    found = found.select(kept)
    shades = np.random.default_rng(0).integers(64, 256, (len(found.xyz), 3)).astype(np.uint8)
    moving = found.object > 0
    strips = rr.LineStrips3D([*found.xyz[moving]], colors=shades[moving])
    recording.log("world/tracks/paths", strips, static=True)
    for row, second in enumerate(seconds):
        recording.set_time("clip", duration=float(second))
        shown = found.visible[:, row]
        points = rr.Points3D(
            found.xyz[shown, row], colors=shades[shown], radii=rr.Radius.ui_points(3)
        )
        recording.log("world/tracks/points", points)


def _points(
    rr: Any,
    posed: PosedGaussians,
    chosen: Bool[Tensor, " gaussians"],
    pose: Float[np.ndarray, "4 4"] | None = None,
) -> Any:
    """Return opaque Gaussians as `rr.Points3D`, in the object frame where a pose is given."""
    chosen = (chosen & (posed.opacities[0] > _OPAQUE)).cpu()
    positions = posed.means[0].cpu()[chosen].double().numpy()
    if pose is not None:
        positions = (positions - pose[:3, 3]) @ pose[:3, :3]
    colours = (posed.harmonics[:, 0].cpu()[chosen] * SH_C0 + 0.5).clamp(0, 1).numpy()
    radii = posed.scales.cpu()[chosen].mean(1).numpy() * _RADIUS
    return rr.Points3D(positions, colors=colours, radii=radii)
