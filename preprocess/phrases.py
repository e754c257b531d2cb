"""`--prompts`: a file of prompts, or phrases that name what is to be segmented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msdyn.errors import InputError
from msdyn.options import shown

__all__ = ["TEXT_MASKS", "parse_phrases", "prompts_file", "refused_prompts"]

TEXT_MASKS = "sam3"
"""The backend of masks that takes phrases."""
LONGEST = 100
"""Characters of a phrase; how many words a network takes, it says itself."""


def prompts_file(given: str) -> Path | None:
    """Return the file that a value of `--prompts` names; None where it is phrases.

    What ends in .json is a file, whether it exists or not.
    """
    path = Path(given)
    if path.suffix.lower() == ".json":
        return path
    try:
        return path if path.is_file() else None
    except (OSError, ValueError):  # longer than a name of a file may be
        return None


def refused_prompts(given: str | None, masks: str | None, networks: Sequence[str]) -> str | None:
    """Return why a value of `--prompts` is refused; None where it is accepted.

    Args:
        given: the value, None without.
        masks: the backend of masks that the user names, None where a preset chooses.
        networks: the backends of masks that are networks.
    """
    if given is None:
        return None
    if prompts_file(given) is not None:
        if masks in networks:
            return None
        chosen = masks or "chosen by --preset"
        return f"given, but masks is {chosen}; use --masks {' or '.join(networks)}"
    try:
        parse_phrases(given)
    except InputError as error:
        return str(error)
    if masks in (None, TEXT_MASKS):
        return None
    return (
        f"{shown(given)} is for {TEXT_MASKS}, but masks is {masks}; use --masks {TEXT_MASKS}, or a "
        "file of clicks and boxes (FILE.json)"
    )


def parse_phrases(text: str) -> tuple[str, ...]:
    """Return the phrases of a text, separated by commas, each once.

    Raises:
        InputError: a phrase is empty, too long, or has no letter or digit.
    """
    phrases = [" ".join(part.split()) for part in text.split(",")]
    for phrase in phrases:
        if not phrase.isprintable() or not any(letter.isalnum() for letter in phrase):
            raise InputError(
                'expected noun phrases separated by commas, such as "gripper, red mug", or a file '
                f"(FILE.json), got {shown(text)}"
            )
        if len(phrase) > LONGEST:
            raise InputError(
                f"expected phrases of at most {LONGEST} characters, got {len(phrase)}: "
                f"{shown(phrase)}"
            )
    first = {phrase.casefold(): phrase for phrase in reversed(phrases)}
    return tuple(first[key] for key in dict.fromkeys(phrase.casefold() for phrase in phrases))
