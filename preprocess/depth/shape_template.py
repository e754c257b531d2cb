"""A shape template of moving objects: points of the first frame and a graph that deforms them.

Nodes are spread over the points; each has a position and a rotation per frame, and carries the
points around it. Nodes that are near one another in the first frame are joined by edges, which
deformation keeps as rigid as possible.

References: Sumner et al., "Embedded Deformation for Shape Manipulation", 2007; Sorkine and Alexa,
"As-Rigid-As-Possible Surface Modeling", 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int

__all__ = ["Posed", "Template", "make_template"]

MOST_POINTS, MOST_NODES = 8000, 260
NEIGHBOURS, CARRIERS = 8, 4
REACH = 2.2
"""Length of the longest edge, in units of the distance between nodes."""
LONELY = 4
"""A point with fewer others within two voxels is an outlier."""
FINEST = 1 / 400
"""Side of the smallest voxel, in units of the extent of the points."""


@dataclass(frozen=True)
class Template:
    """Points of the first frame and the nodes that carry them.

    Attributes:
        xyz: world positions of the points in the first frame.
        nodes: world positions of the nodes in the first frame.
        carriers: nodes that carry each point.
        shares: weights of these, which add up to one.
        edges: pairs of nodes.
        spacing: distance between neighbouring nodes, scene units.
        voxel: distance between neighbouring points, scene units.
    """

    xyz: Float64[np.ndarray, "points 3"]
    nodes: Float64[np.ndarray, "nodes 3"]
    carriers: Int[np.ndarray, "points near"]
    shares: Float64[np.ndarray, "points near"]
    edges: Int[np.ndarray, "edges 2"]
    spacing: float
    voxel: float

    def at_rest(self) -> Posed:
        """Return the nodes as they are in the first frame."""
        return Posed(self.nodes, np.tile(np.eye(3), (len(self.nodes), 1, 1)))

    def carried(
        self,
        posed: Posed,
        xyz: Float64[np.ndarray, "n 3"],
        carriers: Int[np.ndarray, "n near"],
        shares: Float64[np.ndarray, "n near"],
    ) -> Float64[np.ndarray, "n 3"]:
        """Return where nodes carry points [n, 3] of the first frame."""
        arm = xyz[:, None] - self.nodes[carriers]
        moved = np.einsum("nkij,nkj->nki", posed.rotations[carriers], arm)
        return (shares[..., None] * (moved + posed.positions[carriers])).sum(1)

    def points(self, posed: Posed) -> Float64[np.ndarray, "points 3"]:
        """Return the world positions of all points."""
        return self.carried(posed, self.xyz, self.carriers, self.shares)


@dataclass(frozen=True)
class Posed:
    """The nodes of a template in one frame.

    Attributes:
        positions: world positions.
        rotations: of what each carries, relative to the first frame.
    """

    positions: Float64[np.ndarray, "nodes 3"]
    rotations: Float64[np.ndarray, "nodes 3 3"]


def make_template(xyz: Float[np.ndarray, "points 3"]) -> Template | None:
    """Return the template of points, None where too few of them lie together.

    Args:
        xyz: world positions in the first frame, with noise and some outliers.
    """
    from scipy.spatial import KDTree

    if len(xyz) <= LONELY:
        return None
    extent = float(np.linalg.norm(np.percentile(xyz, 95, 0) - np.percentile(xyz, 5, 0)))
    if extent <= 0:
        return None
    tree = KDTree(xyz)
    apart = float(np.median(tree.query(xyz[:: len(xyz) // 500 + 1], LONELY + 1)[0][:, -1]))
    points, voxel = _thinned(xyz, max(extent * FINEST, apart), MOST_POINTS)
    near = tree.query_ball_point(points, 2 * voxel, return_length=True)
    points = points[near > LONELY]
    if len(points) <= max(NEIGHBOURS, LONELY):
        return None
    nodes, spacing = _thinned(points, 2 * voxel, MOST_NODES)
    if len(nodes) <= CARRIERS:
        return None
    tree = KDTree(nodes)
    far, index = (np.asarray(found) for found in tree.query(points, CARRIERS))
    shares = np.exp(-0.5 * (far / spacing) ** 2) + 1e-9
    shares /= shares.sum(1, keepdims=True)
    near = tree.query(nodes, min(NEIGHBOURS, len(nodes) - 1) + 1)
    far, other = (np.asarray(found) for found in near)
    pairs = np.stack([np.broadcast_to(np.arange(len(nodes))[:, None], other.shape), other], -1)
    pairs = pairs[(far > 0) & (far < REACH * spacing)]
    edges = np.unique(np.sort(pairs, 1), axis=0)
    return Template(points, nodes, index, shares, edges, spacing, voxel)


def _thinned(
    xyz: Float[np.ndarray, "points 3"], side: float, most: int
) -> tuple[Float64[np.ndarray, "kept 3"], float]:
    """Return the means of points [N, 3] by voxel, at most so many, and the side of the voxels."""
    while True:
        _, cell, count = np.unique(
            np.floor(xyz / side).astype(int), axis=0, return_inverse=True, return_counts=True
        )
        if len(count) <= most:
            break
        side *= 1.12
    total = np.zeros((len(count), 3))
    np.add.at(total, cell.reshape(-1), xyz)
    return total / count[:, None], side
