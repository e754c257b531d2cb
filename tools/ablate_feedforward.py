"""Repeat the ablations of the paper's Tables 4-6 at the size of the small network.

    python tools/ablate_feedforward.py --out out/ablation --json feedforward_ablation.json

Runs of a table have equal steps and the same batches, and are evaluated on the same unseen random
scenes from the second camera. Each run writes its figures to --out, and is not repeated when the
command is given again. A second `--seed` is averaged with the first.

Table 4: static scenes, losses of depth and rendering; without correlation between frames, and with
matches that are encoded without the cameras, which the correlation of `small` reads itself.

Tables 5 and 6: dynamic scenes; as in the paper, whose dynamic stage starts from the static one,
depth and appearance have been trained before (the weights of `small`, with its matching network
fixed), and the motion head and its cue start from scratch. "Motion without NVS" differs from the
paper, whose depth head then depends on time: here the rendering loss trains depth and appearance
only, and the motion learns from its own losses alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from machine import describe_machine
from torch import Tensor

from msdyn.feedforward import Movies
from msdyn.feedforward.batches import TrainingBatch
from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.correlation import Correlation, CorrelationCue
from msdyn.feedforward.model import Features, PixelMotion, StaticPixels
from msdyn.feedforward.pretrained import find_model
from msdyn.feedforward.scenes import BatchOptions, SceneOptions
from msdyn.feedforward.splats import SplatterPixels
from msdyn.feedforward.training import (
    LossWeights,
    Stage,
    Trainer,
    TrainingConfig,
    draw,
    small_on_cpu,
    unseen_batches,
)
from msdyn.fit.losses import ssim
from msdyn.reading import read_json
from msdyn.writing import write_json

STATIC_STEPS, DYNAMIC_STEPS = 500, 240
UNSEEN = 64
# The parts of the correlation that match; the others encode the matches.
_MATCHING = ("stem.", "middle.", "reduce.", "refine.", "project.", "fine.")
_MATCHING_SCALARS = ("fine_log_sharpness", "log_sharpness", "no_match")
_MOTION = ("motion_head.", "motion_cue.")
# A weight too small to have an effect: with 0, the distribution loss is not computed either.
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Run:
    """A row of a table.

    Attributes:
        tables: of the paper, that have it.
        label: of the row.
        paper: the paper's figures.
        plucker, camera_token: how the camera is told (Table 4).
        matches: whether the static network has matches between frames.
        pointwise, distribution: losses of the motion (Tables 5 and 6).
        through_motion: whether the rendering loss trains the motion.
    """

    tables: tuple[int, ...]
    label: str
    paper: str
    plucker: bool = True
    camera_token: bool = True
    matches: bool = False
    pointwise: bool = True
    distribution: bool = True
    through_motion: bool = True

    @property
    def static(self) -> bool:
        return self.tables == (4,)


CAMERAS = {
    "both": Run((4,), "both", "27.60 dB, SSIM .8125"),
    "none": Run((4,), "none", "25.56 dB, .7443", plucker=False, camera_token=False),
    "token": Run((4,), "camera token", "26.81 dB, .7865", plucker=False),
    "plucker": Run((4,), "Plücker", "25.81 dB, .7444", camera_token=False),
}
RUNS = {
    **{f"camera-{name}": run for name, run in CAMERAS.items()},
    **{
        f"matched-{name}": replace(run, matches=True, label=f"{run.label}, matches")
        for name, run in CAMERAS.items()
    },
    "motion-both": Run((5, 6), "both losses", "EPE .2153, 52.1 %, 71.6 %"),
    "motion-none": Run(
        (5, 6), "no motion loss", ".7938, 19.6 %, 32.9 %", pointwise=False, distribution=False
    ),
    "motion-pointwise": Run((5,), "point-wise", ".2262, 48.7 %, 69.9 %", distribution=False),
    "motion-distribution": Run((5,), "distribution", ".2496, 46.0 %, 66.9 %", pointwise=False),
    "motion-alone": Run((6,), "motion without NVS", ".3801, 24.7 %, 42.9 %", through_motion=False),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of every run, for a test")
    parser.add_argument("--unseen", type=int, default=UNSEEN, help="scenes of the evaluation")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for name in arguments.only:
        path = arguments.out / f"{name}-{arguments.seed}.json"
        if not path.is_file():
            write_json(path, train_run(name, arguments.seed, arguments.steps, arguments.unseen))
            print(name, {k: round(v, 4) for k, v in read_json(path)["figures"].items()}, flush=True)
        summary = summarise(arguments.out)
        if arguments.json:
            write_json(arguments.json, summary)
    print_tables(summary["rows"])
    return 0


def train_run(name: str, seed: int, steps: int | None, unseen: int) -> dict[str, Any]:
    """Train and evaluate; return the figures, and those of each image."""
    run = RUNS[name]
    config = training_of(run, seed, steps)
    trainer = Trainer(config)
    if config.model.correlation:
        start_from_small(trainer.model, matching_only=run.static)
    if run.static and run.matches:
        encode = trainer.model.correlation_cue
        encode.forward = MethodType(_encoded_without_cameras, encode)
    if not run.through_motion:
        trainer.model.gaussians = MethodType(_gaussians_of_fixed_motion, trainer.model)
    started, cpu = time.monotonic(), time.process_time()
    losses: dict[str, list[float]] = {}
    while trainer.step < config.steps:
        for key, value in trainer.train_step().items():
            losses.setdefault(key, []).append(value)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    last = config.stages[-1]
    options = replace(last.batch, scenes=4, queries=2, query_times="random")
    values = figures(trainer.model, unseen_batches(last.scenes, options, unseen))
    gradient = losses["gradient"][config.steps // 2 :]
    return {
        "steps": config.steps,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "skipped": trainer.skipped,
        # How much the gradient changes from step to step, in the second half.
        "gradient_spread": float(np.std(gradient) / np.mean(gradient)),
        "last_losses": {key: float(np.mean(value[-50:])) for key, value in losses.items()},
        "figures": {key: float(np.mean(value)) for key, value in values.items()},
        "images": {key: [round(v, 5) for v in value] for key, value in values.items()},
        "machine": describe_machine(None, ("msdyn", "tools")),
    }


def training_of(run: Run, seed: int, steps: int | None) -> TrainingConfig:
    """Return the curriculum of a run: that of the small network, with what the row changes."""
    base = small_on_cpu(1, seed=seed)
    batch = BatchOptions(scenes=2, frames=4, queries=3, targets=True)
    if run.static:
        model = replace(
            ModelConfig.small(),
            plucker=run.plucker,
            camera_token=run.camera_token,
            detail=True,
            attribute_motion="none",
            time_token=False,
            motion=False,
            correlation=run.matches,
        )
        # The balanced loss of depth has half the weight if nothing moves.
        weights = LossWeights(depth=0.0, log_depth=2.0, match=0.0, motion=0.0, rendering=5.0)
        scenes = SceneOptions(movers=(0, 0), camera_travel=(0.2, 0.8))
        stages = (Stage("static", 1.0, weights, scenes, batch, reuse=3),)
        return replace(base, model=model, stages=stages, steps=steps or STATIC_STEPS)
    motion = 2.0 if run.pointwise else _NEGLIGIBLE if run.distribution else 0.0
    weights = LossWeights(
        depth=0.0,
        log_depth=1.0,
        match=0.0,
        motion=motion,
        distribution=20.0 if run.distribution else 0.0,
        rendering=5.0,
    )
    scenes = SceneOptions(mover_share=(0.06, 0.3))
    stages = (Stage("rendering", 1.0, weights, scenes, batch, reuse=3),)
    # At the rate of a first training the trained parts would first lose what they know.
    return replace(base, stages=stages, steps=steps or DYNAMIC_STEPS, rate=4e-4)


def start_from_small(model: Movies, *, matching_only: bool) -> None:
    """Give the matching network, or all but the motion, the weights of `small`."""
    own = model.state_dict(keep_vars=True)
    for name, value in find_model("small").load().state_dict().items():
        part = name.removeprefix("correlation_cue.")
        matching = part != name and (part.startswith(_MATCHING) or part in _MATCHING_SCALARS)
        if matching or not matching_only and not name.startswith(_MOTION):
            own[name].data.copy_(value)


def _gaussians_of_fixed_motion(
    self: Movies, features: Features, static: StaticPixels, motion: PixelMotion | None = None
) -> SplatterPixels:
    """`Movies.gaussians`, without a gradient to the motion."""
    if motion is not None:
        motion = replace(motion, displacement=motion.displacement.detach())
    return Movies.gaussians(self, features, static, motion)


def _encoded_without_cameras(
    self: CorrelationCue,
    images: Tensor,
    world_from_cam: Float[Tensor, "scenes frames 4 4"],
    *others: Any,
) -> tuple[Tensor, Tensor, Correlation]:
    """`CorrelationCue.forward`, as if the camera did not move."""
    identity = torch.eye(4, device=images.device).expand_as(world_from_cam)
    return CorrelationCue.forward(self, images, identity, *others)


@torch.no_grad()
def figures(model: Movies, batches: list[TrainingBatch]) -> dict[str, list[float]]:
    """Return the errors of each image, or of each clip and query time.

    `psnr`, `ssim` from the second camera at the query times; `absrel` of depth; `epe` of moving
    pixels, of the displacement alone, and `epe_zero` of zero motion, in normalised units; `epe_3d`,
    `within_05` and `within_10` of the moving points at the query times, each cloud divided by the
    median norm of all its points, as Table 5 (which has tracked points).
    """
    model.eval()
    values: dict[str, list[float]] = {}

    def add(name: str, value: Tensor | float) -> None:
        values.setdefault(name, []).append(float(value))

    for batch in batches:
        features = model.encode(batch.clip)
        static = model.static(features)
        relative = (static.depth - batch.depth).abs() / batch.depth
        for query in range(batch.query_times.shape[1]):
            motion = None
            if model.config.motion:
                motion = model.move(features, static, batch.query_times[:, query])
            images = draw(model.gaussians(features, static, motion), batch, query).clamp(0, 1)
            assert batch.target_images is not None, "a batch with targets"
            targets = batch.target_images[:, query].movedim(1, -1)
            for scene in range(len(batch)):
                if query == 0:
                    add("absrel", relative[scene].mean())
                error = (images[scene] - targets[scene]).square().mean()
                add("psnr", -10 * error.log10())
                add("ssim", ssim(images[scene][None], targets[scene][None]))
                moving = batch.moving[scene]
                if motion is None or not moving.any():
                    continue
                true = batch.motion(query)[scene]
                add("epe", (motion.displacement[scene] - true).norm(dim=-1)[moving].mean())
                add("epe_zero", true.norm(dim=-1)[moving].mean())
                far = _normalised(static.points[scene] + motion.displacement[scene])
                distance = (far - _normalised(batch.points[scene] + true)).norm(dim=-1)[moving]
                add("epe_3d", distance.mean())
                add("within_05", (distance < 0.05).float().mean())
                add("within_10", (distance < 0.1).float().mean())
    return values


def _normalised(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return points / points.norm(dim=-1).median()


def summarise(folder: Path) -> dict[str, Any]:
    """Return the mean figures of each run over its seeds, and how they differ from "ours"."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for name in RUNS:
        for path in sorted(folder.glob(f"{name}-[0-9]*.json")):
            found.setdefault(name, {})[int(path.stem.rsplit("-", 1)[1])] = read_json(path)
    rows: dict[str, Any] = {}
    for name, by_seed in found.items():
        run = RUNS[name]
        results = list(by_seed.values())
        rows[name] = {
            "label": run.label,
            "tables": list(run.tables),
            "paper": run.paper,
            "seeds": sorted(by_seed),
            "figures": _over(results, lambda result: result["figures"]),
            **{
                key: [result[key] for result in results]
                for key in ("steps", "cpu_seconds", "skipped", "gradient_spread", "last_losses")
            },
            "commits": sorted({str(result["machine"]["commit"]) for result in results}),
        }
        ours = name.split("-")[0] + "-both"
        reference = found.get(ours, {})
        both = [seed for seed in by_seed if seed in reference]
        if both and name != ours:
            rows[name]["minus_ours"] = _differences(
                [(by_seed[seed]["images"], reference[seed]["images"]) for seed in both]
            )
    machines = [result["machine"] for by_seed in found.values() for result in by_seed.values()]
    return {"measured_on": machines[0] if machines else {}, "unseen_scenes": UNSEEN, "rows": rows}


def _over(
    results: list[dict[str, Any]], select: Callable[[dict[str, Any]], dict[str, float]]
) -> dict[str, float]:
    values = [select(result) for result in results]
    return {key: float(np.mean([value[key] for value in values])) for key in values[0]}


def _differences(
    pairs: list[tuple[dict[str, list[float]], dict[str, list[float]]]],
) -> dict[str, dict[str, float]]:
    """Return the mean difference of two runs, and its standard error over the images."""
    result = {}
    for key in pairs[0][0]:
        # The seeds have the same images.
        own, ours = (np.mean([pair[side][key] for pair in pairs], axis=0) for side in (0, 1))
        error = float(np.std(own - ours) / np.sqrt(len(own)))
        result[key] = {"mean": float(np.mean(own - ours)), "standard_error": error}
    return result


def print_tables(rows: dict[str, Any]) -> None:
    """Print the three tables beside the paper's figures."""
    for table in (4, 5, 6):
        print(f"\nTable {table}")
        for name, row in rows.items():
            if table not in row["tables"]:
                continue
            f = row["figures"]
            text = f"{f['psnr']:.2f} dB  SSIM {f['ssim']:.4f}  AbsRel {f['absrel']:.4f}"
            if "epe" in f:
                text += (
                    f"  EPE {f['epe']:.4f} of {f['epe_zero']:.4f}  EPE3D {f['epe_3d']:.4f}"
                    f"  {100 * f['within_05']:.1f} % {100 * f['within_10']:.1f} %"
                )
            print(f"  {RUNS[name].label:<20} {text}   (paper: {row['paper']})")


if __name__ == "__main__":
    sys.exit(main())
