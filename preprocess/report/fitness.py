"""How well the parts of a scene fit one another, and the verdict on a scene as a whole.

For scenes from anywhere: everything is measured on the files themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from msdyn.geometry import nearest_pixels, project, transform_points, unproject
from msdyn.preprocess.contracts import Verdict
from msdyn.preprocess.depth.consistency import Agreement, depth_difference
from msdyn.preprocess.report.quality import (
    GRADES,
    MOST_DISAGREE,
    judge_agreement,
    judge_stages,
    mask_figures,
)
from msdyn.scene import STATIC, Scene

__all__ = ["Fitness", "judge_scene", "measure_fitness", "static_track_errors", "worst_score"]

PAIRS, PAIR_GAP = 12, 4  # pairs of frames whose depth is compared, and frames between them
STEPS = 8  # frames after which the positions of static tracks are compared, at most
# Error of static tracks, as a share of the longer side of the image.
GOOD_STATIC, POOR_STATIC = 0.006, 0.025
FEW_TRACKS = 20


@dataclass(frozen=True)
class Fitness:
    """One figure of the consistency of the parts of a scene.

    Attributes:
        name: what was measured.
        value: as text.
        verdict: what it means.
        score: 0 perfect, 1 the limit of poor; None where it is no measure of cameras and depth.
    """

    name: str
    value: str
    verdict: Verdict
    score: float | None = None


def measure_fitness(scene: Scene) -> list[Fitness]:
    """Return how consistent a complete scene directory is, as input of a fit.

    Static tracks are lifted by the depth of their first frame and projected into their last; depth
    is compared between frames; tracks are compared with their masks.
    """
    return [*_static_tracks(scene), *_depth_agreement(scene), *_objects(scene)]


def judge_scene(scene: Scene, fitness: Sequence[Fitness] | None = None) -> Verdict:
    """Return the verdict on a scene as the input of a fit.

    The worst grade of its stages and, where the scene is complete, of how these fit one another.
    All commands take it from here.

    Args:
        scene: the scene.
        fitness: as measured already by `measure_fitness`.
    """
    verdicts = judge_stages(scene.info.stages)
    if fitness is None:
        fitness = measure_fitness(scene) if _is_complete(scene) else ()
    named = [*verdicts.items(), *((figure.name, figure.verdict) for figure in fitness)]
    grade = max((verdict.grade for _, verdict in named), key=GRADES.index, default=GRADES[0])
    found = [(name, verdict) for name, verdict in named if verdict.grade == grade != "good"]
    reasons = "; ".join(f"{name}: {verdict.reason}" for name, verdict in found)
    return Verdict(grade, reasons, found[0][1].cure if found else "")


def worst_score(fitness: Sequence[Fitness]) -> float:
    """Return the largest score; 0 without any."""
    return max((figure.score for figure in fitness if figure.score is not None), default=0.0)


def _is_complete(scene: Scene) -> bool:
    """Return whether a scene has all that is compared."""
    names = ("tracks.npz", "cameras.json", "depth", "masks")
    return all((scene.directory / name).exists() for name in names)


def _graded(value: float, good: float, usable: float, reason: str, cure: str) -> Verdict:
    """Return the verdict on a value, by the largest good and the largest usable one."""
    if value <= good:
        return Verdict("good")
    return Verdict("usable" if value <= usable else "poor", reason, cure)


def _static_tracks(scene: Scene) -> list[Fitness]:
    """Return how far static tracks are from where cameras and depth put them."""
    errors = static_track_errors(scene)
    if errors is None:
        verdict = Verdict(
            "usable",
            "no track is known to be static, so cameras and depth cannot be checked",
            "let msdyn-preprocess make the tracks (--tracks flow)",
        )
        return [Fitness("static points", "no static tracks", verdict)]
    if not len(errors):
        return []
    error = float(np.median(errors))
    share = error / max(scene.size)
    verdict = _graded(
        share,
        GOOD_STATIC,
        POOR_STATIC,
        f"static points are {error:.1f} px ({share:.1%} of the image) from where cameras and depth "
        f"put them {STEPS} frames later",
        "little: tracks slip, or depth is coarse; much: check the cameras (of another clip, or "
        "size?) and the units of the depth",
    )
    value = f"{error:.2f} px off after {STEPS} frames"
    return [Fitness("static points", value, verdict, share / POOR_STATIC)]


def static_track_errors(scene: Scene) -> Float[np.ndarray, " tracks"] | None:
    """Return how far (px) static tracks are from where cameras and depth put them.

    Each is lifted by the depth of its first frame and projected into the last of the next few in
    which it is visible: over its whole life, errors of the tracks themselves would dominate.

    Returns:
        The error of each track that has depth; None where no static track is long enough.
    """
    tracks, cameras = scene.tracks, scene.cameras
    rows = np.flatnonzero((tracks.object == STATIC) & (tracks.lifetimes >= 3))
    if not len(rows):
        return None
    first = tracks.start[rows]
    last = np.minimum(tracks.stop[rows] - 1, first + STEPS)
    errors = [np.zeros(0)]
    for frame in np.unique(first).tolist():
        own, end = rows[first == frame], last[first == frame]
        xy = tracks.look_up(own, frame)[0]
        depth = scene.depth(frame)
        row, column, _ = nearest_pixels(xy, *depth.shape)
        z = depth[row, column]
        own, end, xy, z = own[z > 0], end[z > 0], xy[z > 0], z[z > 0].astype(np.float64)
        local = unproject(cameras.intrinsics[frame], xy.astype(np.float64), z)
        world = transform_points(cameras.world_from_cam[frame], local)
        there = transform_points(cameras.cam_from_world[end], world[:, None])  # [n, 1, 3]
        tracked, visible = tracks.look_up(own, end)
        kept = visible & (there[:, 0, 2] > 0)
        projected = project(cameras.intrinsics[end[kept]], there[kept])[:, 0]
        errors.append(np.linalg.norm(projected - tracked[kept], axis=1))
    return np.concatenate(errors)


def _depth_agreement(scene: Scene) -> list[Fitness]:
    """Return how much the depth of different frames differs on the same surface."""
    if len(scene) <= PAIR_GAP:
        return []
    agreement = Agreement()
    for frame in np.unique(np.linspace(0, len(scene) - 1 - PAIR_GAP, PAIRS).astype(int)).tolist():
        first, second = (
            np.where(scene.mask(t) == STATIC, scene.depth(t), 0) for t in (frame, frame + PAIR_GAP)
        )
        agreement.add(depth_difference(scene.cameras, frame, first, frame + PAIR_GAP, second))
    if agreement.difference is None or agreement.disagreeing is None:
        verdict = Verdict(
            "poor",
            "no surface of one frame is found again in another: cameras and depth contradict",
            "check that depth is z-depth in the units of the cameras",
        )
        return [Fitness("depth", "never agrees between frames", verdict, 1 / MOST_DISAGREE)]
    figures = {
        "reprojection_difference": agreement.difference,
        "disagreeing": agreement.disagreeing,
    }
    value = (
        f"differs by {agreement.difference:.2%} between frames, "
        f"{agreement.disagreeing:.0%} of the pixels by more than 10%"
    )
    score = agreement.disagreeing / MOST_DISAGREE
    return [Fitness("depth", value, judge_agreement(figures), score)]


def _objects(scene: Scene) -> list[Fitness]:
    """Return number, life and agreement with the masks of the tracks of each object."""
    masks = (scene.mask(t) for t in range(len(scene)))
    result = []
    for label, figures in mask_figures(scene.tracks, masks)["tracks_of_objects"].items():
        count, life, inside = (figures[key] for key in ("tracks", "mean_life_frames", "inside"))
        verdict = Verdict("good")
        if count < FEW_TRACKS:
            verdict = Verdict(
                "usable",
                f"object {label} has {count} tracks: its motion is hardly known",
                "use a larger --long-side, or --tracks cotracker",
            )
        elif inside < 0.85:
            verdict = Verdict(
                "usable" if inside >= 0.6 else "poor",
                f"the tracks of object {label} are on its mask only {inside:.0%} of the time",
                "make masks and tracks of the same frames (--redo masks)",
            )
        value = f"{count} tracks, {life:.1f} frames long, {inside:.0%} inside"
        result.append(Fitness(f"object {label}", value, verdict))
    return result
