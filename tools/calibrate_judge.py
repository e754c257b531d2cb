"""Compare the verdict on scenes with what fits of them are worth.

    python tools/calibrate_judge.py --out out/judge --scenes out/real/scenes

Synthetic scenes with priors of rising errors, and copies of preprocessed scenes (every folder of
--scenes with a scene.json) as they are and with perturbed cameras or depth, are judged, and fitted
for a few epochs with every fourth frame held out. Of each fit are kept, in fits/NAME.json:

    psnr, psnr_moving   of held-out frames, and of their moving pixels
    views               PSNR of held-out cameras, where there are any
    depth               median relative error of the rendered static depth, where the truth is known

A fit that is there already is not repeated; scenes are judged anew each time. Printed is a table,
and Spearman's rank correlation of the score of the judge with each of these: over all runs, within
the runs of each clip (the mean over clips; a clip has a PSNR of its own), and the lowest value when
one clip is left out. Then the scores that best separate runs that lose less than so many dB of
PSNR, compared with the best run of their clip, from those that lose more: that of all clips, the
share of runs on the wrong side, and the same with the limit chosen without the run's own clip.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from machine import describe_machine
from tqdm import tqdm

from msdyn.evaluate.protocol import evaluate_frames, evaluate_views
from msdyn.fit import fit_scene, preset
from msdyn.geometry import Cameras
from msdyn.preprocess.report.fitness import judge_scene, measure_fitness, worst_score
from msdyn.reading import read_json
from msdyn.render import render_image
from msdyn.scene import STATIC, Scene, write_cameras, write_depth
from msdyn.sequence import GaussianSequence
from msdyn.synthetic import LEVELS, PriorLevel, make_scene, render_truth
from msdyn.synthetic.truth import Truth
from msdyn.synthetic.write import write_priors
from msdyn.writing import write_json

FRAMES, WIDTH, HEIGHT = 24, 160, 120
NAMES = ("rigid", "articulated", "two-hands")
EVERY = 4
LOSSES = (3.0, 6.0)  # dB
OUTCOMES = {"psnr": -1, "psnr_moving": -1, "views": -1, "depth": 1}
"""What is measured on a fit, and whether it rises (1) or falls with the badness of the input."""


def _times(level: PriorLevel, factor: float) -> PriorLevel:
    """Return a level with all errors multiplied; shares stay below .6."""
    values = {key: factor * value for key, value in dataclasses.asdict(level).items()}
    values |= {key: min(values[key], 0.6) for key in ("depth_holes", "track_outliers")}
    return PriorLevel(**values)


SYNTHETIC = {
    **LEVELS,
    "casual x 2": _times(LEVELS["casual"], 2),
    "casual x 5": _times(LEVELS["casual"], 5),
    "cameras": dataclasses.replace(LEVELS["sensor"], pose_degrees=2.0, pose_shift=0.08),
    "depth": dataclasses.replace(LEVELS["sensor"], depth_scale=0.25, depth_distortion=0.1),
    "tracks": dataclasses.replace(LEVELS["sensor"], track_jitter=4.0, track_outliers=0.5),
}
# Of a scene without truth: degrees of noise of the cameras, and of the logarithm of the scale of
# the depth of each frame.
COPIES = {"as it is": (0.0, 0.0), "cameras": (1.5, 0.0), "depth": (0.0, 0.3)}


@dataclass(frozen=True)
class Run:
    """A scene to be judged and fitted.

    Attributes:
        clip: its name.
        level: name of the errors of its input.
        make: writes it to a directory.
        truth: with true depth, for synthetic scenes.
    """

    clip: str
    level: str
    make: Callable[[Path], object]
    truth: Callable[[], Truth] | None = None

    @property
    def name(self) -> str:
        return f"{self.clip}-{self.level}".replace(" ", "-")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("out/judge"))
    parser.add_argument("--only", nargs="*", default=list(NAMES), help="synthetic scenes")
    parser.add_argument("--scenes", type=Path, help="folder of preprocessed scenes")
    parser.add_argument("--perturb", nargs="*", default=[], help="of these, also perturbed copies")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--long-side", type=int, default=160)
    arguments = parser.parse_args()
    runs = [*synthetic_runs(arguments.only), *copied_runs(arguments.scenes, arguments.perturb)]
    rows = []
    for run in tqdm(runs, unit="run", disable=None):
        scene = arguments.out / "scenes" / run.name
        if not (scene / "scene.json").is_file():
            run.make(scene)
        result = arguments.out / "fits" / f"{run.name}.json"
        if not result.is_file():
            write_json(result, outcome(run, scene, arguments.epochs, arguments.long_side))
        row = {"clip": run.clip, "level": run.level, **judged(Scene(scene)), **read_json(result)}
        rows.append(row)
        write_json(arguments.out / "rows.json", rows)
    lines = [*table(rows), "", *correlations(rows), "", *limits(rows)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def synthetic_runs(names: list[str]) -> Iterator[Run]:
    """Yield the runs of synthetic scenes, by scene and level."""
    for name in names:
        cache: list[Truth] = []

        def truth(name: str = name, cache: list[Truth] = cache) -> Truth:
            if not cache:
                cache.append(
                    render_truth(make_scene(name, frames=FRAMES, width=WIDTH, height=HEIGHT))
                )
            return cache[0]

        for level, sizes in SYNTHETIC.items():

            def make(
                folder: Path, truth: Callable[[], Truth] = truth, sizes: PriorLevel = sizes
            ) -> object:
                return write_priors(truth(), folder, level=sizes)

            yield Run(name, level, make, truth)


def copied_runs(folder: Path | None, perturb: list[str]) -> Iterator[Run]:
    """Yield the runs of the scenes in a folder."""
    for source in sorted(folder.iterdir()) if folder else ():
        for level, (degrees, scale) in COPIES.items():
            if not (source / "scene.json").is_file() or (
                level != "as it is" and source.name not in perturb
            ):
                continue

            def make(
                target: Path, source: Path = source, degrees: float = degrees, scale: float = scale
            ) -> object:
                return copy_perturbed(source, target, degrees, scale)

            yield Run(source.name, level, make)


def copy_perturbed(source: Path, target: Path, degrees: float, scale: float, seed: int = 0) -> None:
    """Copy a scene directory, without its fit, and perturb cameras and depth.

    Args:
        source: the scene.
        target: the copy.
        degrees: root mean square rotation error per axis of each camera.
        scale: standard deviation of the logarithm of the scale of the depth of each frame.
        seed: of the errors.
    """
    from scipy.spatial.transform import Rotation

    shutil.copytree(source, target, ignore=shutil.ignore_patterns("fit", ".cache"))
    scene, rng = Scene(target), np.random.default_rng(seed)
    count = len(scene)
    turns = Rotation.from_rotvec(degrees * rng.standard_normal((count, 3)), degrees=True)
    factors = np.exp(scale * rng.standard_normal(count)).astype(np.float32)
    if degrees:
        cameras = scene.cameras
        poses = cameras.cam_from_world.copy()
        poses[:, :3] = turns.as_matrix() @ poses[:, :3]
        cameras = Cameras(cameras.intrinsics, poses, cameras.width, cameras.height)
        write_cameras(target / "cameras.json", cameras)
    if scale:
        for frame in range(count):
            write_depth(target, frame, scene.depth(frame) * factors[frame])


def judged(scene: Scene) -> dict[str, Any]:
    """Return the grade and the score of a scene, and the figures behind them."""
    fitness = measure_fitness(scene)
    return {
        "grade": judge_scene(scene, fitness).grade,
        "score": worst_score(fitness),
        "figures": {figure.name: figure.value for figure in fitness},
    }


def outcome(run: Run, directory: Path, epochs: int, long_side: int) -> dict[str, Any]:
    """Fit a scene and return what is measured on the fit."""
    start = time.perf_counter()
    scene = Scene(directory)
    options = preset("quick", scene=directory, epochs=epochs, long_side=long_side, device="cpu")
    options = dataclasses.replace(options, holdout_every=EVERY, restart=True)
    sequence = fit_scene(scene, options)
    frames = list(range(EVERY - 1, len(scene) - 1, EVERY))
    found = evaluate_frames(sequence, scene, frames)
    result: dict[str, Any] = {
        "psnr": found["mpsnr"],
        "psnr_moving": found["psnr_moving"],
        "views": evaluate_views(sequence, scene, align=True)["mpsnr"] if scene.views else None,
        "depth": None if run.truth is None else depth_error(sequence, run.truth()),
        "seconds": round(time.perf_counter() - start, 1),
        "measured_on": describe_machine(None, ("msdyn", "preprocess", "tools")),
    }
    shutil.rmtree(directory / "fit")
    return result


def depth_error(sequence: GaussianSequence, truth: Truth) -> float:
    """Return the median relative error of static depth, after one scale for the clip."""
    ratios = []
    for frame in range(0, len(truth.clip.depths), EVERY):
        time = sequence.timeline.time_of_frame(frame)
        depth = render_image(sequence, sequence.cameras[frame], time).depth
        known = (depth > 0) & (truth.clip.masks[frame] == STATIC)
        ratios.append(np.log(depth[known] / truth.clip.depths[frame][known]))
    everything = np.concatenate(ratios)
    return float(np.median(np.abs(everything - np.median(everything))))


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table of all runs, by score."""
    lines = ["| clip | input | grade | score | " + " | ".join(OUTCOMES) + " |"]
    lines.append("|" + "---|" * (4 + len(OUTCOMES)))
    for row in sorted(rows, key=lambda row: row["score"]):
        cells = [row["clip"], row["level"], row["grade"], f"{row['score']:.2f}"]
        for key in OUTCOMES:
            value = row[key]
            digits = 3 if key == "depth" else 1
            cells.append("" if value is None else f"{value:.{digits}f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def correlations(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table of rank correlations of the score with each outcome.

    Signs are such that 1 is a perfect ranking.
    """
    lines = ["| | runs | all | within a clip | one clip left out |", "|---|---|---|---|---|"]
    for key, sign in OUTCOMES.items():
        known = [row for row in rows if row[key] is not None]
        clips = sorted({row["clip"] for row in known})
        inside = [_rank(known, key, sign, lambda row, c=c: row["clip"] == c) for c in clips]
        inside = [value for value in inside if value is not None]
        left = [_rank(known, key, sign, lambda row, c=c: row["clip"] != c) for c in clips]
        left = [value for value in left if value is not None]
        overall = _rank(known, key, sign, lambda row: True)
        cells = [overall, np.mean(inside) if inside else None, min(left) if left else None]
        shown = ["-" if value is None else f"{value:.2f}" for value in cells]
        lines.append(f"| {key} | {len(known)} | " + " | ".join(shown) + " |")
    return lines


def _rank(
    rows: list[dict[str, Any]], key: str, sign: int, chosen: Callable[[dict[str, Any]], bool]
) -> float | None:
    """Return the rank correlation over the chosen rows; None for fewer than four."""
    from scipy.stats import rankdata

    own = [row for row in rows if chosen(row)]
    if len(own) < 4:
        return None
    ranks = np.stack([rankdata([r["score"] for r in own]), rankdata([r[key] for r in own])])
    return sign * float(np.corrcoef(ranks)[0, 1]) if np.ptp(ranks, axis=1).all() else None


def limits(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table of limits of the score, by loss of PSNR.

    Of the clips of which there are at least three runs.
    """
    clips = [row["clip"] for row in rows]
    known = [row for row in rows if clips.count(row["clip"]) >= 3]
    if not known:
        return []
    best = {c: max(r["psnr"] for r in known if r["clip"] == c) for c in {r["clip"] for r in known}}
    scores = np.array([row["score"] for row in known])
    clip = np.array([row["clip"] for row in known])
    lost = np.array([best[row["clip"]] - row["psnr"] for row in known])
    lines = ["| loss, dB | score | wrong | wrong, clip left out |", "|---|---|---|---|"]
    for loss in LOSSES:
        bad = lost > loss
        limit = best_limit(scores, bad)
        wrong = (scores > limit) != bad
        unseen = [
            ((scores > best_limit(scores[clip != c], bad[clip != c])) != bad)[clip == c]
            for c in best
        ]
        cells = [f"{loss:g}", f"{limit:.2f}", f"{wrong.mean():.0%}"]
        lines.append(f"| {' | '.join(cells)} | {np.concatenate(unseen).mean():.0%} |")
    return lines


def best_limit(scores: Float[np.ndarray, " runs"], bad: Bool[np.ndarray, " runs"]) -> float:
    """Return the limit above which a score is called bad with the fewest errors.

    Of equally good limits, the one nearest to their middle, in proportion.
    """
    values = np.unique(np.maximum(scores, 1e-3))
    between = np.sqrt(values[:-1] * values[1:])
    tried = np.concatenate([values[:1] / 2, between, values[-1:] * 2])
    wrong = np.array([((scores > limit) != bad).sum() for limit in tried])
    fewest = np.log(tried[wrong == wrong.min()])
    return float(np.exp(fewest[np.abs(fewest - fewest[[0, -1]].mean()).argmin()]))


if __name__ == "__main__":
    sys.exit(main())
