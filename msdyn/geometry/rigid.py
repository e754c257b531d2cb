"""Rigid transforms and similarities, as numpy arrays or torch tensors.

A transform is named `dst_from_src` and maps column vectors: `x_dst = R x_src + t`, and with a
scale, `x_dst = s R x_src + t`. Inner names meet in a product: `a_from_c = a_from_b @ b_from_c`.
Leading dimensions are a batch and broadcast; dtype and device are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from msdyn.geometry.rotations import interpolate_rotations

__all__ = ["Array", "Rigid", "Similarity"]

Array = TypeVar("Array", np.ndarray, Tensor)
Index = int | np.integer | slice | tuple | Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]


@dataclass(frozen=True)
class Rigid(Generic[Array]):
    """Rigid transforms, `Rigid[np.ndarray]` or `Rigid[Tensor]`.

    Attributes:
        rotation: [..., 3, 3], orthonormal, determinant +1 (not checked).
        translation: [..., 3] scene units.
    """

    rotation: Float[Array, "*batch 3 3"]
    translation: Float[Array, "*batch 3"]

    @staticmethod
    def identity(*batch: int) -> Rigid[np.ndarray]:
        """Return identities of a batch shape, as float64 arrays."""
        rotation = np.tile(np.eye(3), (*batch, 1, 1)) if batch else np.eye(3)
        return Rigid(rotation, np.zeros((*batch, 3)))

    @staticmethod
    def from_matrix(dst_from_src: Float[Array, "*batch rows 4"]) -> Rigid[Array]:
        """Return the transforms of matrices [..., 4, 4] or [..., 3, 4]."""
        return Rigid(dst_from_src[..., :3, :3], dst_from_src[..., :3, 3])

    @property
    def matrix(self) -> Float[Array, "*batch 4 4"]:
        """[..., 4, 4]."""
        shape = (*self.rotation.shape[:-2], 4, 4)
        matrix: Any
        if isinstance(self.rotation, np.ndarray):
            matrix = np.zeros(shape, self.rotation.dtype)
        else:
            matrix = self.rotation.new_zeros(shape)
        matrix[..., :3, :3] = self.rotation
        matrix[..., :3, 3] = self.translation
        matrix[..., 3, 3] = 1
        return matrix

    def __len__(self) -> int:
        return len(self.rotation)

    def __getitem__(self, index: Index) -> Rigid[Array]:
        """Index the batch dimensions."""
        any_index = cast(Any, index)
        return Rigid(self.rotation[any_index], self.translation[any_index])

    def __matmul__(self, first: Rigid[Array]) -> Rigid[Array]:
        """Return the transform that applies `first`, then this one."""
        return Rigid(
            self.rotation @ first.rotation,
            _rotate(self.rotation, first.translation) + self.translation,
        )

    def inverse(self) -> Rigid[Array]:
        """Return `src_from_dst`."""
        transposed = self.rotation.swapaxes(-1, -2)
        return Rigid(transposed, -_rotate(transposed, self.translation))

    def apply(self, points: Float[Array, "*#batch points 3"]) -> Float[Array, "*#batch points 3"]:
        """Map points [..., P, 3]; the P points of a batch entry share its transform."""
        return points @ self.rotation.swapaxes(-1, -2) + self.translation[..., None, :]

    def interpolated(self, end: Rigid[Array], fraction: Float[Array, "*batch"]) -> Rigid[Array]:
        """Interpolate between these transforms (fraction 0) and `end` (1).

        Rotations follow the shorter geodesic, translations are interpolated linearly.

        Args:
            end: of the same batch shape and type.
            fraction: [...].
        """
        start, weight = self.tensors(), torch.as_tensor(fraction)
        between = Rigid(
            interpolate_rotations(start.rotation, end.tensors().rotation, weight),
            torch.lerp(start.translation, end.tensors().translation, weight.unsqueeze(-1)),
        )
        result = between.arrays() if isinstance(self.rotation, np.ndarray) else between
        return cast(Rigid[Array], result)

    def tensors(self) -> Rigid[Tensor]:
        """Return the transforms as torch tensors that share memory with the arrays."""
        return Rigid(torch.as_tensor(self.rotation), torch.as_tensor(self.translation))

    def arrays(self) -> Rigid[np.ndarray]:
        """Return the transforms as numpy arrays that share memory with tensors on the CPU."""
        tensors = self.tensors()
        return Rigid(*(v.detach().cpu().numpy() for v in (tensors.rotation, tensors.translation)))


@dataclass(frozen=True)
class Similarity:
    """A similarity `x_dst = scale * R x_src + t` between two world frames, in float64.

    Attributes:
        scale: positive.
        rigid: the rotation, and the translation in units of the destination.
    """

    scale: float
    rigid: Rigid[np.ndarray]

    @classmethod
    def identity(cls) -> Similarity:
        return cls(1.0, Rigid.identity())

    @classmethod
    def of(
        cls,
        scale: float = 1.0,
        translation: Sequence[float] | Float[np.ndarray, " 3"] = (0.0, 0.0, 0.0),
    ) -> Similarity:
        """Return a similarity without rotation."""
        return cls(scale, Rigid(np.eye(3), np.asarray(translation, np.float64)))

    @property
    def rotation(self) -> Float[np.ndarray, "3 3"]:
        """[3, 3]."""
        return self.rigid.rotation

    @property
    def translation(self) -> Float[np.ndarray, " 3"]:
        """[3], in units of the destination."""
        return self.rigid.translation

    def __matmul__(self, first: Similarity) -> Similarity:
        """Return the similarity that applies `first`, then this one."""
        scaled = replace(first.rigid, translation=self.scale * first.translation)
        return Similarity(self.scale * first.scale, self.rigid @ scaled)

    def inverse(self) -> Similarity:
        """Return `src_from_dst`."""
        inverse = self.rigid.inverse()
        return Similarity(
            1 / self.scale, replace(inverse, translation=inverse.translation / self.scale)
        )

    def apply(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Map points [..., 3]."""
        return self.scale * points @ self.rotation.T + self.translation

    def conjugate(self, motion: Rigid[np.ndarray]) -> Rigid[np.ndarray]:
        """Return a motion given in the source world in coordinates of the destination.

        It maps `apply(x)` to `apply(motion.apply(x))`.

        Args:
            motion: of any batch shape.
        """
        rotation = self.rotation @ motion.rotation @ self.rotation.T
        moved = self.scale * motion.translation @ self.rotation.T + self.translation
        return Rigid(rotation, moved - _rotate(rotation, self.translation))


def _rotate(
    rotation: Float[Array, "*#batch 3 3"], vectors: Float[Array, "*#batch 3"]
) -> Float[Array, "*#batch 3"]:
    return (rotation @ vectors[..., None])[..., 0]
