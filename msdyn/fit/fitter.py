"""The joint optimisation of Gaussians and motion (Eq. 8) under the losses of Eq. 12."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from msdyn.devices import choose_device
from msdyn.errors import InputError, ResourceError
from msdyn.fit.checkpoint import FitState, Reached, load_checkpoint, save_checkpoint
from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData, load_fit_data
from msdyn.fit.density import make_motion_optimiser, make_sets
from msdyn.fit.estimate import announce_fit
from msdyn.fit.exposure import FrameExposure
from msdyn.fit.fingerprint import fingerprint
from msdyn.fit.fit_log import FitLog
from msdyn.fit.initialize import initialize
from msdyn.fit.last_good import DivergedError, LastGood
from msdyn.fit.objective import Objective
from msdyn.fit.outputs import refinement_of, write_config, write_previews
from msdyn.fit.pace import Pace
from msdyn.fit.predicted_start import load_prediction
from msdyn.fit.sampling import frames_of_step, size_of_step
from msdyn.fit.trust import with_trust
from msdyn.interruption import postponed, tell, told
from msdyn.machine_limits import give_back_memory
from msdyn.memory import limited_memory, memory_excess
from msdyn.progress import Progress, stage
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence, save_sequence
from msdyn.threads import one_blas_thread, threads_for_steps
from msdyn.writing import require_space, write_json, writing_to

__all__ = ["Fitter", "fit_scene"]

_log = logging.getLogger(__name__)

_CHECKPOINT_SECONDS = 60.0
_LOG_EVERY = 20
# After a loss that is not finite: how often the fit goes back, with what part of the step size.
_RETURNS = 3
_SMALLER = 0.5


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
        ResourceError: the disk is full, or more memory is needed than `config.max_memory`; a fit
            that has begun saves its steps first.
    """
    config = config or FitConfig(scene=scene.directory)
    announce_fit(scene, config)
    with limited_memory(config.max_memory), one_blas_thread():
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
                static_tracks=config.static_tracks,
                seed=config.seed,
                folder=self.directory,
            )
        self.steps = config.epochs * math.ceil(len(self.data.frames) / config.batch)
        torch.manual_seed(config.seed)  # of the positions of split Gaussians
        self.started = time.perf_counter()
        self.step = 0
        self.batch, self.rate = config.batch, 1.0
        self._returns = 0
        self._pace = Pace()

    @property
    def seconds(self) -> float:
        """Time spent, including that before a resumption."""
        return time.perf_counter() - self.started

    def state(self) -> GaussianSequence:
        """Return the current sequence, in the world of the scene, on the CPU."""
        scene_from_fit = self.data.fit_from_scene.inverse()
        cameras = self.objective.scene_cameras()
        sequence = self.sequence.rescaled(scene_from_fit, cameras=cameras)
        return sequence.replaced(exposure=self.exposure.result()).cpu()

    def run(self) -> GaussianSequence:
        """Initialise or resume, optimise, write the results and return the sequence."""
        before, inside = told(), self.scene.directory if self.config.out is None else None
        try:
            size = size_of_step(self.data, self.config)
            with writing_to(self.directory, inside=inside), threads_for_steps(size):
                return self._run()
        finally:
            tell(before)

    def _run(self) -> GaussianSequence:
        from msdyn.preprocess.report.fitness import judge_scene

        with stage("checking the scene"):
            verdict = judge_scene(self.scene)
        if verdict.grade == "poor":
            _log.warning("warning: %s is poor input: %s", self.scene.directory, verdict.reason)
        write_config(self.directory / "config.json", self.config, asdict(verdict))
        with stage("initialisation"):
            self.start()
        with self.log:
            self._optimise()
            with stage("writing the sequence"):
                return self._finish()

    def start(self) -> None:
        """Initialise, or restore a checkpoint."""
        info, predicted = self.scene.info, None
        config = with_trust(self.config, info.stages)
        if config.init != "tracks":
            predicted = load_prediction(self.scene, self.data.fit_from_scene)
        self.fingerprint = fingerprint(self.scene, config)
        give_back_memory()
        self.exposure = FrameExposure.of(self.scene, self.data, config)
        even = self.exposure.evened(self.data)
        start = initialize(even, config, info.timeline, info.world_units, predicted)
        give_back_memory()
        self.data = replace(start.data, rgb=self.data.rgb)
        self.sequence = start.sequence.to(self.device)
        self._changes = refinement_of(self.scene, start, self.exposure)
        write_json(self.directory / "refinement.json", self._changes)
        self.static, self.moving = make_sets(self.sequence, config.rate, config.density, self.steps)
        self.motion_optimiser = make_motion_optimiser(self.sequence, config.rate)
        self.objective = Objective(self.data, config, self.exposure, self.steps)
        if not config.restart:
            self._resume()
        self.log = FitLog(self.directory / "metrics.jsonl", self.step, config)
        if self.log.last is not None:
            self.started -= float(self.log.last.get("seconds", 0.0))
        self._tell_progress()
        self.last_good = LastGood(self._all, self.step)
        # At least the first checkpoint, with Adam's two moments, and the sequence.
        size = sum(value.nbytes for value in self._all.tensors().values())
        require_space(self.directory, 4 * size, "free some space and give the same command again")

    def _resume(self) -> None:
        """Restore the checkpoint, if it is of this fit; else say what differs."""
        path = self.directory / "checkpoint.safetensors"
        progress, changed = load_checkpoint(path, self._all, fingerprint=self.fingerprint)
        if progress is None:
            if changed:
                _log.warning("warning: %s: the fit starts again, as %s", self.directory, changed)
            return
        self.step, self.batch, rate = progress.step, progress.batch, progress.rate
        self._slow_down(rate)
        self._store()

    @property
    def _all(self) -> FitState:
        """What the steps change."""
        return FitState(
            {"static": self.static, "moving": self.moving},
            self.sequence.motion,
            self.motion_optimiser,
            self.objective.neighbours,
            self.exposure,
            self.objective.cameras,
        )

    def _tell_progress(self) -> None:
        saved = f"step {self.step} of {self.steps} is saved, the same command resumes there"
        tell(saved if self.step else "no step had been saved yet, the same command begins again")

    def _store(self) -> None:
        """Update the sequence with the current parameters, which density control replaces."""
        self.static.store(self.sequence.static)
        self.moving.store(self.sequence.moving, self.sequence)

    def _optimise(self) -> None:
        """Perform the steps that are left; an interruption waits for the end of a step.

        Raises:
            ResourceError: more memory is held than is allowed; the steps are saved.
        """
        saved = time.perf_counter()
        progress = Progress("fit", self.steps, start=self.step)
        try:
            if self.step < self.steps:
                # Kernels are compiled in it; an interruption need not wait, nothing is lost.
                self._advance(progress)
            with postponed() as asked:
                try:
                    while self.step < self.steps and not asked():
                        self._advance(progress)
                        excess = memory_excess()
                        if excess is not None:
                            self._save_checkpoint()
                            raise ResourceError(f"{excess}; {told()}, with a greater --max-memory")
                        if time.perf_counter() - saved > _CHECKPOINT_SECONDS:
                            self._save_checkpoint()
                            saved = time.perf_counter()
                except KeyboardInterrupt:  # raised by `watch`, or the second one
                    if not asked():
                        self._save_checkpoint()
                    raise
                if asked():
                    self._save_checkpoint()
                    self.log.close()
        finally:
            progress.close()

    def _advance(self, progress: Progress) -> None:
        """Perform one step, and what is due after it."""
        try:
            self._step_in_parts(frames_of_step(self.data.frames, self.config, self.step))
            self.step += 1
            if self.step % _LOG_EVERY == 0 or self.step == self.steps:
                self._log(progress)
        except DivergedError as error:
            self._go_back(str(error))
        except torch.OutOfMemoryError as error:
            self._halve_batch(error)
        progress.update(self.step - progress.done)

    def _step_in_parts(self, frames: Int[np.ndarray, " frames"]) -> None:
        """Perform the steps of a batch, one unless the batch has been halved."""
        for first in range(0, len(frames), self.batch):
            self._values = self._one_step(frames[first : first + self.batch])
            self.last_good.note(self._values, self.step + 1)

    def _halve_batch(self, error: Exception) -> None:
        """Go back to the last good state, and render fewer frames at a time.

        Raises:
            ResourceError: it is one frame already.
        """
        if self.batch == 1:
            raise ResourceError(
                "the memory of the GPU is full with one frame per step; choose smaller images "
                "(--long-side) or fewer Gaussians (--density.max-static, --density.max-moving)"
            ) from error
        before, self.batch = self.batch, self.batch // 2
        _log.warning(
            "warning: the memory of the GPU is full with %d frames per step; going on with %d",
            before,
            self.batch,
        )
        self._restore_last_good()
        torch.cuda.empty_cache()

    def _go_back(self, seen: str) -> None:
        """Go back to the last good state with smaller steps; save it and stop after three times."""
        self._restore_last_good()
        self._returns += 1
        if self._returns > _RETURNS:
            kept = "nothing was kept"
            if self.step:
                self._write_checkpoint()
                save_sequence(self.state(), self.directory / "sequence.safetensors")
                kept = f"the result of step {self.step} is in {self.directory}"
            raise InputError(
                f"fit: {seen}, and again after {_RETURNS} returns to step {self.step} with smaller "
                f"steps; {kept}; check the scene with `msdyn-preprocess --check`, or lower --rate.*"
            )
        self._slow_down(_SMALLER)
        _log.warning(
            "warning: %s; going on from step %d with learning rates times %g", seen, self.step,
            self.rate,
        )  # fmt: skip

    def _slow_down(self, factor: float) -> None:
        """Multiply all learning rates."""
        self.rate *= factor
        for optimiser in self._all.optimisers():
            for group in optimiser.param_groups:
                group["lr"] *= factor

    def _restore_last_good(self) -> None:
        for optimiser in self._all.optimisers():
            optimiser.zero_grad(set_to_none=True)
        self.step = self.last_good.step
        self.last_good.restore(self._all)
        self._store()
        self.log.go_back(self.step)

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
        self.exposure.step()
        self.objective.step_cameras(self.step, self.rate)
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
        decay = self.rate * 0.1 ** (self.step / self.steps)
        lr = self.config.rate
        for group in (self.static, self.moving):
            group.optimisers["means"].param_groups[0]["lr"] = lr.means * decay
        self.motion_optimiser.param_groups[0]["lr"] = lr.patterns * decay

    def _log(self, progress: Progress) -> None:
        """Write an entry of the log, and keep the state to go back to.

        Raises:
            DivergedError: a loss or a parameter is not finite.
        """
        self.last_good.check(self._all, self.step)
        self.last_good.keep(self._all, self.step)
        self._returns = 0
        values = torch.stack(list(self._values.values())).tolist()
        row: dict[str, float] = {
            name: round(value, 6) for name, value in zip(self._values, values, strict=True)
        }
        row |= {"step": self.step, "static": len(self.static), "moving": len(self.moving)}
        row["seconds"] = round(self.seconds, 2)
        self.log.add(row, self._all.optimisers())
        progress.show(
            loss=f"{row['loss']:.4f}",
            psnr=f"{row['psnr']:.1f}",
            gaussians=str(len(self.static) + len(self.moving)),
        )
        self._pace.tell_end(self.step, self.steps, progress)
        self.latest = row
        if self.watch is not None:
            self.watch(self)

    def _save_checkpoint(self) -> None:
        """Write a checkpoint of the present state, or the last good one if this is not finite."""
        try:
            self.last_good.check(self._all, self.step)
        except DivergedError as error:
            self._go_back(str(error))
        self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        save_checkpoint(
            self.directory / "checkpoint.safetensors",
            self._all,
            Reached(self.step, self.batch, self.rate),
            fingerprint=self.fingerprint,
        )
        self._tell_progress()

    def _finish(self) -> GaussianSequence:
        self._save_checkpoint()
        sequence = self.state()
        write_json(self.directory / "refinement.json", self._changes | self.objective.summary())
        save_sequence(sequence, self.directory / "sequence.safetensors")
        write_previews(self.directory / "previews", self.scene, sequence)
        return sequence
