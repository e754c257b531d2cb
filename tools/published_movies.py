"""The tables of the paper MoVieS: columns, rows, and the figures that it reports.

Reference: Lin et al., "MoVieS: Motion-Aware 4D Dynamic View Synthesis in One Second", 2025, Tables
2 to 6. Figures are as printed: SSIM on RealEstate10K and the shares of points in per cent.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BENCHMARKS", "TABLES", "Column", "Row", "Table"]

_IMAGES = (("PSNR", "psnr"), ("SSIM", "ssim"), ("LPIPS", "lpips"))
_MASKED = (("mPSNR", "psnr"), ("mSSIM", "mssim"), ("mLPIPS", "lpips"))
_POINTS = (("EPE3D", "epe3d"), ("d.05", "delta_0.05"), ("d.10", "delta_0.10"))

BENCHMARKS = {
    "realestate10k": ("RealEstate10K", _IMAGES),
    "dycheck": ("DyCheck", _MASKED),
    "nvidia": ("NVIDIA", _IMAGES),
    "adt": ("Aria Digital Twin", _POINTS),
    "drivetrack": ("DriveTrack", _POINTS),
    "pstudio": ("Panoptic Studio", _POINTS),
}
"""By benchmark: its name, and the metrics with their names in our results."""


@dataclass(frozen=True)
class Column:
    """A metric of a benchmark.

    Attributes:
        benchmark: one of `BENCHMARKS`.
        name: as in the paper.
        figure: name in our results.
        factor: of our figure, for the paper's unit.
        digits: after the point.
    """

    benchmark: str
    name: str
    figure: str
    factor: float = 1.0
    digits: int = 4


@dataclass(frozen=True)
class Row:
    """A network or method.

    Attributes:
        name: as in the paper.
        network: which of our networks fills the row, None for other methods.
        values: of all columns, None where the paper has none.
    """

    name: str
    network: str | None
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def _columns(*benchmarks: str) -> tuple[Column, ...]:
    columns = []
    for benchmark in benchmarks:
        for name, figure in BENCHMARKS[benchmark][1]:
            percent = figure.startswith("delta") or (benchmark, name) == ("realestate10k", "SSIM")
            digits = 2 if percent or "PSNR" in name else 3 if benchmark == "realestate10k" else 4
            columns.append(Column(benchmark, name, figure, 100.0 if percent else 1.0, digits))
    return tuple(columns)


_ADT_OURS = (0.2153, 52.05, 71.63)
_ADT_WITHOUT_MOTION = (0.7938, 19.58, 32.86)
_NO_FIGURES = (None, None, None)

TABLES = (
    Table(
        2,
        "Novel view synthesis",
        _columns("realestate10k", "dycheck", "nvidia"),
        (
            Row("DepthSplat", None,
                (26.57, 80.06, 0.124, 13.83, 0.4364, 0.3850, 17.16, 0.5002, 0.3023)),
            Row("GS-LRM (their reimplementation)", None,
                (26.94, 79.13, 0.139, 14.60, 0.4535, 0.3775, 17.83, 0.4988, 0.3265)),
            Row("Ours (static)", "static",
                (27.60, 81.25, 0.113, 15.24, 0.4784, 0.3783, 18.73, 0.5042, 0.2959)),
            Row("Splatter-a-Video", None,
                (*_NO_FIGURES, 13.61, 0.3131, 0.5706, 14.39, 0.2538, 0.5983)),
            Row("Shape-of-Motion", None,
                (*_NO_FIGURES, 17.96, 0.5662, 0.3463, 15.30, 0.3169, 0.5087)),
            Row("MoSca", None, (*_NO_FIGURES, 18.24, 0.5514, 0.3698, 21.45, 0.7123, 0.2653)),
            Row("Ours", "model",
                (26.98, 81.75, 0.111, 18.46, 0.5887, 0.3094, 19.16, 0.5141, 0.3152)),
        ),
    ),
    Table(
        3,
        "3D point tracking",
        _columns("adt", "drivetrack", "pstudio"),
        (
            Row("BootsTAPIR", None,
                (0.5539, 17.73, 32.97, 0.0617, 55.82, 75.66, 0.0650, 69.28, 87.95)),
            Row("CoTracker3", None,
                (0.5614, 19.88, 35.82, 0.0637, 55.30, 77.55, 0.0617, 69.27, 88.04)),
            Row("SpatialTracker", None,
                (0.5413, 18.08, 38.23, 0.0648, 56.58, 80.67, 0.0519, 72.91, 89.86)),
            Row("Ours", "model", (*_ADT_OURS, 0.0472, 60.63, 79.87, 0.0352, 87.88, 94.61)),
        ),
    ),
    Table(
        4,
        "Camera conditioning, static stage",
        _columns("realestate10k"),
        (
            Row("N/A", "table4.none", (25.56, 74.13, 0.150)),
            Row("+ Plücker embedding", "table4.plucker", (25.81, 74.44, 0.143)),
            Row("+ Camera token", "table4.camera_token", (26.81, 78.65, 0.121)),
            Row("Ours (static)", "static", (27.60, 81.25, 0.113)),
        ),
    ),
    Table(
        5,
        "Motion supervision",
        _columns("adt"),
        (
            Row("N/A", "table5.none", _ADT_WITHOUT_MOTION),
            Row("+ Point-wise L1", "table5.point", (0.2262, 48.74, 69.93)),
            Row("+ Distribution loss", "table5.distribution", (0.2496, 45.98, 66.87)),
            Row("Ours", "model", _ADT_OURS),
        ),
    ),
    Table(
        6,
        "Motion and view synthesis",
        _columns("dycheck", "nvidia", "adt"),
        (
            Row("NVS w/o motion", "table6.nvs",
                (15.82, 0.4796, 0.3741, 18.38, 0.4856, 0.3010, *_ADT_WITHOUT_MOTION)),
            Row("Motion w/o NVS", "table6.motion",
                (16.26, 0.4556, 0.3461, 18.98, 0.4939, 0.3207, 0.3801, 24.72, 42.92)),
            # The SSIM on NVIDIA is .5141 in Table 2.
            Row("Ours", "model", (18.46, 0.5887, 0.3094, 19.16, 0.5041, 0.3152, *_ADT_OURS)),
        ),
    ),
)  # fmt: skip
