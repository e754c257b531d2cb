"""Train the small feed-forward network on random scenes, or evaluate one on unseen scenes.

    python tools/train_feedforward.py runs/small --steps 6500
    python tools/train_feedforward.py runs/small --evaluate 32 --sheet runs/small/sheet.png

The folder gets `model.safetensors`, `checkpoint.pt` and `log.jsonl`. Training resumes from the
checkpoint if there is one. The sheet shows six unseen scenes: first and last frame; their depth and
their motion to the query time, each true and predicted, displacements as colours about grey; and
the image of the second camera at the query time: true, rendered, rendered without motion, and the
input frame nearest in time.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from msdyn.feedforward import Movies, load_model
from msdyn.feedforward.training import Trainer, draw, evaluate, small_on_cpu, unseen_batches
from msdyn.feedforward.training.batches import TrainingBatch


def unseen(count: int, batch: int = 4) -> list[TrainingBatch]:
    """Return scenes of the last stage of the curriculum that training has not seen."""
    last = small_on_cpu(1).stages[-1]
    return unseen_batches(last.scenes, replace(last.batch, scenes=batch, queries=1), count)


@torch.no_grad()
def sheet(model: Movies, batch: TrainingBatch) -> Tensor:
    """Return an image [3, H, W] with a row per scene."""
    features = model.encode(batch.clip)
    static = model.static(features)
    motion = model.move(features, static, batch.query_times[:, 0])
    moved = draw(model.gaussians(features, static, motion), batch, 0).movedim(-1, 1)
    still = draw(model.gaussians(features, static), batch, 0).movedim(-1, 1)
    nearest = (batch.clip.times - batch.query_times).abs().argmin(dim=1)
    true_motion, images = batch.motion(0), batch.clip.images

    def depth(values: Tensor) -> Tensor:
        return (1 - values / 2).expand(3, -1, -1)

    def colours(values: Tensor) -> Tensor:
        return (0.5 + 1.2 * values).movedim(-1, 0)

    rows = []
    for index in range(len(images)):
        cells = [images[index, 0], images[index, -1]]
        for frame in (0, -1):
            cells += [depth(values[index, frame]) for values in (batch.depth, static.depth)]
        for frame in (0, -1):
            cells += [colours(m[index, frame]) for m in (true_motion, motion.displacement)]
        assert batch.target_images is not None
        cells += [batch.target_images[index, 0], moved[index], still[index]]
        cells += [images[index, nearest[index]]]
        rows.append(torch.cat([torch.nn.functional.pad(c, (1, 1, 1, 1)) for c in cells], dim=-1))
    return torch.cat(rows, dim=1).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=6500)
    parser.add_argument("--evaluate", type=int, metavar="SCENES", help="instead of training")
    parser.add_argument("--sheet", type=Path, help="with --evaluate: a picture of six scenes")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.evaluate:
        model = load_model(options.folder / "model.safetensors")
        print(json.dumps(evaluate(model, unseen(options.evaluate)), indent=1))
        if options.sheet:
            from PIL import Image

            picture = (255 * sheet(model, unseen(6, 6)[0])).byte().movedim(0, -1).numpy()
            size = (2 * picture.shape[1], 2 * picture.shape[0])
            Image.fromarray(picture).resize(size, Image.Resampling.NEAREST).save(options.sheet)
        return
    trainer = Trainer(small_on_cpu(options.steps))
    if (options.folder / "checkpoint.pt").is_file():
        trainer.restore(options.folder / "checkpoint.pt")
    batches = unseen(16)
    trainer.run(options.folder, watch=lambda trainer: evaluate(trainer.model, batches))


if __name__ == "__main__":
    main()
