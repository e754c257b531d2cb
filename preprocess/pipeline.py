"""From a video to a scene directory: runs the stages, stamps them, and skips what is up to date.

A stage is up to date when its record in `scene.json` carries the digest of its backend, options,
input files and the digests of the stages it needs. A stage that runs first removes its own record
and results and those of the stages that hang on it, so a run cut short is never taken for done;
started again, preprocessing goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import time
from typing import Any

import numpy as np

from msdyn.errors import InputError, PoorInputError
from msdyn.preprocess.config import STAGES, PreprocessConfig, Stage
from msdyn.preprocess.contracts import CameraSolution, DepthMap, SparsePoints, StoredMasks, Verdict
from msdyn.preprocess.frames.extract import write_frames
from msdyn.preprocess.frames.sources import source_files
from msdyn.preprocess.multiview.track_labels import assign_objects, number_objects
from msdyn.preprocess.presets import choose_backends
from msdyn.preprocess.records import (
    CONFIDENCE,
    POINTS,
    REFINED,
    StageRecords,
    content_digest,
    options_of,
)
from msdyn.preprocess.registry import BACKENDS
from msdyn.preprocess.report.page import REPORT, write_report
from msdyn.preprocess.report.quality import mask_figures
from msdyn.scene import (
    IGNORE,
    STATIC,
    Scene,
    frame_path,
    load_npz,
    save_npz,
    write_cameras,
    write_depth,
    write_image,
    write_mask,
    write_tracks,
)

__all__ = ["preprocess_video"]

_log = logging.getLogger(__name__)


def preprocess_video(config: PreprocessConfig) -> Scene:
    """Make, or bring up to date, the scene directory of a video.

    Returns:
        The scene; with `config.only` it may lack stages.

    Raises:
        FileNotFoundError: the video or a file of a `files` backend is missing.
        InputError: the video or such a file is not as it should be, or the directory is of
            something else.
        PoorInputError: the cameras are too poor for triangulated depth and `accept_poor` is not
            set; frames, tracks, masks and cameras are written all the same.
    """
    run = _Run(config)
    run.prepare()
    chosen = config.only or STAGES
    try:
        for stage in STAGES[:-1]:
            if stage in chosen:
                run.bring_up_to_date(stage)
        if "masks" in chosen:
            run.refine_masks()
        if "depth" in chosen:
            run.stop_if_poor()
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
        config, self.choices = choose_backends(config, self.records.record)
        self.config = config
        self.ran = False
        self.specs = {stage: names[getattr(config, stage)] for stage, names in BACKENDS.items()}

    def prepare(self) -> None:
        """Check that the directory is ours to write to, and forget the stages to be redone."""
        directory, video = self.directory, self.config.video
        record = self.records.record("frames")
        source = record["options"].get("source") if record else None
        ours = source is not None or (directory / ".cache").is_dir()
        if directory.exists() and not ours:
            if not directory.is_dir() or any(directory.iterdir()):
                raise InputError(
                    f"{directory}: exists and was not made by msdyn-preprocess; "
                    "choose another with --out"
                )
        if source not in (None, video.name) and "frames" not in self.config.redo:
            raise InputError(
                f"{directory}: holds the scene of {source}, not of {video.name}; "
                "choose another with --out, or replace it with --redo frames"
            )
        for stage in STAGES[1:]:
            self.records.refuse_own_output(stage, getattr(self.config, f"{stage}_path"))
        for stage in self.config.redo:
            self._forget(stage)

    def bring_up_to_date(self, stage: Stage) -> None:
        """Run a stage unless its record and results are there and nothing it reads has changed."""
        digest = self._digest(stage)
        record = self.records.record(stage)
        if record and record["input_hash"] == digest and self.records.complete(stage):
            _log.info("%s: up to date", stage)
            return
        self._forget(stage)
        self.ran = True
        (self.directory / ".cache").mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        if stage == "frames":
            options = dataclasses.asdict(self.config.frames)
            options |= write_frames(self.config.video, self.directory, self.config.frames)
            backend, result = None, {}
        else:
            backend = self._backend(stage)
            options = options_of(backend) | self._chosen(stage)
            result = getattr(self, f"_{stage}")(backend)
        self.records.stamp(stage, digest, backend, options, time.perf_counter() - start, **result)

    def refine_masks(self) -> None:
        """Segment again with the cameras, where the backend needs them, or where they are good.

        In the first case the cameras were found without masks, and stay. In the second they are
        solved once more, with the better masks: what the first ones missed of the movers took part
        in them. Cameras from files may be noisier than what two views tell, so they are asked only
        where they must be.
        """
        masks = self.records.record("masks")
        if not (masks and self.records.record("cameras")) or (self.directory / REFINED).exists():
            return
        solution, quality = self._solution(), masks["quality"]
        good = solution.verdict.grade == "good" and solution.motion == "moving"
        usable = solution.verdict.grade != "poor"
        wanted = (quality.get("needs_cameras") and usable) or (
            quality.get("better_with_cameras") and good
        )
        if not wanted or solution.motion in ("static", "rotating"):
            return
        start = time.perf_counter()
        self.ran = True
        self._forget("depth")
        backend = self._backend("masks")
        result = self._masks(backend, solution)
        # What the first pass found holds, should the cameras be solved again.
        keys = ("needs_cameras", "better_with_cameras")
        result["quality"] |= {key: quality[key] for key in keys if key in quality}
        seconds = masks["seconds"] + time.perf_counter() - start
        options = options_of(backend) | self._chosen("masks")
        self.records.stamp("masks", masks["input_hash"], backend, options, seconds, **result)
        if not quality.get("needs_cameras"):
            self._solve_again()
        (self.directory / REFINED).touch()

    def _solve_again(self) -> None:
        """Solve the cameras with the masks as they are now; keep the old ones, should they fail."""
        record = self.records.record("cameras")
        assert record is not None
        start = time.perf_counter()
        backend = self._backend("cameras")
        solution = self._solved(backend)
        if solution.verdict.grade != "good":
            return
        result = self._write_solution(solution)
        seconds = record["seconds"] + time.perf_counter() - start
        self.records.stamp(
            "cameras", record["input_hash"], backend, record["options"], seconds, **result
        )

    def stop_if_poor(self) -> None:
        """Raise where depth would be triangulated from cameras that cannot give it."""
        if self.config.accept_poor or not self.specs["depth"].triangulates:
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
            points = None
            if self.records.record("cameras"):
                points = self._solution().points
            write_report(self.records.scene(), points)

    def _chosen(self, stage: Stage) -> dict[str, str]:
        """Return what the record says of a backend that the user did not name."""
        choice = self.choices[stage]
        return {"preset": choice.preset, "why": choice.why} if choice.preset else {}

    def _backend(self, stage: Stage) -> Any:
        return self.specs[stage].make(self.config)

    def _tracks(self, backend: Any) -> dict[str, Any]:
        tracks, quality = backend.track(self.records.scene())
        write_tracks(self.directory / "tracks.npz", tracks)
        return {"quality": quality}

    def _masks(self, backend: Any, solution: CameraSolution | None = None) -> dict[str, Any]:
        """Write masks and the objects of the tracks, which must agree with one another."""
        scene = self.records.scene()
        shutil.rmtree(self.directory / "masks", ignore_errors=True)
        masks, quality = backend.segment(scene, scene.tracks, solution)
        present: set[int] = set()
        for frame, mask in enumerate(masks):
            write_mask(self.directory, frame, mask)
            present |= set(np.unique(mask).tolist())
        votes = assign_objects(scene.tracks, map(scene.mask, range(len(scene))))
        table = number_objects(present, set(votes.tolist()))
        changed = [label for label in present if table[label] != label]
        for frame in range(len(scene)) if changed else ():
            write_mask(self.directory, frame, table[scene.mask(frame)])
        objects = np.where(votes > 0, table[votes], votes)
        tracks = dataclasses.replace(scene.tracks, object=objects)
        write_tracks(self.directory / "tracks.npz", tracks)
        figures = mask_figures(tracks, map(scene.mask, range(len(scene))))
        without_track = [label for label in changed if table[label] == IGNORE]
        if without_track:
            _log.warning("masks: object(s) %s have no track and are ignored", without_track)
        return {
            "quality": quality
            | {
                "objects": len(set(table[list(present)].tolist()) - {STATIC, IGNORE}),
                "objects_without_track": len(without_track),
                "tracks_on_objects": int((objects > 0).sum()),
                "tracks_unknown": int((objects < 0).sum()),
            }
            | figures
        }

    def _cameras(self, backend: Any) -> dict[str, Any]:
        return self._write_solution(self._solved(backend))

    def _solved(self, backend: Any) -> CameraSolution:
        scene, needs = self.records.scene(), self.specs["cameras"].needs
        tracks = scene.tracks if "tracks" in needs else None
        masks = StoredMasks(scene) if "masks" in needs else None
        if tracks and masks is not None and self.records.quality("masks").get("needs_cameras"):
            # These masks hold much that lies still, and would take it from the cameras.
            tracks = dataclasses.replace(tracks, object=np.full(len(tracks), -1))
            masks = None
        return backend.solve(scene, tracks, masks)

    def _write_solution(self, solution: CameraSolution) -> dict[str, Any]:
        write_cameras(self.directory / "cameras.json", solution.cameras)
        save_npz(self.directory / POINTS, **dataclasses.asdict(solution.points))
        verdict = dataclasses.asdict(solution.verdict)
        return {
            "quality": solution.quality | {"motion": solution.motion, "verdict": verdict},
            "world_units": solution.world_units,
        }

    def _depth(self, backend: Any) -> dict[str, Any]:
        scene, needs = self.records.scene(), self.specs["depth"].needs
        depths, quality = backend.estimate(
            scene,
            scene.tracks if "tracks" in needs else None,
            StoredMasks(scene) if "masks" in needs else None,
            self._solution() if "cameras" in needs else None,
        )
        for frame, item in enumerate(depths):
            depth = item.depth if isinstance(item, DepthMap) else item
            if isinstance(item, DepthMap):
                folder = self.directory / CONFIDENCE
                write_image(frame_path(folder, frame, ".png"), item.confidence)
            write_depth(self.directory, frame, depth)
        return {"quality": quality}

    def _solution(self) -> CameraSolution:
        """Return the cameras stage's result as it lies in the directory."""
        scene = self.records.scene()
        quality = dict(scene.info.stages["cameras"]["quality"])
        keys = tuple(field.name for field in dataclasses.fields(SparsePoints))
        return CameraSolution(
            scene.cameras,
            motion=quality.pop("motion"),
            points=SparsePoints(**load_npz(self.directory / POINTS, keys)),
            verdict=Verdict(**quality.pop("verdict")),
            world_units=scene.info.world_units,
            quality=quality,
        )

    def _digest(self, stage: Stage) -> str:
        """Return the digest of everything that a stage's result depends on."""
        if stage == "frames":
            files = source_files(self.config.video)
            names = [file.name for file in files] if len(files) > 1 else []
            parts: list[Any] = [
                dataclasses.asdict(self.config.frames),
                names,
                [content_digest(file) for file in files],
            ]
        else:
            backend = self._backend(stage)
            path = getattr(backend, "path", None)
            options = {k: v for k, v in options_of(backend).items() if k != "path"}
            parts = [backend.name, options, content_digest(path) if path else None]
            for need in self.specs[stage].needs:
                record = self.records.record(need)
                if record is None:
                    raise InputError(
                        f"{self.directory}: {stage} need the {need} stage, which is not done; "
                        f"add --only {need}, or leave --only out"
                    )
                parts.append(record["input_hash"])
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def _forget(self, stage: Stage) -> None:
        """Remove the record and the results of a stage and of all that hang on it."""
        forgotten: set[Stage] = {stage}
        for later in STAGES[1:]:
            if forgotten & set(self.specs[later].needs):
                forgotten.add(later)
        self.records.forget(forgotten)
