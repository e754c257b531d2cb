"""The losses: closed forms, reference implementations, gradients, degenerate input."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from skimage.metrics import structural_similarity

from msdyn.fit.losses import (
    depth_loss,
    mask_loss,
    rgb_loss,
    rigidity_loss,
    scale_loss,
    ssim,
    track_loss,
)
from msdyn.motion.pattern_field import PatternField


def images(seed=0, size=(24, 30)):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(2, 2, *size, 3, generator=g, dtype=torch.float64)


def test_ssim_agrees_with_scikit_image():
    a, b = images(size=(30, 40))
    padded = [np.pad(v[0, ..., 0].numpy(), 10) for v in (a, b)]  # ours pads with zeros
    full = structural_similarity(
        *padded, data_range=1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )[1]  # fmt: skip
    expected = full[10:-10, 10:-10].mean()
    assert float(ssim(a[:1, ..., :1], b[:1, ..., :1])) == pytest.approx(expected, abs=1e-9)
    assert float(ssim(a, a)) == pytest.approx(1)


def test_the_compiled_ssim_agrees_with_torch_in_double():
    a, b = images(size=(37, 21))
    for pair in ((a, b), (b, a), (a, a.clone())):
        double = pair[0].clone().requires_grad_()
        expected = ssim(double, pair[1])
        expected.backward()
        single = pair[0].float().requires_grad_()
        value = ssim(single, pair[1].float())
        (3 * value).backward()
        assert value.item() == pytest.approx(expected.item(), abs=2e-6)
        scale = float(double.grad.abs().max()) + 1e-6
        # Largest error observed: 2e-5 of the largest entry.
        assert float((single.grad.double() / 3 - double.grad).abs().max()) < 1e-3 * scale


def test_rgb_loss_is_zero_for_equal_images_and_its_gradient_is_correct():
    a, b = images(size=(12, 12))
    assert float(rgb_loss(a, a)) == pytest.approx(0, abs=1e-12)
    image = a.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rgb_loss(x, b), image, fast_mode=True)


def test_the_compiled_rgb_loss_agrees_with_torch_in_double():
    a, b = images(size=(37, 21))
    b[:, :5] = a[:, :5]  # the gradient of L1 is 0 for equal images
    results = []
    for dtype in (torch.float64, torch.float32):
        image = a.to(dtype).requires_grad_()
        value = rgb_loss(image, b.to(dtype))
        (gradient,) = torch.autograd.grad(3 * value, image)
        results.append((value.detach(), gradient))
    (expected, gradient), (value, compiled) = results
    assert float(value) == pytest.approx(float(expected), abs=1e-6)
    # Largest error observed: 2e-5 of the largest entry.
    assert float((compiled - gradient).abs().max()) < 1e-4 * float(gradient.abs().max())


def test_mask_loss_ignores_uncertain_pixels():
    truth = torch.zeros(1, 4, 4)
    moving = torch.ones(1, 4, 4)
    certain = torch.zeros(1, 4, 4)
    assert float(mask_loss(moving, truth, certain)) == 0
    certain[0, 0] = 1
    moving[0, 0, :2] = 0
    assert float(mask_loss(moving, truth, certain)) == pytest.approx(0.5)


def test_depth_loss_uses_known_and_opaque_pixels():
    truth = torch.tensor([[[2.0, 0.0, 4.0, 2.0]]])
    alpha = torch.tensor([[[0.8, 1.0, 0.2, 1.0]]])
    depth = torch.tensor([[[1.6, 9.0, 9.0, 4.0]]])  # blended: 2.0, unknown, transparent, 4.0
    confidence = torch.ones_like(truth)
    # The errors of the two valid pixels are 1/2 - 1/2 and 1/4 - 1/2.
    assert float(depth_loss(depth, alpha, truth, confidence)) == pytest.approx(0.125)
    assert float(depth_loss(depth, alpha, 0 * truth, confidence)) == 0
    # Errors are weighted by confidence.
    confidence[..., 0] = 0.25
    assert float(depth_loss(depth, alpha, truth, confidence)) == pytest.approx(0.25 / 1.25)


def tracked(shift=(0.0, 0.0, 0.0), weight=1.0):
    """Arguments of the track loss: a static camera and a wall at depth 2 translated by `shift`."""
    width, height, focal = 20, 16, 25.0
    k = torch.tensor([[focal, 0, 10], [0, focal, 8], [0, 0, 1]])[None]
    pose = torch.eye(4)[None]
    ys, xs = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(20) + 0.5, indexing="ij")
    wall = torch.stack([(xs - 10) / focal * 2, (ys - 8) / focal * 2, 2 + 0 * xs], -1)[None]
    positions = wall + torch.tensor(shift)
    source = torch.tensor([[[4.5, 4.5], [10.2, 9.7], [15.0, 6.0]]])
    target = source + focal / 2 * torch.tensor(shift[:2])
    depth = torch.full((1, 3), 2.0)
    weights = torch.full((1, 3), weight)
    alpha = torch.ones(1, height, width)
    return [positions, alpha, source, target, depth, weights, k, pose]


def test_track_loss_is_the_distance_to_the_track():
    assert float(track_loss(*tracked((0.1, -0.05, 0.0)))) < 1e-5
    wrong = tracked()
    wrong[3] = wrong[3] + torch.tensor([3.0, 4.0])  # 5 px of 20
    assert float(track_loss(*wrong)) == pytest.approx(0.2)  # the upper bound
    wrong[3] = wrong[2] + torch.tensor([0.6, 0.8])
    assert float(track_loss(*wrong)) == pytest.approx(1 / 20, abs=1e-5)
    deep = tracked()
    deep[4] = deep[4] * 2
    assert float(track_loss(*deep)) == pytest.approx(0.1 * (1 / 2 - 1 / 4), abs=1e-5)


def test_track_loss_ignores_tracks_without_weight_or_surface():
    wrong = tracked(weight=0.0)
    wrong[3] = wrong[3] + 5
    assert float(track_loss(*wrong)) == 0
    empty = tracked()
    empty[1], empty[3] = 0 * empty[1], empty[3] + 5
    assert float(track_loss(*empty)) == 0


def test_track_gradients():
    values = [v.double() for v in tracked((0.05, 0.02, 0.1))]
    values[3] = values[3] + 0.4
    positions = values[0].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: track_loss(x, *values[1:]), positions, fast_mode=True, atol=1e-4
    )


def neighbourhood(count=30, k=4, seed=0):
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(size=(count, 3)))
    near = torch.cdist(points, points).argsort(1)[:, 1 : k + 1]
    chosen = torch.arange(0, count, 2)
    return points, chosen, near[chosen], torch.ones(len(chosen), k).double()


def test_rigidity_loss_of_rigid_motion_and_of_stretching():
    points, *pairs = neighbourhood()
    rotation = torch.from_numpy(Rotation.from_rotvec([[0.3, 1, 0], [0, 2, 1]]).as_matrix())
    moved = torch.einsum("bij,nj->bni", rotation, points) + 3
    rotations = rotation[:, None].expand(-1, len(points), 3, 3)
    assert float(rigidity_loss(points, moved, rotations, *pairs)) < 1e-5
    identity = torch.eye(3).double().expand(1, len(points), 3, 3)
    stretched = float(rigidity_loss(points, 1.5 * points[None], identity, *pairs))
    assert stretched == pytest.approx(0.5, abs=1e-5)  # half the distance of neighbours
    rotated = identity.clone()
    rotated[0, 0] = rotation[0]
    assert float(rigidity_loss(points, points[None], rotated, *pairs)) > 1e-3


def test_the_compiled_rigidity_agrees_with_torch_in_double():
    points, chosen, near, weights = neighbourhood()
    g = torch.Generator().manual_seed(3)
    rotation = (
        Rotation.from_rotvec(np.random.default_rng(1).normal(size=(2 * len(points), 3)))
        .as_matrix()
        .reshape(2, -1, 3, 3)
    )
    leaves = [
        points,
        torch.rand(2, len(points), 3, generator=g).double(),
        torch.from_numpy(rotation),
    ]
    weights = weights * torch.rand(weights.shape, generator=g).round()  # some are zero
    results = []
    for dtype in (torch.float64, torch.float32):
        own = tuple(leaf.to(dtype).clone().requires_grad_() for leaf in leaves)
        value = rigidity_loss(*own, chosen, near, weights.to(dtype))
        results.append((value, torch.autograd.grad(3 * value, own)))
    (expected, gradients), (value, compiled) = results
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    for gradient, ours in zip(gradients, compiled, strict=True):
        assert gradient.abs().max() > 1e-3
        assert torch.allclose(ours.double(), gradient, atol=1e-6 * float(gradient.abs().max()))


def test_rigidity_loss_ignores_pairs_without_weight():
    points, chosen, near, weights = neighbourhood()
    moved = points + torch.randn_like(points)
    identity = torch.eye(3).double().expand(1, len(points), 3, 3)
    assert float(rigidity_loss(points, moved[None], identity, chosen, near, 0 * weights)) == 0


def identity_field(frames=9, patterns=2):
    sixd = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(patterns, frames, 6)
    shift = torch.zeros(patterns, frames, 3)
    return PatternField(
        [torch.zeros(patterns, 3)] * 2, [sixd.clone()] * 2, [shift.clone(), shift.clone()],
        [torch.zeros(patterns).long()] * 2, torch.arange(float(frames)), torch.ones(1).long(),
    )  # fmt: skip


def test_uniform_motion_has_no_acceleration():
    field = identity_field()
    with torch.no_grad():
        field.translations[0][:] = torch.arange(9.0)[:, None] * torch.tensor([1.0, 2, 3])
    assert field.acceleration().item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        field.translations[0][:, 4] += 1
    assert field.acceleration().item() > 0.1


def test_the_residual_regulariser_excludes_the_first_level():
    field = identity_field()
    at_identity = field.residual_size().item()
    assert at_identity < 1e-5
    with torch.no_grad():
        field.translations[0] += 1
    assert float(field.residual_size()) == pytest.approx(at_identity)
    with torch.no_grad():
        field.translations[1] += 1
    assert float(field.residual_size()) == pytest.approx(1, abs=1e-4)


def test_scale_loss_is_the_variance_of_the_two_larger_log_scales():
    assert float(scale_loss(torch.full((4, 3), -2.0))) == 0
    discs = torch.tensor([[0.0, -3.0, 0.0], [-1.0, -1.0, -7.0], [-9.0, 2.0, 2.0]])
    assert float(scale_loss(discs)) == 0
    any_shapes = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    expected = any_shapes.sort(-1).values[:, 1:].var(-1, unbiased=False).mean()
    assert float(scale_loss(any_shapes)) == pytest.approx(float(expected))


def test_losses_of_empty_sets_are_zero():
    assert float(scale_loss(torch.zeros(0, 3))) == 0
    none = torch.zeros(0, 3)
    pairs = torch.zeros(0).long(), torch.zeros(0, 8).long(), torch.zeros(0, 8)
    assert float(rigidity_loss(none, none[None], torch.zeros(1, 0, 3, 3), *pairs)) == 0
    field = identity_field(patterns=0)
    assert field.acceleration().item() == 0 and float(field.residual_size()) == 0


def test_pixels_to_ignore_have_no_colour_loss():
    a, b = images()
    certain = torch.ones(a.shape[:3])
    certain[:, 5:15, 8:20] = 0
    rendered = a.clone().requires_grad_()
    rgb_loss(rendered, b, certain).backward()
    assert (rendered.grad[:, 5:15, 8:20] == 0).all() and (rendered.grad[:, 0, 0] != 0).any()
    other = torch.where(certain[..., None] > 0, b, 1 - b)
    assert torch.equal(rgb_loss(a, other, certain), rgb_loss(a, b, certain))
    assert float(rgb_loss(a, torch.where(certain[..., None] > 0, a, b), certain)) < 1e-6
    assert torch.equal(rgb_loss(a, b, torch.ones_like(certain)), rgb_loss(a, b))
