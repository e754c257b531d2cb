"""Paths of Gaussians as a few straight pieces each, within a tolerance in pixels.

A piece has a line for the position, one orientation and one opacity. It covers a range of the given
times; two pieces of a path share the time at which one follows the other, so that a path between
two given times belongs to one piece, unless the opacity changes there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped

__all__ = ["Paths", "Segments", "straight_segments"]

_AT_A_TIME = 4096
_OPACITY_STEP = 0.05
"""Opacities, relative to the largest of the path, that one piece may have instead of its own."""


@dataclass(frozen=True)
class Paths:
    """Gaussians at increasing times.

    Attributes:
        seconds: [T].
        means: [T, N, 3] scene units.
        quats_wxyz: [T, N, 4] unit quaternions.
        opacities: [T, N] in [0, 1].
        pixels: [T, N] how many pixels a scene unit is, where the Gaussian is.
        anisotropies: [N] difference of the largest and the smallest standard deviation.
    """

    seconds: Float64[np.ndarray, " times"]
    means: Float[np.ndarray, "times gaussians 3"]
    quats_wxyz: Float[np.ndarray, "times gaussians 4"]
    opacities: Float[np.ndarray, "times gaussians"]
    pixels: Float[np.ndarray, "times gaussians"]
    anisotropies: Float[np.ndarray, " gaussians"]

    def of(self, own: slice | Int[np.ndarray, " own"], times: slice = slice(None)) -> Paths:
        """Return some of the Gaussians, at some of the times."""
        return Paths(
            self.seconds[times],
            self.means[times, own],
            self.quats_wxyz[times, own],
            self.opacities[times, own],
            self.pixels[times, own],
            self.anisotropies[own],
        )


@dataclass(frozen=True)
class Segments:
    """Straight pieces of paths, ordered by path.

    Attributes:
        owner: [S] index of the path.
        first, last: [S] rows of the first and the last time.
        begin, end: [S] seconds: where a piece begins and ends to be valid. The pieces of a path
            adjoin; the first begins and the last ends at infinity.
        origin: [S, 3] where the line is at second 0.
        velocity: [S, 3] scene units per second.
        quats_wxyz: [S, 4] the mean orientation.
        opacity: [S] the mean opacity.
    """

    owner: Int[np.ndarray, " segments"]
    first: Int[np.ndarray, " segments"]
    last: Int[np.ndarray, " segments"]
    begin: Float64[np.ndarray, " segments"]
    end: Float64[np.ndarray, " segments"]
    origin: Float64[np.ndarray, "segments 3"]
    velocity: Float64[np.ndarray, "segments 3"]
    quats_wxyz: Float64[np.ndarray, "segments 4"]
    opacity: Float64[np.ndarray, " segments"]

    def __len__(self) -> int:
        return len(self.owner)

    def select(self, chosen: Bool[np.ndarray, " segments"]) -> Segments:
        """Return some of the pieces."""
        return Segments(*(getattr(self, field.name)[chosen] for field in fields(self)))


def straight_segments(
    paths: Paths,
    tolerance_px: float,
    *,
    turning: Float[np.ndarray, "times gaussians 4"] | None = None,
    most_turn: float = np.inf,
) -> Segments:
    """Divide paths into straight pieces, each as long as the tolerance allows from where it begins.

    The line of a piece is the least-squares one of its positions, weighted by their size in pixels.
    A piece ends before the time at which a position of it would be further from the line than the
    tolerance, or two of its orientations would differ by more than twice the angle that moves the
    ends of the Gaussian's axes by the tolerance, or the opacity changes. A piece from one time to
    the next is always allowed.

    Args:
        paths: of any number of Gaussians.
        tolerance_px: in pixels.
        turning: [T, N, 4] rotations of the Gaussians, where a piece must not turn by much.
        most_turn: angle of these, in radians, within a piece.
    """
    count = len(paths.anisotropies)
    parts = []
    for begin in range(0, count, _AT_A_TIME):
        own = slice(begin, begin + _AT_A_TIME)
        part = paths.of(own)
        rotations = None if turning is None else np.asarray(turning[:, own], float)
        found = _Fits(part).segments(tolerance_px, rotations, most_turn)
        parts.append(_moved(found, begin))
    if not parts:
        return _Fits(paths).segments(tolerance_px, None, most_turn)
    return Segments(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Segments))
    )


def _moved(segments: Segments, begin: int) -> Segments:
    values = {field.name: getattr(segments, field.name) for field in fields(segments)}
    return Segments(**values | {"owner": segments.owner + begin})


@dataclass(frozen=True)
class _Fits:
    """Paths with the sums from which the line of any piece follows."""

    paths: Paths

    @cached_property
    def quats(self) -> Float64[np.ndarray, "times gaussians 4"]:
        """The orientations with continuous signs."""
        quats = np.array(self.paths.quats_wxyz, float)
        signs = np.sign((quats[1:] * quats[:-1]).sum(-1))
        quats[1:] *= np.cumprod(np.where(signs == 0, 1, signs), 0)[..., None]
        return quats

    @cached_property
    def moments(self) -> dict[str, Float64[np.ndarray, "sums gaussians ..."]]:
        """Sums over the times before each row: weights, times, positions, their products."""
        paths = self.paths
        weights = np.square(paths.pixels)
        seconds = (paths.seconds - paths.seconds.mean())[:, None]
        weighted = weights[..., None] * paths.means
        return {
            "w": _sums(weights),
            "wt": _sums(weights * seconds),
            "wtt": _sums(weights * seconds**2),
            "wx": _sums(weighted),
            "wtx": _sums(weighted * seconds[..., None]),
        }

    def lines(
        self,
        owner: Int[np.ndarray, " pieces"],
        first: Int[np.ndarray, " pieces"],
        last: Int[np.ndarray, " pieces"],
    ) -> tuple[Float64[np.ndarray, "pieces 3"], Float64[np.ndarray, "pieces 3"]]:
        """Return positions at the mean of all times, and velocities."""
        sums = {k: v[last + 1, owner] - v[first, owner] for k, v in self.moments.items()}
        determinant = sums["w"] * sums["wtt"] - sums["wt"] ** 2
        several = (last > first)[:, None]
        safe = np.where(several[:, 0], determinant, 1.0)[:, None]
        velocity = (sums["w"][:, None] * sums["wtx"] - sums["wt"][:, None] * sums["wx"]) / safe
        velocity = np.where(several, velocity, 0.0)
        origin = (sums["wx"] - velocity * sums["wt"][:, None]) / sums["w"][:, None]
        return origin, velocity

    def segments(
        self,
        tolerance_px: float,
        turning: Float[np.ndarray, "times gaussians 4"] | None,
        most_turn: float,
    ) -> Segments:
        paths, quats = self.paths, self.quats
        times, count = paths.pixels.shape
        everyone = np.arange(count)
        largest = np.maximum(paths.opacities.max(0, initial=0.0), 1e-12)
        relative = paths.opacities / largest
        start, joined = np.zeros(count, int), np.zeros(count, bool)
        turn, other = np.zeros(count), np.zeros(count)  # largest angles since the start
        low = high = relative[0] if times else np.zeros(count)
        pieces: list[list[Shaped[np.ndarray, " pieces"]]] = []
        for row in range(1, times):
            low, high = np.minimum(low, relative[row]), np.maximum(high, relative[row])
            turn = np.maximum(turn, _angles(quats[start, everyone], quats[row]))
            fits = self.distances(start, row) <= tolerance_px
            fits &= turn * paths.anisotropies * paths.pixels[row] <= 2 * tolerance_px
            if turning is not None:
                other = np.maximum(other, _angles(turning[start, everyone], turning[row]))
                fits &= other <= most_turn
            fits |= start == row - 1
            even = high - low <= _OPACITY_STEP
            ends = ~(fits & even)
            if not ends.any():
                continue
            joins = np.abs(relative[row] - relative[row - 1]) <= _OPACITY_STEP
            owner = everyone[ends]
            pieces.append(
                [owner, start[ends], np.full(len(owner), row - 1), joined[ends], joins[ends]]
            )
            start = np.where(ends, np.where(joins, row - 1, row), start)
            joined = np.where(ends, joins, joined)
            before = np.where(joins, relative[row - 1], relative[row])
            low = np.where(ends, np.minimum(before, relative[row]), low)
            high = np.where(ends, np.maximum(before, relative[row]), high)
            turn = np.where(ends, _angles(quats[start, everyone], quats[row]), turn)
            if turning is not None:
                other = np.where(ends, _angles(turning[start, everyone], turning[row]), other)
        no = np.zeros(count, bool)
        pieces.append([everyone, start, np.full(count, times - 1), joined, no])
        columns = [np.concatenate(column) for column in zip(*pieces, strict=True)]
        order = np.lexsort((columns[1], columns[0]))
        return self.finished(*(column[order] for column in columns))

    def distances(
        self, start: Int[np.ndarray, " gaussians"], row: int
    ) -> Float64[np.ndarray, " gaussians"]:
        """Return the largest distance, in pixels, of the positions up to a row from their line."""
        paths = self.paths
        origin, velocity = self.lines(np.arange(len(start)), start, np.full(len(start), row))
        begin = int(start.min(initial=row))
        seconds = paths.seconds - paths.seconds.mean()
        largest = np.zeros(len(start))
        for other in range(begin, row + 1):
            away = paths.means[other] - origin - velocity * seconds[other]
            pixels = np.sqrt((away**2).sum(-1)) * paths.pixels[other]
            largest = np.maximum(largest, np.where(start <= other, pixels, 0.0))
        return largest

    def finished(
        self,
        owner: Int[np.ndarray, " pieces"],
        first: Int[np.ndarray, " pieces"],
        last: Int[np.ndarray, " pieces"],
        joined: Bool[np.ndarray, " pieces"],
        joins: Bool[np.ndarray, " pieces"],
    ) -> Segments:
        paths = self.paths
        seconds = paths.seconds
        middle, velocity = self.lines(owner, first, last)
        edges = np.concatenate([[-np.inf], (seconds[1:] + seconds[:-1]) / 2, [np.inf]])
        quats = _between(self.quats, owner, first, last)
        length = np.maximum(np.linalg.norm(quats, axis=-1, keepdims=True), 1e-12)
        return Segments(
            owner,
            first,
            last,
            np.where(joined, seconds[first], edges[first]),
            np.where(joins, seconds[last], edges[last + 1]),
            middle - velocity * seconds.mean() if len(seconds) else middle,
            velocity,
            quats / length,
            _between(paths.opacities, owner, first, last) / (last - first + 1),
        )


def _sums(values: Float[np.ndarray, "times ..."]) -> Float64[np.ndarray, "sums ..."]:
    return np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, 0, dtype=float)])


def _between(
    values: Float[np.ndarray, "times gaussians ..."],
    owner: Int[np.ndarray, " pieces"],
    first: Int[np.ndarray, " pieces"],
    last: Int[np.ndarray, " pieces"],
) -> Float64[np.ndarray, "pieces ..."]:
    sums = _sums(values)
    return sums[last + 1, owner] - sums[first, owner]


def _angles(
    first: Float[np.ndarray, "gaussians 4"], second: Float[np.ndarray, "gaussians 4"]
) -> Float64[np.ndarray, " gaussians"]:
    """Return the angles, in radians, between orientations."""
    return 2 * np.arccos(np.abs((first * second).sum(-1)).clip(0, 1))
