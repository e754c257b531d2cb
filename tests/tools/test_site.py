"""Pages of the site that are made of the code: options, packages, links, notebooks."""

import ast
import re
from pathlib import Path

import pytest
from api_pages import PACKAGES, api_pages
from command_options import SCRIPTS, parsers_of
from command_pages import command_page, overview_page
from notebook_pages import notebook_page

from msdyn.cli.options import options_of

ROOT = Path(__file__).parents[2]
mkdocs = pytest.importorskip("mkdocs", reason="needs msdyn[docs]")


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_command_has_every_option_with_its_default_and_range(command):
    page = command_page(command)
    names = re.findall(r'<dt id="([^"]+)">', page)
    assert len(names) == len(set(names)), "an anchor is there twice"
    for parser in parsers_of(command):
        prefix = "-".join((*parser.start, *(word.strip("-") for word in parser.variant)))
        for option in options_of(parser.config, parser.default):
            name = f"{prefix}-{option.name}" if prefix else option.name
            assert f"option-{name}" in names
    assert f"[`{command}`]({command}.md)" in overview_page()


def test_the_page_of_a_command_says_what_help_says():
    page = command_page("msdyn-fit")
    assert "<code>--epochs N</code> <span" in page and "1 to 1000000; default: 40" in page
    assert "<code>--preset {quick,default,paper}</code>" in page
    assert "<dd>Passes over the frames.</dd>" in page
    assert "msdyn-fit scene --preset quick  # minutes on a CPU" in page


def test_every_public_name_is_described_once():
    pages = api_pages(ROOT)
    for name in PACKAGES:
        folder = (
            ROOT / "preprocess" if name.endswith(".preprocess") else ROOT / Path(*name.split("."))
        )
        tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
        (public,) = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        described = re.findall(rf"^::: {re.escape(name)}\.(\w+)$", pages[name], re.MULTILINE)
        linked = re.findall(rf"^\| \[`{re.escape(name)}\.(\w+)`\]", pages[name], re.MULTILINE)
        assert sorted(described + linked) == sorted(n for n in public if not n.startswith("__"))
    linked = re.findall(r"\[`msdyn\.fit_scene`\]\[([\w.]+)\]", pages["msdyn"])
    assert linked == ["msdyn.fit.fit_scene"]


def test_all_packages_with_public_names_have_a_page():
    found = {f"msdyn.{p.parent.name}" for p in (ROOT / "msdyn").glob("*/__init__.py")}
    assert found - set(PACKAGES) <= {"msdyn.cli", "msdyn.demo", "msdyn.preprocess"}


def test_links_lead_to_pages_of_the_site():
    import site_hooks

    class Page:
        class file:
            src_uri = "index.md"

    def moved(text: str, page: str = "index.md") -> str:
        Page.file.src_uri = page
        return site_hooks.on_page_markdown(text, page=Page, config=None, files=None)

    assert moved("[a](docs/ends.md#memory-disk-and-time)") == "[a](ends.md#memory-disk-and-time)"
    assert moved("![a](docs/images/demo.jpg)") == "![a](images/demo.jpg)"
    assert moved("[a](examples)") == "[a](sources/examples/index.md)"
    assert moved("[a](CONTRIBUTING.md)") == "[a](project/contributing.md)"
    assert moved("[a](../README.md#limits)", "ends.md") == "[a](index.md#limits)"
    assert moved("[a](../docs/ends.md)", "sources/examples/tour.ipynb.md") == "[a](../../ends.md)"
    same = "[a](#here) [b](https://example.org) [c](no/such/file.md)"
    assert moved(same) == same


def test_what_a_page_loads_is_told_from_what_it_links():
    from site_hooks import ADDRESS, LOADS

    def loaded(text: str) -> list[str]:
        return [url for tag in LOADS.findall(text) for url in ADDRESS.findall(tag)]

    assert loaded('<script src="https://a.b/c.js">') == ["https://a.b/c.js"]
    assert loaded("<link rel=stylesheet href=//a.b/c.css>") == ["//a.b/c.css"]
    assert loaded('<a href="https://a.b"></a><img src="data:image/png;base64,//aa">') == []
    assert loaded('<img src="images/a.png"><link rel="canonical" href="https://a.b">') == []


def test_a_notebook_as_a_page():
    cells = [
        {"cell_type": "markdown", "source": ["# A\n", "b"]},
        {
            "cell_type": "code",
            "source": ["print(1)"],
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"output_type": "execute_result", "data": {"image/jpeg": "QUJD"}},
            ],
        },
    ]
    page = notebook_page({"cells": cells})
    assert page.startswith("# A\nb\n\n````python\nprint(1)\n````\n\n````text\n1\n````\n\n<img ")
    assert "data:image/jpeg;base64,QUJD" in page
