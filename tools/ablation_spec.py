"""The rows, scenes and priors of the ablation, and the fits of a suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "FROZEN",
    "MAIN_ROWS",
    "ORACLES",
    "PRIORS",
    "RANDOM_SCENES",
    "ROWS",
    "SCENES",
    "SHOWN",
    "Cell",
    "Size",
    "cells_of",
]

ROWS: dict[str, dict[str, Any]] = {
    "L1": {"levels": 1},
    "L1+L2": {"levels": 2},
    "L1+L2, K=10": {"levels": 2, "k_primitive": 10},
    "full": {},
    "full, K=10": {"k_primitive": 10},
    "L1-L4": {"levels": 4},
    "rgb only": {"losses": "rgb"},
    "levels apart": {"joint_refinement": "off"},
    "given tracks": {"static_tracks": "given"},
    "one frame's depth": {"initial_depth": "given"},
    "spheres": {"initial_shape": "sphere"},
    "no jitter": {"order_jitter": 0.0},
    "camera's order": {"order": "own"},
    "spheres, camera's order": {"initial_shape": "sphere", "order_jitter": 0.0, "order": "own"},
    "no life spans": {"life_spans": "off"},
    "given depth": {"object_depth": "given"},
    "time-varying": {"weights": "time-varying"},
    "single": {"model": "single", "k": 10},
}
ORACLES: dict[str, dict[str, Any]] = {
    "true motion": {"model": "true-motion"},
    "true patterns": {"model": "true-patterns"},
    "true motion, 60 epochs": {"model": "true-motion", "epochs": 60},
    "true motion, 200 epochs": {"model": "true-motion", "epochs": 200},
    "true motion, SH 1": {"model": "true-motion", "sh_degree": 1},
    "true motion, 2x Gaussians": {
        "model": "true-motion",
        "static_gaussians": 24_000,
        "moving_gaussians": 12_000,
        "density": {"max_static": 40_000, "max_moving": 24_000},
    },
    "full, 60 epochs": {"epochs": 60},
    "frozen": {},
    "frozen, around": {},
    "frozen, 60 epochs": {"epochs": 60},
    "frozen, SH 1": {"sh_degree": 1},
    "frozen, 2x Gaussians": {
        "static_gaussians": 24_000,
        "density": {"max_static": 40_000},
    },
}
"""Rows that know something of the truth (`true_motion.py`, `frozen_scene.py`), and longer fits."""
FROZEN = {row: row.endswith("around") for row in ORACLES if row.startswith("frozen")}
"""Rows of a scene that stands still: whether its cameras are all around or those of the clip."""
ROWS |= ORACLES
MAIN_ROWS = ("L1", "L1+L2", "full", "single")
SCENES = ("rigid", "articulated", "deformable", "rigid-deformable", "two-hands")
RANDOM_SCENES = tuple(f"random-{number}" for number in range(5))
"""Random scenes for work; those from 5 to 9 are kept for the final table."""
PRIORS = ("exact", "sensor", "casual")
SHOWN = 2 / 3
"""The frame shown in the pictures, as a fraction of the clip."""


@dataclass(frozen=True)
class Cell:
    """One fit: a row on a scene with a kind of priors and a seed."""

    row: str
    scene: str
    priors: str
    seed: int

    def folder(self, out: Path) -> Path:
        name = "".join(c if c.isalnum() else "_" for c in self.row)
        return out / self.scene / f"{self.priors}-{self.seed}" / f"fit_{name}"


@dataclass(frozen=True)
class Size:
    """Size of the scenes and length of the fits."""

    frames: int = 36
    width: int = 240
    epochs: int = 20

    @property
    def height(self) -> int:
        return self.width * 3 // 4


def cells_of(
    suite: str, scenes: list[str], priors: list[str], rows: list[str], seeds: int
) -> list[Cell]:
    """Return the fits of a suite: sensor priors, main rows and first seeds first."""
    cells = [Cell(row, scene, kind, 0) for kind in priors for row in rows for scene in scenes]
    if suite == "full" and "sensor" in priors:
        main = [row for row in rows if row in MAIN_ROWS]
        cells += [
            Cell(row, scene, "sensor", seed)
            for seed in range(1, seeds)
            for row in main
            for scene in scenes
        ]
    return sorted(cells, key=lambda c: (c.priors != "sensor", c.row not in MAIN_ROWS, c.seed))
