"""From the arguments of a command to its options.

The arguments are read by tyro: `--name value` and `--name=value` are the same, as are `-` and `_`
in names; a flag is switched by `--name` and `--no-name`; what follows `--` is given by position.
What cannot be read is answered in one line that names the option.
"""

from __future__ import annotations

import dataclasses
import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING
from typing import Any, NoReturn, TypeVar
from unittest import mock

from msdyn import events
from msdyn.cli.help import Command, Option, help_text, version_text
from msdyn.cli.refusals import cause_of, plain_refusal
from msdyn.errors import InputError
from msdyn.options import OTHER_OPTIONS, OptionField, option_fields, shown
from msdyn.plugins import load_plugins
from msdyn.progress import write_error

__all__ = ["options_of", "parse"]

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
        events.choose()
        arguments = _choose_progress(arguments)
        events.start(prog)
        load_plugins()
        ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
        if "--version" in ours:
            _print(version_text())
        chosen, start = config_type, 0
        if not isinstance(chosen, type):
            commands = dict(chosen)
            name = arguments[0] if arguments else ""
            if name in ("-h", "--help"):
                _print(help_text(Command(prog, description, tuple(examples), commands=commands)))
            if name not in commands:
                given = f"got {shown(name)}" if name else "got none"
                raise InputError(f"expected one of {', '.join(commands)}, {given}; {prog} --help")
            chosen, start = commands[name], 1
            prog, description = f"{prog} {name}", chosen.__doc__ or ""
            examples = [line for line in examples if line.split()[0] == name]
            examples = [line.removeprefix(name).strip() for line in examples]
        options = options_of(chosen, default)
        if {"-h", "--help"} & set(ours[start:]):
            headings = tuple(getattr(chosen, "headings", {}).values())
            _print(help_text(Command(prog, description, tuple(examples), options, headings)))
        readable = arguments[:start] + _readable(arguments[start:], options)
        return _read(config_type, readable, prog, default, options)
    except InputError as error:
        write_error(str(error))
        events.emit("exit", code=2)
        raise SystemExit(2) from error


def _choose_progress(arguments: list[str]) -> list[str]:
    """Choose how progress is shown by `--progress MODE`; return the other arguments.

    Raises:
        InputError: no such mode, or none given.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    others, index = [], 0
    while index < end:
        name, equals, mode = arguments[index].partition("=")
        if name != "--progress":
            others.append(arguments[index])
        elif equals:
            events.choose(mode)
        else:
            index += 1
            events.choose(arguments[index] if index < end else "")
        index += 1
    return others + arguments[end:]


def _readable(arguments: Sequence[str], options: Sequence[Option]) -> list[str]:
    """Return the arguments with names as they are listed, and blanks instead of empty texts.

    tyro takes an empty path for the current directory; a blank is refused by `Options`. A text
    that begins with dashes is the value of the option before it if it has blanks, or if that
    option takes options of another command and this command has no such option.

    Raises:
        InputError: what tyro would not refuse by the option's name: a flag with a value, and an
            option of several values that has none.
    """
    named = {f"--{option.name}": option.field for option in options if not option.field.positional}
    flags = {name for name, field in named.items() if field.kind == "flag"}
    flags |= {f"--no-{name.removeprefix('--')}" for name in flags}
    quoting = {name for name, field in named.items() if field.values}
    quoting = {name for name in quoting if named[name].values[0].pattern is OTHER_OPTIONS}
    end = arguments.index("--") if "--" in arguments else len(arguments)
    readable: list[str] = []
    for argument, following in zip(arguments[:end], [*arguments[1:end], None], strict=False):
        name, equals, value = argument.partition("=")
        name = name.replace("_", "-")
        if readable and readable[-1] in named and argument.startswith("-"):
            foreign = readable[-1] in quoting and name not in {*named, *flags}
            if " " in argument or foreign:
                readable[-1] += f"={argument}"
                continue
        if name in flags and equals:
            raise InputError(f"{name}: expected no value, got {shown(value)}")
        takes_several = name in named and named[name].kind in ("list", "pairs")
        if takes_several and not equals and (following is None or following.startswith("--")):
            raise InputError(f"{name}: expected {named[name].text}, got none")
        if name in named or name in flags:
            readable.append(f"{name}={value or ' '}" if equals else name)
        elif argument.startswith("--"):  # without its value, tyro finds similar names
            readable.append(argument.partition("=")[0])
        else:
            readable.append(argument or " ")
    return readable + [argument or " " for argument in arguments[end:]]


def _read(
    config_type: type[Config] | Mapping[str, type],
    arguments: list[str],
    prog: str,
    default: Config | None,
    options: Sequence[Option],
) -> Config:
    """Return the options that tyro reads.

    Raises:
        InputError: an argument that cannot be read, or a value that is refused.
    """
    import tyro

    messages = io.StringIO()
    # tyro's message is as wide as the terminal, and names that are longer would be broken.
    with redirect_stderr(messages), mock.patch.dict(os.environ, {"COLUMNS": "80"}):
        try:
            if not isinstance(config_type, type):
                return tyro.extras.subcommand_cli_from_dict(
                    dict(config_type), args=arguments, prog=prog.partition(" ")[0]
                )
            given: dict[str, Any] = {} if default is None else {"default": default}
            return tyro.cli(config_type, args=arguments, prog=prog, **given)
        except (InputError, SystemExit) as end:
            if isinstance(end, SystemExit) and not end.code:  # what tyro prints on its own
                raise
            refusal = cause_of(end, options)
            refusal = refusal or plain_refusal(messages.getvalue(), arguments, options, prog)
            raise InputError(refusal) from end


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
