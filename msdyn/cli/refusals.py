"""Why arguments are refused, in one line: from the messages of tyro and the errors of a config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING

from msdyn.cli.help import Option
from msdyn.errors import InputError
from msdyn.options import OptionError, shown

__all__ = ["cause_of", "plain_refusal"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_UNKNOWN = re.compile(r"Unrecognized(?: or misplaced)? options:\s*(.*?)(?:, | \(applied to |$)")
_BESIDES = "Unrecognized options:"
_VALUE = re.compile(r"(?:argument '|Error parsing )([^\s':/]+)")
_CHOICE = re.compile(r"invalid choice '(.*)' for argument")
_LISTED = re.compile(r" {4}(\S+)")
"""A line with an option; lines that describe it have a wider margin."""


def cause_of(error: BaseException, options: Sequence[Option]) -> str | None:
    """Return the message of the InputError that ended the reading, None if there is none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OptionError):
        labels = ", ".join(_label(name, cause.owner, options) for name in cause.names)
        return f"{labels}: {cause.reason}"
    return None if cause is None else str(cause)


def _label(name: str, owner: type | None, options: Sequence[Option]) -> str:
    """Return the name on the command line of a field, or of one of a group as "group.field"."""
    path = tuple(name.split("."))
    found = [option for option in options if option.path[-len(path) :] == path]
    of_owner = [option for option in found if option.owner is owner]
    return next((option.label for option in [*of_owner, *found]), name)


def plain_refusal(
    message: str, arguments: Sequence[str], options: Sequence[Option], prog: str
) -> str:
    """Return what a message of tyro says, without its box and the names of classes.

    Args:
        message: in a box of lines, or of blanks where they cannot be printed; below a line in it
            are hints.
        arguments: that were read.
        options: of the command.
        prog: name of the command.
    """
    lines = [_COLOURS.sub("", line)[2:].rstrip(" │") for line in message.split("\n")[1:]]
    if lines and _is_rule(lines[0]):  # below the title of a box of blanks
        lines.pop(0)
    end = next((at for at, line in enumerate(lines) if _is_rule(line)), len(lines))
    said, hints = " ".join(" ".join(lines[:end]).split()), lines[end:]
    if unknown := _UNKNOWN.match(said):
        return _unknown(unknown[1], hints, options, prog)
    if _BESIDES in hints:
        return _unknown(hints[hints.index(_BESIDES) + 1].strip(), [], options, prog)
    if said.startswith("Missing from"):
        return f"{_missing(lines[:end], options)}: missing; {prog} --help describes it"
    name = found[1] if (found := _VALUE.search(said)) else ""
    option = next((o for o in options if name in (o.label, o.name)), None)
    if option is None:
        return f"{said.removeprefix(f'Error parsing {name}: ')}; {prog} --help"
    if said.startswith("Missing value") and option.field.positional:
        # tyro looked for it and found an unknown option.
        flags = {f"--no-{o.name}" for o in options if o.field.kind == "flag"}
        known = {o.label for o in options} | flags
        names = [text.partition("=")[0] for text in arguments if text.startswith("-")]
        # With two dashes first: one may be of a negative number.
        unknown = sorted(set(names) - known - {"--"}, key=lambda text: not text.startswith("--"))
        if not unknown:
            return f"{option.label}: missing; {prog} --help describes it"
        return _unknown(unknown[0], [], options, prog)
    if said.startswith("Missing value") and len(option.field.values) == 1:
        return f"{option.label}: expected a value, got none"
    expected = f"{option.label}: expected {option.field.text}"
    if said.startswith("Missing value"):
        return f"{expected}, got fewer"
    if choice := _CHOICE.search(said):
        return f"{expected}, got {shown(choice[1])}"
    given = _given(option.label, arguments)
    return f"{expected}, got {shown(given[0])}" if len(given) == 1 else expected


def _is_rule(line: str) -> bool:
    return bool(line) and not line.strip("─-")


def _given(name: str, arguments: Sequence[str]) -> list[str]:
    """Return the texts that are given last for an option."""
    given: list[str] = []
    for at, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            given = [argument.partition("=")[2]]
        elif argument == name:
            texts = [*arguments[at + 1 :], "--"]
            given = texts[: next(n for n, text in enumerate(texts) if text.startswith("--"))]
    return given


def _unknown(argument: str, hints: Sequence[str], options: Sequence[Option], prog: str) -> str:
    """Return the answer to an argument that belongs to no option."""
    positional = [option.label for option in options if option.field.positional]
    if not argument.startswith("-"):
        expected = ", ".join(positional) or "options only"
        return f"expected {expected}, got {shown(argument)} besides"
    known = [option.label for option in options]
    listed = [name[1].rstrip(",") for line in hints if (name := _LISTED.match(line))]
    similar = ", ".join(dict.fromkeys(name for name in listed if name in known))
    hint = f"similar: {similar}" if similar else f"{prog} --help lists them"
    return f"{shown(argument)[1:-1]}: no such option of {prog}; {hint}"


def _missing(lines: Sequence[str], options: Sequence[Option]) -> str:
    """Return the option that is missing, the first in the list."""
    listed = [name[1] for line in lines if (name := _LISTED.match(line))]
    required = [option for option in options if option.default is MISSING]
    if named := [option.label for option in required if option.label in listed]:
        return named[0]
    positional = [option.label for option in required if option.field.positional]
    # tyro lists them by their types; those in front have been given.
    return positional[-len(listed)] if listed else ", ".join(positional)
