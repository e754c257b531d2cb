"""Tracks from an npz: ours, TAPVid-3D's layout, or CoTracker's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdyn.errors import InputError
from msdyn.io import read_cotracker, read_tapvid3d
from msdyn.preprocess.frame_matching import rows_of_frames
from msdyn.scene import Observations, Scene, Tracks, npz_keys, read_tracks

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
        track, frame, xy, confidence = tracks.observations()
        place = np.full(tracks.num_frames, -1)
        place[rows] = np.arange(len(rows))
        kept = place[frame] >= 0
        query = np.minimum(np.searchsorted(rows, tracks.query_frame), len(rows) - 1)
        tracks = Tracks.from_observations(
            len(rows),
            Observations(track[kept], place[frame[kept]], factor * xy[kept], confidence[kept]),
            np.full(len(tracks), -1),
            query,
        )
        # A track whose query frame was not kept is queried where it is first seen.
        visible = tracks.look_up(np.arange(len(tracks)), query)[1]
        tracks = dataclasses.replace(tracks, query_frame=np.where(visible, query, tracks.start))
        tracks = tracks.select(tracks.lifetimes > 0)
        return tracks, {
            "layout": layout,
            "tracks": len(tracks),
            "mean_life_frames": round(float(tracks.lifetimes.mean()), 2) if len(tracks) else 0,
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
