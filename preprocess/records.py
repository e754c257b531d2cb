"""Records of the stages in `scene.json` and their results beside it: written, checked, removed."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

from msdyn.errors import InputError
from msdyn.preprocess.contracts import BackendInfo, Figures, Stage
from msdyn.scene import LENS_FILE, Scene, StageRecord, stamp_stage, unstamp_stage
from msdyn.writing import refuse_links

__all__ = [
    "CONFIDENCE",
    "POINTS",
    "REFINED",
    "StageRecords",
    "content_digest",
    "recorded_options",
]

POINTS = ".cache/points.npz"
"""Sparse points of the cameras stage."""
REFINED = ".cache/masks_refined"
"""Exists once the masks have been made again with the cameras."""
CONFIDENCE = "depth_confidence"
"""Folder of the confidence maps of depth, of backends that estimate it."""
_OUTPUTS: dict[Stage, tuple[str, ...]] = {
    "frames": ("images",),
    "tracks": ("tracks.npz",),
    "masks": ("masks",),
    "cameras": ("cameras.json", POINTS),
    "depth": ("depth",),
}


class StageRecords:
    """Records and results of the stages of one scene directory.

    Attributes:
        directory: of the scene.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def scene(self) -> Scene:
        """Return the scene as far as it is done."""
        return Scene(self.directory)

    def quality(self, stage: Stage) -> Figures:
        """Return the figures of a stage, none where it is not done."""
        record = self.record(stage)
        return record["quality"] if record else {}

    def record(self, stage: Stage) -> StageRecord | None:
        """Return the record of a stage, None where it is not done."""
        if not (self.directory / "scene.json").is_file():
            return None
        return self.scene().info.stages.get(stage)

    def stamp(
        self,
        stage: Stage,
        digest: str,
        backend: BackendInfo | None,
        options: dict[str, Any],
        seconds: float,
        quality: Figures | None = None,
        world_units: str | None = None,
    ) -> None:
        """Write the record of a finished stage; see `msdyn.scene.stamp_stage`.

        Args:
            stage: the stage.
            digest: of everything that its result depends on.
            backend: None for the frames stage, which has none.
            options: of the backend, JSON values.
            seconds: wall time taken.
            quality: figures of the result.
            world_units: of the cameras stage.
        """
        stamp_stage(
            self.directory,
            stage,
            backend=backend.name if backend else "video",
            options=options,
            input_hash=digest,
            seconds=seconds,
            model=backend.model if backend else None,
            licence=backend.licence if backend else None,
            quality=quality,
            world_units=world_units,
        )

    def complete(self, stage: Stage) -> bool:
        """Return whether the results of a stamped stage are still in the directory."""
        for name in _OUTPUTS[stage]:
            path = self.directory / name
            if not path.exists():
                return False
            if path.is_dir() and len(list(path.iterdir())) != len(self.scene()):
                return False
        return True

    def forget(self, stages: set[Stage]) -> None:
        """Remove the records and the results of stages."""
        for name in stages:
            if (self.directory / "scene.json").is_file():
                unstamp_stage(self.directory, name)
            for output in _OUTPUTS[name]:
                path = self.directory / output
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if "frames" in stages:
            (self.directory / LENS_FILE).unlink(missing_ok=True)
        if "depth" in stages:
            shutil.rmtree(self.directory / CONFIDENCE, ignore_errors=True)
        if stages & {"masks", "cameras"}:
            (self.directory / REFINED).unlink(missing_ok=True)

    def refuse_links(self) -> None:
        """Raise if a folder that preprocessing writes or removes is a link.

        Raises:
            InputError: with the link and the cure.
        """
        for outputs in (*_OUTPUTS.values(), (CONFIDENCE, ".cache", "views")):
            for output in outputs:
                refuse_links(self.directory, self.directory / output)

    def refuse_own_output(self, stage: Stage, path: Path | None) -> None:
        """Raise if a backend is to read the files that its own stage writes.

        Raises:
            InputError: the path is an output of the stage.
        """
        if path is None:
            return
        for output in _OUTPUTS[stage]:
            if path.resolve() == (self.directory / output).resolve():
                raise InputError(
                    f"{path}: the {stage} stage writes here, so it cannot read from here; "
                    "move the files out of the scene directory first"
                )


def recorded_options(backend: object) -> dict[str, Any]:
    """Return the options of a backend (its fields, if it is a dataclass) as JSON values."""
    if not dataclasses.is_dataclass(backend) or isinstance(backend, type):
        return {}
    fields = [f.name for f in dataclasses.fields(backend) if f.metadata.get("option", True)]
    return {name: _recorded(getattr(backend, name)) for name in fields}


def _recorded(value: Any) -> Any:
    """Return an option as a JSON value."""
    if dataclasses.is_dataclass(value):
        return recorded_options(value)
    return str(value) if isinstance(value, Path) else value


def content_digest(path: Path) -> str:
    """Return the digest of a file, or of the names and content of the files in a folder.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
