"""Elements of self-contained HTML reports.

Pages load no other resources: images and videos are data URIs, plots are SVG. Text is escaped
unless it is `Markup`, so file and object names are safe. Data of a script are in an element of
their own, which is no script, and the page's policy admits only the scripts that are ours.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup

from msdyn.reading import read_bytes

__all__ = [
    "Markup",
    "Path3D",
    "bars",
    "curve",
    "data_script",
    "details",
    "element",
    "figure",
    "page",
    "paths_3d",
    "picture",
    "policy",
    "row",
    "section",
    "table",
    "video",
]

_CSS = """
:root { --ink: #1b1f24; --soft: #5b6470; --line: #d9dde3; --warm: #c2410c; }
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
.row { display: grid; gap: 6px; margin-bottom: 10px;
  grid-template-columns: repeat(var(--columns), 1fr); }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .82rem; }
img, video, svg { display: block; width: 100%; height: auto; }
video { max-width: 860px; background: #000; }
.plots { display: grid; grid-template-columns: repeat(2, 1fr); gap: 14px 26px; }
.warning { border-left: 4px solid var(--warm); background: #fff7ed; padding: .5rem .8rem;
  margin: .5rem 0; }
.fine { border-left: 4px solid #15803d; background: #f0fdf4; padding: .5rem .8rem; }
.grade { padding: .05rem .6rem; border-radius: 1rem; color: #fff; font-size: .9rem; }
.good { background: #15803d; } .usable { background: #a16207; } .poor { background: #b91c1c; }
canvas { width: 100%; height: 360px; border: 1px solid var(--line); touch-action: pan-y;
  cursor: grab; }
pre { background: #f6f7f9; padding: .8rem; overflow-x: auto; font-size: .82rem; }
details { margin: .3rem 0; } summary { cursor: pointer; }
@media (max-width: 640px) {
  .row { grid-template-columns: repeat(min(var(--columns), 2), 1fr); }
  .plots { grid-template-columns: 1fr; } body { padding: 14px 12px 40px; }
  table { font-size: .72rem; } th, td { padding-right: .35rem; }
  td:first-child { white-space: nowrap; } }
"""
_LARGEST_VIDEO = 2**30
"""Bytes of a video in a page."""
_LEFT, _RIGHT = 56, 396
"""Left and right end of a plot of width 400: seven characters fit to the left, as in 0.04511."""


def element(name: str, *children: str, **attributes: str) -> Markup:
    """Return an HTML element; text and values of attributes are escaped.

    Args:
        name: of the element, such as `p`.
        children: text, or elements as `Markup`.
        attributes: of the element; `class_` stands for `class` and `aria_label` for `aria-label`.
    """
    pairs = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    tag = [name, *(Markup('{}="{}"').format(*pair) for pair in pairs.items())]
    content = Markup("").join(children)
    return Markup("<{}>{}</{}>").format(Markup(" ").join(tag), content, name)


def page(title: str, *body: str) -> str:
    """Return an HTML document with a title and the elements of its body."""
    return Markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "{}<title>{}</title><style>{}</style></head>\n<body>\n{}\n</body></html>\n"
    ).format(policy(_paths_script()), title, Markup(_CSS), Markup("\n").join(body))


def policy(*scripts: str) -> Markup:
    """Return the element by which a page runs these scripts and no others, and loads nothing.

    Args:
        scripts: content of the script elements of the page.
    """
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    sources = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    text = (
        f"default-src 'none'; script-src {' '.join(sources)}; style-src 'unsafe-inline'; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )
    return Markup('<meta http-equiv="Content-Security-Policy" content="{}">').format(text)


def data_script(data: object, name: str) -> Markup:
    """Return JSON values as an element that is no script, for a script to read.

    Args:
        data: finite numbers, texts, lists and mappings.
        name: of the element.

    Raises:
        ValueError: a number is not finite.
    """
    # Written as an escape, "<" in a text cannot end the element early.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return Markup('<script type="application/json" id="{}">{}</script>').format(name, Markup(text))


def section(heading: str, *children: str) -> Markup:
    """Return a heading of the second level and what follows it."""
    return Markup("").join([element("h2", heading), *children])


def details(summary: str, *children: str) -> Markup:
    """Return content collapsed below a summary."""
    return element("details", element("summary", summary), *children)


def figure(content: str, caption: str) -> Markup:
    """Return content with a caption below."""
    return element("figure", content, element("figcaption", caption))


def row(figures: Sequence[str]) -> Markup:
    """Return figures of equal width side by side; two per row on narrow screens."""
    return element("div", *figures, class_="row", style=f"--columns: {len(figures)}")


def picture(
    image: UInt8[np.ndarray, "height width 3"], caption: str, *, longest: int = 480
) -> Markup:
    """Return an image as a figure, scaled down so that its longer side is at most `longest` px."""
    from PIL import Image

    shown = Image.fromarray(image)
    shown.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="JPEG", quality=85)
    source = _data_uri("image/jpeg", buffer.getvalue())
    return figure(Markup('<img alt="{}" src="{}">').format(caption, source), caption)


def video(path: Path, description: str = "") -> Markup:
    """Return an MP4 file as a video that plays automatically in a loop.

    Args:
        path: of the file.
        description: text for those who do not see the video.
    """
    source = _data_uri("video/mp4", read_bytes(path, _LARGEST_VIDEO))
    return Markup(
        '<video src="{}" aria-label="{}" autoplay loop muted playsinline controls></video>'
    ).format(source, description)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> Markup:
    """Return a table.

    Args:
        head: titles of the columns.
        rows: cells, text or elements.
        numbers: whether all columns but the first are numbers, aligned to the right.
    """

    def line(kind: str, cells: Sequence[str]) -> Markup:
        first, *others = cells
        attributes = {"class_": "n"} if numbers else {}
        return element(
            "tr", element(kind, first), *(element(kind, cell, **attributes) for cell in others)
        )

    lines = [line("th", head), *(line("td", cells) for cells in rows)]
    return element("div", element("table", *lines), class_="wide")


@dataclass(frozen=True)
class Path3D:
    """A polyline in the world; if it has a name, its end is marked with a dot and the name."""

    points: Float[np.ndarray, "points 3"]
    colour: str
    name: str = ""


def paths_3d(
    paths: Sequence[Path3D],
    points: Float[np.ndarray, "points 3"],
    view_from_world: Float[np.ndarray, "3 3"],
) -> Markup:
    """Return an interactive canvas with paths and points in 3D: drag to rotate, wheel to zoom.

    Args:
        paths: in world coordinates; points that are not finite are left out.
        points: further world points, drawn as small dots.
        view_from_world: rotation to the first view, x to the right and y down.
    """
    finite = [path.points[np.isfinite(path.points).all(1)] for path in paths]
    points = points[np.isfinite(points).all(1)]
    data = {
        "paths": [
            {"name": path.name, "colour": path.colour, "points": known.round(6).tolist()}
            for path, known in zip(paths, finite, strict=True)
            if len(known)
        ],
        "points": points.round(6).tolist(),
        "rotation": view_from_world.round(9).tolist(),
    }
    return Markup('<canvas id="paths"></canvas>{}<script>{}</script>').format(
        data_script(data, "paths-data"), Markup(_paths_script())
    )


def _paths_script() -> str:
    return files("msdyn").joinpath("paths.js").read_text(encoding="utf-8")


def curve(
    title: str, x: Sequence[float], y: Sequence[float], x_label: str, *, log: bool = False
) -> Markup:
    """Return a line plot, or nothing if fewer than two values are finite.

    Args:
        title: above the plot.
        x: abscissae.
        y: ordinates; values that are not finite, or not positive with `log`, are left out.
        x_label: below the axis.
        log: whether the ordinate is logarithmic.
    """
    values = np.asarray(y, float)
    shown = np.log10(np.where(values > 0, values, np.nan)) if log else values
    good = np.isfinite(shown)
    if good.sum() < 2:
        return Markup("")
    xs, ys = np.asarray(x, float)[good], shown[good]
    to_x, to_y = _axis(xs, _LEFT, _RIGHT), _axis(ys, 158, 14)
    points = " ".join(f"{to_x(a):.1f},{to_y(b):.1f}" for a, b in zip(xs, ys, strict=True))
    line = Markup(f'<polyline points="{points}" fill="none" stroke="#2f6fde" stroke-width="1.6"/>')
    return _plot(title, line, xs, values[good], x_label)


def bars(title: str, values: Sequence[float], marked: Sequence[bool], x_label: str) -> Markup:
    """Return a bar chart, or nothing if no value is finite.

    Args:
        title: above the chart.
        values: one per bar; those that are not finite are left out.
        marked: which bars are orange.
        x_label: below the axis.
    """
    y = np.asarray(values, float)
    good = np.isfinite(y)
    if not good.any():
        return Markup("")
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
    ends = np.array([0, len(y) - 1.0])
    return _plot(title, Markup("".join(shapes)), ends, np.array([low, high]), x_label)


def _axis(
    values: Float[np.ndarray, " values"], start: float, end: float
) -> Callable[[float], float]:
    low, high = float(values.min()), float(values.max())
    span = high - low if high > low else 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _plot(
    title: str,
    shapes: Markup,
    x: Float[np.ndarray, " values"],
    y: Float[np.ndarray, " values"],
    x_label: str,
) -> Markup:
    def label(x: float, y: int, anchor: str, text: str) -> Markup:
        return Markup(
            '<text x="{}" y="{}" text-anchor="{}" font-size="11" fill="#5b6470" '
            'font-family="system-ui, sans-serif">{}</text>'
        ).format(x, y, anchor, text)

    labels = [
        label(_LEFT - 6, 18, "end", _short(y.max())),
        label(_LEFT - 6, 158, "end", _short(y.min())),
        label(_LEFT, 174, "start", _short(x.min())),
        label(_RIGHT, 174, "end", _short(x.max())),
        label((_LEFT + _RIGHT) / 2, 174, "middle", x_label),
    ]
    frame = Markup(f'<path d="M{_LEFT} 14V158H{_RIGHT}" fill="none" stroke="#d9dde3"/>')
    drawing = element(
        "svg", frame, shapes, *labels, viewBox="0 0 400 180", role="img", aria_label=title
    )
    return element("figure", element("figcaption", title), drawing)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
