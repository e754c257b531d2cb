"""From predicted pixels to a Gaussian sequence: pruning, merging, static and moving Gaussians."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from msdyn.feedforward.options import Pruning
from msdyn.feedforward.splats import SplatterPixels
from msdyn.feedforward.windows import WindowPixels, key_frames_of, owners, trajectories
from msdyn.geometry import SH_C0, quats_wxyz_from_rotations, rotations_from_quats_wxyz
from msdyn.motion.models.displacements import Displacements
from msdyn.scene import IGNORE, Scene
from msdyn.sequence import Gaussians, GaussianSequence

__all__ = ["Pruning", "assemble"]

_LARGEST_OPACITY = 0.995


@dataclass(frozen=True)
class _Pixels:
    """Gaussians at their frames' own times, with their displacements to all key frames."""

    splats: SplatterPixels
    displacements: Float[Tensor, "gaussians keys 3"]
    labels: Int[Tensor, " gaussians"]
    pixel_width: Float[Tensor, " gaussians"]

    def select(self, keep: Bool[Tensor, " gaussians"]) -> _Pixels:
        return _Pixels(
            self.splats.select(keep),
            self.displacements[keep],
            self.labels[keep],
            self.pixel_width[keep],
        )


def assemble(
    scene: Scene,
    windows: Sequence[WindowPixels],
    *,
    moving: float,
    pruning: Pruning,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[GaussianSequence, dict[str, int]]:
    """Return the sequence of all windows, and the numbers of Gaussians before and after pruning.

    A Gaussian is moving if its displacement to some key frame is at least `moving`. Moving
    Gaussians belong to the object whose mask has their pixel, if the scene has masks, otherwise to
    one object. The canonical frame is the middle key frame.

    Args:
        scene: whose frames were predicted.
        windows: at one scale.
        moving: threshold, in units of the network's world.
        pruning: what to keep.
        progress: wraps the frames, for a progress bar.
    """
    keys = key_frames_of(windows)
    middle = len(keys) // 2
    static_parts: list[_Pixels] = []
    moving_parts: list[_Pixels] = []
    counts = {"predicted": 0, "opaque": 0}
    owned = owners(windows)
    for frame in progress(list(owned)):
        number, position = owned[frame]
        pixels = _pixels(scene, windows, number, position, keys)
        counts["predicted"] += len(pixels.labels)
        pixels = pixels.select(pixels.splats.opacities >= pruning.opacity)
        counts["opaque"] += len(pixels.labels)
        size = pixels.displacements.norm(dim=-1).amax(1)
        has_moved = size >= moving * windows[number].scale
        still = pixels.select(~has_moved)
        # The displacements of static Gaussians are of no use; views of none take no memory.
        static_parts.append(replace(still, displacements=still.displacements[:, :0].clone()))
        moving_parts.append(pixels.select(has_moved))
    static = _concatenated(static_parts)
    counts["static"] = len(static.labels)
    if pruning.voxel > 0:
        static = _merged(static, pruning.voxel)
    counts["static_merged"] = len(static.labels)
    moved = _concatenated(moving_parts)
    counts["moving"] = len(moved.labels)
    canonical = moved.displacements[:, middle]
    moving_splats = replace(moved.splats, means=moved.splats.means + canonical)
    motion = Displacements(
        moved.displacements - canonical[:, None], torch.tensor(keys, dtype=torch.float32)
    )
    sequence = GaussianSequence(
        _gaussians(static.splats),
        _gaussians(moving_splats),
        motion,
        moved.labels,
        timeline=scene.info.timeline,
        cameras=scene.cameras,
        canonical_frame=keys[middle],
        world_units=scene.info.world_units,
    )
    return sequence, counts


def _pixels(
    scene: Scene, windows: Sequence[WindowPixels], number: int, position: int, keys: list[int]
) -> _Pixels:
    """Return all pixels of one frame."""
    window = windows[number]
    camera = window.cameras[position]
    frame = window.frames[position]
    return _Pixels(
        window.splats.mapped(lambda value: value[position].flatten(0, 1)),
        trajectories(windows, number, position, keys),
        _labels(scene, frame, window.depth.shape[1:]),
        window.depth[position].flatten() / float(camera.intrinsics[0, 0, 0]),
    )


def _labels(scene: Scene, frame: int, size: Sequence[int]) -> Int[Tensor, " pixels"]:
    """Return the object of each pixel of a smaller image, at least 1, whether it moves or not."""
    try:
        mask = torch.from_numpy(scene.mask(frame)).long()
    except FileNotFoundError:
        return torch.ones(size[0] * size[1], dtype=torch.long)
    height, width = mask.shape
    rows = ((torch.arange(size[0]) + 0.5) * height / size[0]).long()
    columns = ((torch.arange(size[1]) + 0.5) * width / size[1]).long()
    values = mask[rows][:, columns].flatten()
    return torch.where((values > 0) & (values != IGNORE), values, 1)


def _concatenated(parts: Sequence[_Pixels]) -> _Pixels:
    return _Pixels(
        SplatterPixels.joined([part.splats for part in parts]),
        torch.cat([part.displacements for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.pixel_width for part in parts]),
    )


def _merged(pixels: _Pixels, factor: float) -> _Pixels:
    """Merge Gaussians within voxels, whose edge is `factor` pixels wide to the next power of two.

    Mean and covariance are those of the mixture, weighted by opacity, so that the merged Gaussian
    covers what it replaces. The opacity is the largest one: the frames show one surface again and
    again, they do not add to its opacity.
    """
    splats = pixels.splats
    edge = torch.exp2((factor * pixels.pixel_width).log2().round())
    cell = (splats.means / edge[:, None]).floor().long()
    keys = torch.cat([cell, edge.log2().long()[:, None]], dim=1)
    _, group = torch.unique(keys, dim=0, return_inverse=True)
    count = int(group.max()) + 1 if len(group) else 0
    weights = splats.opacities.double()
    total = weights.new_zeros(count).index_add(0, group, weights)

    def mean(values: Tensor) -> Tensor:
        ones = (1,) * (values.ndim - 1)
        summed = weights.new_zeros(count, *values.shape[1:])
        summed.index_add_(0, group, values.double() * weights.reshape(-1, *ones))
        return summed / total.reshape(-1, *ones)

    means = mean(splats.means)
    axes = rotations_from_quats_wxyz(splats.quats_wxyz.double()) * splats.scales[:, None]
    offsets = splats.means - means[group]
    scales, orientations = _principal_axes(
        mean(axes @ axes.mT + offsets[:, :, None] * offsets[:, None])
    )
    # One of each group, for what the static Gaussians have in common or do not use.
    member = torch.zeros(count, dtype=torch.long).scatter_(0, group, torch.arange(len(group)))
    largest = weights.new_zeros(count).scatter_reduce(0, group, weights, "amax")
    merged = SplatterPixels(
        means.float(), mean(splats.colours).float(), scales, orientations, largest.float()
    )
    return _Pixels(
        merged,
        pixels.displacements[member],
        pixels.labels[member],
        pixels.pixel_width[member],
    )


def _principal_axes(
    covariances: Float64[Tensor, "gaussians 3 3"],
) -> tuple[Float[Tensor, "gaussians 3"], Float[Tensor, "gaussians 4"]]:
    """Return standard deviations and orientations (wxyz) of covariances."""
    variances, axes = torch.linalg.eigh(covariances)
    # Eigenvectors may form a left-handed system.
    axes = axes * torch.where(torch.linalg.det(axes) < 0, -1.0, 1.0)[:, None, None]
    scales = variances.clamp_min(1e-18).sqrt().float()
    return scales, quats_wxyz_from_rotations(axes).float()


def _gaussians(splats: SplatterPixels) -> Gaussians:
    return Gaussians(
        splats.means,
        splats.scales.clamp_min(1e-9).log(),
        splats.quats_wxyz,
        torch.logit(splats.opacities.clamp(1e-4, _LARGEST_OPACITY)),
        ((splats.colours - 0.5) / SH_C0)[:, None],
    )
