"""Depth of every frame from the clip itself: measured where the scene is rigid, else assumed.

1. The background is measured by plane sweeps (`DenseBody`) and completed along image edges.
2. Objects that move rigidly are measured alike, relative to themselves, and brought to scale by
   what they touch. All others get one depth a frame, that of what they touch or of what surrounds
   them, smooth over time. Those pixels are "assumed".

A first pass over the frames measures the background and reads, around each object, what its depth
could be; the second one puts the objects in. In between, the background lies on disk.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from msdyn.preprocess.contracts import CameraSolution, DepthMap, Masks
from msdyn.preprocess.depth.consistency import Consistency
from msdyn.preprocess.depth.multi_frame import MIN_POINTS, Body, DenseBody
from msdyn.preprocess.depth.rigid_objects import bring_to_scale, solve_rigid_objects
from msdyn.preprocess.depth.support import Reading, read_surroundings, smooth_depths
from msdyn.preprocess.imaging.edge_aware_fill import fill
from msdyn.preprocess.multiview.static_points import static_points
from msdyn.scene import IGNORE, STATIC, Scene, Tracks, frame_path

__all__ = ["FusedDepth"]

# Of the completion, relative to the weight of one frame's word. Ten times less leaves noise on
# smooth surfaces, five times more rounds off edges; between those the error changes by 5 %.
SMOOTHNESS = 1.0
# Depth of everything where nothing can be measured, and of objects, which cover it.
BACKDROP, BEFORE_BACKDROP = 1.0, 0.9
# Confidence of a pixel's depth: one for each object and frame; an object measured by its own rigid
# motion, brought to scale by what it touches; filled in from its surroundings; confirmed by frames.
ASSUMED, OWN_MOTION, COMPLETED, CONFIRMED = 64, 160, 128, 255
_SEEN = "-seen.npy"
MIN_CONTACTS = 3  # frames in which it is to be seen what an object touches


@dataclass(frozen=True)
class FusedDepth:
    """Depth by plane sweeps between neighbouring frames, completed along the edges of the image."""

    working_side: int = 320
    """Sweeps run on images shrunk to this longer side."""
    rigid_objects: bool = True
    """Try to measure objects that move as one rigid body; otherwise all are placed."""
    seed: int = 0
    """Of every random choice."""

    name = "fused"

    def estimate(
        self, scene: Scene, tracks: Tracks, masks: Masks, solution: CameraSolution
    ) -> tuple[Iterator[DepthMap], dict[str, Any]]:
        """Return depth maps with their confidence, and figures that are complete at the last one.

        Pixels to be ignored (255 in the masks) are unknown, 0. Where the camera stands or only
        turns, or its motion shows no parallax, everything lies on a backdrop, objects a little
        before it.

        The figures: `measured`, the share of static pixels at working size that other frames
        confirm, the rest being completed; `assumed`, the share of all pixels that lie on objects
        whose depth is not measured; `reprojection_difference`, see `Consistency`; `objects`, how
        the depth of each is had.
        """
        background = _background(tracks, masks, solution)
        if background is None:
            quality = {
                "measured": 0.0,
                "assumed": 1.0,
                "note": "no parallax: a flat backdrop",
            }
            return _backdrop(masks), quality
        quality: dict[str, Any] = {}
        return self._maps(scene, tracks, masks, background, quality), quality

    def _maps(
        self,
        scene: Scene,
        tracks: Tracks,
        masks: Masks,
        background: Body,
        quality: dict[str, Any],
    ) -> Iterator[DepthMap]:
        """Yield the depth maps. The figures are brought up to date before each."""
        factor = min(1.0, self.working_side / max(scene.size))
        size = (round(scene.size[0] * factor), round(scene.size[1] * factor))
        with contextlib.ExitStack() as stack:
            bar = tqdm(
                desc="depth   ", total=2 * len(scene), unit="step", disable=None, leave=False
            )
            stack.enter_context(bar)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="msdyn-depth-")))
            with DenseBody(scene, masks, background, size) as body:
                readings = _first_pass(scene, masks, body, folder, bar, quality)
            bodies = {}
            if self.rigid_objects:
                bodies = solve_rigid_objects(scene, tracks, masks, background, seed=self.seed)
            objects = []
            for label, read in readings.items():
                dense = None
                scaled = bring_to_scale(bodies[label], read) if label in bodies else None
                if scaled is not None:
                    dense = stack.enter_context(DenseBody(scene, masks, scaled, size))
                objects.append(_Object(label, read, dense))
            quality["objects"] = {str(item.label): item.figures() for item in objects}

            consistency = Consistency(background.cameras)
            assumed = []
            for frame in range(len(scene)):
                depth, mask = np.load(frame_path(folder, frame, ".npy")), masks[frame]
                consistency.add(frame, np.where(mask == STATIC, depth, 0))
                guessed = np.zeros(mask.shape, bool)
                seen = _enlarged(np.load(frame_path(folder, frame, _SEEN)), mask.shape)
                sure = np.where(seen, CONFIRMED, COMPLETED).astype(np.uint8)
                for item in objects:
                    own = mask == item.label
                    measured = item.depth(scene, frame, own)
                    depth[own] = item.card[frame] if measured is None else measured[own]
                    guessed |= own & (measured is None)
                    sure[own] = ASSUMED if measured is None else OWN_MOTION
                depth[mask == IGNORE] = sure[mask == IGNORE] = 0
                assumed.append(float(guessed.mean()))
                quality["assumed"] = round(float(np.mean(assumed)), 4)
                quality["reprojection_difference"] = consistency.figure()
                bar.update()
                yield DepthMap(depth, sure)


class _Object:
    """How the depth of one object is had."""

    def __init__(self, label: int, readings: list[Reading | None], body: DenseBody | None) -> None:
        """Place an object; `body` measures it where it moves rigidly."""
        contacts = np.array([r.contact if r else 0.0 for r in readings])
        holders = np.array([r.holder if r else 0.0 for r in readings])
        hangs = sum(r.hangs for r in readings if r)
        self.label = label
        self.touches = int((contacts > 0).sum()) >= max(MIN_CONTACTS, hangs)
        smooth = smooth_depths(contacts if self.touches else holders)
        self.card = np.where(smooth > 0, smooth, BEFORE_BACKDROP)  # [T] one depth a frame
        self._body = body

    def figures(self) -> dict[str, Any]:
        return {
            "shape": "own rigid motion" if self._body else "one depth a frame",
            "placed_by": "contact" if self.touches else "border",
        }

    def depth(self, scene: Scene, frame: int, own: np.ndarray) -> np.ndarray | None:
        """Return its measured depth [H, W] on its pixels `own`, None where there is none."""
        if self._body is None:
            return None
        inverse, weight = self._body.measure(frame)
        return _complete(scene, frame, inverse, weight, own) if weight.any() else None


def _background(tracks: Tracks, masks: Masks, solution: CameraSolution) -> Body | None:
    """Return the static scene as a body, None where no depth of it can be triangulated."""
    points = static_points(tracks, masks, solution, MIN_POINTS)
    if len(points.xyz) < MIN_POINTS:
        return None
    known = np.ones(len(solution.cameras), bool)
    return Body(STATIC, solution.cameras, known, points)


def _backdrop(masks: Masks) -> Iterator[DepthMap]:
    for mask in masks:
        depth = np.where(mask == STATIC, BACKDROP, BEFORE_BACKDROP)
        depth = np.where(mask == IGNORE, 0, depth).astype(np.float32)
        yield DepthMap(depth, np.where(mask == IGNORE, 0, ASSUMED).astype(np.uint8))


def _enlarged(small: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    import cv2

    full = cv2.resize(small.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return full > 0


def _first_pass(
    scene: Scene,
    masks: Masks,
    body: DenseBody,
    folder: Path,
    bar: tqdm,
    quality: dict[str, Any],
) -> dict[int, list[Reading | None]]:
    """Write the background's depth of every frame; return the readings around each object."""
    present = set().union(*(np.unique(mask).tolist() for mask in masks))
    labels = sorted(present - {STATIC, IGNORE})
    readings: dict[int, list[Reading | None]] = {label: [] for label in labels}
    measured = []
    for frame, mask in enumerate(masks):
        inverse, weight = body.measure(frame)
        depth = _complete(scene, frame, inverse, weight, mask == STATIC)
        np.save(frame_path(folder, frame, ".npy"), depth)
        np.save(frame_path(folder, frame, _SEEN), weight > 0)
        for label in labels:
            readings[label].append(read_surroundings(depth, mask, label))
        measured.append(float((weight > 0).mean()) / max(float((mask == STATIC).mean()), 1e-6))
        bar.update()
    quality["measured"] = round(min(float(np.mean(measured)), 1.0), 4)
    return readings


def _complete(
    scene: Scene, frame: int, inverse: np.ndarray, weight: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """Return the depth [H, W] of a body everywhere, from its measured pixels at working size.

    Pixels off the body (`own` false) have values too, of no account. What a measured pixel says
    holds for those full-size pixels of the body that lie in it.
    """
    import cv2

    image = scene.image(frame).astype(np.float32) / 255
    size = image.shape[1::-1]
    values = cv2.resize(inverse, size, interpolation=cv2.INTER_NEAREST)
    weights = cv2.resize(weight, size, interpolation=cv2.INTER_NEAREST) * own
    if not weights.any():
        return np.full(image.shape[:2], BACKDROP, np.float32)
    return 1 / np.maximum(fill(values, weights, image, SMOOTHNESS), np.float32(1e-6))
