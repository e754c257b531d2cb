"""Joins depth that is measured from several frames with what completes it.

1. The background is measured by plane sweeps (`DenseBody`) and completed where no other frame
   confirms it: along image edges, or by a network (`Completion`).
2. Objects that move rigidly are measured likewise, relative to themselves, and scaled to the depth
   of what they touch. All others have the relief that the completion gives them, or one depth per
   frame; their distance is that of what they touch or of what surrounds them, smoothed over time.
   Those pixels are "assumed".

A first pass over the frames measures the background and the surroundings of each object; a second
one adds the objects. Between the passes, the background is stored on disk.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32
from tqdm import tqdm

from msdyn.preprocess.contracts import CameraSolution, DepthMap, Figures, Masks
from msdyn.preprocess.depth.consistency import Consistency
from msdyn.preprocess.depth.multi_frame import MIN_POINTS, Body, DenseBody
from msdyn.preprocess.depth.rigid_objects import bring_to_scale, solve_rigid_objects
from msdyn.preprocess.depth.support import Surroundings, read_surroundings, smooth_depths
from msdyn.preprocess.multiview.static_points import static_points
from msdyn.scene import IGNORE, STATIC, Scene, Tracks, frame_path

__all__ = [
    "ASSUMED",
    "BEFORE_BACKDROP",
    "COMPLETED",
    "CONFIRMED",
    "OWN_MOTION",
    "Completion",
    "FusionOptions",
    "fuse",
    "static_body",
]

# Depth of objects of which nothing is known, where the background has a typical depth of 1.
BEFORE_BACKDROP = 0.9
# Confidence of the depth of a pixel: assumed, on an object; an object measured by its own rigid
# motion, scaled to what it touches; completed; confirmed by other frames.
ASSUMED, OWN_MOTION, COMPLETED, CONFIRMED = 64, 160, 128, 255
_MEASURED = "-measured.npy"
MIN_CONTACTS = 3  # frames in which the ground below an object is visible
# A contact that would move the relief of an object further than this is a wrong contact.
MAX_SHIFT = 1.5


@runtime_checkable
class Completion(Protocol):
    """What gives depth where nothing is measured."""

    def complete(
        self,
        frame: int,
        inverse: Float32[np.ndarray, "h w"],
        weight: Float32[np.ndarray, "h w"],
        own: Bool[np.ndarray, "height width"],
    ) -> tuple[Float32[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
        """Return the depth [H, W] of a body everywhere, and where it is that of measured pixels.

        Pixels off the body have meaningless values.

        Args:
            frame: the frame.
            inverse: [h, w] measured inverse depth, at working size.
            weight: [h, w] its weight, 0 where nothing is measured.
            own: [H, W] the pixels of the body.
        """
        ...

    def relief(self, frame: int) -> Float32[np.ndarray, "height width"] | None:
        """Return depth [H, W] that holds on each object up to a factor, None without any."""
        ...


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
    """Return the static scene as a body, None where no depth of it can be triangulated."""
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
    completion: Completion,
    options: FusionOptions,
) -> Generator[DepthMap, None, Figures]:
    """Yield the depth map of each frame, with its confidence.

    Returns:
        The figures: `measured`, the share of static pixels at working size that other frames
        confirm; `assumed`, the share of all pixels that are on objects whose depth is not measured;
        `reprojection_difference` and `disagreeing`, see `Consistency`; `objects`, how the depth of
        each was found.
    """
    factor = min(1.0, options.working_side / max(scene.size))
    size = (round(scene.size[0] * factor), round(scene.size[1] * factor))
    with contextlib.ExitStack() as stack:
        bar = tqdm(desc="depth   ", total=2 * len(scene), unit="step", disable=None, leave=False)
        stack.enter_context(bar)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="msdyn-depth-")))
        with DenseBody(scene, masks, background, size) as body:
            surroundings, measured = _first_pass(masks, body, completion, folder, bar)
        bodies = {}
        if options.rigid_objects:
            bodies = solve_rigid_objects(scene, tracks, masks, background, seed=options.seed)
        objects = []
        for label, found in surroundings.items():
            dense = None
            scaled = bring_to_scale(bodies[label], found) if label in bodies else None
            if scaled is not None:
                dense = stack.enter_context(DenseBody(scene, masks, scaled, size))
            reliefs = None if dense else _relief_depths(masks, completion, label, found)
            objects.append(_Object(label, found, dense, reliefs))

        consistency = Consistency(background.cameras)
        shares = []
        for frame in range(len(scene)):
            depth, mask = np.load(frame_path(folder, frame, ".npy")), masks[frame]
            consistency.add(frame, np.where(mask == STATIC, depth, 0))
            assumed = np.zeros(mask.shape, bool)
            confirmed = np.load(frame_path(folder, frame, _MEASURED))
            confidence = np.where(confirmed, CONFIRMED, COMPLETED).astype(np.uint8)
            for item in objects:
                own = mask == item.label
                shape = item.measured(frame, own, completion)
                depth[own] = item.assumed(frame, own, completion) if shape is None else shape[own]
                assumed |= own & (shape is None)
                confidence[own] = ASSUMED if shape is None else OWN_MOTION
            depth[mask == IGNORE] = confidence[mask == IGNORE] = 0
            shares.append(float(assumed.mean()))
            bar.update()
            yield DepthMap(depth, confidence)
    return {
        "measured": measured,
        "objects": {str(item.label): item.figures() for item in objects},
        "assumed": round(float(np.mean(shares)), 4),
        **consistency.figures(),
    }


class _Object:
    """The depth of one object.

    Attributes:
        label: its index in the masks.
    """

    def __init__(
        self,
        label: int,
        surroundings: list[Surroundings | None],
        body: DenseBody | None,
        reliefs: Float[np.ndarray, "frames 2"] | None,
    ) -> None:
        """Estimate the depth of an object.

        Args:
            label: its index in the masks.
            surroundings: of every frame.
            body: measures it where it moves rigidly.
            reliefs: [T, 2] depth of the relief of the completion at its foot and on the whole
                object, 0 where unknown; None without a relief.
        """
        contacts = np.array([found.contact if found else 0.0 for found in surroundings])
        holders = np.array([found.holder if found else 0.0 for found in surroundings])
        hangs = sum(found.hangs for found in surroundings if found)
        self.label = label
        self._body = body
        self._factors: np.ndarray | None = None
        self._touches = int((contacts > 0).sum()) >= max(MIN_CONTACTS, hangs)
        if reliefs is not None:
            self._factors, self._touches = _relief_factors(reliefs, contacts, self._touches)
        smooth = smooth_depths(contacts if self._touches else holders)
        self._placed = np.where(smooth > 0, smooth, BEFORE_BACKDROP)

    def figures(self) -> Figures:
        """Return how the shape and the position were found."""
        if self._factors is not None:
            place = "contact" if self._touches else "network"
            return {"shape": "network", "placed_by": place}
        return {
            "shape": "own rigid motion" if self._body else "one depth per frame",
            "placed_by": "contact" if self._touches else "border",
        }

    def measured(
        self, frame: int, own: Bool[np.ndarray, "height width"], completion: Completion
    ) -> Float32[np.ndarray, "height width"] | None:
        """Return its measured depth [H, W] on its pixels `own`, None where nothing is measured."""
        if self._body is None:
            return None
        inverse, weight = self._body.measure(frame)
        return completion.complete(frame, inverse, weight, own)[0] if weight.any() else None

    def assumed(
        self, frame: int, own: Bool[np.ndarray, "height width"], completion: Completion
    ) -> float | Float32[np.ndarray, " pixels"]:
        """Return its assumed depth on its pixels `own` [H, W]: one for all, or one for each."""
        relief = None if self._factors is None else completion.relief(frame)
        if relief is None or self._factors is None:
            return float(self._placed[frame])
        return relief[own] * np.float32(self._factors[frame])


def _relief_depths(
    masks: Masks, completion: Completion, label: int, surroundings: list[Surroundings | None]
) -> Float[np.ndarray, "frames 2"] | None:
    """Return the median depth of the relief at the foot of an object, and on all of it."""
    depths = np.zeros((len(surroundings), 2))
    for frame, found in enumerate(surroundings):
        if found is None:
            continue
        relief = completion.relief(frame)
        if relief is None:
            return None
        own = masks[frame] == label
        foot = own[found.foot[0] : found.foot[1]]
        depths[frame, 1] = np.median(relief[own])
        if foot.any():
            depths[frame, 0] = np.median(relief[found.foot[0] : found.foot[1]][foot])
    return depths


def _relief_factors(
    reliefs: Float[np.ndarray, "frames 2"], contacts: Float[np.ndarray, " frames"], touches: bool
) -> tuple[Float[np.ndarray, " frames"], bool]:
    """Return what to multiply a relief by in each frame [T], and whether contacts determine it.

    The factors remove what is not smooth in the distance of the object. Contacts with the ground
    scale it, unless they contradict the relief.
    """
    foot, whole = reliefs.T
    smooth = smooth_depths(whole)
    factors = np.divide(smooth, whole, out=np.ones_like(whole), where=whole > 0)
    both = (contacts > 0) & (foot > 0)
    if not (touches and both.any()):
        return factors, False
    shift = float(np.median(contacts[both] / (factors * foot)[both]))
    if not 1 / MAX_SHIFT < shift < MAX_SHIFT:
        return factors, False
    return factors * shift, True


def _first_pass(
    masks: Masks, body: DenseBody, completion: Completion, folder: Path, bar: tqdm
) -> tuple[dict[int, list[Surroundings | None]], float]:
    """Write the background's depth of every frame.

    Returns:
        The surroundings of each object in every frame, and the share of static pixels measured.
    """
    present = set().union(*(np.unique(mask).tolist() for mask in masks))
    labels = sorted(present - {STATIC, IGNORE})
    surroundings: dict[int, list[Surroundings | None]] = {label: [] for label in labels}
    measured = []
    for frame, mask in enumerate(masks):
        inverse, weight = body.measure(frame)
        depth, confirmed = completion.complete(frame, inverse, weight, mask == STATIC)
        np.save(frame_path(folder, frame, ".npy"), depth)
        np.save(frame_path(folder, frame, _MEASURED), confirmed)
        for label in labels:
            surroundings[label].append(read_surroundings(depth, mask, label))
        measured.append(float((weight > 0).mean()) / max(float((mask == STATIC).mean()), 1e-6))
        bar.update()
    return surroundings, round(min(float(np.mean(measured)), 1.0), 4)
