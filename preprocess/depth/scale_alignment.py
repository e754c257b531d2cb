"""Aligns the maps of a depth network to the scale of the cameras, frame by frame.

A network predicts inverse depth up to a scale and a shift that vary from frame to frame. Both are
estimated from static points of known depth: for each frame the line `scale * predicted + shift`
through its points, robust to outliers, and smooth in time for frames with few points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real

from msdyn.scene import Tracks

__all__ = ["InverseDepthFit", "fit_inverse_depth", "fit_to_tracks"]

# Weights, in numbers of points, of the difference between neighbouring frames, and of that from the
# line of all frames, which matters in frames with hardly any points.
SMOOTHNESS, PRIOR = 1.0, 0.1
ITERATIONS = 12
PAIRS = 5000
ROUNDS = 10
MIN_SCALE = 0.05
"""Of the clip's scale: a smaller or negative scale of a frame is an outlier."""


@dataclass(frozen=True)
class InverseDepthFit:
    """Lines from predicted to true inverse depth: `scale * predicted + shift`.

    Attributes:
        scale, shift: [T] of each frame.
        error: [T] median of |1 - fitted depth / true depth| over the frame's points, NaN without.
        count: [T] points of each frame.
    """

    scale: Float[np.ndarray, " frames"]
    shift: Float[np.ndarray, " frames"]
    error: Float[np.ndarray, " frames"]
    count: Int[np.ndarray, " frames"]

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
    predicted: Float[np.ndarray, " observations"],
    target: Float[np.ndarray, " observations"],
    frame: Int[np.ndarray, " observations"],
    frames: int,
) -> InverseDepthFit:
    """Fit a scale and a shift to each frame.

    Args:
        predicted: [M] the network's value at each observation.
        target: [M] true inverse depth of each, > 0.
        frame: [M] 0..frames-1.
        frames: number of frames T.

    Returns:
        The fit; without any observation scale 1 and shift 0.
    """
    count = np.bincount(frame, minlength=frames)
    if not len(frame):
        return InverseDepthFit(np.ones(frames), np.zeros(frames), np.full(frames, np.nan), count)
    # In units in which typical values are 1, so that the weights above are numbers of points.
    unit_p = max(float(np.median(np.abs(predicted))), 1e-12)
    unit_q = max(float(np.median(target)), 1e-12)
    p, q = predicted / unit_p, target / unit_q
    # Between relative and absolute errors, so that far points do not dominate.
    prior = 2 / (q + 1)
    lines = np.tile(_one_line(p, q, frame), (frames, 1))
    for _ in range(ITERATIONS):
        residual = prior * (lines[frame, 0] * p + lines[frame, 1] - q)
        # Per frame: the points of one with a large error must not all become outliers.
        spread = np.maximum(1.4826 * _medians(np.abs(residual), frame, frames), 1e-3)
        weight = prior**2 / (1 + (residual / (2 * spread[frame])) ** 2)
        lines = _smooth_lines(p, q, weight, frame, frames)
    typical = float(np.median(lines[:, 0]))
    wrong = lines[:, 0] < MIN_SCALE * typical
    if wrong.any() and typical > 0:
        kept = np.flatnonzero(~wrong)
        for column in range(2):
            lines[:, column] = np.interp(np.arange(frames), kept, lines[kept, column])
    scale, shift = lines[:, 0] * unit_q / unit_p, lines[:, 1] * unit_q
    fitted = scale[frame] * predicted + shift[frame]
    relative = np.abs(1 - target / np.where(np.abs(fitted) < 1e-12, 1e-12, fitted))
    error = np.where(count, _medians(relative, frame, frames), np.nan)
    return InverseDepthFit(scale, shift, error, count)


def fit_to_tracks(predicted: Float[np.ndarray, " observations"], tracks: Tracks) -> InverseDepthFit:
    """Fit the frames to one another, for a camera that does not translate.

    The depth of static points is then nearly constant, so that the mean over a track's life is the
    target of each of its frames. The mean scale is 1 and the mean shift 0.

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
        # Normalised, since shrinking everything would reduce the error.
        scale, error = fit.scale / fit.scale.mean(), fit.error
        shift = (fit.shift - fit.shift.mean()) / fit.scale.mean()
    return InverseDepthFit(scale, shift, error, count)


def _medians(
    values: Float[np.ndarray, " observations"],
    frame: Int[np.ndarray, " observations"],
    frames: int,
) -> Float[np.ndarray, " frames"]:
    """Return the median [T] of each frame's values, 0 without any."""
    order = np.argsort(frame, kind="stable")
    ends = np.cumsum(np.bincount(frame, minlength=frames))
    groups = np.split(values[order], ends[:-1])
    return np.array([np.median(group) if len(group) else 0.0 for group in groups])


def _one_line(
    p: Float[np.ndarray, " observations"],
    q: Float[np.ndarray, " observations"],
    frame: Int[np.ndarray, " observations"],
) -> Float[np.ndarray, " 2"]:
    """Return the scale and shift [2] of a line for all frames: the median of many slopes.

    The Theil-Sen estimator, on random pairs of points of one frame. The least absolute error is not
    robust to outliers in the predictions, which have leverage.
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
    p: Float[np.ndarray, " observations"],
    q: Float[np.ndarray, " observations"],
    weight: Float[np.ndarray, " observations"],
    frame: Int[np.ndarray, " observations"],
    frames: int,
) -> Float[np.ndarray, "frames 2"]:
    """Return lines [T, 2] by weighted least squares, smooth in time."""
    from scipy.linalg import solveh_banded

    def total(values: Real[np.ndarray, " observations"]) -> Float[np.ndarray, " frames"]:
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
