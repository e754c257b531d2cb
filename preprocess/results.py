"""What backends return, as files of the scene directory; and reading it back."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator

import numpy as np

from msdyn.errors import InputError
from msdyn.preprocess.contracts import (
    CameraSolution,
    DepthResult,
    Figures,
    Mask,
    MaskResult,
    SparsePoints,
    TrackResult,
    Verdict,
)
from msdyn.preprocess.multiview.track_labels import assign_objects, number_objects
from msdyn.preprocess.records import CONFIDENCE, POINTS
from msdyn.preprocess.report.quality import mask_figures
from msdyn.reading import as_schema, load_npz, reading
from msdyn.scene import (
    IGNORE,
    STATIC,
    Scene,
    frame_path,
    save_npz,
    write_cameras,
    write_depth,
    write_image,
    write_mask,
    write_tracks,
)
from msdyn.writing import require_space

__all__ = [
    "StoredMasks",
    "read_solution",
    "require_depth_space",
    "write_depths",
    "write_masks",
    "write_solution",
    "write_track_result",
]

_log = logging.getLogger(__name__)


class StoredMasks:
    """`Masks` of a scene directory, read on demand: those of a long clip need not fit in memory."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __len__(self) -> int:
        return len(self._scene)

    def __getitem__(self, frame: int) -> Mask:
        return self._scene.mask(frame)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._scene.mask, range(len(self)))


def write_track_result(scene: Scene, result: TrackResult) -> Figures:
    """Write tracks; return the figures of the stage."""
    write_tracks(scene.directory / "tracks.npz", result.tracks)
    return result.figures


def write_masks(scene: Scene, result: MaskResult) -> Figures:
    """Write masks, and the objects of the tracks, which must agree with one another.

    Objects are numbered 1, 2, ...; pixels of an object without a track are ignored. Masks that are
    there already are removed first.

    Returns:
        The figures of the stage.
    """
    directory, stored = scene.directory, StoredMasks(scene)
    shutil.rmtree(directory / "masks", ignore_errors=True)
    present: set[int] = set()
    for frame, mask in enumerate(result.masks):
        write_mask(directory, frame, mask)
        present |= set(np.unique(mask).tolist())
    votes = assign_objects(scene.tracks, stored)
    table = number_objects(present, set(votes.tolist()))
    changed = [label for label in present if table[label] != label]
    for frame in range(len(scene)) if changed else ():
        write_mask(directory, frame, table[stored[frame]])
    objects = np.where(votes > 0, table[votes], votes)
    tracks = dataclasses.replace(scene.tracks, object=objects)
    write_tracks(directory / "tracks.npz", tracks)
    figures = result.masks.figures
    names = {int(label): name for label, name in figures.get("names", {}).items()}
    without_track = [label for label in changed if table[label] == IGNORE]
    if without_track:
        labels = ", ".join(
            f"{label} ({names[label]})" if label in names else str(label) for label in without_track
        )
        _log.warning("masks: object(s) %s have no track and are ignored", labels)
    if names:
        kept = {label: name for label, name in names.items() if label in present}
        kept = {str(table[label]): name for label, name in kept.items() if table[label] != IGNORE}
        figures = figures | {"names": kept}
    return {
        **figures,
        "needs_cameras": result.needs_cameras,
        "better_with_cameras": result.better_with_cameras,
        "objects": len(set(table[list(present)].tolist()) - {STATIC, IGNORE}),
        "objects_without_track": len(without_track),
        "tracks_on_objects": int((objects > 0).sum()),
        "tracks_unknown": int((objects < 0).sum()),
        **mask_figures(tracks, stored),
    }


def write_solution(scene: Scene, solution: CameraSolution) -> Figures:
    """Write cameras and sparse points; return the figures of the stage."""
    write_cameras(scene.directory / "cameras.json", solution.cameras)
    save_npz(scene.directory / POINTS, **dataclasses.asdict(solution.points))
    verdict = dataclasses.asdict(solution.verdict)
    return solution.quality | {"motion": solution.motion, "verdict": verdict}


def read_solution(scene: Scene) -> CameraSolution:
    """Return the result of the cameras stage, which must be done."""
    quality = dict(scene.info.stages["cameras"]["quality"])
    for key in ("motion", "verdict"):
        if key not in quality:
            raise InputError(
                f"{scene.directory / 'scene.json'}: stages.cameras.quality.{key}: missing; pass "
                "--redo cameras"
            )
    keys = tuple(field.name for field in dataclasses.fields(SparsePoints))
    with reading(scene.directory / POINTS, "file of points", cure="; pass --redo cameras"):
        points = SparsePoints(**load_npz(scene.directory / POINTS, keys))
        points.check(len(scene))
    return CameraSolution(
        scene.cameras,
        motion=quality.pop("motion"),
        points=points,
        verdict=as_schema(quality.pop("verdict"), Verdict, "verdict"),
        world_units=scene.info.world_units,
        quality=quality,
    )


def require_depth_space(scene: Scene) -> None:
    """Raise, before depth is estimated, if the disk has no space for its maps.

    Raises:
        ResourceError: with the sizes.
    """
    height, width = scene.size
    cure = "free some space and give the same command again"
    require_space(scene.directory, 4 * len(scene) * height * width, cure)  # float32


def write_depths(scene: Scene, result: DepthResult) -> Figures:
    """Write depth maps, and their confidence where there is one; return the figures."""
    for frame, item in enumerate(result.maps):
        if item.confidence is not None:
            folder = scene.directory / CONFIDENCE
            write_image(frame_path(folder, frame, ".png"), item.confidence)
        write_depth(scene.directory, frame, item.depth)
    return result.maps.figures
