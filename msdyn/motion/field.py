"""The motion field: shared SE(3) patterns on composed levels, blended for every Gaussian.

A level's transform for a Gaussian is a weighted blend of its patterns (Eq. 10): the 6D rotations
and the translations are blended and the rotation re-orthonormalised. Patterns are parametrised
about their cluster's centre; the blended transform acts about the blended centre, so the blend is
exact where all patterns agree. Weights are sparse: each Gaussian knows a few patterns of each level
(`Blend.index`) and a logit for each. Levels compose outermost first (Eq. 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from msdyn.geometry import (
    interpolate_rotations,
    multiply_quats_wxyz,
    quats_wxyz_from_rotations,
    rotations_from_sixd,
    sixd_from_rotations,
)
from msdyn.motion.patterns import MotionHierarchy

__all__ = ["Blend", "MotionField"]

_IDENTITY_SIXD = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Blend:
    """Which patterns of one level move each Gaussian, and how much.

    Attributes:
        index: [G, k] patterns.
        logits: [G, k] their softmax gives the weights; or [G, k, T] for weights that differ between
            the key frames, which is how Eq. 10 writes them.
    """

    index: Int[Tensor, "gaussians patterns"]
    logits: Float[Tensor, "gaussians patterns *keys"]

    @property
    def weights(self) -> Float[Tensor, "gaussians patterns *keys"]:
        return self.logits.softmax(1)

    @property
    def varies(self) -> bool:
        """Whether the weights change with time."""
        return self.logits.dim() == 3


class MotionField(nn.Module):
    """Patterns of one to three levels at T key frames, and their interpolation in between.

    Parameters, for each level l: `sixd.l` [K_l, T, 6] and `translations.l` [K_l, T, 3] in scene
    units. Buffers: `centres_l` [K_l, 3], `parents_l` [K_l], `key_frames` [T] (frame indices of the
    clip at which the patterns are given, increasing), `objects` [K_1] (their mask index).
    """

    key_frames: Tensor
    objects: Tensor

    def __init__(
        self,
        centres: Sequence[Tensor],
        sixd: Sequence[Tensor],
        translations: Sequence[Tensor],
        parents: Sequence[Tensor],
        key_frames: Tensor,
        objects: Tensor,
    ) -> None:
        super().__init__()
        self.sixd = nn.ParameterList([nn.Parameter(v) for v in sixd])
        self.translations = nn.ParameterList([nn.Parameter(v) for v in translations])
        for level, (centre, parent) in enumerate(zip(centres, parents, strict=True)):
            self.register_buffer(f"centres_{level}", centre)
            self.register_buffer(f"parents_{level}", parent)
        self.register_buffer("key_frames", key_frames.float())
        self.register_buffer("objects", objects)

    @classmethod
    def from_hierarchy(cls, hierarchy: MotionHierarchy, key_frames: np.ndarray) -> MotionField:
        """Make a field of the patterns of a hierarchy; `key_frames` [T] are its frames' indices."""
        levels = hierarchy.levels
        return cls(
            [torch.from_numpy(v.centres).float() for v in levels],
            [sixd_from_rotations(torch.from_numpy(v.rotations)).float() for v in levels],
            [torch.from_numpy(v.translations).float() for v in levels],
            [torch.from_numpy(v.parents).long() for v in levels],
            torch.from_numpy(np.asarray(key_frames, np.float64)),
            torch.from_numpy(np.asarray(hierarchy.objects, np.int64)),
        )

    @property
    def num_levels(self) -> int:
        return len(self.sixd)

    def centres(self, level: int) -> Float[Tensor, "patterns 3"]:
        """Return the pivots of a level (0-based)."""
        return self.get_buffer(f"centres_{level}")

    def parents(self, level: int) -> Int[Tensor, " patterns"]:
        """Return the index of each pattern's parent in the level above."""
        return self.get_buffer(f"parents_{level}")

    def num_patterns(self, level: int) -> int:
        return self.sixd[level].shape[0]

    def patterns_at(
        self, level: int, frames: Float[Tensor, " times"]
    ) -> tuple[Float[Tensor, "patterns times 3 3"], Float[Tensor, "patterns times 3"]]:
        """Return a level's patterns at fractional frame indices, interpolated on SE(3).

        Before the first and after the last key frame the nearest one holds.
        """
        position = self.key_position(frames)
        low = position.floor().long()
        low_rotation = rotations_from_sixd(self.sixd[level][:, low])
        low_shift = self.translations[level][:, low]
        fraction = position - low
        if not bool((fraction > 0).any()):
            return low_rotation, low_shift
        high = (low + 1).clamp_max(len(self.key_frames) - 1)
        high_rotation = rotations_from_sixd(self.sixd[level][:, high])
        rotation = interpolate_rotations(
            low_rotation, high_rotation, fraction.expand(low_rotation.shape[:2])
        )
        shift = torch.lerp(low_shift, self.translations[level][:, high], fraction[:, None])
        return rotation, shift

    def key_position(self, frames: Float[Tensor, " times"]) -> Float[Tensor, " times"]:
        """Return the fractional index among the key frames of fractional frame indices."""
        keys = self.key_frames
        frames = frames.to(keys).clamp(keys[0], keys[-1])
        high = torch.searchsorted(keys, frames.contiguous(), right=True).clamp(1, len(keys) - 1)
        low = high - 1
        return low + (frames - keys[low]) / (keys[high] - keys[low])

    def at_keys(
        self, values: Float[Tensor, "gaussians keys *shape"], frames: Float[Tensor, " times"]
    ) -> Float[Tensor, "gaussians times *shape"]:
        """Interpolate what is given at every key frame linearly to fractional frame indices."""
        position = self.key_position(frames)
        low = position.floor().long()
        high = (low + 1).clamp_max(len(self.key_frames) - 1)
        fraction = (position - low).reshape(-1, *(1 for _ in values.shape[2:]))
        return torch.lerp(values[:, low], values[:, high], fraction)

    def forward(
        self,
        points: Float[Tensor, "gaussians 3"],
        blends: Sequence[Blend],
        frames: Float[Tensor, " times"],
        levels: int | None = None,
    ) -> tuple[Float[Tensor, "times gaussians 3 3"], Float[Tensor, "times gaussians 3"]]:
        """Carry canonical points to the given frames.

        Args:
            points: canonical positions, scene units.
            blends: one for each level.
            frames: fractional frame indices.
            levels: use only the first so many levels (the finer ones stay at rest).

        Returns:
            Rotations and positions; exactly the identity and `points` where all patterns are the
            identity.
        """
        depth = self.num_levels if levels is None else min(levels, self.num_levels)
        count, times = len(points), len(frames)
        if count == 0:  # a static scene has no pattern either
            depth = 0
        moved = points.expand(times, count, 3)
        identity = torch.eye(3, dtype=points.dtype, device=points.device)
        rotation = identity.expand(times, count, 3, 3)
        for level in reversed(range(depth)):
            step, centre, shift = self._blended(level, blends[level], frames)
            # x + (R - I)(x - c) + t rather than R (x - c) + c + t: exact at the identity.
            turned = ((step - identity) @ (moved - centre).unsqueeze(-1)).squeeze(-1)
            moved = moved + turned + shift
            rotation = step if level == depth - 1 else step @ rotation
        return rotation, moved

    def pose(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        blends: Sequence[Blend],
        frames: Float[Tensor, " times"],
        levels: int | None = None,
    ) -> tuple[
        Float[Tensor, "times gaussians 3 3"],
        Float[Tensor, "times gaussians 3"],
        Float[Tensor, "times gaussians 4"],
    ]:
        """Carry canonical Gaussians to the given frames, as `forward` does, orientations too.

        On a CPU in float32 this is one compiled pass over the Gaussians.

        Args:
            points, blends, frames, levels: as for `forward`.
            quats_wxyz: canonical orientations, not necessarily unit.

        Returns:
            Rotations since the canonical frame, positions, and orientations.
        """
        depth = self.num_levels if levels is None else min(levels, self.num_levels)
        compiled = points.dtype == torch.float32 and not points.is_cuda
        if depth and len(points) and compiled and not any(b.varies for b in blends[:depth]):
            from msdyn.motion.numba_field import pose_cpu

            return pose_cpu(
                points,
                quats_wxyz,
                [blend.index for blend in blends[:depth]],
                [blend.logits for blend in blends[:depth]],
                [self._table(level, frames) for level in range(depth)],
                [self.centres(level) for level in range(depth)],
            )
        rotations, moved = self(points, blends, frames, levels)
        quats = quats_wxyz.expand(len(frames), -1, -1)
        if depth and len(points):
            quats = multiply_quats_wxyz(quats_wxyz_from_rotations(rotations), quats)
        return rotations, moved, quats

    def undo(
        self,
        points: Float[Tensor, "gaussians 3"],
        blends: Sequence[Blend],
        frame: float,
    ) -> Float[Tensor, "gaussians 3"]:
        """Carry points of one frame back to the canonical frame, the inverse of `forward`.

        Args:
            points: positions at `frame`, scene units.
            blends: one for each level, the weights each point has in the canonical frame.
            frame: fractional frame index.
        """
        if not len(points):
            return points
        frames = points.new_tensor([frame])
        for level in range(self.num_levels):
            rotation, centre, shift = self._blended(level, blends[level], frames)
            pivot = centre.reshape(-1, *points.shape)[0]
            centred = (points - pivot - shift[0]).unsqueeze(-1)
            points = (rotation[0].mT @ centred).squeeze(-1) + pivot
        return points

    def _blended(self, level: int, blend: Blend, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a level's rotations [B, G, 3, 3], pivots [*B, G, 3] and translations [B, G, 3]."""
        table = self._table(level, frames)
        times = table.shape[1]
        if blend.varies:
            weights = self.at_keys(blend.logits.transpose(1, 2), frames).softmax(-1)  # [G, B, k]
            table = torch.cat([table, self.centres(level)[:, None].expand(-1, times, -1)], dim=-1)
            mixed = torch.einsum("gbk,gkbc->bgc", weights, table[blend.index])
            sixd = mixed[..., :6] + mixed.new_tensor(_IDENTITY_SIXD)
            return rotations_from_sixd(sixd), mixed[..., 9:], mixed[..., 6:9]
        table = torch.cat([table.flatten(1), self.centres(level)], dim=-1)  # [K, 9 B + 3]
        mixed = nn.functional.embedding_bag(
            blend.index, table, per_sample_weights=blend.weights, mode="sum"
        )
        sixd_shift = mixed[:, :-3].unflatten(-1, (times, 9)).transpose(0, 1)  # [B, G, 9]
        return (
            rotations_from_sixd(sixd_shift[..., :6] + sixd_shift.new_tensor(_IDENTITY_SIXD)),
            mixed[:, -3:],
            sixd_shift[..., 6:],
        )

    def _table(self, level: int, frames: Tensor) -> Tensor:
        """Return [K, B, 9]: 6D rotations, less the identity's, and translations.

        Rotations are blended as differences from the identity, so that rounding of the weights' sum
        cannot move anything at rest.
        """
        rotation, shift = self.patterns_at(level, frames)  # [K, B, 3, 3], [K, B, 3]
        delta = sixd_from_rotations(rotation) - rotation.new_tensor(_IDENTITY_SIXD)
        return torch.cat([delta, shift], dim=-1)
