"""The compiled pattern field against the one in torch: values, all gradients, determinism."""

import numpy as np
import pytest
import torch
from bodies import FRAMES, laptop, lifted, sheet

from msdyn.geometry import multiply_quats_wxyz, quats_wxyz_from_rotations
from msdyn.motion import build_hierarchy, numba_field
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.weights import BlendWeights, weights_from_votes


def make_problem(levels=3, count=200, seed=0):
    rng = np.random.default_rng(seed)
    tracks = lifted(laptop(rng, count=40), sheet(rng, count=60))
    hierarchy = build_hierarchy(tracks, 0, levels=levels)
    field = PatternField.from_hierarchy(hierarchy, torch.arange(FRAMES))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for sixd, translation in zip(field.sixd, field.translations, strict=True):
            # Large enough to be far from orthonormal and to give rotations by any angle.
            sixd.add_(0.5 * torch.randn(sixd.shape, generator=generator))
            translation.add_(0.1 * torch.randn(translation.shape, generator=generator))
    votes = [torch.rand(count, len(v), generator=generator) for v in hierarchy.levels]
    weights = [
        BlendWeights(b.index, torch.randn(b.logits.shape, generator=generator))
        for b in weights_from_votes(votes, [field.parents(i) for i in range(levels)])
    ]
    points = torch.randn(count, 3, generator=generator)
    quats = torch.randn(count, 4, generator=generator)
    return field, weights, points, quats


def run(function, field, weights, points, quats, frames):
    """Return outputs, and gradients of a fixed random functional, of a pose function."""
    field.zero_grad()
    points, quats = points.clone().requires_grad_(), quats.clone().requires_grad_()
    weights = [BlendWeights(b.index, b.logits.clone().requires_grad_()) for b in weights]
    rotations, moved, posed_quats = function(field, points, quats, weights, frames)
    # A quaternion and its negative are the same rotation, so outer products are compared.
    outputs = rotations, moved, posed_quats.unsqueeze(-1) * posed_quats.unsqueeze(-2)
    generator = torch.Generator().manual_seed(9)
    upstream = [torch.randn(o.shape, generator=generator).to(o) for o in outputs]
    torch.stack([(w * o).sum() for w, o in zip(upstream, outputs, strict=True)]).sum().backward()
    leaves = [points, quats, *(b.logits for b in weights), *field.parameters()]
    return [o.detach() for o in outputs], [leaf.grad.clone() for leaf in leaves]


def compiled(field, points, quats, weights, frames):
    return field.pose(points, quats, weights, frames)


def reference(field, points, quats, weights, frames):
    rotations, moved = field(points, weights, frames)
    return rotations, moved, multiply_quats_wxyz(quats_wxyz_from_rotations(rotations), quats)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_values_and_gradients_agree_with_torch_in_double(levels):
    field, weights, points, quats = make_problem(levels)
    frames = torch.tensor([3.0, 17.0, 8.4])
    ours, our_grads = run(compiled, field, weights, points, quats, frames)
    double_weights = [BlendWeights(b.index, b.logits.double()) for b in weights]
    expected, expected_grads = run(
        reference, field.double(), double_weights, points.double(), quats.double(), frames.double()
    )
    torch.testing.assert_close(ours[0].double(), expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[1].double(), expected[1], atol=2e-5, rtol=0)
    torch.testing.assert_close(ours[2].double(), expected[2], atol=2e-4, rtol=1e-4)
    for a, b in zip(our_grads, expected_grads, strict=True):
        # Largest error observed: 2e-5 of the largest entry.
        assert float((a.double() - b).abs().max()) < 2e-4 * float(b.abs().max() + 1)


@pytest.mark.slow
def test_the_result_does_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(numba_field, "_GRAIN", 1)
    problem = make_problem(count=1000)
    frames = torch.tensor([1.0, 12.0])
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(run(compiled, *problem, frames))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_identity_is_exact():
    field, weights, points, quats = make_problem()
    with torch.no_grad():
        for sixd, translation in zip(field.sixd, field.translations, strict=True):
            sixd[:] = torch.tensor([1.0, 0, 0, 0, 1, 0])
            translation.zero_()
        rotations, moved, posed_quats = field.pose(points, quats, weights, torch.tensor([5.0]))
    assert torch.equal(moved[0], points) and torch.equal(posed_quats[0], quats)
    assert torch.equal(rotations[0], torch.eye(3).expand(len(points), 3, 3))
