"""Pages of the documentation site that list the options of every command.

Everything is read from the classes that the commands parse, so nothing is written twice.
"""

from __future__ import annotations

import importlib
import re
from html import escape

from command_options import SCRIPTS, Parser, parsers_of

from msdyn.cli.help import Option, documentation, facts_of, head_of
from msdyn.cli.options import options_of

__all__ = ["command_page", "command_pages", "overview_page"]


def command_pages() -> dict[str, str]:
    """Return the page of each command, by its name, as Markdown."""
    return {command: command_page(command) for command in SCRIPTS}


def overview_page() -> str:
    """Return the page that lists all commands."""
    lines = ["# Commands", "", "| command | |", "|---|---|"]
    for command in SCRIPTS:
        description = parsers_of(command)[0]
        text = _overall(description).replace("|", "\\|")
        lines.append(f"| [`{command}`]({command}.md) | {text} |")
    return "\n".join([*lines, "", *_NOTES, ""])


_NOTES = (
    "`COMMAND --help` prints the same text, and `COMMAND --version` the versions in use. "
    "`--name value` and `--name=value` are the same, a flag is switched by `--name` and "
    "`--no-name`, and what follows `--` is given by position. Every command takes `--progress`. "
    "[How commands end](../ends.md) has its modes and the exit codes.",
)


def command_page(command: str) -> str:
    """Return the page of a command as Markdown: what it does, examples, all options."""
    parsers = parsers_of(command)
    lines = [f"# {command}", "", _overall(parsers[0]), ""]
    if len(parsers) == 1:
        return "\n".join(lines + _parser_lines(parsers[0], level=2))
    for parser in parsers:
        call = " ".join((command, *parser.start, *parser.variant))
        plain = not parser.start and not parser.variant
        lines += [f"## {'A video' if plain else _code(call)}", ""]
        lines += [] if plain else [parser.description, ""]
        lines += _parser_lines(parser, level=3)
    return "\n".join(lines)


def _overall(parser: Parser) -> str:
    """Return the description of a whole command."""
    return importlib.import_module(SCRIPTS[parser.command]).DESCRIPTION


def _parser_lines(parser: Parser, level: int) -> list[str]:
    options = options_of(parser.config, parser.default)
    lines: list[str] = []
    if parser.examples:
        lines += ["```console", *(f"{parser.command} {line}" for line in parser.examples), "```"]
    headings = ("Arguments", *getattr(parser.config, "headings", {}).values())
    groups: dict[str, list[Option]] = {heading: [] for heading in headings}
    for option in options:
        heading = "Arguments" if option.field.positional else option.heading
        groups.setdefault(heading, []).append(option)
    prefix = "-".join((*parser.start, *(word.strip("-") for word in parser.variant)))
    for heading, members in groups.items():
        if not members:
            continue
        anchor = re.sub(r"\W+", "-", f"{prefix} {heading}".strip().lower())
        lines += ["", f"{'#' * level} {heading} {{ #{anchor} }}", "", '<dl class="options">']
        for option in members:
            lines += _option_lines(option, prefix)
        lines += ["</dl>"]
    return [*lines, ""]


def _option_lines(option: Option, prefix: str) -> list[str]:
    """Return what an option takes and does as a term and its definition in HTML."""
    name = f"{prefix}-{option.name}" if prefix else option.name
    facts = "; ".join(facts_of(option))
    note = f' <span class="facts">{escape(facts)}</span>' if facts else ""
    text = escape(documentation(option.owner).get(option.path[-1], ""))
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return [
        f'<dt id="option-{escape(name)}"><code>{escape(head_of(option))}</code>{note}</dt>',
        f"<dd>{text}</dd>",
    ]


def _code(text: str) -> str:
    return f"`{text}`"
