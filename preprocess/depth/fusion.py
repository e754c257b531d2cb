"""Joins depth that is measured from several frames with what completes it.

1. The background is measured by plane sweeps (`DenseBody`), or by points given with the cameras
   (`PointBody`), and completed where no other frame
   confirms it: along image edges, or by a network (`Completion`), whichever predicts measured depth
   better that is hidden from it.
2. Where points of moving objects are given, they are carried by tracks (`TemplateDepth`). Otherwise
   objects that move rigidly are measured likewise, relative to themselves, and scaled to the depth
   of what they touch. All others are placed by what they touch (`objects`); their pixels are
   "assumed".

A first pass over the frames measures the background, a second one completes it and finds the
surroundings of each object, a third one adds the objects. Between them, depth is stored on disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from msdyn.preprocess.contracts import CameraSolution, DepthMap, Figures, Masks
from msdyn.preprocess.depth.consistency import Consistency
from msdyn.preprocess.depth.multi_frame import MIN_POINTS, Body, DenseBody
from msdyn.preprocess.depth.objects import Completion, place_objects
from msdyn.preprocess.depth.point_body import PointBody
from msdyn.preprocess.depth.rigid_objects import bring_to_scale, solve_rigid_objects
from msdyn.preprocess.depth.support import Surroundings, read_surroundings
from msdyn.preprocess.depth.template_depth import TemplateDepth
from msdyn.preprocess.multiview.static_points import static_points
from msdyn.progress import Progress
from msdyn.reading import read_npy
from msdyn.scene import IGNORE, STATIC, Scene, Tracks, frame_path
from msdyn.writing import scratch_folder

__all__ = [
    "ASSUMED",
    "COMPLETED",
    "CONFIRMED",
    "OWN_MOTION",
    "FusionOptions",
    "fuse",
    "shares_of_pixels",
    "static_body",
]

# Confidence of the depth of a pixel: assumed, on an object; an object measured by its own rigid
# motion, scaled to what it touches; completed; confirmed by other frames.
ASSUMED, OWN_MOTION, COMPLETED, CONFIRMED = 64, 160, 128, 255
_INVERSE, _WEIGHT, _MEASURED = "-inverse.npy", "-weight.npy", "-measured.npy"
# To compare completions, half of the cells of this side, in units of the longer side of the image,
# are hidden in so many frames. A factor (its logarithm) above the last is as bad as any.
HIDDEN_CELL, TEST_FRAMES, WORST = 1 / 8, 6, 0.5


@dataclass(frozen=True)
class FusionOptions:
    """How depth is measured.

    Attributes:
        working_side: sweeps run on images shrunk to this longer side, px.
        rigid_objects: try to measure objects that move as one rigid body.
        seed: of every random choice.
    """

    working_side: int = 320
    rigid_objects: bool = True
    seed: int = 0


def static_body(tracks: Tracks, solution: CameraSolution) -> Body | None:
    """Return the static scene as a body, None where no depth of it can be triangulated.

    Of a camera that does not translate, its depth is that of the points given with the cameras.
    """
    if solution.motion in ("static", "rotating"):
        if len(solution.points.xyz) < MIN_POINTS:
            return None
        known = np.ones(len(solution.cameras), bool)
        return Body(STATIC, solution.cameras, known, solution.points, swept=False)
    points = static_points(tracks, solution, MIN_POINTS)
    if len(points.xyz) < MIN_POINTS:
        return None
    known = np.ones(len(solution.cameras), bool)
    return Body(STATIC, solution.cameras, known, points)


def fuse(
    scene: Scene,
    tracks: Tracks,
    masks: Masks,
    background: Body,
    completions: Sequence[Completion],
    options: FusionOptions,
) -> Generator[DepthMap, None, Figures]:
    """Yield the depth map of each frame, with its confidence.

    Args:
        scene: the frames.
        tracks: N tracks with their objects.
        masks: an index mask per frame.
        background: the static scene.
        completions: the best one is used, the last where that cannot be told. (A network that
            predicts the static scene of a clip worse than its surroundings do is not to be trusted
            with its objects either.)
        options: how depth is measured.

    Returns:
        The figures. Shares of all pixels, which add up to one: `measured`, confirmed by other
        frames or by the motion of their object; `completed`; `assumed`, on objects whose depth is
        not measured; `unknown`. `reprojection_difference` and `disagreeing`, see `Consistency`;
        `objects`, how the depth of each was found; of several completions `completed_by` and
        `completion_error`, the mean error of each where measured depth was hidden from it.
    """
    factor = min(1.0, options.working_side / max(scene.size))
    size = (round(scene.size[0] * factor), round(scene.size[1] * factor))
    with contextlib.ExitStack() as stack:
        bar = Progress("depth", 3 * len(scene))
        stack.enter_context(bar)
        folder = stack.enter_context(scratch_folder())
        swept = DenseBody(scene, masks, background, size) if background.swept else None
        with swept or PointBody(background, size) as body:
            _measure(masks, body, folder, bar)
        completion, errors = _choose(completions, masks, folder, options.seed)
        surroundings = _complete(masks, completion, folder, bar)
        template = None if background.swept else TemplateDepth.of(background, tracks, masks)
        bodies = {}
        if options.rigid_objects and template is None:
            bodies = solve_rigid_objects(scene, tracks, masks, background, seed=options.seed)
        measured = {}
        for label, found in surroundings.items():
            scaled = bring_to_scale(bodies[label], found) if label in bodies else None
            if scaled is not None:
                measured[label] = stack.enter_context(DenseBody(scene, masks, scaled, size))
        objects = place_objects(masks, completion, surroundings, measured)

        consistency = Consistency(background.cameras)
        counts = np.zeros(256, int)  # of pixels, by confidence
        for frame in range(len(scene)):
            depth, mask = read_npy(frame_path(folder, frame, ".npy")), masks[frame]
            consistency.add(frame, np.where(mask == STATIC, depth, 0))
            confirmed = read_npy(frame_path(folder, frame, _MEASURED))
            confidence = np.where(confirmed, CONFIRMED, COMPLETED).astype(np.uint8)
            for item in objects:
                own = mask == item.label
                shape = item.measured(frame, own, completion)
                if shape is None:
                    shape = item.shaped(frame, own, template)
                chosen = item.assumed(frame, own, completion) if shape is None else shape[own]
                depth[own] = chosen
                confidence[own] = ASSUMED if shape is None else OWN_MOTION
            depth[mask == IGNORE] = confidence[mask == IGNORE] = 0
            counts += np.bincount(confidence.reshape(-1), minlength=256)
            bar.update()
            yield DepthMap(depth, confidence)
    return {
        **shares_of_pixels(counts),
        **errors,
        "objects": {str(item.label): item.figures() for item in objects},
        **consistency.figures(),
    }


def shares_of_pixels(counts: Int[np.ndarray, " levels"]) -> Figures:
    """Return the shares that `fuse` describes, from the number of pixels of each confidence."""
    shares = counts / counts.sum()
    return {
        "measured": round(float(shares[CONFIRMED] + shares[OWN_MOTION]), 4),
        "completed": round(float(shares[COMPLETED]), 4),
        "assumed": round(float(shares[ASSUMED]), 4),
        "unknown": round(float(shares[0]), 4),
    }


def _measure(masks: Masks, body: DenseBody | PointBody, folder: Path, bar: Progress) -> None:
    """Write what is measured of the background."""
    for frame in range(len(masks)):
        inverse, weight = body.measure(frame)
        np.save(frame_path(folder, frame, _INVERSE), inverse)
        np.save(frame_path(folder, frame, _WEIGHT), weight)
        bar.update()


def _measured(
    folder: Path, frame: int
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Return the inverse depth of a frame and its weight, as `_measure` has written them."""
    inverse, weight = (read_npy(frame_path(folder, frame, name)) for name in (_INVERSE, _WEIGHT))
    return inverse, weight


def _choose(
    completions: Sequence[Completion], masks: Masks, folder: Path, seed: int
) -> tuple[Completion, Figures]:
    """Return the completion that predicts hidden measurements best, and the figures.

    Without measurements, it is the last one.
    """
    if len(completions) == 1:
        return completions[0], {}
    rng = np.random.default_rng(seed)
    errors, tested = np.zeros(len(completions)), 0
    for frame in np.unique(np.linspace(0, len(masks) - 1, TEST_FRAMES).astype(int)).tolist():
        inverse, weight = _measured(folder, frame)
        cell = max(2, round(HIDDEN_CELL * max(inverse.shape)))
        rows, columns = (np.arange(side) // cell for side in inverse.shape)
        hide = (rng.random((rows[-1] + 1, columns[-1] + 1)) < 0.5)[rows][:, columns]
        own = masks[frame] == STATIC
        hidden = hide & (weight > 0)
        if not hidden.any() or hidden.all():
            continue
        row, column = np.nonzero(hidden)
        scale = np.array(own.shape) / inverse.shape
        row, column = (
            ((x + 0.5) * s).astype(int) for x, s in zip((row, column), scale, strict=True)
        )
        for i, completion in enumerate(completions):
            depth, _ = completion.complete(frame, inverse, np.where(hide, 0, weight), own)
            off = np.abs(np.log(depth[row, column] * inverse[hidden]))
            errors[i] += float(np.minimum(off, WORST).mean())
        tested += 1
    if not tested:
        return completions[-1], {"completed_by": completions[-1].name}
    best = completions[int(errors.argmin())]
    named = {c.name: round(float(e) / tested, 4) for c, e in zip(completions, errors, strict=True)}
    return best, {"completed_by": best.name, "completion_error": named}


def _complete(
    masks: Masks, completion: Completion, folder: Path, bar: Progress
) -> dict[int, list[Surroundings | None]]:
    """Write the background's depth of every frame; return what surrounds each object in it."""
    present = set().union(*(np.unique(mask).tolist() for mask in masks))
    labels = sorted(present - {STATIC, IGNORE})
    surroundings: dict[int, list[Surroundings | None]] = {label: [] for label in labels}
    for frame, mask in enumerate(masks):
        depth, confirmed = completion.complete(frame, *_measured(folder, frame), mask == STATIC)
        np.save(frame_path(folder, frame, ".npy"), depth)
        np.save(frame_path(folder, frame, _MEASURED), confirmed)
        for label in labels:
            surroundings[label].append(read_surroundings(depth, mask, label))
        bar.update()
    return surroundings
