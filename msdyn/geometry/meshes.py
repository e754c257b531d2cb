"""Closed triangle meshes of sampled surfaces, and their division into convex parts.

Nothing here knows Gaussians: the input is points with normals. open3d, trimesh and coacd are
imported where they are used; the extra `sim` installs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import ConvexHull, KDTree, QhullError

from msdyn.errors import MissingExtraError

__all__ = [
    "MeshMethod",
    "TriangleMesh",
    "cleaned_points",
    "closing_samples",
    "convex_parts",
    "hull_mesh",
    "import_open3d",
    "solid_mesh",
]

MeshMethod = Literal["poisson", "voxels", "hull"]

_PART_VERTICES = 64
"""Most vertices of a convex part; MuJoCo and PhysX advise against more."""
_CELLS = 40
"""Cells of the voxel hull along the longest side."""
_BLUR, _LEVEL = 0.7, 0.7
"""Standard deviation, in voxels, by which the filled voxels are smoothed, and the level of the
surface: half a voxel within the outermost ones, where their points are on average."""
_DEPTHS = (5, 8)
"""Least and greatest depth of Poisson's octree."""


@dataclass(frozen=True)
class TriangleMesh:
    """A triangle mesh.

    Attributes:
        vertices: [V, 3] scene units.
        faces: [F, 3] vertex indices, counter-clockwise seen from outside.
    """

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]

    @property
    def volume(self) -> float:
        """The enclosed volume, scene units cubed; meaningful for a closed mesh."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)

    @property
    def closed(self) -> bool:
        """Whether every edge has two faces, of consistent orientation."""
        edges = self.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
        keys, counts = np.unique(edges, axis=0, return_counts=True)
        backward = np.unique(edges[:, ::-1], axis=0)
        return bool(len(edges)) and counts.max() == 1 and np.array_equal(keys, backward)


def import_open3d(extra: str = "open3d") -> Any:
    """Return the package open3d.

    Raises:
        MissingExtraError: it is not installed, or its system library is missing; one line.
    """
    try:
        return import_module("open3d")
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        if "libusb" in reason:
            raise MissingExtraError(
                "open3d does not load without the system library libusb-1.0: "
                "apt-get install libusb-1.0-0 (Debian, Ubuntu)"
            ) from error
        if isinstance(error, ModuleNotFoundError):
            raise MissingExtraError(
                f'open3d is not installed: pip install "msdyn[{extra}]"'
            ) from error
        raise MissingExtraError(f"open3d does not load: {reason[:200]}") from error


def cleaned_points(
    points: Float[np.ndarray, "points 3"],
    normals: Float[np.ndarray, "points 3"],
    voxel: float,
    colours: Float[np.ndarray, "points 3"] | None = None,
) -> tuple[
    Float[np.ndarray, "kept 3"], Float[np.ndarray, "kept 3"], Float[np.ndarray, "kept 3"] | None
]:
    """Merge points in voxels and remove statistical outliers, by open3d.

    A point is an outlier if the mean distance to its 20 neighbours is more than two standard
    deviations above the mean of all points.

    Args:
        points: scene units.
        normals: unit.
        voxel: side of a voxel, scene units; 0 merges nothing.
        colours: RGB in [0, 1], averaged like the normals.

    Raises:
        MissingExtraError: open3d is missing.
    """
    open3d = import_open3d()
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(np.asarray(points, float)))
    cloud.normals = open3d.utility.Vector3dVector(np.asarray(normals, float))
    if colours is not None:
        cloud.colors = open3d.utility.Vector3dVector(np.asarray(colours, float))
    if voxel > 0:
        cloud = cloud.voxel_down_sample(voxel)
    if len(cloud.points) > 20:
        cloud, _ = cloud.remove_statistical_outlier(20, 2.0)
    cloud.normalize_normals()
    kept = None if colours is None else np.asarray(cloud.colors)
    return np.asarray(cloud.points), np.asarray(cloud.normals), kept


def closing_samples(
    points: Float[np.ndarray, "points 3"],
    spacing: float,
    hidden: Callable[[Float[np.ndarray, "others 3"]], Bool[np.ndarray, " others"]],
) -> tuple[Float[np.ndarray, "closing 3"], Float[np.ndarray, "closing 3"]]:
    """Return points and outward normals on the convex hull where no surface was observed.

    They close the side that no camera saw: a surface reconstructed through them and the observed
    points ends at the convex hull there. Parts of the hull that span observed empty space, such as
    the opening of a cup, are left out.

    Args:
        points: observed surface points, scene units.
        spacing: distance between the samples, scene units; none lies nearer than twice this to an
            observed point.
        hidden: whether points may be within the object, because no camera saw them to be empty.
    """
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):
        return np.zeros((0, 3)), np.zeros((0, 3))
    corners = points[hull.simplices]  # [F, 3, 3]
    sides = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(sides, axis=1) / 2
    count = int(np.clip(area.sum() / spacing**2, 100, 40_000))
    rng = np.random.default_rng(0)
    face = rng.choice(len(area), count, p=area / area.sum())
    u, v = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - u, u * (1 - v), u * v], axis=1)
    samples = np.einsum("nk,nkd->nd", weights, corners[face])
    normals = hull.equations[face, :3]
    far = KDTree(points).query(samples)[0] > 2 * spacing
    samples, normals = samples[far], normals[far]
    kept = hidden(samples)
    return samples[kept], normals[kept]


def solid_mesh(
    points: Float[np.ndarray, "points 3"],
    normals: Float[np.ndarray, "points 3"],
    spacing: float,
    *,
    faces: int = 4000,
    method: MeshMethod = "poisson",
) -> tuple[TriangleMesh, MeshMethod]:
    """Return a closed mesh of oriented points that lie all around a solid.

    Poisson reconstruction of the points, its vertices drawn back to the points' convex hull where
    it bulges out of it; if that does not give a closed mesh, the filled voxels of the points;
    if these do not either, the convex hull.

    Args:
        points: scene units; at least four that do not lie in a plane.
        normals: unit, outward.
        spacing: distance between neighbouring points, scene units.
        faces: number of triangles to which the mesh is simplified.
        method: the first one to try; "poisson" needs open3d, "voxels" trimesh.

    Returns:
        The mesh, and the method that made it.
    """
    if method == "poisson" and len(points) >= 50:
        mesh = _poisson(points, normals, spacing, faces)
        if mesh is not None and _plausible(mesh, points):
            return mesh, "poisson"
    if method != "hull" and len(points) >= 50:
        mesh = _voxels(points, spacing, faces)
        if mesh is not None and _plausible(mesh, points):
            return mesh, "voxels"
    return hull_mesh(points, spacing), "hull"


def hull_mesh(points: Float[np.ndarray, "points 3"], spacing: float) -> TriangleMesh:
    """Return the convex hull; points in a plane or on a line are thickened by `spacing`."""
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):
        corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3), axis=-1).reshape(-1, 3) * spacing
        points = (points[:, None] + corners).reshape(-1, 3)
        hull = ConvexHull(points)
    corners = points[hull.simplices]
    inward = np.einsum(
        "fd,fd->f",
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]),
        hull.equations[:, :3],
    )
    faces = np.where(inward[:, None] < 0, hull.simplices[:, ::-1], hull.simplices)
    used, faces = np.unique(faces, return_inverse=True)
    return TriangleMesh(np.asarray(points[used], float), faces.reshape(-1, 3).astype(np.int64))


def convex_parts(
    mesh: TriangleMesh, *, threshold: float = 0.1, most: int = 8
) -> list[TriangleMesh]:
    """Divide a closed mesh into convex parts, for collisions.

    Args:
        mesh: closed.
        threshold: greatest concavity of a part, relative to the mesh's size.
        most: number of parts.

    Raises:
        MissingExtraError: coacd is not installed.

    Reference: Wei et al., "Approximate Convex Decomposition for 3D Meshes with Collision-Aware
        Concavity and Tree Search", 2022.
    """
    from threadpoolctl import threadpool_limits

    from msdyn.thread_share import thread_budget

    try:
        coacd: Any = import_module("coacd")
    except ImportError as error:
        raise MissingExtraError('coacd is not installed: pip install "msdyn[sim]"') from error
    coacd.set_log_level("error")
    with threadpool_limits(thread_budget(), user_api="openmp"):
        parts = coacd.run_coacd(
            coacd.Mesh(mesh.vertices, mesh.faces),
            threshold=threshold,
            max_convex_hull=most,
            max_ch_vertex=_PART_VERTICES,
            decimate=True,
            resolution=500,
            mcts_iterations=40,
            mcts_nodes=10,
        )
    hulls = [hull_mesh(np.asarray(vertices, float), 1e-6) for vertices, _ in parts]
    return [hull for hull in hulls if hull.volume > 1e-6 * abs(mesh.volume)]


def _poisson(
    points: Float[np.ndarray, "points 3"],
    normals: Float[np.ndarray, "points 3"],
    spacing: float,
    faces: int,
) -> TriangleMesh | None:
    open3d = import_open3d("sim")
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    cloud.normals = open3d.utility.Vector3dVector(normals)
    size = float(np.ptp(points, axis=0).max())
    depth = int(np.clip(np.ceil(np.log2(1.1 * size / spacing)), *_DEPTHS))
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        mesh, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
            cloud, depth=depth, n_threads=1
        )
    mesh.vertices = open3d.utility.Vector3dVector(
        _within_hull(np.asarray(mesh.vertices), points, spacing)
    )
    if len(mesh.triangles) > faces:
        mesh = mesh.simplify_quadric_decimation(faces)
    return _repaired(np.asarray(mesh.vertices), np.asarray(mesh.triangles))


def _within_hull(
    vertices: Float[np.ndarray, "vertices 3"],
    points: Float[np.ndarray, "points 3"],
    margin: float,
) -> Float[np.ndarray, "vertices 3"]:
    """Project vertices that lie outside the convex hull, by more than a margin, onto its planes."""
    try:
        planes = np.unique(ConvexHull(points).equations.round(9), axis=0)
    except (QhullError, ValueError):
        return vertices
    moved = vertices.copy()
    for _ in range(20):
        height = moved @ planes[:, :3].T + planes[:, 3] - margin  # [V, planes]
        worst = height.argmax(1)
        excess = height[np.arange(len(moved)), worst].clip(0)
        if excess.max(initial=0) < 1e-9:
            break
        moved -= excess[:, None] * planes[worst, :3]
    return moved


def _voxels(
    points: Float[np.ndarray, "points 3"], spacing: float, faces: int
) -> TriangleMesh | None:
    """Return the surface of the voxels of points, with all cavities filled."""
    from scipy import ndimage

    try:
        measure: Any = import_module("skimage.measure")
    except ImportError as error:
        raise MissingExtraError(
            'scikit-image is not installed: pip install "msdyn[sim]"'
        ) from error
    low, size = points.min(0), float(np.ptp(points, axis=0).max())
    pitch = max(size / _CELLS, spacing, 1e-12)
    block = np.ones((3, 3, 3))
    for _ in range(6):
        index = np.floor((points - low) / pitch).astype(int) + 3
        grid = np.zeros(index.max(0) + 4, bool)
        grid[tuple(index.T)] = True
        filled = ndimage.binary_fill_holes(ndimage.binary_dilation(grid, block))
        solid = ndimage.binary_erosion(filled, block) | grid
        field = ndimage.gaussian_filter(solid.astype(float), _BLUR)
        if field.max() <= _LEVEL:
            return None
        vertices, triangles, _, _ = measure.marching_cubes(field, _LEVEL)
        if len(triangles) <= faces:
            break
        pitch *= max(1.1, np.sqrt(len(triangles) / faces))
    # Voxel k has its centre at k, and the corner of the grid is three voxels before `low`.
    return _repaired((vertices - 2.5) * pitch + low, triangles.astype(np.int64))


def _repaired(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> TriangleMesh | None:
    """Return the largest connected piece, capped, with outward faces; None if it is not closed."""
    trimesh: Any = import_module("trimesh")
    mesh = trimesh.Trimesh(vertices, faces, process=True)
    mesh.update_faces(mesh.nondegenerate_faces() & mesh.unique_faces())
    pieces = mesh.split(only_watertight=False)
    if len(pieces) == 0:
        return None
    mesh = max(pieces, key=lambda piece: float(piece.area))
    found = _capped(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces).astype(np.int64))
    if not found.closed:
        mesh = trimesh.Trimesh(found.vertices, found.faces, process=False)
        trimesh.repair.fix_normals(mesh)
        found = TriangleMesh(found.vertices, np.asarray(mesh.faces).astype(np.int64))
    if not found.closed:
        return None
    return found if found.volume > 0 else TriangleMesh(found.vertices, found.faces[:, ::-1])


def _capped(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> TriangleMesh:
    """Close every hole by triangles to the middle of its rim."""
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    known = set(map(tuple, edges.tolist()))
    rim = np.array([edge for edge in edges.tolist() if (edge[1], edge[0]) not in known])
    if len(rim) == 0:
        return TriangleMesh(vertices, faces)
    loops = _loops(rim)
    hole = np.repeat(np.arange(len(loops)), [len(loop) for loop in loops])
    rim = np.concatenate([np.column_stack([loop, np.roll(loop, -1)]) for loop in loops])
    middles = np.stack([vertices[loop].mean(0) for loop in loops])
    caps = np.column_stack([rim[:, ::-1], len(vertices) + hole])
    return TriangleMesh(np.concatenate([vertices, middles]), np.concatenate([faces, caps]))


def _loops(rim: Int[np.ndarray, "edges 2"]) -> list[Int[np.ndarray, " vertices"]]:
    """Return directed edges as closed loops in which no vertex is twice; open ends are left out."""
    following: dict[int, list[int]] = {}
    for start, end in rim.tolist():
        following.setdefault(start, []).append(end)
    loops: list[np.ndarray] = []
    for start in list(following):
        path, at = [start], {start: 0}
        while following.get(path[-1]):
            vertex = following[path[-1]].pop()
            if vertex in at:
                loops.append(np.array(path[at[vertex] :]))
                for left in path[at[vertex] + 1 :]:
                    del at[left]
                del path[at[vertex] + 1 :]
            else:
                at[vertex] = len(path)
                path.append(vertex)
    return loops


def _plausible(mesh: TriangleMesh, points: Float[np.ndarray, "points 3"]) -> bool:
    """Return whether a mesh is closed and has about the extent of the points."""
    extent, expected = np.ptp(mesh.vertices, axis=0), np.ptp(points, axis=0)
    slack = 0.15 * expected.max()
    return mesh.closed and bool(np.all(np.abs(extent - expected) <= slack)) and mesh.volume > 0
