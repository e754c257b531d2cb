"""Pieces of self-contained pages: pictures, videos and plots as text, without any file beside."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from msdyn.io import write_video

__all__ = ["bars", "curve", "page", "picture", "table", "video"]

_CSS = """
:root { --ink: #1b1f24; --soft: #5b6470; --line: #d9dde3; --accent: #2f6fde; --warm: #c2410c; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 20px 16px 60px; color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; background: #fff; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.figures { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: .8rem 0; }
.figures b { display: block; font-size: 1.25rem; } .figures span { color: var(--soft); }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: 6px; margin-bottom: 10px; }
.row figure { margin: 0; } figcaption { color: var(--soft); font-size: .82rem; }
img, video, svg { display: block; width: 100%; height: auto; }
img { image-rendering: auto; } video { max-width: 860px; background: #000; }
.plots { display: grid; grid-template-columns: repeat(2, 1fr); gap: 14px 26px; }
.warning { border-left: 4px solid var(--warm); background: #fff7ed; padding: .5rem .8rem;
  margin: .5rem 0; }
.fine { border-left: 4px solid #15803d; background: #f0fdf4; padding: .5rem .8rem; }
canvas { width: 100%; height: 360px; border: 1px solid var(--line); touch-action: pan-y;
  cursor: grab; }
pre { background: #f6f7f9; padding: .8rem; overflow-x: auto; font-size: .82rem; }
summary { cursor: pointer; }
@media (max-width: 640px) { .row { grid-template-columns: repeat(2, 1fr); }
  .plots { grid-template-columns: 1fr; } body { padding: 14px 12px 40px; }
  table { font-size: .72rem; } th, td { padding-right: .35rem; }
  td:first-child { white-space: nowrap; } }
"""
_LEFT, _RIGHT = 56, 396
"""Where plots begin and end, of 400: seven characters fit to the left, as in 0.04511."""


def page(title: str, body: str, script: str = "") -> str:
    """Return a whole HTML page; `body` is HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body>\n{body}\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body></html>\n"
    )


def picture(image: np.ndarray, caption: str = "", *, longest: int = 480) -> str:
    """Return an image [H, W, 3] uint8 as a figure, scaled down to a longer side in pixels."""
    from PIL import Image

    shown = Image.fromarray(image)
    shown.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    iio.imwrite(buffer, np.asarray(shown), extension=".jpg", quality=85)
    text = escape(caption)
    figure = f'<img alt="{text}" src="{_data("image/jpeg", buffer.getvalue())}">'
    return f"<figure>{figure}<figcaption>{text}</figcaption></figure>"


def video(frames: Iterable[np.ndarray], fps: float) -> str:
    """Return frames [H, W, 3] uint8 as a video that plays by itself, over and over."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strip.mp4"
        write_video(path, frames, fps, crf=26)
        data = _data("video/mp4", path.read_bytes())
    return f'<video src="{data}" autoplay loop muted playsinline controls></video>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; columns after the first are numbers, to the right."""
    kinds = ["", *(' class="n"' for _ in head[1:])]
    top = "".join(f"<th{k}>{escape(cell)}</th>" for k, cell in zip(kinds, head, strict=True))
    lines = [
        "<tr>"
        + "".join(f"<td{k}>{escape(cell)}</td>" for k, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    ]
    return f'<div class="wide"><table><tr>{top}</tr>{"".join(lines)}</table></div>'


def curve(
    title: str, x: Sequence[float], y: Sequence[float], x_label: str, *, log: bool = False
) -> str:
    """Return a line plot as SVG; `log` for an axis of powers of ten. Not finite values are gaps."""
    values = np.asarray(y, float)
    shown = np.log10(np.where(values > 0, values, np.nan)) if log else values
    good = np.isfinite(shown)
    if good.sum() < 2:
        return ""
    xs, ys = np.asarray(x, float)[good], shown[good]
    to_x, to_y = _axis(xs, _LEFT, _RIGHT), _axis(ys, 158, 14)
    points = " ".join(f"{to_x(a):.1f},{to_y(b):.1f}" for a, b in zip(xs, ys, strict=True))
    line = f'<polyline points="{points}" fill="none" stroke="#2f6fde" stroke-width="1.6"/>'
    return _plot(title, line, xs, values[good], x_label)


def bars(title: str, values: Sequence[float], marked: Sequence[bool], x_label: str) -> str:
    """Return bars as SVG, some of them marked by another colour."""
    y = np.asarray(values, float)
    good = np.isfinite(y)
    if not good.any():
        return ""
    low, high = float(y[good].min()), float(y[good].max())
    low -= 0.15 * max(high - low, 1e-3)
    to_y = _axis(np.array([low, high]), 158, 14)
    width = (_RIGHT - _LEFT) / len(y)
    shapes = [
        f'<rect x="{_LEFT + i * width:.2f}" y="{to_y(v):.1f}" width="{max(width * 0.85, 0.5):.2f}" '
        f'height="{max(158 - to_y(v), 0):.1f}" fill="{"#c2410c" if m else "#2f6fde"}"/>'
        for i, (v, m) in enumerate(zip(y, marked, strict=True))
        if np.isfinite(v)
    ]
    return _plot(
        title, "".join(shapes), np.array([0, len(y) - 1.0]), np.array([low, high]), x_label
    )


def _axis(values: np.ndarray, start: float, end: float):
    low, high = float(values.min()), float(values.max())
    span = high - low if high > low else 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _plot(title: str, shapes: str, x: np.ndarray, y: np.ndarray, x_label: str) -> str:
    style = 'font-size="11" fill="#5b6470" font-family="system-ui, sans-serif"'
    labels = (
        f'<text x="{_LEFT - 6}" y="18" text-anchor="end" {style}>{_short(y.max())}</text>'
        f'<text x="{_LEFT - 6}" y="158" text-anchor="end" {style}>{_short(y.min())}</text>'
        f'<text x="{_LEFT}" y="174" {style}>{_short(x.min())}</text>'
        f'<text x="{_RIGHT}" y="174" text-anchor="end" {style}>{_short(x.max())}</text>'
        f'<text x="{(_LEFT + _RIGHT) / 2}" y="174" text-anchor="middle" {style}>'
        f"{escape(x_label)}</text>"
    )
    frame = f'<path d="M{_LEFT} 14V158H{_RIGHT}" fill="none" stroke="#d9dde3"/>'
    return (
        f'<figure style="margin:0"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 400 180" role="img" aria-label="{escape(title)}">'
        f"{frame}{shapes}{labels}</svg></figure>"
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
