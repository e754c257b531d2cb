"""Figures of a network on unseen random scenes, each beside that of a trivial prediction."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.feedforward.batches import TrainingBatch
from msdyn.feedforward.model import Movies
from msdyn.feedforward.scenes.random_scenes import SceneOptions
from msdyn.feedforward.scenes.render import BatchOptions, random_batch
from msdyn.feedforward.training.objective import draw

__all__ = ["UNSEEN_SEED", "evaluate", "evaluate_unseen", "unseen_batches"]

UNSEEN_SEED = 9_000_000_000_000
"""Seeds from here on are not those of training batches, which are hashed from small numbers."""


def unseen_batches(
    scenes: SceneOptions,
    options: BatchOptions,
    count: int,
    *,
    seed: int = UNSEEN_SEED,
    device: torch.device | str = "cpu",
) -> list[TrainingBatch]:
    """Return batches of scenes that training has not seen; always the same for a seed."""
    return [
        random_batch(scenes, options, torch.Generator(device).manual_seed(seed + index))
        for index in range(math.ceil(count / options.scenes))
    ]


@torch.no_grad()
def evaluate(model: Movies, batches: list[TrainingBatch]) -> dict[str, float]:
    """Return errors and, for comparison, those of trivial predictions.

    The result has `epe` of moving pixels and `epe_zero` of zero motion (normalised units),
    `epe_static` of static pixels, `moving_within_third` the share of moving pixels whose error is
    below a third of their displacement, `absrel` of depth and `absrel_constant` of the clip's true
    mean depth. If the batches have target images, it has PSNR (dB, the mean over images) at the
    query times from the targets' camera: `psnr`, `psnr_without_motion` of the same Gaussians, and
    `psnr_nearest` of the input frame nearest in time. Pixels whose depth or motion is not known do
    not count, and a figure without any pixel is left out, as are those of motion of a network
    without it.
    """
    was_training = model.training
    model.eval()
    sums: dict[str, float] = {}

    def add(name: str, values: Tensor) -> None:
        sums[name] = sums.get(name, 0.0) + float(values.sum())
        sums[name + "#"] = sums.get(name + "#", 0.0) + values.numel()

    for batch in batches:
        drawn = batch.target_images is not None
        features = model.encode(batch.clip)
        static = model.static(features, appearance=drawn)
        valid = torch.ones_like(batch.moving) if batch.valid is None else batch.valid
        true_depth = torch.where(valid, batch.depth, 1.0)
        relative = (static.depth - true_depth).abs() / true_depth
        add("absrel", relative[valid])
        add("absrel_moving", relative[batch.moving & valid])
        count = valid.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
        mean = (batch.depth * valid).sum(dim=(1, 2, 3), keepdim=True) / count
        add("absrel_constant", ((mean - true_depth).abs() / true_depth)[valid])
        for query in range(batch.query_times.shape[1]):
            times = batch.query_times[:, query]
            motion = None
            if model.config.motion:
                motion = model.move(features, static, times, appearance=drawn)
                true, known = batch.motion(query), batch.known(query)
                error = (motion.displacement - true).norm(dim=-1)
                length = true.norm(dim=-1)
                add("epe", error[batch.moving & known])
                add("epe_zero", length[batch.moving & known])
                add("epe_static", error[~batch.moving & known])
                far = batch.moving & known & (length > 0.02)
                add("moving_within_third", (error < length / 3)[far].float())
            if batch.target_images is None:
                continue
            target = batch.target_images[:, query].movedim(1, -1)
            moved = draw(model.gaussians(features, static, motion), batch, query)
            fixed = draw(model.gaussians(features, static), batch, query)
            nearest = (batch.clip.times - times[:, None]).abs().argmin(dim=1)
            frame = batch.clip.images[
                torch.arange(len(nearest), device=times.device), nearest
            ].movedim(1, -1)
            for name, image in (("", moved), ("_without_motion", fixed), ("_nearest", frame)):
                add("psnr" + name, _psnr(image, target))
    model.train(was_training)
    return {name: sums[name] / sums[name + "#"] for name in sums if sums.get(name + "#", 0)}


def evaluate_unseen(
    model: Movies,
    scenes: SceneOptions,
    *,
    count: int = 32,
    frames: int = 4,
    size: int = 64,
    targets: bool = True,
) -> dict[str, float]:
    """Return `evaluate` on fixed unseen scenes with random query times."""
    options = BatchOptions(scenes=4, frames=frames, size=size, queries=2, targets=targets)
    return evaluate(model, unseen_batches(scenes, options, count))


def _psnr(
    images: Float[Tensor, "scenes height width 3"], true: Float[Tensor, "scenes height width 3"]
) -> Float[Tensor, " scenes"]:
    error = (images.clamp(0, 1) - true).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp_min(1e-10).log10()
