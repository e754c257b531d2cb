"""Bringing a depth network's maps to the cameras' scale, frame by frame.

A network gives inverse depth up to a scale and a shift that wander from frame to frame. Static
points whose distance is known from the cameras fix both: for each frame the line `scale * predicted
+ shift` through the points it sees, robust to those that are wrong, and smooth in time so that
frames that see few points lean on their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdyn.scene import Tracks

__all__ = ["InverseDepthFit", "fit_inverse_depth", "fit_to_tracks"]

# Neighbouring frames pull on one another as this many points would, and all frames on each as
# `PRIOR` points: it matters where a frame sees next to none.
SMOOTHNESS, PRIOR = 1.0, 0.1
ITERATIONS = 12
PAIRS = 5000
ROUNDS = 10
MIN_SCALE = 0.05
"""Of the clip's scale: a frame that would need less, or a negative one, is fitted wrongly."""


@dataclass(frozen=True)
class InverseDepthFit:
    """Lines from predicted to true inverse depth: `scale * predicted + shift`.

    Attributes:
        scale, shift: [T] of each frame.
        error: [T] median of |1 - fitted depth / true depth| over the frame's points, NaN without.
        count: [T] points of each frame.
    """

    scale: np.ndarray
    shift: np.ndarray
    error: np.ndarray
    count: np.ndarray

    @property
    def typical_error(self) -> float | None:
        """Mean of `error` over the frames that have one; None where no frame has."""
        known = self.error[np.isfinite(self.error)]
        return float(known.mean()) if len(known) else None

    @property
    def wobble(self) -> float:
        """Standard deviation of the log of the scale over time."""
        return float(np.std(np.log(np.maximum(self.scale, 1e-12))))


def fit_inverse_depth(
    predicted: np.ndarray, target: np.ndarray, frame: np.ndarray, frames: int
) -> InverseDepthFit:
    """Fit a scale and a shift to each frame.

    Args:
        predicted: [M] the network's value at each observation.
        target: [M] true inverse depth of each, > 0.
        frame: [M] int, 0..frames-1.
        frames: number of frames T.

    Returns:
        The fit; without any observation scale 1 and shift 0.
    """
    count = np.bincount(frame, minlength=frames)
    if not len(frame):
        return InverseDepthFit(np.ones(frames), np.zeros(frames), np.full(frames, np.nan), count)
    # In units in which typical values are 1, so that the weights above mean points.
    unit_p = max(float(np.median(np.abs(predicted))), 1e-12)
    unit_q = max(float(np.median(target)), 1e-12)
    p, q = predicted / unit_p, target / unit_q
    # Errors of depth are relative; half and half, so that what is far does not rule.
    prior = 2 / (q + 1)
    lines = np.tile(_one_line(p, q, frame), (frames, 1))
    for _ in range(ITERATIONS):
        residual = prior * (lines[frame, 0] * p + lines[frame, 1] - q)
        # Of each frame: one that is still far off must not lose all of its points to the others.
        spread = np.maximum(1.4826 * _medians(np.abs(residual), frame, frames), 1e-3)
        weight = prior**2 / (1 + (residual / (2 * spread[frame])) ** 2)
        lines = _smooth_lines(p, q, weight, frame, frames)
    usual = float(np.median(lines[:, 0]))
    wrong = lines[:, 0] < MIN_SCALE * usual
    if wrong.any() and usual > 0:
        kept = np.flatnonzero(~wrong)
        for column in range(2):
            lines[:, column] = np.interp(np.arange(frames), kept, lines[kept, column])
    scale, shift = lines[:, 0] * unit_q / unit_p, lines[:, 1] * unit_q
    fitted = scale[frame] * predicted + shift[frame]
    relative = np.abs(1 - target / np.where(np.abs(fitted) < 1e-12, 1e-12, fitted))
    error = np.where(count, _medians(relative, frame, frames), np.nan)
    return InverseDepthFit(scale, shift, error, count)


def fit_to_tracks(predicted: np.ndarray, tracks: Tracks) -> InverseDepthFit:
    """Make the frames agree with one another, for a camera that does not move.

    Then what is static keeps its distance, nearly, so that the mean over a track's life is the
    target of each of its frames. The mean scale stays 1 and the mean shift 0.

    Args:
        predicted: [M] the network's values at the tracks' observations.
        tracks: N static tracks.
    """
    point, frame, _, _ = tracks.observations()
    values = predicted.astype(np.float64)
    count = np.bincount(frame, minlength=tracks.num_frames)
    scale, shift = np.ones(tracks.num_frames), np.zeros(tracks.num_frames)
    error = np.full(tracks.num_frames, np.nan)
    number = np.maximum(tracks.lifetimes, 1)
    for _ in range(ROUNDS if len(point) else 0):
        fitted = scale[frame] * values + shift[frame]
        mean = np.bincount(point, fitted, minlength=len(tracks)) / number
        target = np.maximum(mean[point], 1e-9)
        fit = fit_inverse_depth(values, target, frame, tracks.num_frames)
        # Shrinking everything would fit as well.
        scale, error = fit.scale / fit.scale.mean(), fit.error
        shift = (fit.shift - fit.shift.mean()) / fit.scale.mean()
    return InverseDepthFit(scale, shift, error, count)


def _medians(values: np.ndarray, frame: np.ndarray, frames: int) -> np.ndarray:
    """Return the median [T] of each frame's values, 0 without any."""
    order = np.argsort(frame, kind="stable")
    ends = np.cumsum(np.bincount(frame, minlength=frames))
    groups = np.split(values[order], ends[:-1])
    return np.array([np.median(group) if len(group) else 0.0 for group in groups])


def _one_line(p: np.ndarray, q: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return the scale and shift [2] of a line for all frames, from the median of many slopes.

    Theil and Sen's estimate, on random pairs of one frame. A least absolute error would not do:
    wrong predictions far off the others pull on the line as levers.
    """
    order = np.argsort(frame, kind="stable")
    start = np.searchsorted(frame[order], frame)
    number = np.bincount(frame)[frame]
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(p), PAIRS)
    second = order[start[first] + rng.integers(0, number[first])]
    apart = np.abs(p[first] - p[second])
    far = apart > max(float(np.median(apart)) * 0.5, 1e-9)
    if not far.any():
        return np.array([0.0, float(np.median(q))])
    slope = np.median((q[first] - q[second])[far] / (p[first] - p[second])[far])
    return np.array([slope, np.median(q - slope * p)])


def _smooth_lines(
    p: np.ndarray, q: np.ndarray, weight: np.ndarray, frame: np.ndarray, frames: int
) -> np.ndarray:
    """Return lines [T, 2] by weighted least squares, neighbours pulled together."""
    from scipy.linalg import solveh_banded

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(frame, weight * values, minlength=frames)

    pp, p1, n, pq, q1 = (total(v) for v in (p * p, p, np.ones_like(p), p * q, q))
    whole = np.array([[pp.sum(), p1.sum()], [p1.sum(), n.sum()]]) + 1e-9 * np.eye(2)
    typical = np.linalg.solve(whole, [pq.sum(), q1.sum()])
    band = np.zeros((3, 2 * frames))  # the upper form of a symmetric matrix of two upper diagonals
    band[2, 0::2], band[2, 1::2] = pp + PRIOR, n + PRIOR
    band[1, 1::2] = p1
    band[2, 2:] += SMOOTHNESS
    band[2, :-2] += SMOOTHNESS
    band[0, 2:] = -SMOOTHNESS
    right = np.stack([pq, q1], 1) + PRIOR * typical
    return solveh_banded(band, right.ravel()).reshape(frames, 2)
