"""Shared SE(3) patterns on composed levels, and their blend for every Gaussian.

A level's transform for a Gaussian is a weighted blend of its patterns (Eq. 10): 6D rotations and
translations are blended and the rotation is re-orthonormalised. Patterns are parametrised about the
centre of their cluster, and the blended transform acts about the blended centre, so that the blend
is exact if all patterns agree. Levels compose outermost first (Eq. 9).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from msdyn.geometry import (
    Rigid,
    Similarity,
    multiply_quats_wxyz,
    quats_wxyz_from_rotations,
    rotations_from_rotvecs,
    rotations_from_sixd,
    rotvecs_from_rotations,
    sixd_from_rotations,
)
from msdyn.motion.config import KeyInterpolation
from msdyn.motion.keys import KeyTimes
from msdyn.motion.patterns import MotionHierarchy
from msdyn.motion.protocol import Pose
from msdyn.motion.weights import BlendWeights

__all__ = ["PatternField"]


class PatternField(nn.Module):
    """Patterns of one to three levels at T key frames.

    Parameters, for each level l: `sixd.l` [K_l, T, 6] and `translations.l` [K_l, T, 3] in scene
    units. Buffers: `centres_l` [K_l, 3], `parents_l` [K_l], `key_frames` [T] (frame indices of the
    clip, increasing), `objects` [K_1] (mask indices). `interpolation` is that between key frames.
    """

    key_frames: Tensor
    objects: Tensor

    def __init__(
        self,
        centres: Sequence[Float[Tensor, "_ 3"]],
        sixd: Sequence[Float[Tensor, "_ keys 6"]],
        translations: Sequence[Float[Tensor, "_ keys 3"]],
        parents: Sequence[Int[Tensor, " _"]],
        key_frames: Real[Tensor, " keys"],
        objects: Int[Tensor, " objects"],
        interpolation: KeyInterpolation = "linear",
    ) -> None:
        super().__init__()
        self.interpolation: KeyInterpolation = interpolation
        self.sixd = nn.ParameterList([nn.Parameter(v) for v in sixd])
        self.translations = nn.ParameterList([nn.Parameter(v) for v in translations])
        for level, (centre, parent) in enumerate(zip(centres, parents, strict=True)):
            self.register_buffer(f"centres_{level}", centre)
            self.register_buffer(f"parents_{level}", parent)
        self.register_buffer("key_frames", key_frames.float())
        self.register_buffer("objects", objects)

    @classmethod
    def from_hierarchy(
        cls,
        hierarchy: MotionHierarchy,
        key_frames: Real[Tensor, " keys"],
        interpolation: KeyInterpolation = "linear",
    ) -> PatternField:
        """Make a field of the patterns of a hierarchy.

        Args:
            hierarchy: of T frames.
            key_frames: indices, in the clip, of these frames.
            interpolation: between key frames.
        """
        levels = hierarchy.levels
        about = [level.about.tensors() for level in levels]
        return cls(
            [torch.from_numpy(v.centres).float() for v in levels],
            [sixd_from_rotations(v.rotation).float() for v in about],
            [v.translation.float() for v in about],
            [torch.from_numpy(v.parents).long() for v in levels],
            key_frames,
            torch.as_tensor(hierarchy.objects).long(),
            interpolation,
        )

    def with_poses(
        self,
        sixd: Sequence[Float[Tensor, "_ keys 6"]],
        translations: Sequence[Float[Tensor, "_ keys 3"]],
    ) -> PatternField:
        """Return the same patterns with other poses at the key frames."""
        levels = range(self.num_levels)
        return PatternField(
            [self.centres(i).clone() for i in levels], sixd, translations,
            [self.parents(i) for i in levels], self.key_frames, self.objects, self.interpolation,
        )  # fmt: skip

    def rescaled(self, world: Similarity) -> PatternField:
        """Return the same motion in other world coordinates; `world` has no rotation."""
        levels = range(self.num_levels)

        def moved(centres: Float[Tensor, "patterns 3"]) -> Float[Tensor, "patterns 3"]:
            # By numbers of the host: a GPU does not wait for a copy.
            columns = zip(centres.unbind(-1), map(float, world.translation), strict=True)
            return torch.stack([c * world.scale + shift for c, shift in columns], dim=-1)

        return PatternField(
            [moved(self.centres(i)) for i in levels],
            [self.sixd[i].detach().clone() for i in levels],
            [self.translations[i].detach() * world.scale for i in levels],
            [self.parents(i) for i in levels],
            self.key_frames,
            self.objects,
            self.interpolation,
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

    def times(self, frames: Float[Tensor, " times"]) -> KeyTimes:
        """Return fractional frame indices as times between the key frames."""
        return KeyTimes.of(self.key_frames, frames, self.interpolation)

    def at(self, level: int, frames: Float[Tensor, " times"]) -> Rigid[Tensor]:
        """Return a level's patterns [K, B] at fractional frame indices, interpolated on SE(3).

        Rotations are interpolated along geodesics, pivots along straight lines; both are bent by
        `KeyTimes.bend` if the interpolation is cubic, of rotation vectors in the body's frame.
        Beyond the first and last key frame they are constant.
        """
        return self._at([level], self.times(frames))

    def _at(self, levels: Iterable[int], times: KeyTimes) -> Rigid[Tensor]:
        """Return the patterns of some levels, one after the other, [K, B]."""
        levels = list(levels)

        def keys(numbers: Int[Tensor, " times"]) -> Rigid[Tensor]:
            sixd, translation = (
                torch.cat([values[i].index_select(1, numbers) for i in levels])
                for values in (self.sixd, self.translations)
            )
            return Rigid(rotations_from_sixd(sixd), translation)

        if times.fraction is None:
            return keys(times.low)
        if times.gaps is None:
            return keys(times.low).interpolated(keys(times.high), times.fraction)
        patterns = keys(torch.cat(times.around))
        rotations = patterns.rotation.unflatten(1, (4, -1))  # [K, 4, B, 3, 3]
        translations = patterns.translation.unflatten(1, (4, -1))
        turns = rotvecs_from_rotations(rotations[:, :3].mT @ rotations[:, 1:])
        # Along the geodesic, then the bend in the body's frame.
        turns = torch.stack([turns[:, 1] * times.fraction[:, None], times.bend(turns)])
        along, aside = rotations_from_rotvecs(turns)
        return Rigid(rotations[:, 1] @ along @ aside, times.spline(translations))

    def forward(
        self,
        points: Float[Tensor, "gaussians 3"],
        weights: Sequence[BlendWeights],
        frames: Float[Tensor, " times"] | KeyTimes,
        levels: int | None = None,
    ) -> tuple[Float[Tensor, "times gaussians 3 3"], Float[Tensor, "times gaussians 3"]]:
        """Move canonical points to the given frames.

        Args:
            points: canonical positions, scene units.
            weights: of each level.
            frames: fractional frame indices, or the times themselves.
            levels: number of levels to apply, outermost first; all by default.

        Returns:
            Rotations and positions; exactly the identity and `points` if all patterns are the
            identity.
        """
        depth = self.num_levels if levels is None else min(levels, self.num_levels)
        frames = frames if isinstance(frames, KeyTimes) else self.times(frames)
        count, times = len(points), len(frames)
        if count == 0:  # without moving Gaussians there may be no patterns
            depth = 0
        moved = points.expand(times, count, 3)
        identity = torch.eye(3, dtype=points.dtype, device=points.device)
        rotation = identity.expand(times, count, 3, 3)
        tables = self._tables(depth, frames)
        for level in reversed(range(depth)):
            step, centre, translation = self._blended(level, weights[level], tables[level], frames)
            # x + (R - I)(x - c) + t rather than R (x - c) + c + t: exact at the identity.
            rotated = ((step - identity) @ (moved - centre).unsqueeze(-1)).squeeze(-1)
            moved = moved + rotated + translation
            rotation = step if level == depth - 1 else step @ rotation
        return rotation, moved

    def pose(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        weights: Sequence[BlendWeights],
        frames: Float[Tensor, " times"] | KeyTimes,
        levels: int | None = None,
    ) -> Pose:
        """Move canonical Gaussians to the given frames: `forward`, and orientations.

        Constant weights in float32 on the CPU use a compiled kernel.
        """
        depth = self.num_levels if levels is None else min(levels, self.num_levels)
        frames = frames if isinstance(frames, KeyTimes) else self.times(frames)
        compiled = points.dtype == torch.float32 and not points.is_cuda
        if depth and len(points) and compiled and not any(w.varies for w in weights[:depth]):
            from msdyn.motion.numba_field import pose_cpu

            return Pose(
                *pose_cpu(
                    points,
                    quats_wxyz,
                    [w.index for w in weights[:depth]],
                    [w.logits for w in weights[:depth]],
                    self._tables(depth, frames),
                    [self.centres(level) for level in range(depth)],
                )
            )
        rotations, moved = self(points, weights, frames, levels)
        quats = quats_wxyz.expand(len(frames), -1, -1)
        if depth and len(points):
            quats = multiply_quats_wxyz(quats_wxyz_from_rotations(rotations), quats)
        return Pose(rotations, moved, quats)

    def undo(
        self, points: Float[Tensor, "gaussians 3"], weights: Sequence[BlendWeights], frame: float
    ) -> Float[Tensor, "gaussians 3"]:
        """Map positions at one frame back to canonical positions, the inverse of `forward`."""
        if not len(points):
            return points
        times = self.times(torch.full((1,), frame, dtype=points.dtype, device=points.device))
        tables = self._tables(self.num_levels, times)
        for level in range(self.num_levels):
            rotation, centre, translation = self._blended(
                level, weights[level], tables[level], times
            )
            pivot = centre.reshape(-1, *points.shape)[0]
            centred = (points - pivot - translation[0]).unsqueeze(-1)
            points = (rotation[0].mT @ centred).squeeze(-1) + pivot
        return points

    def acceleration(self) -> Float[Tensor, ""]:
        """Return the mean absolute second difference of the patterns between key frames."""
        terms = []
        for sixd, translation in zip(self.sixd, self.translations, strict=True):
            if sixd.shape[0] and sixd.shape[1] > 2:
                for value in (sixd, translation):
                    second = value[:, 2:] - 2 * value[:, 1:-1] + value[:, :-2]
                    terms.append(second.abs().mean())
        return torch.stack(terms).sum() if terms else self.key_frames.new_zeros(())

    def residual_size(self) -> Float[Tensor, ""]:
        """Return the distance (RMS) of the patterns of levels 2 and 3 from the identity."""
        terms = []
        for sixd, translation in list(zip(self.sixd, self.translations, strict=True))[1:]:
            if sixd.shape[0]:
                identity = _identity_sixd(sixd)
                terms.append(((sixd - identity).square().mean() + 1e-12).sqrt())
                terms.append((translation.square().mean() + 1e-12).sqrt())
        return torch.stack(terms).sum() if terms else self.key_frames.new_zeros(())

    def _blended(
        self,
        level: int,
        weights: BlendWeights,
        table: Float[Tensor, "patterns times 9"],
        times: KeyTimes,
    ) -> tuple[
        Float[Tensor, "times gaussians 3 3"],
        Float[Tensor, "*times gaussians 3"],
        Float[Tensor, "times gaussians 3"],
    ]:
        """Return the blended rotations, pivots (without times if constant) and translations."""
        count = table.shape[1]
        if weights.varies:
            values = times.interpolate(weights.logits.transpose(1, 2)).softmax(-1)  # [G, B, k]
            table = torch.cat([table, self.centres(level)[:, None].expand(-1, count, -1)], dim=-1)
            mixed = torch.einsum("gbk,gkbc->bgc", values, table[weights.index])
            sixd = mixed[..., :6] + _identity_sixd(mixed)
            return rotations_from_sixd(sixd), mixed[..., 9:], mixed[..., 6:9]
        table = torch.cat([table.flatten(1), self.centres(level)], dim=-1)  # [K, 9 B + 3]
        mixed = nn.functional.embedding_bag(
            weights.index, table, per_sample_weights=weights.values, mode="sum"
        )
        blended, centre = mixed.split([9 * count, 3], dim=-1)
        sixd, translation = blended.unflatten(-1, (count, 9)).transpose(0, 1).split([6, 3], dim=-1)
        return rotations_from_sixd(sixd + _identity_sixd(sixd)), centre, translation

    def _tables(self, depth: int, times: KeyTimes) -> list[Float[Tensor, "_ times 9"]]:
        """Return 6D rotations minus the identity's, and translations, of each level.

        Rotations are blended as differences from the identity: a sum of weights that is not exactly
        one then has no effect at the identity. All levels are computed at once.
        """
        if not depth:
            return []
        patterns = self._at(range(depth), times)
        delta = sixd_from_rotations(patterns.rotation)
        table = torch.cat([delta - _identity_sixd(delta), patterns.translation], dim=-1)
        return list(table.split([self.num_patterns(level) for level in range(depth)]))


def _identity_sixd(values: Float[Tensor, "*_"]) -> Float[Tensor, " 6"]:
    """Return the 6D form of the identity, made on the device of some values."""
    return torch.eye(3, dtype=values.dtype, device=values.device)[:2].flatten()
