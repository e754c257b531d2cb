"""Batches of clips, against scenes that are rendered directly."""

import dataclasses

import pytest
import torch
from feedforward.training.test_loop import TINY

from msdyn.feedforward import Movies
from msdyn.feedforward.data import ClipBatchOptions, ClipLibrary, ClipWriter
from msdyn.feedforward.data.own_scenes import clips_of_scenes
from msdyn.feedforward.training.batches import MOTION_KINDS, render_batch
from msdyn.feedforward.training.objective import LossWeights, losses
from msdyn.feedforward.training.random_scenes import SceneOptions, random_scenes

FRAMES = 4
SIZE = 32
WHOLE = ClipBatchOptions(
    scenes=3,
    frames=(FRAMES, FRAMES),
    long_side=SIZE,
    queries=FRAMES,
    query_times="frames",
    crop=(1.0, 1.0),
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes():
    return random_scenes(SceneOptions(), 3, generator(3))


@pytest.fixture(scope="module")
def folder(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    with ClipWriter(folder, image_format="png") as writer:
        for clip in clips_of_scenes(scenes, FRAMES, SIZE):
            writer.add(clip)
    return folder


def test_a_scene_through_a_shard_is_the_scene_rendered(scenes, folder):
    times = torch.linspace(0, 1, FRAMES).expand(3, -1)
    exact = render_batch(scenes, times, times, SIZE, targets=True)
    library = ClipLibrary(folder)
    batch = library.batch(WHOLE, seed=0, number=0)
    # Each clip is drawn once per epoch; its first image tells which it is.
    first = exact.clip.images[:, 0].flatten(1)
    order = [
        int((first - own).abs().mean(1).argmin()) for own in batch.clip.images[:, 0].flatten(1)
    ]
    assert sorted(order) == [0, 1, 2]
    eight_bits = 0.5 / 255 + 1e-6
    for name in ("images", "world_from_cam", "intrinsics", "times"):
        atol = eight_bits if name == "images" else 1e-4
        torch.testing.assert_close(
            getattr(batch.clip, name), getattr(exact.clip, name)[order], atol=atol, rtol=0
        )
    torch.testing.assert_close(batch.depth, exact.depth[order], atol=0, rtol=1e-4)
    assert exact.target_images is not None and batch.target_images is not None
    torch.testing.assert_close(
        batch.target_images, exact.target_images[order], atol=eight_bits, rtol=0
    )
    for name in ("moving", "query_times", "target_world_from_cam", "target_intrinsics"):
        torch.testing.assert_close(
            getattr(batch, name), getattr(exact, name)[order], atol=1e-4, rtol=0
        )
    assert batch.moving.any() and not batch.moving.all()
    for query in range(FRAMES):
        assert batch.known(query).all()
        torch.testing.assert_close(
            batch.motion(query), exact.motion(query)[order], atol=2e-4, rtol=0
        )
    assert batch.motion(FRAMES - 1).abs().max() > 0.1


def test_a_batch_of_clips_has_losses(folder):
    torch.manual_seed(0)
    model = Movies(TINY)
    options = dataclasses.replace(
        WHOLE, frames=(2, 3), query_times="random", long_side=16, scenes=2
    )
    batch = ClipLibrary(folder).batch(options, seed=0, number=5)
    values = losses(model, batch, [0], LossWeights(rendering=1.0, log_depth=1.0), generator())
    assert {"depth", "log_depth", "motion", "rendering"} <= set(values)
    total = sum(values.values())
    assert torch.isfinite(total)
    total.backward()
    assert batch.kind is not None and (batch.kind == MOTION_KINDS.index("poses")).all()
