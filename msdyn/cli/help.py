"""The texts of `--help` and `--version`."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import platform
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args

from msdyn.events import Mode
from msdyn.options import OptionField, Range, Value
from msdyn.version import __version__

__all__ = [
    "Command",
    "Option",
    "documentation",
    "facts_of",
    "head_of",
    "help_text",
    "version_text",
]

_WIDTHS = (60, 100)
_CHOICES = 100
"""Longer lists of choices stand below an option, not beside it."""
_PACKAGES = ("torch", "gsplat", "numpy", "pycolmap", "transformers")
_PROGRESS = (
    "auto: bars on a terminal, lines elsewhere. json: one JSON object per line on stderr, for "
    "programs. none: errors only."
)
_DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        path: names of the fields that lead to it.
        name: on the command line, without dashes.
        field: what it takes.
        default: MISSING if it must be given.
        heading: the part of the help that it belongs to.
        owner: class of the field.
    """

    path: tuple[str, ...]
    name: str
    field: OptionField
    default: Any
    heading: str
    owner: type

    @property
    def label(self) -> str:
        """Name for messages."""
        return self.name.upper() if self.field.positional else f"--{self.name}"


@dataclass(frozen=True)
class Command:
    """What the help of a command is made of.

    Attributes:
        prog: name.
        description: what it does.
        examples: arguments, each with a comment after `#`.
        options: all of them.
        headings: of the options, in the order in which they are shown; others follow.
        commands: classes of the subcommands, by name.
    """

    prog: str
    description: str
    examples: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    headings: tuple[str, ...] = ()
    commands: Mapping[str, type] = field(default_factory=dict)


def help_text(command: Command) -> str:
    """Return the help of a command: usage, examples, options by their headings."""
    narrow, wide = _WIDTHS
    width = min(max(shutil.get_terminal_size().columns, narrow), wide)
    positional = [option for option in command.options if option.field.positional]
    usage = " ".join(["usage:", command.prog, *map(_usage, positional)])
    lines = [usage + (" COMMAND [options]" if command.commands else " [options]"), ""]
    lines += _hanging("", command.description, width)
    if command.examples:
        lines += ["", "Examples"]
        lines += _examples(command, width)
    if command.commands:
        lines += ["", f"Commands ({command.prog} COMMAND --help)"]
        longest = max(map(len, command.commands))
        for name, cls in command.commands.items():
            lines += _hanging(f"  {name:<{longest}}  ", cls.__doc__ or "", width)
    groups: dict[str, list[Option]] = {heading: [] for heading in ("Arguments", *command.headings)}
    for option in command.options:
        heading = "Arguments" if option.field.positional else option.heading
        groups.setdefault(heading, []).append(option)
    for heading, options in groups.items():
        lines += ["", heading] if options else []
        for option in options:
            lines += _option_lines(option, width)
    lines += ["", "Progress, help and version"]
    lines.append(f"  --progress {{{','.join(get_args(Mode))}}}  (default: auto)")
    lines += _hanging("      ", _PROGRESS, width)
    lines += ["  -h, --help     Show this text.", "  --version      Show the versions in use."]
    return "\n".join(lines)


def version_text() -> str:
    """Return the version of msdyn, and those of the packages and devices that it works with."""
    lines = [f"msdyn {__version__}", f"python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            lines.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name} not installed")
    # Asking torch takes a second or more; the driver's files say the same.
    gpus = sorted(_DRIVER.glob("*/information")) if _DRIVER.is_dir() else []
    for gpu in gpus:
        model = [line for line in gpu.read_text("utf-8").splitlines() if line.startswith("Model:")]
        lines.append(f"device {model[0].removeprefix('Model:').strip() if model else gpu.parent}")
    return "\n".join([*lines, *(() if gpus else ("device CPU, no NVIDIA driver found",))])


def _usage(option: Option) -> str:
    name = option.label + (" ..." if option.field.kind == "list" else "")
    return name if option.default is MISSING else f"[{name}]"


def _examples(command: Command, width: int) -> list[str]:
    """Return the examples, each with its comment beside it, or below where both are long."""
    lines = []
    for line in command.examples:
        call, _, comment = (part.strip() for part in line.partition("#"))
        lines.append(f"  {command.prog} {call}")
        if comment and len(lines[-1]) + len(comment) + 4 <= width:
            lines[-1] += f"  # {comment}"
        elif comment:
            lines += _hanging("      # ", comment, width)
    return lines


def _option_lines(option: Option, width: int) -> list[str]:
    """Return what an option takes, then what it does."""
    lines = _hanging("", f"  {head_of(option)}", width, 6)
    if facts := facts_of(option):
        note = f"({'; '.join(facts)})"
        short = len(lines) == 1 and len(lines[0]) + len(note) + 2 <= width
        lines = [f"{lines[0]}  {note}"] if short else [*lines, *_hanging("      ", note, width)]
    return lines + _hanging("      ", documentation(option.owner).get(option.path[-1], ""), width)


def head_of(option: Option) -> str:
    """Return an option as it is given: its name and placeholders of its values."""
    if option.field.positional:
        return option.label
    if option.field.kind == "flag":
        return f"--no-{option.name}" if option.default else f"--{option.name}"
    return f"--{option.name} {' '.join(_takes(option.field, option.path[-1]))}".rstrip()


def facts_of(option: Option) -> list[str]:
    """Return the range or the choices of an option, and its default, where there are any."""
    return [text for text in (_range(option.field), _default(option)) if text]


def _hanging(start: str, text: str, width: int, indent: int | None = None) -> list[str]:
    further = " " * (len(start) if indent is None else indent)
    return textwrap.wrap(
        text, width, initial_indent=start, subsequent_indent=further,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip


def _takes(field: OptionField, name: str) -> list[str]:
    """Return the placeholders of the values of an option."""
    if field.kind == "pairs":
        return ["NAME NUMBER", "..."]
    names = [_placeholder(value, name) for value in field.values]
    return [*names, "..."] if field.kind == "list" and not field.repeated else names


def _placeholder(value: Value, name: str) -> str:
    if value.choices is not None:
        text = "{" + ",".join(map(str, value.choices())) + "}"
        return text if len(text) <= _CHOICES else name.upper()
    if value.pattern is not None:
        return value.pattern.placeholder
    if value.range.unit:
        return value.range.unit.upper().replace(" ", "-")
    if value.kind is Path:
        return "PATH"
    return {int: "N", float: "NUMBER"}.get(value.kind, "TEXT")


def _range(field: OptionField) -> str:
    if len(field.values) == 1 and (choices := field.values[0].choices) is not None:
        names = ", ".join(map(str, choices()))
        return f"one of {names}" if len(names) > _CHOICES - 2 else ""
    ranges = {value.range for value in field.values} - {Range()}
    texts = [limits.text for limits in ranges if limits.text]
    return texts[0] if len(texts) == 1 and field.kind != "flag" else ""


def _default(option: Option) -> str:
    default = option.default
    if default is MISSING:
        return "" if option.field.positional else "must be given"
    if default in (None, (), {}) or option.field.positional or option.field.kind == "flag":
        return ""  # the text says what happens by default
    if isinstance(default, tuple):
        return "default: " + " ".join(map(str, default))
    return f"default: {default}"


@cache
def documentation(cls: type) -> dict[str, str]:
    """Return the strings under the fields of a class and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if "__dataclass_fields__" not in base.__dict__:
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(node, ast.ClassDef)
        for declared, below in zip(node.body, node.body[1:], strict=False):
            if isinstance(declared, ast.AnnAssign) and isinstance(declared.target, ast.Name):
                text = below.value if isinstance(below, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found[declared.target.id] = " ".join(text.value.split())
    return found
