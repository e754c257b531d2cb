"""Motion of occluded objects and parts, short tracks, and tracks with wrong depth."""

import numpy as np
import pytest
from bodies import FRAMES, laptop, lifted, rigid_body

from msdyn.geometry import Rigid
from msdyn.motion import build_hierarchy
from msdyn.motion.alignment import RigidMotion, canonical_positions, inliers
from msdyn.motion.occlusion import carrier_through_occlusion, infer_occluded_motions


def test_an_occluded_part_moves_with_the_part_it_is_connected_to():
    """The keys of a laptop are occluded by the closing lid; the front edge stays visible."""
    xyz = laptop(np.random.default_rng(0))
    keys = np.flatnonzero(xyz[:80, 0, 2] < 2.2)  # the half of the base next to the hinge
    visible = np.ones(xyz.shape[:2], bool)
    visible[keys, 18:25] = False
    moved = build_hierarchy(lifted(xyz, visible=visible), 0).trajectories()
    error = np.linalg.norm(moved - xyz, axis=-1)
    # The motion of the lid, that of the object and interpolation have errors of centimetres there.
    assert error[keys, 18:25].max() < 1e-6 and error[visible].max() < 1e-6


def test_an_occluded_static_part_stays_static():
    """The base is static in the world while the lid rotates and occludes it."""
    xyz = laptop(np.random.default_rng(1))
    xyz = xyz - np.c_[0.3 * np.linspace(0, 1, FRAMES), np.zeros(FRAMES),
                      0.1 * np.linspace(0, 1, FRAMES)]  # fmt: skip
    visible = np.ones(xyz.shape[:2], bool)
    visible[:80, 20:] = False
    moved = build_hierarchy(lifted(xyz, visible=visible), 0).trajectories()
    assert np.linalg.norm(moved - xyz, axis=-1)[:80, 20:].max() < 1e-6


def test_short_tracks_are_assigned_to_the_nearest_part():
    """Tracks of five frames, whose motion is ambiguous because of noise."""
    rng = np.random.default_rng(2)
    xyz = laptop(rng)
    visible = np.ones(xyz.shape[:2], bool)
    brief = np.flatnonzero(np.arange(160) % 8 == 0)
    visible[brief, 5:] = False
    tracks = lifted(xyz, visible=visible, noise=0.004, rng=rng)
    hierarchy = build_hierarchy(tracks, FRAMES - 1, levels=2)
    error = np.linalg.norm(hierarchy.trajectories() - xyz, axis=-1)[brief].mean(1)
    # The error on the wrong plate would be 0.2 in the last frame.
    assert np.mean(error > 0.1) <= 0.1, error.round(3)


def test_background_depth_does_not_bias_a_pattern():
    """In one frame a single track of a patch is visible, with a depth 1.5 m behind the object."""
    rng = np.random.default_rng(3)
    xyz, *_ = rigid_body(rng, np.array([0, 0, 2.0]), [0, 1, 0], 60, [0.3, 0, 0], count=100)
    xyz = xyz + rng.normal(0, 0.003, xyz.shape)
    patch = np.argsort(xyz[:, 0, 0])[:12]
    visible = np.ones(xyz.shape[:2], bool)
    visible[patch[1:], 14] = False
    observed = xyz.copy()
    observed[patch[0], 14, 2] += 1.5
    hierarchy = build_hierarchy(lifted(observed, visible=visible), 0)
    error = np.linalg.norm(hierarchy.trajectories() - xyz, axis=-1)
    assert error.max() < 0.03
    assert hierarchy.weights[patch[0], 14] == 0 and hierarchy.weights[patch[0], 13] > 0


def test_canonical_positions_are_robust():
    rng = np.random.default_rng(4)
    true = rng.normal(size=(50, 3))
    undone = true[:, None] + rng.normal(0, 0.01, (50, 21, 3))
    undone[:, :3] += 2.0  # a wrong surface in three frames
    weights = np.ones((50, 21))
    weights[:, -4:] = 0
    undone[:, -4:] = 1e6  # not visible, so ignored
    positions, spread = canonical_positions(undone, weights)
    assert np.linalg.norm(positions - true, axis=1).mean() < 0.01
    assert (spread > 0.1).all()  # the spread includes the wrong surface
    assert inliers(undone, positions, weights)[:, 3:].all()
    assert not inliers(undone, positions, weights)[:, :3].any()


def test_a_single_observation_is_the_canonical_position():
    positions, spread = canonical_positions(np.ones((1, 4, 3)), np.array([[0, 0, 0.5, 0]]))
    np.testing.assert_allclose(positions, 1)
    assert spread[0] == pytest.approx(0, abs=1e-20)


def test_visible_clusters_are_unchanged():
    rng = np.random.default_rng(5)
    _, rotations, translations = rigid_body(rng, np.zeros(3), [0, 1, 0], 40, [0.1, 0, 0])
    motion = RigidMotion(np.zeros(3), Rigid(rotations, translations))
    static = RigidMotion.identity(np.zeros(3), FRAMES)
    points = [rng.normal(size=(9, 3))] * 2
    variance = np.full((2, FRAMES), np.inf)
    filled = infer_occluded_motions(
        [motion, static], points, np.ones((2, FRAMES), bool), static, variance
    )
    np.testing.assert_array_equal(filled[0].rotations, rotations)
    # A cluster that is never visible has no reference and is unchanged.
    visible = np.stack([np.zeros(FRAMES, bool), np.ones(FRAMES, bool)])
    filled = infer_occluded_motions([motion, static], points, visible, static, variance)
    np.testing.assert_array_equal(filled[0].rotations, rotations)


def test_a_part_with_a_short_occlusion_is_the_reference_during_longer_ones():
    """Two halves of a plate, next to a part of different motion; one half reappears first."""
    rng = np.random.default_rng(9)
    _, rotations, translations = rigid_body(rng, np.zeros(3), [0, 1, 0], 90, [0.3, 0, 0.1])
    truth = RigidMotion(np.zeros(3), Rigid(rotations, translations))
    _, *other = rigid_body(rng, np.zeros(3), [1, 0, 0], 60, [-0.2, 0.1, 0])
    visible = np.ones((3, FRAMES), bool)
    visible[0, 14] = False
    visible[1, 12:17] = False
    halves = []
    for row in (0, 1):  # estimates in occluded frames are arbitrary
        estimated = [truth.rotations.copy(), truth.translations.copy()]
        estimated[0][~visible[row]], estimated[1][~visible[row]] = np.eye(3), 5.0
        halves.append(RigidMotion(np.zeros(3), Rigid(*estimated)))
    points = [rng.uniform(-0.2, 0.2, (9, 3)) for _ in range(3)]
    static = RigidMotion.identity(np.zeros(3), FRAMES)
    variance = np.full((3, FRAMES), np.inf)
    third = RigidMotion(np.zeros(3), Rigid(*other))
    filled = infer_occluded_motions([*halves, third], points, visible, static, variance)
    error = np.linalg.norm(filled[1].apply(points[1]) - truth.apply(points[1]), axis=-1)
    assert error[:, [12, 13, 15, 16]].max() < 1e-9
    assert error[:, 14].max() < 0.1  # both are occluded


def test_a_fully_occluded_object_moves_with_its_carrier():
    """A hand moves and rotates a box. During an occlusion all tracks of the box end."""
    rng = np.random.default_rng(6)
    hand, rotations, translations = rigid_body(
        rng, np.array([0, 0, 2.0]), [0, 1, 0.2], 80, [0.4, 0, 0]
    )
    box = rng.uniform(-0.05, 0.05, (60, 3)) + [0.1, 0.05, 2.0]
    box = np.einsum("tij,nj->nti", rotations, box) + translations
    visible = np.ones((len(hand) + 60, FRAMES), bool)
    visible[len(hand) :, 12:18] = False
    visible[len(hand) : len(hand) + 30, 12:] = False
    visible[len(hand) + 30 :, :18] = False
    tracks = lifted(hand, box, visible=visible)
    hierarchy = build_hierarchy(tracks, 0)
    error = np.linalg.norm(hierarchy.trajectories() - np.concatenate([hand, box]), axis=-1)
    assert error.max() < 1e-6
    # Without a carrier the rotation during the occlusion is unknown.
    alone = build_hierarchy(lifted(box, visible=visible[len(hand) :]), 0)
    assert np.linalg.norm(alone.trajectories() - box, axis=-1).max() > 0.02


@pytest.mark.slow
def test_the_last_tracks_before_an_occlusion_do_not_rotate_the_object():
    """As above, but the box is occluded gradually and depth next to the occluder is wrong."""
    rng = np.random.default_rng(8)
    hand, rotations, translations = rigid_body(
        rng, np.array([0, 0, 2.0]), [0, 1, 0.2], 80, [0.4, 0, 0], count=200
    )
    box = rng.uniform(-0.08, 0.08, (120, 3)) + [0.1, 0.05, 2.0]
    order = np.argsort(box[:60, 0])
    box = np.einsum("tij,nj->nti", rotations, box) + translations
    truth = np.concatenate([hand, box])
    visible = np.ones(truth.shape[:2], bool)
    before = len(hand) + order
    visible[before, 12:] = False
    for frame in (9, 10, 11):  # 25, 10 and 5 tracks are left
        visible[before[{9: 25, 10: 10, 11: 5}[frame] :], frame] = False
    visible[len(hand) + 60 :, :18] = False
    observed = truth + rng.normal(0, 0.003, truth.shape)
    # Depths next to the silhouette are a mixture with that of the occluder.
    observed[before, 9:12, 2] -= rng.uniform(0, 0.1, (60, 3))
    tracks = lifted(observed[: len(hand)], observed[len(hand) :], visible=visible)
    error = np.linalg.norm(build_hierarchy(tracks, 29).trajectories() - truth, axis=-1)
    # 0.008 to 0.012 for six seeds; 0.016 to 0.066 if the last tracks determine the pose.
    assert error[before, 18:].mean() < 0.014


def test_the_carrier_is_robust_against_outlier_tracks():
    """Two of thirty tracks on either side of the occlusion drift to a surface 1 m behind."""
    rng = np.random.default_rng(9)
    hand, rotations, translations = rigid_body(
        rng, np.array([0, 0, 2.0]), [0, 1, 0.2], 80, [0.4, 0, 0]
    )
    box = rng.uniform(-0.05, 0.05, (60, 3)) + [0.1, 0.05, 2.0]
    box = np.einsum("tij,nj->nti", rotations, box) + translations
    observed = box.copy()
    observed[:2, 6:10, 2] += 1.0
    observed[30:32, 20:24, 2] += 1.0
    weights = np.ones((60, FRAMES))
    weights[:, 12:18] = weights[:30, 12:] = weights[30:, :18] = 0
    carrier = RigidMotion(np.zeros(3), Rigid(rotations, translations))
    motion = carrier_through_occlusion(observed, weights, [carrier], 0)
    assert motion is not None
    np.testing.assert_allclose(motion.apply(box[:, 0]), box, atol=1e-9)


def test_no_carrier_is_needed_if_tracks_bridge_the_occlusion():
    rng = np.random.default_rng(7)
    xyz, rotations, translations = rigid_body(rng, np.zeros(3), [0, 1, 0], 40, [0.1, 0, 0])
    weights = np.ones(xyz.shape[:2])
    weights[:, 10:15] = 0
    carrier = RigidMotion(np.zeros(3), Rigid(rotations, translations))
    assert carrier_through_occlusion(xyz, weights, [carrier], 0) is None
    weights[:30, 10:], weights[30:, :15] = 0, 0
    motion = carrier_through_occlusion(xyz, weights, [carrier], 3)
    assert motion is not None
    np.testing.assert_allclose(motion.rotations[3], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(motion.undo(xyz), np.repeat(xyz[:, 3:4], FRAMES, 1), atol=1e-9)
