"""`objects`: the 6-DoF trajectory of every object, as TUM files and JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Real

from msdyn.geometry import quats_wxyz_from_rotations
from msdyn.io import write_tum
from msdyn.sequence import GaussianSequence, object_centres, object_poses
from msdyn.writing import write_json

__all__ = ["export_objects", "resampled_times"]


def resampled_times(sequence: GaussianSequence, fps: float) -> Float64[np.ndarray, " times"]:
    """Return normalised times at a frame rate, from the first frame up to the last.

    Args:
        sequence: its timeline has the seconds.
        fps: frames per second, above 0.
    """
    seconds = sequence.timeline.seconds
    duration = float(seconds[-1] - seconds[0])
    count = int(np.floor(duration * fps + 1e-9)) + 1
    return np.minimum(np.arange(count) / fps / duration, 1.0)


def export_objects(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    *,
    levels: int | None = None,
    labels: list[int] | None = None,
) -> list[Path]:
    """Write `object_<k>.txt` (TUM) for every object and `objects.json`; return the files.

    A pose is `world_from_object`, in the world and units of the input cameras. An object's own
    frame has its origin in the object's centre and, at the canonical frame, the world's axes.

    Args:
        sequence: the fit.
        out: folder.
        times: normalised.
        levels: use only the first so many motion levels.
        labels: mask indices of the objects; all by default.
    """
    timeline = sequence.timeline
    frames = timeline.frame_positions(times)
    duration = float(timeline.seconds[-1] - timeline.seconds[0])
    seconds = np.asarray(times, np.float64) * duration
    centres, poses = object_centres(sequence), object_poses(sequence, frames, levels=levels)
    units = "metres" if sequence.world_units == "metric" else "units of the input cameras"
    paths, rows = [], []
    for label in sorted(poses) if labels is None else sorted(labels):
        path = out / f"object_{label}.txt"
        write_tum(path, seconds, poses[label], comment=f"world_from_object_{label}, {units}")
        paths.append(path)
        quats = quats_wxyz_from_rotations(torch.from_numpy(poses[label][:, :3, :3]))
        rows.append(
            {
                "object": label,
                "centre_at_canonical_frame": centres[label].tolist(),
                "gaussians": int((sequence.labels == label).sum()),
                "positions": poses[label][:, :3, 3].tolist(),
                "quaternions_wxyz": quats.tolist(),
                "world_from_object": poses[label].tolist(),
            }
        )
    write_json(
        out / "objects.json",
        {
            "format": "msdyn-objects",
            "version": 1,
            "convention": "world_from_object in the world of the input cameras; origin in the "
            "object's centre; at the canonical frame the axes are the world's",
            "world_units": sequence.world_units,
            "canonical_frame": sequence.canonical_frame,
            "times": np.asarray(times, np.float64).tolist(),
            "seconds": seconds.tolist(),
            "objects": rows,
        },
    )
    return [*paths, out / "objects.json"]
