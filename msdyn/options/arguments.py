"""Looking at the arguments of a command before, or without, parsing them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["text_of"]


def text_of(name: str, arguments: Sequence[str]) -> str:
    """Return the text given last for an option, which is checked later; "" if there is none.

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
