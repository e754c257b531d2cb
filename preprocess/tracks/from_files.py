"""Tracks from an npz: ours, TAPVid-3D's layout, or CoTracker's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msdyn.errors import InputError
from msdyn.io import read_cotracker, read_tapvid3d
from msdyn.preprocess.contracts import FileBackend, TrackResult
from msdyn.preprocess.frame_matching import pixels_in_scene, rows_of_frames
from msdyn.preprocess.frames.footage import Footage
from msdyn.preprocess.registry import register_backend
from msdyn.reading import npz_keys
from msdyn.scene import Observations, Scene, Tracks, read_tracks

__all__ = ["FileTracks"]


@register_backend("tracks", "files", needs=("frames",))
@dataclass(frozen=True)
class FileTracks(FileBackend):
    """Tracks in pixels of the video at its full size."""

    def track(self, scene: Scene, footage: Footage | None = None) -> TrackResult:
        """Return the tracks in the frames of the scene, in pixels of its images.

        The footage is not used.

        The figures: `layout` of the file; `tracks`, their number; `mean_life_frames`; `resampled`,
        the scale from pixels of the video to those of the scene.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: no known layout, or not of the number of frames of the video.
        """
        layout, tracks = _read(self.path)
        rows = rows_of_frames(scene, tracks.num_frames, f"{self.path}: frames")
        options = scene.info.stages["frames"]["options"]
        track, frame, xy, confidence = tracks.observations()
        index_of_frame = np.full(tracks.num_frames, -1)
        index_of_frame[rows] = np.arange(len(rows))
        kept = index_of_frame[frame] >= 0
        track, frame, xy, confidence = track[kept], frame[kept], xy[kept], confidence[kept]
        moved, inside = pixels_in_scene(scene, index_of_frame[frame], xy)
        moved = moved.astype(np.float32)
        query = np.minimum(np.searchsorted(rows, tracks.query_frame), len(rows) - 1)
        tracks = Tracks.from_observations(
            len(rows),
            Observations(
                track[inside], index_of_frame[frame[inside]], moved[inside], confidence[inside]
            ),
            np.full(len(tracks), -1),
            query,
        )
        # A track whose query frame is not in the scene is queried in its first visible frame.
        visible = tracks.look_up(np.arange(len(tracks)), query)[1]
        tracks = dataclasses.replace(tracks, query_frame=np.where(visible, query, tracks.start))
        tracks = tracks.select(tracks.lifetimes > 0)
        figures = {
            "layout": layout,
            "tracks": len(tracks),
            "mean_life_frames": round(float(tracks.lifetimes.mean()), 2) if len(tracks) else 0,
            "resampled": round(scene.info.width / options["source_width"], 6),
        }
        return TrackResult(tracks, figures)


def _read(path: Path) -> tuple[str, Tracks]:
    """Return the layout of a file and its tracks."""
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
