"""The fields of options classes: what each takes, read from its annotation, and their check."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from msdyn.errors import InputError
from msdyn.options.values import Choices, Pattern, Range, Value, shown

__all__ = [
    "OTHER_OPTIONS",
    "POSITIONAL",
    "REPEATED",
    "Named",
    "OptionError",
    "OptionField",
    "Options",
    "Positive",
    "Seed",
    "Share",
    "Weight",
    "option_fields",
]

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


def Named(option: str) -> Any:
    """Return the annotation of a field whose option has another name.

    Args:
        option: without dashes; of a field that is itself a dataclass, "" leaves its prefix out.
    """
    return tyro.conf.arg(name=option)


OTHER_OPTIONS = Pattern(r"(?s).*\S.*", "options of another command, in quotes", "OPTIONS")
"""Marks a text that is options of another command: it may begin with dashes."""
Positive = Range(above=0)
"""Numbers above 0."""
Weight = Annotated[float, Range(0)]
"""The type of a weight."""
Share = Annotated[float, Range(0, 1)]
"""The type of a share of something."""
Seed = Annotated[int, Range(0)]
"""The type of a random seed."""


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
