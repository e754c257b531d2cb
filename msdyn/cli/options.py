"""From the arguments of a command to its options.

`--name value` and `--name=value` are the same, as are `-` and `_` in names. A flag is switched by
`--name` and `--no-name`. What follows `--` is given by position. Whatever cannot be read is
answered in one line that names the option.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from typing import Any, NoReturn, TypeVar

from msdyn.cli.help import Command, Option, help_text, version_text
from msdyn.errors import InputError
from msdyn.options import OptionError, OptionField, Value, option_fields
from msdyn.plugins import load_plugins

__all__ = ["options_of", "parse", "text_of"]

Config = TypeVar("Config")


def parse(
    config_type: type[Config] | Mapping[str, type],
    argv: Sequence[str] | None,
    prog: str,
    description: str,
    default: Config | None = None,
    *,
    examples: Sequence[str] = (),
) -> Config:
    """Return the options that the arguments of a command give.

    Args:
        config_type: a dataclass, whose base is `Options`; or several by the name of the
            subcommand, which is the first argument.
        argv: the arguments; None takes those of the process.
        prog: name of the command.
        description: shown by `--help`.
        default: defaults of the options, instead of those of the class.
        examples: arguments that are shown by `--help`, each with a comment after `#`.

    Raises:
        SystemExit: 0 after `--help` or `--version`, 2 after an error message about the options.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        load_plugins()
        ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
        if "--version" in ours:
            _print(version_text())
        if not isinstance(config_type, type):
            commands = dict(config_type)
            name = arguments[0] if arguments else ""
            if name in ("-h", "--help"):
                _print(help_text(Command(prog, description, tuple(examples), commands=commands)))
            if name not in commands:
                given = f"got {name!r}" if name else "got none"
                raise InputError(f"expected one of {', '.join(commands)}, {given}; {prog} --help")
            config_type, arguments = commands[name], arguments[1:]
            prog, description = f"{prog} {name}", config_type.__doc__ or ""
            examples = [line for line in examples if line.split()[0] == name]
            examples = [line.removeprefix(name).strip() for line in examples]
            ours = ours[1:]
        options = options_of(config_type, default)
        if "-h" in ours or "--help" in ours:
            headings = tuple(getattr(config_type, "headings", {}).values())
            _print(help_text(Command(prog, description, tuple(examples), options, headings)))
        return _build(config_type, default, _read(arguments, options, prog))
    except InputError as error:
        sys.stderr.write("error: " + " ".join(str(error).split()) + "\n")
        raise SystemExit(2) from error


def text_of(name: str, arguments: Sequence[str]) -> str:
    """Return the text given for an option, which `parse` checks later; "" if there is none.

    Args:
        name: with its dashes.
        arguments: of the command.
    """
    found = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument == "--":
            break
        if argument == name:
            found = following
        elif argument.startswith(f"{name}="):
            found = argument.partition("=")[2]
    return found


def _print(text: str) -> NoReturn:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


def options_of(config_type: type, default: Any = None) -> tuple[Option, ...]:
    """Return all options of a config and of the configs in it, in their order.

    Args:
        config_type: its base is `Options`.
        default: defaults, instead of those of the class.
    """
    return tuple(_options(config_type, default, (), "", "Options"))


def _options(
    cls: type, default: Any, path: tuple[str, ...], prefix: str, heading: str
) -> list[Option]:
    found = []
    headings: dict[str, str] = getattr(cls, "headings", {})
    for field in option_fields(cls):
        heading = headings.get(field.name, heading)
        value = _default_of(cls, field, default)
        name = prefix + field.option
        here = (*path, field.name)
        if field.group is None:
            found.append(Option(here, name, field, value, heading, cls))
            continue
        inner = f"{name}." if field.option else prefix
        title = headings.get(field.name, "") or _first_sentence(field.group)
        found += _options(field.group, None if value is MISSING else value, here, inner, title)
    return found


def _first_sentence(cls: type) -> str:
    return (cls.__doc__ or cls.__name__).split(".")[0].split(";")[0]


def _default_of(cls: type, field: OptionField, default: Any) -> Any:
    """Return the default of a field, MISSING if it has none."""
    if default is not None:
        return getattr(default, field.name)
    declared = next(f for f in dataclasses.fields(cls) if f.name == field.name)
    if declared.default_factory is not MISSING:
        return declared.default_factory()
    return declared.default


@dataclass
class _Reader:
    """Arguments that are read one after the other."""

    arguments: list[str]
    at: int = 0

    def next_value(self) -> str | None:
        """Return the next argument unless it is an option, and go past it."""
        if self.at == len(self.arguments) or self.arguments[self.at].startswith("--"):
            return None
        self.at += 1
        return self.arguments[self.at - 1]

    def values(self) -> list[str]:
        """Return all arguments before the next option."""
        found = []
        while (value := self.next_value()) is not None:
            found.append(value)
        return found


def _read(arguments: list[str], options: Sequence[Option], prog: str) -> dict[tuple[str, ...], Any]:
    """Return the values that are given, by the path of their fields.

    Raises:
        InputError: an argument that cannot be read, or one that is missing.
    """
    named = {f"--{option.name}": option for option in options if not option.field.positional}
    found: dict[tuple[str, ...], Any] = {}
    loose: list[str] = []
    reader = _Reader(arguments)
    while reader.at < len(arguments):
        argument = arguments[reader.at]
        reader.at += 1
        if argument == "--":
            loose += arguments[reader.at :]
            break
        if not argument.startswith("--"):
            if argument.startswith("-") and not _is_number(argument):
                raise InputError(f"{argument}: no such option; {prog} --help lists them")
            loose.append(argument)
            continue
        name, equals, given = argument.partition("=")
        name = name.replace("_", "-")
        value = given if equals else None
        off = f"--{name.removeprefix('--no-')}"
        if name not in named and name.startswith("--no-") and off in named:
            if named[off].field.kind == "flag":
                found[named[off].path] = _flag(name, value, False)
                continue
        if name not in named:
            raise InputError(_unknown(name, named, prog))
        option = named[name]
        before = found.get(option.path)
        found[option.path] = _value(name, option.field, value, reader, before)
    positional = [option for option in options if option.field.positional]
    _read_positional(loose, positional, found)
    for option in options:
        if option.default is MISSING and option.path not in found:
            raise InputError(f"{option.label}: missing; {prog} --help describes it")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unknown(name: str, named: Mapping[str, Option], prog: str) -> str:
    """Return the answer to an option that does not exist."""
    last = {known.rsplit(".", 1)[-1].removeprefix("--"): known for known in named if "." in known}
    close = difflib.get_close_matches(name, named, 3, 0.7)
    if not close:
        within = difflib.get_close_matches(name.removeprefix("--"), last, 3, 0.8)
        close = [last[part] for part in within]
    if close:
        return f"{name}: no such option of {prog}; similar: {', '.join(close)}"
    return f"{name}: no such option of {prog}; {prog} --help lists them"


def _flag(name: str, value: str | None, state: bool) -> bool:
    if value is not None:
        raise InputError(f"{name}: expected no value, got {value!r}")
    return state


def _value(name: str, field: OptionField, given: str | None, reader: _Reader, before: Any) -> Any:
    """Return the value of an option, whose texts are `given` or what the reader finds next.

    Args:
        name: as given on the command line.
        field: what the option takes.
        given: the text after "=", None if there is none.
        reader: stands after the option.
        before: value of the same option before it, None if there is none.
    """
    if field.kind == "flag":
        return _flag(name, given, True)
    if field.kind == "value" or field.repeated:
        text = reader.next_value() if given is None else given
        if text is None:
            raise InputError(f"{name}: expected a value, got none")
        value = _checked(name, field.values[0], text)
        return (*(before or ()), value) if field.repeated else value
    texts = reader.values() if given is None else [given]
    if field.kind == "list":
        if not texts:
            raise InputError(f"{name}: expected a value or several, got none")
        return (*(before or ()), *(_checked(name, field.values[0], text) for text in texts))
    if field.kind == "pairs":
        if not texts or len(texts) % 2:
            raise InputError(f"{name}: expected a name and a number, got {' '.join(texts)!r}")
        numbers = [_checked(name, field.values[0], text) for text in texts[1::2]]
        return {**(before or {}), **dict(zip(texts[::2], numbers, strict=True))}
    count = len(field.values)
    if len(texts) > count:  # what follows is given by its position
        reader.at -= len(texts) - count
        texts = texts[:count]
    if len(texts) < count:
        raise InputError(f"{name}: expected {count} values, got {len(texts)}")
    return tuple(
        _checked(name, value, text) for value, text in zip(field.values, texts, strict=True)
    )


def _read_positional(
    loose: list[str], options: Sequence[Option], found: dict[tuple[str, ...], Any]
) -> None:
    """Add the values that are given by their position."""
    left = list(loose)
    for option in options:
        value = option.field.values[0]
        if option.field.kind == "list":
            if left:
                found[option.path] = tuple(_checked(option.label, value, text) for text in left)
            left = []
        elif left:
            found[option.path] = _checked(option.label, value, left.pop(0))
    if left:
        expected = ", ".join(option.label for option in options) or "options only"
        raise InputError(f"expected {expected}, got {left[0]!r} besides")


def _checked(name: str, value: Value, text: str) -> Any:
    try:
        return value.read(text)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def _build(
    cls: type[Config], default: Any, found: Mapping[tuple[str, ...], Any], prefix: str = ""
) -> Config:
    """Return the config of the values that are given, and of the defaults.

    Raises:
        InputError: options that do not fit together.
    """
    given: dict[str, Any] = {path[0]: value for path, value in found.items() if len(path) == 1}
    for field in option_fields(cls):
        inner = {
            path[1:]: v for path, v in found.items() if len(path) > 1 and path[0] == field.name
        }
        if field.group is not None and inner:
            of_group = _default_of(cls, field, default)
            further = f"{prefix}{field.option}." if field.option else prefix
            of_group = None if of_group is MISSING else of_group
            given[field.name] = _build(field.group, of_group, inner, further)
    try:
        return cls(**given) if default is None else replace(default, **given)
    except OptionError as error:
        labels = ", ".join(_label(cls, prefix, name) for name in error.names)
        raise InputError(f"{labels}: {error.reason}") from error


def _label(cls: type, prefix: str, path: str) -> str:
    """Return the name on the command line of a field, or of one of a group as "group.field"."""
    name, _, rest = path.partition(".")
    for field in option_fields(cls):
        if field.name == name and field.group is not None and rest:
            return _label(field.group, f"{prefix}{field.option}." if field.option else prefix, rest)
        if field.name == name:
            return field.option.upper() if field.positional else f"--{prefix}{field.option}"
    return path
