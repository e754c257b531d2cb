"""Results on real recordings: means over recordings, a table, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from machine import describe_command, describe_machine
from sheet import mean_of_known, strip_of, write_sheet

from msdyn.writing import without_nan

__all__ = ["summarise_real", "write_real_pictures", "write_real_table"]

COLUMNS = {
    "mpsnr": ("mPSNR", 1, 2),
    "mssim": ("mSSIM", 1, 3),
    "ssim": ("SSIM", 1, 3),
    "mlpips": ("mLPIPS", 1, 3),
    "flicker": ("flicker", 1000, 2),
    "epe3d": ("EPE, units / 100", 100, 2),
    "acceleration_error": ("accel., units / 1000", 1000, 2),
}
"""Title, factor and digits of each figure. Columns without any figure are left out."""


def summarise_real(
    results: list[dict[str, Any]],
    layouts: dict[str, str],
    failures: dict[str, str],
    seconds: float,
    command: list[str],
) -> dict[str, Any]:
    """Return means of every row over recordings, the differences of rows, and all results."""
    rows = {}
    for row in dict.fromkeys(r["row"] for r in results):
        own = [r for r in results if r["row"] == row]
        rows[row] = {
            **{key: mean_of_known([r[key] for r in own]) for key in COLUMNS},
            "fit_seconds": mean_of_known([r["seconds"]["fit"] for r in own]),
            "recordings": {r["scene"]: {key: r[key] for key in COLUMNS} for r in own},
        }
    return without_nan(
        {
            "command": describe_command("benchmark.py", command),
            "seconds": seconds,
            "machine": describe_machine(),
            "commits": sorted({str(r["stamp"]["commit"]) for r in results}),
            "layouts": layouts,
            "failures": failures,
            "rows": rows,
            # Without what a fit is made of, which names folders.
            "results": [{k: v for k, v in r.items() if k != "made_of"} for r in results],
        }
    )


def write_real_table(summary: dict[str, Any], path: Path) -> str:
    """Write and return the markdown tables: means over recordings, and mPSNR of each."""
    rows = summary["rows"]
    keys = [key for key in COLUMNS if any(v[key] is not None for v in rows.values())]
    lines = ["Means over recordings that have the figure:", ""]
    lines.append("| | " + " | ".join([COLUMNS[key][0] for key in keys] + ["fit, s"]) + " |")
    lines.append("|---" * (len(keys) + 2) + "|")
    for row, values in rows.items():
        cells = [_cell(key, values[key]) for key in keys]
        lines.append(f"| {row} | " + " | ".join([*cells, f"{values['fit_seconds']:.0f}"]) + " |")
    lines += ["", "mPSNR by recording:", "", "| recording | layout | " + " | ".join(rows) + " |"]
    lines.append("|---" * (len(rows) + 2) + "|")
    for name, layout in summary["layouts"].items():
        found = [values["recordings"].get(name, {}).get("mpsnr") for values in rows.values()]
        cells = [_cell("mpsnr", value) for value in found]
        lines.append(f"| {name} | {layout} | " + " | ".join(cells) + " |")
    if summary["failures"]:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}: {reason}" for name, reason in summary["failures"].items()]
    text = "\n".join([*lines, ""])
    path.write_text(text, encoding="utf-8")
    return text


def write_real_pictures(results: list[dict[str, Any]], out: Path) -> None:
    """Write a sheet: for each recording the true image of a held-out camera, and its renders."""
    strips = []
    for scene in dict.fromkeys(r["scene"] for r in results):
        comparisons = []
        for r in (r for r in results if r["scene"] == scene):
            plain = "".join(c if c.isalnum() else "_" for c in r["row"])
            files = sorted((out / "fits" / scene / plain).glob("*.png"))
            comparisons += [(r, path) for path in files[:1]]
        strips.append(strip_of(scene, comparisons))
    write_sheet(out / "pictures.png", strips)


def _cell(key: str, value: float | None) -> str:
    """Return a figure as the table shows it."""
    _, factor, digits = COLUMNS[key]
    return "-" if value is None else f"{factor * value:.{digits}f}"
