"""Life spans: the range of frames in which a Gaussian exists."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Real
from torch import Tensor

__all__ = ["life_shares", "life_window", "retimed_life_spans"]

FADE = 0.25
"""Time constant with which opacity rises and falls at the ends of a life span, in frames."""


def life_window(
    life_spans: Float[Tensor, "gaussians 2"], frames: Float[Tensor, " times"]
) -> Float[Tensor, "times gaussians"]:
    """Return the factor in [0, 1] by which life spans reduce the opacities at some frames.

    It is one inside a life span, one half at its ends, and falls within about a frame, so that of
    two Gaussians of which one ends where the other begins, the factors sum to one.

    Args:
        life_spans: begin and end, fractional frame indices; infinite where there is none.
        frames: fractional frame indices.
    """
    begin, end = life_spans.unbind(-1)
    times = frames[:, None]
    return ((times - begin) / FADE).sigmoid() * ((end - times) / FADE).sigmoid()


def life_shares(
    life_spans: Float[Tensor, "gaussians 2"], frames: int
) -> Float[Tensor, " gaussians"]:
    """Return the share of a clip's frames in which each Gaussian exists.

    Args:
        life_spans: begin and end, fractional frame indices; infinite where there is none.
        frames: number of the frames of the clip, each of which lasts from half a frame before its
            index to half a frame after it.
    """
    begin, end = life_spans.clamp(-0.5, frames - 0.5).unbind(-1)
    return (end - begin).clamp_min(0) / frames


def retimed_life_spans(
    life_spans: Real[np.ndarray, "gaussians 2"],
    keys: Real[np.ndarray, " keys"],
    frames: Real[np.ndarray, " keys"],
) -> tuple[Int[np.ndarray, " spans"], Float[np.ndarray, "spans 2"]]:
    """Return the life spans of Gaussians whose time is remapped.

    At key frame i they are as they were at `frames[i]`, in between as in between. So a Gaussian can
    exist several times, or not at all.

    Args:
        life_spans: begin and end, fractional frame indices, may be infinite.
        keys: key frames, at least one, increasing.
        frames: fractional frame index shown at each key frame.

    Returns:
        The index of the Gaussian, and begin and end, of every new life span, ordered by Gaussian.
    """
    keys, frames = np.asarray(keys, np.float64), np.asarray(frames, np.float64)
    slope = np.diff(frames)
    index, spans = [], []
    for gaussian, (begin, end) in enumerate(np.asarray(life_spans, np.float64)):
        inside = (frames >= begin) & (frames <= end)
        # The part of each segment between two keys, as fractions of it, in which it exists.
        with np.errstate(divide="ignore", invalid="ignore"):
            at = np.sort(np.stack([(begin - frames[:-1]) / slope, (end - frames[:-1]) / slope]), 0)
        enter, leave = at.clip(0, 1)
        enter, leave = np.where(slope == 0, 0, enter), np.where(slope == 0, inside[:-1], leave)
        parts = [
            (keys[i] + e * (keys[i + 1] - keys[i]), keys[i] + f * (keys[i + 1] - keys[i]))
            for i, (e, f) in enumerate(zip(enter, leave, strict=True))
            if f > e
        ]
        if not parts and not inside.any():
            continue
        merged = [list(part) for part in parts[:1]]
        for part in parts[1:]:
            if part[0] <= merged[-1][1]:
                merged[-1][1] = part[1]
            else:
                merged.append(list(part))
        merged = merged or [[keys[0], keys[0]]]
        # Before the first and after the last key, all stays as it is there.
        if inside[0]:
            merged[0][0] = -np.inf
        if inside[-1]:
            merged[-1][1] = np.inf
        index += [gaussian] * len(merged)
        spans += merged
    return np.array(index, np.int64), np.array(spans, np.float64).reshape(-1, 2)
