"""Life spans of static Gaussians: things that rest for a part of the clip, and are moved.

Masks mark what moves in each frame. A cup that stands still is not marked, and after it is taken
away its place shows the table. Gaussians of the cup that existed always would still be there.
So static points are compared with all frames as moving ones are (`initial_lives.py`), at rest: one
lives over the frames around its own for which the evidence says that it is there. Colours alone are
evidence, of pixels that are static too: how they differ at one place, and between places, is
counted on the points themselves, so that errors of cameras and depth count as what they are. What
is hidden, by a moving object or another surface, is unknown.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt

from msdyn.fit.candidates import Candidates
from msdyn.fit.coverage import choose_by_coverage, spacing_among_living
from msdyn.fit.data import FitData
from msdyn.fit.initial_lives import Lives, estimate_lives
from msdyn.fit.life_evidence import ColourEvidence, ColourRange, Comparison, compare
from msdyn.fit.sampling import spread_over

__all__ = ["Resting", "resting_points"]

# Distance from masks within which they may be wrong, as a share of the longer side of the image.
_BESIDE = 0.03
# Frames from which differences of colour are counted.
_COUNTED_FRAMES = 12


class Resting(NamedTuple):
    """Static points that exist for a part of the clip.

    Attributes:
        short: [N] whether a point exists for a part of the clip only.
        chosen: [K] indices of those of them that are chosen.
        spans: [K, 2] their life spans.
        spacing: [K] their distance to the next ones, px.
    """

    short: Bool[np.ndarray, " points"]
    chosen: Int[np.ndarray, " chosen"]
    spans: Float[np.ndarray, "chosen 2"]
    spacing: Float[np.ndarray, " chosen"]


class StaticRule:
    """The rule for static points."""

    # Cameras and depth are wrong by about a pixel; colours at edges are mixed.
    reach = 1
    # What rests for a while may be small: each point decides for itself.
    patch = 1

    def __init__(
        self,
        data: FitData,
        candidates: Candidates,
        tolerance: float,
        frames: Int[np.ndarray, " frames"],
    ) -> None:
        """Count the differences of colour at one place, and between places.

        Args:
            data: input data of the fit.
            candidates: static points; `source` is an index into the frames.
            tolerance: difference of depth, as a fraction, up to which a point is at the surface.
            frames: of the clip, that are compared.
        """
        self.tolerance = tolerance
        colours = ColourRange.of_own_frames(data, candidates, frames, self.reach)
        shuffled = colours.select(np.random.default_rng(0).permutation(len(candidates.points)))
        same, other = [], []
        for frame in spread_over(frames, _COUNTED_FRAMES):
            elsewhere = frames[candidates.source] != frame
            for reference, found in ((colours, same), (shuffled, other)):
                seen, compared = compare(data, candidates, reference, frame, self)
                at_surface = compared.own & ~compared.behind & (compared.in_front == 0)
                found.append(compared.difference[at_surface & elsewhere[seen.index]])
        self.score_colours = ColourEvidence(np.concatenate(same), np.concatenate(other))

    def __call__(self, compared: Comparison) -> Float[np.ndarray, " points"]:
        known = compared.own & ~compared.behind
        return np.where(known, self.score_colours(compared.difference), 0.0)

    def in_doubt(self, compared: Comparison) -> Float[np.ndarray, " points"]:
        """Return the same."""
        return self(compared)


def resting_points(
    data: FitData,
    candidates: Candidates,
    agreed: Bool[np.ndarray, " points"],
    tolerance: float,
    frames: Int[np.ndarray, " frames"],
    count: int,
) -> Resting:
    """Find static points that exist for a part of the clip, and choose some that cover them.

    Args:
        data: input data of the fit.
        candidates: N static points; `source` is an index into the frames.
        agreed: [N] false where most frames look through a point. It can have rested all the same,
            but not beside a moving object, where masks are wrong.
        tolerance: difference of depth, as a fraction, up to which a point is at the surface.
        frames: of the clip, that are compared.
        count: of static Gaussians, of which these get their share.
    """
    lives = estimate_lives(
        data, candidates, StaticRule(data, candidates, tolerance, frames), frames
    )
    short = np.asarray(np.isfinite(lives.spans).any(1))
    own = np.flatnonzero(short & (agreed | _far_from_objects(data, candidates, lives, frames)))
    if not len(own):
        return Resting(short, own, np.zeros((0, 2)), np.zeros(0))
    living = lives.select(own)
    width, source = data.mask.shape[2], candidates.source[own]
    share = max(1, round(count * len(own) / len(short)))
    kept, spacing = choose_by_coverage(living, source, frames, width, share)
    chosen = living.select(kept)
    between = spacing_among_living(chosen, source[kept], width, spacing)
    return Resting(short, own[kept], chosen.spans, between)


def _far_from_objects(
    data: FitData, candidates: Candidates, lives: Lives, frames: Int[np.ndarray, " frames"]
) -> Bool[np.ndarray, " points"]:
    """Return which points are not beside a moving object in their own frame."""
    result = np.zeros(len(candidates.points), bool)
    for number in np.unique(candidates.source):
        own = np.flatnonzero(candidates.source == number)
        rest = data.mask.numpy(int(frames[number])) == 0
        if rest.all():
            result[own] = True
            continue
        distance = np.asarray(distance_transform_edt(rest)).reshape(-1)
        result[own] = distance[lives.pixel[own, number]] > _BESIDE * max(rest.shape)
    return result
