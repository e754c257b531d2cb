"""The messages that the code can give, read from its sources: verdicts, warnings, errors.

Each is one text in which "..." stands for what is filled in, as the troubleshooting page quotes it:

    python tools/messages.py --kind verdict
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["KINDS", "Message", "messages"]

ROOT = Path(__file__).parents[1]
KINDS = ("verdict", "warning", "error")
_ERRORS = {"InputError", "PoorInputError", "ResourceError", "MissingExtraError", "OptionError"}
_FILLED = re.compile(r"%[-+.\d]*[sdfgr]")


@dataclass(frozen=True)
class Message:
    """A message.

    Attributes:
        kind: one of `KINDS`.
        text: with "..." for what is filled in.
        place: file and line.
    """

    kind: str
    text: str
    place: str


@cache
def messages() -> tuple[Message, ...]:
    """Return all messages of msdyn and preprocess, in the order of their files."""
    found = []
    for folder in ("msdyn", "preprocess"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("msdyn/preprocess/"):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                found += [Message(kind, text, f"{name}:{line}") for kind, text, line in _said(tree)]
    return tuple(dict.fromkeys(found))


def _said(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Yield kind, text and line of the messages of a module."""
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    for scope in (n for body in bodies for n in body if isinstance(n, ast.FunctionDef)):
        nodes = list(ast.walk(scope))
        named = {
            node.targets[0].id: node.value
            for node in nodes
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in nodes:
            for kind, said in _values(node):
                value = named.get(said.id, said) if isinstance(said, ast.Name) else said
                text = template(value)
                if text is not None and len(re.findall(r"[a-z]{2,}", text)) > 1:
                    yield kind, text, node.lineno
        if scope.name.startswith("_why"):
            for node in nodes:
                if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                    text = template(node.value.elts[0])
                    if text is not None:
                        yield "verdict", text, node.lineno


def _values(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the kind and the expression of what a call says."""
    if not isinstance(node, ast.Call):
        return
    name, arguments = ast.unparse(node.func), node.args
    if name == "Verdict" and len(arguments) > 1:
        yield "verdict", arguments[1]
    elif name == "_graded":
        yield "verdict", arguments[3]
    elif name == "Warning" or name in ("_log.warning", "report.warnings.append") and arguments:
        yield "warning", arguments[0]
    elif name in _ERRORS and arguments:
        yield "error", arguments[-1]


def template(node: ast.expr) -> str | None:
    """Return the text of an expression, "..." for what is filled in; None if it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = _FILLED.sub("...", node.value)
    elif isinstance(node, ast.JoinedStr):
        parts = (v.value if isinstance(v, ast.Constant) else "..." for v in node.values)
        text = "".join(map(str, parts))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = template(node.left), template(node.right)
        text = "".join("..." if side is None else side for side in sides)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".rstrip"):
        return template(node.func.value) if isinstance(node.func, ast.Attribute) else None
    else:
        return None
    return " ".join(re.sub(r"(\.\.\.[%\s]*)+(?=\.\.\.)", "", text).split())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="verdict", help="which messages")
    for message in messages():
        if message.kind == parser.parse_args().kind:
            print(f"{message.text}\n    {message.place}")
