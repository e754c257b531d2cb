"""What depth is made of, each against a slow twin or an exact answer."""

import numpy as np
import pytest
from cards import Card, placed, render, sliding_cameras
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from msdyn.geometry import Cameras, project, transform_points, unproject
from msdyn.preprocess.contracts import SparsePoints
from msdyn.preprocess.depth.consistency import Consistency
from msdyn.preprocess.depth.multi_frame import MAX_GAP, PARALLAXES, Body, choose_neighbours
from msdyn.preprocess.depth.plane_sweep import (
    NO_MATCH,
    Picture,
    match_cost,
    pick_planes,
    plane_homographies,
    semi_global,
)
from msdyn.preprocess.depth.rigid_objects import bring_to_scale
from msdyn.preprocess.depth.support import Surroundings, read_surroundings, smooth_depths
from msdyn.preprocess.imaging.edge_aware_fill import edge_weights, fill

# fill


def solved_directly(values, weights, image, smoothness):
    """Return the minimum of the energy of `fill` as one sparse linear system."""
    height, width = values.shape
    number = np.arange(height * width).reshape(height, width)
    matrix = sparse.lil_matrix((height * width, height * width))
    matrix.setdiag(weights.ravel())
    along, across = (smoothness * g for g in edge_weights(image))
    for a, b, g in (
        (number[:, :-1], number[:, 1:], along),
        (number[:-1], number[1:], across),
    ):
        for p, q, link in zip(a.ravel(), b.ravel(), g.ravel(), strict=True):
            matrix[p, p] += link
            matrix[q, q] += link
            matrix[p, q] -= link
            matrix[q, p] -= link
    right = (weights * np.where(weights > 0, values, 0)).ravel()
    return sparse.linalg.spsolve(matrix.tocsr(), right).reshape(height, width)


@pytest.mark.parametrize("shape", [(13, 18), (21, 11), (1, 30), (30, 1), (5, 4)])
def test_fill_is_the_minimum_of_its_energy(shape):
    rng = np.random.default_rng(0)
    weights = np.where(rng.uniform(size=shape) < 0.3, rng.uniform(0.1, 10, shape), 0)
    values = np.where(weights > 0, rng.uniform(1, 2, shape), np.nan)
    image = rng.uniform(0, 0.2, (*shape, 3)).astype(np.float32)
    expected = solved_directly(values, weights, image, 1.0)
    filled = fill(values, weights, image, 1.0, passes=100)
    assert filled.dtype == np.float32
    np.testing.assert_allclose(filled, expected, atol=1e-5)
    # The four passes of everyday use come near.
    np.testing.assert_allclose(fill(values, weights, image, 1.0), expected, atol=0.02)


def test_fill_keeps_to_the_edges_of_the_image():
    image = np.zeros((40, 60, 3), np.float32)
    image[:, 30:] = 0.5
    weights = np.zeros((40, 60))
    values = np.zeros((40, 60))
    weights[20, 5], values[20, 5] = 10, 1.0
    weights[10, 55], values[10, 55] = 10, 2.0
    filled = fill(values, weights, image, 1.0)
    # A single point holds a whole side, but for what the floor of the weights lets through.
    exact = solved_directly(values, weights, image, 1.0)
    # What leaks evens out the slowest: the result keeps 0.08 from the minimum, on the safe side.
    np.testing.assert_allclose(filled, exact, atol=0.1)
    assert (filled[:, 30] - filled[:, 29]).min() > 0.7  # 0.74
    without = fill(values, weights, 0 * image, 1.0)
    assert (without[:, 30] - without[:, 29]).max() < 0.03


def test_fill_of_nothing_and_of_everything():
    image = np.zeros((12, 16, 3), np.float32)
    assert not fill(np.full((12, 16), 7.0), np.zeros((12, 16)), image, 1.0).any()
    values = np.random.default_rng(0).uniform(1, 2, (12, 16))
    np.testing.assert_allclose(fill(values, np.full((12, 16), 1e6), image, 1.0), values, atol=1e-4)
    one = np.zeros((12, 16))
    one[3, 4] = 0.1
    np.testing.assert_allclose(fill(np.full((12, 16), 3.0), one, image, 1.0), 3.0, rtol=1e-3)


# the plane sweep


@pytest.fixture(scope="module")
def wall():
    """A textured wall at depth 3, parallel to cameras that slide past it; pictures, depth."""
    poses = np.concatenate([placed(0.1 * i, 0.03 * i, 0) for i in range(5)])
    cameras = Cameras.pinhole(90, 96, 72, np.linalg.inv(poses))
    rendered = render([Card(8, 6, placed(0, 0, 3, frames=5), seed=4, grain=6)], cameras)
    grays = rendered.images.mean(-1).astype(np.float32) / 255
    every = np.ones((72, 96), np.float32)
    return [
        Picture(gray, every, k, pose)
        for gray, k, pose in zip(grays, cameras.intrinsics, cameras.cam_from_world, strict=True)
    ]


@given(st.integers(0, 1000))
def test_plane_homographies_carry_points_of_the_plane(seed):
    rng = np.random.default_rng(seed)
    pose = placed(*rng.uniform(-0.3, 0.3, 3), yaw=rng.uniform(-20, 20), pitch=5)[0]
    cameras = Cameras.pinhole(100, 80, 60, np.stack([np.eye(4), np.linalg.inv(pose)]))
    picture = [Picture(*[np.zeros((60, 80), np.float32)] * 2, k, p) for k, p in
               zip(cameras.intrinsics, cameras.cam_from_world, strict=True)]  # fmt: skip
    inverse = rng.uniform(0.1, 1, 4)
    maps = plane_homographies(picture[0], picture[1], inverse)
    xy = rng.uniform(0, 60, (10, 2))
    for plane, there_from_here in zip(inverse, maps, strict=True):
        points = unproject(cameras.intrinsics[0], xy, np.full(10, 1 / plane))
        expected = project(
            cameras.intrinsics[1], points @ pose[:3, :3] - pose[:3, 3] @ pose[:3, :3]
        )
        # Maps are of array indices, pixel centres lie at +0.5.
        found = np.c_[xy - 0.5, np.ones(10)] @ there_from_here.T
        np.testing.assert_allclose(found[:, :2] / found[:, 2:] + 0.5, expected, atol=1e-8)


def test_a_wall_matches_best_at_its_own_plane(wall):
    planes = np.linspace(0.2, 0.5, 31)  # numbers 13 and 14 are next to 1/3
    cost = match_cost(wall[2], [[wall[1], wall[0]], [wall[3], wall[4]]], planes)
    assert cost.shape == (31, 72, 96) and 0 <= cost.min() and cost.max() <= 2 + 1e-5
    position, best = pick_planes(cost)
    inverse = np.interp(position, np.arange(31), planes)
    inner = np.s_[12:-12, 12:-12]  # visible in all neighbours
    assert np.isin(best[inner], (13, 14)).mean() > 0.99
    assert np.abs(3 * inverse[inner] - 1).mean() < 0.005
    smooth, _ = pick_planes(semi_global(cost, wall[2].gray, 0.15, 1.5))
    assert np.abs(3 * np.interp(smooth, np.arange(31), planes)[inner] - 1).max() < 0.05


def test_pixels_that_no_neighbour_sees_match_nowhere(wall):
    planes = np.linspace(0.2, 0.5, 5)
    for sides in ([[], []], [[], [Picture(wall[3].gray, 0 * wall[3].gray, *_view(wall[3]))]]):
        np.testing.assert_allclose(match_cost(wall[2], sides, planes), NO_MATCH, atol=1e-6)


def _view(picture):
    return picture.intrinsics, picture.cam_from_world


def test_semi_global_sums_the_cheapest_paths():
    """Compare with the recursion of Hirschmueller, written out pixel by pixel."""
    rng = np.random.default_rng(0)
    planes, height, width, small, large = 5, 4, 6, 0.15, 1.5
    cost = rng.uniform(0, 2, (planes, height, width)).astype(np.float32)
    image = rng.uniform(0, 0.5, (height, width)).astype(np.float32)
    expected = np.zeros(cost.shape)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        path = {}
        for y in range(height)[:: dy or 1]:
            for x in range(width)[:: dx or 1]:
                before = path.get((y - dy, x - dx))
                here = cost[:, y, x].astype(float)
                if before is not None:
                    edge = abs(float(image[y, x]) - float(image[y - dy, x - dx]))
                    jump = max(large / (1 + edge / 0.05), 1.5 * small)
                    for d in range(planes):
                        ways = [before[d], before.min() + jump]
                        ways += [before[e] + small for e in (d - 1, d + 1) if 0 <= e < planes]
                        here[d] += min(ways) - before.min()
                path[y, x] = here
                expected[:, y, x] += here
    np.testing.assert_allclose(semi_global(cost, image, small, large), expected, atol=1e-5)


def test_pick_planes_finds_the_bottom_of_a_parabola():
    bottoms = np.array([[0.0, 1.3, 2.5], [3.7, 5.0, 4.2]])
    total = (np.arange(6)[:, None, None] - bottoms) ** 2 + 1
    position, best = pick_planes(total)
    np.testing.assert_allclose(position, bottoms, atol=1e-6)
    np.testing.assert_array_equal(best[1], [4, 5, 4])
    flat, _ = pick_planes(np.ones((6, 2, 2)))
    assert np.isfinite(flat).all()


def test_neighbours_are_those_of_the_parallaxes_wanted():
    centres = np.zeros((60, 3))
    centres[:, 0] = 0.01 * np.arange(60)
    known = np.ones(60, bool)
    known[32] = False
    before, after = choose_neighbours(centres, 30, known, depth=1.0)
    wanted = [round(p / 0.01) for p in PARALLAXES]  # frames away
    assert before == [30 - n for n in wanted]
    assert after == [31 if n == 2 else 30 + n for n in wanted] or after[0] in (31, 33)
    assert 32 not in after
    assert choose_neighbours(centres, 0, known, 1.0)[0] == []
    assert choose_neighbours(centres, 59, known, 1.0)[1] == []
    # For a distant scene the farthest frames are taken, for a static camera any.
    assert choose_neighbours(centres[:50], 10, known[:50], 100.0)[1] == [10 + MAX_GAP]
    assert all(len(side) == 1 for side in choose_neighbours(0 * centres, 30, known, 1.0))


# objects


def floor_and_object(top, bottom):
    """Depth of a floor that comes nearer towards the bottom, mask of an object [60, 80]."""
    depth = np.broadcast_to(5 - 3 * np.arange(60)[:, None] / 60, (60, 80)).copy()
    mask = np.zeros((60, 80), np.uint8)
    mask[top:bottom, 30:50] = 3
    return depth, mask


def test_an_object_stands_on_what_is_just_below_it():
    depth, mask = floor_and_object(20, 40)
    reading = read_surroundings(depth, mask, 3)
    assert reading is not None
    assert reading.ground == pytest.approx(depth[42, 0])
    assert reading.foot == (36, 40)
    # Its surroundings are a few pixels around it, of which the nearest quarter is near its foot.
    assert depth[46, 0] < reading.ring < depth[34, 0]
    assert reading.contact == min(reading.ground, reading.ring)
    assert not reading.hangs
    # Just above the border there is no room to see whether the ground comes nearer.
    depth, mask = floor_and_object(20, 55)
    reading = read_surroundings(depth, mask, 3)
    assert reading is not None and reading.ground == pytest.approx(depth[57, 0])


def test_an_object_that_hangs_before_a_wall_is_where_its_holder_is():
    depth, mask = np.full((60, 80), 5.0), np.zeros((60, 80), np.uint8)
    mask[20:40, 30:50] = 3
    depth[:24, 36:44] = 2.0  # the rope
    reading = read_surroundings(depth, mask, 3)
    assert reading is not None
    assert reading.hangs and reading.ground == 0 == reading.contact
    assert reading.holder == 2.0 and reading.ring == 5.0


def test_an_object_that_is_held_is_where_the_hand_is():
    depth, mask = floor_and_object(10, 30)
    depth[2:34, 50:60] = depth[2:10, 25:60] = 1.0  # an arm next to it and above it
    reading = read_surroundings(depth, mask, 3)
    assert reading is not None
    assert reading.ring == 1.0 == reading.contact
    # Another object next to it is not used.
    mask[2:34, 50:60] = mask[2:10, 25:60] = 1
    reading = read_surroundings(depth, mask, 3)
    assert reading is not None and reading.ring > 3


def test_objects_that_cannot_be_placed():
    depth, mask = floor_and_object(20, 60)  # cut off by the border: the ground is not visible
    reading = read_surroundings(depth, mask, 3)
    assert reading is not None and reading.ground == 0 == reading.contact and reading.ring > 0
    reading = read_surroundings(depth, np.full_like(mask, 3), 3)
    assert reading == Surroundings(foot=reading.foot)
    assert read_surroundings(depth, mask, 2) is None  # not in the picture
    assert read_surroundings(depth, np.where(np.arange(80) == 7, mask, 0), 3) is None


def test_smooth_depths():
    assert not smooth_depths(np.zeros(5)).any()
    np.testing.assert_allclose(smooth_depths(np.array([0, 0, 2.0, 0])), 2)
    steady = np.full(30, 3.0)
    steady[7] = 30.0  # one reading is wrong
    steady[15:20] = 0
    np.testing.assert_allclose(smooth_depths(steady), 3, rtol=0.02)
    rng = np.random.default_rng(0)
    ramp = np.linspace(2, 3, 60)
    noisy = ramp * np.exp(rng.normal(0, 0.05, 60))
    error = np.abs(np.log(smooth_depths(noisy) / ramp))
    assert error.mean() < 0.6 * np.abs(np.log(noisy / ramp)).mean()


def points_on_object(cameras, count=200):
    """Points of a body at about depth 2 visible in every camera, in the lower half too."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform([-0.5, -0.5, 1.8], [0.5, 0.5, 2.2], (count, 3))
    frame, point = (index.ravel() for index in np.indices((len(cameras), count)))
    local = transform_points(cameras.cam_from_world, xyz[None].repeat(len(cameras), 0))
    xy = project(cameras.intrinsics, local).reshape(-1, 2)
    return SparsePoints(xyz, point, frame, xy.astype(np.float32))


def test_a_rigid_object_gets_the_scale_of_what_it_touches():
    cameras = sliding_cameras(6, 100, 80, 60, reach=0.3)
    body = Body(1, cameras, np.array([True] * 5 + [False]), points_on_object(cameras))
    wrong = Surroundings(100.0, 100.0, foot=(0, 60))  # of the frame whose pose is not known
    # The foot is the lowest rows; its points lie at a median depth that is brought to 7.
    row, depth = body.points.xy[:, 1], body.points.xyz[body.points.point]
    readings = []
    for frame in range(5):
        foot = (body.points.frame == frame) & (row >= 40) & (row < 60)
        assert foot.sum() >= 3
        at = transform_points(cameras.cam_from_world[frame], depth[foot])[:, 2]
        readings.append(Surroundings(7 * float(np.median(at)), foot=(40, 60)))
    readings[2] = None  # it is out of the picture
    # A reading without a ring has the ground for its contact.
    scaled = bring_to_scale(body, [*readings, wrong])
    assert scaled is not None
    np.testing.assert_allclose(scaled.points.xyz, 7 * body.points.xyz)
    np.testing.assert_allclose(scaled.cameras.centres, 7 * cameras.centres, atol=1e-9)
    seen = transform_points(scaled.cameras.cam_from_world[3], scaled.points.xyz)
    np.testing.assert_allclose(
        seen, 7 * transform_points(cameras.cam_from_world[3], body.points.xyz), atol=1e-9
    )
    assert bring_to_scale(body, [None] * 6) is None
    assert bring_to_scale(body, [Surroundings(ring=2.0, foot=(40, 60))] * 6) is None


# consistency


def test_consistency_is_the_difference_between_frames():
    cameras = sliding_cameras(12, 100, 80, 60, reach=0.3)
    depths = render([Card(9, 7, placed(0, 0, 3, frames=12))], cameras).depths
    exact, off = Consistency(cameras), Consistency(cameras)
    assert set(exact.figures().values()) == {None}
    for frame, depth in enumerate(depths):
        exact.add(frame, depth)
        off.add(frame, depth * (1.02 if frame // 4 % 2 else 1.0))  # 2 % between frames 4 apart
    # The nearest pixel is up to half a pixel off.
    assert exact.figures()["reprojection_difference"] < 0.001
    assert off.figures()["reprojection_difference"] == pytest.approx(0.02, abs=0.001)
    assert exact.figures()["disagreeing"] == off.figures()["disagreeing"] == 0
    wrong = Consistency(cameras)
    for frame, depth in enumerate(depths):
        # Four frames apart, the right half is twice as deep, or half as deep.
        half = np.where(np.arange(80) < 40, 1.0, 2.0 if frame // 4 % 2 else 1.0)
        wrong.add(frame, depth * half)
    assert wrong.figures()["disagreeing"] == pytest.approx(0.5, abs=0.1)
    nothing = Consistency(cameras)
    for frame in range(12):
        nothing.add(frame, np.zeros((60, 80)))
    assert set(nothing.figures().values()) == {None}
