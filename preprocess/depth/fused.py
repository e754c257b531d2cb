"""Depth of every frame from the clip itself: measured where the scene is rigid, else assumed.

1. The background is measured by plane sweeps (`DenseBody`) and completed along image edges.
2. Objects that move rigidly are measured likewise, relative to themselves, and scaled to the depth
   of what they touch. All others get one depth per frame, that of what they touch or of what
   surrounds them, smoothed over time. Those pixels are "assumed".

A first pass over the frames measures the background and the surroundings of each object; a second
one adds the objects. Between the passes, the background is stored on disk.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32
from tqdm import tqdm

from msdyn.preprocess.contracts import (
    Backend,
    CameraSolution,
    DepthMap,
    DepthResult,
    Figures,
    Masks,
    Streamed,
)
from msdyn.preprocess.depth.consistency import Consistency
from msdyn.preprocess.depth.multi_frame import MIN_POINTS, Body, DenseBody
from msdyn.preprocess.depth.rigid_objects import bring_to_scale, solve_rigid_objects
from msdyn.preprocess.depth.support import Surroundings, read_surroundings, smooth_depths
from msdyn.preprocess.imaging.edge_aware_fill import fill
from msdyn.preprocess.multiview.static_points import static_points
from msdyn.preprocess.registry import register_backend
from msdyn.scene import IGNORE, STATIC, Scene, Tracks, frame_path

__all__ = ["FusedDepth"]

# Of the completion, relative to the weight of a depth from one frame. Ten times less leaves noise
# on smooth surfaces, five times more rounds off edges; between those the error changes by 5 %.
SMOOTHNESS = 1.0
# Depth of the background where nothing can be measured, and of objects, which are in front of it.
BACKDROP, BEFORE_BACKDROP = 1.0, 0.9
# Confidence of the depth of a pixel: one depth per object and frame; an object measured by its own
# rigid motion, scaled to what it touches; completed from its surroundings; confirmed by frames.
ASSUMED, OWN_MOTION, COMPLETED, CONFIRMED = 64, 160, 128, 255
_MEASURED = "-measured.npy"
MIN_CONTACTS = 3  # frames in which the ground below an object is visible


@register_backend(
    "depth", "fused", needs=("frames", "tracks", "masks", "cameras"), triangulates=True
)
@dataclass(frozen=True)
class FusedDepth(Backend):
    """Depth by plane sweeps between neighbouring frames, completed along the edges of the image."""

    working_side: int = 320
    """Sweeps run on images shrunk to this longer side."""
    rigid_objects: bool = True
    """Try to measure objects that move as one rigid body; otherwise all depths are assumed."""
    seed: int = 0
    """Of every random choice."""

    def estimate(
        self,
        scene: Scene,
        tracks: Tracks | None,
        masks: Masks | None,
        solution: CameraSolution | None,
    ) -> DepthResult:
        """Return depth maps with their confidence.

        Pixels to be ignored (255 in the masks) are unknown, 0. Where the camera is static or only
        rotates, or there is no parallax, the background is a plane, and objects are a little in
        front of it.

        The figures: `measured`, the share of static pixels at working size that other frames
        confirm, the others being completed; `assumed`, the share of all pixels that are on objects
        whose depth is not measured; `reprojection_difference`, see `Consistency`; `objects`, how
        the depth of each was found.
        """
        assert tracks is not None and masks is not None and solution is not None
        background = _background(tracks, solution)
        if background is None:
            figures = {
                "measured": 0.0,
                "assumed": 1.0,
                "note": "no parallax: a flat backdrop",
            }
            return DepthResult(Streamed.of(_backdrop(masks), figures))
        return DepthResult(Streamed(self._maps(scene, tracks, masks, background)))

    def _maps(
        self, scene: Scene, tracks: Tracks, masks: Masks, background: Body
    ) -> Generator[DepthMap, None, Figures]:
        """Yield the depth map of each frame."""
        factor = min(1.0, self.working_side / max(scene.size))
        size = (round(scene.size[0] * factor), round(scene.size[1] * factor))
        with contextlib.ExitStack() as stack:
            bar = tqdm(
                desc="depth   ", total=2 * len(scene), unit="step", disable=None, leave=False
            )
            stack.enter_context(bar)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="msdyn-depth-")))
            with DenseBody(scene, masks, background, size) as body:
                surroundings, measured = _first_pass(scene, masks, body, folder, bar)
            bodies = {}
            if self.rigid_objects:
                bodies = solve_rigid_objects(scene, tracks, masks, background, seed=self.seed)
            objects = []
            for label, found in surroundings.items():
                dense = None
                scaled = bring_to_scale(bodies[label], found) if label in bodies else None
                if scaled is not None:
                    dense = stack.enter_context(DenseBody(scene, masks, scaled, size))
                objects.append(_Object(label, found, dense))

            consistency = Consistency(background.cameras)
            shares = []
            for frame in range(len(scene)):
                depth, mask = np.load(frame_path(folder, frame, ".npy")), masks[frame]
                consistency.add(frame, np.where(mask == STATIC, depth, 0))
                assumed = np.zeros(mask.shape, bool)
                confirmed = _enlarged(np.load(frame_path(folder, frame, _MEASURED)), mask.shape)
                confidence = np.where(confirmed, CONFIRMED, COMPLETED).astype(np.uint8)
                for item in objects:
                    own = mask == item.label
                    shape = item.depth(scene, frame, own)
                    depth[own] = item.placed[frame] if shape is None else shape[own]
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
            "reprojection_difference": consistency.figure(),
        }


class _Object:
    """The depth of one object.

    Attributes:
        label: its index in the masks.
        placed: [T] one depth per frame, from its surroundings.
    """

    def __init__(
        self, label: int, surroundings: list[Surroundings | None], body: DenseBody | None
    ) -> None:
        """Estimate the depth of an object; `body` measures it where it moves rigidly."""
        contacts = np.array([found.contact if found else 0.0 for found in surroundings])
        holders = np.array([found.holder if found else 0.0 for found in surroundings])
        hangs = sum(found.hangs for found in surroundings if found)
        self.label = label
        self._touches = int((contacts > 0).sum()) >= max(MIN_CONTACTS, hangs)
        smooth = smooth_depths(contacts if self._touches else holders)
        self.placed = np.where(smooth > 0, smooth, BEFORE_BACKDROP)
        self._body = body

    def figures(self) -> Figures:
        """Return how the shape and the position were found."""
        return {
            "shape": "own rigid motion" if self._body else "one depth a frame",
            "placed_by": "contact" if self._touches else "border",
        }

    def depth(
        self, scene: Scene, frame: int, own: Bool[np.ndarray, "height width"]
    ) -> Float32[np.ndarray, "height width"] | None:
        """Return its measured depth [H, W] on its pixels `own`, None where nothing is measured."""
        if self._body is None:
            return None
        inverse, weight = self._body.measure(frame)
        return _complete(scene, frame, inverse, weight, own) if weight.any() else None


def _background(tracks: Tracks, solution: CameraSolution) -> Body | None:
    """Return the static scene as a body, None where no depth of it can be triangulated."""
    points = static_points(tracks, solution, MIN_POINTS)
    if len(points.xyz) < MIN_POINTS:
        return None
    known = np.ones(len(solution.cameras), bool)
    return Body(STATIC, solution.cameras, known, points)


def _backdrop(masks: Masks) -> Iterator[DepthMap]:
    """Yield depth maps of a plane with the objects in front of it."""
    for mask in masks:
        depth = np.where(mask == STATIC, BACKDROP, BEFORE_BACKDROP)
        depth = np.where(mask == IGNORE, 0, depth).astype(np.float32)
        yield DepthMap(depth, np.where(mask == IGNORE, 0, ASSUMED).astype(np.uint8))


def _enlarged(
    small: Bool[np.ndarray, "h w"], size: tuple[int, ...]
) -> Bool[np.ndarray, "height width"]:
    """Return a mask enlarged to `size` (height, width)."""
    import cv2

    full = cv2.resize(small.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return full > 0


def _first_pass(
    scene: Scene,
    masks: Masks,
    body: DenseBody,
    folder: Path,
    bar: tqdm,
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
        depth = _complete(scene, frame, inverse, weight, mask == STATIC)
        np.save(frame_path(folder, frame, ".npy"), depth)
        np.save(frame_path(folder, frame, _MEASURED), weight > 0)
        for label in labels:
            surroundings[label].append(read_surroundings(depth, mask, label))
        measured.append(float((weight > 0).mean()) / max(float((mask == STATIC).mean()), 1e-6))
        bar.update()
    return surroundings, round(min(float(np.mean(measured)), 1.0), 4)


def _complete(
    scene: Scene,
    frame: int,
    inverse: Float32[np.ndarray, "h w"],
    weight: Float32[np.ndarray, "h w"],
    own: Bool[np.ndarray, "height width"],
) -> Float32[np.ndarray, "height width"]:
    """Return the depth [H, W] of a body everywhere, from its measured pixels at working size.

    A measured value is used for those full-size pixels of the body that are in its pixel. Pixels
    off the body (`own` false) have meaningless values.
    """
    import cv2

    image = scene.image(frame).astype(np.float32) / 255
    size = image.shape[1::-1]
    values = cv2.resize(inverse, size, interpolation=cv2.INTER_NEAREST)
    weights = cv2.resize(weight, size, interpolation=cv2.INTER_NEAREST) * own
    if not weights.any():
        return np.full(image.shape[:2], BACKDROP, np.float32)
    return 1 / np.maximum(fill(values, weights, image, SMOOTHNESS), np.float32(1e-6))
