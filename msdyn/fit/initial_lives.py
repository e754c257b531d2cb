"""Life spans of the first moving Gaussians: where their motion is known, and where it is not.

A Gaussian is sampled at a pixel of one frame and carried to the others by the motion of the tracks
nearest to it. Where these are short or wrong, it arrives at the wrong place, and fitted there it
blurs what other frames saw. So every Gaussian is compared with all frames: it lives over the frames
around its own for which the evidence says that it is where it should be, and other Gaussians,
sampled in other frames, take its place.

What a frame says is in `life_evidence.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32, Real
from scipy.spatial import KDTree

from msdyn.fit.candidates import Candidates
from msdyn.fit.data import FitData
from msdyn.fit.life_evidence import BLOCK, EvidenceRule, compare, look_at, smoothed
from msdyn.progress import Progress
from msdyn.scene import IGNORE

__all__ = ["Lives", "estimate_lives", "life_spans"]

# Added to the evidence of every frame: long lives are preferred.
_LONGEVITY = 0.3
# Of so many lives, one is to end by chance.
_FALSE_ALARMS = 20


class Lives(NamedTuple):
    """The lives of N points in F frames.

    Attributes:
        spans: begin and end, see `life_spans`.
        pixel: [N, F] index of the pixel, row by row, in the frames in which the point lives and is
            visible, its own among them; -1 in the others.
    """

    spans: Float[np.ndarray, "points 2"]
    pixel: Int32[np.ndarray, "points frames"]

    @classmethod
    def joined(cls, parts: list[Lives]) -> Lives:
        """Return the lives of several groups of points."""
        return cls(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def select(self, rows: Int[np.ndarray, " chosen"]) -> Lives:
        """Return the lives of some of the points."""
        return Lives(self.spans[rows], self.pixel[rows])


def estimate_lives(
    data: FitData,
    candidates: Candidates,
    rule: EvidenceRule,
    frames: Int[np.ndarray, " frames"],
) -> Lives:
    """Compare candidates with frames of the clip.

    Args:
        data: input data of the fit.
        candidates: N possible Gaussians; `source` is an index into the frames.
        rule: what the frames say about them, `MovingRule` or another one.
        frames: F indices, in the clip, of those that are compared.
    """
    count = len(candidates.points)
    spans, pixel = np.zeros((count, 2)), np.full((count, len(frames)), -1, np.int32)
    blocks = _blocks(candidates.source, max(1, BLOCK // len(frames)))
    with Progress("life spans", len(blocks) * len(frames)) as progress:
        for rows in blocks:
            block = candidates.select(rows)
            evidence, seen_at = _evidence(data, block, rule, frames, progress)
            own = (np.arange(len(rows)), block.source)
            spans[rows] = life_spans(_pooled(evidence, block, rule.pooled), block.source, frames)
            seen_at[own] = seen_at[own].clip(0)
            alive = (frames >= spans[rows, :1]) & (frames <= spans[rows, 1:])
            pixel[rows] = np.where(alive, seen_at, -1)
    return Lives(spans, pixel)


def _blocks(source: Int[np.ndarray, " points"], size: int) -> list[Int[np.ndarray, " rows"]]:
    """Return the points in parts of about a size, those of a frame in one."""
    order = np.argsort(source, kind="stable")
    ends = np.flatnonzero(np.diff(source[order])) + 1
    wanted = np.arange(size, len(order), size)
    ends = (
        ends[np.unique(np.searchsorted(ends, wanted).clip(0, len(ends) - 1))] if len(ends) else []
    )
    return np.split(order, ends)


def _pooled(
    evidence: Float32[np.ndarray, "points frames"], candidates: Candidates, number: int
) -> Float32[np.ndarray, "points frames"]:
    """Return the mean evidence of each point and those about it that were sampled in its frame."""
    result = evidence.copy()
    group = candidates.source.astype(np.int64) * (int(candidates.labels.max(initial=0)) + 1)
    group += candidates.labels
    order = np.argsort(group, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        count = min(number, len(own))
        if count > 1:
            about = np.asarray(
                KDTree(candidates.points[own]).query(candidates.points[own], count)[1]
            )
            result[own] = evidence[own[about]].mean(1)
    return result


@torch.no_grad()
def _evidence(
    data: FitData,
    candidates: Candidates,
    rule: EvidenceRule,
    frames: Int[np.ndarray, " frames"],
    progress: Progress,
) -> tuple[Float32[np.ndarray, "points frames"], Int32[np.ndarray, "points frames"]]:
    """Return the log-likelihood ratio of the right place, and the pixel.

    The ratio is 0 where nothing is known, the pixel -1 where the point is not visible.
    """
    count = len(candidates.points)
    colours = candidates.colours if rule.reach else _own_colours(data, candidates, frames)
    evidence = np.zeros((count, len(frames)), np.float32)
    pixel = np.full((count, len(frames)), -1, np.int32)
    for number, frame in enumerate(frames):
        seen, compared = compare(data, candidates, colours, int(frame), rule)
        # Masked as unknown: nothing is known.
        evidence[seen.index, number] = np.where(seen.mask == IGNORE, 0.0, rule(compared))
        visible = compared.own & ~compared.behind
        pixel[seen.index[visible], number] = seen.pixel[visible]
        progress.update(1)
    return evidence, pixel


def _own_colours(
    data: FitData, candidates: Candidates, frames: Int[np.ndarray, " frames"]
) -> Float[np.ndarray, "points 3"]:
    """Return the smoothed colour of each candidate in its own frame."""
    colours = candidates.colours.copy()
    sampled = candidates.sampled(frames)
    for number in np.unique(candidates.source):
        own, frame = np.flatnonzero(candidates.source == number), int(frames[number])
        seen = look_at(data, frame, sampled[own])
        colours[own[seen.index]] = smoothed(data, frame).reshape(-1, 3)[seen.pixel]
    return colours


def life_spans(
    evidence: Real[np.ndarray, "points frames"],
    source: Int[np.ndarray, " points"],
    frames: Int[np.ndarray, " frames"],
) -> Float[np.ndarray, "points 2"]:
    """Return the life span of each point: the frames around its own with the greatest evidence.

    Where the evidence says that a point has gone, its life ends, even if later frames agree again:
    in between, it would be seen where it is not. This is the test for a change of Page (1954,
    Continuous inspection schemes): from the own frame on, the sum of the evidence has fallen from
    its greatest value by so much that chance does it in one of twenty lives.

    Args:
        evidence: log-likelihood ratio of each frame.
        source: index of each point's own frame.
        frames: indices, in the clip, of the F frames.

    Returns:
        Begin and end, fractional frame indices half-way to the first frame beyond; infinite where
        the span reaches the first or last of the frames.
    """
    value = evidence + _LONGEVITY
    last = source + _until_change(value, source, 1)
    first = source - _until_change(value, source, -1)
    middle = (frames[1:] + frames[:-1]) / 2
    bounds = np.concatenate([[-np.inf], middle, [np.inf]])
    return np.column_stack([bounds[first], bounds[last + 1]])


def _until_change(
    value: Real[np.ndarray, "points frames"], source: Int[np.ndarray, " points"], step: int
) -> Int[np.ndarray, " points"]:
    """Return how many frames points live beyond their own; forward (step 1), backward (step -1)."""
    count, number = value.shape
    # A sum of log-likelihood ratios falls by this once in as many frames, and so by chance.
    changed = np.log(_FALSE_ALARMS * number)
    total, best, length = np.zeros(count), np.zeros(count), np.zeros(count, int)
    going = np.arange(count)
    for distance in range(1, number):
        frame = source[going] + step * distance
        inside = (frame >= 0) & (frame < number)
        going, frame = going[inside], frame[inside]
        total[going] += value[going, frame]
        greater = going[total[going] > best[going]]
        best[greater], length[greater] = total[greater], distance
        going = going[total[going] >= best[going] - changed]
    return length
