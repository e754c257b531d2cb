"""Poses of patterns over time with a prior on their acceleration, and their normal equations.

The second differences of a pose, a rotation and a translation about the pivot, are normally
distributed around zero: velocities are a random walk. The most probable poses between observations
are then smooth (cubic splines), and after the last one they go on as they moved.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import solveh_banded
from scipy.spatial.transform import Rotation

from msdyn.geometry import Rigid

__all__ = ["Accelerations", "SmoothPoses", "cross_matrices", "solve_over_time", "turned"]

_LAGS = (1, 2, 3, 4)
"""Lags, in frames, at which accelerations are measured: at larger ones noise counts less."""
_LEAST = 2e-4
"""Least standard deviation of an acceleration, sizes of the object per frame squared."""


@dataclass(frozen=True)
class Accelerations:
    """Second differences over time, exact for quadratic motion, as banded linear functions.

    Attributes:
        coefficients: of the values at the frames s, s + lag and s + 2 lag.
        lag: in frames.
    """

    coefficients: Float[np.ndarray, "3 rows"]
    lag: int = 1

    @classmethod
    def at(cls, times: Float[np.ndarray, " frames"], lag: int = 1) -> Accelerations:
        """Return those at increasing times, which need not be even."""
        start, middle, end = times[: -2 * lag], times[lag:-lag], times[2 * lag :]
        before, after = middle - start, end - middle
        both = 2 / (before + after)
        return cls(np.stack([both / before, -2 / (before * after), both / after]), lag)

    def of(self, values: Float[np.ndarray, "frames ..."]) -> Float[np.ndarray, "rows ..."]:
        """Return the accelerations of values."""
        lag = self.lag
        first, second, third = _beside(self.coefficients, values)
        return first * values[: -2 * lag] + second * values[lag:-lag] + third * values[2 * lag :]

    def of_moves(self, moves: Float[np.ndarray, "moves ..."]) -> Float[np.ndarray, "rows ..."]:
        """Return the accelerations of values with these first differences, at lag 1."""
        first, _, third = _beside(self.coefficients, moves)
        return third * moves[1:] - first * moves[:-1]

    def transposed(
        self, values: Float[np.ndarray, "rows ..."], frames: int
    ) -> Float[np.ndarray, "frames ..."]:
        """Return the product of the transposed matrix and values, at lag 1."""
        result = np.zeros((frames, *values.shape[1:]))
        for offset, part in enumerate(_beside(self.coefficients, values)):
            result[offset : offset + len(values)] += part * values
        return result

    def couplings(self, frames: int) -> list[Float[np.ndarray, " _"]]:
        """Return the diagonals 0, 1 and 2 of the transposed matrix times the matrix, at lag 1."""
        diagonals = [np.zeros(max(frames - offset, 0)) for offset in range(3)]
        rows = self.coefficients.shape[1]
        for first in range(3):
            for second in range(first, 3):
                product = self.coefficients[first] * self.coefficients[second]
                diagonals[second - first][first : first + rows] += product
        return diagonals


def _beside(
    coefficients: Float[np.ndarray, "3 rows"], values: Float[np.ndarray, "frames ..."]
) -> Float[np.ndarray, "3 rows ..."]:
    """Return coefficients that broadcast against values."""
    return coefficients.reshape(*coefficients.shape, *(1 for _ in values.shape[1:]))


def cross_matrices(vectors: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Return the matrices [v]x of cross products, v x u = [v]x u."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return np.stack(rows, -1).reshape(*vectors.shape, 3)


def turned(
    vectors: Float[np.ndarray, "points frames 3"], rotations: Float[np.ndarray, "frames 3 3"]
) -> Float[np.ndarray, "points frames 3"]:
    """Return vectors rotated by the rotation of each frame."""
    return (vectors.swapaxes(0, 1) @ rotations.swapaxes(1, 2)).swapaxes(0, 1)


@dataclass
class SmoothPoses:
    """Poses of the K patterns of a level in T frames, changed in place.

    Attributes:
        centres: pivots, scene units.
        rotations, translations: about the pivots, relative to the level above.
        times: of the frames, in frames.
        angle, shift: prior standard deviations of rotations, radians, and translations, scene
            units; infinite for none.
        radius: root mean square distance of the tracks of each pattern from its pivot.
        acceleration: prior standard deviation, per coordinate, of the acceleration of a point at
            `radius`, scene units per frame squared.
    """

    centres: Float[np.ndarray, "patterns 3"]
    rotations: Float[np.ndarray, "patterns frames 3 3"]
    translations: Float[np.ndarray, "patterns frames 3"]
    times: Float[np.ndarray, " frames"]
    angle: float = np.inf
    shift: float = np.inf
    radius: Float[np.ndarray, " patterns"] = field(init=False)
    acceleration: Float[np.ndarray, " patterns"] = field(init=False)

    def __post_init__(self) -> None:
        self.radius = np.ones(len(self))
        self.acceleration = np.ones(len(self))

    def __len__(self) -> int:
        return len(self.centres)

    @property
    def about(self) -> Rigid[np.ndarray]:
        """The poses about the pivots, [K, T]."""
        return Rigid(self.rotations, self.translations)

    def copy(self) -> SmoothPoses:
        """Return a copy whose poses are its own."""
        rotations, translations = self.rotations.copy(), self.translations.copy()
        result = SmoothPoses(
            self.centres, rotations, translations, self.times, self.angle, self.shift
        )
        result.radius, result.acceleration = self.radius.copy(), self.acceleration.copy()
        return result

    def rotated(
        self, pattern: int, positions: Float[np.ndarray, "points frames 3"]
    ) -> Float[np.ndarray, "points frames 3"]:
        """Return the offsets from the pivot, rotated by a pattern."""
        offsets = positions - self.centres[pattern]
        return turned(offsets, self.rotations[pattern])

    def apply(
        self, pattern: int, positions: Float[np.ndarray, "points frames 3"]
    ) -> Float[np.ndarray, "points frames 3"]:
        """Move positions by a pattern."""
        return self.rotated(pattern, positions) + self.centres[pattern] + self.translations[pattern]

    def undo(
        self, pattern: int, positions: Float[np.ndarray, "points frames 3"]
    ) -> Float[np.ndarray, "points frames 3"]:
        """Map positions back to what a pattern moved there."""
        centred = positions - self.centres[pattern] - self.translations[pattern]
        return turned(centred, self.rotations[pattern].swapaxes(1, 2)) + self.centres[pattern]

    def step(self, pattern: int, change: Float[np.ndarray, "frames 6"]) -> None:
        """Rotate by vectors, radians, after the present rotations, and translate."""
        turn = Rotation.from_rotvec(change[:, :3]).as_matrix()
        self.rotations[pattern] = turn @ self.rotations[pattern]
        self.translations[pattern] += change[:, 3:]

    def precision(self, pattern: int) -> tuple[Float[np.ndarray, " 6"], Float[np.ndarray, " 6"]]:
        """Return the inverse variances of accelerations, and of the poses themselves."""
        scale = np.concatenate([np.full(3, self.radius[pattern] ** 2), np.ones(3)])
        own = np.concatenate([np.full(3, self.angle**-2), np.full(3, self.shift**-2)])
        return scale / self.acceleration[pattern] ** 2, own

    def prior_gradient(self, pattern: int) -> Float[np.ndarray, "frames 6"]:
        """Return the gradient of half the squared errors of the prior, by `step`."""
        rotations, translations = self.rotations[pattern], self.translations[pattern]
        turns = Rotation.from_matrix(rotations[1:] @ rotations[:-1].swapaxes(1, 2)).as_rotvec()
        moves = np.concatenate([turns, np.diff(translations, axis=0)], axis=1)
        accelerations = Accelerations.at(self.times)
        smooth, own = self.precision(pattern)
        values = np.concatenate([Rotation.from_matrix(rotations).as_rotvec(), translations], axis=1)
        forces = accelerations.of_moves(moves) * smooth
        return accelerations.transposed(forces, len(values)) + own * values

    def measure(
        self,
        pattern: int,
        below: Float[np.ndarray, "points frames 3"],
        seen: Bool[np.ndarray, "points frames"],
        size: float,
        noise: float,
    ) -> None:
        """Measure how strongly a pattern accelerates its tracks in frames in which they are seen.

        The variance that noise of the tracks causes is subtracted. What is left is largest at the
        lag at which it is measured best.

        Args:
            pattern: its index.
            below: its tracks, as the levels below move them.
            seen: where they are observed.
            size: of the object, scene units.
            noise: standard deviation of a coordinate of a track, scene units.
        """
        least = _LEAST * size
        if not len(below):
            self.acceleration[pattern], self.radius[pattern] = least, size
            return
        offsets = below - self.centres[pattern]
        self.radius[pattern] = max(float(np.sqrt((offsets**2).sum(-1).mean())), 0.1 * size)
        moved, tracks = self.apply(pattern, below), seen.sum(0)
        found = [0.0]
        for lag in _LAGS:
            if len(tracks) <= 2 * lag:
                break
            accelerations = Accelerations.at(self.times, lag)
            three = np.stack([tracks[: -2 * lag], tracks[lag:-lag], tracks[2 * lag :]])
            used = three.min(0)
            good = used >= max(0.5 * tracks.max(), 1)
            if not good.any():
                continue
            squares = (accelerations.of(moved.swapaxes(0, 1)) ** 2).sum(-1).mean(1)
            of_noise = 6 * noise**2 * (accelerations.coefficients**2).sum(0) / used.clip(1)
            found.append(float(np.median((squares - of_noise)[good])))
        self.acceleration[pattern] = max(np.sqrt(max(found)), least)


def solve_over_time(
    blocks: Float[np.ndarray, "frames unknowns unknowns"],
    right: Float[np.ndarray, "frames unknowns"],
    smooth: Float[np.ndarray, " unknowns"],
    own: Float[np.ndarray, " unknowns"],
    times: Float[np.ndarray, " frames"],
) -> Float[np.ndarray, "frames unknowns"]:
    """Solve normal equations of unknowns in every frame, coupled by their accelerations.

    Args:
        blocks: of the data, one per frame, positive semidefinite.
        right: right-hand side.
        smooth: inverse variances of accelerations.
        own: inverse variances of the unknowns themselves.
        times: of the frames.
    """
    frames, size, _ = blocks.shape
    couplings = Accelerations.at(times).couplings(frames)
    # What neither data nor prior determine stays as it is.
    stay = 1e-9 * max(float(np.trace(blocks, axis1=1, axis2=2).max()) / size, 1e-12)
    band = np.zeros((3 * size, frames * size))  # band[i - j, j] is the element in row i, column j
    for column in range(size):
        band[: size - column, column::size] = blocks[:, column:, column].T
    band[0] += (couplings[0][:, None] * smooth + own + stay).reshape(-1)
    for lag in range(1, min(3, frames)):
        values = couplings[lag][:, None] * smooth
        band[lag * size, : values.size] = values.reshape(-1)
    solution = solveh_banded(
        band, right.reshape(-1), lower=True, overwrite_ab=True, check_finite=False
    )
    return solution.reshape(frames, size)
