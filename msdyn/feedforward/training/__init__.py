"""Training of the feed-forward network on random scenes and on clips."""

from msdyn.feedforward.training.config import Stage, TrainingConfig
from msdyn.feedforward.training.curriculum import small_on_cpu
from msdyn.feedforward.training.evaluation import evaluate, evaluate_unseen, unseen_batches
from msdyn.feedforward.training.loop import Trainer
from msdyn.feedforward.training.objective import LossWeights, draw, losses
from msdyn.feedforward.training.parallel import Processes
from msdyn.feedforward.training.published import published_stage

__all__ = [
    "LossWeights",
    "Processes",
    "Stage",
    "Trainer",
    "TrainingConfig",
    "draw",
    "evaluate",
    "evaluate_unseen",
    "losses",
    "published_stage",
    "small_on_cpu",
    "unseen_batches",
]
