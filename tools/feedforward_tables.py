"""Fill Tables 2 to 6 of the paper MoVieS for a network, from the data that are there.

    python tools/feedforward_tables.py movies.safetensors --realestate10k re10k --dycheck iphone \
        --nvidia nvidia_long --adt tapvid3d/adt --drivetrack tapvid3d/drivetrack \
        --pstudio tapvid3d/pstudio --row static=movies_static.safetensors --json tables.json

Beside every figure is the published one, in brackets; a benchmark that is not given is "no data", a
row of a network that is not given (`--row NAME=FILE`) likewise. docs/feedforward_evaluation.md has
the layouts and the protocols, and what of them is from the paper.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from pathlib import Path
from typing import Any

from feedforward_benchmarks import Options, evaluate_benchmark
from machine import describe_machine
from published_movies import BENCHMARKS, TABLES, Column, Row, Table

from msdyn.errors import InputError, MsdynError
from msdyn.evaluate import load_lpips
from msdyn.feedforward.predictor import Predictor
from msdyn.writing import without_nan, write_json

NETWORKS = tuple(
    dict.fromkeys(r.network for t in TABLES for r in t.rows if r.network not in (None, "model"))
)
SOURCE = "Lin et al., MoVieS, 2025"


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        result = _run(arguments)
    except (MsdynError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for table in TABLES:
        sys.stdout.write(text_of(table, result["figures"]) + "\n")
    sys.stdout.write(
        f"measured (published: {SOURCE})\n"
        f"LPIPS on VGG-16 for RealEstate10K: {result['lpips']['vgg']}\n"
        f"LPIPS on AlexNet for the others: {result['lpips']['alex']}\n"
    )
    if arguments.note:
        sys.stdout.write(arguments.note + "\n")
    if arguments.json:
        write_json(arguments.json, result)
    return 0


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate all networks on the benchmarks that their rows need."""
    files = {"model": arguments.model, **_rows(arguments.row)}
    lpips = {"alex": load_lpips(arguments.lpips), "vgg": None}
    if arguments.lpips_vgg:
        lpips["vgg"] = load_lpips(arguments.lpips_vgg)
    for name, found in lpips.items():
        if found is not None and found.network != name:
            raise InputError(f"--lpips: expected weights with {name}, got {found.source}")
    options = Options(
        lpips=lpips["alex"],
        lpips_vgg=lpips["vgg"],
        through=arguments.through,
        index=arguments.realestate10k_index,
        clips=arguments.clips,
        max_frames=arguments.max_frames,
        every=arguments.nvidia_every,
        factor=arguments.dycheck_factor,
    )
    folders = {name: getattr(arguments, name) for name in BENCHMARKS}
    figures: dict[str, dict[str, Any]] = {}
    networks: dict[str, Any] = {}
    for network, file in files.items():
        predictor = Predictor.load(
            file,
            device=arguments.device,
            frames=arguments.frames,
            every=arguments.every,
            long_side=arguments.long_side,
        )
        networks[network] = _description(predictor)
        figures[network] = {
            benchmark: evaluate_benchmark(predictor, benchmark, folders[benchmark], options)
            for benchmark in _needed(network)
            if folders[benchmark] is not None
        }
    figures = without_nan(figures)
    return {
        "measured_on": describe_machine(None, ("msdyn", "tools")),
        "note": arguments.note,
        "options": {key: _plain(value) for key, value in vars(arguments).items()},
        "lpips": {
            name: found.source if found else "not available: no weights"
            for name, found in lpips.items()
        },
        "networks": networks,
        "figures": figures,
        "tables": {str(table.number): cells_of(table, figures) for table in TABLES},
    }


def _rows(given: list[str]) -> dict[str, str]:
    """Return the files of further networks by name."""
    files = {}
    for text in given:
        name, separator, file = text.partition("=")
        if not separator or name not in NETWORKS:
            raise InputError(
                f"--row: expected NAME=FILE with NAME one of {', '.join(map(str, NETWORKS))}, "
                f"got {text!r}"
            )
        files[name] = file
    return files


def _needed(network: str) -> list[str]:
    """Return the benchmarks of the rows that a network fills."""
    rows = [table for table in TABLES if any(row.network == network for row in table.rows)]
    return list(dict.fromkeys(column.benchmark for table in rows for column in table.columns))


def _description(predictor: Predictor) -> dict[str, Any]:
    path = predictor.found.path
    return {
        "file": path.name,
        "sha256": _digest(path),
        "parameters": sum(value.numel() for value in predictor.model.parameters()),
        "config": predictor.model.config.to_json(),
        "about": predictor.found.about,
        "device": str(predictor.device),
    }


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()


def cells_of(table: Table, figures: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table: measured and published figures, in the paper's units."""
    return [
        {
            "row": row.name,
            "network": row.network,
            "cells": [
                {
                    "benchmark": column.benchmark,
                    "metric": column.name,
                    "measured": measured_in(row, column, figures),
                    "published": published,
                }
                for column, published in zip(table.columns, row.values, strict=True)
            ],
        }
        for row in table.rows
    ]


def measured_in(row: Row, column: Column, figures: dict[str, dict[str, Any]]) -> float | None:
    """Return our figure of a cell, in the paper's unit; None without data."""
    found = figures.get(row.network or "", {}).get(column.benchmark, {}).get(column.figure)
    return None if found is None or not math.isfinite(found) else found * column.factor


def text_of(table: Table, figures: dict[str, dict[str, Any]]) -> str:
    """Return a table as text, a line per row and benchmark."""
    benchmarks = list(dict.fromkeys(column.benchmark for column in table.columns))
    lines = [f"Table {table.number}: {table.title}"]
    for benchmark in benchmarks:
        chosen = [n for n, column in enumerate(table.columns) if column.benchmark == benchmark]
        heads = "".join(f"{table.columns[n].name:>19}" for n in chosen)
        lines.append(f"  {BENCHMARKS[benchmark][0]:<32}{heads}   clips   s/clip")
        for row in table.rows:
            cells = [_cell(row, table.columns[n], row.values[n], figures) for n in chosen]
            found = figures.get(row.network or "", {}).get(benchmark, {})
            count, seconds = found.get("clips"), found.get("seconds")
            tail = "" if count is None else f"{count:>8}"
            tail += "" if seconds is None else f"{seconds:>9.2f}"
            lines.append(f"    {row.name:<30}" + "".join(f"{cell:>19}" for cell in cells) + tail)
    return "\n".join(lines) + "\n"


def _cell(
    row: Row, column: Column, published: float | None, figures: dict[str, dict[str, Any]]
) -> str:
    reported = "-" if published is None else f"{published:.{column.digits}f}"
    if row.network is None:
        return f"({reported})"
    measured = measured_in(row, column, figures)
    if measured is not None:
        return f"{measured:.{column.digits}f} ({reported})"
    evaluated = column.benchmark in figures.get(row.network, {})
    return f"{'no weights' if evaluated and column.figure == 'lpips' else 'no data'} ({reported})"


def _plain(value: Any) -> Any:
    """Return an option as JSON knows it."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model", help="name of a network, or file of weights")
    parser.add_argument("--realestate10k", type=Path, help="folder with index.json")
    parser.add_argument("--dycheck", type=Path, help="folder of sequences")
    parser.add_argument("--nvidia", type=Path, help="folder of scenes")
    parser.add_argument("--adt", type=Path, help="folder of npz files of TAPVid-3D")
    parser.add_argument("--drivetrack", type=Path, help="folder of npz files of TAPVid-3D")
    parser.add_argument("--pstudio", type=Path, help="folder of npz files of TAPVid-3D")
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help=f"a further network: {', '.join(map(str, NETWORKS))}",
    )
    parser.add_argument(
        "--through",
        choices=("network", "sequence"),
        default="network",
        help="ask the network for every image, or evaluate the sequence that msdyn-predict makes",
    )
    parser.add_argument("--realestate10k-index", type=Path, help="evaluation index (JSON)")
    parser.add_argument("--dycheck-factor", type=int, default=1, help="1 full size, 2 half")
    parser.add_argument("--nvidia-every", type=int, default=1, help="each so-many-th time")
    parser.add_argument("--max-frames", type=int, help="of a clip of TAPVid-3D, from its start")
    parser.add_argument("--clips", type=int, help="at most so many clips of a benchmark")
    parser.add_argument("--frames", type=int, help="input frames of a window")
    parser.add_argument("--every", type=int, help="distance of the input frames")
    parser.add_argument("--long-side", type=int, help="of the network's images, px")
    parser.add_argument(
        "--lpips", type=Path, nargs="+", default=(), help="weights of LPIPS on AlexNet, 2 files"
    )
    parser.add_argument("--lpips-vgg", type=Path, nargs="+", default=(), help="the same on VGG-16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--note", default="", help="said with the figures, as that data are made")
    parser.add_argument("--json", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
