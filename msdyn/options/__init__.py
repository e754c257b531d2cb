"""Options of commands and functions: declared on the fields of a dataclass, checked in one place.

    @dataclass(frozen=True)
    class ToyConfig(Options):
        frames: Annotated[int, Range(2, unit="frames")] = 24
        \"""Frames of the clip.\"""

A value is checked when the command line is read and when the dataclass is made, by the same
function. Numbers must be finite; without a `Range`, whole numbers must fit into 32 bits and others
must not exceed 1e9. Texts and paths must not be empty. The string under a field is its help.
"""

from msdyn.options.arguments import text_of
from msdyn.options.fields import (
    OTHER_OPTIONS,
    POSITIONAL,
    REPEATED,
    Named,
    OptionError,
    OptionField,
    Options,
    Positive,
    Seed,
    Share,
    Weight,
    option_fields,
)
from msdyn.options.values import Choices, Pattern, Range, Value, shown

__all__ = [
    "OTHER_OPTIONS",
    "POSITIONAL",
    "REPEATED",
    "Choices",
    "Named",
    "OptionError",
    "OptionField",
    "Options",
    "Pattern",
    "Positive",
    "Range",
    "Seed",
    "Share",
    "Value",
    "Weight",
    "option_fields",
    "shown",
    "text_of",
]
