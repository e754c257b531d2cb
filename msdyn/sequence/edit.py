"""Editing a sequence: objects taken out, and objects moved along their own time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from msdyn.errors import InputError
from msdyn.geometry import sixd_from_rotations
from msdyn.motion import Blend, MotionField
from msdyn.sequence.gaussians import Gaussians
from msdyn.sequence.sequence import GaussianSequence

__all__ = ["retime_object", "without_objects"]


@torch.no_grad()
def without_objects(sequence: GaussianSequence, objects: Sequence[int]) -> GaussianSequence:
    """Return the sequence without some of its objects.

    What they hid from the camera at all times is not known and stays empty.

    Args:
        sequence: the original, which is not changed.
        objects: mask indices.

    Raises:
        InputError: no such object.
    """
    for label in objects:
        _check(sequence, label)
    gone = torch.isin(sequence.instances, torch.tensor([*objects], device=sequence.device))
    index = torch.nonzero(~gone)[:, 0]
    moving = sequence.moving
    kept = Gaussians(
        moving.means[index],
        moving.log_scales[index],
        moving.quats_wxyz[index],
        moving.opacity_logits[index],
        moving.harmonics[index],
    )
    return _rebuilt(
        sequence,
        moving=kept,
        blends=[Blend(b.index[index], b.logits[index].clone()) for b in sequence.blends],
        instances=sequence.instances[index],
        residual=None if sequence.residual is None else sequence.residual[index].clone(),
    )


@torch.no_grad()
def retime_object(sequence: GaussianSequence, label: int, frames: np.ndarray) -> GaussianSequence:
    """Return the sequence with one object moving along another time.

    At key frame i the object is where it was at `frames[i]`: half the frame indices slow it down
    to half its speed, one index everywhere freezes it, reversed ones run it backwards.

    Args:
        sequence: the original, which is not changed.
        label: mask index of the object.
        frames: [T] fractional frame indices, one for every key frame of the motion.

    Raises:
        InputError: no such object, another number of frames than of keys, frames outside the clip,
            or an object that shares its patterns with another, whose motion would change too.
    """
    _check(sequence, label)
    motion = sequence.motion
    keys, last = len(motion.key_frames), len(sequence.timeline) - 1
    frames = np.asarray(frames, np.float64)
    if frames.shape != (keys,) or not (frames.min() >= 0 and frames.max() <= last):
        raise InputError(
            f"frames: expected {keys}, one a key frame, from 0 to {last}, got {frames.shape}"
        )
    at = torch.as_tensor(frames, dtype=torch.float32, device=sequence.device)
    own = sequence.instances == label
    sixd = [value.detach().clone() for value in motion.sixd]
    shifts = [value.detach().clone() for value in motion.translations]
    for level, blend in enumerate(sequence.blends):
        patterns = _patterns(blend, own)
        if torch.isin(patterns, _patterns(blend, ~own)).any():
            raise InputError(
                f"object {label}: it shares motion patterns with another object; "
                "only objects with patterns of their own can be retimed"
            )
        rotations, translations = motion.patterns_at(level, at)  # [K, T, 3, 3], [K, T, 3]
        sixd[level][patterns] = sixd_from_rotations(rotations)[patterns]
        shifts[level][patterns] = translations[patterns]
    blends = []
    for blend in sequence.blends:
        logits = blend.logits.clone()
        if blend.varies:
            warped = motion.at_keys(logits[own].transpose(1, 2), at)  # [G, T, k]
            logits[own] = warped.transpose(1, 2)
        blends.append(Blend(blend.index, logits))
    residual = sequence.residual
    if residual is not None:
        residual = residual.clone()
        residual[own] = motion.at_keys(residual[own], at)
    levels = range(motion.num_levels)
    field = MotionField(
        [motion.centres(i).clone() for i in levels], sixd, shifts,
        [motion.parents(i) for i in levels], motion.key_frames, motion.objects,
    )  # fmt: skip
    return _rebuilt(sequence, motion=field, blends=blends, residual=residual)


def _patterns(blend: Blend, chosen: Tensor) -> Int[Tensor, " patterns"]:
    """Return the patterns that move the chosen Gaussians to any degree."""
    weights = blend.weights.amax(-1) if blend.varies else blend.weights
    return blend.index[chosen][weights[chosen] > 1e-6].unique()


def _check(sequence: GaussianSequence, label: int) -> None:
    there = sequence.instances.unique().tolist()
    if label not in there:
        raise InputError(f"object: expected one of {there}, got {label}")


def _rebuilt(sequence: GaussianSequence, **changed) -> GaussianSequence:
    """Return a sequence with some of its parts replaced; the others are shared."""
    parts = {
        "moving": sequence.moving,
        "motion": sequence.motion,
        "blends": sequence.blends,
        "instances": sequence.instances,
        "residual": None if sequence.residual is None else sequence.residual.detach(),
        **changed,
    }
    return GaussianSequence(
        sequence.static,
        timeline=sequence.timeline,
        cameras=sequence.cameras,
        canonical_frame=sequence.canonical_frame,
        world_units=sequence.world_units,
        **parts,
    )
