"""2D point tracks and `tracks.npz`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real, Shaped

from msdyn.errors import InputError
from msdyn.reading import Blocks, row_slices, stream_npz
from msdyn.scene.npz import save_npz

__all__ = ["Observations", "Tracks", "read_tracks", "write_tracks"]

_MOST_TRACKS = 2**25
_MOST_FRAMES_OR_OBJECTS = 2**31
_FARTHEST_PX = 1e6
KEYS: tuple[str, ...] = ("xy", "visible", "confidence", "object", "query_frame")


class Observations(NamedTuple):
    """All visible observations of tracks, sorted by track and frame.

    Attributes:
        track: [M] index of the track.
        frame: [M] frame index.
        xy: [M, 2] px.
        confidence: [M] in [0, 1].
    """

    track: Int[np.ndarray, " observations"]
    frame: Int[np.ndarray, " observations"]
    xy: Real[np.ndarray, "observations 2"]
    confidence: Real[np.ndarray, " observations"]


@dataclass(frozen=True)
class Tracks:
    """Point tracks in a clip of T frames.

    Tracks are short, and a longer clip has more of them, so dense arrays [N, T] would grow with the
    square of its length. A track is therefore stored only for its run, the frames from the first to
    the last in which it is visible, and the runs of all tracks are concatenated to arrays [R].
    Within a run, position and confidence are 0 where the track is not visible.

    Attributes:
        num_frames: T.
        start, stop: [N] int32, the run of a track is `start` to `stop - 1`; both are 0 for a track
            that is never visible.
        run_xy: [R, 2] float32 px, finite.
        run_visible: [R] bool.
        run_confidence: [R] float32 in [0, 1].
        object: [N] int32, 0 static, 1..K an object instance, -1 unknown.
        query_frame: [N] int32, the frame in which the track was started.
    """

    num_frames: int
    start: Int[np.ndarray, " tracks"]
    stop: Int[np.ndarray, " tracks"]
    run_xy: Real[np.ndarray, "run_frames 2"]
    run_visible: Bool[np.ndarray, " run_frames"]
    run_confidence: Real[np.ndarray, " run_frames"]
    object: Shaped[np.ndarray, " tracks"]
    query_frame: Shaped[np.ndarray, " tracks"]

    def __post_init__(self) -> None:
        dtypes = {
            "start": np.int32,
            "stop": np.int32,
            "run_xy": np.float32,
            "run_visible": np.bool_,
            "run_confidence": np.float32,
            "object": np.int32,
            "query_frame": np.int32,
        }
        for name in ("object", "query_frame"):
            _check_whole(name, np.asarray(getattr(self, name)))
        for name, dtype in dtypes.items():
            value = np.asarray(getattr(self, name)).astype(dtype, copy=False)
            object.__setattr__(self, name, value)
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
        xy: Real[np.ndarray, "tracks frames 2"] | Blocks,
        visible: Shaped[np.ndarray, "tracks frames"] | Blocks,
        confidence: Real[np.ndarray, "tracks frames"] | Blocks,
        object: Real[np.ndarray, " tracks"] | Blocks,
        query_frame: Real[np.ndarray, " tracks"] | Blocks,
    ) -> Tracks:
        """Return tracks from dense arrays over all frames, the layout of `tracks.npz`.

        Args:
            xy: [N, T, 2] px, finite; ignored where not visible.
            visible: [N, T] bool.
            confidence: [N, T] in [0, 1]; ignored where not visible.
            object: [N] 0 static, 1..K an object instance, -1 unknown.
            query_frame: [N] the frame in which the track was started.

        Raises:
            InputError: an array is of a wrong shape or range.
        """
        values = (xy, visible, confidence, object, query_frame)
        blocks = [item if isinstance(item, Blocks) else Blocks.from_array(item) for item in values]
        arrays = dict(zip(KEYS, blocks, strict=True))
        _check_shapes(arrays)
        track, frame = _visible_indices(arrays["visible"])
        visible_xy = _values_at(arrays["xy"], track, frame, _check_xy)
        visible_confidence = _values_at(arrays["confidence"], track, frame, _check_confidence)
        return cls.from_observations(
            arrays["xy"].shape[1],
            Observations(track, frame, visible_xy, visible_confidence),
            arrays["object"].to_array(),
            arrays["query_frame"].to_array(),
        )

    @classmethod
    def from_observations(
        cls,
        num_frames: int,
        observations: Observations,
        object: Shaped[np.ndarray, " tracks"],
        query_frame: Shaped[np.ndarray, " tracks"],
    ) -> Tracks:
        """Return N tracks from their visible observations.

        Args:
            num_frames: T.
            observations: of tracks 0 to N - 1, in any order, at most one per track and frame.
            object, query_frame: [N] see `Tracks`.
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
        index = _run_offset(start, stop)[track] + frame
        run_xy[index], run_visible[index], run_confidence[index] = xy, True, confidence
        return cls(
            num_frames, start, stop, run_xy, run_visible, run_confidence, object, query_frame
        )

    def __len__(self) -> int:
        return len(self.start)

    @property
    def xy(self) -> Float[np.ndarray, "tracks frames 2"]:
        """Dense positions [N, T, 2] in px, computed at every access: for few tracks only."""
        return self._dense(self.run_xy)

    @property
    def visible(self) -> Bool[np.ndarray, "tracks frames"]:
        """Dense visibility [N, T], computed at every access: for few tracks only."""
        return self._dense(self.run_visible)

    @property
    def confidence(self) -> Float[np.ndarray, "tracks frames"]:
        """Dense confidence [N, T], computed at every access: for few tracks only."""
        return self._dense(self.run_confidence)

    @cached_property
    def lifetimes(self) -> Int[np.ndarray, " tracks"]:
        """Number of frames in which each track is visible."""
        cumulative = np.concatenate([[0], np.cumsum(self.run_visible)])
        return cumulative[self._offset + self.stop] - cumulative[self._offset + self.start]

    def select(
        self, index: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " tracks"] | slice
    ) -> Tracks:
        """Return the tracks at an index array, boolean mask or slice."""
        rows = np.arange(len(self))[index]
        start, stop = self.start[rows], self.stop[rows]
        new_from_old = _run_offset(start, stop) - self._offset[rows]
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

    def at(
        self, frame: int | np.integer
    ) -> tuple[Int[np.ndarray, " visible"], Float[np.ndarray, "visible 2"]]:
        """Return the indices, ascending, and positions (px) of the tracks visible in a frame."""
        rows = np.flatnonzero((self.start <= frame) & (frame < self.stop))
        index = self._offset[rows] + frame
        visible = self.run_visible[index]
        return rows[visible], self.run_xy[index[visible]]

    def between(
        self, first: int | np.integer, second: int | np.integer
    ) -> tuple[
        Int[np.ndarray, " common"], Float[np.ndarray, "common 2"], Float[np.ndarray, "common 2"]
    ]:
        """Return the tracks visible in both of two frames.

        Returns:
            Their indices, ascending, and their positions in the first and the second frame, px.
        """
        rows, first_xy = self.at(first)
        second_xy, visible = self.look_up(rows, second)
        return rows[visible], first_xy[visible], second_xy[visible]

    def look_up(
        self,
        rows: Int[np.ndarray, " chosen"],
        frame: Int[np.ndarray, " chosen"] | int | np.integer,
    ) -> tuple[Float[np.ndarray, "chosen 2"], Bool[np.ndarray, " chosen"]]:
        """Return positions (px, 0 where not visible) and visibility of tracks in frames.

        Args:
            rows: indices of the tracks.
            frame: one frame for all of them, or one for each.
        """
        inside = (self.start[rows] <= frame) & (frame < self.stop[rows])
        index = (self._offset[rows] + frame)[inside]
        xy, visible = np.zeros((len(rows), 2), np.float32), np.zeros(len(rows), bool)
        xy[inside], visible[inside] = self.run_xy[index], self.run_visible[index]
        return xy, visible

    def confidence_of(
        self, rows: Int[np.ndarray, " chosen"], frame: Int[np.ndarray, " chosen"]
    ) -> Float[np.ndarray, " chosen"]:
        """Return the confidence of tracks in frames of their runs."""
        return self.run_confidence[self._offset[rows] + frame]

    def observations(self) -> Observations:
        """Return all visible observations of all tracks."""
        track, frame = self._run_indices()
        visible = self.run_visible
        return Observations(
            track[visible], frame[visible], self.run_xy[visible], self.run_confidence[visible]
        )

    @cached_property
    def _offset(self) -> Int[np.ndarray, " tracks"]:
        return _run_offset(self.start, self.stop)

    def _run_indices(
        self,
    ) -> tuple[Int[np.ndarray, " run_frames"], Int[np.ndarray, " run_frames"]]:
        """Return the track and the frame of each element of the runs."""
        track = np.repeat(np.arange(len(self)), self.stop - self.start)
        return track, np.arange(len(track)) - self._offset[track]

    def _dense(
        self, runs: Shaped[np.ndarray, "run_frames ..."]
    ) -> Shaped[np.ndarray, "tracks frames ..."]:
        result = np.zeros((len(self), self.num_frames, *runs.shape[1:]), runs.dtype)
        result[self._run_indices()] = runs
        return result


def write_tracks(path: str | os.PathLike, tracks: Tracks) -> None:
    """Write tracks as a compressed npz of dense arrays over all frames, atomically."""
    save_npz(
        path,
        **{name: _dense_blocks(tracks, name) for name in ("xy", "visible", "confidence")},
        object=tracks.object,
        query_frame=tracks.query_frame,
    )


def read_tracks(path: str | os.PathLike, frames: int | None = None) -> Tracks:
    """Read `tracks.npz`.

    Args:
        path: of the file.
        frames: number of frames that it must have; any by default.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: an array is missing or of a wrong shape, type or range.
    """
    with stream_npz(path, KEYS) as arrays:
        shape = arrays["xy"].shape
        if frames is not None and len(shape) > 1 and shape[1] != frames:
            raise InputError(f"expected {frames} frames, got {shape[1]}")
        if shape and shape[0] > _MOST_TRACKS:
            raise InputError(f"expected at most {_MOST_TRACKS} tracks, got {shape[0]}")
        return Tracks.from_dense(**arrays)


def _dense_blocks(tracks: Tracks, name: str) -> Blocks:
    empty = getattr(tracks.select(slice(0)), name)
    shape, dtype = (len(tracks), *empty.shape[1:]), empty.dtype
    slices = row_slices(shape, dtype)
    return Blocks(shape, dtype, lambda: (getattr(tracks.select(rows), name) for rows in slices))


def _run_offset(
    start: Int[np.ndarray, " tracks"], stop: Int[np.ndarray, " tracks"]
) -> Int[np.ndarray, " tracks"]:
    """Return the offset of each track: frame + offset is the index in the concatenated runs."""
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


def _check_whole(name: str, values: Shaped[np.ndarray, "*shape"]) -> None:
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.round(values))).all():
        raise InputError(f"{name}: expected whole numbers")
    if values.size and not (-1 <= values.min() and values.max() < _MOST_FRAMES_OR_OBJECTS):
        raise InputError(
            f"{name}: expected -1 to {_MOST_FRAMES_OR_OBJECTS - 1}, got {values.min()} to "
            f"{values.max()}"
        )


def _check_xy(xy: Shaped[np.ndarray, "*shape 2"]) -> None:
    if not (np.abs(xy) < _FARTHEST_PX).all():
        raise InputError(
            "xy: expected finite numbers below a million px (0 where a track is not visible)"
        )


def _check_confidence(confidence: Shaped[np.ndarray, "*shape"]) -> None:
    if confidence.size and not (0 <= confidence.min() and confidence.max() <= 1):
        raise InputError("confidence: expected numbers in [0, 1]")


def _visible_indices(
    visible: Blocks,
) -> tuple[Int[np.ndarray, " observations"], Int[np.ndarray, " observations"]]:
    """Return the track and the frame of each visible observation, sorted by track."""
    tracks, frames, first = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], 0
    for block in visible:
        track, frame = np.nonzero(block.astype(bool, copy=False))
        tracks.append((first + track).astype(np.int32))
        frames.append(frame.astype(np.int32))
        first += len(block)
    return np.concatenate(tracks), np.concatenate(frames)


def _values_at(
    blocks: Blocks,
    track: Int[np.ndarray, " observations"],
    frame: Int[np.ndarray, " observations"],
    check: Callable[[np.ndarray], None],
) -> Float[np.ndarray, "observations ..."]:
    """Return the values, as float32, of a dense array at the given tracks (sorted) and frames."""
    parts, first = [np.zeros((0, *blocks.shape[2:]), np.float32)], 0
    for block in blocks:
        values = block.astype(np.float32, copy=False)
        check(values)
        last = first + len(block)
        own = slice(*np.searchsorted(track, [first, last]))
        parts.append(values[track[own] - first, frame[own]])
        first = last
    return np.concatenate(parts)
