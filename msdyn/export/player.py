"""`html`: one self-contained page that plays the sequence in a browser, offline."""

from __future__ import annotations

import base64
import gzip
import re
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Real, Shaped
from torch import Tensor

from msdyn.errors import InputError
from msdyn.geometry import SH_C0, focus_point
from msdyn.html import data_script, policy
from msdyn.progress import track
from msdyn.sequence import GaussianSequence, PartSelection
from msdyn.writing import atomic_path

__all__ = ["export_player"]

_FAINT = 1 / 255
_KINDS = {"f4": "<f4", "u2": "<u2", "i2": "<i2", "u1": "u1", "i1": "i1"}


def export_player(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
    *,
    title: str = "msdyn",
) -> list[Path]:
    """Write a self-contained page that plays the sequence; return the file.

    The page draws the Gaussians by WebGL, with msdyn's own conventions (blur, opacity cut). Moving
    Gaussians are stored at the given times, positions quantised to 16 bits of their bounding box,
    quaternions and opacities (where they change) to 8, and interpolated in between. Colours are
    those of degree 0, without view dependence.

    Args:
        sequence: the fit.
        out: file name, `.html`.
        times: normalised, increasing.
        what: the part to store; everything by default.
        title: of the page.

    Raises:
        InputError: times that do not increase.
    """
    if (np.diff(times) <= 0).any():
        raise InputError("html: expected increasing times, as --times 0:1:60")
    parts = _parts(sequence, times, what or PartSelection())
    header, blob = _header(sequence, times, parts)
    page = files("msdyn.export").joinpath("player.html").read_text(encoding="utf-8")
    script = page.partition("<script>")[2].partition("</script>")[0]
    content = {
        "@POLICY@": policy(script),
        "@TITLE@": escape(title),
        "@HEADER@": data_script(header, "header"),
        "@DATA@": base64.b64encode(gzip.compress(blob, 6, mtime=0)).decode("ascii"),
    }
    # In one pass: a title that is such a word stays a title.
    page = re.sub("|".join(content), lambda found: content[found[0]], page)
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return [out]


@torch.no_grad()
def _parts(
    sequence: GaussianSequence, times: Real[np.ndarray, " times"], what: PartSelection
) -> dict[str, Shaped[np.ndarray, "*_shape"]]:
    """Return the arrays of the page; those of all Gaussians begin with the static ones."""
    levels = what.num_levels(sequence)
    first = what.select(sequence.at(float(times[0]), levels=levels), sequence)
    positions, quats, opacities = [], [], []
    for time in track(times, "export html", unit="time"):
        posed = what.select(sequence.at(float(time), levels=levels), sequence)
        positions.append(posed.means[0, posed.num_static :].cpu().numpy())
        quats.append(_unit(posed.quats_wxyz[0, posed.num_static :]))
        opacities.append(posed.opacities[0].cpu().numpy())
    opacity = np.stack(opacities)  # [T, G]
    visible = opacity.max(0) > _FAINT
    static, moving = visible[: first.num_static], visible[first.num_static :]
    paths = np.stack(positions)[:, moving].astype(np.float64)  # [T, M, 3]
    low = paths.min((0, 1)) if paths.size else np.zeros(3)
    step = np.maximum((paths.max((0, 1)) - low) / 65535, 1e-12) if paths.size else np.ones(3)
    colours = (first.harmonics[:, 0] * SH_C0 + 0.5).clamp(0, 1).cpu().numpy()
    rgba = np.concatenate([colours, opacity.max(0)[:, None]], axis=1)[visible]
    parts = {
        "fixed_positions": first.means[0, : first.num_static].cpu().numpy()[static].astype("<f4"),
        "scales": first.scales.cpu().numpy()[visible].astype("<f4"),
        "moving_positions": ((paths - low) / step).round().astype("<u2"),
        "fixed_quats": (_unit(first.quats_wxyz[0, : first.num_static])[static] * 32767)
        .round()
        .astype("<i2"),
        "moving_quats": (np.stack(quats)[:, moving] * 127).round().astype("i1"),
        "rgba": (rgba * 255).round().astype("u1"),
        "labels": first.labels.cpu().numpy()[visible].astype("u1"),
        "low": low,
        "step": step,
    }
    if sequence.moving.life_spans is not None:
        changing = opacity[:, first.num_static :][:, moving]
        parts["moving_alpha"] = (changing * 255).round().astype("u1")
    return parts


def _unit(quats: Float[Tensor, "gaussians 4"]) -> Float[np.ndarray, "gaussians 4"]:
    return torch.nn.functional.normalize(quats, dim=-1).cpu().numpy()


def _header(
    sequence: GaussianSequence,
    times: Real[np.ndarray, " times"],
    parts: dict[str, Shaped[np.ndarray, "*_shape"]],
) -> tuple[dict[str, Any], bytes]:
    """Return the header of the page, with the layout of the arrays, and the arrays' bytes."""
    low, step = parts.pop("low"), parts.pop("step")
    rows, blob = [], bytearray()
    for name, array in parts.items():
        kind = next(k for k, dtype in _KINDS.items() if np.dtype(dtype) == array.dtype)
        blob += bytes(-len(blob) % 4)  # typed arrays must be aligned to their item size
        rows.append({"name": name, "kind": kind, "offset": len(blob), "count": array.size})
        blob += array.tobytes()
    cameras = sequence.cameras.interpolated(sequence.timeline.frame_positions(times))
    rotations = cameras.cam_from_world[:, :3, :3]
    down = rotations[:, 1].mean(0)
    focus = focus_point(cameras)
    seconds = sequence.timeline.seconds
    k = cameras.intrinsics[0]
    header = {
        "parts": rows,
        "fixed": len(parts["fixed_positions"]),
        "moving": parts["moving_positions"].shape[1],
        "times": ((times - times[0]) / max(float(times[-1] - times[0]), 1e-12)).tolist(),
        "low": low.tolist(),
        "step": step.tolist(),
        "labels": np.unique(parts["labels"]).tolist(),
        "duration": float((times[-1] - times[0]) * (seconds[-1] - seconds[0])),
        "width": cameras.width,
        "height": cameras.height,
        "intrinsics": [float(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2])],
        "up": (-down / max(float(np.linalg.norm(down)), 1e-9)).tolist(),
        "focus_distance": max(float(np.linalg.norm(focus - cameras.centres.mean(0))), 1e-3),
        "cameras": [
            {"rotation": rotation.ravel().tolist(), "centre": centre.tolist()}
            for rotation, centre in zip(rotations, cameras.centres, strict=True)
        ],
    }
    return header, bytes(blob)
