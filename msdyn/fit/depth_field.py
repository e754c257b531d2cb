"""Smooth errors of depth maps over the image, estimated from points of known depth.

Depth estimated from single images is distorted: its error varies slowly over the image and from
frame to frame, so no scale per frame corrects it. The logarithm of the correction is modelled as a
Gaussian process over the image, independent per frame (kriging): near points of known depth it
follows their residuals, far from them it returns to zero. The length of the process and its
standard deviation relative to the noise are chosen by cross-validation: where depth is exact, or
its errors are not smooth, there is no correction.

Reference: Rasmussen and Williams 2006, chapters 2 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve

from msdyn.indices import evenly_spaced

__all__ = ["NO_ERROR", "DepthResiduals", "SmoothError", "choose_smooth_error"]

# Candidates: length as a fraction of the image's longer side, and standard deviation of the process
# as a multiple of that of a point's residual.
_LENGTHS = (0.1, 0.2, 0.4)
_AMPLITUDES = (0.5, 1.0, 2.0, 4.0)
# Frames used for the choice, and folds of the cross-validation.
_FRAMES, _FOLDS = 8, 3
# Share by which the correction must reduce the error of hidden points.
_MIN_GAIN = 0.03
# Points used per frame: at most, and at least.
_MAX_POINTS, _MIN_POINTS = 400, 8
_REWEIGHTINGS = 2


@dataclass(frozen=True)
class DepthResiduals:
    """Errors of depth maps at O observations of points.

    Attributes:
        frame, point: indices; the observations of one point are hidden together.
        xy: position in the image, as a fraction of its longer side.
        residual: logarithm of the true over the stored depth.
    """

    frame: Int[np.ndarray, " observations"]
    point: Int[np.ndarray, " observations"]
    xy: Float[np.ndarray, "observations 2"]
    residual: Float[np.ndarray, " observations"]

    def select(self, index: Int[np.ndarray, " selected"]) -> DepthResiduals:
        """Return the observations of the given indices."""
        return DepthResiduals(
            self.frame[index], self.point[index], self.xy[index], self.residual[index]
        )

    def by_frame(self) -> Iterator[tuple[int, DepthResiduals]]:
        """Yield the observations of each frame that has enough of them, at most `_MAX_POINTS`."""
        order = np.lexsort((_shuffled(self.point), self.frame))
        present, start = np.unique(self.frame[order], return_index=True)
        for frame, own in zip(present.tolist(), np.split(order, start[1:]), strict=True):
            if len(own) >= _MIN_POINTS:
                yield frame, self.select(own[:_MAX_POINTS])


@dataclass(frozen=True)
class SmoothError:
    """A Gaussian process with a squared exponential covariance.

    Attributes:
        length: fraction of the image's longer side.
        amplitude: standard deviation, as a multiple of that of a point's residual; 0 for no error.
    """

    length: float
    amplitude: float

    def predict(
        self, given: DepthResiduals, xy: Float[np.ndarray, "points 2"]
    ) -> Float[np.ndarray, " points"]:
        """Return the expected error of one frame at positions, given its observations.

        Outliers among the observations have little influence (Cauchy's weight function).
        """
        if not self.amplitude:
            return np.zeros(len(xy))
        own = _squared_distances(given.xy, given.xy)
        cross = _squared_distances(xy, given.xy)
        return _krige(self._covariance(own), self._covariance(cross), given.residual)

    def _covariance(
        self, squared: Float[np.ndarray, "points others"]
    ) -> Float[np.ndarray, "points others"]:
        """Return the covariances of the errors of points at squared distances."""
        return self.amplitude**2 * np.exp(-squared / (2 * self.length**2))


def _squared_distances(
    a: Float[np.ndarray, "points 2"], b: Float[np.ndarray, "others 2"]
) -> Float[np.ndarray, "points others"]:
    """Return the squared distances between two sets of positions."""
    return (a[:, :1] - b[:, 0]) ** 2 + (a[:, 1:] - b[:, 1]) ** 2


def _krige(
    own: Float[np.ndarray, "given given"],
    cross: Float[np.ndarray, "points given"],
    residual: Float[np.ndarray, " given"],
) -> Float[np.ndarray, " points"]:
    """Return the expected errors, given noisy ones and all covariances, without outliers."""
    noise, weights = np.ones(len(own)), np.zeros(len(own))
    if not len(own):
        return cross @ weights
    for _ in range(1 + _REWEIGHTINGS):
        factor = cho_factor(own + np.diag(noise), overwrite_a=True, check_finite=False)
        weights = cho_solve(factor, residual, check_finite=False)
        error = np.abs(residual - own @ weights)
        typical = 1.4826 * float(np.median(error)) + 1e-9
        noise = 1 + (error / (2 * typical)) ** 2
    return cross @ weights


NO_ERROR = SmoothError(1.0, 0.0)


def choose_smooth_error(residuals: DepthResiduals) -> SmoothError:
    """Return the process that predicts the residuals of hidden points best.

    Returns:
        `NO_ERROR` unless the mean absolute residual of hidden points becomes smaller.
    """
    candidates = [SmoothError(length, a) for length in _LENGTHS for a in _AMPLITUDES]
    errors, without = np.zeros(len(candidates)), 0.0
    frames = [part for _, part in residuals.by_frame()]
    if not frames:
        return NO_ERROR
    for i in evenly_spaced(len(frames), _FRAMES):
        part = frames[i]
        squared = _squared_distances(part.xy, part.xy)
        without += float(np.abs(part.residual).sum())
        for number, candidate in enumerate(candidates):
            errors[number] += _hidden_error(part, candidate._covariance(squared))
    best = int(errors.argmin())
    return candidates[best] if errors[best] < (1 - _MIN_GAIN) * without else NO_ERROR


def _hidden_error(part: DepthResiduals, covariance: Float[np.ndarray, "points points"]) -> float:
    """Return the sum of absolute residuals that remain, each predicted without its own fold."""
    fold = _shuffled(part.point) % _FOLDS
    total = 0.0
    for hidden in range(_FOLDS):
        given, test = np.flatnonzero(fold != hidden), np.flatnonzero(fold == hidden)
        own, cross = covariance[np.ix_(given, given)], covariance[np.ix_(test, given)]
        predicted = _krige(own, cross, part.residual[given])
        total += float(np.abs(part.residual[test] - predicted).sum())
    return total


def _shuffled(number: Int[np.ndarray, " points"]) -> Int[np.ndarray, " points"]:
    """Return pseudo-random numbers that depend on the points only (multiplicative hash)."""
    return (number.astype(np.uint64) * np.uint64(2654435761) % np.uint64(2**32) >> 7).astype(int)
