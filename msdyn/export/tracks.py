"""`tracks`: trajectories of surface points, in the layout of TAPVid-3D."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msdyn.geometry import transform_points
from msdyn.render import PointTracks
from msdyn.scene import save_npz
from msdyn.sequence import GaussianSequence

__all__ = ["export_tracks"]


def export_tracks(sequence: GaussianSequence, out: Path, tracks: PointTracks) -> list[Path]:
    """Write tracks as an npz; queries at pixels where nothing is rendered are left out.

    The keys of TAPVid-3D are `tracks_XYZ` [T, N, 3] in the camera of each frame, `visibility`
    [T, N], `queries_xyt` [N, 3], `fx_fy_cx_cy` [4] (at the first time) and `extrinsics_w2c`
    [T, 4, 4]. Further keys are `tracks_world` [T, N, 3], `tracks_xy` [T, N, 2] px (NaN behind the
    camera), `object` [N], `times` [T] and `intrinsics` [T, 3, 3].

    Args:
        sequence: the fit.
        out: file name, `.npz`.
        tracks: as `point_tracks` returns them.

    Reference: Koppula et al., "TAPVid-3D: A Benchmark for Tracking Any Point in 3D", 2024.
    """
    valid = np.isfinite(tracks.xyz).all((1, 2))
    world = tracks.xyz[valid].swapaxes(0, 1)  # [T, N, 3]
    k = tracks.cameras.intrinsics
    t = np.interp(tracks.query_frame, tracks.frames, np.arange(len(tracks.frames)))
    save_npz(
        out,
        tracks_XYZ=transform_points(tracks.cameras.cam_from_world, world).astype(np.float32),
        visibility=tracks.visible[valid].T,
        queries_xyt=np.column_stack([tracks.query_xy, t])[valid].astype(np.float32),
        fx_fy_cx_cy=k[0, [0, 1, 0, 1], [0, 1, 2, 2]],
        extrinsics_w2c=tracks.cameras.cam_from_world,
        tracks_world=world,
        tracks_xy=tracks.xy[valid].swapaxes(0, 1).astype(np.float32),
        object=tracks.object[valid],
        times=np.interp(tracks.frames, np.arange(len(sequence.timeline)), sequence.timeline.times),
        intrinsics=k,
    )
    return [out]
