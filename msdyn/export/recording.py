"""`rrd`: a recording for rerun's viewer, on the clip's own timeline."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from msdyn.errors import MissingExtraError
from msdyn.geometry import SH_C0
from msdyn.progress import track
from msdyn.render import render_image
from msdyn.sequence import (
    GaussianSequence,
    PartSelection,
    PosedGaussians,
    object_centres,
    object_poses,
)
from msdyn.writing import atomic_path

__all__ = ["export_rrd"]

_OPAQUE = 0.3
"""Minimum opacity of an exported Gaussian."""
_RADIUS = 0.7
"""Radius of a point in the viewer, relative to the mean standard deviation of its Gaussian."""


@torch.no_grad()
def export_rrd(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
) -> list[Path]:
    """Write a recording: Gaussians as points, cameras with renders and depth, poses of objects.

    Entities are `world/static`, `world/object_<k>` with the object's 6-DoF pose,
    `world/object_<k>/points` (in the object's own frame, logged at every time because finer levels
    deform the object), and `world/camera` with `rgb` and `depth`. The timeline is `clip`, in
    seconds.

    Args:
        sequence: the fit.
        out: file name, `.rrd`.
        times: normalised.
        what: the part of the sequence to export; everything by default.

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
    with atomic_path(out) as temporary:
        recording = rr.RecordingStream("msdyn")
        recording.save(str(temporary))
        recording.log("world", rr.ViewCoordinates.RDF, static=True)
        for row, time in enumerate(track(times, "export rrd", unit="time")):
            posed = what.select(sequence.at(float(time), levels=levels), sequence)
            if row == 0:
                static = posed.labels == 0
                recording.log("world/static", _points(rr, posed, static), static=True)
            recording.set_time("clip", duration=float(time) * duration)
            _log_objects(rr, recording, posed, {k: pose[row] for k, pose in poses.items()}, labels)
            camera = cameras[row]
            image = render_image(sequence, camera, float(time), levels=levels, objects=labels,
                                 background=what.background == "on")  # fmt: skip
            world_from_cam = camera.world_from_cam[0]
            recording.log(
                "world/camera",
                rr.Transform3D(translation=world_from_cam[:3, 3], mat3x3=world_from_cam[:3, :3]),
                rr.Pinhole(
                    image_from_camera=camera.intrinsics[0],
                    resolution=[camera.width, camera.height],
                    camera_xyz=rr.ViewCoordinates.RDF,
                ),
            )
            recording.log("world/camera/rgb", rr.Image(image.rgb8).compress(jpeg_quality=90))
            recording.log("world/camera/depth", rr.DepthImage(image.depth, meter=1.0))
        centres = object_centres(sequence)
        for label in centres if labels is None else labels:
            path = poses[label][:, :3, 3]
            strip = rr.LineStrips3D([path], labels=[f"object {label}"])
            recording.log(f"world/paths/object_{label}", strip, static=True)
        recording.flush()
        recording.disconnect()
    return [out]


def _log_objects(
    rr: ModuleType,
    recording: Any,
    posed: PosedGaussians,
    poses: dict[int, Float[np.ndarray, "4 4"]],
    labels: list[int] | None,
) -> None:
    """Log the pose and points of each object at the current time."""
    for label, pose in poses.items():
        if labels is not None and label not in labels:
            continue
        entity = f"world/object_{label}"
        recording.log(entity, rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        points = _points(rr, posed, posed.labels == label, pose)
        recording.log(f"{entity}/points", points)


def _points(
    rr: ModuleType,
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
