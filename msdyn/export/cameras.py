"""`cameras`: the clip's cameras as COLMAP text, nerfstudio json and a TUM trajectory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Real, UInt8

from msdyn.geometry import SH_C0
from msdyn.io import write_colmap, write_transforms, write_tum
from msdyn.sequence import GaussianSequence

__all__ = ["export_cameras"]

_POINTS = 5000


def export_cameras(
    sequence: GaussianSequence, out: Path, times: Real[np.ndarray, " times"]
) -> list[Path]:
    """Write `colmap/sparse/0/`, `transforms.json` and `cameras_tum.txt`; return the files.

    The world and scale are kept. Images are named by frame, as in the scene directory, if all
    times are those of frames. COLMAP's points are a sample of the static Gaussians.

    Args:
        sequence: the fit.
        out: folder.
        times: normalised.
    """
    timeline = sequence.timeline
    positions = timeline.frame_positions(times)
    cameras = sequence.cameras.interpolated(positions)
    at_frames = bool((positions == positions.round()).all())
    numbers = positions.round().astype(int) if at_frames else np.arange(len(positions))
    names = [f"{number:05d}.png" for number in numbers]
    points, colours = _points(sequence)
    sparse = write_colmap(out / "colmap" / "sparse" / "0", cameras, names, points, colours)
    write_transforms(
        out / "transforms.json",
        cameras,
        [f"images/{name}" for name in names],
        times,
        world_units=sequence.world_units,
    )
    duration = float(timeline.seconds[-1] - timeline.seconds[0])
    write_tum(
        out / "cameras_tum.txt",
        np.asarray(times) * duration,
        cameras.world_from_cam,
        comment="world_from_cam, OpenCV axes",
    )
    return [
        *(sparse / name for name in ("cameras.txt", "images.txt", "points3D.txt")),
        out / "transforms.json",
        out / "cameras_tum.txt",
    ]


@torch.no_grad()
def _points(
    sequence: GaussianSequence,
) -> tuple[Float64[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]]:
    """Return centres and colours of opaque static Gaussians, to initialise other programs."""
    static = sequence.static
    chosen = torch.nonzero(static.opacities > 0.5)[:, 0].cpu()
    if len(chosen) > _POINTS:
        chosen = chosen[torch.linspace(0, len(chosen) - 1, _POINTS).long()]
    colours = (static.harmonics[:, 0] * SH_C0 + 0.5).clamp(0, 1).cpu()[chosen]
    return (
        static.means.cpu()[chosen].double().numpy(),
        (colours * 255).round().byte().numpy(),
    )
