"""The losses of a batch: those of its scenes alone, averaged."""

import dataclasses

import pytest
import torch
from feedforward.training.test_loop import TINY

from msdyn.feedforward import Movies
from msdyn.feedforward.batches import MOTION_KINDS, TrackedMotion
from msdyn.feedforward.scenes.random_scenes import SceneOptions
from msdyn.feedforward.scenes.render import BatchOptions, random_batch
from msdyn.feedforward.training.objective import LossWeights, draw, losses

WEIGHTS = LossWeights(log_depth=1.0, rendering=1.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Movies(TINY)


@pytest.fixture(scope="module")
def batch():
    return random_batch(SceneOptions(), BatchOptions(3, frames=2, size=16), generator())


def part(batch, chosen):
    """Some scenes of a batch."""
    values = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
            value = value[chosen]
        elif value is not None:
            value = type(value)(
                *(getattr(value, inner.name)[chosen] for inner in dataclasses.fields(value))
            )
        values[field.name] = value
    return type(batch)(**values)


@pytest.mark.parametrize("balanced", [True, False])
def test_losses_are_the_mean_of_those_of_the_scenes(model, batch, balanced):
    """So that processes which share a batch minimise the loss of the whole batch."""
    weights = dataclasses.replace(WEIGHTS, balanced=balanced)
    whole = losses(model, batch, [0], weights, generator())
    alone = [losses(model, part(batch, [i]), [0], weights, generator()) for i in range(3)]
    assert set(whole) == {"match", "depth", "log_depth", "motion", "rendering"}
    for name, value in whole.items():
        expected = torch.stack([own[name] for own in alone]).mean()
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


def test_weights_of_data_sets_scale_the_losses_of_their_scenes(model, batch):
    one, two, three = (part(batch, [i]) for i in range(3))
    weighted = dataclasses.replace(
        batch,
        depth_weight=torch.tensor([1.0, 0.0, 0.5]),
        motion_weight=torch.tensor([0.0, 2.0, 0.0]),
    )
    values = losses(model, weighted, [0], WEIGHTS, generator())
    own = [losses(model, scene, [0], WEIGHTS, generator()) for scene in (one, two, three)]
    torch.testing.assert_close(
        values["log_depth"], (own[0]["log_depth"] + own[2]["log_depth"] / 2) / 3
    )
    torch.testing.assert_close(values["motion"], 2 * own[1]["motion"] / 3)


def test_motion_of_tracks_replaces_that_of_poses_in_their_scenes(batch):
    shape = (3, 1, 2, 16, 16)
    tracked = TrackedMotion(torch.full((*shape, 3), 0.25), torch.zeros(shape, dtype=torch.bool))
    tracked.known[:, :, 0, 3, 4] = True
    kinds = torch.tensor([MOTION_KINDS.index(kind) for kind in ("poses", "tracks", "unknown")])
    mixed = dataclasses.replace(batch, tracked=tracked, kind=kinds)
    assert torch.equal(mixed.motion(0)[0], batch.motion(0)[0])
    assert (mixed.motion(0)[1] == 0.25).all()
    assert mixed.known(0).flatten(1).sum(1).tolist() == [2 * 16 * 16, 1, 0]
    assert batch.known(0).all()


def test_where_nothing_is_known_of_the_motion_its_losses_are_zero(model, batch):
    kinds = torch.full((3,), MOTION_KINDS.index("unknown"))
    unknown = dataclasses.replace(batch, kind=kinds)
    weights = dataclasses.replace(WEIGHTS, distribution=1.0, match=0.0)
    values = losses(model, unknown, [0], weights, generator())
    assert values["motion"] == 0 and values["distribution"] == 0
    assert sum(values.values()).isfinite()


def test_losses_of_several_query_times_are_averaged(model):
    batch = random_batch(SceneOptions(), BatchOptions(2, frames=2, size=16, queries=2), generator())
    both = losses(model, batch, [0, 1], WEIGHTS, generator())
    one, other = (losses(model, batch, [query], WEIGHTS, generator()) for query in (0, 1))
    for name, value in both.items():
        torch.testing.assert_close(value, (one[name] + other[name]) / 2)


def test_published_motion_of_static_scenes_is_the_length_of_displacements(model, batch):
    static = dataclasses.replace(
        batch,
        kind=torch.full((3,), MOTION_KINDS.index("static")),
        query_poses=batch.frame_poses[:, :1],
        frame_poses=batch.frame_poses[:, :1].expand_as(batch.frame_poses),
    )
    weights = LossWeights(match=0.0, motion=2.0, motion_error="l1", balanced=False)
    features = model.encode(static.clip)
    motion = model.move(features, model.static(features), static.query_times[:, 0])
    expected = 2 * motion.displacement.norm(dim=-1).mean()
    value = losses(model, static, [0], weights, generator())["motion"]
    torch.testing.assert_close(value, expected)


def test_the_perceptual_loss_is_relative_to_the_rendering_loss(model, batch):
    weights = dataclasses.replace(WEIGHTS, rendering=3.0, perceptual=0.5)

    def brightness(images, true):
        assert images.shape == true.shape == (3, 3, 16, 16)
        return (images - true).mean(dim=(1, 2, 3))

    with_it = losses(model, batch, [0], weights, generator(), perceptual=brightness)
    assert "perceptual" not in losses(model, batch, [0], weights, generator())
    features = model.encode(batch.clip)
    static = model.static(features)
    motion = model.move(features, static, batch.query_times[:, 0])
    image = draw(model.gaussians(features, static, motion), batch, 0)
    expected = 1.5 * (image.mean() - batch.target_images[:, 0].mean())
    torch.testing.assert_close(with_it["perceptual"], expected, rtol=1e-4, atol=1e-6)


def test_a_static_network_learns_depth_and_rendering():
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, motion=False, time_token=False, attribute_motion="none")
    options = BatchOptions(2, frames=2, size=16)
    batch = random_batch(SceneOptions(movers=(0, 0)), options, generator())
    values = losses(Movies(config), batch, [0], WEIGHTS, generator())
    assert set(values) == {"match", "depth", "log_depth", "rendering"}


def test_half_precision_changes_the_losses_little(model, batch):
    values = losses(model, batch, [0], WEIGHTS, generator())
    half = losses(model, batch, [0], WEIGHTS, generator(), half=True)
    for name, value in values.items():
        torch.testing.assert_close(half[name], value, rtol=0.1, atol=1e-3)


def test_the_distribution_loss_alone(model, batch):
    weights = LossWeights(depth=1.0, match=0.0, motion=0.0, distribution=2.0)
    assert set(losses(model, batch, [0], weights, generator())) == {"depth", "distribution"}
