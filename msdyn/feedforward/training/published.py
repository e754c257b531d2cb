"""The paper's stages of training, each a run that starts from the weights of the one before.

Views, sizes and learning rates are the paper's (A.2, A.3), the weights of the losses, the frozen
encoder and the learning rates by part those of the released code. The static stage's number of
views is not stated; ours is that of the next stage.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.data.batch import ClipBatchOptions
from msdyn.feedforward.training.config import Stage, TrainingConfig
from msdyn.feedforward.training.objective import LossWeights

__all__ = ["PUBLISHED_STAGES", "PublishedStage", "published_stage"]

PublishedStage = Literal["static", "dynamic", "views", "resolution"]
PUBLISHED_STAGES: tuple[PublishedStage, ...] = get_args(PublishedStage)

_WEIGHTS = LossWeights(
    depth=1.0,
    match=0.0,
    motion=10.0,
    motion_error="l1",
    balanced=False,
    distribution=100.0,
    rendering=1.0,
    perceptual=0.5,
)
# What starts at random has the full learning rate (released code).
_RATES = (
    ("splat_head.", 1.0),
    ("motion_splat_head.", 1.0),
    ("aggregator.extra_embed.", 1.0),
    ("aggregator.time_embed.", 1.0),
    ("motion_head.time_embed.", 1.0),
    ("", 0.1),
)
_RATE = {"static": 4e-4, "dynamic": 4e-4, "views": 4e-5, "resolution": 1e-5}
_SCENES, _PARTS, _QUERIES = 8, 32, 8
_SQUARE = ClipBatchOptions(scenes=_SCENES, queries=_QUERIES, long_side=224, patch=14)
_CLIPS = {
    "static": replace(_SQUARE, frames=(5, 5), only="static"),
    "dynamic": replace(_SQUARE, frames=(5, 5)),
    "views": replace(_SQUARE, frames=(13, 13)),
    "resolution": replace(_SQUARE, frames=(2, 13), long_side=518, aspect=(0.5, 2.0)),
}


def published_stage(
    name: PublishedStage,
    steps: int,
    data: tuple[str, ...],
    *,
    initial: str | None = None,
    network: ModelConfig | None = None,
    seed: int = 0,
) -> TrainingConfig:
    """Return the run of a stage: batches of 256 clips, as 32 parts of 8.

    Args:
        name: of the stage, in the order of `PUBLISHED_STAGES`.
        steps: in total, with 1000 of warm-up; the paper states days only.
        data: folders of clips.
        initial: weights to start from: VGGT-1B's for the static stage, then those of the stage
            before.
        network: by default the published one with its two faults mended; in the static stage it is
            without time and motion.
        seed: of weights and batches.
    """
    network = network or replace(ModelConfig.published_network(), published=False)
    if name == "static":
        network = replace(network, time_token=False, motion=False, attribute_motion="none")
    clips = _CLIPS[name]
    long_side = clips.long_side // network.patch * network.patch
    clips = replace(clips, patch=network.patch, long_side=long_side)
    stage = Stage(
        name,
        1.0,
        _WEIGHTS,
        clips=clips,
        reuse=1,
        all_queries=True,
        frozen=("encoder.",) if name == "static" else (),
    )
    return TrainingConfig(
        network,
        (stage,),
        steps,
        data=data,
        parts=_PARTS,
        rate=_RATE[name],
        rate_factors=_RATES,
        warmup=1000,
        weight_decay=0.05,
        precision="bfloat16",
        recompute=True,
        initial=initial,
        seed=seed,
    )
