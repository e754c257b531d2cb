"""What the commands of msdyn take: their options, as each command itself parses them.

For the command reference of the site, and for the tests of the documentation and of the options.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

__all__ = ["SCRIPTS", "VARIANTS", "Parser", "parsers_of"]

ROOT = Path(__file__).parents[1]
SCRIPTS: dict[str, str] = dict(
    re.findall(r'"(msdyn-[a-z]+)=([\w.]+):main"', (ROOT / "setup.py").read_text(encoding="utf-8"))
)
"""Module of each command."""
VARIANTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "msdyn-preprocess": (
        ("--check",),
        ("--from", "dycheck"),
        ("--from", "mcap"),
        ("--from", "lerobot"),
    )
}
"""Arguments with which a command parses other options."""


@dataclass(frozen=True)
class Parser:
    """What a command parses.

    Attributes:
        command: its name.
        subcommand: the first argument; "" without one.
        variant: arguments that make the command parse these options.
        config: class of the options.
        default: an object with the defaults; None for those of the class.
        description: what the command does.
        examples: arguments, each with a comment after `#`.
    """

    command: str
    subcommand: str
    variant: tuple[str, ...]
    config: type
    default: Any
    description: str
    examples: tuple[str, ...]

    @property
    def start(self) -> list[str]:
        """The subcommand, if there is one."""
        return [self.subcommand] if self.subcommand else []


class _Parsed(Exception):
    """A command has come to the parsing of its options."""


@cache
def parsers_of(command: str) -> tuple[Parser, ...]:
    """Return what a command parses: one for each subcommand and variant."""
    module = importlib.import_module(SCRIPTS[command])
    found: list[Parser] = []
    for variant in ((), *VARIANTS.get(command, ())):

        def parse(
            config: type | Mapping[str, type],
            argv: Sequence[str] | None,
            prog: str,
            description: str,
            default: Any = None,
            *,
            examples: Sequence[str] = (),
            variant: tuple[str, ...] = variant,
        ) -> NoReturn:
            commands = {"": config} if isinstance(config, type) else config
            for name, cls in commands.items():
                text = (cls.__doc__ or "") if name else description
                shown = [line for line in examples if not name or line.split()[0] == name]
                found.append(Parser(command, name, variant, cls, default, text, tuple(shown)))
            raise _Parsed

        with mock.patch.object(module, "parse", parse):
            try:
                module.main(list(variant))
            except _Parsed:
                continue
        raise AssertionError(f"{command} {' '.join(variant)} parses nothing")
    return tuple(found)
