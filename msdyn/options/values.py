"""Values of options: which numbers, texts, paths and names are accepted, and what is expected."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Choices", "Pattern", "Range", "Value", "shown"]

_LARGEST_INT = 2**31 - 1
_LARGEST_FLOAT = 1e9
_SHOWN = 60
"""Characters of a wrong value that a message repeats."""
_LONGEST_NAME, _LONGEST_PATH = 255, 4096
"""Bytes of the name of a file and of a path, on Linux."""


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
