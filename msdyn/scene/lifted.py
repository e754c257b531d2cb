"""Tracks in the world: all their observations, and dense trajectories of some of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Shaped

from msdyn.errors import InputError

__all__ = ["LiftedObservations", "LiftedTracks"]


@dataclass(frozen=True)
class LiftedObservations:
    """All M observations of N tracks on moving objects in F frames, in the world.

    Tracks are short, and a longer clip has more of them, so dense arrays [N, F] would grow with
    the square of its length.

    Attributes:
        num_frames: F.
        object: [N] 1..K.
        track: [M] of each observation, ascending.
        frame: [M] of each observation, ascending within a track.
        xyz: [M, 3] world positions.
        xy: [M, 2] px, the observed image positions.
        confidence: [M] in [0, 1].
    """

    num_frames: int
    object: Int[np.ndarray, " tracks"]
    track: Int32[np.ndarray, " observations"]
    frame: Int32[np.ndarray, " observations"]
    xyz: Float[np.ndarray, "observations 3"]
    xy: Float[np.ndarray, "observations 2"]
    confidence: Float[np.ndarray, " observations"]

    @classmethod
    def from_unordered(
        cls,
        num_frames: int,
        object: Int[np.ndarray, " tracks"],
        track: Int[np.ndarray, " observations"],
        frame: Int[np.ndarray, " observations"],
        xyz: Float[np.ndarray, "observations 3"],
        xy: Float[np.ndarray, "observations 2"],
        confidence: Float[np.ndarray, " observations"],
    ) -> LiftedObservations:
        """Return observations that are in any order, at most one per track and frame."""
        order = np.lexsort((frame, track))
        return cls(
            num_frames,
            object,
            track[order].astype(np.int32),
            frame[order].astype(np.int32),
            xyz[order],
            xy[order],
            confidence[order],
        )

    def __len__(self) -> int:
        return len(self.object)

    @cached_property
    def start(self) -> Int[np.ndarray, " tracks_and_end"]:
        """[N + 1] the observations of track i are `start[i]` to `start[i + 1] - 1`."""
        return np.searchsorted(self.track, np.arange(len(self) + 1))

    @property
    def lifetimes(self) -> Int[np.ndarray, " tracks"]:
        """Number of observations of each track."""
        return np.diff(self.start)

    def at(self, frame: int | np.integer) -> Int[np.ndarray, " visible"]:
        """Return the observations of a frame, as indices of ascending tracks."""
        return self._by_frame[slice(*self._frame_start[frame : frame + 2])]

    def between(
        self, first: int | np.integer, second: int | np.integer
    ) -> tuple[Int[np.ndarray, " common"], Int[np.ndarray, " common"]]:
        """Return the observations, in two frames, of the tracks visible in both."""
        one, other = self.at(first), self.at(second)
        _, of_one, of_other = np.intersect1d(
            self.track[one], self.track[other], assume_unique=True, return_indices=True
        )
        return one[of_one], other[of_other]

    def select(
        self, index: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " tracks"]
    ) -> LiftedObservations:
        """Return the tracks at an index array or boolean mask."""
        chosen = np.arange(len(self))[index]
        length = self.lifetimes[chosen]
        track = np.repeat(np.arange(len(chosen)), length)
        first = self.start[:-1][chosen] - (np.cumsum(length) - length)
        rows = np.arange(len(track)) + first[track]
        return LiftedObservations(
            self.num_frames,
            self.object[chosen],
            track.astype(np.int32),
            self.frame[rows],
            self.xyz[rows],
            self.xy[rows],
            self.confidence[rows],
        )

    def seen(self) -> LiftedObservations:
        """Return the tracks that are visible in some frame."""
        seen = self.lifetimes > 0
        return self if seen.all() else self.select(seen)

    def dense(self) -> LiftedTracks:
        """Return the tracks as dense arrays over all frames: for few tracks."""

        def dense(values: Shaped[np.ndarray, "observations ..."]) -> Shaped[np.ndarray, ...]:
            result = np.zeros((len(self), self.num_frames, *values.shape[1:]), values.dtype)
            result[self.track, self.frame] = values
            return result

        visible = dense(np.ones(len(self.track), bool))
        return LiftedTracks(
            dense(self.xyz),
            visible,
            dense(self.confidence.astype(np.float64)),
            self.object,
            dense(self.xy.astype(np.float64)),
        )

    @staticmethod
    def joined(parts: Iterable[LiftedObservations]) -> LiftedObservations:
        """Return sets of tracks as one.

        Raises:
            InputError: none, or of different numbers of frames.
        """
        parts = list(parts)
        if len({part.num_frames for part in parts}) != 1:
            raise InputError("joined: expected tracks of the same frames")
        first = np.cumsum([0, *map(len, parts)])
        shifted = [part.track + n for part, n in zip(parts, first[:-1], strict=True)]
        return LiftedObservations(
            parts[0].num_frames,
            np.concatenate([part.object for part in parts]),
            np.concatenate(shifted).astype(np.int32),
            np.concatenate([part.frame for part in parts]),
            np.concatenate([part.xyz for part in parts]),
            np.concatenate([part.xy for part in parts]),
            np.concatenate([part.confidence for part in parts]),
        )

    @cached_property
    def _by_frame(self) -> Int[np.ndarray, " observations"]:
        return np.argsort(self.frame, kind="stable").astype(np.int32)

    @cached_property
    def _frame_start(self) -> Int[np.ndarray, " frames_and_end"]:
        counts = np.bincount(self.frame, minlength=self.num_frames)
        return np.concatenate([[0], np.cumsum(counts)])


@dataclass(frozen=True)
class LiftedTracks:
    """Dense trajectories of N points on moving objects in F frames, in the world.

    Attributes:
        xyz: [N, F, 3] world positions; zero where not visible.
        visible: [N, F] visible, with a known depth on its own object.
        confidence: [N, F] in [0, 1], zero where not visible.
        object: [N] 1..K.
        xy: [N, F, 2] px, the observed image positions.
    """

    xyz: Float[np.ndarray, "tracks frames 3"]
    visible: Bool[np.ndarray, "tracks frames"]
    confidence: Float[np.ndarray, "tracks frames"]
    object: Int[np.ndarray, " tracks"]
    xy: Float[np.ndarray, "tracks frames 2"]

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def num_frames(self) -> int:
        return self.xyz.shape[1]

    def select(
        self, index: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " tracks"]
    ) -> LiftedTracks:
        """Return the tracks at an index array or boolean mask."""
        return LiftedTracks(
            self.xyz[index],
            self.visible[index],
            self.confidence[index],
            self.object[index],
            self.xy[index],
        )

    def seen(self) -> LiftedTracks:
        """Return the tracks that are visible in some frame; these, without a copy, if all are."""
        visible = self.visible.any(1)
        return self if visible.all() else self.select(np.flatnonzero(visible))
