"""Sequence files with indices, shapes, types or numbers that lie outside are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from msdyn.errors import InputError
from msdyn.motion.models.displacements import Displacements
from msdyn.sequence import Gaussians, load_sequence, save_sequence

STORED = Path(__file__).parents[1] / "stored" / "hierarchy.safetensors"


@pytest.fixture(scope="module")
def stored():
    with safe_open(STORED, "pt") as file:
        return load_file(STORED), file.metadata()


def refused(tensors, metadata, path, match):
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata)
    with pytest.raises(InputError, match=match) as caught:
        load_sequence(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def corrupted(value, new, share=1.0):
    value = value.clone()
    value.reshape(-1)[: max(1, int(share * value.numel()))] = new
    return value


def test_the_file_itself_is_read(stored, tmp_path):
    path = tmp_path / "sequence.safetensors"
    save_file(*stored[:1], path, stored[1])
    assert load_sequence(path).num_levels == 3


@pytest.mark.parametrize(
    "name, value",
    [
        ("blend.0.index", 999_999),
        ("blend.1.index", 10**6),
        ("blend.2.index", 2**31 - 1),
        ("blend.2.index", 2**40),
        ("blend.2.index", -1),
        ("blend.2.index", -(2**62)),
        ("motion.0.parents", 1),
        ("motion.1.parents", 10**6),
        ("motion.2.parents", -5),
        ("motion.objects", 300),
        ("objects", 999),
        ("objects", -1),
        ("motion.key_frames", -7),
    ],
)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_indices_outside(stored, tmp_path, name, value, share):
    tensors, metadata = stored
    changed = tensors | {name: corrupted(tensors[name], value, share)}
    if name == "motion.key_frames" and share == 0:  # still increasing
        return
    refused(changed, metadata, tmp_path / "s.safetensors", name)


def test_values_and_shapes_of_every_tensor(stored, tmp_path):
    """Not finite, of another type, with a row or a dimension more or less, missing, empty."""
    tensors, metadata = stored
    path = tmp_path / "s.safetensors"
    unbounded = ("static.opacity_logits", "moving.opacity_logits")
    for name, value in tensors.items():
        changes = {
            "a row less": value[1:],
            "a row more": torch.cat([value, value[-1:]]),
            "flat": value.reshape(-1) if value.dim() > 1 else value[:, None],
            "type": value.bool(),
            "whole numbers": value.to(torch.int32) if value.is_floating_point() else value.float(),
        }
        if value.is_floating_point():
            changes["nan"] = corrupted(value, float("nan"), 0)
            if name not in unbounded:
                changes["infinite"] = corrupted(value, float("-inf"), 0)
            changes["large"] = corrupted(value, 5e36 if value.dtype == torch.float32 else 5e300, 0)
        for changed in changes.values():
            refused(tensors | {name: changed}, metadata, path, ": ")
        rest = {key: item for key, item in tensors.items() if key != name}
        refused(rest, metadata, path, "missing|expected")


@pytest.mark.parametrize(
    "change, match",
    [
        ({"version": 2}, "version: expected 1, got 2"),
        ({"version": "1"}, "version: expected 1"),
        ({"motion": 3}, "header: motion: expected a name"),
        ({"motion": "os.system"}, "motion: expected one of"),
        ({"levels": 4}, "header: levels: expected int <= 3, got 4"),
        ({"levels": "3"}, "header: levels: expected int, got str"),
        ({"width": 10**9}, "megapixels"),
        ({"width": 1.5}, "header: width: expected int, got float"),
        ({"height": -1}, "expected at least 1x1"),
        ({"canonical_frame": 10**9}, "canonical_frame: expected 0 to"),
        ({"canonical_frame": -1}, "canonical_frame: expected int >= 0, got -1"),
        ({"world_units": "<b>"}, "world_units"),
        ({"world_units": None}, "world_units"),
    ],
)
def test_headers(stored, tmp_path, change, match):
    tensors, metadata = stored
    header = json.dumps(json.loads(metadata["header"]) | change)
    refused(tensors, metadata | {"header": header}, tmp_path / "s.safetensors", match)
    key = next(iter(change))
    left = {name: v for name, v in json.loads(metadata["header"]).items() if name != key}
    if key != "motion":
        refused(tensors, metadata | {"header": json.dumps(left)}, tmp_path / "s.safetensors", key)


def test_displacements(stored, tmp_path):
    sequence = load_sequence(STORED)
    count, keys = len(sequence.moving), torch.tensor([0.0, 1.0])
    moved = sequence.replaced(motion=Displacements(torch.zeros(count, 2, 3), keys))
    path = tmp_path / "s.safetensors"
    save_sequence(moved, path)
    with safe_open(path, "pt") as file:
        tensors, metadata = load_file(path), file.metadata()
    assert load_sequence(path).motion.name == "displacements"
    for name, new in (("displacements", float("nan")), ("motion.key_frames", 1.0)):
        refused(tensors | {name: corrupted(tensors[name], new)}, metadata, path, name)
    wrong = {"displacements": torch.zeros(count, 3, 3)}
    refused(tensors | wrong, metadata, path, r"displacements: expected shape \[any, 2, 3\]")


def test_infinite_opacities_and_life_spans_are_kept(tmp_path):
    sequence = load_sequence(STORED)
    static = sequence.static
    spans = torch.tensor([[-torch.inf, torch.inf]]).repeat(len(static), 1)
    opaque = Gaussians(
        static.means,
        static.log_scales,
        static.quats_wxyz,
        torch.full((len(static),), torch.inf),
        static.harmonics,
        spans,
    )
    save_sequence(sequence.replaced(static=opaque), tmp_path / "sequence.safetensors")
    found = load_sequence(tmp_path)
    assert found.static.opacities.eq(1).all() and found.static.life_spans.isinf().all()
