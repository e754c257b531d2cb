"""Motion, shapes and textures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msdyn.geometry import transform_points
from msdyn.synthetic import shapes, textures
from msdyn.synthetic.animate import bend, hinge, keyframe_curve, make_poses


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=6), st.integers(2, 40))
def test_keyframe_curves_interpolate_their_keys_without_overshoot(values, frames):
    times = np.linspace(0, 1, len(values))
    curve = keyframe_curve(frames, *zip(times, values, strict=True))
    assert curve.shape == (frames,)
    assert curve[0] == pytest.approx(values[0]) and curve[-1] == pytest.approx(values[-1])
    assert min(values) - 1e-9 <= curve.min() and curve.max() <= max(values) + 1e-9


def test_points_on_the_axis_of_a_hinge_move_with_the_parent():
    parent = make_poses(np.zeros((5, 3)) + [1, 2, 3], ("z", np.linspace(0, 90, 5)))
    child = hinge(parent, (0.2, 0.3, 0.4), "y", np.linspace(-40, 40, 5))
    on_axis = transform_points(child, np.array([[0, -1.0, 0], [0, 0, 0], [0, 2.0, 0]]))
    expected = transform_points(
        parent, np.array([[0.2, -0.7, 0.4], [0.2, 0.3, 0.4], [0.2, 2.3, 0.4]])
    )
    np.testing.assert_allclose(on_axis, expected, atol=1e-12)


def test_rotations_are_applied_in_order():
    """The rotation about x maps y to z, which that about z then leaves as it is."""
    pose = make_poses(np.zeros((1, 3)), ("x", 90.0), ("z", 90.0))[0]
    np.testing.assert_allclose(pose[:3, :3] @ [0, 1, 0], [0, 0, 1], atol=1e-12)


@given(st.floats(-80, 80), st.floats(-180, 180), st.floats(0.8, 1.3))
def test_bending_preserves_the_length_of_the_axis_and_the_volume(lean, heading, stretch):
    deform = bend(0.5, np.array([lean]), np.array([heading]), np.array([stretch]))
    axis = np.zeros((200, 3))
    axis[:, 2] = np.linspace(0, 0.5, 200)
    length = np.linalg.norm(np.diff(deform(axis, 0), axis=0), axis=1).sum()
    assert length == pytest.approx(0.5 * stretch, rel=1e-3)
    body = shapes.lathe([(0, 0), *((0.08, z) for z in np.linspace(0, 0.5, 30)), (0, 0.5)])
    volumes = []
    for vertices in (body.vertices, deform(body.vertices, 0)):
        a, b, c = np.moveaxis(vertices[body.faces], 1, 0)
        volumes.append((np.cross(a, b) * c).sum() / 6)
    assert volumes[0] > 0
    assert volumes[1] == pytest.approx(volumes[0], rel=0.02)  # worst seen: 0.4 %


def test_bending_by_zero_is_the_identity():
    points = np.random.default_rng(0).uniform(0, 0.5, (50, 3))
    same = bend(0.5, np.zeros(1), np.zeros(1), np.ones(1))(points, 0)
    np.testing.assert_allclose(same, points, atol=1e-12)


@pytest.mark.parametrize(
    "shape, volume",
    [
        (shapes.box(1, 2, 3), 6.0),
        (shapes.slab(1, 2, 0.5, 0.2), 1.0),
        (shapes.cylinder(0.5, 2, sections=256), np.pi / 2),
        (shapes.ball(1, 2, 3, subdivisions=5), np.pi),
        (shapes.torus(1, 0.25), 2 * np.pi**2 / 16),
        (shapes.lathe([(0, 0), (1, 0), (0, 1)], sections=256), np.pi / 3),
        (shapes.room(1, 2, 3, 0.5), -6.0),  # its faces are turned inwards
    ],
    ids=["box", "slab", "cylinder", "ball", "torus", "lathe", "room"],
)
def test_shapes_are_closed_with_faces_outwards(shape, volume):
    a, b, c = np.moveaxis(shape.vertices[shape.faces], 1, 0)
    assert (np.cross(a, b) * c).sum() / 6 == pytest.approx(volume, rel=0.04)
    assert np.abs(np.cross(b - a, c - a).sum(0)).max() < 1e-9  # closed: normals cancel out


MATERIALS = {
    "plaster": textures.plaster((0.2, 0.2, 0.2), (0.8, 0.8, 0.8)),
    "wood": textures.wood((0.3, 0.2, 0.1), (0.8, 0.6, 0.4)),
    "dead leaves": textures.dead_leaves((0.9, 0.2, 0.2), (0.1, 0.3, 0.6), (0.9, 0.9, 0.8)),
    "fabric": textures.fabric((0.9, 0.2, 0.2), (0.1, 0.3, 0.6), (0.9, 0.9, 0.8)),
    "photo": textures.photo("flower"),
    "key caps": textures.key_caps(5, 12, (0.2, 0.2, 0.2), (0.8, 0.8, 0.8), (1, 1, 1)),
}


@pytest.mark.parametrize("name", MATERIALS)
def test_textures_have_detail_and_depend_only_on_the_seed(name):
    make = MATERIALS[name]
    texture = make(80, 120, np.random.default_rng(0))
    assert texture.shape == (80, 120, 3) and texture.dtype == np.float32
    assert 0 <= texture.min() and texture.max() <= 1
    np.testing.assert_array_equal(texture, make(80, 120, np.random.default_rng(0)))
    assert (texture != make(80, 120, np.random.default_rng(1))).mean() > 0.2
    # Detail at a scale of 2, 8 and 32 texels: means of blocks differ from their neighbours.
    gray = texture.mean(-1)
    for size in (2, 8, 32):
        h, w = 80 // size, 120 // size
        blocks = gray[: h * size, : w * size].reshape(h, size, w, size).mean((1, 3))
        assert np.abs(np.diff(blocks, axis=1)).mean() > 0.005


@pytest.mark.parametrize("name", sorted(set(MATERIALS) - {"key caps"}))
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (3, 2)])
def test_textures_of_narrow_faces(name, size):
    assert MATERIALS[name](*size, np.random.default_rng(0)).shape == (*size, 3)
