"""Tracks from an npz: ours, TAPVid-3D's layout, or CoTracker's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msdyn.preprocess.from_files.matching import rows_of_frames

from msdyn.errors import InputError
from msdyn.io import read_cotracker, read_tapvid3d
from msdyn.scene import Scene, Tracks, npz_keys, read_tracks

__all__ = ["FileTracks"]


@dataclass(frozen=True)
class FileTracks:
    """Tracks in pixels of the video at its full size."""

    path: Path

    name = "files"

    def track(self, scene: Scene) -> tuple[Tracks, dict[str, Any]]:
        """Return the tracks at the kept frames, in pixels of the scene's images.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: no known layout, or not of the video's number of frames.
        """
        layout, tracks = _read(self.path)
        rows = rows_of_frames(scene, tracks.num_frames, f"{self.path}: frames")
        options = scene.info.stages["frames"]["options"]
        factor = np.array(
            [
                scene.info.width / options["source_width"],
                scene.info.height / options["source_height"],
            ],
            np.float32,
        )
        visible = tracks.visible[:, rows]
        seen = visible.any(axis=1)
        first = np.minimum(np.searchsorted(rows, tracks.query_frame), len(rows) - 1)
        # A track whose query frame was not kept is queried where it is first seen.
        kept = np.take_along_axis(visible, first[:, None], 1)[:, 0]
        tracks = Tracks(
            tracks.xy[:, rows] * factor,
            visible,
            tracks.confidence[:, rows],
            np.full(len(tracks), -1, np.int32),
            np.where(kept, first, visible.argmax(1)),
        ).select(np.flatnonzero(seen))
        return tracks, {
            "layout": layout,
            "tracks": len(tracks),
            "mean_life_frames": round(float(tracks.visible.sum(1).mean()), 2) if len(tracks) else 0,
            "resampled": round(float(factor[0]), 6),
        }


def _read(path: Path) -> tuple[str, Tracks]:
    keys = set(npz_keys(path))
    if "tracks_XYZ" in keys:
        return "TAPVid-3D", read_tapvid3d(path)
    if keys & {"pred_tracks", "tracks"}:
        return "CoTracker", read_cotracker(path)
    if {"xy", "visible"} & keys:
        return "msdyn", read_tracks(path)
    raise InputError(
        f"{path}: no tracks of a known layout; expected xy, visible, confidence, object, "
        "query_frame (msdyn), tracks_XYZ (TAPVid-3D) or pred_tracks (CoTracker), got "
        f"{', '.join(sorted(keys)) or 'nothing'}"
    )
