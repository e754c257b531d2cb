"""The joint optimisation of Gaussians and motion (Eq. 8) under the losses of Eq. 12."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from msdyn.devices import choose_device
from msdyn.errors import InputError
from msdyn.files import atomic_path, write_json
from msdyn.fit.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData, load_fit_data
from msdyn.fit.density import make_sets
from msdyn.fit.initialize import initialize
from msdyn.fit.objective import Objective
from msdyn.progress import Progress, stage
from msdyn.render import render_image
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence, load_sequence, save_sequence
from msdyn.version import __version__

__all__ = ["Fitter", "fit_scene"]

_log = logging.getLogger(__name__)

_CHECKPOINT_SECONDS = 60.0
_LOG_EVERY = 20


def fit_scene(
    scene: Scene,
    config: FitConfig | None = None,
    *,
    watch: Callable[[Fitter], None] | None = None,
) -> GaussianSequence:
    """Fit a Gaussian sequence to a scene directory, writing into its `fit/`.

    An interrupted fit resumes from its checkpoint when called again with equal options.

    Args:
        scene: complete scene directory.
        config: options; the defaults if None.
        watch: callback, called with the fit every few steps; it may read `state()` and `latest`.

    Returns:
        The sequence, in the world and units of the scene's cameras, on the CPU.

    Raises:
        InputError: an invalid scene or option, a damaged checkpoint, or a loss that diverged.
    """
    config = config or FitConfig(scene=scene.directory)
    return Fitter(scene, config, watch).run()


class Fitter:
    """State of a fit; `run` performs it."""

    def __init__(
        self, scene: Scene, config: FitConfig, watch: Callable[[Fitter], None] | None = None
    ) -> None:
        self.scene, self.watch = scene, watch
        self.latest: dict[str, float] = {}
        self.config = config
        self.directory = config.out or scene.directory / "fit"
        self.device = choose_device(config.device)
        with stage("reading the scene"):
            self.data: FitData = load_fit_data(
                scene,
                long_side=config.long_side,
                holdout_every=config.holdout_every,
                device=self.device,
                refine=config.refine,
                seed=config.seed,
            )
        self.steps = config.epochs * math.ceil(len(self.data.frames) / config.batch)
        torch.manual_seed(config.seed)  # of the positions of split Gaussians
        self.started = time.perf_counter()
        self.step = 0
        self.log: list[str] = []

    @property
    def seconds(self) -> float:
        """Time spent, including that before a resumption."""
        return time.perf_counter() - self.started

    def state(self) -> GaussianSequence:
        """Return the current sequence, in the world of the scene, on the CPU."""
        scene_from_fit = self.data.fit_from_scene.inverse()
        return self.sequence.rescaled(scene_from_fit, cameras=self.data.refinement.cameras).cpu()

    def run(self) -> GaussianSequence:
        """Initialise or resume, optimise, write the results and return the sequence."""
        from msdyn.preprocess.report.fitness import judge_scene

        self.directory.mkdir(parents=True, exist_ok=True)
        with stage("checking the scene"):
            verdict = judge_scene(self.scene)
        if verdict.grade == "poor":
            _log.warning("warning: %s is poor input: %s", self.scene.directory, verdict.reason)
        _write_config(self.directory / "config.json", self.config, asdict(verdict))
        with stage("initialisation"):
            self.start()
        self._optimise()
        with stage("writing the sequence"):
            return self._finish()

    def start(self) -> None:
        """Initialise, or restore a checkpoint."""
        config, info = self.config, self.scene.info
        predicted = self._prediction()
        self.fingerprint = fingerprint(config, info.stages, self.scene.directory)
        start = initialize(self.data, config, info.timeline, info.world_units, predicted)
        self.data, self.sequence = start.data, start.sequence.to(self.device)
        changes = self.data.refinement.summary(self.scene.cameras)
        objects = {"objects": start.object_depth.summary()}
        write_json(self.directory / "refinement.json", changes | objects)
        self.static, self.moving = make_sets(self.sequence, config.rate, config.density, self.steps)
        motion = [p for p in self.sequence.motion.shared_parameters().values() if p.numel()]
        self.motion_optimiser = torch.optim.Adam(
            motion or [torch.zeros(1, requires_grad=True, device=self.device)],
            lr=config.rate.patterns,
            eps=1e-15,
            fused=True,
        )
        self.objective = Objective(self.data, config)
        if not config.restart:
            restored = load_checkpoint(
                self.directory / "checkpoint.safetensors", **self._checkpoint_parts()
            )
            if restored is not None:
                self.step = restored[0]
                self.started -= restored[1]
                self._store()
        if self.step == 0:
            (self.directory / "metrics.jsonl").unlink(missing_ok=True)

    def _checkpoint_parts(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "sets": {"static": self.static, "moving": self.moving},
            "motion": self.sequence.motion,
            "motion_optimiser": self.motion_optimiser,
            "neighbours": self.objective.neighbours,
        }

    def _store(self) -> None:
        """Update the sequence with the current parameters, which density control replaces."""
        self.static.store(self.sequence.static)
        self.moving.store(self.sequence.moving, self.sequence)

    def _prediction(self) -> GaussianSequence | None:
        """Return the prediction to start from, in the world of the fit, if one is wanted."""
        if self.config.init == "tracks":
            return None
        predicted = load_sequence(self.scene.directory, source="predict")
        if len(predicted.timeline) != len(self.scene):
            raise InputError(
                f"{self.scene.directory / 'predict'}: expected a prediction of "
                f"{len(self.scene)} frames, got {len(predicted.timeline)}; repeat msdyn-predict"
            )
        return predicted.rescaled(self.data.fit_from_scene)

    def _optimise(self) -> None:
        saved = time.perf_counter()
        progress = Progress("fit", self.steps, start=self.step)
        try:
            while self.step < self.steps:
                values = self._one_step(self._frames_of(self.step))
                self.step += 1
                progress.update()
                if self.step % _LOG_EVERY == 0 or self.step == self.steps:
                    self._log(values, progress)
                if time.perf_counter() - saved > _CHECKPOINT_SECONDS:
                    self._save_checkpoint()
                    saved = time.perf_counter()
        except KeyboardInterrupt:
            self._save_checkpoint()
            raise
        finally:
            progress.close()

    def _frames_of(self, step: int) -> Int[np.ndarray, " frames"]:
        """Return the frames of a step: every epoch is a permutation seeded by seed and epoch."""
        frames, batch = self.data.frames, self.config.batch
        per_epoch = math.ceil(len(frames) / batch)
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(frames))
        return frames[order[position * batch : (position + 1) * batch]]

    def _one_step(self, frames: Int[np.ndarray, " frames"]) -> dict[str, Float[Tensor, ""]]:
        """Perform one optimisation step and return the values to log."""
        self._set_learning_rates()
        terms, info, psnr = self.objective(self.sequence, frames, self.step)
        total = torch.stack([term.weight * term.value for term in terms.values()]).sum()
        info["means2d"].retain_grad()
        total.backward()
        self.static.step()
        self.moving.step()
        self.motion_optimiser.step()
        self.motion_optimiser.zero_grad(set_to_none=True)
        count = len(self.static)
        changed = self.static.refine(self.step, info, slice(0, count))
        changed |= self.moving.refine(self.step, info, slice(count, None))
        if changed:
            self._store()
            self.objective.neighbours.invalidate()
        return {"loss": total.detach(), "psnr": psnr} | {
            name: term.value.detach() for name, term in terms.items()
        }

    def _set_learning_rates(self) -> None:
        """Decay the learning rates of positions and patterns exponentially to a tenth."""
        decay = 0.1 ** (self.step / self.steps)
        lr = self.config.rate
        for group in (self.static, self.moving):
            group.optimisers["means"].param_groups[0]["lr"] = lr.means * decay
        self.motion_optimiser.param_groups[0]["lr"] = lr.patterns * decay

    def _log(self, values: dict[str, Float[Tensor, ""]], progress: Progress) -> None:
        row = {name: round(float(value), 6) for name, value in values.items()}
        if not math.isfinite(row["loss"]):
            raise InputError(
                f"fit: the loss became {row['loss']} at step {self.step}; "
                "check the scene with `msdyn-preprocess --check`, or lower --rate.*"
            )
        row |= {
            "step": self.step,
            "static": len(self.static),
            "moving": len(self.moving),
            "seconds": round(self.seconds, 2),
        }
        with (self.directory / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        progress.show(
            loss=f"{row['loss']:.4f}",
            psnr=f"{row['psnr']:.1f}",
            gaussians=str(len(self.static) + len(self.moving)),
        )
        self.latest = row
        if self.watch is not None:
            self.watch(self)

    def _save_checkpoint(self) -> None:
        save_checkpoint(
            self.directory / "checkpoint.safetensors",
            step=self.step,
            seconds=self.seconds,
            **self._checkpoint_parts(),
        )

    def _finish(self) -> GaussianSequence:
        self._save_checkpoint()
        sequence = self.state()
        save_sequence(sequence, self.directory / "sequence.safetensors")
        self._previews(sequence)
        return sequence

    def _previews(self, sequence: GaussianSequence) -> None:
        """Write input and rendering side by side for five frames."""
        frames = np.unique(np.linspace(0, len(self.scene) - 1, 5).round().astype(int))
        for frame in frames.tolist():
            time = sequence.timeline.time_of_frame(frame)
            image = render_image(sequence, sequence.cameras[frame], time)
            pair = np.concatenate([self.scene.image(frame), image.rgb8], axis=1)
            with atomic_path(self.directory / "previews" / f"{frame:05d}.png") as path:
                iio.imwrite(path, pair)


def _write_config(path: Path, config: FitConfig, verdict: dict[str, str]) -> None:
    """Write the options, the verdict on the input, versions and seed next to the result."""
    options = json.loads(json.dumps(asdict(config), default=str))
    write_json(
        path,
        {
            "options": options,
            "input": verdict,
            "msdyn": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    )
