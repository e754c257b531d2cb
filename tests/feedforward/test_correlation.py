"""Correlation between frames: matching, triangulation, lifted displacements."""

import dataclasses

import pytest
import torch

from msdyn.errors import InputError
from msdyn.feedforward import ModelConfig, Movies
from msdyn.feedforward.batches import true_matches
from msdyn.feedforward.correlation import Correlation, CorrelationCue, MotionCue
from msdyn.feedforward.scenes.random_scenes import SceneOptions
from msdyn.feedforward.scenes.render import BatchOptions, random_batch

CONFIG = dataclasses.replace(ModelConfig.small(), width=32, correlation=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def exact(batch, cell=4):
    """The true matches, certain where the point is visible."""
    positions, visible = true_matches(batch, cell)
    side = batch.clip.size[0] // cell
    log_probabilities = torch.full((*visible.shape, side**2 + 1), -20.0)
    log_probabilities[..., 0] = 0
    log_probabilities[..., -1] = torch.where(visible, -20.0, 0.0)
    return Correlation(log_probabilities, positions, (side, side))


def test_a_shifted_image_is_matched():
    """Noise shifted by three cells: even random features match it, to the fraction of a cell."""
    torch.manual_seed(0)
    wide = torch.rand(1, 3, 32, 76)
    images = torch.stack([wide[..., 12:], wide[..., :-12]], dim=1)
    matches = CorrelationCue(CONFIG).match(images)
    assert matches.grid == (8, 16)
    column = matches.positions[0, 0, 1].view(8, 16, 2)[2:-2, 2:-5, 0]
    expected = torch.arange(16.0)[2:-5] + 3
    assert (column - expected).abs().median() < 0.05


def test_probabilities_sum_to_one():
    torch.manual_seed(0)
    matches = CorrelationCue(CONFIG).match(torch.rand(1, 2, 3, 16, 24))
    total = matches.log_probabilities.exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_matches_there_and_back_of_static_surfaces_agree_where_they_are_visible():
    batch = random_batch(
        SceneOptions(movers=(0, 0)), BatchOptions(scenes=2, targets=False), generator()
    )
    matches = exact(batch)
    visible = matches.log_probabilities[..., -1] < -1
    agreement, distance = matches.consistency().unbind(-1)
    assert agreement[visible].median() > 0.98
    assert distance[visible].median() < 0.1
    wrong = dataclasses.replace(matches, positions=matches.positions + 2)
    assert wrong.consistency()[..., 0].median() < 0.1


def test_true_matches_triangulate_static_scenes():
    """The camera's path is long, so that most pixels have parallax."""
    options = SceneOptions(movers=(0, 0), camera_travel=(0.5, 0.6))
    batch = random_batch(options, BatchOptions(scenes=3, targets=False), generator())
    cue = CorrelationCue(CONFIG)
    matches, clip = exact(batch), batch.clip
    _, equations = cue._describe(matches, clip.world_from_cam, clip.intrinsics, clip.times)
    along, length = equations.sum(dim=2).unbind(-1)
    true = 1 / batch.depth[:, :, 2::4, 2::4].flatten(2)
    everywhere = matches.log_probabilities[..., -1].amax(dim=2) < -1
    relative = ((along / length - true) / true)[everywhere].abs()
    assert everywhere.float().mean() > 0.5
    assert relative.median() < 0.02


def test_true_matches_and_depth_lift_to_the_true_displacement():
    """The features of the motion cue contain the estimate for the time of a frame."""
    batch = random_batch(SceneOptions(), BatchOptions(scenes=3, targets=False), generator(1))
    matches, clip = exact(batch), batch.clip
    cue = MotionCue()
    with torch.no_grad():
        cue.score.weight.zero_()
    two = dataclasses.replace(
        matches,
        log_probabilities=matches.log_probabilities[:, ::3, ::3],
        positions=matches.positions[:, ::3, ::3],
    )
    features, _ = cue(
        two, batch.points[:, ::3], clip.world_from_cam[:, ::3], clip.intrinsics[:, ::3],
        clip.times[:, ::3], clip.times[:, 3],
    )  # fmt: skip
    estimate = features.unflatten(0, (3, 2))[:, 0, -7:-4].flatten(2).mT / 5
    true = batch.motion_to_frame(3)[:, 0, 2::4, 2::4].flatten(1, 2)
    moving = batch.moving[:, 0, 2::4, 2::4].flatten(1)
    seen = two.log_probabilities[:, 0, 1, :, -1] < -1
    chosen = moving & seen
    error, length = (estimate - true)[chosen].norm(dim=-1), true[chosen].norm(dim=-1)
    assert error.median() < 0.15 * length.median()


def test_without_trust_the_first_estimate_is_zero_and_at_the_own_time_it_is_too():
    batch = random_batch(SceneOptions(), BatchOptions(scenes=2, targets=False), generator(1))
    clip, cue = batch.clip, MotionCue()

    def first(query):
        cameras = (clip.world_from_cam, clip.intrinsics, clip.times)
        return cue(exact(batch), batch.points, *cameras, torch.full((2,), query))[1].detach()

    own_time = first(0.0).unflatten(0, (2, 4))[:, 0]
    assert own_time.abs().max() == 0
    assert first(1.0).abs().max() > 0.01
    torch.nn.init.constant_(cue.trust.bias, -100)
    assert first(1.0).abs().max() < 1e-6


def test_gradients_are_finite_with_a_static_camera():
    """Without a baseline there is no parallax, whose square root would have no gradient."""
    torch.manual_seed(0)
    still = SceneOptions(camera_travel=(0.0, 0.0), camera_rotation=0.0)
    batch = random_batch(still, BatchOptions(scenes=1, size=32, targets=False), generator())
    model = Movies(dataclasses.replace(CONFIG, head_channels=(8, 8, 8, 8), head_features=8))
    features = model.encode(batch.clip)
    static = model.static(features)
    motion = model.move(features, static, batch.query_times[:, 0])
    (static.depth.mean() + motion.displacement.square().sum()).backward()
    gradients = [p.grad for p in model.correlation_cue.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_published_networks_have_no_correlation_and_no_detail():
    for config in (ModelConfig.published_network(), ModelConfig.published_static()):
        assert not config.correlation
        assert not config.detail


def test_matches_computed_before_give_the_same_features():
    torch.manual_seed(0)
    batch = random_batch(
        SceneOptions(), BatchOptions(scenes=1, frames=2, size=32, targets=False), generator()
    )
    model = Movies(dataclasses.replace(CONFIG, detail=True)).eval()
    with torch.no_grad():
        whole = model.encode(batch.clip)
        again = model.encode(batch.clip, matches=model.correlation_cue.match(batch.clip.images))
    for index, layer in whole.layers.items():
        assert torch.equal(layer, again.layers[index])


def test_patches_must_be_even():
    with pytest.raises(InputError, match="patch"):
        dataclasses.replace(CONFIG, patch=7)
