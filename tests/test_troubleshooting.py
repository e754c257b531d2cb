"""The troubleshooting page has every verdict and warning that the code can give, and no others."""

import re
from pathlib import Path

import pytest
from messages import messages

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
ELSEWHERE = {"...: no such file or folder"}
"""Messages of Python's own exceptions."""


def plain(text: str) -> str:
    """Return a message without what the page leaves out."""
    return text.replace("`", "")


def listed(*headings: str) -> list[str]:
    """Return the messages in the tables of the sections whose heading begins so."""
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    chosen = [s for s in sections if s.startswith(headings)]
    assert chosen
    return [m for s in chosen for m in re.findall(r"^\| `([^`]+)` \|", s, re.MULTILINE)]


def said(*kinds: str) -> dict[str, str]:
    """Return where the code gives the messages of these kinds, by the message."""
    return {plain(message.text): message.place for message in messages() if message.kind in kinds}


@pytest.mark.parametrize(
    ("kind", "headings"), [("verdict", ("Verdicts",)), ("warning", ("Warnings", "Other warnings"))]
)
def test_every_message_has_its_entry(kind, headings):
    entries, given = listed(*headings), said(kind)
    assert len(entries) == len(set(entries))
    missing = {text: place for text, place in given.items() if text not in entries}
    assert not missing, f"docs/troubleshooting.md has no entry (meaning, what to do) of {missing}"
    assert not set(entries) - set(given), "docs/troubleshooting.md has what the code does not say"


def test_errors_listed_exist():
    entries, given = listed("Errors"), said("error")
    assert len(entries) > 20
    assert not set(entries) - set(given) - ELSEWHERE


def test_messages_are_found_in_the_sources():
    """Of each way in which the code gives them: a call, a returned pair, a variable, a sum."""
    verdicts, warnings, errors = said("verdict"), said("warning"), said("error")
    assert "the camera is static (...): depth cannot be triangulated..." in verdicts
    assert "the network is ... off at the points whose distance is known" in verdicts
    assert "object ... hardly moves" in warnings
    assert "warning: ... is poor input: ..." in warnings
    assert "expected one of them only" in errors
    assert len(verdicts) > 35 and len(errors) > 500
