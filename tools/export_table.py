"""What msdyn-export writes of one fit: size, time, and the picture that another reader gives of it.

    python tools/export_table.py out/demo/scene --out out/exports \
        --json benchmarks/exports_cpu.json --docs docs/formats.md --sheet docs/images/exports.jpg

Formats of Gaussians are read by the readers of `tools/read_*.py`, named in the table, drawn from
the clip's cameras at three times and compared with renderings of the sequence (PSNR, the least of
the three). The table replaces the one in the document; the sheet shows the middle picture of each.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from splats import Splats, compare

from msdyn.export import FORMATS, ExportConfig, export_scene
from msdyn.sequence import GaussianSequence, TimeSelection, load_sequence

READERS: dict[str, tuple[str, str]] = {
    "ply": ("read_ply", "plyfile"),
    "glb": ("read_glb", "pygltflib"),
    "usdc": ("read_usd", "OpenUSD (pxr)"),
    "4dgs": ("read_4dgs", "fourdgs"),
    "spz": ("read_spz", "the published layout"),
    "compressed-ply": ("read_compressed_ply", "plyfile and the published layout"),
    "html": ("read_player", "the documented layout"),
    "rrd": ("read_rrd", "rerun"),
}
"""For each format of Gaussians, the module and who reads it there."""
OTHERS = {
    "tracks": "numpy",
    "objects": "TUM's format, JSON",
    "flow": "numpy, Middlebury's .flo",
    "cameras": "pycolmap",
    "points": "open3d",
    "mjcf": "MuJoCo",
    "urdf": "MuJoCo",
}
"""The readers of the other formats in the tests."""
TIMES = (0.0, 0.4, 1.0)
BEGIN, END = "<!-- tools/export_table.py -->", "<!-- end of the table -->"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("scene", type=Path, help="a fitted scene directory")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--formats", default=",".join([*READERS, *OTHERS]))
    parser.add_argument("--count", type=int, default=24, help="number of times")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path, help="document whose table is replaced")
    parser.add_argument("--sheet", type=Path, help="picture file")
    given = parser.parse_args(arguments)
    formats = given.formats.split(",")
    if unknown := set(formats) - set(FORMATS):
        parser.error(f"--formats: no such format: {', '.join(sorted(unknown))}")
    sequence = load_sequence(given.scene)
    rows, pictures = [], []
    for name in formats:
        row, pair = measured(sequence, given.scene, given.out, name, given.count)
        rows.append(row)
        pictures += [(name, *pair)] if pair else []
        print(json.dumps(row), flush=True)
    result = {
        "machine": describe_machine(),
        "static": len(sequence.static),
        "moving": len(sequence.moving),
        "times": given.count,
        "pictures_at": TIMES,
        "formats": rows,
    }
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.sheet:
        write_sheet(given.sheet, pictures)
    text = table(result)
    if given.docs:
        replace_table(given.docs, text)
    print(text)
    return 0


def measured(
    sequence: GaussianSequence, scene: Path, folder: Path, name: str, count: int
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray] | None]:
    """Export one format; return its row, and a picture of another reader with ours."""
    times = np.unique([*np.linspace(0, 1, count), *TIMES])
    when = TimeSelection(times=",".join(f"{value:.9g}" for value in times))
    begun = time.perf_counter()
    exported = export_scene(
        ExportConfig(scene=scene, format=name, out=_target(folder, name), when=when)  # pyright: ignore[reportArgumentType]
    )
    row: dict[str, Any] = {
        "format": name,
        "bytes": exported.size,
        "files": len(exported.files),
        "seconds": time.perf_counter() - begun,
    }
    if name not in READERS:
        return row, None
    module, _ = READERS[name]
    at: Callable[[Path, float], Splats] = importlib.import_module(module).splats_at
    found = compare(sequence, lambda moment: at(exported.path, moment), list(TIMES))
    row["psnr_db"] = [value for value, _, _ in found]
    return row, (found[1][1], found[1][2])


def _target(folder: Path, name: str) -> Path:
    suffixes = {"glb", "usdc", "4dgs", "html", "rrd"}
    return folder / (f"sequence.{name}" if name in suffixes else
                     "tracks.npz" if name == "tracks" else name)  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Return the table of the document."""
    commit = result["machine"]["commit"][:7]
    lines = [
        f"The demo's fit ({result['static']} static and {result['moving']} moving Gaussians) at "
        f"{result['times']} times, by",
        "",
        "    python tools/export_table.py out/demo/scene --out out/exports --docs docs/formats.md",
        "",
        f"(two shared cores of an AMD EPYC, at {commit}). Each file is read by the reader named,",
        "drawn in the clip's cameras at three times and compared with our rendering: the picture",
        "is the least PSNR of the three.",
        "",
        "| format | size | files | seconds | read by | picture |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["formats"]:
        reader = READERS.get(row["format"], ("", OTHERS.get(row["format"], "")))[1]
        worst = min(row["psnr_db"]) if "psnr_db" in row else None
        picture = "" if worst is None else "equal" if np.isinf(worst) else f"{worst:.1f} dB"
        lines.append(
            f"| `{row['format']}` | {row['bytes'] / 1e6:.1f} MB | {row['files']} | "
            f"{row['seconds']:.0f} | {reader} | {picture} |"
        )
    return "\n".join(lines)


def replace_table(document: Path, text: str) -> None:
    """Replace the text between the two marks of a document."""
    page = document.read_text(encoding="utf-8")
    found = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.S)
    if len(found.findall(page)) != 1:
        raise SystemExit(f"{document}: expected {BEGIN} and {END} once")
    page = found.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page)
    document.write_text(page, encoding="utf-8")


def write_sheet(path: Path, pictures: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Draw the picture of each reader below its name; ours is the first."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [("msdyn-render", pictures[0][2]), *((name, found) for name, found, _ in pictures)]
    columns = 3
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(9.6, 2.6 * lines), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, image) in zip(axes.flat, shown, strict=False):
        axis.imshow(image)
        axis.set_title(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
