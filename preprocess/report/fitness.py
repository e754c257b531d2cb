"""How well the parts of a scene fit one another, and the verdict on a scene as a whole.

For scenes from anywhere: everything is measured on the files themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Float

from msdyn.geometry import nearest_pixels, project, transform_points, unproject
from msdyn.preprocess.contracts import Verdict
from msdyn.preprocess.depth.consistency import Agreement, depth_difference
from msdyn.preprocess.report.quality import (
    MOST_DISAGREE,
    judge_agreement,
    judge_stages,
    mask_figures,
    worse,
)
from msdyn.scene import STATIC, Scene

__all__ = ["Fitness", "judge_scene", "measure_fitness", "static_errors", "worst_score"]

PAIRS, PAIR_GAP = 12, 4  # pairs of frames whose depth is compared, and frames between them
STEPS = 8  # frames after which static points are compared
STATIC_PAIRS, QUARTER_TRACKS = 60, 5
# Error of static points, as a share of the longer side of the image: above the first, fits lose
# 3 dB, above the second those of synthetic clips lose 6 dB (docs/preprocessing.md).
GOOD_STATIC, POOR_STATIC = 0.008, 0.02
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
    grade = reduce(worse, (verdict for _, verdict in named), Verdict("good")).grade
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
    if not (scene.tracks.object == STATIC).any():
        verdict = Verdict(
            "usable",
            "no track is known to be static, so cameras and depth cannot be checked",
            "let msdyn-preprocess make the tracks (--tracks flow)",
        )
        return [Fitness("static points", "no static tracks", verdict)]
    errors = static_errors(scene)
    if not len(errors):
        return []
    error = float(errors.mean())
    share = error / max(scene.size)
    verdict = _graded(
        share,
        GOOD_STATIC,
        POOR_STATIC,
        f"static parts of the image are {error:.1f} px ({share:.1%} of its longer side) from where "
        f"cameras and depth put them {STEPS} frames later",
        "little: depth is coarse, or cameras are noisy; much: check the cameras (of another clip, "
        "or size?) and the units of the depth",
    )
    value = f"{error:.2f} px off after {STEPS} frames"
    return [Fitness("static points", value, verdict, share / POOR_STATIC)]


def static_errors(scene: Scene) -> Float[np.ndarray, " pairs"]:
    """Return how far (px) static points are from where cameras and depth put them.

    The static tracks of a frame are lifted by its depth and projected into a later one. Of the
    differences from their positions there, the median of each quarter of the image is taken, so
    that errors of single tracks cancel: errors of cameras and depth are common to many.

    Returns:
        For each pair of frames with enough tracks, the mean over the quarters.
    """
    tracks, cameras = scene.tracks, scene.cameras
    last = len(scene) - 1
    errors = []
    for frame in np.unique(np.linspace(0, max(last - 2, 0), STATIC_PAIRS).astype(int)).tolist():
        end = min(frame + STEPS, last)
        rows, xy, tracked = tracks.between(frame, end)
        depth = scene.depth(frame)
        row, column, _ = nearest_pixels(xy, *depth.shape)
        z = depth[row, column].astype(np.float64)
        used = (tracks.object[rows] == STATIC) & (z > 0)
        xy, tracked, z = xy[used].astype(np.float64), tracked[used], z[used]
        world = transform_points(
            cameras.world_from_cam[frame], unproject(cameras.intrinsics[frame], xy, z)
        )
        there = transform_points(cameras.cam_from_world[end], world)
        ahead = there[:, 2] > 0
        off = project(cameras.intrinsics[end], there[ahead]) - tracked[ahead]
        right, below = (xy[ahead] > np.array(depth.shape[::-1]) / 2).T
        quarters = [off[(right == x) & (below == y)] for x in (False, True) for y in (False, True)]
        medians = [np.median(q, axis=0) for q in quarters if len(q) >= QUARTER_TRACKS]
        if medians:
            errors.append(float(np.linalg.norm(medians, axis=1).mean()))
    return np.array(errors)


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
