"""The joint refinement of the levels: its equations against oracles, and bodies of known motion."""

import numpy as np
import pytest
from bodies import FRAMES, laptop, lifted, rigid_body, rotations, short_tracks
from scipy.spatial.transform import Rotation

from msdyn.motion import build_hierarchy, refine_levels
from msdyn.motion.joint_refinement import _Body
from msdyn.motion.smooth_poses import Accelerations, SmoothPoses, solve_over_time
from msdyn.scene import canonical_frame

TIMES = np.arange(float(FRAMES))
CENTRES = np.zeros((FRAMES, 3))
UNEVEN = np.array([0.0, 1, 2, 4, 5, 8, 9, 10])


def refined(tracks, centres=CENTRES):
    canonical = canonical_frame(tracks)
    hierarchy = build_hierarchy(tracks, canonical, k_primitive=2, k_grain=2)
    return hierarchy, refine_levels(hierarchy, tracks, centres, TIMES)


def errors(hierarchy, truth):
    """Distances [N, T] of the trajectories from the truth, which may differ from the input."""
    return np.linalg.norm(hierarchy.trajectories() - truth, axis=-1)


def acceleration_matrix(times):
    """The second derivative of the parabola through each three successive values."""
    matrix = np.zeros((max(len(times) - 2, 0), len(times)))
    for row in range(len(matrix)):
        three = times[row : row + 3] - times[row]
        matrix[row, row : row + 3] = 2 * np.linalg.inv(np.vander(three, increasing=True))[2]
    return matrix


def test_accelerations_of_quadratic_motion_are_exact_at_uneven_times():
    path = 3 - 2 * UNEVEN + 0.35 * UNEVEN**2
    for lag in (1, 2, 3):
        values = Accelerations.at(UNEVEN, lag).of(path)
        assert len(values) == len(UNEVEN) - 2 * lag
        np.testing.assert_allclose(values, 0.7, atol=1e-12)
    assert len(Accelerations.at(UNEVEN[:2]).of(path[:2])) == 0


def test_accelerations_as_a_matrix():
    matrix, rng = acceleration_matrix(UNEVEN), np.random.default_rng(7)
    accelerations = Accelerations.at(UNEVEN)
    values, forces = rng.normal(size=(8, 2)), rng.normal(size=(6, 2))
    np.testing.assert_allclose(accelerations.of(values), matrix @ values)
    np.testing.assert_allclose(accelerations.of_moves(np.diff(values, axis=0)), matrix @ values)
    np.testing.assert_allclose(accelerations.transposed(forces, 8), matrix.T @ forces)
    for offset, diagonal in enumerate(accelerations.couplings(8)):
        np.testing.assert_allclose(diagonal, np.diag(matrix.T @ matrix, offset))


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
def test_banded_equations_are_those_of_a_dense_solver(frames):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(frames, 4, 4))
    blocks, right = root @ root.swapaxes(1, 2), rng.normal(size=(frames, 4))
    smooth, own, times = rng.uniform(1, 2, 4), rng.uniform(1, 2, 4), UNEVEN[:frames]
    dense = np.zeros((frames, 4, frames, 4))
    difference = acceleration_matrix(times)
    for i in range(4):
        dense[:, i, :, i] += smooth[i] * difference.T @ difference + own[i] * np.eye(frames)
    for t in range(frames):
        dense[t, :, t] += blocks[t]
    expected = np.linalg.solve(dense.reshape(4 * frames, -1), right.reshape(-1))
    found = solve_over_time(blocks, right, smooth, own, times)
    np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-6, atol=1e-9)


def test_the_prior_has_the_gradient_of_its_squared_errors():
    """Rotations share an axis, about which the acceleration is linear in the changes."""
    rng = np.random.default_rng(1)
    turns = rotations([1, 2, 0], rng.uniform(-40, 40, 8))[None]
    poses = SmoothPoses(np.zeros((1, 3)), turns, rng.normal(size=(1, 8, 3)), UNEVEN, 0.5, 0.3)
    poses.radius[:], poses.acceleration[:] = 0.4, 0.05

    def value(changed):
        vectors = Rotation.from_matrix(changed.rotations[0]).as_rotvec()
        both = np.concatenate([0.4 * vectors, changed.translations[0]], axis=1)
        accelerations = acceleration_matrix(UNEVEN) @ both
        own = (vectors / 0.5) ** 2, (changed.translations[0] / 0.3) ** 2
        return 0.5 * ((accelerations / 0.05) ** 2).sum() + 0.5 * sum(part.sum() for part in own)

    axis = np.array([1.0, 2, 0]) / np.sqrt(5)
    gradient = poses.prior_gradient(0)
    for frame in range(8):
        for direction in (np.r_[axis, 0, 0, 0], np.eye(6)[3], np.eye(6)[5]):
            ends = []
            for sign in (1, -1):
                changed, step = poses.copy(), np.zeros((8, 6))
                step[frame] = sign * 1e-5 * direction
                changed.step(0, step)
                ends.append(value(changed))
            slope = (ends[0] - ends[1]) / 2e-5
            assert gradient[frame] @ direction == pytest.approx(slope, rel=1e-5, abs=1e-4)


def test_steps_minimise_the_squared_errors_of_all_levels():
    """At the minimum that the steps find, no change of any pose in any frame is an improvement."""
    rng = np.random.default_rng(2)
    tracks = lifted(laptop(rng, 20), noise=0.004, rng=rng)
    tracks.visible[:20, 5:9] = False
    tracks.xyz[:20, 5:9] = 0
    hierarchy = build_hierarchy(tracks, FRAMES - 1, k_primitive=2, k_grain=2)
    levels = [
        SmoothPoses(level.centres, level.about.rotation, level.about.translation, TIMES, 0.5, 0.1)
        for level in hierarchy.levels
    ]
    labels = [level.labels for level in hierarchy.levels]
    weights = tracks.visible.astype(float)
    body = _Body.of(levels, labels, hierarchy.points, tracks.xyz, weights, CENTRES)
    for level in levels:
        level.acceleration[:], level.radius[:] = 0.003, 0.2
    body.robust_weights = lambda distance: weights / 0.004**2  # a fixed, quadratic loss
    for _ in range(40):
        body.step_upper()
        body.step_grains()

    def value():
        squares = (body.errors()[1] ** 2 * weights / 0.004**2).sum()
        for level in levels:
            for pattern in range(len(level)):
                turns = Rotation.from_matrix(level.rotations[pattern]).as_rotvec()
                poses = np.concatenate([turns, level.translations[pattern]], axis=1)
                smooth, own = level.precision(pattern)
                squares += ((acceleration_matrix(TIMES) @ poses) ** 2 * smooth).sum()
                squares += (poses**2 * own).sum()
        return squares

    least = value()
    for level in levels:
        for pattern in range(len(level)):
            for sign in (1, -1):
                for direction in np.eye(6)[pattern % 2 :: 2]:
                    before = level.rotations[pattern].copy(), level.translations[pattern].copy()
                    change = np.zeros((FRAMES, 6))
                    change[7] = sign * 2e-3 * direction
                    level.step(pattern, change)
                    assert value() > least
                    level.rotations[pattern], level.translations[pattern] = before


def test_exact_tracks_of_rigid_bodies_keep_their_motion():
    rng = np.random.default_rng(3)
    xyz, _, _ = rigid_body(rng, np.array([0, 0, 2.0]), [0, 1, 0.3], 80, [0.3, 0.1, 0.2])
    _, after = refined(lifted(xyz))
    assert errors(after, xyz).max() < 1e-7  # .1 of a micrometre, at 2 m


def test_noise_is_averaged_over_frames():
    rng = np.random.default_rng(4)
    xyz, _, _ = rigid_body(rng, np.array([0, 0, 2.0]), [0, 1, 0.3], 80, [0.3, 0.1, 0.2], count=20)
    before, after = refined(lifted(xyz, noise=0.01, rng=rng))
    rms = [np.sqrt((errors(h, xyz) ** 2).mean()) for h in (before, after)]
    assert rms[1] < 0.6 * rms[0]  # .40 when written


@pytest.mark.parametrize("hidden", [slice(0, 5), slice(12, 18), slice(FRAMES - 5, FRAMES)])
def test_a_hidden_part_goes_on_as_it_moved(hidden):
    """The base of a laptop, which bends in and out of its plane, is hidden; the lid is not."""
    rng = np.random.default_rng(5)
    xyz = laptop(rng)
    wave = np.sin(np.linspace(0, 3, FRAMES))
    xyz = xyz + 0.1 * wave[:, None] * np.array([0.0, 1, 0.5])
    visible = np.ones(xyz.shape[:2], bool)
    visible[:80, hidden] = False
    before, after = refined(lifted(xyz, visible=visible))
    lost = [errors(h, xyz)[:80, hidden].mean() for h in (before, after)]
    assert lost[1] < 0.4 * lost[0] or lost[1] < 1e-4
    assert errors(after, xyz)[visible].mean() < 2e-3


@pytest.mark.parametrize("case", ["few frames", "few tracks", "one", "end unseen", "still"])
def test_degenerate_input_stays_finite(case):
    rng = np.random.default_rng(6)
    xyz = laptop(rng, 40)
    visible = short_tracks(rng, len(xyz))
    visible[np.arange(len(xyz)), rng.integers(0, FRAMES, len(xyz))] = True
    times, centres = TIMES, CENTRES
    if case == "few frames":
        xyz, visible, times, centres = xyz[:, :4], np.ones((80, 4), bool), TIMES[:4], CENTRES[:4]
    elif case in {"few tracks", "one"}:
        count = 3 if case == "few tracks" else 1
        xyz, visible = xyz[:count], visible[:count]
    elif case == "end unseen":
        visible[:, -6:] = False
        visible[:, 0] = True
    else:
        xyz, visible = np.repeat(xyz[:, :1], FRAMES, axis=1), np.ones(visible.shape, bool)
    tracks = lifted(xyz, visible=visible)
    hierarchy = build_hierarchy(tracks, canonical_frame(tracks))
    after = refine_levels(hierarchy, tracks, centres, times)
    assert np.isfinite(after.trajectories()).all() and np.isfinite(after.residuals).all()
    if case in {"few frames", "few tracks", "one"}:
        np.testing.assert_array_equal(after.trajectories(), hierarchy.trajectories())
    if case == "still":
        assert errors(after, xyz).max() < 1e-9
