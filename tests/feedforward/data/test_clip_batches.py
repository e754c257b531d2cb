"""Batches of clips, against scenes that are rendered directly."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
from feedforward.data.toy_clips import posed_clip, tracked_clip, wall_clip
from feedforward.training.test_loop import TINY

from msdyn.errors import InputError
from msdyn.feedforward import Movies
from msdyn.feedforward.batches import MOTION_KINDS
from msdyn.feedforward.data import ClipBatchOptions, ClipLibrary, ClipWriter
from msdyn.feedforward.data.own_scenes import clips_of_scenes
from msdyn.feedforward.data.sampler import ClipSampler
from msdyn.feedforward.scenes.random_scenes import SceneOptions, random_scenes
from msdyn.feedforward.scenes.render import render_batch
from msdyn.feedforward.training.objective import LossWeights, losses

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


def write(folder, scenes, image_format):
    with ClipWriter(folder, image_format=image_format) as writer:
        for clip in clips_of_scenes(scenes, FRAMES, SIZE):
            writer.add(clip)
    return folder


@pytest.fixture(scope="module")
def folder(scenes, tmp_path_factory):
    return write(tmp_path_factory.mktemp("clips"), scenes, "jpg")


@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_a_scene_through_a_shard_is_the_scene_rendered(scenes, tmp_path, image_format):
    folder = write(tmp_path, scenes, image_format)
    times = torch.linspace(0, 1, FRAMES).expand(3, -1)
    exact = render_batch(scenes, times, times, (SIZE, SIZE), targets=True)
    library = ClipLibrary(folder)
    batch = library.batch(WHOLE, seed=0, number=0)
    # Each clip is drawn once per epoch; its first image tells which it is.
    first = exact.clip.images[:, 0].flatten(1)
    order = [
        int((first - own).abs().mean(1).argmin()) for own in batch.clip.images[:, 0].flatten(1)
    ]
    assert sorted(order) == [0, 1, 2]
    # Eight bits; JPEG of quality 95 errs by up to 0.08 where colours change from pixel to pixel.
    image_error = 0.5 / 255 + 1e-6 if image_format == "png" else 0.1
    for name in ("images", "world_from_cam", "intrinsics", "times"):
        atol = image_error if name == "images" else 1e-4
        torch.testing.assert_close(
            getattr(batch.clip, name), getattr(exact.clip, name)[order], atol=atol, rtol=0
        )
    torch.testing.assert_close(batch.depth, exact.depth[order], atol=0, rtol=1e-4)
    assert exact.target_images is not None and batch.target_images is not None
    torch.testing.assert_close(
        batch.target_images, exact.target_images[order], atol=image_error, rtol=0
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


TOY = ClipBatchOptions(scenes=4, frames=(2, 3), long_side=24, queries=2)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """One clip of each kind of motion; their objects differ in number."""
    folder = tmp_path_factory.mktemp("toys")
    clips = [
        posed_clip(objects=2),
        posed_clip("more", objects=5),
        tracked_clip(dataset="stereo4d"),
        wall_clip(dataset="matrixcity"),
        wall_clip("unknown", "vkitti2", motion="unknown"),
    ]
    with ClipWriter(folder) as writer:
        for clip in clips:
            writer.add(clip)
    return ClipLibrary(folder)


def alone(library, key, options, seed=0):
    """A batch of a clip alone."""
    own = ClipLibrary(library.entries[0].tar.parent)
    own.entries = [entry for entry in own.entries if entry.key == key]
    return own.batch(options, seed=seed, number=0)


def tensors(batch):
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
            yield field.name, value
        elif value is not None:
            yield from tensors(value)


def same(first, second):
    first, second = list(tensors(first)), list(tensors(second))
    assert len(first) == len(second)
    for (name, a), (_, b) in zip(first, second, strict=True):
        assert torch.equal(a, b), name


def test_a_batch_depends_on_seed_and_number_alone(toys):
    first = toys.batch(TOY, seed=1, number=7)
    toys.batch(TOY, seed=2, number=3)
    torch.manual_seed(9)
    same(first, ClipLibrary(toys.entries[0].tar.parent).batch(TOY, seed=1, number=7))
    for other in (toys.batch(TOY, seed=1, number=8), toys.batch(TOY, seed=2, number=7)):
        assert not (
            other.depth.shape == first.depth.shape and torch.equal(other.depth, first.depth)
        )


def test_a_library_can_be_sent_to_another_process(toys):
    same(
        toys.batch(TOY, seed=1, number=2),
        pickle.loads(pickle.dumps(toys)).batch(TOY, seed=1, number=2),
    )


def test_processes_have_the_parts_of_the_batch_of_one(toys):
    whole = toys.batch(TOY, seed=1, number=4)
    half = dataclasses.replace(TOY, scenes=2)
    parts = [toys.batch(half, seed=1, number=4, rank=r, processes=2) for r in range(2)]
    assert parts[0].clip.images.shape == parts[1].clip.images.shape
    assert torch.equal(torch.cat([p.depth for p in parts]), whole.depth)
    assert torch.equal(torch.cat([p.kind for p in parts]), whole.kind)
    assert torch.equal(torch.cat([p.clip.images for p in parts]), whole.clip.images)


def test_batches_vary_in_shape_within_the_options(toys):
    options = dataclasses.replace(TOY, scenes=1, long_side=64, aspect=(0.5, 2.0))
    shapes = {toys.batch(options, seed=0, number=i).clip.images.shape[1:] for i in range(40)}
    frames, _, heights, widths = (set(values) for values in zip(*shapes, strict=True))
    assert frames == {2, 3}
    assert all(max(shape[2:]) == 64 and min(shape[2:]) % 8 == 0 for shape in shapes)
    assert min(heights) == min(widths) == 32


def test_kinds_weights_and_padding(toys):
    options = dataclasses.replace(TOY, scenes=64)
    batch = toys.batch(options, seed=0, number=0)
    assert len(batch) == 64
    weights = {
        (MOTION_KINDS[int(k)], round(float(d), 3), round(float(m), 3))
        for k, d, m in zip(batch.kind, batch.depth_weight, batch.motion_weight, strict=True)
    }
    # All but vkitti2 (500 draws per epoch) and matrixcity (10) have one draw in 513.
    assert weights >= {("unknown", 1.0, 0.0)}
    assert weights <= {
        ("unknown", 1.0, 0.0), ("static", 0.8, 1.0), ("poses", 1.0, 1.0), ("tracks", 0.2, 0.2),
    }  # fmt: skip


def test_the_motion_of_poses(toys):
    batch = alone(toys, "toy/posed", dataclasses.replace(TOY, scenes=6, crop=(1.0, 1.0)))
    unit = 4 / batch.depth[batch.depth > 0].view(6, -1).mean(1)
    moves = batch.objects == 0
    assert torch.equal(batch.moving, moves) and moves.any()
    span = (batch.target_world_from_cam[..., 0, 3] - 0) * unit[:, None]  # travel until the query
    for query in range(2):
        motion = batch.motion(query)
        assert not motion[~moves].any() and batch.known(query).all()
        for scene in range(6):
            for frame in range(batch.depth.shape[1]):
                at = batch.clip.world_from_cam[scene, frame, 0, 3] * unit[scene]
                # Camera and object travel 0.1 and 0.05 per frame.
                expected = (span[scene, query] - at) / 2 / unit[scene]
                own = motion[scene, frame][moves[scene, frame]]
                torch.testing.assert_close(
                    own, torch.tensor([0, expected, 0]).expand_as(own), atol=1e-5, rtol=0
                )


def test_objects_of_a_batch_are_padded(toys):
    """Clips with 2 and 5 objects: the same as each alone."""
    own = ClipLibrary(toys.entries[0].tar.parent)
    own.entries = own.entries[:2]
    options = dataclasses.replace(TOY, scenes=4)
    batch = own.batch(options, seed=0, number=0)
    assert batch.frame_poses.shape[2] == 6
    identity = torch.eye(4).expand(4, batch.depth.shape[1], 4, 4)
    assert torch.equal(batch.frame_poses[:, :, 5], identity)
    sampler = ClipSampler(np.array([1, 1]), 0)
    for scene in range(4):
        objects = (2, 5)[sampler.clip(scene)]
        corner = batch.objects[scene, 0, 0, 0]
        lower_right = batch.objects[scene, 0, -1, -1]
        assert corner == 5 and lower_right == objects - 1
        static = batch.objects[scene] != 0
        assert not batch.motion(0)[scene][static].any()


def test_the_motion_of_tracks(toys):
    options = dataclasses.replace(TOY, scenes=12, crop=(1.0, 1.0))
    batch = alone(toys, "stereo4d/tracked", options)
    found = 0
    for scene in range(12):
        unit = float(4 / batch.depth[scene][batch.depth[scene] > 0].mean())
        for frame in range(batch.depth.shape[1]):
            x = float(batch.clip.world_from_cam[scene, frame, 0, 3]) * unit  # since the first
            for query in range(2):
                known = batch.known(query)[scene, frame]
                to = float(batch.target_world_from_cam[scene, query, 0, 3]) * unit
                # The static and the moving track, the latter of half of the camera's speed; the
                # third is lost after the first frame of the clip.
                assert known.sum() in (1, 2)
                moved = batch.motion(query)[scene, frame][known]
                expected = (to - x) / 2 / unit
                y = moved[:, 1].tolist()
                assert min(map(abs, y)) < 1e-6
                if known.sum() == 2:
                    found += abs(expected) > 0.01
                    assert any(abs(value - expected) < 1e-5 for value in y)
                    moving = batch.moving[scene, frame]
                    largest = max(
                        abs(float(batch.target_world_from_cam[scene, q, 0, 3]) * unit - x)
                        / 2
                        / unit
                        for q in range(2)
                    )
                    assert moving.sum() == (largest > 0.005)
                assert not batch.motion(query)[scene, frame][~known].any()
    assert found > 5


def test_the_motion_of_a_moving_object_is_known_with_its_depth(tmp_path):
    posed = posed_clip()

    def frame(index):
        own = posed.frame(index)
        own.depth[6] = 0
        return own

    with ClipWriter(tmp_path) as writer:
        writer.add(dataclasses.replace(posed, frame=frame))
    batch = ClipLibrary(tmp_path).batch(TOY, seed=0, number=0)
    assert (batch.moving & ~batch.valid).any() and (~batch.moving & ~batch.valid).any()
    assert torch.equal(batch.known(0), batch.valid | ~batch.moving)


def test_a_track_is_at_the_pixel_that_shows_it(tmp_path):
    """Of the camera at x = 0, a point at (0.2, 0, 4) with the focal length .8 W: column .54 W."""
    clip = tracked_clip()
    clip.world_from_cam[:] = np.eye(4)
    with ClipWriter(tmp_path) as writer:
        writer.add(clip)
    options = dataclasses.replace(TOY, scenes=1, crop=(1.0, 1.0), aspect=(1.5, 1.5), frames=(9, 9))
    batch = ClipLibrary(tmp_path).batch(options, seed=0, number=0)
    assert batch.clip.size == (16, 24)
    known = batch.known(0)[0, 0].nonzero().tolist()
    static = [int((0.5 + 1.2 * 0.5 / 4) * 16), int((0.5 - 0.8 * 0.5 / 4) * 24)]
    assert known == [[8, int(0.54 * 24)], static]  # the lost track is not known at later times


def test_nothing_is_known_of_unknown_motion(toys):
    batch = alone(toys, "vkitti2/unknown", TOY)
    assert not batch.known(0).any() and not batch.motion(0).any() and not batch.moving.any()


def test_static_clips_only(toys):
    options = dataclasses.replace(TOY, only="static")
    assert [e.key for e in toys.usable(options)] == ["matrixcity/wall"]
    batch = toys.batch(options, seed=0, number=0)
    assert batch.known(1).all() and not batch.motion(1).any()
    dynamic = toys.usable(dataclasses.replace(TOY, only="dynamic"))
    assert len(dynamic) == 4


def test_clips_too_short_are_left_out(toys):
    with pytest.raises(InputError, match="at least 10 input frames, got none among 5"):
        toys.batch(dataclasses.replace(TOY, frames=(2, 10)), seed=0, number=0)


def test_all_kinds_together_have_finite_losses(toys):
    own = ClipLibrary(toys.entries[0].tar.parent)
    own._usable[("all", 3)] = (own.entries, np.ones(5, np.int64))  # without repeats
    batch = own.batch(dataclasses.replace(TOY, scenes=5, long_side=16), seed=0, number=0)
    assert sorted(batch.kind.tolist()) == [0, 0, 1, 2, 3]
    torch.manual_seed(0)
    model = Movies(TINY)
    values = losses(model, batch, [1], LossWeights(log_depth=1.0, distribution=1.0), generator())
    assert all(torch.isfinite(value) for value in values.values())


@pytest.mark.parametrize(
    "options",
    [
        {"scenes": 0},
        {"frames": (0, 2)},
        {"frames": (3, 2)},
        {"aspect": (0.0, 1.0)},
        {"crop": (0.5, 1.5)},
        {"long_side": 60},
    ],
)
def test_impossible_options(options):
    with pytest.raises(InputError, match="expected"):
        ClipBatchOptions(**options)


def test_options_are_json():
    """The options of a run are compared with those in its folder."""

    def stored(options):
        return json.loads(json.dumps(dataclasses.asdict(options)))

    assert stored(TOY) == stored(dataclasses.replace(TOY))
    assert stored(TOY) != stored(dataclasses.replace(TOY, frames=(2, 4)))


def test_images_are_of_their_frames(toys):
    """Red tells the frame, and so does the camera."""
    batch = alone(toys, "toy/posed", dataclasses.replace(TOY, scenes=6))
    unit = 4 / batch.depth[batch.depth > 0].view(6, -1).mean(1)
    assert batch.target_images is not None
    first = batch.clip.images[:, 0, 0].mean((1, 2))
    for images, cameras in (
        (batch.clip.images, batch.clip.world_from_cam),
        (batch.target_images, batch.target_world_from_cam),
    ):
        frames = (images[:, :, 0].mean((2, 3)) - first[:, None]) * 255 / 6
        travelled = cameras[..., 0, 3] * unit[:, None] / 0.1
        torch.testing.assert_close(frames, travelled, atol=0.1, rtol=0)
    without = alone(toys, "toy/posed", dataclasses.replace(TOY, targets=False))
    assert without.target_images is None
