"""`4dgs`: the moving sequence in one small file of the open container format 4dgs.

Objects have their rigid motion as a track; what it does not explain is a few straight pieces for
each Gaussian, in the object's frame. Written through the package fourdgs, the format's own
implementation.

Reference: the specification, version 1, of github.com/avala-ai/4dgs.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Real

from msdyn.errors import InputError, MissingExtraError
from msdyn.export.pieces import Pieces, moving_pieces, numbers_per_part, static_pieces
from msdyn.export.rigid_tracks import RigidTrack
from msdyn.geometry import SH_C0, Cameras, focus_point, quats_wxyz_from_rotations
from msdyn.progress import stage, write_note
from msdyn.sequence import GaussianSequence, PartSelection, object_centres
from msdyn.version import __version__
from msdyn.writing import atomic_path

__all__ = ["export_4dgs"]

_PROFILE = "fine"
_SH_RANGE = 4.0
_DOWN_IS_Y, _FORWARD_IS_Z, _RIGHT_HANDED, _METRE = 4, 2, 1, 1
"""Of the coordinate frame: the axis that points up is -y."""
_PINHOLE, _ON_A_RIG = 1, 1


def export_4dgs(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
    *,
    tolerance_px: float = 0.5,
) -> list[Path]:
    """Write a `.4dgs` file; return it.

    Gaussians are stored at rest (in the canonical frame) with the number of their object in the
    masks, the objects' motion since then as tracks. The file has the clip's camera as a sensor on a
    trajectory, and as the path of the view. Its clock counts seconds from the clip's first frame.

    Args:
        sequence: the fit.
        out: file name, `.4dgs`.
        times: normalised, increasing.
        what: the part of the sequence to export; everything by default.
        tolerance_px: how far a Gaussian may be from its true place, in the clip's cameras.

    Raises:
        InputError: times that do not increase, or nothing to write.
        MissingExtraError: fourdgs is not installed.
    """
    try:
        fourdgs: Any = import_module("fourdgs")
    except ImportError as error:
        raise MissingExtraError('fourdgs is not installed: pip install "msdyn[4dgs]"') from error
    times = np.asarray(times, np.float64)
    if (np.diff(times) <= 0).any():
        raise InputError("4dgs: expected increasing times, as --times 0:1:60")
    timeline = sequence.timeline
    length = float(timeline.seconds[-1] - timeline.seconds[0])
    seconds = times * length
    # The last time is shown for as long as a frame is.
    duration = float(seconds[-1]) + 1 / timeline.fps
    moving, tracks, error = moving_pieces(sequence, times, seconds, what, tolerance_px)
    pieces = static_pieces(sequence, times, seconds, what).beside(moving)
    if not len(pieces):
        raise InputError("4dgs: expected at least one Gaussian, got none")
    cameras = sequence.cameras.interpolated(timeline.frame_positions(times))
    step = numbers_per_part(sequence)
    options = fourdgs.WriteOptions(
        profile=_PROFILE,
        level=9,
        library=f"msdyn {__version__}",
        scene_profile="objects" if tracks else "",
        metadata={
            "visibility_profile": "box",
            "object_track_role": "authoritative",
            "clip_seconds": repr(length),
            "object_of_id": f"object_id % {step} is the object's index in the masks",
            "error": str(error),
        },
        provenance=_cameras(fourdgs, cameras, seconds, sequence.world_units),
        objects=_objects(fourdgs, sequence, tracks, seconds) if tracks else None,
    )
    with stage("writing and checking the file"), atomic_path(out) as temporary:
        fourdgs.write(
            temporary, _gaussian_set(fourdgs, pieces, duration), duration, options=options,
            camera=_view(fourdgs, cameras, seconds),
        )  # fmt: skip
    write_note(f"{len(pieces)} pieces, {len(tracks)} tracks; {error}")
    return [out]


def _gaussian_set(fourdgs: Any, pieces: Pieces, duration: float) -> Any:
    """Return the arrays of the package."""
    step = fourdgs.Steps.of(fourdgs.Bounds.for_profile(_PROFILE)).time
    middle = (pieces.begin.clip(0, duration) + pieces.end.clip(0, duration)) / 2
    # On the grid of the format's times, so that rounding moves nothing.
    middle = (middle / step).round() * step
    positions = pieces.origin + pieces.velocity * middle[:, None]
    rgb = (pieces.harmonics[:, 0] * SH_C0 + 0.5).clip(0, 1)
    higher = pieces.harmonics[:, 1:].swapaxes(1, 2).reshape(len(pieces), -1)  # channel by channel
    codes = ((higher + _SH_RANGE) * (255 / (2 * _SH_RANGE))).round().clip(0, 255).astype(np.uint8)
    return fourdgs.GaussianSet(
        positions=positions.astype(np.float32),
        scales=np.exp(pieces.log_scales).astype(np.float32),
        rotations=pieces.quats_wxyz[:, [1, 2, 3, 0]].astype(np.float32),
        colors=np.concatenate([rgb, pieces.opacity[:, None]], 1).astype(np.float32),
        motions=pieces.velocity.astype(np.float32),
        mu_t=middle.astype(np.float32),
        sigma_t=np.full(len(pieces), np.inf, np.float32),
        win_lo=pieces.begin.clip(0, duration),
        win_hi=pieces.end.clip(0, duration),
        sh=codes if higher.shape[1] else None,
        sh_degree=int(pieces.harmonics.shape[1] ** 0.5) - 1,
        object_id=pieces.label.astype(np.uint32),
    )


def _objects(
    fourdgs: Any,
    sequence: GaussianSequence,
    tracks: dict[int, RigidTrack],
    seconds: Float64[np.ndarray, " times"],
) -> Any:
    """Return the table of objects and rigid parts of them, and their tracks from rest."""
    centres = object_centres(sequence)
    step = numbers_per_part(sequence)
    divided = {number % step for number in tracks if number >= step}
    entries = []
    for number in tracks:
        part, label = divmod(number, step)
        name = f"object {label}" + (f", part {part + 1}" if label in divided else "")
        entries.append(fourdgs.ObjectTableEntry(number, name, tuple(centres[label])))
    records = []
    for number, track in tracks.items():
        quats = quats_wxyz_from_rotations(torch.from_numpy(track.motion.rotation[track.rows]))
        records.append(
            fourdgs.ObjectTrack(
                object_id=number,
                times=seconds[track.rows].tolist(),
                rotations=quats[:, [1, 2, 3, 0]].tolist(),
                translations=track.motion.translation[track.rows].tolist(),
            )
        )
    return fourdgs.ObjectLayer(fourdgs.ObjectTable(entries=entries), records)


def _cameras(
    fourdgs: Any, cameras: Cameras, seconds: Float64[np.ndarray, " times"], world_units: str
) -> Any:
    """Return the coordinate frame, and the clip's camera as a sensor on a trajectory."""
    metric = world_units == "metric"
    k = cameras.intrinsics[0]
    world_from_cam = cameras.world_from_cam
    quats = quats_wxyz_from_rotations(torch.from_numpy(world_from_cam[:, :3, :3]))
    return fourdgs.Provenance(
        frames=[
            fourdgs.CoordinateFrame(
                handedness=_RIGHT_HANDED,
                up_axis=_DOWN_IS_Y,
                forward_axis=_FORWARD_IS_Z,
                length_unit=_METRE if metric else 0,
                metres_per_unit=1.0 if metric else 0.0,
            )
        ],
        sensors=[
            fourdgs.SensorCalibration(
                name="camera",
                modality="camera",
                camera_model=_PINHOLE,
                width_px=cameras.width,
                height_px=cameras.height,
                fx=float(k[0, 0]),
                fy=float(k[1, 1]),
                cx=float(k[0, 2]),
                cy=float(k[1, 2]),
                pose_reference=_ON_A_RIG,
                rig_name="camera",
            )
        ],
        trajectories=[
            fourdgs.RigTrajectory(
                name="camera",
                times=seconds.tolist(),
                rotations=quats[:, [1, 2, 3, 0]].tolist(),
                translations=world_from_cam[:, :3, 3].tolist(),
            )
        ],
    )


def _view(fourdgs: Any, cameras: Cameras, seconds: Float64[np.ndarray, " times"]) -> Any:
    """Return the clip's camera as what a viewer shows first: a path that looks at points."""
    forward = cameras.cam_from_world[:, 2, :3]
    focus = focus_point(cameras)
    depth = ((focus - cameras.centres) * forward).sum(1, keepdims=True)
    targets = cameras.centres + forward * np.maximum(depth, 1e-3)
    angle = 2 * np.degrees(np.arctan(cameras.height / 2 / cameras.intrinsics[0, 1, 1]))
    return fourdgs.CameraTrajectory(
        fov_y_deg=float(angle),
        position=tuple(cameras.centres[0].tolist()),
        target=tuple(targets[0].tolist()),
        times=seconds.tolist(),
        positions=[tuple(row) for row in cameras.centres.tolist()],
        targets=[tuple(row) for row in targets.tolist()],
        interpolation="linear",
        loop=False,
    )
