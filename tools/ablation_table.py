"""Results of the ablation: means over scenes and seeds, a table, a figure and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from ablation_spec import MAIN_ROWS, Cell
from machine import describe_machine

__all__ = ["summarise", "write_figure", "write_pictures", "write_table"]

FIGURES = (
    "mpsnr",
    "mssim",
    "ssim",
    "epe3d",
    "epe3d_visible",
    "epe3d_blended",
    "rotation_degrees",
    "translation",
    "flicker",
    "acceleration_error",
)


def summarise(results: list[dict[str, Any]], seconds: float, command: list[str]) -> dict[str, Any]:
    """Return means of every row and kind of priors over scenes, and all results.

    `spread` is the standard deviation over seeds of the mean over scenes, where there are several.
    """
    rows: dict[str, dict[str, Any]] = {}
    for priors, row in dict.fromkeys((r["priors"], r["row"]) for r in results):
        own = [r for r in results if r["row"] == row and r["priors"] == priors]
        seeds = sorted({r["seed"] for r in own})
        by_seed = {
            key: [
                _mean([r[key] for r in own if r["seed"] == s and r[key] is not None]) for s in seeds
            ]
            for key in FIGURES
        }
        rows.setdefault(priors, {})[row] = {
            **{key: float(np.mean(values)) for key, values in by_seed.items()},
            "spread": {key: float(np.std(v)) for key, v in by_seed.items() if len(v) > 1},
            "seeds": len(seeds),
            "fit_seconds": float(np.mean([r["seconds"]["fit"] for r in own])),
            "scenes": {
                scene: {
                    key: float(np.mean([r[key] for r in own if r["scene"] == scene]))
                    for key in ("mpsnr", "epe3d")
                }
                for scene in dict.fromkeys(r["scene"] for r in own)
            },
        }
    return {
        "command": " ".join(["python tools/ablation.py", *command]),
        "seconds": seconds,
        "machine": describe_machine(),
        "commits": sorted({str(r["stamp"]["commit"]) for r in results}),
        "priors": rows,
        "results": results,
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def write_table(summary: dict[str, Any], path: Path) -> str:
    """Write and return the markdown tables: one for each kind of priors, one of the scenes."""
    lines = []
    for priors, rows in summary["priors"].items():
        lines += [
            f"**{priors} priors**, means over scenes",
            "",
            "| | mPSNR | mSSIM | SSIM | EPE, cm | visible, cm | blended, cm "
            "| rotation, deg | position, cm | flicker | accel., mm | fit, s |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row, v in rows.items():
            spread = f" ± {v['spread']['mpsnr']:.2f}" if v["spread"] else ""
            lines.append(
                f"| {row} | {v['mpsnr']:.2f}{spread} | {v['mssim']:.3f} | {v['ssim']:.3f} "
                f"| {100 * v['epe3d']:.2f} | {100 * v['epe3d_visible']:.2f} "
                f"| {100 * v['epe3d_blended']:.2f} | {v['rotation_degrees']:.1f} "
                f"| {100 * v['translation']:.2f} | {1000 * v['flicker']:.2f} "
                f"| {1000 * v['acceleration_error']:.2f} | {v['fit_seconds']:.0f} |"
            )
        scenes = list(next(iter(rows.values()))["scenes"])
        lines += [
            "",
            "mPSNR and EPE in cm by scene:",
            "",
            "| | " + " | ".join(scenes) + " |",
            "|---|" + "---|" * len(scenes),
        ]
        lines += [
            f"| {row} | "
            + " | ".join(f"{f['mpsnr']:.2f} / {100 * f['epe3d']:.2f}" for f in v["scenes"].values())
            + " |"
            for row, v in rows.items()
        ]
        lines.append("")
    text = "\n".join(lines)
    path.write_text(text, encoding="utf-8")
    return text


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
            for scene in next(iter(rows.values()))["scenes"]:
                axis.plot(
                    [factor * rows[n]["scenes"][scene][key] for n in names],
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
    from PIL import Image, ImageDraw

    main = [r for r in results if r["row"] in MAIN_ROWS and r["priors"] == "sensor"]
    strips = []
    for scene in dict.fromkeys(r["scene"] for r in main):
        panels, titles = [], [f"{scene}: truth"]
        for r in (r for r in main if r["scene"] == scene and r["seed"] == 0):
            folder = Cell(r["row"], scene, "sensor", 0).folder(out)
            truth, image, _ = np.split(iio.imread(sorted(folder.glob("*.png"))[-1]), 3, axis=1)
            panels = panels or [truth]
            panels.append(image)
            titles.append(f"{r['row']}: {r['mpsnr']:.1f} dB")
        strip = np.concatenate(panels, axis=1)
        band = Image.new("RGB", (strip.shape[1], 18), (20, 20, 24))
        for number, title in enumerate(titles):
            position = (number * strip.shape[1] // len(panels) + 5, 3)
            ImageDraw.Draw(band).text(position, title, fill=(235, 235, 235))
        strips += [np.asarray(band), strip]
    if strips:
        widest = max(s.shape[1] for s in strips)
        padded = [np.pad(s, ((0, 0), (0, widest - s.shape[1]), (0, 0))) for s in strips]
        iio.imwrite(out / "pictures.png", np.concatenate(padded))
