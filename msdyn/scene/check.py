"""Validation of a whole scene directory: every file, and consistency between files."""

from dataclasses import dataclass, field

import numpy as np

from msdyn.errors import InputError
from msdyn.scene.scene import IGNORE, STATIC, Scene

__all__ = ["SceneReport", "check_scene"]


@dataclass
class SceneReport:
    """The result of `check_scene`: facts to print, and warnings that do not prevent a fit."""

    facts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def check_scene(scene: Scene) -> SceneReport:
    """Read and validate all files that a fit reads.

    Raises:
        FileNotFoundError: a file is missing.
        InputError: the first error found: file, key, expected, actual.
    """
    report = SceneReport()
    height, width = scene.size
    info = scene.info
    duration = info.timeline.seconds[-1] - info.timeline.seconds[0]
    report.facts["clip"] = f"{len(scene)} frames of {width}x{height}, {duration:.2f} s"
    cameras = scene.cameras
    path = np.linalg.norm(np.diff(cameras.centres, axis=0), axis=1).sum()
    report.facts["cameras"] = (
        f"focal length {cameras.intrinsics[0, 0, 0]:.1f} px, path of {path:.3g} "
        f"({'metres' if info.world_units == 'metric' else 'arbitrary units'})"
    )
    if scene.lenses is not None:
        models = {item.lens.model for item in scene.lenses.undistortions}
        report.facts["lens"] = f"images undistorted from {', '.join(sorted(models))}"

    known, instances = [], set()
    for frame in range(len(scene)):
        scene.image(frame)
        known.append(float((scene.depth(frame) > 0).mean()))
        instances |= set(np.unique(scene.mask(frame)).tolist())
    instances -= {STATIC, IGNORE}
    report.facts["depth"] = f"known for {np.mean(known):.0%} of pixels"
    if min(known) < 0.1:
        frame = int(np.argmin(known))
        report.warnings.append(f"depth: known for only {min(known):.0%} of pixels in frame {frame}")
    report.facts["masks"] = f"{len(instances)} moving object(s)"

    tracks = scene.tracks
    tracked = set(np.unique(tracks.object).tolist()) - {STATIC, -1}
    if tracked - instances:
        raise InputError(
            f"{scene.directory / 'tracks.npz'}: object: tracks name object(s) "
            f"{sorted(tracked - instances)}, which no mask contains"
        )
    if instances - tracked:
        raise InputError(
            f"{scene.directory / 'masks'}: object(s) {sorted(instances - tracked)} have no "
            "track in tracks.npz; run the tracks stage again with these masks "
            "(`msdyn-preprocess ... --redo tracks`), or remove them from the masks"
        )
    moving = int((tracks.object > 0).sum())
    lifetime = float(tracks.lifetimes.mean()) if len(tracks) else 0.0
    report.facts["tracks"] = (
        f"{len(tracks)}, {moving} on objects, {lifetime:.1f} frames long on average"
    )
    for view in scene.views.values():
        report.facts[f"view {view.name}"] = f"{len(view.frames)} images"
    return report
