"""The time axis of a clip: frames, seconds and normalised time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real

from msdyn.errors import InputError

__all__ = ["Timeline"]


@dataclass(frozen=True)
class Timeline:
    """Timestamps of the frames of a clip; normalised time is 0 at the first, 1 at the last frame.

    Attributes:
        seconds: [T] strictly increasing, at least two; converted to float64.
    """

    seconds: Real[np.ndarray, " frames"]

    def __post_init__(self) -> None:
        seconds = np.asarray(self.seconds, np.float64)
        object.__setattr__(self, "seconds", seconds)
        if seconds.ndim != 1 or len(seconds) < 2:
            raise InputError(f"timestamps: expected at least 2, got shape {seconds.shape}")
        if not np.isfinite(seconds).all() or (np.diff(seconds) <= 0).any():
            raise InputError("timestamps: expected strictly increasing finite seconds")

    @classmethod
    def uniform(cls, frames: int, fps: float) -> Timeline:
        """Return the timeline of evenly spaced frames."""
        return cls(np.arange(frames) / fps)

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def times(self) -> Float[np.ndarray, " frames"]:
        """Normalised times of the frames."""
        return (self.seconds - self.seconds[0]) / (self.seconds[-1] - self.seconds[0])

    def time_of_frame(self, frame: int) -> float:
        """Return the normalised time of a frame index.

        Raises:
            InputError: the index is out of range.
        """
        if not 0 <= frame < len(self):
            raise InputError(f"frame: expected 0 to {len(self) - 1}, got {frame}")
        return float(self.times[frame])

    def time_of_seconds(self, seconds: float) -> float:
        """Return the normalised time of a number of seconds after the first frame.

        Raises:
            InputError: the time lies outside the clip.
        """
        duration = float(self.seconds[-1] - self.seconds[0])
        if not 0 <= seconds <= duration:
            raise InputError(f"seconds: expected 0 to {duration:.3f}, got {seconds}")
        return seconds / duration

    @property
    def fps(self) -> float:
        """Mean frames per second."""
        return float((len(self) - 1) / (self.seconds[-1] - self.seconds[0]))

    def frame_position(self, time: float) -> float:
        """Return the fractional frame index of a normalised time.

        Raises:
            InputError: the time lies outside [0, 1].
        """
        if not 0 <= time <= 1:
            raise InputError(
                f"time: expected 0 (first frame) to 1 (last frame), got {time}; "
                "for frame numbers or seconds use --frame or --seconds"
            )
        return float(np.interp(time, self.times, np.arange(len(self))))

    def frame_positions(self, times: Real[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        """Return the fractional frame indices of normalised times.

        Raises:
            InputError: a time lies outside [0, 1].
        """
        return np.array([self.frame_position(float(time)) for time in times])
