"""Steps of optical flow through footage; over blurred frames where more points survive that way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from msdyn.preprocess.imaging.blur import mark_blurred
from msdyn.preprocess.imaging.flow import FlowPair, follow_points

__all__ = ["FlowBetween", "Step", "flow_steps"]

FlowBetween = Callable[
    [UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width 3"]], FlowPair
]
"""Returns the flow between two images."""

LONGEST = 4
"""Most consecutive frames that are skipped: surfaces move further than flow can follow."""


@dataclass(frozen=True)
class Step:
    """A step of optical flow.

    Attributes:
        before, after: indices of the frames, more than one apart where blurred ones are skipped.
        pair: their flow.
    """

    before: int
    after: int
    pair: FlowPair


def flow_steps(
    images: Iterable[UInt8[np.ndarray, "height width 3"]],
    flow_between: FlowBetween,
    probes: Float32[np.ndarray, "points 2"],
) -> Iterator[Step]:
    """Yield the steps from the first image to the last.

    A run of blurred frames is skipped if more of the probes survive from the frame before it
    directly to the one after it than along the chain through it.

    Args:
        images: at least one; held in memory are those of a run, and `blur.REACH` more.
        flow_between: the flow.
        probes: [N, 2] px, points spread over the image.
    """
    run: list[np.ndarray] = []
    before = 0
    for index, (image, blurred) in enumerate(mark_blurred(images)):
        run.append(image)
        if index == 0 or (blurred and len(run) <= LONGEST + 1):
            continue
        chain = (
            Step(before + i, before + i + 1, flow_between(*run[i : i + 2]))
            for i in range(len(run) - 1)
        )
        if len(run) == 2:
            yield from chain
        else:
            through = list(chain)
            direct = Step(before, index, flow_between(run[0], image))
            skips = _surviving([direct], probes) > _surviving(through, probes)
            yield from [direct] if skips else through
        run, before = [image], index


def _surviving(steps: list[Step], xy: Float32[np.ndarray, "points 2"]) -> int:
    """Return how many points, started before the first step, survive all of them."""
    for step in steps:
        moved, _, valid = follow_points(step.pair, xy)
        xy = moved[valid]
    return len(xy)
