"""Command-line options shared by commands: selection of times and of parts of a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from msdyn.errors import InputError
from msdyn.options import Named, OptionError, Options, Pattern, Range

if TYPE_CHECKING:
    from msdyn.scene import Timeline
    from msdyn.sequence.gaussians import PosedGaussians
    from msdyn.sequence.sequence import GaussianSequence

__all__ = ["PartSelection", "SequenceSource", "TimeSelection", "parse_times"]

SequenceSource: TypeAlias = Annotated[Literal["fit", "predict"], Named("from")]
"""The type of the option `--from`: which sequence of a scene directory is meant."""


_NUMBER = r"[+-]?[\d.]+(e[+-]?\d+)?"
_TIMES = Pattern(
    rf"{_NUMBER}(:{_NUMBER}:[1-9]\d{{0,6}}|(,{_NUMBER})*)",
    "from:to:count (as 0:1:240) or a list (as 0,0.5,1)",
    "TIMES",
)
_NUMBERS = Pattern(r"\d{1,9}(,\d{1,9})*", "numbers with commas, as 1,3", "N,N,...")


@dataclass(frozen=True)
class TimeSelection(Options):
    """Times of a clip."""

    time: Annotated[float | None, Range(0, 1)] = None
    """Normalised time, from 0 (first frame) to 1 (last frame); the motion is frozen there."""
    frame: Annotated[int | None, Range(0)] = None
    """The same, as a frame number."""
    seconds: Annotated[float | None, Range(0, unit="s")] = None
    """The same, in seconds after the first frame."""
    times: Annotated[str | None, _TIMES] = None
    """Several times: from:to:count, as 0:1:240 for slow motion, or a list, as 0,0.5,1."""

    def check_relations(self) -> None:
        names = ("time", "frame", "seconds", "times")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise OptionError(given, "expected one of them only")

    def normalised_times(self, timeline: Timeline) -> Float[np.ndarray, " times"] | None:
        """Return the selected normalised times; None if no option was given.

        Raises:
            InputError: a time outside the clip.
        """
        if self.times is not None:
            return parse_times(self.times, timeline)
        if self.frame is not None:
            return np.array([timeline.time_of_frame(self.frame)])
        if self.seconds is not None:
            return np.array([timeline.time_of_seconds(self.seconds)])
        if self.time is not None:
            timeline.frame_position(self.time)  # raises for times outside the clip
            return np.array([self.time])
        return None


def parse_times(text: str, timeline: Timeline) -> Float[np.ndarray, " times"]:
    """Return the normalised times of `from:to:count` or of a comma-separated list.

    Raises:
        InputError: another format, or a time outside the clip.
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
    timeline.frame_positions(times)  # raises for times outside the clip
    return times


@dataclass(frozen=True)
class PartSelection(Options):
    """A part of a sequence."""

    levels: Annotated[str | None, _NUMBERS] = None
    """Motion levels to apply, from the outermost on: 1 or 1,2; 0 for none."""
    objects: Annotated[str | None, _NUMBERS] = None
    """Only these moving objects, by their number in the masks, as 1,3."""
    background: Literal["on", "off"] = "on"
    """The static part of the scene."""

    def num_levels(self, sequence: GaussianSequence) -> int | None:
        """Return the number of motion levels to apply; None for all.

        Raises:
            InputError: not a list of consecutive levels from 1, or a level that does not exist.
        """
        if self.levels is None:
            return None
        levels = _numbers("--levels", self.levels)
        count = max(levels)
        if levels not in ([count], list(range(1, count + 1))) or not 0 <= count:
            raise InputError(
                f"--levels: expected 0, 1, or 1,2 and so on (a finer level is relative to the "
                f"coarser ones), got {self.levels}"
            )
        if count > sequence.num_levels:
            raise InputError(f"--levels: expected at most {sequence.num_levels}, the levels of "
                             f"this sequence, got {self.levels}")  # fmt: skip
        return count

    def labels(self, sequence: GaussianSequence) -> list[int] | None:
        """Return the mask indices of the objects to keep; None for all.

        Raises:
            InputError: no such object.
        """
        if self.objects is None:
            return None
        labels = _numbers("--objects", self.objects)
        if set(labels) - set(sequence.objects):
            raise InputError(f"--objects: expected some of {sequence.objects}, got {self.objects}")
        return labels

    def select(self, posed: PosedGaussians, sequence: GaussianSequence) -> PosedGaussians:
        """Return the selected ones of the posed Gaussians."""
        return posed.only(self.labels(sequence), background=self.background == "on")


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option}: expected numbers with commas, as 1,3, got {text!r}") from error
