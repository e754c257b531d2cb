"""Compare every part of the feed-forward network with recorded outputs of the published one.

    python tools/feedforward_parity.py ../shared/movies/parity

Prints the parts with their largest absolute difference and with the largest share of the
tolerance (relative 1e-4, absolute 2e-5; 1e-6 for displacements and scales, which are small)
that a number uses. The recordings are of random weights
at a tiny size.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from msdyn.feedforward import ClipTensors, ModelConfig, Movies
from msdyn.feedforward.attention import Block
from msdyn.feedforward.dpt import DptHead
from msdyn.feedforward.embeddings import (
    grid_embedding,
    plucker_coordinates,
    pose_encoding,
    rotate_by_position,
    time_encoding,
)
from msdyn.feedforward.normalise import canonical_cameras, mean_distance, scaled_cameras
from msdyn.feedforward.splats import activate, depth_of, has_moved, points_from_depth

RELATIVE, ABSOLUTE = 1e-4, 2e-5
SMALL = 1e-6  # for numbers of the order of .005

TINY = replace(
    ModelConfig.published_network(),
    width=64,
    encoder_blocks=3,
    encoder_heads=4,
    position_grid=5,
    pairs=4,
    heads=4,
    head_features=16,
    head_channels=(8, 16, 32, 32),
    head_layers=(0, 1, 2, 3),
)
TINY_HEAD = replace(TINY, head_features=8, head_channels=(4, 8, 12, 16))


@dataclass(frozen=True)
class Comparison:
    """A part of the network: our numbers beside the recorded ones, and the absolute tolerance."""

    part: str
    ours: Tensor
    recorded: Tensor
    absolute: float = ABSOLUTE

    @property
    def difference(self) -> float:
        """Largest absolute difference."""
        return float((self.ours.double() - self.recorded.double()).abs().max())

    @property
    def share(self) -> float:
        """Largest share of the tolerance used; above 1 is a failure."""
        recorded = self.recorded.double()
        allowed = self.absolute + RELATIVE * recorded.abs()
        return float(((self.ours.double() - recorded).abs() / allowed).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="of the recordings")
    print("| part | shape | largest difference | share of the tolerance |\n|---|---|---|---|")
    for row in compare(parser.parse_args().folder):
        shape = " x ".join(map(str, row.ours.shape))
        print(f"| {row.part} | {shape} | {row.difference:.1e} | {100 * row.share:.0f} % |")


@torch.inference_mode()
def compare(folder: Path) -> Iterator[Comparison]:
    """Yield the comparison of every part."""
    parts = load_file(folder / "components.safetensors")
    yield from _embeddings(parts)
    yield from _parameterisation(parts)
    yield from _block(parts)
    yield from _heads(parts)
    model = tiny_network(folder)
    inputs = load_file(folder / "tiny_inputs.safetensors")
    clip = ClipTensors(inputs["images"], inputs["c2w"], inputs["fxfycxcy"], inputs["input_times"])
    yield from _network(model, clip, inputs["query_times"], folder)
    yield from _static_network(clip, folder)


def tiny_network(folder: Path, config: ModelConfig = TINY) -> Movies:
    """Return the network of the recordings."""
    model = Movies(config)
    weights = {
        name.replace("backbone.", "aggregator.", 1) if name.startswith("backbone.") else name: value
        for name, value in load_file(folder / "tiny_weights.safetensors").items()
    }
    expected = model.state_dict().keys()
    model.load_state_dict({name: weights[name] for name in expected})
    return model.eval()


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {k[len(prefix) :]: value for k, value in tensors.items() if k.startswith(prefix)}


def _embeddings(parts: dict[str, Tensor]) -> Iterator[Comparison]:
    for name in ("rope", "rope64"):
        ours = rotate_by_position(parts[f"{name}.in"], parts[f"{name}.positions"])
        yield Comparison(f"rotary embedding ({name})", ours, parts[f"{name}.out"])
    cameras = parts["camera.c2w"], parts["camera.fxfycxcy"]
    rays = plucker_coordinates(*cameras, 6, 8)
    yield Comparison("Plücker coordinates", rays, parts["camera.plucker"])
    yield Comparison("camera encoding", pose_encoding(*cameras), parts["camera.pose_encoding"])
    ours = time_encoding(parts["time.f32.in"])
    yield Comparison("time encoding", ours, parts["time.f32.out"])
    ours = grid_embedding(16, 4, 5, 1.25, "cpu").movedim(0, -1)
    yield Comparison("position embedding of heads", ours, parts["uv_embed.w5_h4_c16"])


def _parameterisation(parts: dict[str, Tensor]) -> Iterator[Comparison]:
    depth, cameras = parts["unproject.depth"], (parts["camera.c2w"], parts["camera.fxfycxcy"])
    points = points_from_depth(depth, *cameras).movedim(-1, 2)
    yield Comparison("points from depth", points, parts["unproject.xyz"])
    raw = parts["act.in"][:, None].expand(-1, 11)
    activated = activate(raw, raw[:, :3], scale_unit="constant", pixel_width=raw[:, 0])
    yield Comparison("colour", activated.colours[:, 0], parts["act.color"])
    yield Comparison("scale", activated.scales[:, 0], parts["act.scale"], SMALL)
    yield Comparison("opacity", activated.opacities, parts["act.opacity"])
    yield Comparison("depth", depth_of(parts["act.in"]), parts["act.depth_exp_then_clamp"])
    raw = torch.zeros(5, 11)
    raw[:, 6:10], raw[:4, 3] = parts["act.quat_in"], parts["act.scale_large_in"]
    activated = activate(raw, raw[:, :3], scale_unit="constant", pixel_width=raw[:, 0])
    yield Comparison("rotation", activated.quats_wxyz, parts["act.quat"])
    yield Comparison("scale, clamped", activated.scales[:4, 0], parts["act.scale_large"])
    cameras = canonical_cameras(parts["normalise.c2w_in"])
    intrinsics = parts["normalise.fxfycxcy"]
    inputs = slice(int(parts["normalise.input_frames"]))
    scale = mean_distance(
        parts["normalise.depth_in"][inputs],
        parts["normalise.mask"][inputs],
        cameras[inputs],
        intrinsics[inputs],
    )
    yield Comparison("scale of the scene", torch.tensor(1 / scale), parts["normalise.scale"])
    ours = scaled_cameras(cameras, scale)
    yield Comparison("canonical cameras", ours, parts["normalise.c2w_out"])


def _block(parts: dict[str, Tensor]) -> Iterator[Comparison]:
    block = Block(32, 2, eps=1e-5, normalise=True, layer_scale=1.0)
    block.load_state_dict(_under(parts, "block.weights."))
    ours = block(parts["block.in"], parts["block.positions"])
    yield Comparison("transformer block", ours, parts["block.out"])


def _heads(parts: dict[str, Tensor]) -> Iterator[Comparison]:
    for name, outputs in (("depth", 1), ("splat", 11), ("motion", 3)):
        prefix = f"dpt_{name}."
        is_splat, is_timed = name == "splat", name == "motion"
        head = DptHead(TINY_HEAD, 24, outputs, timed=is_timed, shortcut=3 if is_splat else 0)
        head.load_state_dict(_under(parts, f"{prefix}weights."))
        layers = [parts[f"{prefix}tokens_{i}"][:, :, 7:].flatten(0, 1) for i in (0, 2, 3, 5)]
        query = parts[f"{prefix}time_encoding"].repeat_interleave(2, 0) if is_timed else None
        images = parts[f"{prefix}images"].flatten(0, 1) if is_splat else None
        raw, confidence = head(layers, (2, 3), (28, 42), query=query, shortcut=images)
        raw = raw.exp() if name == "depth" else raw
        recorded = parts[f"{prefix}out"].flatten(0, 1).movedim(-1, 1)
        yield Comparison(f"{name} head", raw, recorded)
        recorded = parts[f"{prefix}conf"].flatten(0, 1)
        yield Comparison(f"{name} head, confidence", confidence, recorded)


def _network(
    model: Movies, clip: ClipTensors, query_times: Tensor, folder: Path
) -> Iterator[Comparison]:
    recorded = load_file(folder / "tiny_outputs.safetensors")
    tokens = model.encoder.tokens(clip.images[0])
    yield Comparison("encoder, all tokens", tokens, recorded["encoder_prenorm_tokens"])
    patches = model.encoder(clip.images[0])
    yield Comparison("encoder, patches", patches, recorded["encoder_patch_tokens"])
    rays = plucker_coordinates(clip.world_from_cam, clip.intrinsics, *clip.size).movedim(2, 1)
    embedded = model.plucker_ln(model.plucker_embed(rays))
    yield Comparison("Plücker embedding", embedded, recorded["plucker_normed"])
    special = model.aggregator.special(clip.world_from_cam, clip.intrinsics, clip.times)[0]
    yield Comparison("special tokens", special, recorded["aggregator_input_tokens"][:, :7])
    features = model.encode(clip)
    for index, layer in features.layers.items():
        theirs = recorded[f"aggregated_{index}"][:, :, 7:]
        yield Comparison(f"aggregator, pair {index}", layer, theirs)
    static = model.static(features)
    yield Comparison("network: depth", static.depth, recorded["depth_head.pred"][..., 0])
    confidence = static.depth_confidence
    yield Comparison("network: depth confidence", confidence, recorded["depth_head.conf"])
    yield Comparison("network: attributes", static.attributes, recorded["splat_head.pred"])
    unmoved = model.gaussians(features, static).of_scene(0)
    yield from _gaussians("without motion", unmoved, _under(recorded, "gaussians.static."), None)
    for number in range(query_times.shape[1]):
        motion = model.move(features, static, query_times[:, number])
        name = f"query {number}"
        theirs = recorded["motion_head.pred"][number]
        yield Comparison(f"network: displacement, {name}", motion.displacement, theirs, SMALL)
        theirs = recorded["motion_splat_head.pred"][number]
        assert motion.attributes is not None
        yield Comparison(f"network: attributes, {name}", motion.attributes, theirs)
        # Rounding decides about displacements at the threshold.
        length = motion.displacement.norm(dim=-1)[0]
        clear = (length - 0.005).abs() > 1e-6
        moved = has_moved(motion.displacement, TINY.moving)[0][clear]
        yield Comparison(
            f"network: moved, {name}", moved, recorded["moving_mask"][0, number][clear]
        )
        posed = model.gaussians(features, static, motion).of_scene(0)
        theirs = _under(recorded, f"gaussians.{number}.")
        yield from _gaussians(name, posed, theirs, clear.flatten())


def _gaussians(name, ours, recorded: dict[str, Tensor], keep: Tensor | None):
    pairs = (
        ("xyz", ours.means),
        ("color", ours.colours),
        ("scale", ours.scales),
        ("rotation", ours.quats_wxyz),
        ("opacity", ours.opacities[:, None]),
    )
    for key, value in pairs:
        keep = torch.ones(len(value), dtype=torch.bool) if keep is None else keep
        absolute = SMALL if key == "scale" else ABSOLUTE
        yield Comparison(f"Gaussians, {key}, {name}", value[keep], recorded[key][keep], absolute)


def _static_network(clip: ClipTensors, folder: Path) -> Iterator[Comparison]:
    recorded = load_file(folder / "tiny_static_outputs.safetensors")
    config = replace(TINY, time_token=False, motion=False, attribute_motion="none")
    model = tiny_network(folder, config)
    features = model.encode(clip)
    last = features.layers[3]
    yield Comparison("static stage: aggregator", last, recorded["aggregated_last"][:, :, 6:])
    depth = model.static(features).depth
    yield Comparison("static stage: depth", depth, recorded["depth"][:, :, 0])


if __name__ == "__main__":
    main()
