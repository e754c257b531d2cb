"""Contact sheets of a network's predictions on unseen scenes."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.feedforward.batches import TrainingBatch
from msdyn.feedforward.model import Movies
from msdyn.feedforward.training.objective import draw
from msdyn.writing import atomic_path

__all__ = ["save_sheet"]

_GAP = 4
_FARTHEST = 2.0
_MOTION_GAIN = 1.2
_ENLARGED = 2


@torch.no_grad()
def save_sheet(model: Movies, batch: TrainingBatch, path: Path | None) -> None:
    """Write a PNG with a row for each scene of a batch with targets, at its first query time.

    From left to right: the first and the last input frame; for each of them, true and predicted
    depth; for each of them, true and predicted displacement, its components as colours; the target
    image, the rendering, the rendering without motion, and the input frame nearest in time. With no
    path, the network runs, as in the process that writes, but nothing is written.
    """
    was_training = model.training
    model.eval()
    features = model.encode(batch.clip)
    static = model.static(features)
    times, true = batch.query_times[:, 0], batch.motion(0)
    motion = model.move(features, static, times) if model.config.motion else None
    displacement = torch.zeros_like(true) if motion is None else motion.displacement
    moved = draw(model.gaussians(features, static, motion), batch, 0)
    still = draw(model.gaussians(features, static), batch, 0)
    nearest = (batch.clip.times - times[:, None]).abs().argmin(dim=1)
    assert batch.target_images is not None, "a batch with targets"
    rows = []
    for scene in range(len(times)):
        images = batch.clip.images[scene].movedim(1, -1)
        cells = [images[0], images[-1]]
        for frame in (0, -1):
            cells += [_depth(batch.depth[scene, frame]), _depth(static.depth[scene, frame])]
        for frame in (0, -1):
            cells += [
                _motion(true[scene, frame]),
                _motion(displacement[scene, frame]),
            ]
        target = batch.target_images[scene, 0].movedim(0, -1)
        cells += [target, moved[scene], still[scene], images[nearest[scene]]]
        rows.append(torch.cat([torch.nn.functional.pad(c, (0, 0, 0, _GAP)) for c in cells], dim=1))
    sheet = torch.cat([torch.nn.functional.pad(row, (0, 0, 0, 0, 0, _GAP)) for row in rows])
    pixels = (sheet.clamp(0, 1) * 255).round().byte().cpu().numpy()
    model.train(was_training)
    if path is not None:
        enlarged = pixels.repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)
        with atomic_path(path) as temporary:
            iio.imwrite(temporary, enlarged, extension=".png")


def _depth(depth: Float[Tensor, "height width"]) -> Float[Tensor, "height width 3"]:
    return (1 - depth / _FARTHEST).clamp(0, 1)[..., None].expand(-1, -1, 3)


def _motion(displacement: Float[Tensor, "height width 3"]) -> Float[Tensor, "height width 3"]:
    return (0.5 + _MOTION_GAIN * displacement).clamp(0, 1)
