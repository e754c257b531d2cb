"""Which times and which part of a sequence a command is about: options that commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from msdyn.errors import InputError
from msdyn.scene import Timeline
from msdyn.sequence.gaussians import PosedGaussians
from msdyn.sequence.sequence import GaussianSequence

__all__ = ["What", "When", "parse_times"]


@dataclass(frozen=True)
class When:
    """Times of a clip."""

    time: float | None = None
    """When, from 0 (first frame) to 1 (last frame); time stands still there."""
    frame: int | None = None
    """When, as a frame number."""
    seconds: float | None = None
    """When, in seconds after the first frame."""
    times: str | None = None
    """Several times: from:to:count, as 0:1:240 for slow motion, or a list, as 0,0.5,1."""

    def moments(self, timeline: Timeline) -> np.ndarray | None:
        """Return the normalised times [N] asked for; None where nothing was said.

        Raises:
            InputError: more than one of the options, or a time outside the clip.
        """
        names = ("time", "frame", "seconds", "times")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            asked = ", ".join(f"--{name}" for name in given)
            raise InputError(f"when: expected one of --time, --frame, --seconds, --times, "
                             f"got {asked}")  # fmt: skip
        if self.times is not None:
            return parse_times(self.times, timeline)
        if self.frame is not None:
            return np.array([timeline.time_of_frame(self.frame)])
        if self.seconds is not None:
            return np.array([timeline.time_of_seconds(self.seconds)])
        if self.time is not None:
            timeline.frame_position(self.time)  # refuses times outside the clip
            return np.array([self.time])
        return None


def parse_times(text: str, timeline: Timeline) -> np.ndarray:
    """Return the normalised times [N] of `from:to:count` or of a list with commas.

    Raises:
        InputError: another form, or a time outside the clip.
    """
    hint = f"--times: expected from:to:count (as 0:1:240) or a list (as 0,0.5,1), got {text!r}"
    try:
        if ":" in text:
            start, stop, count = text.split(":")
            times = np.linspace(float(start), float(stop), int(count))
        else:
            times = np.array([float(part) for part in text.split(",")])
    except ValueError as error:
        raise InputError(hint) from error
    if not len(times):
        raise InputError(hint)
    timeline.frame_positions(times)  # refuses times outside the clip
    return times


@dataclass(frozen=True)
class What:
    """A part of a sequence."""

    levels: str | None = None
    """Motion levels in use, from the outermost on: 1 or 1,2; 0 for none. Finer ones stand still."""
    objects: str | None = None
    """Only these moving objects, by their number in the masks, as 1,3."""
    background: Literal["on", "off"] = "on"
    """What stands still."""

    def num_levels(self, sequence: GaussianSequence) -> int | None:
        """Return how many levels are in use; None for all.

        Raises:
            InputError: not a list of levels from 1 on.
        """
        if self.levels is None:
            return None
        asked = _numbers("--levels", self.levels)
        count = max(asked)
        if asked not in ([count], list(range(1, count + 1))) or not 0 <= count:
            raise InputError(
                f"--levels: expected 0, 1, or 1,2 and so on (a finer level moves within the "
                f"coarser ones), got {self.levels}"
            )
        if count > sequence.num_levels:
            raise InputError(f"--levels: expected at most {sequence.num_levels}, the levels of "
                             f"this sequence, got {self.levels}")  # fmt: skip
        return count

    def labels(self, sequence: GaussianSequence) -> list[int] | None:
        """Return the objects to keep; None for all.

        Raises:
            InputError: no such object.
        """
        if self.objects is None:
            return None
        asked = _numbers("--objects", self.objects)
        there = sequence.objects
        lost = sorted(set(asked) - set(there))
        if lost:
            raise InputError(f"--objects: expected some of {there}, got {self.objects}")
        return asked

    def of(self, posed: PosedGaussians, sequence: GaussianSequence) -> PosedGaussians:
        """Return the Gaussians of a pose that are asked for."""
        return posed.only(self.labels(sequence), background=self.background == "on")


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option}: expected numbers with commas, as 1,3, got {text!r}") from error
