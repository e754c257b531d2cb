"""Rigid registration of two overlapping coloured surfaces (ICP)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
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

# Kernel width of the colour distance, for RGB in [0, 1].
_COLOUR = 0.15
# Maximum number of samples used per surface.
_SAMPLES = 3000
_ITERATIONS = 40


@dataclass(frozen=True)
class SurfaceSamples:
    """Points of observed surfaces.

    Attributes:
        xyz: [N, 3] scene units.
        rgb: [N, 3] in [0, 1].
        normals: [N, 3] unit length, pointing out of the surface.
    """

    xyz: Float[np.ndarray, "samples 3"]
    rgb: Float[np.ndarray, "samples 3"]
    normals: Float[np.ndarray, "samples 3"]

    def __len__(self) -> int:
        return len(self.xyz)

    def select(
        self, index: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " samples"]
    ) -> SurfaceSamples:
        """Return the samples at an index array or boolean mask."""
        return SurfaceSamples(self.xyz[index], self.rgb[index], self.normals[index])

    def moved(self, motion: Rigid[np.ndarray]) -> SurfaceSamples:
        """Return the samples transformed by one rigid motion, or by a batch of one per sample."""
        rotated = np.einsum("...ij,...j->...i", motion.rotation, self.xyz)
        normals = np.einsum("...ij,...j->...i", motion.rotation, self.normals)
        return SurfaceSamples(rotated + motion.translation, self.rgb, normals)

    @classmethod
    def concatenate(cls, parts: list[SurfaceSamples]) -> SurfaceSamples:
        """Return the samples of all parts; there must be at least one part."""
        return cls(
            np.concatenate([p.xyz for p in parts]),
            np.concatenate([p.rgb for p in parts]),
            np.concatenate([p.normals for p in parts]),
        )


@dataclass(frozen=True)
class Registration:
    """The result of `register_surfaces`.

    Attributes:
        rigid: `target_from_source`.
        agreement: of the registered source with the target; see `surface_agreement`.
        agreement_before: the same before registration.
    """

    rigid: Rigid[np.ndarray]
    agreement: float
    agreement_before: float


def register_surfaces(
    source: SurfaceSamples, target: SurfaceSamples, *, reach: float, resolution: float
) -> Registration:
    """Register a surface to another one that overlaps it.

    Each sample is matched to the nearest one in position and colour, and matches are weighted by a
    Gaussian kernel whose width is annealed from `reach` to `resolution`. The overlap may be partial
    and samples may be outliers.

    Args:
        source, target: at least three samples each.
        reach: maximum initial distance between the surfaces, scene units.
        resolution: distance between samples of one surface, scene units; positive.

    Reference: iterative closest points (Besl and McKay 1992), in position and colour jointly.
    """
    source, target = _subsampled(source), _subsampled(target)
    rigid = Rigid.identity()
    before = surface_agreement(source, target, resolution)
    for width in np.geomspace(max(reach, resolution), resolution, _ITERATIONS):
        moved = source.moved(rigid)
        matched, weight = _match(moved, target, width)
        rigid = procrustes(moved.xyz, target.xyz[matched], weight).rigid @ rigid
    after = surface_agreement(source.moved(rigid), target, resolution)
    return Registration(rigid, after, before)


def surface_agreement(source: SurfaceSamples, target: SurfaceSamples, resolution: float) -> float:
    """Return the mean match weight, in [0, 1], of the source samples.

    The weight is near 1 for a sample with a target sample within `resolution` (scene units), of
    similar colour and with a normal in the same half-space.
    """
    return float(_match(_subsampled(source), _subsampled(target), resolution)[1].mean())


def sample_normals(
    xyz: Float[np.ndarray, "points 3"], viewpoint: Float[np.ndarray, " 3"], neighbours: int = 12
) -> Float[np.ndarray, "points 3"]:
    """Return unit normals of surface points by local PCA, oriented towards the viewpoint."""
    if len(xyz) < 3:
        towards = viewpoint - xyz
        return towards / np.linalg.norm(towards, axis=1, keepdims=True).clip(1e-12)
    near = KDTree(xyz).query(xyz, k=min(neighbours, len(xyz)))[1]
    spread = xyz[near] - xyz[near].mean(1, keepdims=True)
    normals = np.linalg.eigh(np.einsum("nki,nkj->nij", spread, spread))[1][..., 0]
    flipped = np.einsum("nj,nj->n", normals, viewpoint - xyz) < 0
    return np.where(flipped[:, None], -normals, normals)


def _subsampled(samples: SurfaceSamples) -> SurfaceSamples:
    stride = -(-len(samples) // _SAMPLES)
    return samples.select(np.arange(0, len(samples), stride))


def _match(
    source: SurfaceSamples, target: SurfaceSamples, width: float
) -> tuple[Int[np.ndarray, " samples"], Float[np.ndarray, " samples"]]:
    """Return the nearest target sample of each source sample, and the weight of the match."""
    tree = KDTree(np.c_[target.xyz / width, target.rgb / _COLOUR])
    distance, matched = tree.query(np.c_[source.xyz / width, source.rgb / _COLOUR])
    same_side = np.einsum("nj,nj->n", source.normals, target.normals[matched]) > 0
    return np.asarray(matched), np.exp(-0.5 * distance**2) * same_side
