"""`html`: the sequence in one page that plays in a browser, from disk, without anything else."""

from __future__ import annotations

import base64
import gzip
import json
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from msdyn.errors import InputError
from msdyn.files import atomic_path
from msdyn.geometry import SH_C0, focus_point
from msdyn.sequence import GaussianSequence, What

__all__ = ["export_player"]

_FAINT = 1 / 255
_KINDS = {"f4": "<f4", "u2": "<u2", "i2": "<i2", "u1": "u1", "i1": "i1"}


def export_player(
    sequence: GaussianSequence,
    out: Path,
    times: np.ndarray,
    what: What | None = None,
    *,
    title: str = "msdyn",
) -> list[Path]:
    """Write a self-contained page that plays the sequence; return the file.

    The page draws the Gaussians by WebGL, with msdyn's own conventions (blur, opacity cut). What
    moves is stored at the given times, positions with 16 bits of the extent of the motion and
    orientations with 8; in between it is interpolated. Colours are those without view dependence.

    Args:
        sequence: what to play.
        out: file name, `.html`.
        times: [T] normalised times, increasing.
        what: the part to store.
        title: of the page.

    Raises:
        InputError: times that do not increase.
    """
    if (np.diff(times) <= 0).any():
        raise InputError("html: expected increasing times, as --times 0:1:60")
    parts = _parts(sequence, times, what or What())
    header, blob = _header(sequence, times, parts)
    page = files("msdyn.export").joinpath("player.html").read_text(encoding="utf-8")
    page = page.replace("@TITLE@", escape(title))
    # "<" cannot end the script early when it is written as an escape.
    page = page.replace("@HEADER@", json.dumps(header, allow_nan=False).replace("<", "\\u003c"))
    page = page.replace("@DATA@", base64.b64encode(gzip.compress(blob, 6, mtime=0)).decode("ascii"))
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return [out]


@torch.no_grad()
def _parts(sequence: GaussianSequence, times: np.ndarray, what: What) -> dict[str, np.ndarray]:
    """Return the arrays of the page; those of all Gaussians have what stands still first."""
    levels = what.num_levels(sequence)
    first = what.of(sequence.at(float(times[0]), levels=levels), sequence)
    seen = first.opacities > _FAINT
    still, moving = seen.clone(), seen.clone()
    still[first.num_static :], moving[: first.num_static] = False, False
    colours = (first.harmonics[:, 0] * SH_C0 + 0.5).clamp(0, 1)
    rgba = torch.cat([colours, first.opacities[:, None]], dim=1)
    positions, quats = [], []
    for time in tqdm(times, desc="export html", unit="time"):
        posed = what.of(sequence.at(float(time), levels=levels), sequence)
        positions.append(posed.means[0, moving].cpu().numpy())
        quats.append(_unit(posed.quats_wxyz[0, moving]))
    places = np.stack(positions).astype(np.float64)  # [T, M, 3]
    low = places.min((0, 1)) if places.size else np.zeros(3)
    step = np.maximum((places.max((0, 1)) - low) / 65535, 1e-12) if places.size else np.ones(3)
    both = torch.cat([still.nonzero()[:, 0], moving.nonzero()[:, 0]])
    return {
        "fixed_positions": first.means[0, still].cpu().numpy().astype("<f4"),
        "scales": first.scales[both].cpu().numpy().astype("<f4"),
        "moving_positions": ((places - low) / step).round().astype("<u2"),
        "fixed_quats": (_unit(first.quats_wxyz[0, still]) * 32767).round().astype("<i2"),
        "moving_quats": (np.stack(quats) * 127).round().astype("i1"),
        "rgba": (rgba[both].cpu().numpy() * 255).round().astype("u1"),
        "labels": first.labels[both].cpu().numpy().astype("u1"),
        "low": low,
        "step": step,
    }


def _unit(quats: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(quats, dim=-1).cpu().numpy()


def _header(
    sequence: GaussianSequence, times: np.ndarray, parts: dict[str, np.ndarray]
) -> tuple[dict[str, Any], bytes]:
    """Return what the page must know besides the arrays, and these one after the other."""
    low, step = parts.pop("low"), parts.pop("step")
    rows, blob = [], bytearray()
    for name, array in parts.items():
        kind = next(k for k, dtype in _KINDS.items() if np.dtype(dtype) == array.dtype)
        blob += bytes(-len(blob) % 4)  # browsers read arrays at multiples of their items only
        rows.append({"name": name, "kind": kind, "offset": len(blob), "count": array.size})
        blob += array.tobytes()
    cameras = sequence.cameras.interpolated(sequence.timeline.frame_positions(times))
    turns = cameras.cam_from_world[:, :3, :3]
    down = turns[:, 1].mean(0)
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
        "lens": [float(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2])],
        "up": (-down / max(float(np.linalg.norm(down)), 1e-9)).tolist(),
        "ahead": max(float(np.linalg.norm(focus - cameras.centres.mean(0))), 1e-3),
        "cameras": [
            {"turn": turn.ravel().tolist(), "eye": eye.tolist()}
            for turn, eye in zip(turns, cameras.centres, strict=True)
        ],
    }
    return header, bytes(blob)
