"""Depth of every frame from the clip itself: measured where the scene is rigid, else completed.

See `fusion`; what is not measured is completed along the edges of the image, and objects that do
not move rigidly get one depth per frame.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from msdyn.preprocess.contracts import (
    Backend,
    CameraSolution,
    DepthMap,
    DepthResult,
    Figures,
    Masks,
)
from msdyn.preprocess.depth.fusion import (
    ASSUMED,
    FusionOptions,
    fuse,
    shares_of_pixels,
    static_body,
)
from msdyn.preprocess.depth.objects import BEFORE_BACKDROP
from msdyn.preprocess.imaging.edge_aware_fill import fill
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.streamed import Streamed
from msdyn.scene import IGNORE, STATIC, Scene, Tracks

__all__ = ["EdgeCompletion", "FusedDepth"]

# Of the completion, relative to the weight of a depth from one frame. Ten times less leaves noise
# on smooth surfaces, five times more rounds off edges; between those the error changes by 5 %.
SMOOTHNESS = 1.0
BACKDROP = 1.0  # depth of the background where nothing can be measured


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
        """Return depth maps with their confidence; for the figures see `fuse`.

        Pixels to be ignored (255 in the masks) are unknown, 0. Where the camera is static or only
        rotates, or there is no parallax, the background is a plane, and objects are a little in
        front of it.
        """
        assert tracks is not None and masks is not None and solution is not None
        background = static_body(tracks, solution)
        if background is None:
            return DepthResult(Streamed(_backdrop(masks)))
        options = FusionOptions(self.working_side, self.rigid_objects, self.seed)
        maps = fuse(scene, tracks, masks, background, [EdgeCompletion(scene)], options)
        return DepthResult(Streamed(maps))


class EdgeCompletion:
    """Completes depth along the edges of the image; a `Completion` without relief."""

    name = "edges"

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def complete(
        self,
        frame: int,
        inverse: Float32[np.ndarray, "h w"],
        weight: Float32[np.ndarray, "h w"],
        own: Bool[np.ndarray, "height width"],
    ) -> tuple[Float32[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
        """Return the depth [H, W] of a body, and where it is measured; see `Completion`.

        A measured value is used for those full-size pixels of the body that are in its pixel.
        """
        import cv2

        image = self._scene.image(frame).astype(np.float32) / 255
        size = image.shape[1::-1]
        values = cv2.resize(inverse, size, interpolation=cv2.INTER_NEAREST)
        weights = cv2.resize(weight, size, interpolation=cv2.INTER_NEAREST) * own
        known = weights > 0
        if not known.any():
            return np.full(image.shape[:2], BACKDROP, np.float32), known
        filled = fill(values, weights, image, SMOOTHNESS)
        return 1 / np.maximum(filled, np.float32(1e-6)), known

    def relief(self, frame: int) -> None:
        """Return nothing: objects get one depth per frame."""


def _backdrop(masks: Masks) -> Generator[DepthMap, None, Figures]:
    """Yield depth maps of a plane with the objects in front of it."""
    counts = np.zeros(256, int)
    for mask in masks:
        depth = np.where(mask == STATIC, BACKDROP, BEFORE_BACKDROP)
        depth = np.where(mask == IGNORE, 0, depth).astype(np.float32)
        confidence = np.where(mask == IGNORE, 0, ASSUMED).astype(np.uint8)
        counts += np.bincount(confidence.reshape(-1), minlength=256)
        yield DepthMap(depth, confidence)
    return {**shares_of_pixels(counts), "note": "no parallax: a flat backdrop"}
