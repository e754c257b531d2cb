"""Pages of the documentation site that are made of other files and of the code (mkdocs.yml).

The files of docs/ stand in the site as they are. Added to them are:

- the README as the first page, and the other Markdown files of the top folder;
- a page for every file that a page links outside docs/, such as an example, so that no link
  depends on where the repository is;
- a page for every command and for every package of Python;
- the tour, a notebook, with what its cells printed.

Nothing is written into docs/.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api_pages import PACKAGES, api_pages
from command_options import SCRIPTS
from command_pages import command_pages, overview_page
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from notebook_pages import notebook_page

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "build" / "site_sources"
ORIGINS = {
    "index.md": "README.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/changelog.md": "CHANGELOG.md",
}
"""Files of the top folder that are pages, by the page."""
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)((?:#[^)\s]*)?\))")
LOADS = re.compile(r"<(?:script|img|iframe|source|link(?![^>]*rel=.?canonical))\b[^>]*>")
"""Elements of a page that load what they name."""
ADDRESS = re.compile(r"""(?:src|href)=["']?((?:https?:)?//[^\s"'>]+)""")
LANGUAGES = {".py": "python", ".json": "json", ".cff": "yaml", ".yml": "yaml", ".toml": "toml"}


def on_startup(**_: Any) -> None:
    """Lay out the sources as they are installed: preprocess/ as a folder of msdyn.

    mkdocstrings leaves out folders that are not there when it reads its options, which comes next.
    """
    shutil.rmtree(SOURCES, ignore_errors=True)
    (SOURCES / "msdyn").mkdir(parents=True)
    for path in (ROOT / "msdyn").iterdir():
        if path.name != "preprocess":
            (SOURCES / "msdyn" / path.name).symlink_to(path)
    (SOURCES / "msdyn" / "preprocess").symlink_to(ROOT / "preprocess")


def on_config(config: Any) -> Any:
    """Name the pages of the commands and of the packages in the navigation."""
    made = {
        "commands": [{"Overview": "commands/index.md"}]
        + [{name: f"commands/{name}.md"} for name in SCRIPTS],
        "api": [{"Overview": "api/index.md"}] + [{name: f"api/{name}.md"} for name in PACKAGES],
    }
    for section in config.nav:
        for title, content in section.items():
            if isinstance(content, str):
                section[title] = made.get(content, content)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not files of docs/."""
    added = {page: (ROOT / origin).read_text(encoding="utf-8") for page, origin in ORIGINS.items()}
    added["commands/index.md"] = overview_page()
    added |= {f"commands/{name}.md": text for name, text in command_pages().items()}
    added |= {f"api/{name}.md": text for name, text in api_pages(ROOT).items()}
    texts = added | {file.src_uri: file.content_string for file in files.documentation_pages()}
    for page, text in texts.items():
        for linked in _linked(page, text):
            for path in (linked, *_inside(linked)):
                if _place(path).startswith("sources/"):
                    added.setdefault(_place(path), _source_page(path))
    for page, text in added.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Let links of a page lead to where the site has what they name."""
    uri = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        target = _resolved(uri, match[2])
        if target is None:  # MkDocs warns of it
            return match[0]
        place = _place(target)
        return match[1] + posixpath.relpath(place, posixpath.dirname(uri) or ".") + match[3]

    return LINK.sub(moved, markdown)


def on_post_build(config: Any) -> None:
    """Refuse a site whose pages would load something from elsewhere.

    Raises:
        PluginError: with the pages and addresses.
    """
    found = []
    for path in Path(config.site_dir).rglob("*.html"):
        for tag in LOADS.findall(path.read_text(encoding="utf-8")):
            found += [f"{path.name}: {url}" for url in ADDRESS.findall(tag)]
    if found:
        raise PluginError(f"pages load from elsewhere: {', '.join(sorted(set(found))[:5])}")


def _origin(page: str) -> str:
    """Return the path of the file that a page is made of, from the top folder."""
    if page.startswith("sources/"):
        return page.removeprefix("sources/").removesuffix(".md")
    return ORIGINS.get(page, f"docs/{page}")


def _resolved(page: str, target: str) -> str | None:
    """Return the path of what a page links from the top folder; None where there is nothing."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(_origin(page)), target))
    return path if (ROOT / path).exists() else None


def _linked(page: str, text: str) -> Iterator[str]:
    for match in LINK.finditer(text):
        if (path := _resolved(page, match[2])) is not None:
            yield path


def _place(path: str) -> str:
    """Return where the site has a file or folder."""
    for page, origin in ORIGINS.items():
        if path == origin:
            return page
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"sources/{path}{'/index' if (ROOT / path).is_dir() else ''}.md"


def _inside(path: str) -> list[str]:
    """Return the paths of the files in a folder that a page links outside docs/."""
    if path.startswith("docs") or not (ROOT / path).is_dir():
        return []
    files = sorted(file for file in (ROOT / path).iterdir() if file.is_file())
    return [f"{path}/{file.name}" for file in files if not file.name.startswith(".")]


def _source_page(path: str) -> str:
    """Return the page of a file, or of the files in a folder, outside docs/."""
    source = ROOT / path
    if source.is_dir():
        names = [posixpath.basename(inside) for inside in _inside(path)]
        items = [f"- [{name}]({name}.md)" for name in names]
        return "\n".join([f"# {path}/", "", *items, ""])
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".ipynb":
        return notebook_page(json.loads(text))
    fence = "`" * 4
    language = LANGUAGES.get(source.suffix, "text")
    return f"# {path}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"
