"""Parts of the cameras stage: triangulation, rotating cameras, interpolation, verdicts."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from cards import placed
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from msdyn.geometry import Cameras, project, transform_points
from msdyn.preprocess.cameras.camera_motion import background_motion
from msdyn.preprocess.cameras.explained import explained_share
from msdyn.preprocess.cameras.reliability import CameraFigures, judge_cameras
from msdyn.preprocess.cameras.structure_from_motion import may_rotate
from msdyn.preprocess.contracts import SparsePoints
from msdyn.preprocess.multiview import rotation_only
from msdyn.preprocess.multiview.absolute_pose import interpolate_cameras
from msdyn.preprocess.multiview.rotation_only import RotationSolution, solve_rotations
from msdyn.preprocess.multiview.triangulation import (
    reprojection_error,
    triangulate,
    triangulate_tracks,
    triangulation_angles,
)
from msdyn.scene import Tracks


def sideways_cameras(frames: int, step: float = 0.05) -> Cameras:
    poses = np.concatenate([placed(step * i, 0, 0) for i in range(frames)])
    return Cameras.pinhole(300, 320, 240, np.linalg.inv(poses))


def observe(cameras: Cameras, xyz: np.ndarray, seen: np.ndarray):
    """Return the exact observations (point, frame, xy) of points where `seen` [P, T]."""
    local = transform_points(cameras.cam_from_world, np.tile(xyz, (len(cameras), 1, 1)))
    xy = project(cameras.intrinsics, local)  # [T, P, 2]
    point, frame = np.nonzero(seen)
    return point, frame, xy[frame, point]


@given(seed=st.integers(0, 1000))
def test_triangulation_is_exact_on_exact_observations_in_any_order(seed):
    rng = np.random.default_rng(seed)
    cameras = sideways_cameras(12)
    xyz = rng.uniform([-1, -1, 2], [1, 1, 6], (40, 3))
    seen = rng.random((40, 12)) < 0.6
    seen[:, [0, 11]] = True
    point, frame, xy = observe(cameras, xyz, seen)
    order = rng.permutation(len(point))
    solved = triangulate(cameras, point[order], frame[order], xy[order])
    assert np.abs(solved.xyz - xyz).max() < 1e-11  # worst 1e-14
    assert solved.error.max() < 1e-10
    assert solved.in_front.all()
    to_ends = xyz[:, None] - cameras.centres[[0, 11]]
    to_ends /= np.linalg.norm(to_ends, axis=2, keepdims=True)
    expected = np.degrees(np.arccos((to_ends[:, 0] * to_ends[:, 1]).sum(1)))
    np.testing.assert_allclose(solved.angle, expected, atol=1e-10)


@pytest.mark.slow
def test_triangulation_in_blocks_is_the_same_and_takes_no_more_memory(monkeypatch):
    rng = np.random.default_rng(0)
    cameras = sideways_cameras(20)
    xyz = rng.uniform([-1, -1, 2], [1, 1, 6], (1200, 3))
    seen = rng.random((1200, 20)) < 0.5
    seen[700:900] = False  # points without observations, a block of them
    point, frame, xy = observe(cameras, xyz, seen)
    xy = xy + rng.normal(0, 0.3, xy.shape)
    order = rng.permutation(len(point))
    point, frame, xy = point[order], frame[order], xy[order]
    whole = triangulate(cameras, point, frame, xy)
    for block in (1, 7, 1000):
        monkeypatch.setattr("msdyn.preprocess.multiview.triangulation.BLOCK", block)
        if block == 1:  # a block a point is slow
            few = point < 100
            parts = triangulate(cameras, point[few], frame[few], xy[few])
            np.testing.assert_array_equal(parts.xyz, whole.xyz[:100])
            continue
        parts = triangulate(cameras, point, frame, xy)
        for name in ("xyz", "residual", "angle", "sigma", "in_front", "error"):
            np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))

    def peak(copies):
        again = [point + 1200 * i for i in range(copies)]
        arguments = np.concatenate(again), np.tile(frame, copies), np.tile(xy, (copies, 1))
        tracemalloc.start()
        triangulate(cameras, *arguments)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    once, more = peak(1), peak(4)
    # What comes in and goes out, 93 bytes an observation; solved at once it is 1000.
    assert (more - once) / (3 * len(point)) < 200


def test_triangulation_withstands_wrong_observations_and_knows_how_sure_it_is():
    rng = np.random.default_rng(0)
    cameras = sideways_cameras(20)
    xyz = rng.uniform([-1, -1, 2], [1, 1, 6], (600, 3))
    point, frame, xy = observe(cameras, xyz, np.ones((600, 20), bool))
    xy = xy + rng.normal(0, 0.3, xy.shape)
    wrong = rng.random(len(xy)) < 0.1
    xy[wrong] += rng.uniform(-30, 30, (wrong.sum(), 2))
    solved = triangulate(cameras, point, frame, xy)
    away = np.linalg.norm(solved.xyz - xyz, axis=1) / np.linalg.norm(xyz, axis=1)
    assert np.median(away) < 0.003  # 0.0020; with the outliers taken at their word 0.028
    assert np.percentile(away, 95) < 0.01  # 0.0068
    within_one_sigma = (away < solved.sigma).mean()
    assert 0.6 < within_one_sigma < 0.97  # 0.92: the outliers widen sigma


def test_triangulation_of_hopeless_points_is_finite_and_says_so():
    cameras = sideways_cameras(5)
    behind = np.array([[0.1, 0.2, -3.0]])
    point, frame, xy = observe(cameras, behind, np.ones((1, 5), bool))
    assert not triangulate(cameras, point, frame, xy).in_front[0]
    once = triangulate(cameras, np.array([2]), np.array([3]), np.array([[100.0, 100.0]]))
    assert len(once.xyz) == 3 and np.isfinite(once.xyz).all()
    assert once.angle[2] < 1e-5
    parallel = triangulate(
        cameras, np.zeros(5, int), np.arange(5), np.full((5, 2), 120.0)
    )  # at infinity
    assert np.isfinite(parallel.xyz).all() and parallel.angle[0] < 1e-4


def test_tracks_that_do_not_fit_are_left_out():
    rng = np.random.default_rng(0)
    cameras = sideways_cameras(15)
    xyz = rng.uniform([-1, -1, 2], [1, 1, 5], (60, 3))
    _, _, xy = observe(cameras, xyz, np.ones((60, 15), bool))
    xy = xy.reshape(60, 15, 2)
    xy[:10] += 12 * np.sin(np.arange(15))[:, None]  # ten points that move by themselves
    ones = np.ones((60, 15))
    tracks = Tracks.from_dense(xy, ones > 0, ones, np.zeros(60), np.zeros(60))
    points, sigma = triangulate_tracks(tracks, cameras)
    assert len(points.xyz) == 50 and len(sigma) == 50
    np.testing.assert_allclose(points.xyz, xyz[10:], rtol=1e-3)
    assert reprojection_error(points, cameras) < 1e-3
    assert triangulation_angles(points, cameras).min() > 1


def test_reprojection_error_of_nothing_is_infinite():
    assert reprojection_error(SparsePoints.empty(), sideways_cameras(3)) == float("inf")


def turning_tracks(noise: float, shift: float = 0.0) -> tuple[Tracks, np.ndarray]:
    """Tracks of a camera of focal length 280 that rotates (and translates by `shift`)."""
    rng = np.random.default_rng(1)
    frames = 30
    turns = np.stack([np.linspace(0, 0.1, frames), np.linspace(0, 0.4, frames) ** 1.5], 1)
    rotations = Rotation.from_rotvec(np.c_[turns, 0.05 * np.sin(np.arange(frames) / 5)]).as_matrix()
    rotations = rotations @ rotations[0].T
    xyz = np.c_[rng.uniform(-3, 4, 800), rng.uniform(-2, 2, 800), rng.uniform(2, 6, 800)]
    centres = np.linspace(0, shift, frames)[:, None] * [1.0, 0, 0]
    local = (xyz - centres[:, None]) @ rotations.swapaxes(1, 2)  # [T, N, 3]
    xy = (280 * local[..., :2] / local[..., 2:] + [160, 120]).transpose(1, 0, 2)
    visible = (xy > 0).all(-1) & (xy < [320, 240]).all(-1) & (local[..., 2].T > 0)
    xy = np.where(visible[..., None], xy + rng.normal(0, noise, xy.shape), 0)
    none = np.zeros(len(xy))
    return Tracks.from_dense(xy, visible, visible.astype(float), none, none), rotations


def middle(focal):
    """Return intrinsics of images of 320x240, with the principal point in the middle."""
    return np.array([[focal, 0, 160.0], [0, focal, 120], [0, 0, 1]])


@pytest.mark.parametrize("guess", [180, 280, 450])
def test_turning_camera_is_solved_whatever_focal_length_is_guessed(guess):
    tracks, rotations = turning_tracks(noise=0.0)
    solved = solve_rotations(tracks, middle(guess))
    assert solved is not None
    assert solved.focal == pytest.approx(280, rel=2e-4)  # worst 6e-5: the prior
    assert np.abs(solved.rotations - rotations).max() < 1e-4  # worst 1.2e-5
    assert solved.parallax < 1e-3


def test_turning_camera_from_noisy_tracks():
    tracks, rotations = turning_tracks(noise=0.3)
    solved = solve_rotations(tracks, middle(350))
    assert solved is not None
    assert solved.focal == pytest.approx(280, rel=5e-3)
    relative = solved.rotations @ rotations.swapaxes(1, 2)
    off = Rotation.from_matrix(relative).magnitude()
    assert np.degrees(off).max() < 0.15  # 0.05
    assert 0.1 < solved.parallax < 0.25  # the noise itself: 0.16


def test_known_intrinsics_of_a_turning_camera_are_kept():
    """Rows stretched by 1.1 and moved: pixels that are not square, an off-centre principal point.

    With other intrinsics the rotations leave parallax.
    """
    tracks, rotations = turning_tracks(noise=0.0)
    stretched = replace(tracks, run_xy=(tracks.run_xy * [1, 1.1] + [3, -20]).astype(np.float32))
    k = np.array([[280, 0, 163], [0, 308, 112], [0, 0, 1.0]])
    solved = solve_rotations(stretched, k, fixed=True)
    assert solved is not None and solved.focal == 280
    assert np.abs(solved.rotations - rotations).max() < 1e-4 and solved.parallax < 1e-3
    wrong = solve_rotations(stretched, middle(400), fixed=True)
    assert wrong is not None and wrong.focal == 400 and wrong.parallax > 0.2


def test_a_shifted_camera_leaves_parallax_that_turning_does_not_explain():
    tracks, _ = turning_tracks(noise=0.0, shift=0.5)
    solved = solve_rotations(tracks, middle(280))
    assert solved is not None and solved.parallax > 1


@pytest.mark.parametrize("block", [1, 7, 50])
def test_rotations_in_blocks_of_pairs_are_the_same(monkeypatch, block):
    tracks, _ = turning_tracks(noise=0.3, shift=0.1)
    monkeypatch.setattr(rotation_only, "BLOCK", 10**6)
    whole = solve_rotations(tracks, middle(350))
    monkeypatch.setattr(rotation_only, "BLOCK", block)
    parts = solve_rotations(tracks, middle(350))
    assert whole is not None and parts is not None
    np.testing.assert_array_equal(parts.rotations, whole.rotations)
    assert (parts.focal, parts.error, parts.parallax) == (whole.focal, whole.error, whole.parallax)


def test_a_step_takes_as_much_memory_for_four_times_the_pairs(monkeypatch):
    tracks, _ = turning_tracks(noise=0.3)
    pairs = rotation_only._match_pairs(tracks, middle(280), 0)
    assert pairs is not None
    count, matches = len(pairs.start), len(pairs.pair)
    four = rotation_only._Pairs(
        np.tile(pairs.first, 4),
        np.tile(pairs.second, 4),
        np.concatenate([pairs.start + i * matches for i in range(4)]),
        np.concatenate([pairs.pair + i * count for i in range(4)]),
        np.tile(pairs.a, (4, 1)),
        np.tile(pairs.b, (4, 1)),
    )
    monkeypatch.setattr(rotation_only, "BLOCK", 10)

    def peak(some):
        rotations = np.tile(np.eye(3), (30, 1, 1))
        tracemalloc.start()
        rotation_only._step(some, rotations, 280, 280, fixed=False)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert (peak(four) - peak(pairs)) / (3 * matches) < 60  # bytes a match; at once 860


def test_no_shared_tracks_no_rotations():
    tracks, _ = turning_tracks(noise=0.0)
    assert solve_rotations(tracks.select(np.arange(5)), middle(280)) is None


def test_background_motion():
    xy = np.zeros((50, 20, 2)) + np.arange(50)[:, None, None]
    seen = np.ones((50, 20), bool)

    def motion(xy, seen):
        rest = seen.astype(float), np.zeros(50), np.zeros(50)
        return background_motion(Tracks.from_dense(xy, seen, *rest))

    assert motion(xy, seen) == 0
    drifting = xy + np.arange(20)[:, None] * [0.3, 0.4]
    assert motion(drifting, seen) == pytest.approx(5, rel=1e-5)
    # A camera that is static for most of the clip and then moves is not static.
    late = xy + np.maximum(np.arange(20) - 14, 0)[:, None] * [3.0, 0]
    assert motion(late, seen) > 5
    brief = np.eye(20, dtype=bool)[np.arange(50) % 20]
    assert motion(xy, brief) == float("inf")


def test_unknown_cameras_lie_between_their_neighbours():
    turn = [placed(0.1 * i, 0, 0, yaw=4 * i)[0] for i in range(7)]
    cameras = Cameras.pinhole(300, 320, 240, np.linalg.inv(np.stack(turn)))
    known = np.array([False, True, True, False, False, True, False])
    perturbed = cameras.cam_from_world.copy()
    perturbed[~known] = np.eye(4)
    filled = interpolate_cameras(replace(cameras, cam_from_world=perturbed), known)
    # Steady motion is what interpolation assumes, so inside it is exact; outside it is held.
    np.testing.assert_allclose(filled.cam_from_world[1:6], cameras.cam_from_world[1:6], atol=1e-12)
    np.testing.assert_allclose(filled.cam_from_world[0], cameras.cam_from_world[1], atol=1e-12)
    np.testing.assert_allclose(filled.cam_from_world[6], cameras.cam_from_world[5], atol=1e-12)
    alone = interpolate_cameras(cameras, np.arange(7) == 3)
    np.testing.assert_allclose(
        alone.cam_from_world, np.tile(cameras.cam_from_world[3], (7, 1, 1)), atol=1e-12
    )


def test_the_share_of_tracks_that_cameras_explain():
    rng = np.random.default_rng(0)
    cameras = sideways_cameras(12)
    xyz = rng.uniform([-0.3, -0.6, 2], [0.8, 0.6, 6], (400, 3))
    _, _, xy = observe(cameras, xyz, np.ones((400, 12), bool))
    xy = xy.reshape(400, 12, 2) + rng.normal(0, 0.2, (400, 12, 2))
    # A quarter moves by itself, up and down.
    xy[:100, :, 1] += 8 * np.sin(np.arange(12) + rng.uniform(0, 6, (100, 1)))
    seen = ((xy > 0) & (xy < [320, 240])).all(-1)
    none, every = np.zeros(400, int), np.ones(12, bool)
    tracks = Tracks.from_dense(
        np.where(seen[..., None], xy, 0), seen, seen.astype(float), none, none
    )
    assert explained_share(cameras, tracks, every) == pytest.approx(0.75, abs=0.02)
    # Frames without a camera of their own are left out.
    off = cameras.cam_from_world.copy()
    off[6:, 1, 3] += np.array([3.0, -2, 4, 1, -3, 2])
    wrong = replace(cameras, cam_from_world=off)
    assert explained_share(wrong, tracks, every) < 0.1
    assert explained_share(wrong, tracks, every & (np.arange(12) < 6)) > 0.7
    assert explained_share(cameras, tracks.select(slice(19)), every) is None
    assert explained_share(cameras, tracks.select(slice(0)), every) is None
    assert explained_share(cameras, tracks, ~every) is None


def test_a_long_focal_length_is_no_evidence_of_a_rotating_camera():
    """A wall moves and turns before the camera: rotations fit it best with a long focal length."""
    rng = np.random.default_rng(0)
    wall = np.c_[rng.uniform(-2.6, 2.6, 600), rng.uniform(-2, 2, 600), np.zeros(600), np.ones(600)]
    steps = np.arange(12) - 5.5
    poses = [placed(0.05 * t, 0.05 * t, 4, yaw=t, pitch=t) for t in steps]
    local = (np.concatenate(poses) @ wall.T)[:, :3]
    xy = (300 * local[:, :2] / local[:, 2:]).transpose(2, 0, 1) + [160, 120]
    seen = ((xy > 0) & (xy < [320, 240])).all(-1)
    xy, seen = np.where(seen[..., None], xy, 0)[seen.any(1)], seen[seen.any(1)]
    none = np.zeros(len(xy), int)
    tracks = Tracks.from_dense(xy, seen, seen.astype(float), none, seen.argmax(1))
    guess = np.array([[272.0, 0, 160], [0, 272, 120], [0, 0, 1]])
    solved = solve_rotations(tracks, guess)
    assert solved is not None and solved.focal > 1.5 * 300  # 531
    assert solved.angle < 0.6 and solved.parallax > 1  # .55 and 1.07 degrees


GOOD = CameraFigures("moving", 640, 50, 50, 0.5, 9.0, 40.0, 10.0, (500.0, 510.0), 0.03, 0.1)


@pytest.mark.parametrize(
    ("change", "grade", "words"),
    [
        ({}, "good", ""),
        ({"motion": "static", "background_px": 0.2}, "poor", "camera is static"),
        (
            {"motion": "rotating"},
            "poor",
            "rotating in one place (the background moves 40 px in ten",
        ),
        (
            {"motion": "rotating", "background_px": 0.83},
            "poor",
            "nearly static (the background moves 0.83",
        ),
        ({"motion": "unknown", "registered": 0}, "poor", "only 0 of 50 frames"),
        ({"registered": 39}, "poor", "only 39 of 50 frames"),
        ({"registered": 40}, "usable", "10 of 50 frames"),
        ({"error": 1.3}, "poor", "1.30 px, expected at most 1.20"),
        ({"error": 1.3, "long_side": 1708}, "good", ""),
        ({"focals": (660.0, 910.0)}, "poor", "ambiguous (660 or 910 px"),
        ({"focals": (600.0, 655.0)}, "good", ""),
        ({"angle": 1.9}, "poor", "1.9 degrees"),
        ({"angle": 3.0}, "usable", "3.0 degrees"),
        ({"angle": 1.9, "background_px": 74.0}, "poor", "the background moves 74 px in ten frames"),
        ({"focal_error": None}, "good", ""),
        ({"focal_error": 0.12}, "usable", "known to 12%"),
        ({"focal_error": 0.25}, "poor", "ambiguous (known to 25%"),
        ({"planar": 0.997}, "good", ""),
        ({"planar": 0.997, "focal_error": None}, "usable", "99.7% of the pairs of frames"),
        ({"planar": 0.997, "focal_error": 0.06}, "usable", "99.7% of the pairs of frames"),
        ({"planar": 0.997, "focal_error": 0.12}, "poor", "99.7% of the pairs of frames"),
        ({"explained": 0.6, "frame_points": 30}, "good", ""),
        ({"explained": 0.5}, "poor", "explain only 50% of what is taken for static"),
        ({"frame_points": 12}, "poor", "rest on 12 static points per frame"),
        ({"motion": "unknown", "given": True, "planar": None}, "good", ""),
        ({"motion": "static", "given": True, "background_px": 0.1}, "poor", "camera is static"),
    ],
)
def test_verdicts(change, grade, words):
    verdict = judge_cameras(replace(GOOD, **change))
    assert verdict.grade == grade
    assert words in verdict.reason and "\n" not in verdict.reason + verdict.cure
    if grade == "good":
        assert verdict.reason == verdict.cure == ""
    if grade == "poor":
        # Depth does not help where the cameras themselves are wrong.
        files = (
            "--cameras files" if change.keys() & {"explained", "frame_points"} else "--depth files"
        )
        assert files in verdict.cure and "--accept-poor" in verdict.cure


@pytest.mark.parametrize(
    ("error", "parallax", "angle", "points", "expected"),
    [
        # A clip of a hand-held camera that hardly moves: nothing is triangulated in most frames.
        (0.26, 1.28, 0.58, 0, True),
        # The same where points are found: they are the better explanation.
        (0.26, 1.28, 0.58, 200, False),
        # Rotations of a long focal length that do not fit, or leave parallax.
        (4.0, 1.28, 0.58, 0, False),
        (0.26, 2.5, 1.2, 0, False),
        (0.26, 0.8, 0.8, 200, True),
    ],
)
def test_rotations_explain_what_structure_from_motion_does_not(
    error, parallax, angle, points, expected
):
    turns = np.tile(np.eye(3), (44, 1, 1))
    rotating = RotationSolution(717.0, turns, error, parallax, angle)
    figures = CameraFigures("moving", 384, 44, frame_points=points)
    assert may_rotate(rotating, figures) == expected
