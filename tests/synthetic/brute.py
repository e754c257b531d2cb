"""Reference for the ray caster by brute force: every ray against every triangle, in float64."""

import numpy as np


def first_hit(vertices, faces, origins, directions):
    """Return the distance (in multiples of the direction) and face of the first hit, or inf and -1.

    Reference: Moeller and Trumbore, "Fast, Minimum Storage Ray/Triangle Intersection", 1997.
    """
    a = vertices[faces[:, 0]]
    edge1, edge2 = vertices[faces[:, 1]] - a, vertices[faces[:, 2]] - a
    distance, face = np.full(len(directions), np.inf), np.full(len(directions), -1)
    for i, (origin, direction) in enumerate(zip(origins, directions, strict=True)):
        p = np.cross(direction, edge2)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / (edge1 * p).sum(-1)
            s = origin - a
            u = (s * p).sum(-1) * inverse
            q = np.cross(s, edge1)
            v = (q @ direction) * inverse
            t = (edge2 * q).sum(-1) * inverse
        slack = 1e-9  # so that a ray along an edge hits one of its two faces
        hit = (u >= -slack) & (v >= -slack) & (u + v <= 1 + slack) & (t > 1e-9)
        if hit.any():
            face[i] = np.where(hit, t, np.inf).argmin()
            distance[i] = t[face[i]]
    return distance, face


def weights_of(vertices, faces, face, points):
    """Return the barycentric coordinates [N, 3] of points in the planes of their faces."""
    a, b, c = np.moveaxis(vertices[faces[face]], 1, 0)
    normal = np.cross(b - a, c - a)

    def ratio(first, second):
        """Return the area of the triangle of point and two corners, relative to the face's."""
        return (np.cross(first - points, second - points) * normal).sum(-1) / (normal**2).sum(-1)

    return np.stack([ratio(b, c), ratio(c, a), ratio(a, b)], -1)
