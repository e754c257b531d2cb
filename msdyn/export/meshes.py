"""Closed meshes of rigid bodies of a sequence, from rendered depth of each body alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from torch import Tensor

from msdyn.errors import MissingExtraError
from msdyn.geometry import (
    Cameras,
    MeshMethod,
    Rigid,
    TriangleMesh,
    cleaned_points,
    closing_samples,
    import_open3d,
    project,
    solid_mesh,
    transform_points,
    world_points_from_depth,
)
from msdyn.indices import evenly_spaced
from msdyn.render import draw
from msdyn.sequence import GaussianSequence, PosedGaussians

__all__ = ["BodyMesh", "body_mesh"]

_VIEWS = 16
"""Number of frames whose depth is used."""
_OPAQUE = 0.1
"""Least opacity of a Gaussian of the surface."""
_COVERED = 0.7
"""Least accumulated opacity of a pixel of the surface."""
_SILHOUETTE = 0.1
"""Least accumulated opacity within the silhouette; what is outside of it is empty space."""
_REACH = 4.0
"""Points nearer than this, in distances between points, are connected."""
_NEIGHBOURS = 12
"""Neighbours by whose distance a Gaussian is an outlier."""
_SPECK = 0.1
"""Least number of points of a voxel, relative to the median."""
_STEEP = 0.25
"""Least cosine between normal and line of sight."""


@dataclass(frozen=True)
class BodyMesh:
    """The closed mesh of a body in the canonical frame, in the world of the sequence.

    Attributes:
        mesh: closed.
        method: "poisson", "voxels" or "hull".
        observed: share of its surface, by area, that a camera saw; the rest closes the mesh.
        colour: [3] mean RGB of the body.
    """

    mesh: TriangleMesh
    method: MeshMethod
    observed: float
    colour: Float[np.ndarray, " 3"]


@dataclass(frozen=True)
class _Views:
    """Depth of one body alone, in the canonical frame, per view.

    Attributes:
        cameras: one per view, as the moving body has them: `cam_from_canonical`.
        depths: z-depth, scene units.
        covered: pixels of the silhouette.
        trusted: pixels of the surface, seen from outside.
        points, normals: of the trusted pixels, in their order.
    """

    cameras: Cameras
    depths: Float[np.ndarray, "views height width"]
    covered: Bool[np.ndarray, "views height width"]
    trusted: Bool[np.ndarray, "views height width"]
    points: Float[np.ndarray, "points 3"]
    normals: Float[np.ndarray, "points 3"]

    def from_outside(self, voxel: float) -> _Views:
        """Return the views without pixels that see the surface from its inner side, and specks.

        Where a side has few Gaussians, or none, a camera sees the opposite one through it. Most
        points of a voxel are taken to be seen from outside. Specks are in voxels with few points.
        """
        cells = np.floor(self.points / voxel).astype(np.int64)
        _, cell, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        cell = cell.ravel()
        sums = np.zeros((len(counts), 3))
        np.add.at(sums, cell, self.normals)
        kept = np.einsum("nd,nd->n", sums[cell], self.normals) > 0
        kept &= counts[cell] >= _SPECK * np.median(counts[cell])
        trusted = self.trusted.copy()
        trusted[trusted] = kept
        return replace(self, trusted=trusted, points=self.points[kept], normals=self.normals[kept])

    def hidden(
        self, points: Float[np.ndarray, "points 3"], slack: float
    ) -> Bool[np.ndarray, " points"]:
        """Return whether canonical points lie behind the body's surface in all views.

        Points before the surface by more than `slack`, or beside it, are empty space.
        """
        hidden = np.ones(len(points), bool)
        height, width = self.depths.shape[1:]
        for view in range(len(self.depths)):
            seen = transform_points(self.cameras.cam_from_world[view], points)
            with np.errstate(divide="ignore", invalid="ignore"):
                pixel = np.floor(project(self.cameras.intrinsics[view], seen))
            inside = (seen[:, 2] > 0) & np.all((pixel >= 0) & (pixel < [width, height]), axis=1)
            x, y = np.where(inside[:, None], pixel, 0).astype(int).T
            before = self.trusted[view, y, x] & (seen[:, 2] < self.depths[view, y, x] - slack)
            free = ~self.covered[view, y, x] | before
            hidden &= ~(inside & free)
        return hidden


@torch.no_grad()
def body_mesh(
    sequence: GaussianSequence,
    index: Int[np.ndarray, " own"],
    frames: Float[np.ndarray, " times"],
    motion: Rigid[np.ndarray],
    *,
    faces: int = 4000,
) -> BodyMesh:
    """Return a closed mesh of a rigid body.

    The surface is the depth of the body's canonical Gaussians alone, rendered in the clip's cameras
    as the moving body has them. The side that no camera saw is closed by the convex hull of what
    was seen, less the space that was seen to be empty.

    Args:
        sequence: the fit.
        index: of the body's moving Gaussians.
        frames: fractional frame indices.
        motion: [T] of the body, relative to the canonical frame.
        faces: number of triangles to which the mesh is simplified.

    Raises:
        MissingExtraError: neither open3d nor trimesh with scikit-image is installed.
    """
    opaque = sequence.moving.opacities[torch.from_numpy(index)].cpu().numpy() > _OPAQUE
    index = index[opaque] if opaque.sum() >= 4 else index
    index = index[_crowded(sequence.moving.means[torch.from_numpy(index)].double().cpu().numpy())]
    chosen = evenly_spaced(len(frames), _VIEWS)
    times = frames[chosen]
    views = _observed(sequence, index, times, motion[chosen])
    centres = sequence.moving.means[torch.from_numpy(index)].double().cpu().numpy()
    colour = sequence.canonical().colours(torch.zeros(1, 3, device=sequence.device))
    colour = colour.reshape(-1, colour.shape[-2], 3)[0, len(sequence.static) :][index]
    mean_colour = colour.mean(0).clamp(0, 1).cpu().double().numpy()
    footprint = np.median(views.depths[views.covered]) if views.covered.any() else 0.0
    footprint /= float(sequence.cameras.intrinsics[:, 0, 0].mean())
    if len(views.points) < 50:
        scales = sequence.moving.scales[torch.from_numpy(index)].detach().cpu().numpy()
        spacing = max(float(np.ptp(centres, axis=0).max(initial=0)) / 50,
                      2 * float(np.median(scales.max(1))))  # fmt: skip
        mesh, method = solid_mesh(centres, np.zeros_like(centres), spacing, method="hull")
        return BodyMesh(mesh, method, 0.0, mean_colour)
    size = float(np.ptp(views.points, axis=0).max())
    spacing = max(float(footprint), size / 100)
    views = views.from_outside(2 * spacing)
    points, normals = views.points, views.normals
    method = "poisson"
    try:
        import_open3d("sim")
        points, normals, _ = cleaned_points(points, normals, spacing)
    except MissingExtraError:
        method = "voxels"
        points, normals = _thinned(points, normals, spacing)
    joined = _connected(points, _REACH * spacing)
    points, normals = points[joined], normals[joined]
    closing, outward = closing_samples(
        points, spacing, lambda samples: views.hidden(samples, 2 * spacing)
    )
    mesh, method = solid_mesh(
        np.concatenate([points, closing]),
        np.concatenate([normals, outward]),
        spacing,
        faces=faces,
        method=method,
    )
    return BodyMesh(mesh, method, _observed_share(mesh, points, spacing), mean_colour)


def _observed(
    sequence: GaussianSequence,
    index: Int[np.ndarray, " own"],
    frames: Float[np.ndarray, " times"],
    motion: Rigid[np.ndarray],
) -> _Views:
    """Return the views of a body."""
    clip = sequence.cameras.interpolated(frames)
    cameras = Cameras(clip.intrinsics, clip.cam_from_world @ motion.matrix, clip.width, clip.height)
    own = torch.from_numpy(index).to(sequence.device) + len(sequence.static)
    body = _some(sequence.canonical(), own, sequence.moving.opacities)
    depths, covered, trusted, points, normals = [], [], [], [], []
    for camera in cameras:
        image = draw(body, camera.tensors(sequence.device))
        assert image.depth is not None
        alpha = image.alpha[0].cpu().double().numpy()
        depth = image.depth[0].cpu().double().numpy() / alpha.clip(1e-3)
        here, facing, kept = _oriented(depth, alpha > _COVERED, camera)
        points.append(here)
        normals.append(facing)
        depths.append(depth)
        covered.append(alpha > _SILHOUETTE)
        trusted.append(kept)
    return _Views(
        cameras, np.stack(depths), np.stack(covered), np.stack(trusted),
        np.concatenate(points), np.concatenate(normals),
    )  # fmt: skip


def _oriented(
    depth: Float[np.ndarray, "height width"],
    covered: Bool[np.ndarray, "height width"],
    camera: Cameras,
) -> tuple[
    Float[np.ndarray, "points 3"],
    Float[np.ndarray, "points 3"],
    Bool[np.ndarray, "height width"],
]:
    """Return points and normals, towards the camera, and the pixels that have them.

    Normals are from differences over two pixels. Pixels at the edge of the area, at steps of the
    depth and of surfaces seen at a grazing angle are left out.
    """
    points = world_points_from_depth(depth.astype(np.float32), camera).astype(np.float64)
    inner = np.zeros_like(covered)
    inner[1:-1, 1:-1] = (
        covered[1:-1, 1:-1] & covered[:-2, 1:-1] & covered[2:, 1:-1]
        & covered[1:-1, :-2] & covered[1:-1, 2:]
    )  # fmt: skip
    right, down = np.zeros_like(points), np.zeros_like(points)
    right[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    normal = np.cross(down, right)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True).clip(1e-12)
    sight = camera.centres[0] - points
    sight /= np.linalg.norm(sight, axis=-1, keepdims=True).clip(1e-12)
    cosine = np.einsum("hwd,hwd->hw", normal, sight)
    normal = np.where(cosine[..., None] < 0, -normal, normal)
    kept = inner & (np.abs(cosine) > _STEEP)
    return points[kept], normal[kept], kept


def _some(
    posed: PosedGaussians, own: Int[Tensor, " own"], opacities: Float[Tensor, " moving"]
) -> PosedGaussians:
    """Return some moving Gaussians, without view-dependent colours and life spans."""
    return PosedGaussians(
        posed.means[:, own],
        posed.quats_wxyz[:, own],
        posed.scales[own],
        opacities[None, own - posed.num_static],
        posed.harmonics[own, :1],
        posed.rotations[:, own - posed.num_static],
        posed.labels[own],
    )


def _crowded(points: Float[np.ndarray, "points 3"]) -> Bool[np.ndarray, " points"]:
    """Return which points are at most three times as far from their neighbours as is usual."""
    if len(points) < 50:
        return np.ones(len(points), bool)
    distance = KDTree(points).query(points, k=_NEIGHBOURS + 1)[0][:, 1:].mean(1)
    return distance <= 3 * np.median(distance)


def _connected(points: Float[np.ndarray, "points 3"], reach: float) -> Bool[np.ndarray, " points"]:
    """Return which points are in the largest connected piece, or one of a fifth of its size."""
    pairs = KDTree(points).query_pairs(reach, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(points),) * 2)
    piece = connected_components(links, directed=False)[1]
    sizes = np.bincount(piece)
    return sizes[piece] >= 0.2 * sizes.max()


def _thinned(
    points: Float[np.ndarray, "points 3"], normals: Float[np.ndarray, "points 3"], voxel: float
) -> tuple[Float[np.ndarray, "kept 3"], Float[np.ndarray, "kept 3"]]:
    """Keep one point per voxel."""
    _, first = np.unique(np.floor(points / voxel).astype(np.int64), axis=0, return_index=True)
    return points[first], normals[first]


def _observed_share(
    mesh: TriangleMesh, points: Float[np.ndarray, "points 3"], spacing: float
) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    near = KDTree(points).query((a + b + c) / 3)[0] < 3 * spacing
    return float((area * near).sum() / area.sum())
