"""Initial blend weights: which patterns a point follows, from the labels of the tracks near it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from msdyn.motion.field import Blend, MotionField
from msdyn.motion.patterns import MAX_PATTERNS

__all__ = ["blends_from_neighbours", "blends_from_votes"]

# Logit of a candidate pattern without any vote: present, so that it can be learnt, but faint.
_FLOOR = 1e-3


def blends_from_votes(
    field: MotionField, votes: list[Tensor], places: Sequence[int] = MAX_PATTERNS
) -> list[Blend]:
    """Turn votes for patterns into sparse blends: the top few children of the parents in use.

    Args:
        field: the patterns.
        votes: for each level [G, K_l], non-negative; a row need not be normalised.
        places: patterns kept for a point on each level.

    Returns:
        A blend for each level. Where a point has fewer candidates than places, the spare places
        repeat its first candidate with a logit low enough not to matter.
    """
    blends: list[Blend] = []
    for level, vote in enumerate(votes):
        share = vote / vote.sum(-1, keepdim=True).clamp_min(1e-12)
        allowed = torch.ones_like(share, dtype=torch.bool)
        if level > 0:
            used = torch.zeros(len(share), votes[level - 1].shape[1], dtype=torch.bool)
            above = blends[level - 1]
            used.scatter_(1, above.index, above.weights > 1e-3)
            allowed = used[:, field.parents(level)]
        score = torch.where(allowed, share, torch.full_like(share, -1.0))
        top, index = score.topk(min(places[level], share.shape[1]), dim=1)
        logits = (top.clamp_min(0) + _FLOOR).log()
        spare = top < 0
        index = torch.where(spare, index[:, :1], index)
        logits = torch.where(spare, torch.full_like(logits, -20.0), logits)
        blends.append(Blend(index, logits))
    return blends


def blends_from_neighbours(
    field: MotionField,
    points: np.ndarray,
    objects: np.ndarray,
    track_points: np.ndarray,
    track_objects: np.ndarray,
    track_votes: list[Tensor],
    neighbours: int = 6,
    places: Sequence[int] = MAX_PATTERNS,
) -> list[Blend]:
    """Give points the patterns of the nearest tracks on their own object.

    Args:
        field: the patterns.
        points: [G, 3] canonical positions.
        objects: [G] mask index of each point's object; it has at least one track.
        track_points: [N, 3] canonical positions of the tracks.
        track_objects: [N] their mask index.
        track_votes: for each level [N, K_l], what each track votes for.
        neighbours: tracks asked.
        places: patterns kept for a point on each level.
    """
    votes = [torch.zeros(len(points), vote.shape[1]) for vote in track_votes]
    for instance in np.unique(objects):
        own = np.flatnonzero(objects == instance)
        near = np.flatnonzero(track_objects == instance)
        if not len(near):
            raise ValueError(f"object {instance} has no track to take its motion from")
        count = min(neighbours, len(near))
        distance, index = KDTree(track_points[near]).query(points[own], k=count)
        distance, index = distance.reshape(-1, count), near[index.reshape(-1, count)]
        bandwidth = np.maximum(distance.mean(1, keepdims=True), 1e-12)
        weight = torch.from_numpy(np.exp(-((distance / bandwidth) ** 2))).float()
        for vote, track_vote in zip(votes, track_votes, strict=True):
            vote[own] = (weight[..., None] * track_vote[index]).sum(1)
    return blends_from_votes(field, votes, places)
