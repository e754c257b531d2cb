"""`html`: one self-contained page that plays the sequence in a browser, offline."""

from __future__ import annotations

import base64
import gzip
import io
import re
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Real

from msdyn.errors import InputError
from msdyn.export.player_pack import packed_sequence
from msdyn.geometry import focus_point
from msdyn.html import data_script, policy
from msdyn.render import render_image, steady_axis
from msdyn.sequence import GaussianSequence, PartSelection
from msdyn.writing import atomic_path

__all__ = ["export_player"]

_POSTER = 640
"""Longer side of the picture that is shown while the page unpacks, px."""
_SCRIPTS = ("player_data.js", "player_draw.js", "player.js")


def export_player(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
    *,
    title: str = "msdyn",
    tolerance_px: float = 0.5,
) -> list[Path]:
    """Write a self-contained page that plays the sequence; return the file.

    The page draws the Gaussians by WebGL, with msdyn's own conventions (blur, opacity cut). They
    are stored in steps of whole numbers (`player_pack.py`), moving ones at the given times, and
    interpolated in between. Colours are those of degree 0, without view dependence.

    Args:
        sequence: the fit.
        out: file name, `.html`.
        times: normalised, increasing.
        what: the part to store; everything by default.
        title: of the page.
        tolerance_px: how finely positions are stored: see `packed_sequence`.

    Raises:
        InputError: times that do not increase.
    """
    if (np.diff(times) <= 0).any():
        raise InputError("html: expected increasing times, as --times 0:1:60")
    what = what or PartSelection()
    packed = packed_sequence(sequence, times, what, tolerance_px=tolerance_px)
    header = {
        "arrays": packed.rows,
        **packed.header,
        "labels": packed.labels,
        **_clip(sequence, times),
    }
    script = "".join(map(_source, _SCRIPTS))
    content = {
        "@POLICY@": policy(script),
        "@TITLE@": escape(title),
        "@POSTER@": _poster(sequence, float(times[0]), what),
        "@HEADER@": data_script(header, "header"),
        "@DATA@": _text(gzip.compress(packed.blob, 9, mtime=0)),
        "@SCRIPT@": script,
    }
    page = _source("player.html")
    # In one pass: a title that is such a word stays a title.
    page = re.sub("|".join(content), lambda found: content[found[0]], page)
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return [out]


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


@torch.no_grad()
def _poster(sequence: GaussianSequence, time: float, what: PartSelection) -> str:
    """Return the rendering of the first time as a JPEG's data URI."""
    from PIL import Image

    camera = sequence.camera_at(time)
    scale = min(_POSTER / max(camera.width, camera.height), 1.0)
    rendering = render_image(
        sequence,
        camera.resized(round(camera.width * scale), round(camera.height * scale)),
        time,
        levels=what.num_levels(sequence),
        objects=what.labels(sequence),
        background=what.background == "on",
    )
    buffer = io.BytesIO()
    Image.fromarray(rendering.rgb8).save(buffer, format="JPEG", quality=70)
    return f"data:image/jpeg;base64,{_text(buffer.getvalue())}"


def _clip(sequence: GaussianSequence, times: Real[np.ndarray, " times"]) -> dict[str, Any]:
    """Return the times and cameras of the page."""
    positions = sequence.timeline.frame_positions(times)
    cameras = sequence.cameras.interpolated(positions)
    rotations = cameras.cam_from_world[:, :3, :3]
    down = rotations[:, 1].mean(0)
    focus = focus_point(cameras)
    seconds = sequence.timeline.seconds
    axes = [steady_axis(sequence.cameras, float(position)) for position in positions]
    k = cameras.intrinsics[0]
    return {
        "times": ((times - times[0]) / max(float(times[-1] - times[0]), 1e-12)).tolist(),
        "duration": float((times[-1] - times[0]) * (seconds[-1] - seconds[0])),
        "width": cameras.width,
        "height": cameras.height,
        "intrinsics": [float(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2])],
        "up": (-down / max(float(np.linalg.norm(down)), 1e-9)).tolist(),
        "focus_distance": max(float(np.linalg.norm(focus - cameras.centres.mean(0))), 1e-3),
        "axes": [axis.tolist() for axis in axes if axis is not None] or None,
        "cameras": [
            {"rotation": rotation.ravel().tolist(), "centre": centre.tolist()}
            for rotation, centre in zip(rotations, cameras.centres, strict=True)
        ],
    }


def _source(name: str) -> str:
    """Return a text file of this package."""
    return files("msdyn.export").joinpath(name).read_text(encoding="utf-8")
