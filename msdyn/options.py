"""Options of commands and functions: declared on the fields of a dataclass, checked in one place.

    @dataclass(frozen=True)
    class ToyConfig(Options):
        frames: Annotated[int, Range(2, unit="frames")] = 24
        \"""Frames of the clip.\"""

A value is checked when the command line is read and when the dataclass is made, by the same
function. Numbers must be finite; without a `Range`, whole numbers must fit into 32 bits and others
must not exceed 1e9. Texts and paths must not be empty. The string under a field is its help.
"""

from __future__ import annotations

import math
import numbers
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from msdyn.errors import InputError

__all__ = [
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
]

_LARGEST_INT = 2**31 - 1
_LARGEST_FLOAT = 1e9
_SHOWN = 60
"""Characters of a wrong value that a message repeats."""
_LONGEST_NAME, _LONGEST_PATH = 255, 4096
"""Bytes of the name of a file and of a path, on Linux."""

POSITIONAL = tyro.conf.Positional
"""Marks a field that is given by its position on the command line."""
REPEATED = tyro.conf.UseAppendAction
"""Marks a tuple whose option takes one value and may be given several times."""


class OptionError(InputError):
    """Options that are refused.

    Attributes:
        names: the fields; one of a dataclass within is "group.field".
        reason: what is expected, and what was given.
        owner: class of the fields, None if it is not known.
    """

    owner: type | None = None

    def __init__(self, names: str | Sequence[str], reason: str) -> None:
        self.names = (names,) if isinstance(names, str) else tuple(names)
        self.reason = reason
        super().__init__(f"{', '.join(self.names)}: {reason}")


@dataclass(frozen=True)
class Range:
    """Numbers that an option takes.

    Attributes:
        least, most: limits that belong to the range; None is the limit of all options.
        above, below: limits that do not.
        also: further numbers, such as 0 for none.
        unit: of the number, for `--help`.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    also: tuple[float, ...] = ()
    unit: str = ""

    def refusal(self, value: float) -> str | None:
        """Return what is expected instead of a finite number; None for a number in the range."""
        if value in self.also:
            return None
        largest = _LARGEST_INT if isinstance(value, int) else _LARGEST_FLOAT
        low, high = self._low or f"at least {_text(-largest)}", self._high
        high = high or f"at most {_text(largest)}"
        least = -largest if self.least is None else self.least
        most = largest if self.most is None else self.most
        if value < least or (self.above is not None and value <= self.above):
            return self._or_else(low)
        if value > most or (self.below is not None and value >= self.below):
            return self._or_else(high)
        return None

    @property
    def text(self) -> str:
        """The range in words, "" for any number."""
        if self.least is not None and self.most is not None:
            return self._or_else(f"{_text(self.least)} to {_text(self.most)}")
        return self._or_else(" and ".join(part for part in (self._low, self._high) if part))

    @property
    def _low(self) -> str:
        if self.above is not None:
            return f"above {_text(self.above)}"
        return "" if self.least is None else f"at least {_text(self.least)}"

    @property
    def _high(self) -> str:
        if self.below is not None:
            return f"below {_text(self.below)}"
        return "" if self.most is None else f"at most {_text(self.most)}"

    def _or_else(self, text: str) -> str:
        return ", or ".join([text, *map(_text, self.also)])


@dataclass(frozen=True)
class Pattern:
    """Texts that an option takes: those that match a regular expression.

    Attributes:
        expression: must match the whole text.
        text: the same in words.
        placeholder: of such a text in `--help`.
    """

    expression: str
    text: str
    placeholder: str = "TEXT"


@dataclass(frozen=True)
class Choices:
    """The names that an option takes, asked for when it is read.

    Attributes:
        names: returns them.
    """

    names: Callable[[], Sequence[str]]


def Named(option: str) -> Any:
    """Return the annotation of a field whose option has another name.

    Args:
        option: without dashes; of a field that is itself a dataclass, "" leaves its prefix out.
    """
    return tyro.conf.arg(name=option)


Positive = Range(above=0)
"""Numbers above 0."""
Weight = Annotated[float, Range(0)]
"""The type of a weight."""
Share = Annotated[float, Range(0, 1)]
"""The type of a share of something."""
Seed = Annotated[int, Range(0)]
"""The type of a random seed."""


@dataclass(frozen=True)
class Value:
    """One value of an option.

    Attributes:
        kind: int, float, str or Path.
        range: numbers that are accepted.
        choices: returns the values that are accepted; None where they are not listed.
        pattern: texts that are accepted.
    """

    kind: type
    range: Range = Range()
    choices: Callable[[], Sequence[Any]] | None = None
    pattern: Pattern | None = None

    @property
    def text(self) -> str:
        """What is expected, in words, apart from the range."""
        if self.choices is not None:
            return self._listed()
        kinds: dict[type, str] = {int: "a whole number", float: "a number", Path: "a path"}
        return kinds.get(self.kind, "a text")

    def refusal(self, value: Any) -> str | None:
        """Return what is expected instead of a value; None for a value that is accepted."""
        if self.choices is not None:
            return None if value in self.choices() else self._listed()
        if self.kind is int:
            if isinstance(value, bool) or not isinstance(value, numbers.Integral):
                return "a whole number"
            return self.range.refusal(int(value))
        if self.kind is float:
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                return "a number"
            try:
                number = float(value)
            except OverflowError:  # of a whole number
                number = math.inf
            return self.range.refusal(number) if math.isfinite(number) else "a finite number"
        if self.kind is Path:
            return _path_refusal(str(value))
        if not isinstance(value, str):
            return "a text"
        if self.pattern is not None:
            return None if re.fullmatch(self.pattern.expression, value) else self.pattern.text
        return _text_refusal(value)

    def _listed(self) -> str:
        assert self.choices is not None
        names = [str(name) for name in self.choices()]
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


@dataclass(frozen=True)
class OptionField:
    """What a field of an options class takes.

    Attributes:
        name: of the field.
        option: on the command line, without dashes and the prefix of its group.
        kind: "value"; "flag", given without a value; "fixed", as many values as `values`; "list",
            any number of values; "pairs", names and values; "group", a dataclass of its own.
        values: what it takes; of a list or pairs, one for all.
        optional: may be None.
        positional: given by its position.
        repeated: takes one value, and may be given several times.
        group: the dataclass of a group.
    """

    name: str
    option: str
    kind: Literal["value", "flag", "fixed", "list", "pairs", "group"]
    values: tuple[Value, ...] = ()
    optional: bool = False
    positional: bool = False
    repeated: bool = False
    group: type | None = None

    @property
    def text(self) -> str:
        """What is expected, in words."""
        if self.kind == "pairs":
            return f"a name and {self.values[0].text}"
        if self.kind == "fixed":
            are_numbers = all(value.kind in (int, float) for value in self.values)
            return f"{len(self.values)} {'numbers' if are_numbers else 'values'}"
        return self.values[0].text if self.values else "no value"

    def refusal(self, value: Any) -> str | None:
        """Return why a value is refused, as "expected ..., got ..."; None if it is accepted."""
        if (value is None and self.optional) or self.kind == "group":
            return None
        if self.kind == "flag":
            is_flag = isinstance(value, bool)
            return None if is_flag else f"expected True or False, got {shown(value)}"
        if self.kind == "pairs":
            items = list(value.values()) if isinstance(value, Mapping) else [value]
        elif self.kind == "value":
            items = [value]
        elif isinstance(value, (list, tuple)):
            items = list(value)
        else:
            return f"expected several values, got {shown(value)}"
        if self.kind == "fixed" and len(items) != len(self.values):
            return f"expected {len(self.values)} values, got {len(items)}"
        expected = self.values if self.kind == "fixed" else self.values * len(items)
        for item, wanted in zip(items, expected, strict=True):
            if refused := wanted.refusal(item):
                return f"expected {refused}, got {shown(item)}"
        return None


class Options:
    """Base of the dataclasses of options: checks every field when one is made.

    Relations between options are checked by `check_relations`, which raises `OptionError`.
    """

    headings: ClassVar[dict[str, str]] = {}
    """Heading in `--help` of a field and of those after it."""

    def __post_init__(self) -> None:
        try:
            for field in option_fields(type(self)):
                if refused := field.refusal(getattr(self, field.name)):
                    raise OptionError(field.name, refused)
            self.check_relations()
        except OptionError as error:
            error.owner = error.owner or type(self)
            raise

    def check_relations(self) -> None:
        """Raise OptionError for options that do not fit together."""


@cache
def option_fields(cls: type) -> tuple[OptionField, ...]:
    """Return what the fields of an options class take, in their order."""
    assert is_dataclass(cls), f"{cls} is no dataclass"
    hints = get_type_hints(cls, include_extras=True)
    return tuple(_field(field.name, hints[field.name]) for field in fields(cls) if field.init)


def _field(name: str, hint: Any) -> OptionField:
    """Return what a field takes, from its annotation."""
    kind, marks, optional = _unwrapped(hint)
    named = [mark.name for mark in marks if isinstance(mark, type(Named("")))]
    option = named[0] if named else name.replace("_", "-")
    common: dict[str, Any] = {
        "optional": optional,
        "positional": POSITIONAL in marks,
        "repeated": REPEATED in marks,
    }
    if isinstance(kind, type) and is_dataclass(kind):
        return OptionField(name, option, "group", group=kind)
    if kind is bool:
        return OptionField(name, option, "flag")
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        if arguments[-1] is Ellipsis:
            return OptionField(name, option, "list", (_value(arguments[0], marks),), **common)
        values = tuple(_value(argument, marks) for argument in arguments)
        return OptionField(name, option, "fixed", values, **common)
    if get_origin(kind) is dict:
        return OptionField(name, option, "pairs", (_value(arguments[1], marks),), **common)
    return OptionField(name, option, "value", (_value(kind, marks),), **common)


def _unwrapped(hint: Any) -> tuple[Any, list[Any], bool]:
    """Return a type without annotations and None, the annotations, and whether it may be None."""
    marks: list[Any] = []
    optional = False
    while True:
        if get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            marks = [*more, *marks]
        elif get_origin(hint) in (Union, types.UnionType):
            parts = [part for part in get_args(hint) if part is not type(None)]
            assert len(parts) == 1, f"{hint}: an option has one type, or None"
            hint, optional = parts[0], True
        else:
            return hint, marks, optional


def _value(hint: Any, marks: Sequence[Any]) -> Value:
    """Return one value of an option, from its annotation and those around it."""
    kind, own, _ = _unwrapped(hint)
    marks = [*own, *marks]
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return Value(type(choices[0]), choices=lambda: choices)
    assert kind in (int, float, str, Path), f"{hint} is no type of an option"
    names = next((mark.names for mark in marks if isinstance(mark, Choices)), None)
    limits = next((mark for mark in marks if isinstance(mark, Range)), Range())
    pattern = next((mark for mark in marks if isinstance(mark, Pattern)), None)
    return Value(kind, limits, names, pattern)


def _text_refusal(text: str) -> str | None:
    if not text.strip():
        return "a text that is not empty"
    if "\0" in text or not text.isascii() and text.encode(errors="replace").decode() != text:
        return "a text in UTF-8"
    return None


def _path_refusal(text: str) -> str | None:
    if not text.strip():
        return "a path that is not empty"
    if refused := _text_refusal(text):
        return refused.replace("a text", "a path")
    longest = max(len(part.encode()) for part in text.split("/"))
    if longest > _LONGEST_NAME or len(text.encode()) > _LONGEST_PATH:
        return f"a path of at most {_LONGEST_PATH} bytes, of names of at most {_LONGEST_NAME}"
    return None


def _text(number: float) -> str:
    """Return a number without an exponent, where that is short."""
    return str(int(number)) if number == int(number) and abs(number) < 1e12 else f"{number:g}"


def shown(value: Any) -> str:
    """Return a value for a message; cut where it is long."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    text = str(value) if isinstance(value, (int, float)) else repr(str(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
