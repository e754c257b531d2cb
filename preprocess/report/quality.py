"""Quality of the results of the stages, and their consistency; for scenes from anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdyn.geometry import nearest_pixels, project, transform_points, unproject
from msdyn.preprocess.contracts import Figures, Mask, Verdict
from msdyn.preprocess.depth.consistency import Agreement, depth_difference
from msdyn.scene import IGNORE, STATIC, Scene, Tracks

__all__ = ["Fitness", "judge_stages", "mask_figures", "measure_fitness"]

PAIRS, PAIR_GAP = 12, 4  # pairs of frames whose depth is compared, and frames between them
WIDTH = 854  # px; limits in px are for images of this width
FEW_TRACKS = 20
# Share of pixels whose depth differs by more than 10 % between frames. On clips that can be fitted
# it is 2 to 8 %, on hard ones 14 to 35 %, where each frame has another scale 70 to 90 %.
SOME_DISAGREE, MOST_DISAGREE = 0.15, 0.5
GRADES = ("good", "usable", "poor")


def mask_figures(tracks: Tracks, masks: Iterable[Mask]) -> Figures:
    """Return figures of the agreement of masks and tracks.

    Args:
        tracks: N tracks with their objects.
        masks: T index masks [H, W].

    Returns:
        `tracks_of_objects`, by object: `tracks`, `mean_life_frames`, and `inside`, the share of
        their positions on the object's own mask. `stability`: of the steps of tracks that are on an
        object before or after, the share with the same label before and after.
    """
    inside = np.zeros(len(tracks), int)  # frames in which a track is on its object's mask
    before = np.full(len(tracks), IGNORE, np.uint8)  # labels at the tracks
    steps = stable = 0
    for frame, mask in enumerate(masks):
        rows, xy = tracks.at(frame)
        row, column, _ = nearest_pixels(xy, *mask.shape)
        after = np.full(len(tracks), IGNORE, np.uint8)
        after[rows] = mask[row, column]
        inside += after == tracks.object
        counted = (before != IGNORE) & (after != IGNORE) & ((before > 0) | (after > 0))
        steps += int(counted.sum())
        stable += int((before == after)[counted].sum())
        before = after
    objects = {}
    for label in np.unique(tracks.object[tracks.object > 0]).tolist():
        own = tracks.object == label
        life = tracks.lifetimes[own]
        objects[str(label)] = {
            "tracks": len(life),
            "mean_life_frames": round(float(life.mean()), 2),
            "inside": round(float(inside[own].sum() / life.sum()), 4),
        }
    return {
        "tracks_of_objects": objects,
        "stability": round(stable / steps, 4) if steps else None,
    }


def judge_stages(records: dict[str, dict[str, Any]]) -> dict[str, Verdict]:
    """Return the verdict on each finished stage, from its record in `scene.json`.

    A camera that is static or only rotates is usable where depth does not depend on its motion.
    """
    verdicts = {stage: _judge_stage(stage, record) for stage, record in records.items()}
    motion = records.get("cameras", {}).get("quality", {}).get("motion")
    depth = records.get("depth")
    if depth and depth["backend"] != "fused" and motion in ("static", "rotating"):
        reason = "the camera is static" if motion == "static" else "the camera only rotates"
        source = "of files" if depth["backend"] == "files" else "that of a network"
        verdicts["cameras"] = Verdict(
            "usable",
            f"{reason}: depth is {source}",
            "move the camera sideways while filming, for depth that is measured",
        )
    return verdicts


def _judge_stage(stage: str, record: dict[str, Any]) -> Verdict:
    """Return the verdict on a stage from its own record."""
    quality = record["quality"]
    if "verdict" in quality:
        own = Verdict(**quality["verdict"])
        return _worse(own, _judge_agreement(quality)) if stage == "depth" else own
    judges = {"frames": _judge_frames, "tracks": _judge_tracks, "masks": _judge_masks}
    judge = judges.get(stage, _judge_depth if stage == "depth" else None)
    return judge(record["options"] | quality) if judge else Verdict("good")


def _judge_frames(values: dict[str, Any]) -> Verdict:
    count = len(values.get("source_frames", ())) or 99
    if count < 10:
        return Verdict(
            "usable",
            f"{count} frames are few to see motion in",
            "take more of them with --fps and --max-frames, or a longer clip",
        )
    return Verdict("good")


def _judge_tracks(values: dict[str, Any]) -> Verdict:
    life = values.get("mean_life_frames")
    if life is None or life >= 7:
        return Verdict("good")
    return Verdict(
        "usable" if life >= 4 else "poor",
        f"tracks live {life:.1f} frames on average: motion is fast, blurred or without texture",
        "use more frames per second, more light, or --tracks cotracker",
    )


def _judge_masks(values: dict[str, Any]) -> Verdict:
    share, stability = values.get("moving_share"), values.get("stability")
    cure = "look at the masks below; give clicks (--masks sam2 --prompts FILE) or masks of your own"
    if values.get("needs_cameras") and values.get("views") == "two":
        return Verdict(
            "poor", "parallax is too strong to tell from two views alone what moves", cure
        )
    if values.get("objects") == 0 and "moving_share" in values:
        return Verdict("usable", "nothing was found that moves by itself", cure)
    if share is not None and share > 0.5:
        return Verdict("usable", f"{share:.0%} of the pixels are said to move", cure)
    if stability is not None and stability < 0.85:
        return Verdict(
            "usable", f"{1 - stability:.0%} of the steps of tracks leave or enter a mask", cure
        )
    return Verdict("good")


def _judge_depth(values: dict[str, Any]) -> Verdict:
    cure = "move the camera further sideways while filming, or use --depth small"
    by_network = values.get("completed_by") == "network"
    if values.get("measured") == 0 and not by_network:
        return Verdict("poor", "nothing was measured: everything lies on a flat backdrop", cure)
    agreement = _judge_agreement(values)
    assumed = values.get("assumed", 0.0)
    if agreement.grade == "good" and assumed > 0.02:
        source = "that of the network" if by_network else "assumed"
        better = "depth-anything" if "alignment_error" in values else "small or depth-anything"
        return Verdict(
            "usable",
            f"the depth of moving objects ({assumed:.0%} of the pixels) is {source}, not measured",
            f"use --depth {better}, or give depth of a sensor",
        )
    return agreement


def _judge_agreement(values: dict[str, Any]) -> Verdict:
    """Return the verdict on the agreement of the depth of different frames."""
    differ, disagreeing = values.get("reprojection_difference"), values.get("disagreeing")
    if disagreeing is not None and disagreeing > SOME_DISAGREE:
        return Verdict(
            "usable" if disagreeing < MOST_DISAGREE else "poor",
            f"the depth of {disagreeing:.0%} of the pixels is another one four frames later",
            "check the cameras; use another --depth, or fewer frames per second",
        )
    if differ is not None and differ > 0.02:
        return Verdict(
            "usable" if differ < 0.06 else "poor",
            f"depth of different frames differs by {differ:.1%} on the same surface",
            "move the camera further sideways while filming, or use another --depth",
        )
    return Verdict("good")


def _worse(first: Verdict, second: Verdict) -> Verdict:
    """Return the verdict of the worse grade, the first of equal ones."""
    return max(first, second, key=lambda verdict: GRADES.index(verdict.grade))


@dataclass(frozen=True)
class Fitness:
    """One figure of the consistency of the parts of a scene.

    Attributes:
        name: what was measured.
        value: as text.
        verdict: what it means.
    """

    name: str
    value: str
    verdict: Verdict


def measure_fitness(scene: Scene) -> list[Fitness]:
    """Return how consistent a complete scene directory is, as input of a fit.

    Static tracks are lifted by the depth of their first frame and projected into their last; depth
    is compared between frames; tracks are compared with their masks.
    """
    return [*_static_tracks(scene), *_depth_agreement(scene), *_objects(scene)]


def _graded(value: float, good: float, usable: float, reason: str, cure: str) -> Verdict:
    """Return the verdict on a value, by the largest good and the largest usable one."""
    if value <= good:
        return Verdict("good")
    return Verdict("usable" if value <= usable else "poor", reason, cure)


def _static_tracks(scene: Scene) -> list[Fitness]:
    """Return how far static tracks are from where cameras and depth put them."""
    tracks, cameras = scene.tracks, scene.cameras
    rows = np.flatnonzero((tracks.object == STATIC) & (tracks.lifetimes >= 3))
    if not len(rows):
        verdict = Verdict(
            "usable",
            "no track is known to be static, so cameras and depth cannot be checked",
            "let msdyn-preprocess make the tracks (--tracks flow)",
        )
        return [Fitness("static tracks", "none", verdict)]
    first, last = tracks.start[rows], tracks.stop[rows] - 1
    errors = []
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
        ahead = there[:, 0, 2] > 0
        projected = project(cameras.intrinsics[end[ahead]], there[ahead])[:, 0]
        tracked = tracks.look_up(own, end)[0][ahead]
        errors += np.linalg.norm(projected - tracked, axis=1).tolist()
    if not errors:
        return []
    error = float(np.median(errors))
    scale = max(scene.info.width / WIDTH, 0.3)
    verdict = _graded(
        error / scale,
        2.0,
        6.0,
        f"static points end {error:.1f} px from where cameras and depth put them",
        "a few px: tracks slip, or depth is coarse; many: check the cameras (of another clip, or "
        "size?) and the units of the depth",
    )
    return [Fitness("static points", f"{error:.2f} px off along their tracks", verdict)]


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
        return [Fitness("depth", "never agrees between frames", verdict)]
    figures = {
        "reprojection_difference": agreement.difference,
        "disagreeing": agreement.disagreeing,
    }
    value = (
        f"differs by {agreement.difference:.2%} between frames, "
        f"{agreement.disagreeing:.0%} of the pixels by more than 10%"
    )
    return [Fitness("depth", value, _judge_agreement(figures))]


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
