"""2D point tracks and `tracks.npz`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from msdyn.errors import InputError
from msdyn.scene.npz import Blocks, row_slices, save_npz, stream_npz

__all__ = ["Observations", "Tracks", "read_tracks", "write_tracks"]

KEYS: tuple[str, ...] = ("xy", "visible", "confidence", "object", "query_frame")


class Observations(NamedTuple):
    """Every sighting of every track, one track after another, its frames ascending.

    Attributes:
        track: [M] int, the row of the track.
        frame: [M] int.
        xy: [M, 2] float32 px.
        confidence: [M] float32.
    """

    track: np.ndarray
    frame: np.ndarray
    xy: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Tracks:
    """Point tracks through a clip of T frames.

    Tracks live shortly, and a longer clip has more of them: arrays [N, T] would grow with the
    square of its length. So a track is kept only from the first to the last frame that sees it, its
    run, and the runs of all lie one after another in arrays [R]. Where a track is not visible, its
    position and confidence are 0.

    Attributes:
        num_frames: T.
        start, stop: [N] int32, frames `start` to `stop - 1` are the run of a track; it is visible
            in both. 0 and 0 for one that is never visible.
        run_xy: [R, 2] float32 px, finite.
        run_visible: [R] bool.
        run_confidence: [R] float32 in [0, 1].
        object: [N] int32, 0 static, 1..K an object instance, -1 unknown.
        query_frame: [N] int32, the frame a track was started in.
    """

    num_frames: int
    start: np.ndarray
    stop: np.ndarray
    run_xy: np.ndarray
    run_visible: np.ndarray
    run_confidence: np.ndarray
    object: np.ndarray
    query_frame: np.ndarray

    def __post_init__(self) -> None:
        kinds = {
            "start": np.int32,
            "stop": np.int32,
            "run_xy": np.float32,
            "run_visible": np.bool_,
            "run_confidence": np.float32,
            "object": np.int32,
            "query_frame": np.int32,
        }
        for name, kind in kinds.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name)).astype(kind, copy=False))
        count = len(self)
        for name in ("stop", "object", "query_frame"):
            if getattr(self, name).shape != (count,):
                raise InputError(f"{name}: expected [{count}], got {getattr(self, name).shape}")
        outside = (self.start < 0) | (self.start > self.stop) | (self.stop > self.num_frames)
        if outside.any():
            raise InputError(f"runs: expected 0 <= start <= stop <= {self.num_frames}")
        length = int((self.stop - self.start).sum())
        shapes = (self.run_xy.shape, self.run_visible.shape, self.run_confidence.shape)
        if shapes != ((length, 2), (length,), (length,)):
            raise InputError(f"runs: expected [{length}], got {shapes}")
        _check_xy(self.run_xy)
        _check_confidence(self.run_confidence)
        if count and not (0 <= self.query_frame.min() and self.query_frame.max() < self.num_frames):
            raise InputError(f"query_frame: expected 0 to {self.num_frames - 1}")

    @classmethod
    def from_dense(
        cls,
        xy: np.ndarray | Blocks,
        visible: np.ndarray | Blocks,
        confidence: np.ndarray | Blocks,
        object: np.ndarray | Blocks,
        query_frame: np.ndarray | Blocks,
    ) -> Tracks:
        """Return tracks from arrays over all frames, as `tracks.npz` holds them.

        Args:
            xy: [N, T, 2] px, finite; meaningless where not visible.
            visible: [N, T] bool.
            confidence: [N, T] in [0, 1]; meaningless where not visible.
            object: [N] 0 static, 1..K an object instance, -1 unknown.
            query_frame: [N] the frame a track was started in.

        Raises:
            InputError: an array is of a wrong shape or range.
        """
        given = (xy, visible, confidence, object, query_frame)
        blocks = [item if isinstance(item, Blocks) else Blocks.of(item) for item in given]
        arrays = dict(zip(KEYS, blocks, strict=True))
        _check_shapes(arrays)
        track, frame = _sightings(arrays["visible"])
        seen_at = _values_at(arrays["xy"], track, frame, _check_xy)
        sure = _values_at(arrays["confidence"], track, frame, _check_confidence)
        return cls.from_observations(
            arrays["xy"].shape[1],
            Observations(track, frame, seen_at, sure),
            arrays["object"].whole(),
            arrays["query_frame"].whole(),
        )

    @classmethod
    def from_observations(
        cls,
        num_frames: int,
        observations: Observations,
        object: np.ndarray,
        query_frame: np.ndarray,
    ) -> Tracks:
        """Return N tracks from what was seen of them, in any order, no track twice in a frame.

        Args:
            num_frames: T.
            observations: the sightings, of tracks 0 to N - 1.
            object, query_frame: [N].
        """
        track, frame, xy, confidence = observations
        start, stop = np.full(len(object), num_frames), np.zeros(len(object), np.int64)
        np.minimum.at(start, track, frame)
        np.maximum.at(stop, track, frame + 1)
        start = np.minimum(start, stop)
        length = int((stop - start).sum())
        run_xy = np.zeros((length, 2), np.float32)
        run_visible = np.zeros(length, bool)
        run_confidence = np.zeros(length, np.float32)
        index = _run_shift(start, stop)[track] + frame
        run_xy[index], run_visible[index], run_confidence[index] = xy, True, confidence
        return cls(
            num_frames, start, stop, run_xy, run_visible, run_confidence, object, query_frame
        )

    def __len__(self) -> int:
        return len(self.start)

    @property
    def xy(self) -> np.ndarray:
        """[N, T, 2] float32 px, made anew at every call: for a few tracks."""
        return self._dense(self.run_xy)

    @property
    def visible(self) -> np.ndarray:
        """[N, T] bool, made anew at every call: for a few tracks."""
        return self._dense(self.run_visible)

    @property
    def confidence(self) -> np.ndarray:
        """[N, T] float32, made anew at every call: for a few tracks."""
        return self._dense(self.run_confidence)

    @cached_property
    def lifetimes(self) -> np.ndarray:
        """[N] int, in how many frames each track is visible."""
        seen = np.concatenate([[0], np.cumsum(self.run_visible)])
        return seen[self._shift + self.stop] - seen[self._shift + self.start]

    def select(self, index: np.ndarray | slice) -> Tracks:
        """Return the tracks at an index array, boolean mask or slice."""
        rows = np.arange(len(self))[index]
        start, stop = self.start[rows], self.stop[rows]
        new_from_old = _run_shift(start, stop) - self._shift[rows]
        length = stop - start
        runs = np.arange(length.sum()) - np.repeat(new_from_old, length)
        return Tracks(
            self.num_frames,
            start,
            stop,
            self.run_xy[runs],
            self.run_visible[runs],
            self.run_confidence[runs],
            self.object[rows],
            self.query_frame[rows],
        )

    def at(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the tracks [n] seen in a frame, ascending, and where [n, 2] px."""
        rows = np.flatnonzero((self.start <= frame) & (frame < self.stop))
        index = self._shift[rows] + frame
        seen = self.run_visible[index]
        return rows[seen], self.run_xy[index[seen]]

    def between(self, first: int, second: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the tracks [n] seen in two frames, ascending, and where in each [n, 2] px."""
        rows, xy = self.at(first)
        there, seen = self.look_up(rows, second)
        return rows[seen], xy[seen], there[seen]

    def look_up(self, rows: np.ndarray, frame: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        """Return where [n, 2] px tracks `rows` [n] are in a frame, or each in its own [n], and
        whether they are visible [n] there."""
        inside = (self.start[rows] <= frame) & (frame < self.stop[rows])
        index = (self._shift[rows] + frame)[inside]
        xy, visible = np.zeros((len(rows), 2), np.float32), np.zeros(len(rows), bool)
        xy[inside], visible[inside] = self.run_xy[index], self.run_visible[index]
        return xy, visible

    def observations(self) -> Observations:
        """Return every sighting of every track."""
        track, frame = self._run_places()
        seen = self.run_visible
        return Observations(track[seen], frame[seen], self.run_xy[seen], self.run_confidence[seen])

    @cached_property
    def _shift(self) -> np.ndarray:
        return _run_shift(self.start, self.stop)

    def _run_places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the track and the frame [R] of each element of the runs."""
        track = np.repeat(np.arange(len(self)), self.stop - self.start)
        return track, np.arange(len(track)) - self._shift[track]

    def _dense(self, runs: np.ndarray) -> np.ndarray:
        result = np.zeros((len(self), self.num_frames, *runs.shape[1:]), runs.dtype)
        result[self._run_places()] = runs
        return result


def write_tracks(path: str | os.PathLike, tracks: Tracks) -> None:
    """Write tracks as a compressed npz of arrays over all frames, atomically."""
    save_npz(
        path,
        **{name: _dense_blocks(tracks, name) for name in ("xy", "visible", "confidence")},
        object=tracks.object,
        query_frame=tracks.query_frame,
    )


def read_tracks(path: str | os.PathLike) -> Tracks:
    """Read `tracks.npz`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: an array is missing or of a wrong shape, type or range.
    """
    with stream_npz(path, KEYS) as arrays:
        return Tracks.from_dense(**arrays)


def _dense_blocks(tracks: Tracks, name: str) -> Blocks:
    few = getattr(tracks.select(slice(0)), name)
    shape = (len(tracks), *few.shape[1:])
    slices = row_slices(shape, few.dtype)
    return Blocks(shape, few.dtype, lambda: (getattr(tracks.select(rows), name) for rows in slices))


def _run_shift(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return what [N] to add to a frame for its place in the runs, one after another, of tracks."""
    length = stop.astype(np.int64) - start
    return np.cumsum(length) - stop


def _check_shapes(arrays: dict[str, Blocks]) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(shapes["xy"]) != 3 or shapes["xy"][2] != 2:
        raise InputError(f"xy: expected [tracks, frames, 2], got {shapes['xy']}")
    count, frames = shapes["xy"][:2]
    for name in ("visible", "confidence"):
        if shapes[name] != (count, frames):
            raise InputError(f"{name}: expected [{count}, {frames}], got {shapes[name]}")
    for name in ("object", "query_frame"):
        if shapes[name] != (count,):
            raise InputError(f"{name}: expected [{count}], got {shapes[name]}")


def _check_xy(xy: np.ndarray) -> None:
    if not np.isfinite(xy).all():
        raise InputError("xy: expected finite numbers (0 where a track is not visible)")


def _check_confidence(confidence: np.ndarray) -> None:
    if confidence.size and not (0 <= confidence.min() and confidence.max() <= 1):
        raise InputError("confidence: expected numbers in [0, 1]")


def _sightings(visible: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Return the track and the frame [M] of everything visible, track by track."""
    tracks, frames, first = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], 0
    for block in visible:
        track, frame = np.nonzero(block.astype(bool, copy=False))
        tracks.append((first + track).astype(np.int32))
        frames.append(frame.astype(np.int32))
        first += len(block)
    return np.concatenate(tracks), np.concatenate(frames)


def _values_at(
    blocks: Blocks, track: np.ndarray, frame: np.ndarray, check: Callable[[np.ndarray], None]
) -> np.ndarray:
    """Return the values [M, ...] float32 of an array over all frames where tracks are seen."""
    parts, first = [np.zeros((0, *blocks.shape[2:]), np.float32)], 0
    for block in blocks:
        values = block.astype(np.float32, copy=False)
        check(values)
        last = first + len(block)
        own = slice(*np.searchsorted(track, [first, last]))
        parts.append(values[track[own] - first, frame[own]])
        first = last
    return np.concatenate(parts)
