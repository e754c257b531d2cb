"""Training of the feed-forward network on random scenes, and its figures on unseen ones."""

from msdyn.feedforward.training.batches import (
    BatchOptions,
    TrainingBatch,
    random_batch,
    true_matches,
)
from msdyn.feedforward.training.config import Stage, TrainingConfig
from msdyn.feedforward.training.curriculum import small_on_cpu
from msdyn.feedforward.training.evaluation import evaluate, evaluate_unseen, unseen_batches
from msdyn.feedforward.training.loop import Trainer
from msdyn.feedforward.training.objective import LossWeights, draw, losses
from msdyn.feedforward.training.random_scenes import RandomScenes, SceneOptions, random_scenes

__all__ = [
    "BatchOptions",
    "LossWeights",
    "RandomScenes",
    "SceneOptions",
    "Stage",
    "Trainer",
    "TrainingBatch",
    "TrainingConfig",
    "draw",
    "evaluate",
    "evaluate_unseen",
    "losses",
    "random_batch",
    "random_scenes",
    "small_on_cpu",
    "true_matches",
    "unseen_batches",
]
