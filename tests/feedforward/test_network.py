"""The network: gradients, variants, chunks of frames, precision, and what it is told of cameras."""

import dataclasses
import json

import pytest
import torch
from unchecked import construct_unchecked

from msdyn.errors import InputError
from msdyn.feedforward import ClipTensors, ModelConfig, Movies, published_names
from msdyn.feedforward.embeddings import pose_encoding, time_encoding

TINY = dataclasses.replace(
    ModelConfig.small(),
    width=32,
    encoder_blocks=1,
    encoder_heads=2,
    position_grid=3,
    pairs=2,
    heads=2,
    head_layers=(0, 0, 1, 1),
    head_channels=(8, 8, 12, 12),
    head_features=8,
)


def turned(angle):
    """A pose that is rotated about y and moved."""
    pose = torch.eye(4)
    cos, sin = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
    pose[0, 0] = pose[2, 2] = cos
    pose[0, 2], pose[2, 0], pose[0, 3] = sin, -sin, angle
    return pose


def random_clip(scenes=1, frames=3, height=24, width=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    poses = torch.stack([turned(0.1 * i) for i in range(frames)])
    return ClipTensors(
        torch.rand(scenes, frames, 3, height, width, generator=generator),
        poses.expand(scenes, -1, -1, -1),
        torch.tensor([0.9, 1.2, 0.5, 0.5]).expand(scenes, frames, 4),
        torch.linspace(0, 1, frames).expand(scenes, -1),
    )


def make(config=TINY, seed=0):
    torch.manual_seed(seed)
    return Movies(config)


def predict(model, clip, query=0.5):
    features = model.encode(clip)
    static = model.static(features)
    times = torch.full((len(clip.times),), query, device=clip.times.device)
    motion = model.move(features, static, times)
    return static, motion, model.gaussians(features, static, motion)


def all_gradients(model, clip):
    """Return the parameters that no gradient reaches, after a step away from initial zeros."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            # What starts at zero stops gradients on the first step only.
            if name.endswith(("time_embed.weight", "plucker_ln.weight")):
                value.add_(0.1)
    static, motion, posed = predict(model, clip)
    loss = sum(
        getattr(posed, field.name).square().mean() for field in dataclasses.fields(posed)
    ) + posed.quats_wxyz[..., 0].mean()  # fmt: skip
    loss = loss + static.depth_confidence.mean() + motion.confidence.mean() + static.depth.mean()
    loss = loss + motion.displacement.square().mean() + static.attributes.square().mean()
    loss = loss + motion.attributes.square().mean()
    loss.backward()
    return {
        name
        for name, value in model.named_parameters()
        if value.grad is None or not value.grad.abs().max() > 0
    }


def test_gradients_reach_every_parameter():
    # The confidences of attributes are not used by anything; they share the last layer's weights.
    assert all_gradients(make(), random_clip()) == set()


@pytest.mark.parametrize("attribute_motion", ["add", "replace"])
def test_the_published_camera_branch_never_learns(attribute_motion):
    published = dataclasses.replace(TINY, published=True, attribute_motion=attribute_motion)
    model = make(published)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        _, _, posed = predict(model, random_clip())
        posed.means.square().mean().backward()
        dead = (model.plucker_embed.net.weight, model.plucker_embed.net.bias,
                model.plucker_ln.weight)  # fmt: skip
        assert all(value.grad.abs().max() == 0 for value in dead)
        optimizer.step()
    assert all(value.abs().max() == 0 for value in dead)
    assert model.plucker_ln.bias.abs().max() > 0
    # Ours does learn.
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = model.plucker_embed.net.weight.clone()
    for _ in range(2):
        optimizer.zero_grad()
        predict(model, random_clip())[2].means.square().mean().backward()
        optimizer.step()
    assert (model.plucker_embed.net.weight - before).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(24, 24), (32, 64), (64, 16)])
def test_any_size_in_patches(size):
    clip = random_clip(2, 2, *size)
    static, motion, posed = predict(make(), clip)
    assert static.depth.shape == (2, 2, *size)
    assert motion.displacement.shape == posed.means.shape == (2, 2, *size, 3)
    assert torch.isfinite(posed.means).all()


@pytest.mark.parametrize("name", ["plucker", "camera_token"])
def test_each_way_to_tell_the_camera_can_be_switched_off(name):
    clip = random_clip()
    moved = dataclasses.replace(clip, world_from_cam=clip.world_from_cam @ turned(0.3))
    off = {"plucker": False, "camera_token": False}
    blind = make(dataclasses.replace(TINY, **off))
    told = make(dataclasses.replace(TINY, **(off | {name: True})))
    if name == "plucker":
        torch.nn.init.ones_(told.plucker_ln.weight)
    for model, knows in ((blind, False), (told, True)):
        layers = [model.encode(c).layers[1] for c in (clip, moved)]
        assert torch.equal(*layers) != knows


def test_the_first_frame_is_distinguished_and_the_others_are_not_ordered():
    model = make(dataclasses.replace(TINY, plucker=False, camera_token=False, time_token=False))
    clip = random_clip(1, 3)
    swapped = dataclasses.replace(clip, images=clip.images[:, [0, 2, 1]])
    first, second = (model.encode(c).layers[1] for c in (clip, swapped))
    torch.testing.assert_close(second[:, [0, 2, 1]], first, atol=1e-5, rtol=1e-4)
    rotated = dataclasses.replace(clip, images=clip.images[:, [1, 2, 0]])
    assert not torch.allclose(model.encode(rotated).layers[1][:, [2, 0, 1]], first, atol=1e-3)


def test_scenes_of_a_batch_are_independent():
    model = make()
    torch.nn.init.ones_(model.plucker_ln.weight)
    both = random_clip(2)
    alone = ClipTensors(both.images[1:], both.world_from_cam[1:], both.intrinsics[1:],
                        both.times[1:])  # fmt: skip
    together, single = predict(model, both)[2], predict(model, alone)[2]
    torch.testing.assert_close(together.means[1:], single.means, atol=1e-5, rtol=1e-4)


def test_chunks_of_frames_and_recomputation_change_nothing():
    model, clip = make(), random_clip(2, 5)
    whole = predict(model, clip)[2].means
    whole.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.frame_chunk, model.recompute = 2, True
    chunked = predict(model, clip)[2].means
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-4)
    chunked.square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-3, rtol=1e-3)


def test_bfloat16_is_close_and_its_outputs_are_float32():
    model, clip = make(), random_clip()
    exact = predict(model, clip)[0].depth
    with torch.autocast("cpu", torch.bfloat16):
        static, motion, posed = predict(model, clip)
    assert static.depth.dtype == motion.displacement.dtype == posed.scales.dtype == torch.float32
    torch.testing.assert_close(static.depth, exact, rtol=0.05, atol=0.02)
    # Not rounded to bfloat16: neighbouring depths differ.
    assert static.depth.unique().numel() > 0.9 * static.depth.numel()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_gpu_agrees_with_the_cpu(precision):
    model, clip = make(), random_clip(2, 4)
    expected = predict(model, clip)[2]
    model.to("cuda")
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        found = predict(model, clip.to("cuda"))[2]
    bound = 1e-3 if precision == torch.float32 else 0.05
    torch.testing.assert_close(found.means.cpu(), expected.means, rtol=bound, atol=bound)
    torch.testing.assert_close(found.colours.cpu(), expected.colours, rtol=bound, atol=bound)


def test_times_are_rounded_for_trained_weights_only():
    times = torch.tensor([0.7, 0.99])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(make()._encodable(times), times)
        published = make(dataclasses.replace(TINY, published=True, attribute_motion="replace"))
        assert torch.equal(published._encodable(times), times.bfloat16().float())
    assert torch.equal(published._encodable(times), times)


def test_motion_starts_independent_of_the_query_time():
    model, clip = make(), random_clip()
    first, second = (predict(model, clip, query)[1].displacement for query in (0.1, 0.9))
    assert torch.equal(first, second)


def test_attributes_in_motion_are_added_or_replaced():
    clip = random_clip()
    model = make()
    static, motion, posed = predict(model, clip)
    expected = 0.5 + 0.5 * (static.attributes + motion.attributes)[..., :3].tanh()
    torch.testing.assert_close(posed.colours, expected)
    model = make(dataclasses.replace(TINY, attribute_motion="replace"))
    static, motion, posed = predict(model, clip)
    moved = motion.displacement.norm(dim=-1) >= 0.005
    assert 0 < moved.float().mean() <= 1
    raw = torch.where(moved[..., None], motion.attributes, static.attributes)
    torch.testing.assert_close(posed.colours, 0.5 + 0.5 * raw[..., :3].tanh())


def test_scales_follow_the_footprint_of_a_pixel():
    model = make()
    features = model.encode(random_clip())
    static = model.static(features)
    posed = model.gaussians(features, static)
    footprint = static.depth / (0.9 * 32)
    softened = torch.nn.functional.softplus(static.attributes[..., 3:6])
    torch.testing.assert_close(posed.scales, (footprint[..., None] * softened).clamp_max(0.3))


def test_both_signs_of_a_quaternion_are_encoded_alike():
    poses = torch.stack([turned(a) for a in (3.0, -3.0, 3.2)])
    encoded = pose_encoding(poses, torch.tensor([0.9, 1.2, 0.5, 0.5]).expand(3, 4))
    assert (encoded[:, 6] >= 0).all()


def test_times_are_encoded_by_octaves():
    encoded = time_encoding(torch.tensor([0.25]))[0]
    assert encoded[2] == pytest.approx(torch.sin(torch.tensor(1.0)).item())
    assert encoded[10] == pytest.approx(torch.cos(torch.tensor(0.25)).item())


@pytest.mark.parametrize("name", ["movies", "movies_static"])
def test_names_and_shapes_are_those_of_the_released_weights(shared, name):
    path = shared / "movies" / f"{name}_state_dict.json"
    if not path.is_file():
        pytest.skip("needs the names of the released weights in ../shared/movies")
    config = {
        "movies": ModelConfig.published_network(),
        "movies_static": ModelConfig.published_static(),
    }[name]
    with torch.device("meta"):
        weights = Movies(config).state_dict()
    names = published_names(weights)
    assert {names[k]: list(v.shape) for k, v in weights.items()} == json.loads(path.read_text())
    if name == "movies":
        assert sum(value.numel() for value in weights.values()) == 1_041_147_254


def test_the_small_network_is_small():
    with torch.device("meta"):
        count = sum(value.numel() for value in Movies(ModelConfig.small()).parameters())
    assert 3e6 < count < 4e6


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"heads": 3}, "heads: expected a divisor of 32, got 3"),
        ({"head_layers": (0, 1, 2, 3)}, "head_layers: expected numbers below 2"),
        ({"head_channels": (1, 2)}, "head_channels: expected 4 numbers, got 2"),
        ({"width": 36, "heads": 6, "encoder_heads": 6}, "multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        construct_unchecked(ModelConfig, **{**dataclasses.asdict(TINY), **changes})


def test_a_config_in_a_file_is_checked():
    values = json.loads(json.dumps(TINY.to_json()))
    assert ModelConfig.from_json(values) == TINY
    with pytest.raises(InputError, match="depth"):
        ModelConfig.from_json(values | {"depth": 3})
    with pytest.raises(InputError, match=r"width: expected int, got '64'"):
        ModelConfig.from_json(values | {"width": "64"})
    with pytest.raises(InputError, match="head_layers: expected tuple"):
        ModelConfig.from_json(values | {"head_layers": [0.5, 1, 2, 2]})
