"""Training of the feed-forward network on random scenes and on clips."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.feedforward.training.config import Stage, TrainingConfig
    from msdyn.feedforward.training.curriculum import small_on_cpu
    from msdyn.feedforward.training.evaluation import evaluate, evaluate_unseen, unseen_batches
    from msdyn.feedforward.training.loop import Trainer
    from msdyn.feedforward.training.objective import LossWeights, draw
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
    "published_stage",
    "small_on_cpu",
    "unseen_batches",
]

__getattr__ = lazy_names(
    __name__,
    {
        "config": (
            "Stage",
            "TrainingConfig",
        ),
        "curriculum": ("small_on_cpu",),
        "evaluation": (
            "evaluate",
            "evaluate_unseen",
            "unseen_batches",
        ),
        "loop": ("Trainer",),
        "objective": (
            "LossWeights",
            "draw",
        ),
        "parallel": ("Processes",),
        "published": ("published_stage",),
    },
)
