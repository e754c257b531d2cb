"""A sheet of pictures in titled strips, and the mean of figures of which some are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np

__all__ = ["mean_of_known", "strip_of", "write_sheet"]

_BAND, _BACKGROUND, _INK = 18, (20, 20, 24), (235, 235, 235)


def strip_of(
    scene: str, comparisons: list[tuple[dict[str, Any], Path]]
) -> tuple[list[np.ndarray], list[str]]:
    """Return the panels of a strip and their titles: the truth, and the renderings of each result.

    Args:
        scene: its name.
        comparisons: results, and the files with truth, rendering and error side by side.
    """
    panels, titles = [], [f"{scene}: truth"]
    for result, path in comparisons:
        truth, image, _ = np.split(iio.imread(path), 3, axis=1)
        panels = panels or [truth]
        panels.append(image)
        titles.append(f"{result['row']}: {result['mpsnr']:.1f} dB")
    return panels, titles


def write_sheet(path: Path, strips: list[tuple[list[np.ndarray], list[str]]]) -> None:
    """Write strips of panels of equal size below one another; empty strips are left out."""
    from PIL import Image, ImageDraw

    rows = []
    for panels, titles in strips:
        if not panels:
            continue
        strip = np.concatenate(panels, axis=1)
        band = Image.new("RGB", (strip.shape[1], _BAND), _BACKGROUND)
        for number, title in enumerate(titles):
            position = (number * strip.shape[1] // len(panels) + 5, 3)
            ImageDraw.Draw(band).text(position, title, fill=_INK)
        rows += [np.asarray(band), strip]
    if rows:
        widest = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows]
        iio.imwrite(path, np.concatenate(padded))


def mean_of_known(values: list[float | None]) -> float:
    """Return the mean of the figures that there are, NaN without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")
