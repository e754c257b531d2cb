"""Read the page of msdyn-export --format html, after the layout in docs/formats.md."""

from __future__ import annotations

import base64
import gzip
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from splats import Splats

SH_C0 = 0.28209479177387814


class _Scripts(HTMLParser):
    """The text of the elements `script` that have an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[self.inside] = self.found.get(self.inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self.inside = None


def read_page(path: Path) -> tuple[dict[str, Any], dict[str, Int[np.ndarray, "rows columns"]]]:
    """Return the header and the arrays of whole numbers of a page."""
    scripts = _Scripts(path.read_text(encoding="utf-8")).found
    header = json.loads(scripts["header"])
    blob = gzip.decompress(base64.b64decode(scripts["data"]))
    return header, {row["name"]: _numbers(row, blob) for row in header["arrays"]}


def _numbers(row: dict[str, Any], blob: bytes) -> Int[np.ndarray, "rows columns"]:
    shape = row["rows"], row["columns"]
    count = shape[0] * shape[1]
    stored = np.frombuffer(blob, np.uint8, row["bytes"] * count, row["offset"])
    planes = stored.reshape(row["bytes"], count).astype(np.int64)
    values = sum(plane * 256**index for index, plane in enumerate(planes))
    values = np.where(values % 2, -(values + 1) // 2, values // 2).reshape(shape)
    down, across = row["differences"]
    if across:
        values = values.cumsum(1)
    if down:
        values = values.reshape(-1, down, shape[1]).cumsum(0).reshape(shape)
    return values


def splats_at(path: Path, time: float) -> Splats:
    """Return the splats of a page.

    Args:
        path: the page.
        time: from 0 at the page's first time to 1 at its last; interpolated between its times.
    """
    header, arrays = read_page(path)
    times = np.array(header["times"])
    later = int(np.clip(np.searchsorted(times, time), 1, max(len(times) - 1, 1)))
    before, after = later - 1, min(later, len(times) - 1)
    span = times[after] - times[before]
    part = (time - times[before]) / span if span else 0.0

    def between(name: str, columns: int) -> Float[np.ndarray, "gaussians columns"]:
        rows = arrays[name].reshape(
            len(arrays[name]) // columns, columns, -1 if arrays[name].size else 0
        )
        return ((1 - part) * rows[before] + part * rows[after]).T

    means = np.concatenate([arrays["fixed_positions"].T, between("moving_positions", 3)])
    xyz = header["quat_step"] * arrays["fixed_quats"].T
    w = np.sqrt(np.maximum(1 - (xyz**2).sum(1, keepdims=True), 0))
    quats = np.concatenate([np.concatenate([w, xyz], 1), between("moving_quats", 4)])
    smallest, ratio = header["log_scale"]
    alpha = arrays["alpha"]
    opacities = between("alpha", 1)[:, 0] if len(alpha) > 1 else alpha[0]
    return Splats(
        np.array(header["low"]) + header["step"] * means,
        quats,
        np.exp(smallest + ratio * arrays["scales"].T),
        header["opacity_step"] * opacities,
        (header["colour_step"] * arrays["colours"].T[:, None] - 0.5) / SH_C0,
    )
