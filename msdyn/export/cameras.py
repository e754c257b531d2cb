"""`cameras`: the clip's cameras as COLMAP text, nerfstudio json and a TUM trajectory."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Real, UInt8

from msdyn.errors import InputError
from msdyn.geometry import SH_C0
from msdyn.io import write_colmap, write_transforms, write_tum
from msdyn.render import lens_at
from msdyn.scene import FrameLenses
from msdyn.sequence import GaussianSequence

__all__ = ["export_cameras"]

_log = logging.getLogger(__name__)

_POINTS = 5000


def export_cameras(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    lenses: FrameLenses | None = None,
) -> list[Path]:
    """Write `colmap/sparse/0/`, `transforms.json` and `cameras_tum.txt`; return the files.

    The world and scale are kept. Images are named by frame, as in the scene directory, if all
    times are those of frames. COLMAP's points are a sample of the static Gaussians.

    Args:
        sequence: the fit.
        out: folder.
        times: normalised.
        lenses: of the images as they were taken, written in place of the pinhole cameras.
    """
    timeline = sequence.timeline
    positions = timeline.frame_positions(times)
    cameras = sequence.cameras.interpolated(positions)
    at_frames = bool((positions == positions.round()).all())
    numbers = positions.round().astype(int) if at_frames else np.arange(len(positions))
    names = [f"{number:05d}.png" for number in numbers]
    points, colours = _points(sequence)
    of_images = None
    if lenses is not None:
        of_images = [lens_at(sequence, lenses, float(time)).lens for time in times]
    sparse = write_colmap(
        out / "colmap" / "sparse" / "0", cameras, names, points, colours, of_images
    )
    transforms = out / "transforms.json"
    try:
        write_transforms(
            transforms,
            cameras,
            [f"images/{name}" for name in names],
            times,
            world_units=sequence.world_units,
            lenses=of_images,
        )
    except InputError as error:  # COLMAP has more models of lenses
        _log.warning("export: transforms.json is left out: %s", error)
        transforms.unlink(missing_ok=True)
    duration = float(timeline.seconds[-1] - timeline.seconds[0])
    write_tum(
        out / "cameras_tum.txt",
        np.asarray(times) * duration,
        cameras.world_from_cam,
        comment="world_from_cam, OpenCV axes",
    )
    return [
        *(sparse / name for name in ("cameras.txt", "images.txt", "points3D.txt")),
        *([transforms] if transforms.is_file() else []),
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
