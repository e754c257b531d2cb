"""The pattern field: exactness at the identity, hierarchy, blending, interpolation, gradients."""

import copy
import functools

import numpy as np
import pytest
import torch
from bodies import FRAMES, laptop, lifted, sheet, two_bodies
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from msdyn.motion import MotionField, build_hierarchy
from msdyn.motion.keys import KeyTimes
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.patterns import MAX_PATTERNS
from msdyn.motion.weights import BlendWeights, weights_from_votes


def field_of(*bodies, **options):
    tracks = lifted(*bodies)
    hierarchy = build_hierarchy(tracks, 0, **options)
    field = PatternField.from_hierarchy(hierarchy, torch.arange(FRAMES))
    votes = [
        torch.nn.functional.one_hot(torch.from_numpy(v.labels), len(v)).float()
        for v in hierarchy.levels
    ]
    return hierarchy, field, votes


def weights_of(field, votes):
    return weights_from_votes(votes, [field.parents(i) for i in range(field.num_levels)])


def at_identity(field):
    with torch.no_grad():
        for sixd, translation in zip(field.sixd, field.translations, strict=True):
            sixd[:] = torch.tensor([1.0, 0, 0, 0, 1, 0])
            translation.zero_()
    return field


@functools.cache
def sheet_field():
    return field_of(sheet(np.random.default_rng(0), count=60))


@functools.cache
def laptop_field():
    return field_of(laptop(np.random.default_rng(4), count=30))


@pytest.mark.slow
@given(st.integers(0, 2**31))
def test_identity_patterns_are_bit_exact(seed):
    _, field, votes = sheet_field()
    field = at_identity(copy.deepcopy(field))
    generator = torch.Generator().manual_seed(seed)
    weights = [
        BlendWeights(b.index, torch.randn(b.logits.shape, generator=generator))
        for b in weights_of(field, votes)
    ]
    points = 1 + torch.rand(60, 3, generator=generator)
    rotations, moved = field(points, weights, torch.tensor([0.0, 7.3, 29.0]))
    assert torch.equal(moved, points.expand(3, -1, -1))
    assert torch.equal(rotations, torch.eye(3).expand(3, 60, 3, 3))


@pytest.mark.parametrize("body", [laptop, sheet])
def test_one_hot_weights_reproduce_the_hierarchy(body):
    xyz = body(np.random.default_rng(1))
    hierarchy, field, votes = field_of(xyz)
    weights = [BlendWeights(v.argmax(1, keepdim=True), torch.zeros(len(xyz), 1)) for v in votes]
    with torch.no_grad():
        _, moved = field(torch.from_numpy(hierarchy.points).float(), weights, field.key_frames)
    error = (moved.transpose(0, 1).double() - torch.from_numpy(xyz)).norm(dim=-1)
    assert float(error.square().mean().sqrt()) == pytest.approx(hierarchy.residuals[-1], abs=2e-6)


def test_two_bodies_move_rigidly_with_blended_weights():
    """All patterns of a body agree, so any weights give its exact motion."""
    bodies = two_bodies(np.random.default_rng(2))
    hierarchy, field, votes = field_of(*(b[0] for b in bodies))
    weights = weights_of(field, votes)
    weights[0] = BlendWeights(votes[0].argmax(1, keepdim=True), torch.zeros(len(votes[0]), 1))
    weights[1] = BlendWeights(weights[1].index, torch.randn(weights[1].logits.shape))
    rotations, moved = field(torch.from_numpy(hierarchy.points).float(), weights, field.key_frames)
    xyz = torch.from_numpy(np.concatenate([b[0] for b in bodies])).transpose(0, 1)
    torch.testing.assert_close(moved.double(), xyz, atol=5e-6, rtol=0)
    first = torch.from_numpy(bodies[0][1])[:, None].expand(-1, len(bodies[0][0]), 3, 3)
    torch.testing.assert_close(rotations[:, : len(bodies[0][0])].double(), first, atol=1e-5, rtol=0)


def test_blending_does_not_depend_on_the_pivots():
    """Blending one motion given about different pivots, with any weights, gives that motion."""
    rng = np.random.default_rng(3)
    motion = torch.from_numpy(Rotation.random(random_state=3).as_matrix()).float()
    translation = torch.from_numpy(rng.normal(size=3)).float()
    centres = torch.from_numpy(rng.normal(size=(5, 3))).float()
    about = (centres @ motion.T + translation - centres)[:, None].expand(5, 2, 3)
    sixd = torch.cat([motion[:, 0], motion[:, 1]]).expand(5, 2, 6)
    field = PatternField(
        [centres], [sixd.clone()], [about.clone()], [torch.zeros(5).long()],
        torch.arange(2.0), torch.ones(1).long(),
    )  # fmt: skip
    points = torch.from_numpy(rng.normal(size=(7, 3))).float()
    own = BlendWeights(
        torch.arange(5).expand(7, 5), torch.from_numpy(rng.normal(size=(7, 5))).float()
    )
    rotations, moved = field(points, [own], torch.tensor([0.0]))
    torch.testing.assert_close(moved[0], points @ motion.T + translation, atol=1e-5, rtol=0)
    torch.testing.assert_close(rotations[0], motion.expand(7, 3, 3), atol=1e-5, rtol=0)


@pytest.mark.slow
@given(st.floats(0, FRAMES - 1))
def test_undo_is_the_inverse_at_any_time(frame):
    hierarchy, field, votes = laptop_field()
    weights = weights_of(field, votes)
    points = torch.from_numpy(hierarchy.points).float()
    _, moved = field(points, weights, torch.tensor([frame]))
    torch.testing.assert_close(field.undo(moved[0], weights, frame), points, atol=1e-5, rtol=0)


def test_interpolation_over_time_is_geodesic():
    _, field, _ = field_of(two_bodies(np.random.default_rng(5))[0][0], levels=1)
    with torch.no_grad():
        keys = field.at(0, torch.tensor([7.0, 8.0]))[0]
        middle = field.at(0, torch.tensor([7.25]))[0, 0]
    slerp = Slerp([0, 1], Rotation.from_matrix(keys.rotation.numpy()))
    np.testing.assert_allclose(middle.rotation, slerp(0.25).as_matrix(), atol=1e-6)
    expected = 0.75 * keys.translation[0] + 0.25 * keys.translation[1]
    torch.testing.assert_close(middle.translation, expected)


def test_frames_between_keys_are_interpolated_and_clamped_at_the_ends():
    hierarchy = build_hierarchy(lifted(sheet(np.random.default_rng(6), count=40)), 0, levels=1)
    keys = 2 * np.arange(FRAMES) + 10
    field = PatternField.from_hierarchy(hierarchy, torch.from_numpy(keys))
    with torch.no_grad():
        at_keys = field.at(0, torch.tensor([10.0, 12.0, 68.0])).translation
        between = field.at(0, torch.tensor([11.0, 3.0, 80.0])).translation
    torch.testing.assert_close(between[:, 0], at_keys[:, :2].mean(1))
    torch.testing.assert_close(between[:, 1:], at_keys[:, [0, 2]])


def test_levels_can_be_left_out():
    body = laptop(np.random.default_rng(7))
    hierarchy, field, votes = field_of(body)
    weights = weights_of(field, votes)
    points = torch.from_numpy(hierarchy.points).float()
    _, none = field(points, weights, torch.tensor([20.0]), levels=0)
    assert torch.equal(none[0], points)
    _, coarse = field(points, weights, torch.tensor([20.0]), levels=1)
    motion = hierarchy.levels[0].motion(0)
    np.testing.assert_allclose(coarse[0].detach(), motion.apply(hierarchy.points)[:, 20], atol=1e-5)


def test_all_parameters_get_gradients():
    hierarchy, field, votes = field_of(sheet(np.random.default_rng(8), count=40), k_grain=3)
    weights = [BlendWeights(b.index, b.logits.requires_grad_()) for b in weights_of(field, votes)]
    points = torch.from_numpy(hierarchy.points).float().requires_grad_()
    rotations, moved = field(points, weights, torch.tensor([3.0, 11.5]))
    (moved.square().sum() + (rotations * torch.randn(3, 3)).sum()).backward()
    for tensor in [points, *field.parameters(), *(b.logits for b in weights)]:
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()
        # The softmax over a single object has no gradient.
        assert (tensor.grad != 0).any() or tensor.shape[-1:] == (1,)


def test_gradients_agree_with_finite_differences():
    _, field, votes = field_of(laptop(np.random.default_rng(9), count=8), k_primitive=2, k_grain=1)
    field = field.double()
    weights = weights_of(field, votes)
    points = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    frames = torch.tensor([2.0, 4.6], dtype=torch.float64)
    logits = [torch.randn(5, b.index.shape[1]).double().requires_grad_() for b in weights]

    def move(points, sixd, translation, *logits):
        mixed = [BlendWeights(b.index[:5], v) for b, v in zip(weights, logits, strict=True)]
        state = dict(field.named_parameters()) | {"sixd.1": sixd, "translations.1": translation}
        return torch.func.functional_call(field, state, (points, mixed, frames))

    sixd = (field.sixd[1].detach() + 0.1 * torch.randn_like(field.sixd[1])).requires_grad_()
    translation = field.translations[1].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(move, (points, sixd, translation, *logits), fast_mode=True)


def test_a_static_scene_has_an_empty_field():
    hierarchy = build_hierarchy(lifted(np.zeros((0, FRAMES, 3))), 0)
    field = PatternField.from_hierarchy(hierarchy, torch.arange(FRAMES))
    empty = BlendWeights(torch.zeros(0, 1).long(), torch.zeros(0, 1))
    rotations, moved = field(torch.zeros(0, 3), [empty] * 3, torch.tensor([0.0, 2.5]))
    assert moved.shape == (2, 0, 3) and rotations.shape == (2, 0, 3, 3)


@pytest.mark.slow
def test_weights_are_children_of_the_parents_in_use():
    rng = np.random.default_rng(10)
    hierarchy, field, votes = field_of(laptop(rng), sheet(rng))
    objects, primitives, grains = weights_of(field, votes)
    for own, limit in zip((objects, primitives, grains), MAX_PATTERNS, strict=True):
        assert own.index.shape[1] <= limit
        torch.testing.assert_close(own.values.sum(1), torch.ones(len(hierarchy.points)))
    for level, (finer, coarser) in enumerate([(primitives, objects), (grains, primitives)], 1):
        parents = field.parents(level)[finer.index]  # [N, k]
        counts = finer.values > 1e-3
        known = (parents[..., None] == coarser.index[:, None]).any(-1)
        assert known[counts].all()
    # The largest weight of a track is that of its own cluster.
    for own, level in zip((objects, primitives, grains), hierarchy.levels, strict=True):
        assert (own.index[:, 0].numpy() == level.labels).all()
        assert (own.values[:, 0] > 0.98).all()


def test_mixed_points_have_averaged_weights():
    rng = np.random.default_rng(11)
    (a, *_), (b, *_) = two_bodies(rng)
    _, field, votes = field_of(a, b, levels=1)
    motion = MotionField(field, weights_of(field, votes))
    assert len(motion) == len(a) + len(b)
    index = torch.tensor([[0, 1], [len(a), len(a) + 1], [0, len(a)]])
    mixed = motion.mixed(index, torch.tensor([[1.0, 2.0], [1.0, 1.0], [3.0, 1.0]]))
    assert mixed.patterns is motion.patterns and len(mixed) == 3
    dense = mixed.weights[0].dense(2)
    expected = torch.tensor([[1.0, 0], [0, 1.0], [0.75, 0.25]])
    torch.testing.assert_close(dense, expected, atol=2e-3, rtol=0)


def test_poses_at_key_frames_are_those_of_their_frames():
    """By number of the key frame, by frame index, and interpolated, as on a GPU."""
    _, field, votes = laptop_field()
    weights = weights_of(field, votes)
    motion = MotionField(field, weights)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(len(motion), 3, generator=generator)
    quats = torch.rand(len(motion), 4, generator=generator)
    numbers = torch.tensor([3, 0, FRAMES - 1])
    expected = motion.pose(points, quats, numbers.float())
    low = numbers.clamp(max=FRAMES - 2)
    between = KeyTimes(low, low + 1, (numbers - low).float())
    interpolated = field.pose(points, quats, weights, between)
    at_keys = motion.pose_at_keys(points, quats, numbers)
    for own, value, other in zip(at_keys, expected, interpolated, strict=True):
        assert torch.equal(own, value)
        torch.testing.assert_close(other, value, atol=2e-6, rtol=1e-5)
