"""How far a scene's tracks and depth are trusted: what they weigh in the losses.

Tracks and depth are measurements as a rule. Where preprocessing could only infer them (from the
silhouettes of a camera that jumps), it states in the record of the stage, as `trust` among its
figures, which share of its usual weight its loss keeps. Confidences cannot say that: they are
relative, and losses are means over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from msdyn.fit.config import FitConfig
from msdyn.scene import StageRecord

__all__ = ["with_trust"]

_RIGIDITY = 2.0
"""By how much more rigidity weighs without tracks: what these do not say, neighbours do. Measured
on recordings of jumping cameras (docs/recordings.md)."""


def with_trust(config: FitConfig, stages: Mapping[str, StageRecord]) -> FitConfig:
    """Return options whose weights of track and depth are less by the trust that stages state.

    Rigidity weighs more as tracks are trusted less. Scenes that state nothing keep their options.
    """
    tracks, depth = (
        float(stages[name]["quality"].get("trust", 1.0)) if name in stages else 1.0
        for name in ("tracks", "depth")
    )
    if tracks == depth == 1:
        return config
    weights = config.loss
    weights = replace(
        weights,
        track=weights.track * tracks,
        depth=weights.depth * depth,
        rigidity=weights.rigidity * (1 + _RIGIDITY * (1 - tracks)),
    )
    return replace(config, loss=weights)
