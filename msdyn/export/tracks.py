"""`tracks`: trajectories of surface points, in the layout of TAPVid-3D."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msdyn.geometry import transform_points
from msdyn.render import PointTracks, distorted_pixels, lens_at
from msdyn.scene import FrameLenses, save_npz
from msdyn.sequence import GaussianSequence

__all__ = ["export_tracks"]


def export_tracks(
    sequence: GaussianSequence,
    out: Path,
    tracks: PointTracks,
    lenses: FrameLenses | None = None,
) -> list[Path]:
    """Write tracks as an npz; queries at pixels where nothing is rendered are left out.

    The keys of TAPVid-3D are `tracks_XYZ` [T, N, 3] in the camera of each frame, `visibility`
    [T, N], `queries_xyt` [N, 3], `fx_fy_cx_cy` [4] (at the first time) and `extrinsics_w2c`
    [T, 4, 4]. Further keys are `tracks_world` [T, N, 3], `tracks_xy` [T, N, 2] px (NaN behind the
    camera), `object` [N], `times` [T] and `intrinsics` [T, 3, 3].

    Args:
        sequence: the fit.
        out: file name, `.npz`.
        tracks: as `point_tracks` returns them.
        lenses: of the images as they were taken, for `queries_xyt` and `tracks_xy` in their pixels;
            `fx_fy_cx_cy` and `intrinsics` stay those of the undistorted images.

    Reference: Koppula et al., "TAPVid-3D: A Benchmark for Tracking Any Point in 3D", 2024.
    """
    valid = np.isfinite(tracks.xyz).all((1, 2))
    query_xy, xy = tracks.query_xy, tracks.xy
    if lenses is not None:
        times = sequence.timeline.times
        at = np.interp(tracks.frames, np.arange(len(times)), times)
        seen = [lens_at(sequence, lenses, float(time)) for time in at]
        moved = [distorted_pixels(sequence, lens, xy[:, t]) for t, lens in enumerate(seen)]
        xy = np.stack(moved, axis=1)
        query_xy = np.empty_like(tracks.query_xy)
        for frame in np.unique(tracks.query_frame):
            asked = tracks.query_frame == frame
            lens = lenses[round(float(frame))]
            query_xy[asked] = distorted_pixels(sequence, lens, tracks.query_xy[asked])
    world = tracks.xyz[valid].swapaxes(0, 1)  # [T, N, 3]
    k = tracks.cameras.intrinsics
    t = np.interp(tracks.query_frame, tracks.frames, np.arange(len(tracks.frames)))
    save_npz(
        out,
        tracks_XYZ=transform_points(tracks.cameras.cam_from_world, world).astype(np.float32),
        visibility=tracks.visible[valid].T,
        queries_xyt=np.column_stack([query_xy, t])[valid].astype(np.float32),
        fx_fy_cx_cy=k[0, [0, 1, 0, 1], [0, 1, 2, 2]],
        extrinsics_w2c=tracks.cameras.cam_from_world,
        tracks_world=world,
        tracks_xy=xy[valid].swapaxes(0, 1).astype(np.float32),
        object=tracks.object[valid],
        times=np.interp(tracks.frames, np.arange(len(sequence.timeline)), sequence.timeline.times),
        intrinsics=k,
    )
    return [out]
