"""Editing a sequence: removal and retiming of objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Real

from msdyn.errors import InputError
from msdyn.sequence.life_spans import retimed_life_spans
from msdyn.sequence.sequence import GaussianSequence

__all__ = ["retime_object", "without_objects"]


@torch.no_grad()
def without_objects(sequence: GaussianSequence, objects: Sequence[int]) -> GaussianSequence:
    """Return the sequence without some of its objects.

    Background that they occlude in every frame was not reconstructed and stays empty.

    Args:
        sequence: the original, which is not changed.
        objects: mask indices.

    Raises:
        InputError: no such object.
    """
    for label in objects:
        _check(sequence, label)
    removed = torch.isin(sequence.labels, torch.tensor([*objects], device=sequence.device))
    index = torch.nonzero(~removed)[:, 0]
    return sequence.replaced(
        moving=sequence.moving.select(index),
        motion=sequence.motion.select(index),
        labels=sequence.labels[index],
    )


@torch.no_grad()
def retime_object(
    sequence: GaussianSequence, label: int, frames: Real[np.ndarray, " keys"]
) -> GaussianSequence:
    """Return the sequence with the time of one object remapped.

    At key frame i the object has the pose that it had at `frames[i]`: halved frame indices give
    half its speed, a constant index freezes it, reversed indices play its motion backwards.

    Args:
        sequence: the original, which is not changed.
        label: mask index of the object.
        frames: fractional frame indices, one for every key frame of the motion.

    Raises:
        InputError: no such object, another number of frames than of keys, frames outside the clip,
            or an object that shares motion parameters with another one.
    """
    _check(sequence, label)
    motion = sequence.motion
    keys, last = len(motion.key_frames), len(sequence.timeline) - 1
    frames = np.asarray(frames, np.float64)
    if frames.shape != (keys,) or not (frames.min() >= 0 and frames.max() <= last):
        raise InputError(
            f"frames: expected {keys}, one per key frame, from 0 to {last}, got {frames.shape}"
        )
    times = torch.as_tensor(frames, dtype=torch.float32, device=sequence.device)
    try:
        retimed = motion.retimed(sequence.labels == label, times)
    except InputError as error:
        raise InputError(f"object {label}: {error}") from error
    return _with_retimed_lives(sequence.replaced(motion=retimed), label, frames)


def _with_retimed_lives(
    sequence: GaussianSequence, label: int, frames: Real[np.ndarray, " keys"]
) -> GaussianSequence:
    """Return the sequence with the life spans of one object remapped, as its motion has been.

    A Gaussian that would exist several times is repeated.
    """
    moving = sequence.moving
    if moving.life_spans is None:
        return sequence
    own = (sequence.labels == label).cpu().numpy()
    spans = moving.life_spans.detach().cpu().numpy()
    keys = sequence.motion.key_frames.cpu().numpy()
    chosen, lives = retimed_life_spans(spans[own], keys, frames)
    index = np.concatenate([np.flatnonzero(~own), np.flatnonzero(own)[chosen]])
    spans = np.concatenate([spans[~own], lives.astype(np.float32)])
    order = np.argsort(index, kind="stable")
    index = torch.from_numpy(index[order]).to(sequence.device)
    return sequence.replaced(
        moving=moving.select(index).with_life_spans(
            torch.from_numpy(spans[order]).to(sequence.device)
        ),
        motion=sequence.motion.select(index),
        labels=sequence.labels[index],
    )


def _check(sequence: GaussianSequence, label: int) -> None:
    if label not in sequence.objects:
        raise InputError(f"object: expected one of {sequence.objects}, got {label}")
