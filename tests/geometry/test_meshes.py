"""Closed meshes of points, and their convex parts."""

import numpy as np
import pytest

from msdyn.errors import MissingExtraError
from msdyn.geometry import meshes
from msdyn.geometry.meshes import (
    TriangleMesh,
    cleaned_points,
    closing_samples,
    convex_parts,
    hull_mesh,
    import_open3d,
    solid_mesh,
)

RADIUS = 0.2


def sphere(count=4000, seed=0):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return RADIUS * normals + [0.1, 0, 2], normals


@pytest.mark.parametrize("method, worst", [("poisson", 0.02), ("voxels", 0.12), ("hull", 0.05)])
def test_a_sphere_is_closed_and_has_its_volume(method, worst):
    if method == "poisson":
        pytest.importorskip("open3d", exc_type=ImportError)
    points, normals = sphere()
    mesh, used = solid_mesh(points, normals, 0.01, method=method, faces=2000)
    assert used == method and mesh.closed and (method == "hull" or len(mesh.faces) <= 2100)
    true = 4 / 3 * np.pi * RADIUS**3
    assert mesh.volume == pytest.approx(true, rel=worst)
    distance = np.linalg.norm(mesh.vertices - [0.1, 0, 2], axis=1)
    assert np.abs(distance - RADIUS).max() < 0.02


def test_an_open_half_is_closed_at_its_convex_hull():
    """Only the half of a sphere that faces the camera at the origin was seen."""
    pytest.importorskip("open3d", exc_type=ImportError)
    points, normals = sphere()
    seen = normals[:, 2] < 0
    points, normals = points[seen], normals[seen]
    closing, outward = closing_samples(points, 0.01, lambda samples: samples[:, 2] > 1.95)
    assert np.all(outward[:, 2] > 0.7)
    mesh, used = solid_mesh(
        np.concatenate([points, closing]), np.concatenate([normals, outward]), 0.01
    )
    assert used == "poisson" and mesh.closed
    assert mesh.volume == pytest.approx(2 / 3 * np.pi * RADIUS**3, rel=0.05)
    assert mesh.vertices[:, 2].max() < 2.02


def test_what_was_seen_to_be_empty_is_not_closed():
    points, _ = sphere()
    lower = points[points[:, 2] > 2]
    closing, _ = closing_samples(lower, 0.01, lambda samples: samples[:, 2] > 2.02)
    assert len(closing) == 0  # the flat face of the hull lies at 2


@pytest.mark.parametrize("points", [np.zeros((1, 3)), np.eye(3), np.random.rand(40, 3) * [1, 1, 0]])
def test_degenerate_points_have_a_thin_hull(points):
    mesh, used = solid_mesh(points, np.zeros_like(points), 0.01)
    assert used == "hull" and mesh.closed and mesh.volume > 0


def test_a_mesh_with_a_hole_is_not_closed():
    points, normals = sphere(500)
    mesh = hull_mesh(points, 0.01)
    assert mesh.closed
    assert not TriangleMesh(mesh.vertices, mesh.faces[1:]).closed
    capped = meshes._capped(mesh.vertices, mesh.faces[3:])
    assert capped.closed and capped.volume == pytest.approx(mesh.volume, rel=0.01)


def test_convex_parts_of_an_l():
    pytest.importorskip("coacd")
    trimesh = pytest.importorskip("trimesh")
    outline = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]], float)
    flat = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]])
    low, high = np.c_[outline, np.zeros(6)], np.c_[outline, np.ones(6)]
    sides = [[i, (i + 1) % 6, 6 + (i + 1) % 6] for i in range(6)]
    sides += [[i, 6 + (i + 1) % 6, 6 + i] for i in range(6)]
    mesh = TriangleMesh(np.r_[low, high], np.r_[flat[:, ::-1], flat + 6, sides])
    assert mesh.closed and mesh.volume == pytest.approx(3)
    parts = convex_parts(mesh)
    assert len(parts) >= 2 and all(part.closed for part in parts)
    assert sum(part.volume for part in parts) == pytest.approx(3, rel=0.1)
    for part in parts:
        assert trimesh.Trimesh(part.vertices, part.faces).is_convex


def test_cleaning_merges_points_and_removes_outliers():
    pytest.importorskip("open3d", exc_type=ImportError)
    points, normals = sphere(20_000)
    stray = np.random.default_rng(1).uniform(-1, 1, (20, 3)) + [0, 0, 5]
    colours = np.full((20_020, 3), 0.25)
    kept, facing, seen = cleaned_points(np.r_[points, stray], np.r_[normals, stray], 0.01, colours)
    assert kept[:, 2].max() < 2.3 and len(kept) < 8000
    assert np.abs(np.linalg.norm(kept - [0.1, 0, 2], axis=1) - RADIUS).max() < 0.01
    np.testing.assert_allclose(np.linalg.norm(facing, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(seen, 0.25)


@pytest.mark.parametrize(
    "error, text",
    [
        (ModuleNotFoundError("No module named 'open3d'"), r'pip install "msdyn\[sim\]"'),
        (OSError("libusb-1.0.so.0: cannot open shared object file\nTraceback"), "libusb-1.0-0"),
        (ImportError("undefined symbol: x"), "open3d does not load: undefined symbol"),
    ],
)
def test_open3d_that_does_not_load_is_told_in_one_line(monkeypatch, error, text):
    def fails(name):
        raise error

    monkeypatch.setattr(meshes, "import_module", fails)
    with pytest.raises(MissingExtraError, match=text) as raised:
        import_open3d("sim")
    assert "\n" not in str(raised.value)


def test_without_coacd_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "coacd", None)
    with pytest.raises(MissingExtraError, match=r'pip install "msdyn\[sim\]"'):
        convex_parts(hull_mesh(sphere(100)[0], 0.01))
