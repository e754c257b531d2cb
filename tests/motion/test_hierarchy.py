"""The L1-L3 builder on bodies of exactly known motion, and its defined degenerate cases."""

import numpy as np
import pytest
from bodies import FRAMES, laptop, lifted, rigid_body, sheet, short_tracks, two_bodies

from msdyn.errors import InputError
from msdyn.motion import build_hierarchy
from msdyn.scene import canonical_frame


def pose_error(motion, rotations, translations):
    """Maximum difference of a pattern from the true pose x -> R x + t."""
    shift = motion.translations + motion.centre - rotations @ motion.centre
    return max(np.abs(motion.rotations - rotations).max(), np.abs(shift - translations).max())


def test_two_rigid_bodies_are_recovered_to_float_precision():
    bodies = two_bodies(np.random.default_rng(0))
    hierarchy = build_hierarchy(lifted(*(b[0] for b in bodies)), 0, levels=1)
    assert hierarchy.objects.tolist() == [1, 2]
    for number, (_, rotations, translations) in enumerate(bodies):
        # Largest error observed: 3e-15.
        assert pose_error(hierarchy.levels[0].motion(number), rotations, translations) < 1e-12
    assert hierarchy.residuals[1] < 1e-12 < hierarchy.residuals[0]


def test_two_rigid_bodies_are_recovered_from_short_tracks():
    """Tracks of 12 frames on average, such as those of chained optical flow."""
    rng = np.random.default_rng(1)
    bodies = [b[0] for b in two_bodies(rng)]
    visible = short_tracks(rng, sum(map(len, bodies)))
    tracks = lifted(*bodies, visible=visible)
    hierarchy = build_hierarchy(tracks, canonical_frame(tracks), levels=1)
    assert hierarchy.residuals[1] < 1e-10  # largest observed: 1e-15


def test_two_hinged_plates_are_two_rigid_primitives():
    """L1 is a compromise between both, L2 is exact and leaves no residual for L3."""
    start, l1, l2, l3 = build_hierarchy(lifted(laptop(np.random.default_rng(2))), 0).residuals
    assert 0.2 < start and 0.04 < l1 < 0.06  # .233 and .049 when written
    assert l2 < 1e-12 and l3 < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    "body, fully_visible, bounds",
    [
        (sheet, True, (0.14, 0.04, 0.003, 0.0006)),  # .124 .031 .0018 .0004
        (sheet, False, (0.12, 0.015, 0.005, 0.0025)),  # .092 .0095 .0035 .0016
        (laptop, False, (0.22, 0.03, 0.009, 0.004)),  # .207 .017 .0066 .0026
    ],
)
def test_each_level_reduces_the_residual(body, fully_visible, bounds):
    """RMS residuals in metres on objects half a metre wide; comments give values when written."""
    rng = np.random.default_rng(2)
    xyz = body(rng)
    tracks = lifted(xyz, visible=None if fully_visible else short_tracks(rng, len(xyz)))
    residuals = build_hierarchy(tracks, canonical_frame(tracks)).residuals
    assert residuals == sorted(residuals, reverse=True) and len(set(residuals)) == 4
    assert all(value < bound for value, bound in zip(residuals, bounds, strict=True)), residuals


@pytest.mark.slow
@pytest.mark.parametrize("body", [laptop, sheet])
def test_noise_is_not_fitted(body):
    """With noise of 3 mm per coordinate the residual is about the noise level, not below it."""
    rng = np.random.default_rng(3)
    tracks = lifted(body(rng), noise=0.003, rng=rng)
    hierarchy = build_hierarchy(tracks, 0)
    floor = 0.003 * np.sqrt(3)
    assert 0.7 * floor < hierarchy.residuals[3] < 1.6 * floor
    assert hierarchy.noise == pytest.approx(0.003, rel=0.15)


def test_outliers_do_not_bias_the_motion_of_an_object():
    rng = np.random.default_rng(4)
    xyz, rotations, translations = rigid_body(
        rng, np.array([0, 0, 2.0]), [0, 1, 0], 60, [0.3, 0, 0], count=100
    )
    xyz[:8] = xyz[:8, :1] + np.cumsum(rng.normal(0, 0.02, (8, FRAMES, 3)), axis=1)
    hierarchy = build_hierarchy(lifted(xyz), 0, levels=1)
    # The error of least squares without robust weights is 0.03.
    assert pose_error(hierarchy.levels[0].motion(0), rotations, translations) < 5e-3


def test_the_hierarchy_is_a_tree_over_all_tracks():
    rng = np.random.default_rng(5)
    hierarchy = build_hierarchy(lifted(laptop(rng), sheet(rng)), 0, k_primitive=4, k_grain=3)
    objects, primitives, grains = hierarchy.levels
    assert len(objects) == 2 and 4 < len(primitives) <= 8 and len(grains) <= 24
    np.testing.assert_array_equal(primitives.parents[primitives.labels], objects.labels)
    np.testing.assert_array_equal(grains.parents[grains.labels], primitives.labels)


def test_hinged_plates_never_share_a_primitive():
    body = laptop(np.random.default_rng(6), count=60)
    labels = build_hierarchy(lifted(body), 0, levels=2).levels[1].labels
    assert not set(labels[:60]) & set(labels[60:])


@pytest.mark.slow
def test_equal_seeds_give_equal_hierarchies():
    tracks = lifted(sheet(np.random.default_rng(7)))
    first, second = (build_hierarchy(tracks, 0, seed=3) for _ in range(2))
    for a, b in zip(first.levels, second.levels, strict=True):
        np.testing.assert_array_equal(a.about.rotation, b.about.rotation)
        np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_object_of_fewer_than_four_tracks_follows_them(count):
    rng = np.random.default_rng(8)
    body = rigid_body(rng, np.array([0, 0, 2.0]), [0, 1, 0], 40, [0.3, 0, 0], count=count)[0]
    hierarchy = build_hierarchy(lifted(body), 0)
    assert [len(level) for level in hierarchy.levels] == [1, 1, 1]
    assert hierarchy.residuals[1] < 1e-6
    assert np.isfinite(hierarchy.levels[0].about.rotation).all()


def test_frames_without_any_track_are_interpolated():
    rng = np.random.default_rng(9)
    xyz, rotations, translations = rigid_body(
        rng, np.array([0, 0, 2.0]), [0, 1, 0], 30, [0.3, 0, 0]
    )
    visible = np.ones(xyz.shape[:2], bool)
    visible[:, 10:13] = False
    motion = build_hierarchy(lifted(xyz, visible=visible), 0, levels=1).levels[0].motion(0)
    # Second differences of the path are at most .05 * 36 / 29^2 per frame^2; linear interpolation
    # over a gap of 4 frames has an error of up to 4^2 / 8 times that.
    assert pose_error(motion, rotations, translations) < 4.3e-3
    clear = visible.any(0)
    np.testing.assert_allclose(motion.rotations[clear], rotations[clear], atol=1e-12)


def test_an_object_not_visible_in_the_canonical_frame():
    rng = np.random.default_rng(10)
    a, b = (body[0] for body in two_bodies(rng))
    visible = np.ones((len(a) + len(b), FRAMES), bool)
    visible[len(a) :, :8] = False
    tracks = lifted(a, b, visible=visible)
    hierarchy = build_hierarchy(tracks, 2, levels=1)
    assert hierarchy.residuals[1] < 1e-10
    motion = hierarchy.levels[0].motion(1)
    for frame in range(8):  # static until it is first visible
        np.testing.assert_allclose(motion.rotations[frame], motion.rotations[8], atol=1e-12)


def test_an_object_is_moved_to_its_new_tracks_after_a_full_occlusion():
    """It is translated to its new tracks and not rotated."""
    rng = np.random.default_rng(11)
    body, *_ = rigid_body(rng, np.array([0, 0, 2.0]), [0, 1, 0], 0, [0.4, 0, 0], count=200)
    visible = np.zeros(body.shape[:2], bool)
    visible[:100, :14] = True
    visible[100:, 16:] = True
    hierarchy = build_hierarchy(lifted(body, visible=visible), 0, levels=1)
    centre = hierarchy.points.mean(0)
    moved = hierarchy.levels[0].motion(0).apply(centre[None])[0]
    assert np.abs(moved[-1] - moved[0] - [0.4, 0, 0]).max() < 0.05


def test_a_hierarchy_without_objects():
    hierarchy = build_hierarchy(lifted(np.zeros((0, FRAMES, 3))), 3)
    assert [len(level) for level in hierarchy.levels] == [0, 0, 0]
    assert hierarchy.levels[0].about.rotation.shape == (0, FRAMES, 3, 3)
    assert hierarchy.residuals == [0.0] * 4


def test_tracks_never_visible_are_ignored():
    rng = np.random.default_rng(12)
    body = sheet(rng, count=40)
    visible = np.ones(body.shape[:2], bool)
    visible[5] = False
    assert len(build_hierarchy(lifted(body, visible=visible), 0).points) == 39


@pytest.mark.parametrize(
    "options", [{"levels": 0}, {"levels": 4}, {"k_primitive": 0}, {"k_grain": 0}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        build_hierarchy(lifted(sheet(np.random.default_rng(0), count=20)), 0, **options)


def test_a_canonical_frame_out_of_range_is_refused():
    with pytest.raises(InputError, match="canonical"):
        build_hierarchy(lifted(sheet(np.random.default_rng(0), count=20)), FRAMES)
