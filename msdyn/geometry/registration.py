"""Rigid registration of two coloured surfaces that see the same thing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from msdyn.geometry.procrustes import procrustes
from msdyn.geometry.rigid import Rigid

__all__ = [
    "Registration",
    "SurfaceSamples",
    "register_surfaces",
    "sample_normals",
    "surface_agreement",
]

# Difference of colour, of 1, at which two samples still count as the same place.
_COLOUR = 0.15
# Samples of a surface that are used.
_SAMPLES = 3000
_STEPS = 40


@dataclass(frozen=True)
class SurfaceSamples:
    """Points of a surface as cameras saw it.

    Attributes:
        xyz: [N, 3] scene units.
        rgb: [N, 3] in [0, 1].
        normals: [N, 3] of length one, out of the surface.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    normals: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)

    def select(self, index: np.ndarray) -> SurfaceSamples:
        """Return the samples at an index array or boolean mask."""
        return SurfaceSamples(self.xyz[index], self.rgb[index], self.normals[index])

    def moved(self, motion: Rigid[np.ndarray]) -> SurfaceSamples:
        """Return the samples under a rigid motion, or one for each sample: a batch of N."""
        turned = np.einsum("...ij,...j->...i", motion.rotation, self.xyz)
        normals = np.einsum("...ij,...j->...i", motion.rotation, self.normals)
        return SurfaceSamples(turned + motion.translation, self.rgb, normals)

    @classmethod
    def concatenate(cls, parts: list[SurfaceSamples]) -> SurfaceSamples:
        """Return the samples of all, of at least one."""
        return cls(
            np.concatenate([p.xyz for p in parts]),
            np.concatenate([p.rgb for p in parts]),
            np.concatenate([p.normals for p in parts]),
        )


@dataclass(frozen=True)
class Registration:
    """What lays one surface upon another.

    Attributes:
        rigid: `target_from_source`.
        agreement: of the source, once moved, with the target; see `surface_agreement`.
        before: the same without moving.
    """

    rigid: Rigid[np.ndarray]
    agreement: float
    before: float


def register_surfaces(
    source: SurfaceSamples, target: SurfaceSamples, *, reach: float, resolution: float
) -> Registration:
    """Find the rigid motion that lays a surface upon another which shows part of the same thing.

    Each sample is paired with the one nearest in place and colour, pairs count by how near they
    are, and how near is near shrinks from step to step: from `reach` to `resolution`. The surfaces
    need not overlap in full, nor be free of wrong samples.

    Args:
        source, target: at least three samples each.
        reach: how far apart (scene units) the surfaces may lie.
        resolution: distance at which two samples are at the same place; positive.

    Reference: iterated closest points (Besl and McKay 1992), in space and colour jointly.
    """
    source, target = _thinned(source), _thinned(target)
    rigid = Rigid.identity()
    before = surface_agreement(source, target, resolution)
    for near in np.geomspace(max(reach, resolution), resolution, _STEPS):
        moved = source.moved(rigid)
        partner, weight = _pairs(moved, target, near)
        rigid = procrustes(moved.xyz, target.xyz[partner], weight).rigid @ rigid
    after = surface_agreement(source.moved(rigid), target, resolution)
    return Registration(rigid, after, before)


def surface_agreement(source: SurfaceSamples, target: SurfaceSamples, resolution: float) -> float:
    """Return the share, in soft counts, of a surface's samples that another has too.

    That is at the same place within `resolution` (scene units), of the same colour, on the same
    side.
    """
    return float(_pairs(_thinned(source), _thinned(target), resolution)[1].mean())


def sample_normals(xyz: np.ndarray, viewpoint: np.ndarray, neighbours: int = 12) -> np.ndarray:
    """Return normals [N, 3] of points [N, 3] of a surface, on the side of who sees it."""
    if len(xyz) < 3:
        towards = viewpoint - xyz
        return towards / np.linalg.norm(towards, axis=1, keepdims=True).clip(1e-12)
    near = KDTree(xyz).query(xyz, k=min(neighbours, len(xyz)))[1]
    spread = xyz[near] - xyz[near].mean(1, keepdims=True)
    normals = np.linalg.eigh(np.einsum("nki,nkj->nij", spread, spread))[1][..., 0]
    away = np.einsum("nj,nj->n", normals, viewpoint - xyz) < 0
    return np.where(away[:, None], -normals, normals)


def _thinned(samples: SurfaceSamples) -> SurfaceSamples:
    every = -(-len(samples) // _SAMPLES)
    return samples.select(np.arange(0, len(samples), every))


def _pairs(
    source: SurfaceSamples, target: SurfaceSamples, near: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the partner of each source sample, and how well the two go together, in [0, 1]."""
    tree = KDTree(np.c_[target.xyz / near, target.rgb / _COLOUR])
    distance, partner = tree.query(np.c_[source.xyz / near, source.rgb / _COLOUR])
    same_side = np.einsum("nj,nj->n", source.normals, target.normals[partner]) > 0
    return np.asarray(partner), np.exp(-0.5 * distance**2) * same_side
