"""`flow`: optical flow, scene flow and masks of moving pixels, from each time to the next."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Real

from msdyn.errors import InputError
from msdyn.export.manifest import manifest
from msdyn.io import write_flo
from msdyn.progress import track
from msdyn.render import render_flow, render_flow_through
from msdyn.scene import FrameLenses, save_npz, write_image
from msdyn.sequence import GaussianSequence, PartSelection
from msdyn.writing import write_json

__all__ = ["export_flow"]


def export_flow(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
    *,
    moving_px: float = 1.0,
    lenses: FrameLenses | None = None,
) -> list[Path]:
    """Write the flow from each time to the next as npz, `.flo` and a mask; return the files.

    `flow_00000.npz` has `flow` [H, W, 2] px and `scene_flow` [H, W, 3] in the world, both from the
    clip's camera at the first time to its camera at the second, `valid` and `moving` [H, W];
    `moving_00000.png` is 255 where camera motion alone does not explain the flow.

    Args:
        sequence: the fit.
        out: folder.
        times: normalised.
        what: the part of the sequence to render; everything by default.
        moving_px: see `render_flow`.
        lenses: of the images as they were taken, for flow in their pixels.

    Raises:
        InputError: fewer than two times.
    """
    what = what or PartSelection()
    if len(times) < 2:
        raise InputError("flow: expected at least two times, as --times 0,1")
    (out / "manifest.json").unlink(missing_ok=True)
    paths, files = [], []
    pairs = list(zip(times[:-1], times[1:], strict=True))
    for number, (start, end) in enumerate(track(pairs, "export flow", unit="pair")):
        render = render_flow
        if lenses is not None:
            render = partial(render_flow_through, lenses=lenses)
        flow = render(
            sequence,
            cameras=(sequence.camera_at(float(start)), sequence.camera_at(float(end))),
            times=(float(start), float(end)),
            levels=what.num_levels(sequence),
            objects=what.labels(sequence),
            background=what.background == "on",
            moving_px=moving_px,
        )
        path = out / f"flow_{number:05d}.npz"
        save_npz(
            path,
            flow=flow.xy,
            scene_flow=flow.xyz,
            valid=flow.valid,
            moving=flow.moving,
            times=np.array([start, end]),
        )
        write_flo(path.with_suffix(".flo"), flow.xy, flow.valid)
        mask = out / f"moving_{number:05d}.png"
        write_image(mask, np.where(flow.moving, 255, 0).astype(np.uint8))
        paths.append(path)
        files += [path, path.with_suffix(".flo"), mask]
    content = manifest(sequence, times, paths, "flow")
    content |= {"pairs": [[float(a), float(b)] for a, b in pairs], "moving_px": moving_px}
    write_json(out / "manifest.json", content)
    return [*files, out / "manifest.json"]
