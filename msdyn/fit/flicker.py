"""Exposure and white balance of the frames of a clip, from the colours of its static tracks.

The colour y of a static point p in frame t, a logarithm, is that of the point plus that of the
frame's gain: y = s_p + g_t. Robust least squares over all observations gives g up to a constant. It
is used only if it also explains colours that it was not estimated from: those of tracks in another
part of the image, as exposure acts on all of it, and shadows, reflections, vignetting, errors of
tracks and noise do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import splu
from scipy.stats import t as student_t

from msdyn.fit.refine import interpolate_missing
from msdyn.scene import Maps, Tracks
from msdyn.sequence.exposure import PEDESTAL

__all__ = ["ColourObservations", "Flicker", "estimate_flicker", "observe_colours"]

_MOST = 300_000
"""Observations at most; further tracks are left out."""
_ROUNDS = 6
_DARK, _BRIGHT = 6.0, 249.0
"""8-bit colours beyond which noise or clipping dominates."""
_LARGEST = 0.5
"""Standard deviation of the prior of a log gain: 1.7 stops of light."""
_PARTS = 9
"""Parts of the image whose colours are predicted from the others."""
_LEVEL = 0.99
"""Of the one-sided t test that colours in other parts are predicted better with the gains."""
_MIN_TRACKS = 20
"""Static tracks in a frame below which its gain is interpolated, and in a clip per part."""


class ColourObservations(NamedTuple):
    """Colours of N static points in M observations.

    Attributes:
        point: [M] index of the track.
        frame: [M] frame index.
        log_colour: [M, 3] logarithm of encoded colour + `PEDESTAL`.
        xy: [N, 2] mean position of each track, px.
    """

    point: Int[np.ndarray, " observations"]
    frame: Int[np.ndarray, " observations"]
    log_colour: Float[np.ndarray, "observations 3"]
    xy: Float[np.ndarray, "points 2"]


@dataclass(frozen=True)
class Flicker:
    """Gains of the frames of a clip, and whether they are more than noise.

    Attributes:
        log_gains: [T, 3] of all frames, those without tracks and not fitted ones interpolated; zero
            mean over the fitted frames.
        tracks: number of static tracks.
        explained: share of the change of colours in other parts of the image that the gains
            explain; negative if they explain nothing.
        significant: whether that is more than noise.
    """

    log_gains: Float[np.ndarray, "frames 3"]
    tracks: int
    explained: float
    significant: bool


def observe_colours(
    tracks: Tracks,
    images: Maps,
    frames: Int[np.ndarray, " fitted"],
    scale: Float[np.ndarray, " 2"],
    seed: int = 0,
) -> ColourObservations:
    """Return the colours of static tracks (object 0) in some frames, means of 3x3 pixels.

    Args:
        tracks: of the clip.
        images: [T, H, W, 3] 8-bit RGB.
        frames: fitted frames.
        scale: pixels of the images per pixel of the tracks, in x and y.
        seed: of the choice among tracks, if there are many.
    """
    static = np.flatnonzero(tracks.object == 0)
    order = np.random.default_rng(seed).permutation(static)
    enough = np.searchsorted(np.cumsum(tracks.lifetimes[order]), _MOST) + 1
    chosen = tracks.select(np.sort(order[:enough]))
    number, frame, xy, _ = chosen.observations()
    keep = np.isin(frame, frames)
    number, frame, xy = number[keep], frame[keep], xy[keep].astype(np.float64) * scale
    colour, usable = np.zeros((len(xy), 3)), np.zeros(len(xy), bool)
    order = np.argsort(frame, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(frame[order])) + 1):
        if len(own):
            colour[own], usable[own] = _means(images[int(frame[own[0]])], xy[own])
    usable &= np.bincount(number, usable, minlength=len(chosen))[number] >= 2
    number, frame, xy, colour = number[usable], frame[usable], xy[usable], colour[usable]
    names, point = np.unique(number, return_inverse=True)
    count = np.maximum(np.bincount(point, minlength=len(names)), 1)
    mean = [np.bincount(point, column, minlength=len(names)) / count for column in xy.T]
    return ColourObservations(point, frame, np.log(colour / 255 + PEDESTAL), np.stack(mean, axis=1))


def estimate_flicker(
    seen: ColourObservations, count: int, frames: Int[np.ndarray, " fitted"]
) -> Flicker:
    """Estimate the gains of all frames, and test them on the parts of the image.

    Args:
        seen: colours of static tracks.
        count: number of frames T.
        frames: fitted frames.
    """
    tracks = len(seen.xy)
    if tracks < _MIN_TRACKS * _PARTS:
        return Flicker(np.zeros((count, 3)), tracks, 0.0, False)
    every = np.ones(len(seen.point), bool)
    gains = _gains(seen, every, count)
    known = np.bincount(seen.frame, minlength=count) >= _MIN_TRACKS
    gains = interpolate_missing(gains, known) if known.any() else gains
    gains -= gains[frames].mean(0)
    part = _parts(seen.xy)[seen.point]
    explained = np.array([_explained(seen, part == own, count) for own in range(_PARTS)])
    spread = explained.std(ddof=1) / np.sqrt(_PARTS)
    limit = float(student_t.ppf(_LEVEL, _PARTS - 1)) * spread
    return Flicker(gains, tracks, float(explained.mean()), bool(explained.mean() > max(limit, 0.0)))


def _means(
    image: UInt8[np.ndarray, "height width 3"], xy: Float[np.ndarray, "points 2"]
) -> tuple[Float[np.ndarray, "points 3"], Bool[np.ndarray, " points"]]:
    """Return the mean colours of 3x3 pixels about points, and where none is dark or bright."""
    height, width = image.shape[:2]
    x, y = np.floor(xy).astype(int).T
    inside = (x >= 1) & (x < width - 1) & (y >= 1) & (y < height - 1)
    x, y = x.clip(1, width - 2), y.clip(1, height - 2)
    steps = (-1, 0, 1)
    patch = np.stack([image[y + dy, x + dx] for dy in steps for dx in steps]).astype(np.float64)
    good = (patch.min((0, 2)) >= _DARK) & (patch.max((0, 2)) <= _BRIGHT)
    return patch.mean(0), inside & good


def _gains(
    seen: ColourObservations, rows: Bool[np.ndarray, " observations"], count: int
) -> Float[np.ndarray, "frames 3"]:
    """Solve y = s_p + g_t for g by least squares with Cauchy weights; the points are eliminated.

    Frames without observations have zero.
    """
    point, frame, values = seen.point[rows], seen.frame[rows], seen.log_colour[rows]
    weight, spread, gains = np.ones(len(point)), 0.02, np.zeros((count, 3))
    for _ in range(_ROUNDS):
        shape = (len(seen.xy), count)
        of_point = np.maximum(np.bincount(point, weight, minlength=shape[0]), 1e-12)
        matrix = csr_matrix((weight, (point, frame)), shape=shape)
        mean = _sums(point, weight[:, None] * values, shape[0]) / of_point[:, None]
        right = _sums(frame, weight[:, None] * (values - mean[point]), count)
        scaled = csr_matrix((weight / of_point[point], (point, frame)), shape=shape)
        # As wide as tracks are long: few entries in long clips.
        laplacian = diags(np.bincount(frame, weight, minlength=count)) - matrix.T @ scaled
        prior = ((spread / _LARGEST) ** 2 + 1e-9) * identity(count)
        gains = splu((laplacian + prior).tocsc()).solve(right)
        rest = values - gains[frame]
        rest -= (_sums(point, weight[:, None] * rest, shape[0]) / of_point[:, None])[point]
        size = np.linalg.norm(rest, axis=1)
        spread = max(float(np.median(size)), 1e-3)
        weight = 1 / (1 + (size / (2 * spread)) ** 2)
    return gains


def _explained(
    seen: ColourObservations, own: Bool[np.ndarray, " observations"], count: int
) -> float:
    """Return which share of the change of colours in a part the gains of the others explain."""
    gains = _gains(seen, ~own, count)
    point, frame, values = seen.point[own], seen.frame[own], seen.log_colour[own]
    size = np.maximum(np.bincount(point, minlength=len(seen.xy)), 1)[:, None]

    def change(colours: Float[np.ndarray, "own 3"]) -> float:
        mean = _sums(point, colours, len(seen.xy)) / size
        return float(np.abs(colours - mean[point]).sum())

    before = change(values)
    return 1 - change(values - gains[frame]) / before if before > 0 else 0.0


def _parts(xy: Float[np.ndarray, "points 2"]) -> Int[np.ndarray, " points"]:
    """Divide points into `_PARTS` parts of equal size: columns, each divided into rows."""
    sides = round(_PARTS**0.5)
    part = np.zeros(len(xy), int)
    for column, own in enumerate(np.array_split(np.argsort(xy[:, 0], kind="stable"), sides)):
        rows = np.array_split(own[np.argsort(xy[own, 1], kind="stable")], sides)
        for row, index in enumerate(rows):
            part[index] = column * sides + row
    return part


def _sums(
    index: Int[np.ndarray, " rows"], values: Float[np.ndarray, "rows 3"], count: int
) -> Float[np.ndarray, "count 3"]:
    return np.stack([np.bincount(index, column, minlength=count) for column in values.T], axis=1)
