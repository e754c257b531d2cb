"""The curricula with which the small network learns on a CPU.

What makes motion start, measured: an explicit correlation between frames that is trained first,
with true matches; depth as the error of its logarithm, which does not diverge; and displacements
lifted from matches and depth. Without the correlation, motion stayed at zero in runs of the same
length (docs/feedforward_training.md).
"""

from __future__ import annotations

from dataclasses import replace

from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.scenes.random_scenes import SceneOptions
from msdyn.feedforward.scenes.render import BatchOptions
from msdyn.feedforward.training.config import Stage, TrainingConfig
from msdyn.feedforward.training.objective import LossWeights

__all__ = [
    "HELD_OUT_SCENES",
    "VARIED_SCENES",
    "medium_on_gpu",
    "small_continued",
    "small_on_cpu",
]

_ALTERNATIONS = 8

VARIED_SCENES = SceneOptions(
    movers=(0, 3),
    mover_share=(0.02, 0.3),
    travel=(0.03, 0.7),
    rotation=1.2,
    camera_travel=(0.03, 0.6),
    camera_rotation=0.15,
    side=(0.01, 0.25),
    focal=(0.75, 1.5),
    texture_cell=(0.025, 0.25),
    textures=("patches", "checks", "leaves", "stripes", "plain", "gradient"),
    shapes=("box", "ellipsoid", "cylinder", "rounded"),
    log_lengths=True,
    jointed=0.3,
    soft=0.3,
    ambient=(0.3, 0.9),
)
"""Scenes of many kinds: motion and parallax of any size, joints, soft objects."""
HELD_OUT_SCENES = replace(
    VARIED_SCENES, movers=(1, 3), textures=("rings", "dots"), shapes=("octahedron", "cut")
)
"""The same with textures and shapes with which nothing is trained."""


def small_on_cpu(steps: int, *, seed: int = 0) -> TrainingConfig:
    """Return the curriculum of the small network at 64 px, 4 frames.

    Args:
        steps: in total; a few thousand take an hour on one core.
        seed: of weights and scenes.
    """
    model = replace(ModelConfig.small(), correlation=True, detail=True, attribute_motion="none")
    batch = BatchOptions(scenes=2, frames=4, queries=3, targets=False)
    scenes = SceneOptions(mover_share=(0.06, 0.3))
    matches = LossWeights(depth=0.0, match=1.0, motion=0.0)
    geometry = LossWeights(depth=0.0, log_depth=1.0, match=0.0, motion=2.0)
    joint = replace(geometry, distribution=20.0)
    full = replace(joint, rendering=5.0)
    stages = (
        Stage("matches", 0.15, matches, scenes, replace(batch, scenes=4), reuse=3),
        Stage("frame times", 0.2, geometry, scenes, replace(batch, query_times="frames"), reuse=3),
        Stage("random times", 0.2, joint, scenes, batch, reuse=3),
        Stage("rendering", 0.45, full, scenes, replace(batch, targets=True), reuse=3),
    )
    matcher = (("correlation_cue.", 2.5),)
    return TrainingConfig(model, stages, steps, rate=8e-4, rate_factors=matcher, seed=seed)


def small_continued(steps: int, *, initial: str = "small", seed: int = 0) -> TrainingConfig:
    """Return the curriculum that continues the small network on scenes of many kinds.

    All losses but that of the matches, whose further training alone brought nothing, at a low rate:
    a rate of 5e-4 undid in 400 steps more than it taught. Motion and images count more than before:
    motion is smaller in these scenes, and with little parallax images can be sharp. Every fourth
    scene is one of the first curriculum. Images are square or 4:3.

    Args:
        steps: in total; about half a second each on one core.
        initial: weights to start from.
        seed: of the scenes.
    """
    base = small_on_cpu(steps, seed=seed)
    full = base.stages[-1]
    plain = replace(
        full,
        share=1.0,
        weights=replace(full.weights, motion=4.0, distribution=40.0, rendering=15.0),
        batch=replace(full.batch, heights=(64, 48)),
        reuse=2,
    )
    varied = replace(plain, name="varied", share=3.0, scenes=VARIED_SCENES)
    return replace(base, stages=_ALTERNATIONS * (varied, plain), initial=initial, rate=2e-4)


def medium_on_gpu(steps: int, *, seed: int = 0) -> TrainingConfig:
    """Return the curriculum of the medium network at 112 px, 6 frames, on scenes of many kinds.

    That of the small network with larger batches. It has not been run, for want of a GPU.

    Args:
        steps: in total.
        seed: of weights and scenes.
    """
    base = small_on_cpu(steps, seed=seed)
    model = replace(ModelConfig.medium(), correlation=True, detail=True, attribute_motion="none")
    stages = tuple(
        replace(
            stage,
            scenes=VARIED_SCENES,
            batch=replace(stage.batch, scenes=16, frames=6, size=112, heights=(112, 80)),
            reuse=2,
        )
        for stage in base.stages
    )
    return replace(base, model=model, stages=stages, precision="bfloat16")
