"""The ground of a scene."""

import numpy as np

from msdyn.geometry.ground import ground_plane


def room(seed=0):
    """A tilted table of 3000 points with noise of 2 mm, a wall of 4000, and 1000 stray points."""
    rng = np.random.default_rng(seed)
    normal = np.array([0.1, -0.95, -0.3])
    normal /= np.linalg.norm(normal)
    first = np.cross(normal, [0, 0, 1.0])
    first /= np.linalg.norm(first)
    second = np.cross(normal, first)
    across = rng.uniform(-1, 1, (3000, 2))
    table = across[:, :1] * first + across[:, 1:] * second + 0.7 * normal
    table += rng.normal(0, 0.002, (3000, 1)) * normal
    wall = np.c_[rng.uniform(-1, 1, (4000, 2)), np.full(4000, 3.0)]
    return normal, np.concatenate([table, wall, rng.uniform(-1, 3, (1000, 3))])


def test_the_table_is_found_though_the_wall_is_larger():
    normal, points = room()
    found = ground_plane(points, np.array([0, -1.0, 0]), 0.01)
    assert found is not None
    assert np.degrees(np.arccos(found[0] @ normal)) < 0.3
    assert abs(found[1] - 0.7) < 0.003


def test_without_a_plane_there_is_none():
    rng = np.random.default_rng(0)
    up = np.array([0, -1.0, 0])
    assert ground_plane(rng.normal(size=(3000, 3)), up, 0.005) is None
    assert ground_plane(rng.normal(size=(10, 3)), up, 0.005) is None
    assert ground_plane(np.zeros((0, 3)), up, 0.005) is None
    assert ground_plane(np.zeros((100, 3)), up, 0.005) is None
