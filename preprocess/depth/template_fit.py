"""A shape template fitted to every frame: tracks move it, rigidity keeps its shape.

A rigid part that becomes smaller in the image is farther away, so its depth follows from the shape
of the first frame and from tracks. Each frame starts from the one before, and is solved by
Gauss-Newton steps.

Residuals, each divided by its standard deviation, with weights that decrease for outliers:
tracks (px), edges (change of the offset between two nodes, rotated with them), change from the
motion predicted from the two frames before. (Points outside the silhouette, drawn to it, and pixels
of the silhouette, drawing points to them, made it worse: on a rendered person and ball, see
docs/recordings.md, the error of the ball after thirty frames was 16 % with them, 3 % without.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int

from msdyn.geometry import Cameras, nearest_pixels, project, transform_points, unproject
from msdyn.preprocess.depth.shape_template import Posed, Template
from msdyn.scene import STATIC, Tracks

__all__ = ["follow_template", "front_of"]

# Standard deviations: of tracks, px of an image whose longer side has 640; of edges and of the
# prediction of one frame, in units of the distance between nodes.
TRACK_PX, EDGE, STEP = 1.0, 0.06, 0.5
# Residuals beyond so many of these are outliers.
ROBUST_TRACK, ROBUST_EDGE = 8.0, 4.0
ROUNDS = 4
DAMPING = 0.8
"""Of the velocity, from frame to frame."""
BIND_PX = 3.0
"""A track belongs to points of the front that are so near in the image, px at 640."""


@dataclass
class _Bound:
    """Points of tracks on the template: positions in the first frame, and what carries them."""

    track: Int[np.ndarray, " n"]
    xyz: Float64[np.ndarray, "n 3"]
    carriers: Int[np.ndarray, "n near"]
    shares: Float64[np.ndarray, "n near"]


def follow_template(template: Template, tracks: Tracks, cameras: Cameras) -> Iterator[Posed]:
    """Yield the template in every frame.

    Args:
        template: in the first frame.
        tracks: N tracks; those of static points are not used.
        cameras: one per frame.
    """
    tracks = tracks.select(tracks.object != STATIC)
    unit = max(cameras.width, cameras.height) / 640
    bound = _Bound(np.zeros(0, int), np.zeros((0, 3)), np.zeros((0, 4), int), np.zeros((0, 4)))
    posed = before = template.at_rest()
    for frame in range(len(cameras)):
        camera = cameras[frame]
        if frame:
            velocity = DAMPING * (posed.positions - before.positions)
            start = Posed(posed.positions + velocity, posed.rotations)
            solver = _Frame(template, start, tracks, bound, camera, frame, unit)
            before, posed = posed, solver.solve()
        bound = _bind(template, posed, tracks, bound, camera, frame, unit)
        yield posed


class _Frame:
    """The solution of one frame."""

    def __init__(
        self,
        template: Template,
        start: Posed,
        tracks: Tracks,
        bound: _Bound,
        camera: Cameras,
        frame: int,
        unit: float,
    ) -> None:
        self.template, self.posed, self.unit = template, start, unit
        self.predicted = start.positions
        self.matrix = camera.intrinsics[0] @ camera.cam_from_world[0, :3]  # [3, 4]
        xy, visible = tracks.look_up(bound.track, frame)
        self.bound = _Bound(*(getattr(bound, n)[visible] for n in _Bound.__dataclass_fields__))
        self.xy = xy[visible].astype(float)
        # Both directions: the rotation of each end turns the edge.
        self.start, self.end = np.concatenate([template.edges, template.edges[:, ::-1]]).T
        self.rest = template.nodes[self.end] - template.nodes[self.start]

    def solve(self) -> Posed:
        """Return the nodes that minimise the residuals, by Gauss-Newton steps."""
        from scipy.spatial.transform import Rotation

        for _ in range(ROUNDS):
            moves, turns = self._step()
            rotations = Rotation.from_rotvec(turns).as_matrix() @ self.posed.rotations
            self.posed = Posed(self.posed.positions + moves, rotations)
        return self.posed

    def _step(self) -> tuple[Float64[np.ndarray, "nodes 3"], Float64[np.ndarray, "nodes 3"]]:
        """Return changes of the positions, and rotation vectors that turn the nodes further.

        A rotation occurs in the edges of its node only, so it is eliminated node by node. (That it
        also moves the points of tracks around the node is left to the next step.)
        """
        from scipy.linalg import cho_factor, cho_solve
        from scipy.sparse import bsr_array

        count, sigma = len(self.template.nodes), EDGE * self.template.spacing
        a, b = self.start, self.end
        turned = np.einsum("eij,ej->ei", self.posed.rotations[a], self.rest)
        off = self.posed.positions[b] - self.posed.positions[a] - turned
        far = (off**2).sum(1) / sigma**2
        weight = 0.5 / (sigma**2 * (1 + far / ROBUST_EDGE**2) ** 2)
        cross = _cross(turned)  # the change of `off` with the rotation of the node `a`
        turning = np.zeros((count, 3, 3))
        np.add.at(turning, a, weight[:, None, None] * cross.swapaxes(1, 2) @ cross)
        turning += 1e-3 / EDGE**2 * np.eye(3)
        torque = np.zeros((count, 3))
        np.add.at(torque, a, weight[:, None] * np.einsum("eji,ej->ei", cross, off))
        lever = weight[:, None, None] * cross.swapaxes(1, 2)  # of rotations `a` and positions `b`
        at_own = np.zeros((count, 3, 3))
        np.add.at(at_own, a, -lever)
        order = np.lexsort((b, a))
        pointer = np.r_[0, np.cumsum(np.bincount(a, minlength=count))]
        shape = (3 * count, 3 * count)
        mixed = bsr_array((lever[order], b[order], pointer), shape).tocsr()
        mixed = mixed + bsr_array((at_own, np.arange(count), np.arange(count + 1)), shape).tocsr()
        inverse = np.linalg.inv(turning)
        inverses = bsr_array((inverse, np.arange(count), np.arange(count + 1)), shape).tocsr()
        normal = -(mixed.T @ inverses @ mixed).toarray()
        right = mixed.T @ (inverses @ torque.reshape(-1))
        blocks = normal.reshape(count, 3, count, 3)
        for axis in range(3):
            for first, second, sign in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1)):
                np.add.at(blocks, (first, axis, second, axis), sign * weight)
        total = right.reshape(count, 3)
        np.add.at(total, b, -weight[:, None] * off)
        np.add.at(total, a, weight[:, None] * off)
        prior = 1 / (STEP * self.template.spacing) ** 2
        normal[np.diag_indices(3 * count)] += prior
        right += prior * (self.predicted - self.posed.positions).reshape(-1)
        if len(self.xy):
            self._add_tracks(normal, right)
        moves = cho_solve(cho_factor(normal, check_finite=False), right)
        turns = -(inverses @ (torque.reshape(-1) + mixed @ moves))
        return moves.reshape(count, 3), turns.reshape(count, 3)

    def _add_tracks(
        self, normal: Float64[np.ndarray, "n n"], right: Float64[np.ndarray, " n"]
    ) -> None:
        """Add the distances in the image of the tracks' points from the tracks."""
        from scipy.sparse import csr_array

        xy, sigma = self.xy, TRACK_PX * self.unit
        carriers, shares = self.bound.carriers, self.bound.shares
        at = self.template.carried(self.posed, self.bound.xyz, carriers, shares)
        homogeneous = at @ self.matrix[:, :3].T + self.matrix[:, 3]
        z = homogeneous[:, 2]
        ahead = z > 1e-6
        z = np.where(ahead, z, 1.0)
        off = homogeneous[:, :2] / z[:, None] - xy
        far = (off**2).sum(1) / sigma**2
        weight = np.where(ahead, 1 / (sigma * (1 + far / ROBUST_TRACK**2)), 0.0)
        # (p - u r) x / z, a row for each axis of the image: linear also in large changes of depth
        rows = (self.matrix[None, :2, :3] - xy[:, :, None] * self.matrix[2, :3]) / z[:, None, None]
        rows *= weight[:, None, None]
        number, near = carriers.shape
        data = rows[:, :, None, :] * shares[:, None, :, None]  # [n, 2, K, 3]
        column = 3 * carriers[:, None, :, None] + np.arange(3)
        column = np.broadcast_to(column, data.shape)
        pointer = np.arange(2 * number + 1) * near * 3
        sparse = csr_array((data.reshape(-1), column.reshape(-1), pointer),
                           (2 * number, len(right)))  # fmt: skip
        normal += (sparse.T @ sparse).toarray()
        right -= sparse.T @ (off * weight[:, None]).reshape(-1)


def _cross(vectors: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3 3"]:
    """Return the matrices of the cross products with vectors."""
    x, y, z = vectors.T
    o = np.zeros_like(x)
    return np.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(-1, 3, 3)


def front_of(
    xyz: Float64[np.ndarray, "points 3"], camera: Cameras, cell: float, thickness: float
) -> tuple[
    Float64[np.ndarray, "points 2"], Float64[np.ndarray, " points"], Bool[np.ndarray, " points"]
]:
    """Return pixels, depth and whether it is visible of each point.

    Args:
        xyz: world positions.
        camera: one camera.
        cell: px, side of the cells of the depth buffer.
        thickness: depth by which a point may be behind the nearest of its cell and those around.
    """
    from scipy.ndimage import minimum_filter

    local = transform_points(camera.cam_from_world[0], xyz)
    depth = local[:, 2]
    ahead = depth > 1e-6
    xy = np.full((len(xyz), 2), -1.0)
    xy[ahead] = project(camera.intrinsics[0], local[ahead])
    height, width = int(np.ceil(camera.height / cell)), int(np.ceil(camera.width / cell))
    row, column, inside = nearest_pixels(xy / cell, height, width)
    front = np.full((height, width), np.inf)
    np.minimum.at(front, (row[inside], column[inside]), depth[inside])
    front = minimum_filter(front, 3)
    return xy, depth, inside & (depth <= front[row, column] + thickness)


def _bind(
    template: Template,
    posed: Posed,
    tracks: Tracks,
    bound: _Bound,
    camera: Cameras,
    frame: int,
    unit: float,
) -> _Bound:
    """Return the points of tracks, with those of tracks that become visible in a frame."""
    from scipy.spatial import KDTree

    rows, xy = tracks.at(frame)
    new = ~np.isin(rows, bound.track)
    rows, xy = rows[new], xy[new].astype(float)
    points, depth, visible = front_of(template.points(posed), camera, BIND_PX * unit,
                                      0.5 * template.spacing)  # fmt: skip
    shown = np.flatnonzero(visible)
    if not len(rows) or len(shown) < 4:
        return bound
    far, near = (np.asarray(found) for found in KDTree(points[shown]).query(xy, 4))
    used = far[:, 1] < BIND_PX * unit
    rows, xy, near, far = rows[used], xy[used], shown[near[used]], far[used]
    weight = 1 / (far + 0.3 * unit)
    z = (weight * depth[near]).sum(1) / weight.sum(1)
    world = transform_points(camera.world_from_cam[0], unproject(camera.intrinsics[0], xy, z))
    carriers, shares = template.carriers[near[:, 0]], template.shares[near[:, 0]]
    # back to the first frame, by the same blend of rotations and positions
    rotation = np.einsum("nk,nkij->nij", shares, posed.rotations[carriers])
    turned = np.einsum("nkij,nkj->nki", posed.rotations[carriers], template.nodes[carriers])
    shift = (shares[..., None] * (posed.positions[carriers] - turned)).sum(1)
    xyz = np.linalg.solve(rotation, (world - shift)[..., None])[..., 0]
    return _Bound(
        np.r_[bound.track, rows],
        np.concatenate([bound.xyz, xyz]),
        np.concatenate([bound.carriers, carriers]),
        np.concatenate([bound.shares, shares]),
    )
