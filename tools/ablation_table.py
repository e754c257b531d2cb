"""Results of the ablation: means over scenes and seeds, a table, a figure and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ablation_spec import Cell
from machine import describe_command, describe_machine
from sheet import mean_of_known, strip_of, write_sheet

__all__ = ["count_wins", "summarise", "write_figure", "write_pictures", "write_table"]

HIGHER_IS_BETTER = ("mpsnr", "mssim", "ssim")
COLUMNS = {
    "mpsnr": ("mPSNR", 1, 2),
    "mssim": ("mSSIM", 1, 3),
    "ssim": ("SSIM", 1, 3),
    "mlpips": ("mLPIPS", 1, 3),
    "epe3d": ("EPE, cm", 100, 2),
    "epe3d_visible": ("visible, cm", 100, 2),
    "epe3d_blended": ("blended, cm", 100, 2),
    "rotation_degrees": ("rotation, deg", 1, 1),
    "translation": ("position, cm", 100, 2),
    "flicker": ("flicker", 1000, 2),
    "acceleration_error": ("accel., mm", 1000, 2),
}
"""Title, factor and digits of each figure in the tables."""
FIGURES = tuple(COLUMNS)
PICTURED = ("true motion", "full", "L1", "L1+L2", "single", "frozen, around")
"""Rows shown in the pictures, as far as they were run."""


def summarise(results: list[dict[str, Any]], seconds: float, command: list[str]) -> dict[str, Any]:
    """Return means of every row and kind of priors over scenes, and all results.

    `spread` is the standard deviation over seeds of the mean over scenes, where there are several.
    """
    rows: dict[str, dict[str, Any]] = {}
    for priors, row in dict.fromkeys((r["priors"], r["row"]) for r in results):
        own = [r for r in results if r["row"] == row and r["priors"] == priors]
        seeds = sorted({r["seed"] for r in own})
        by_seed = {
            key: [mean_of_known([r.get(key) for r in own if r["seed"] == s]) for s in seeds]
            for key in FIGURES
        }
        rows.setdefault(priors, {})[row] = {
            **{key: float(np.mean(values)) for key, values in by_seed.items()},
            "spread": {key: float(np.std(v)) for key, v in by_seed.items() if len(v) > 1},
            "seeds": len(seeds),
            "fit_seconds": float(np.mean([r["seconds"]["fit"] for r in own])),
            "scenes": {
                scene: {
                    key: mean_of_known([r.get(key) for r in own if r["scene"] == scene])
                    for key in ("mpsnr", "epe3d")
                }
                for scene in dict.fromkeys(r["scene"] for r in own)
            },
        }
    return {
        "command": describe_command("ablation.py", command),
        "seconds": seconds,
        "machine": describe_machine(),
        "commits": sorted({str(r["stamp"]["commit"]) for r in results}),
        "priors": rows,
        "wins": {
            priors: count_wins([r for r in results if r["priors"] == priors], "full", "single")
            for priors in rows
            if {"full", "single"} <= set(rows[priors])
        },
        "results": [_without_folders(result) for result in results],
    }


def _without_folders(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result without the folders of its scene and fit, which row and scene name."""
    options = {k: v for k, v in result.get("options", {}).items() if k not in ("scene", "out")}
    return {**result, "options": options} if options else result


def count_wins(results: list[dict[str, Any]], row: str, other: str) -> dict[str, list[int]]:
    """Return for each figure in how many of the fits that both rows have the first is better.

    Returns:
        By figure, the number of scenes and seeds in which `row` is better than `other`, and the
        number of those for which both have the figure.
    """
    by_cell: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for r in results:
        by_cell.setdefault((r["scene"], r["seed"]), {})[r["row"]] = r
    wins = {}
    for key in FIGURES:
        pairs = [
            (c[row].get(key), c[other].get(key)) for c in by_cell.values() if {row, other} <= set(c)
        ]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        better = [(a > b) if key in HIGHER_IS_BETTER else (a < b) for a, b in known]
        wins[key] = [sum(better), len(known)]
    return wins


def write_table(summary: dict[str, Any], path: Path) -> str:
    """Write and return the markdown tables: one for each kind of priors, one of the scenes."""
    lines = []
    for priors, rows in summary["priors"].items():
        titles = [title for title, _, _ in COLUMNS.values()]
        lines += [
            f"**{priors} priors**, means over scenes",
            "",
            f"| | {' | '.join(titles)} | fit, s |",
            "|---|" + "---|" * (len(titles) + 1),
        ]
        for row, v in rows.items():
            cells = [
                _number(factor * v[key], digits) for key, (_, factor, digits) in COLUMNS.items()
            ]
            if v["spread"]:
                cells[0] += f" ± {v['spread']['mpsnr']:.2f}"
            lines.append(f"| {row} | {' | '.join(cells)} | {v['fit_seconds']:.0f} |")
        if wins := summary["wins"].get(priors):
            cells = [f"{better} of {count}" for better, count in wins.values()]
            lines.append(f"| *full better than single* | {' | '.join(cells)} | |")
        scenes = list(dict.fromkeys(scene for v in rows.values() for scene in v["scenes"]))
        lines += [
            "",
            "mPSNR and EPE in cm by scene:",
            "",
            "| | " + " | ".join(scenes) + " |",
            "|---|" + "---|" * len(scenes),
        ]
        lines += [
            f"| {row} | "
            + " | ".join(
                f"{_number(f['mpsnr'], 2)} / {_number(100 * f['epe3d'], 2)}"
                for f in (v["scenes"].get(scene, _NOTHING) for scene in scenes)
            )
            + " |"
            for row, v in rows.items()
        ]
        lines.append("")
    text = "\n".join(lines)
    path.write_text(text, encoding="utf-8")
    return text


_NOTHING = {"mpsnr": float("nan"), "epe3d": float("nan")}


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def write_figure(summary: dict[str, Any], path: Path) -> None:
    """Plot mPSNR and EPE of every row: a dot per scene and a bar for the mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = summary["priors"]
    figure, axes = plt.subplots(
        2, len(kinds), figsize=(1.5 + 3.6 * len(kinds), 6), squeeze=False, sharey="row"
    )
    for column, (priors, rows) in enumerate(kinds.items()):
        for axis, key, factor in (
            (axes[0, column], "mpsnr", 1),
            (axes[1, column], "epe3d", 100),
        ):
            names = list(rows)
            axis.barh(
                names, [factor * rows[n][key] for n in names], color="#c9d6e8", zorder=1, height=0.7
            )
            for scene in dict.fromkeys(scene for row in rows.values() for scene in row["scenes"]):
                axis.plot(
                    [factor * rows[n]["scenes"].get(scene, _NOTHING)[key] for n in names],
                    names,
                    "o",
                    markersize=4,
                    label=scene,
                )
            axis.invert_yaxis()
            axis.grid(axis="x", alpha=0.3)
        low = min(f["mpsnr"] for row in rows.values() for f in row["scenes"].values())
        axes[0, column].set_xlim(left=max(0, low - 2))
        axes[0, column].set_title(f"{priors} priors")
        axes[0, column].set_xlabel("mPSNR, dB (higher is better)")
        axes[1, column].set_xlabel("EPE of moving points, cm (lower is better)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="lower center", ncols=3)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_pictures(results: list[dict[str, Any]], out: Path) -> None:
    """Write a sheet: for each scene the true image of a held-out camera, and its renders by row."""
    shown = {
        (r["scene"], r["row"]): r
        for r in reversed(results)  # the first kind of priors of a row is kept
        if r["row"] in PICTURED and r["seed"] == 0
    }
    strips = []
    for scene in dict.fromkeys(r["scene"] for r in results):
        comparisons = []
        for r in (shown[scene, row] for row in PICTURED if (scene, row) in shown):
            folder = Cell(r["row"], scene, r["priors"], 0).folder(out)
            comparisons.append((r, sorted(folder.glob("*.png"))[-1]))
        strips.append(strip_of(scene, comparisons))
    write_sheet(out / "pictures.png", strips)
