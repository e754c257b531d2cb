"""From a video to a scene directory: runs the stages, stamps them, and skips what is up to date.

A stage is up to date when its record in `scene.json` carries the digest of its backend, options,
input files and the digests of the stages it needs. Before a stage runs, its record and results and
those of the stages that depend on it are removed, so an interrupted run is never taken for done;
started again, preprocessing resumes with the stage that was interrupted.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from msdyn.devices import choose_device
from msdyn.errors import InputError, PoorInputError
from msdyn.machine_limits import give_back_memory
from msdyn.memory import limited_memory
from msdyn.preprocess.chosen_backends import Backends, stage_order
from msdyn.preprocess.config import PreprocessConfig
from msdyn.preprocess.contracts import (
    BACKEND_STAGES,
    STAGES,
    BackendStage,
    CameraSolution,
    DepthResult,
    Figures,
    MaskResult,
    Stage,
)
from msdyn.preprocess.digests import InputDigests
from msdyn.preprocess.estimate import announce_preprocessing
from msdyn.preprocess.frames.extract import write_frames
from msdyn.preprocess.frames.footage import open_footage
from msdyn.preprocess.frames.given_lens import given_lens
from msdyn.preprocess.masks.background import changed_masks, without_background
from msdyn.preprocess.masks.motion import MotionMasks
from msdyn.preprocess.masks.salient_outlines import with_salient_outlines
from msdyn.preprocess.presets import choose_backends
from msdyn.preprocess.records import REFINED, StageRecords, recorded_options
from msdyn.preprocess.registry import BackendSpec, find_backend
from msdyn.preprocess.report.page import REPORT, write_report
from msdyn.preprocess.results import (
    StoredMasks,
    read_solution,
    require_depth_space,
    write_depths,
    write_masks,
    write_solution,
    write_track_result,
)
from msdyn.progress import stage as progress_stage
from msdyn.scene import STATIC, Scene
from msdyn.writing import LOCK, writing_to

__all__ = ["preprocess_video"]

_log = logging.getLogger(__name__)


def preprocess_video(config: PreprocessConfig) -> Scene:
    """Make, or bring up to date, the scene directory of a video.

    Returns:
        The scene; with `config.only` it may lack stages.

    Raises:
        FileNotFoundError: the video or a file of a `files` backend is missing.
        InputError: the video or such a file is invalid, the directory is of something else, or
            there is no such device.
        PoorInputError: the cameras are too poor for triangulated depth, also where depth is not
            made now, and `accept_poor` is not set; frames, tracks, masks and cameras are written
            all the same.
        ResourceError: the disk is full, or more memory is needed than `config.max_memory`; stages
            that are done are kept.
    """
    choose_device(config.device)
    with writing_to(config.directory), limited_memory(config.max_memory):
        return _preprocess(config)


def _preprocess(config: PreprocessConfig) -> Scene:
    """Make the scene directory, which is locked."""
    run = _Run(config)
    run.prepare()
    chosen = config.only or STAGES
    try:
        for stage in ("frames", *run.reads):
            if stage in chosen and stage != "depth":
                run.bring_up_to_date(stage)
            if stage == "frames":
                run.stop_if_blank()
            elif stage == "masks":
                run.stop_if_unnamed()
        if "masks" in chosen:
            with progress_stage("masks, with the cameras"):
                run.refine_masks()
        if "depth" in chosen or "cameras" in chosen:
            run.stop_if_poor()
        if "depth" in chosen:
            run.bring_up_to_date("depth")
    except PoorInputError:
        run.report()
        raise
    run.report()
    return Scene(run.directory)


class _Run:
    """One call of `preprocess_video`."""

    def __init__(self, config: PreprocessConfig) -> None:
        self.directory = config.directory
        self.records = StageRecords(config.directory)
        self.config, self.choices = choose_backends(config, self.records.record)
        self.specs: dict[BackendStage, BackendSpec[Any]] = {
            stage: find_backend(stage, choice.backend) for stage, choice in self.choices.items()
        }
        self.reads = stage_order(self.specs)
        self.backends = Backends.of(self.config)
        cameras = self.config.cameras_path if self.config.cameras == "files" else None
        lens = given_lens(self.config.lens, cameras)
        self.frames = dataclasses.replace(self.config.frames, lens=lens)
        self.digests = InputDigests(self.config, self.frames, self.records)
        self.ran = False
        self._read_solution: CameraSolution | None = None

    def prepare(self) -> None:
        """Check that the directory is ours to write to, and remove the stages to be redone."""
        directory, name = self.directory, self.config.source_name
        record = self.records.record("frames")
        source = record["options"].get("source") if record else None
        ours = source is not None or (directory / ".cache").is_dir()
        if directory.exists() and not ours:
            if any(path.name != LOCK for path in directory.iterdir()):
                raise InputError(
                    f"{directory}: exists and was not made by msdyn-preprocess; "
                    "choose another with --out"
                )
        if source not in (None, name) and "frames" not in self.config.redo:
            raise InputError(
                f"{directory}: holds the scene of {source}, not of {name}; "
                "choose another with --out, or replace it with --redo frames"
            )
        for stage in BACKEND_STAGES:
            self.records.refuse_own_output(stage, self.config.options_of(stage).path)
        self.records.refuse_links()
        for stage in self.config.redo:
            self._forget(stage)

    def bring_up_to_date(self, stage: Stage) -> None:
        """Run a stage unless its record and results are there and no input has changed."""
        if stage == "frames":
            digest = self.digests.frames
        else:
            digest = self.digests.of(stage, self.backends.info(stage), self._read_now(stage))
        record = self.records.record(stage)
        if record and record["input_hash"] == digest and self.records.complete(stage):
            _log.info("%s: up to date", stage)
            return
        if not self.ran:
            announce_preprocessing(self.config)
        self._forget(stage)
        self.ran = True
        (self.directory / ".cache").mkdir(parents=True, exist_ok=True)
        with progress_stage(stage, always=True):
            self._run_stage(stage, digest)
        give_back_memory()

    def _run_stage(self, stage: Stage, digest: str) -> None:
        """Run a stage, and write its results and its record."""
        start = time.perf_counter()
        if stage == "frames":
            options = self.frames.recorded()
            options |= write_frames(self.config.video, self.directory, self.frames)
            options["source"] = self.config.source_name
            options["source_digest"] = self.digests.source
            self.records.stamp(stage, digest, None, options, time.perf_counter() - start)
            return
        scene, world_units = self.records.scene(), None
        if stage == "tracks":
            footage = open_footage(scene, self.config.video, self.digests.source)
            figures = write_track_result(scene, self.backends.tracks.track(scene, footage))
        elif stage == "masks":
            masks = self.backends.masks.segment(scene, scene.tracks, None)
            figures = write_masks(scene, masks)
        elif stage == "cameras":
            solution = self._solve()
            figures, world_units = self._write_solution(solution), solution.world_units
        else:
            figures = write_depths(scene, self._estimate_depth(scene))
        seconds = time.perf_counter() - start
        self._stamp(stage, digest, seconds, figures, world_units=world_units)

    def refine_masks(self) -> None:
        """Make the masks by motion again with the cameras, and correct their outlines, once."""
        done = self.records.record("masks") and self.records.record("cameras")
        if not done or (self.directory / REFINED).exists():
            return
        if any([self._refine_with_cameras(), self._refine_outlines()]):
            (self.directory / REFINED).touch()

    def _refine_with_cameras(self) -> bool:
        """Segment again with the cameras, where the backend needs them, or where they are good.

        In the first case the cameras were solved without masks, and are kept. In the second they
        are solved again with the new masks: tracks of moving objects that the first masks missed
        were among the static ones. Of cameras that are static or only rotate, the background is
        known, and is removed. Cameras from files may be noisier than two-view geometry: they are
        used only where the backend needs them. Returns whether there are other masks.
        """
        solution, quality = self._solution(), self.records.quality("masks")
        needed = quality.get("needs_cameras", False)  # not in the records of older versions
        good = solution.verdict.grade == "good" and solution.motion == "moving"
        usable = solution.verdict.grade != "poor"
        better = quality.get("better_with_cameras", False)
        if solution.motion in ("static", "rotating"):
            if not (better and solution.cameras.share_centre):
                return False
            self._replace_masks(
                lambda scene: changed_masks(
                    without_background(scene, StoredMasks(scene), solution.cameras), quality
                )
            )
            return True
        if not ((needed and usable) or (better and good)):
            return False
        # The record keeps the flags of the first masks, in case the cameras are solved again.
        flags = {"needs_cameras": needed, "better_with_cameras": better}
        self._replace_masks(
            lambda scene: dataclasses.replace(
                self.backends.masks.segment(scene, scene.tracks, solution), **flags
            )
        )
        if not needed:
            self._solve_again()
        return True

    def _refine_outlines(self) -> bool:
        """Correct the outlines of masks by motion with a network; return whether that was done."""
        backend, quality = self.backends.masks, self.records.quality("masks")
        network = backend.network if isinstance(backend, MotionMasks) else None
        if network is None:
            return False

        def corrected(scene: Scene) -> MaskResult:
            masks, count = with_salient_outlines(scene, StoredMasks(scene), network.predict)
            return changed_masks(masks, quality | {"salient_objects": count})

        self._replace_masks(corrected)
        return True

    def _replace_masks(self, make: Callable[[Scene], MaskResult]) -> None:
        """Write other masks in place of those of the masks stage, with the same inputs."""
        record = self.records.record("masks")
        assert record is not None
        start = time.perf_counter()
        self.ran = True
        self._forget("depth")
        scene = self.records.scene()
        figures = write_masks(scene, make(scene))
        seconds = record["seconds"] + time.perf_counter() - start
        self._stamp("masks", record["input_hash"], seconds, figures)

    def _solve_again(self) -> None:
        """Solve the cameras with the present masks; keep the old ones unless the new are good."""
        record = self.records.record("cameras")
        assert record is not None
        start = time.perf_counter()
        solution = self._solve()
        if solution.verdict.grade != "good":
            return
        figures = self._write_solution(solution)
        self._stamp(
            "cameras",
            record["input_hash"],
            record["seconds"] + time.perf_counter() - start,
            figures,
            options=record["options"],
            world_units=solution.world_units,
        )

    def stop_if_blank(self) -> None:
        """Raise where no frame shows anything: nothing is estimated from them."""
        record = self.records.record("frames")
        if self.config.accept_poor or record is None:
            return
        blank = len(record["options"].get("blank_frames", ()))
        if blank and blank == len(record["options"]["source_frames"]):
            raise PoorInputError(
                f"{self.config.video}: all {blank} frames are of one brightness (black, white or "
                "out of focus): there is nothing to reconstruct; choose another part of the video "
                "(--start, --end)"
            )

    def stop_if_unnamed(self) -> None:
        """Raise where none of the things that the user names is in the clip."""
        quality = self.records.quality("masks")
        unmatched = quality.get("unmatched", ())
        if unmatched and not quality["objects"] and not self.config.accept_poor:
            raise PoorInputError(
                f"{self.config.video}: nothing in it is a {' or a '.join(unmatched)}; frames, "
                "tracks and empty masks are written: use other words, or --masks motion for what "
                "moves (--accept-poor: continue with a static scene)"
            )

    def stop_if_poor(self) -> None:
        """Raise where depth would be triangulated from cameras that are too poor for it."""
        if self.config.accept_poor or not self.specs["depth"].triangulates:
            return
        if self.records.record("cameras") is None:
            return
        verdict = self._solution().verdict
        if verdict.grade == "poor":
            raise PoorInputError(
                f"{self.directory}: {verdict.reason}; frames, tracks, masks and cameras are "
                f"written, depth is not: {verdict.cure}"
            )

    def report(self) -> None:
        """Write the report, where something changed or there is none."""
        if self.ran or not (self.directory / REPORT).is_file():
            with progress_stage("report"):
                points = self._solution().points if self.records.record("cameras") else None
                write_report(self.records.scene(), points)

    def _stamp(
        self,
        stage: BackendStage,
        digest: str,
        seconds: float,
        figures: Figures,
        *,
        options: dict[str, Any] | None = None,
        world_units: str | None = None,
    ) -> None:
        """Write the record of a stage; `options` by default those of its backend and its choice."""
        backend, choice = self.backends.info(stage), self.choices[stage]
        if options is None:
            options = recorded_options(backend)
            if choice.preset:
                options |= {"preset": choice.preset, "why": choice.why}
        self.records.stamp(stage, digest, backend, options, seconds, figures, world_units)

    def _solve(self) -> CameraSolution:
        """Return the result of the cameras backend for the present tracks and masks."""
        scene, needs = self.records.scene(), self._read_now("cameras")
        tracks = scene.tracks if "tracks" in needs else None
        masks = StoredMasks(scene) if "masks" in needs else None
        if masks is not None and self.records.quality("masks").get("needs_cameras"):
            # These masks cover much of the static scene: mask nothing, take all tracks for static.
            masks = None
            if tracks is not None:
                tracks = dataclasses.replace(tracks, object=np.full(len(tracks), STATIC))
        return self.backends.cameras.solve(scene, tracks, masks)

    def _estimate_depth(self, scene: Scene) -> DepthResult:
        """Return the result of the depth backend."""
        require_depth_space(scene)
        needs = self._read_now("depth")
        return self.backends.depth.estimate(
            scene,
            scene.tracks if "tracks" in needs else None,
            StoredMasks(scene) if "masks" in needs else None,
            self._solution() if "cameras" in needs else None,
        )

    def _read_now(self, stage: BackendStage) -> tuple[Stage, ...]:
        """Return what a stage reads: what it needs, and what helps it if that is done."""
        needs = self.specs[stage].needs
        return tuple(s for s in self.reads[stage] if s in needs or self.records.record(s))

    def _write_solution(self, solution: CameraSolution) -> Figures:
        self._read_solution = None
        return write_solution(self.records.scene(), solution)

    def _solution(self) -> CameraSolution:
        """Return the result of the cameras stage as it is in the directory, read once."""
        if self._read_solution is None:
            self._read_solution = read_solution(self.records.scene())
        return self._read_solution

    def _forget(self, stage: Stage) -> None:
        """Remove the record and the results of a stage and of all that depend on it."""
        forgotten: set[Stage] = {stage}
        for later, reads in self.reads.items():
            if forgotten & set(reads):
                forgotten.add(later)
        self.records.forget(forgotten)
        if "cameras" in forgotten:
            self._read_solution = None
