"""A notebook as a page of the documentation site: its text, cells, and what these printed."""

from __future__ import annotations

from typing import Any

__all__ = ["notebook_page"]

_FENCE = "`" * 4


def notebook_page(notebook: dict[str, Any]) -> str:
    """Return a notebook (the content of an .ipynb file) as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"{_FENCE}python\n{source}\n{_FENCE}")
        parts += [part for out in cell["outputs"] if (part := _output(out))]
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/jpeg" in data:
        return f'<img alt="What the cell shows" src="data:image/jpeg;base64,{data["image/jpeg"]}">'
    text = "".join(output.get("text") or data.get("text/plain", []))
    return f"{_FENCE}text\n{text.rstrip()}\n{_FENCE}" if text else ""
