"""Gaussians in the format of viser's browser client, coloured by appearance, object or motion.

The client stores covariances as 16-bit floats, in which those of small Gaussians would be zero:
they are sent in a rescaled world, and the scene node is scaled back.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt32

from msdyn.colours import object_palette
from msdyn.geometry import SH_C0, rotations_from_quats_wxyz
from msdyn.sequence import GaussianSequence, PosedGaussians

__all__ = ["COLOURINGS", "DisplayOptions", "SplatSource"]

COLOURINGS = ("appearance", "object", "primitive", "motion")
_CACHE_BYTES = 400_000_000
_MAX_FLOAT16 = 6e4
_PRIMITIVE_LEVEL = 1
"""Index of the motion level whose groups "primitive" shows."""
_MEDIAN_SCALE = 0.2
"""Median standard deviation after rescaling: one a hundred times smaller has a covariance of 4e-6,
with six significant bits, and one a thousand times larger does not overflow."""


@dataclass(frozen=True)
class DisplayOptions:
    """Which motion levels and objects are shown, and in which colours.

    Attributes:
        levels: number of motion levels in use; None for all.
        hidden: labels that are not shown; 0 is the background.
        colour: one of `COLOURINGS`.
    """

    levels: int | None = None
    hidden: frozenset[int] = frozenset()
    colour: str = "appearance"


_UPPER = [0, 1, 2, 4, 5, 8]
"""Indices of the upper triangle in a flattened 3x3 matrix."""


class SplatSource:
    """Poses and packs the Gaussians of a sequence, with a cache for whole frames.

    Buffers are viser's, eight uint32 per Gaussian: x, y, z as float32, padding, the upper triangle
    of the covariance as six float16, and RGBA as bytes; lengths are those of the rescaled world.

    Attributes:
        scale: from the sequence's world to the rescaled one.
    """

    def __init__(self, sequence: GaussianSequence) -> None:
        self.sequence = sequence
        scales = torch.cat([sequence.static.scales, sequence.moving.scales]).detach()
        median = float(scales.median()) if len(scales) else 1.0
        self.scale = _MEDIAN_SCALE / max(median, 1e-12)
        self.motion = _motion_range(sequence)
        self.cache: OrderedDict[tuple[float, DisplayOptions], UInt32[np.ndarray, "moving 8"]] = (
            OrderedDict()
        )
        self.bytes = 0

    @torch.no_grad()
    def static(self, options: DisplayOptions) -> UInt32[np.ndarray, "static 8"]:
        """Return the static Gaussians."""
        posed = self.sequence.posed(torch.zeros(1), levels=0)
        return self._pack(posed, slice(0, posed.num_static), options, 0.0)

    @torch.no_grad()
    def moving(self, frame: float, options: DisplayOptions) -> UInt32[np.ndarray, "moving 8"]:
        """Return the moving Gaussians at a fractional frame index."""
        key = (frame, options)
        if key in self.cache:
            self.cache.move_to_end(key)
            return self.cache[key]
        posed = self.sequence.posed(torch.tensor([float(frame)]), levels=options.levels)
        splats = self._pack(posed, slice(posed.num_static, None), options, frame)
        if float(frame).is_integer():
            self._store(key, splats)
        return splats

    def _store(
        self, key: tuple[float, DisplayOptions], splats: UInt32[np.ndarray, "moving 8"]
    ) -> None:
        self.cache[key] = splats
        self.bytes += splats.nbytes
        while self.bytes > _CACHE_BYTES and len(self.cache) > 1:
            self.bytes -= self.cache.popitem(last=False)[1].nbytes

    def _pack(
        self, posed: PosedGaussians, part: slice, options: DisplayOptions, frame: float
    ) -> UInt32[np.ndarray, "gaussians 8"]:
        """Return the buffer of a range of the Gaussians."""
        axes = rotations_from_quats_wxyz(posed.quats_wxyz[0, part]) * posed.scales[part, None]
        covariances = (axes @ axes.mT) * self.scale**2
        opacities = posed.opacities[0, part]
        for label in options.hidden:
            opacities = torch.where(posed.labels[part] == label, 0.0, opacities)
        half = covariances.clamp(-_MAX_FLOAT16, _MAX_FLOAT16).flatten(1)[:, _UPPER].half().numpy()
        colours = np.column_stack([self._colours(posed, part, options, frame), opacities.numpy()])
        buffer = np.zeros((len(half), 8), np.uint32)
        buffer[:, :3] = (posed.means[0, part] * self.scale).numpy().view(np.uint32)
        buffer[:, 4:7] = np.ascontiguousarray(half).view(np.uint32)
        rgba = (colours * 255).round().astype(np.uint8)
        buffer[:, 7] = np.ascontiguousarray(rgba).view(np.uint32)[:, 0]
        return buffer

    def _colours(
        self, posed: PosedGaussians, part: slice, options: DisplayOptions, frame: float
    ) -> Float32[np.ndarray, "gaussians 3"]:
        """Return RGB in [0, 1]."""
        appearance = (posed.harmonics[part, 0] * SH_C0 + 0.5).clamp(0, 1).numpy()
        labels = posed.labels[part].numpy()
        if options.colour == "appearance" or not len(labels):
            return appearance.astype(np.float32)
        if not labels.any():  # the background is grey, so that moving objects stand out
            grey = appearance.mean(-1, keepdims=True) * 0.6 + 0.2
            return np.repeat(grey, 3, axis=-1).astype(np.float32)
        if options.colour == "object":
            return (object_palette()[labels] / 255).astype(np.float32)
        if options.colour == "primitive":
            groups = self.sequence.motion.groups(_PRIMITIVE_LEVEL).numpy()
            return (object_palette()[1 + groups % 250] / 255).astype(np.float32)
        from matplotlib import colormaps

        rest = self.sequence.posed(torch.tensor([float(frame)]), levels=0).means[0, part]
        length = (posed.means[0, part] - rest).norm(dim=-1).numpy()
        return colormaps["turbo"](length / self.motion)[:, :3].astype(np.float32)


@torch.no_grad()
def _motion_range(sequence: GaussianSequence) -> float:
    """Return the 98th percentile of displacements from the canonical frame; 1 without motion."""
    if not len(sequence.moving):
        return 1.0
    frames = torch.linspace(0, len(sequence.timeline) - 1, 5)
    first = len(sequence.static)
    displacement = sequence.posed(frames).means[:, first:] - sequence.moving.means
    return max(float(np.percentile(displacement.norm(dim=-1).numpy(), 98)), 1e-9)
