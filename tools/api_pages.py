"""Pages of the documentation site that describe the packages of msdyn, for mkdocstrings.

Names are those of each package's `__all__`, read from its source: packages are lazy, and nothing is
imported. A name that a package takes from another one of these is described there, and linked.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGES", "api_pages"]

PACKAGES = (
    "msdyn",
    "msdyn.fit",
    "msdyn.sequence",
    "msdyn.scene",
    "msdyn.render",
    "msdyn.preprocess",
    "msdyn.export",
    "msdyn.evaluate",
    "msdyn.feedforward",
    "msdyn.geometry",
    "msdyn.motion",
    "msdyn.raster",
    "msdyn.view",
    "msdyn.batch",
    "msdyn.synthetic",
    "msdyn.io",
    "msdyn.reading",
    "msdyn.writing",
    "msdyn.logs",
    "msdyn.options",
)


@dataclass(frozen=True)
class Package:
    """The public names of a package.

    Attributes:
        summary: the first paragraph of its docstring.
        names: those of `__all__`, in their order.
        homes: module that a name is imported from, by the name; those defined here have none.
    """

    summary: str
    names: tuple[str, ...]
    homes: dict[str, tuple[str, str]]


def api_pages(root: Path) -> dict[str, str]:
    """Return the pages by their name, as Markdown.

    Args:
        root: the folder that has msdyn/ and preprocess/.
    """
    packages = {name: _read(root, name) for name in PACKAGES}
    pages = {name: _page(name, packages) for name in PACKAGES}
    rows = [f"| [`{name}`]({name}.md) | {packages[name].summary} |" for name in PACKAGES]
    head = ["# Python", "", "| package | |", "|---|---|"]
    return {"index": "\n".join([*head, *rows, ""]), **pages}


def _read(root: Path, name: str) -> Package:
    parts = name.split(".")
    folder = root / "preprocess" if parts[1:] == ["preprocess"] else root.joinpath(*parts)
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    names: tuple[str, ...] = ()
    homes: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                homes.setdefault(alias.asname or alias.name, (node.module, alias.name))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id == "__all__":
                names = tuple(ast.literal_eval(node.value))
    summary = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    return Package(summary, names, homes)


def _page(name: str, packages: dict[str, Package]) -> str:
    package = packages[name]
    lines = [f"# {name}", "", package.summary, ""]
    own = []
    elsewhere = []
    for public in package.names:
        if public.startswith("__"):
            continue
        module, original = package.homes.get(public, (name, public))
        home = _home(module, original, name, packages)
        (own if home is None else elsewhere).append((public, original, home))
    if elsewhere:
        lines += ["| name | described in |", "|---|---|"]
        lines += [f"| [`{name}.{p}`][{h}.{o}] | [`{h}`]({h}.md) |" for p, o, h in elsewhere]
    for public, _, _ in own:
        lines += ["", f"::: {name}.{public}"]
    return "\n".join([*lines, ""])


def _home(module: str, name: str, here: str, packages: dict[str, Package]) -> str | None:
    """Return the other package that has a name, None where it is this one's own."""
    if module == here or (module.startswith(f"{here}.") and here != "msdyn"):
        return None
    for other in (module, ".".join(module.split(".")[:2])):
        if other != here and other in packages and name in packages[other].names:
            return other
    return None
