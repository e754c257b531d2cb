"""Gaussians as viser's browser client takes them, coloured by what one wants to see.

The client keeps covariances with 16-bit floats, in which those of small Gaussians would be zero:
they are sent in a world scaled so that they fit, and the node is scaled back.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch

from msdyn.colours import object_palette
from msdyn.geometry import SH_C0, rotations_from_quats_wxyz
from msdyn.sequence import GaussianSequence, PosedGaussians

__all__ = ["COLOURINGS", "Look", "SplatSource"]

COLOURINGS = ("appearance", "object", "primitive", "motion")
_CACHE_BYTES = 400_000_000
_LARGEST_HALF = 6e4
# The motion level of "primitive".
_PRIMITIVES = 1
_SMALL = 0.2
"""Standard deviations are scaled so that the median one has this size: one a hundred times smaller
has a covariance of 4e-6, with six bits, and one a thousand times larger still fits."""


@dataclass(frozen=True)
class Look:
    """What is shown: how many levels, which objects, and in which colours.

    Attributes:
        levels: motion levels in use; None for all.
        hidden: labels that are not shown; 0 is what stands still.
        colour: one of `COLOURINGS`.
    """

    levels: int | None = None
    hidden: frozenset[int] = frozenset()
    colour: str = "appearance"


_UPPER = [0, 1, 2, 4, 5, 8]


class SplatSource:
    """Poses and packs the Gaussians of a sequence, remembering what was shown at whole frames.

    Buffers are viser's, [G, 8] uint32 a Gaussian: x, y, z as float32, a gap, the upper triangle of
    the covariance as six float16, and RGBA as bytes; lengths are those of the scaled world.
    """

    def __init__(self, sequence: GaussianSequence) -> None:
        self.sequence = sequence
        scales = torch.cat([sequence.static.scales, sequence.moving.scales]).detach()
        median = float(scales.median()) if len(scales) else 1.0
        self.scale = _SMALL / max(median, 1e-12)
        self.motion = _motion_range(sequence)
        self.cache: OrderedDict[tuple[float, Look], np.ndarray] = OrderedDict()
        self.bytes = 0

    @torch.no_grad()
    def static(self, look: Look) -> np.ndarray:
        """Return what stands still."""
        posed = self.sequence.posed(torch.zeros(1), levels=0)
        return self._pack(posed, slice(0, posed.num_static), look, 0.0)

    @torch.no_grad()
    def moving(self, frame: float, look: Look) -> np.ndarray:
        """Return what moves, at a fractional frame index."""
        key = (frame, look)
        if key in self.cache:
            self.cache.move_to_end(key)
            return self.cache[key]
        posed = self.sequence.posed(torch.tensor([float(frame)]), levels=look.levels)
        splats = self._pack(posed, slice(posed.num_static, None), look, frame)
        if float(frame).is_integer():
            self._remember(key, splats)
        return splats

    def _remember(self, key: tuple[float, Look], splats: np.ndarray) -> None:
        self.cache[key] = splats
        self.bytes += splats.nbytes
        while self.bytes > _CACHE_BYTES and len(self.cache) > 1:
            self.bytes -= self.cache.popitem(last=False)[1].nbytes

    def _pack(self, posed: PosedGaussians, part: slice, look: Look, frame: float) -> np.ndarray:
        axes = rotations_from_quats_wxyz(posed.quats_wxyz[0, part]) * posed.scales[part, None]
        covariances = (axes @ axes.mT) * self.scale**2
        opacities = posed.opacities[part]
        for label in look.hidden:
            opacities = torch.where(posed.labels[part] == label, 0.0, opacities)
        half = covariances.clamp(-_LARGEST_HALF, _LARGEST_HALF).flatten(1)[:, _UPPER].half().numpy()
        colours = np.column_stack([self._colours(posed, part, look, frame), opacities.numpy()])
        buffer = np.zeros((len(half), 8), np.uint32)
        buffer[:, :3] = (posed.means[0, part] * self.scale).numpy().view(np.uint32)
        buffer[:, 4:7] = np.ascontiguousarray(half).view(np.uint32)
        bytes_ = (colours * 255).round().astype(np.uint8)
        buffer[:, 7] = np.ascontiguousarray(bytes_).view(np.uint32)[:, 0]
        return buffer

    def _colours(self, posed: PosedGaussians, part: slice, look: Look, frame: float) -> np.ndarray:
        """Return RGB [G, 3] in [0, 1]."""
        appearance = (posed.harmonics[part, 0] * SH_C0 + 0.5).clamp(0, 1).numpy()
        labels = posed.labels[part].numpy()
        if look.colour == "appearance" or not len(labels):
            return appearance.astype(np.float32)
        if not labels.any():  # what stands still goes grey, so that what moves is seen
            grey = appearance.mean(-1, keepdims=True) * 0.6 + 0.2
            return np.repeat(grey, 3, axis=-1).astype(np.float32)
        if look.colour == "object":
            return (object_palette()[labels] / 255).astype(np.float32)
        if look.colour == "primitive":
            groups = self.sequence.motion.groups(_PRIMITIVES).numpy()
            return (object_palette()[1 + groups % 250] / 255).astype(np.float32)
        from matplotlib import colormaps

        rest = self.sequence.posed(torch.tensor([float(frame)]), levels=0).means[0, part]
        length = (posed.means[0, part] - rest).norm(dim=-1).numpy()
        return colormaps["turbo"](length / self.motion)[:, :3].astype(np.float32)


@torch.no_grad()
def _motion_range(sequence: GaussianSequence) -> float:
    """Return how far Gaussians go from the canonical frame: the 98th percentile, or 1."""
    if not len(sequence.moving):
        return 1.0
    frames = torch.linspace(0, len(sequence.timeline) - 1, 5)
    first = len(sequence.static)
    moved = sequence.posed(frames).means[:, first:] - sequence.moving.means
    return max(float(np.percentile(moved.norm(dim=-1).numpy(), 98)), 1e-9)
