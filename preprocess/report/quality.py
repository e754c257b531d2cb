"""The verdict on each stage of preprocessing, from the figures of its record in `scene.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from msdyn.geometry import nearest_pixels
from msdyn.preprocess.contracts import Figures, Mask, Verdict
from msdyn.reading import as_schema
from msdyn.scene import IGNORE, StageRecord, Tracks

__all__ = ["MOST_DISAGREE", "judge_agreement", "judge_stages", "mask_figures", "worse"]

# Share of pixels whose depth differs by more than 10 % between frames. On clips that can be fitted
# it is 2 to 8 %, on hard ones 14 to 35 %, where each frame has another scale 70 to 90 %.
SOME_DISAGREE, MOST_DISAGREE = 0.15, 0.5
MOST_BLANK = 0.2  # share of the frames
MOST_REPEATED = 0.1
# Share of the pixels. With .53 to .82 cameras were right (docs/preprocessing.md).
SOME_WHITE, MOST_WHITE = 0.25, 0.9
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


def judge_stages(
    records: Mapping[str, StageRecord], *, triangulated: bool = True
) -> dict[str, Verdict]:
    """Return the verdict on each finished stage, from its record in `scene.json`.

    Cameras from which no depth can be triangulated are usable where depth does not depend on them.

    Args:
        records: by stage.
        triangulated: depth, where it is not done yet, will be triangulated.
    """
    verdicts = {stage: _judge_stage(stage, record) for stage, record in records.items()}
    cameras = records.get("cameras", {}).get("quality", {})
    reason = {
        "static": "the camera is static",
        "rotating": "the camera only rotates",
    }.get(cameras.get("motion", ""))
    if cameras.get("ambiguous"):
        reason = verdicts["cameras"].reason.split(":")[0]
    depth = records.get("depth")
    if depth is None:
        independent = not triangulated
    else:
        independent = depth["backend"] != "fused" and "measured" not in depth["quality"]
    if reason and independent:
        network = depth is not None and depth["backend"] != "files"
        source = "that of a network" if network else "of files"
        if depth is None:
            source = "not triangulated"
        verdicts["cameras"] = Verdict(
            "usable",
            f"{reason}: depth is {source}",
            "move the camera sideways while filming, for depth that is measured",
        )
    return verdicts


def _judge_stage(stage: str, record: StageRecord) -> Verdict:
    """Return the verdict on a stage from its own record."""
    quality = record["quality"]
    if "verdict" in quality:
        own = as_schema(quality["verdict"], Verdict, f"{stage}: verdict")
        return worse(own, judge_agreement(quality)) if stage == "depth" else own
    judges = {"frames": _judge_frames, "tracks": _judge_tracks, "masks": _judge_masks}
    judge = judges.get(stage, _judge_depth if stage == "depth" else None)
    return judge(record["options"] | quality) if judge else Verdict("good")


def _judge_frames(values: dict[str, Any]) -> Verdict:
    count = len(values.get("source_frames", ())) or 99
    blank = values.get("blank_frames", ())
    if blank:
        return Verdict(
            "usable" if len(blank) <= MOST_BLANK * count else "poor",
            f"{len(blank)} of {count} frames are of one brightness ({blank[0]} to {blank[-1]})",
            "leave them out with --start and --end, or a video editor",
        )
    white = values.get("white_share", 0.0)
    if white > SOME_WHITE:
        return Verdict(
            "usable" if white <= MOST_WHITE else "poor",
            f"{white:.0%} of the pixels are white (over-exposed): what is there, and how it moves, "
            "is not visible",
            "film with a shorter exposure; a video editor cannot bring it back",
        )
    repeated = values.get("repeated_frames", 0)
    if repeated > MOST_REPEATED * count:
        return Verdict(
            "usable",
            f"{repeated} of {count} frames repeat the one before: motion is uneven",
            "take the frames of its true rate only (--fps)",
        )
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
    cure = (
        "look at the masks below; name the objects (--prompts), give clicks (--masks sam2 "
        "--prompts FILE) or masks of your own"
    )
    if values.get("needs_cameras") and values.get("views") == "two":
        return Verdict(
            "poor", "parallax is too strong to tell from two views alone what moves", cure
        )
    if unmatched := values.get("unmatched"):
        return Verdict(
            "usable" if values.get("objects") else "poor",
            f"nothing in the clip is a {' or a '.join(unmatched)}",
            "use other words (--prompts), or points on the object (--prompts FILE.json)",
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
    agreement = judge_agreement(values)
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


def judge_agreement(values: dict[str, Any]) -> Verdict:
    """Return the verdict on the agreement of the depth of different frames."""
    differ, disagreeing = values.get("reprojection_difference"), values.get("disagreeing")
    if disagreeing is not None and disagreeing > SOME_DISAGREE:
        return Verdict(
            "usable" if disagreeing < MOST_DISAGREE else "poor",
            f"the depth of {disagreeing:.0%} of the pixels is another one four frames later",
            "check the cameras; use another --depth, or fewer frames per second",
        )
    if differ is not None and differ > 0.02:
        # Never poor for this: only differences below 10 % count, so that it does not rise further.
        return Verdict(
            "usable",
            f"depth of different frames differs by {differ:.1%} on the same surface",
            "move the camera further sideways while filming, or use another --depth",
        )
    return Verdict("good")


def worse(first: Verdict, second: Verdict) -> Verdict:
    """Return the verdict of the worse grade, the first of equal ones."""
    return max(first, second, key=lambda verdict: GRADES.index(verdict.grade))
