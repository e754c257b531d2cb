"""Weights: a round trip, the released layout, VGGT's, and files that are none."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from msdyn.errors import InputError
from msdyn.feedforward import (
    ModelConfig,
    Movies,
    checkpoint,
    load_model,
    load_vggt,
    published_names,
    save_model,
    start_from,
)

SIZES = {
    "width": 32,
    "encoder_blocks": 1,
    "encoder_heads": 2,
    "position_grid": 3,
    "pairs": 1,
    "heads": 2,
    "head_layers": (0, 0, 0, 0),
    "head_channels": (8, 8, 12, 12),
    "head_features": 8,
}
PUBLISHED = dataclasses.replace(ModelConfig.published_network(), **SIZES)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Movies(dataclasses.replace(ModelConfig.small(), **SIZES)).eval()


def same(first, second):
    weights = second.state_dict()
    return first.state_dict().keys() == weights.keys() and all(
        torch.equal(value, weights[name]) for name, value in first.state_dict().items()
    )


def test_a_round_trip_keeps_weights_and_config(model, tmp_path):
    save_model(model, tmp_path / "model.safetensors", about={"seed": 3})
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.config == model.config and same(model, loaded) and not loaded.training
    assert not any(value.is_meta for value in loaded.state_dict().values())
    save_model(model, tmp_path / "half.safetensors", dtype=torch.float16)
    close = load_model(tmp_path / "half.safetensors")
    weight = close.encoder.patch_embed.proj.weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, model.encoder.patch_embed.proj.weight, atol=1e-3, rtol=1e-3)
    half = load_model(tmp_path / "model.safetensors", dtype=torch.bfloat16)
    assert half.encoder.cls_token.dtype == torch.bfloat16
    assert half.depth_head.scratch.output_conv2[2].weight.dtype == torch.float32


@pytest.mark.parametrize("layout", ["safetensors", "torch", "wrapped"])
@pytest.mark.parametrize("is_static", [False, True])
def test_the_released_layout_is_read(tmp_path, monkeypatch, layout, is_static):
    config = PUBLISHED
    if is_static:
        config = dataclasses.replace(ModelConfig.published_static(), **SIZES)
    for name, sized in (("published_network", PUBLISHED), ("published_static", config)):
        monkeypatch.setattr(ModelConfig, name, lambda sized=sized: sized)
    torch.manual_seed(1)
    model = Movies(config)
    names = published_names(model.state_dict())
    weights = {names[name]: value.clone() for name, value in model.state_dict().items()}
    path = tmp_path / ("movies.safetensors" if layout == "safetensors" else "movies.pt")
    if layout == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"model": weights, "step": 3} if layout == "wrapped" else weights, path)
    loaded = load_model(path)
    assert loaded.config == config and same(model, loaded)


def test_vggt_initialises_what_it_has(tmp_path, model):
    """Names as in VGGT-1B, of which cameras and tracks are left out."""
    with torch.device("meta"):
        expected = Movies(model.config).state_dict()
    stored = {}
    for name, value in expected.items():
        if "time_embed" in name or "shortcut" in name or "extra_embed" in name:
            continue
        for ours, theirs in (
            ("encoder.", "aggregator.patch_embed."),
            ("aggregator.", "aggregator."),
            ("depth_head.", "depth_head."),
            ("motion_head.", "point_head."),
        ):
            if name.startswith(ours):
                stored[theirs + name[len(ours) :]] = torch.full(value.shape, 0.25)
    stored["camera_head.token_norm.weight"] = torch.zeros(3)
    stored["track_head.x"] = torch.zeros(3)
    save_file(stored, tmp_path / "vggt.safetensors")
    missing = load_vggt(model, tmp_path / "vggt.safetensors")
    for name, value in model.state_dict().items():
        assert (name in missing) != bool((value == 0.25).all()), name
    again = Movies(model.config)
    assert start_from(again, tmp_path / "vggt.safetensors") == missing
    assert {name.split(".")[0] for name in missing} == {
        "aggregator", "motion_head", "plucker_embed", "plucker_ln", "splat_head",
        "motion_splat_head",
    }  # fmt: skip
    stored["point_head.norm.weight"] = torch.zeros(5)
    save_file(stored, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"motion_head.norm.weight: expected \[64\], got \[5\]"):
        load_vggt(model, tmp_path / "other.safetensors")


def test_the_names_of_vggt_cover_what_is_said(shared):
    folder = shared / "movies"
    if not (folder / "vggt_state_dict.json").is_file():
        pytest.skip("needs the names of VGGT's weights in ../shared/movies")
    theirs = json.loads((folder / "vggt_state_dict.json").read_text())
    with torch.device("meta"):
        ours = {k: list(v.shape) for k, v in Movies(ModelConfig.published_network())
                .state_dict().items()}  # fmt: skip
    found = {}
    for name, shape in theirs.items():
        if not name.startswith(checkpoint._VGGT_UNUSED):
            old, new = next(rule for rule in checkpoint._VGGT if name.startswith(rule[0]))
            found[new + name[len(old) :]] = shape
    assert len(found) == 1334
    assert all(ours[name] == shape for name, shape in found.items())


def test_files_that_are_no_weights(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        load_model(tmp_path / "none.safetensors")
    path = tmp_path / "model.safetensors"
    for content in (b"", b"text", b"PK\x03\x04rubbish", b"\x80\x04."):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable file of weights"):
            load_model(path)
    other = tmp_path / "model.pt"
    torch.save([1, 2], other)
    with pytest.raises(InputError, match="expected weights by name, got list"):
        load_model(other)
    save_file({"other": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="weights are missing"):
        load_model(path)
    with pytest.raises(InputError, match="none of its names"):
        load_vggt(model, path)


def test_weights_must_fit_the_config(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    tensors = {name: value.clone() for name, value in checkpoint._read(path)[0].items()}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(tensors | {"extra": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(InputError, match=r"1 unknown weights \(extra"):
        load_model(path)
    save_file(tensors | {"encoder.norm.weight": torch.zeros(7)}, path, metadata=metadata)
    with pytest.raises(InputError, match=r"encoder.norm.weight: expected \[32\], got \[7\]"):
        load_model(path)
    header = json.loads(metadata["header"])
    for broken in ({**header, "version": 2}, {**header, "config": {"width": "64"}}):
        save_file(tensors, path, metadata={**metadata, "header": json.dumps(broken)})
        with pytest.raises(InputError, match="version|width"):
            load_model(path)


def test_a_network_with_motion_starts_from_the_static_stage(model, tmp_path):
    config = dataclasses.replace(
        model.config, motion=False, time_token=False, attribute_motion="none"
    )
    torch.manual_seed(5)
    static = Movies(config)
    save_model(static, tmp_path / "static.safetensors")
    missing = start_from(model, tmp_path / "static.safetensors")
    weights = model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in static.state_dict().items())
    assert {name.split(".")[0] for name in missing} == {
        "aggregator", "motion_head", "motion_splat_head"
    }  # fmt: skip
    narrow = Movies(dataclasses.replace(config, width=16, encoder_heads=1, heads=1))
    with pytest.raises(InputError, match="expected"):
        start_from(narrow, tmp_path / "static.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        start_from(model, tmp_path / "other.safetensors")
