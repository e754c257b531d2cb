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
from jaxtyping import Bool, Float, Float32, Int, Int32, Real
from scipy.spatial import KDTree

from msdyn.fit.candidates import Candidates
from msdyn.fit.data import FitData
from msdyn.fit.life_evidence import BLOCK, ColourRange, EvidenceRule, compare
from msdyn.progress import Progress
from msdyn.scene import IGNORE

__all__ = ["Lives", "estimate_lives", "life_spans"]

# Added to the evidence of every frame: long lives are preferred.
_LONGEVITY = 0.3
# Of so many lives, one is to end by chance.
_FALSE_ALARMS = 20
# Share of an object's points that exist always if its motion is known. Where it is wrong, up to two
# fifths do by chance, so that this is about half of the rest.
_CARRIED = 2 / 3


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
    others: tuple[Candidates, Lives] | None = None,
) -> Lives:
    """Compare candidates with frames of the clip.

    What ends one life by chance, or because a mask is wrong, does not end most of those about it;
    wrong motion does. So where two of three points of an object exist always, if errors of the
    input are given the benefit of the doubt, those of its points exist always of which that is true
    of most of the points nearest to them in their own frames. Of an object whose motion does not
    carry most of its points, some agree by chance, as where it has one colour.

    Args:
        data: input data of the fit.
        candidates: N possible Gaussians; `source` is an index into the frames.
        rule: what the frames say about them, `MovingRule` or another one.
        frames: F indices, in the clip, of those that are compared.
        others: candidates whose lives are known, which may be the nearest points too.
    """
    count = len(candidates.points)
    spans, pixel = np.zeros((count, 2)), np.full((count, len(frames)), -1, np.int32)
    whole = np.zeros(count, bool)
    size = max(1, BLOCK // len(frames))
    blocks = [np.arange(a, min(a + size, count)) for a in range(0, count, size)]
    with Progress("life spans", len(blocks) * len(frames)) as progress:
        for rows in blocks:
            block = candidates.select(rows)
            evidence, in_doubt, pixel[rows] = _evidence(data, block, rule, frames, progress)
            spans[rows] = life_spans(evidence, block.source, frames)
            if rule.patch > 1:
                whole[rows] = np.isinf(life_spans(in_doubt, block.source, frames)).all(1)
    own = (np.arange(count), candidates.source)
    pixel[own] = pixel[own].clip(0)
    if rule.patch > 1:
        groups, places = _places(candidates, pixel, data)
        if others is not None:
            known, lives = others
            more = _places(known, lives.pixel, data)
            groups, places = np.concatenate([groups, more[0]]), np.concatenate([places, more[1]])
            whole = np.concatenate([whole, np.isinf(lives.spans).all(1)])
        spans[_explained(whole, groups, places, rule.patch)[:count]] = -np.inf, np.inf
    alive = (frames >= spans[:, :1]) & (frames <= spans[:, 1:])
    return Lives(spans, np.where(alive, pixel, -1))


def _places(
    candidates: Candidates, pixel: Int[np.ndarray, "points frames"], data: FitData
) -> tuple[Int[np.ndarray, "points 2"], Int[np.ndarray, "points 2"]]:
    """Return the own frame and object of points, and their row and column in that frame."""
    own = pixel[np.arange(len(pixel)), candidates.source]
    groups = np.column_stack([candidates.source, candidates.labels])
    return groups, np.column_stack(np.divmod(own, data.mask.shape[2]))


def _explained(
    whole: Bool[np.ndarray, " points"],
    groups: Int[np.ndarray, "points 2"],
    places: Int[np.ndarray, "points 2"],
    count: int,
) -> Bool[np.ndarray, " points"]:
    """Return which points exist always, as most of their object, and most about them, do.

    Args:
        whole: which of them do, in doubt.
        groups, places: see `_places`.
        count: number of points of a group, nearest to each, that are about it.
    """
    result = np.zeros(len(whole), bool)
    for label in np.unique(groups[:, 1]):
        of_object = groups[:, 1] == label
        if whole[of_object].mean() < _CARRIED:
            continue
        for frame in np.unique(groups[of_object, 0]):
            own = np.flatnonzero(of_object & (groups[:, 0] == frame))
            number = min(count, len(own))
            near = KDTree(places[own]).query(places[own], k=number)[1]
            result[own] = whole[own][np.reshape(near, (len(own), number))].mean(1) >= 0.5
    return result


@torch.no_grad()
def _evidence(
    data: FitData,
    candidates: Candidates,
    rule: EvidenceRule,
    frames: Int[np.ndarray, " frames"],
    progress: Progress,
) -> tuple[
    Float32[np.ndarray, "points frames"],
    Float32[np.ndarray, "points frames"],
    Int32[np.ndarray, "points frames"],
]:
    """Return the log-likelihood ratios of the right place, see `EvidenceRule`, and the pixel.

    The ratios are 0 where nothing is known, the pixel -1 where the point is not visible.
    """
    count = len(candidates.points)
    colours = ColourRange.of_own_frames(data, candidates, frames, rule.reach)
    evidence, in_doubt = np.zeros((2, count, len(frames)), np.float32)
    pixel = np.full((count, len(frames)), -1, np.int32)
    for number, frame in enumerate(frames):
        seen, compared = compare(data, candidates, colours, int(frame), rule)
        # Masked as unknown: nothing is known.
        known = seen.mask != IGNORE
        evidence[seen.index, number] = np.where(known, rule(compared), 0.0)
        if rule.patch > 1:
            in_doubt[seen.index, number] = np.where(known, rule.in_doubt(compared), 0.0)
        visible = compared.own & ~compared.behind
        pixel[seen.index[visible], number] = seen.pixel[visible]
        progress.update(1)
    return evidence, in_doubt, pixel


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
