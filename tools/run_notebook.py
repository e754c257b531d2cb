"""Run a notebook's cells in order in this process, and keep what they show.

    python tools/run_notebook.py examples/tour.ipynb

writes the outputs into the notebook: what cells print, and an image where the last line of a cell
is one. No kernel of Jupyter is needed.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

__all__ = ["run_cells"]


def run_cells(notebook: dict[str, Any], names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the code cells of a notebook, replace their outputs, and return the names they define.

    Args:
        notebook: content of an .ipynb file, whose outputs are changed.
        names: defined before the first cell.
    """
    names = {"__name__": "__main__", **(names or {})}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(cells, 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = _run("".join(cell["source"]), names)
        outputs: list[dict[str, Any]] = []
        if printed.getvalue():
            lines = printed.getvalue().splitlines(keepends=True)
            outputs.append({"output_type": "stream", "name": "stdout", "text": lines})
        if value is not None:
            outputs.append(_shown(value, count))
        cell |= {"outputs": outputs, "execution_count": count}
    return names


def _run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "cell", "exec"), names)
        return None
    tree.body.pop()
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def _shown(value: Any, count: int) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": [repr(value)]}
    if hasattr(value, "save") and hasattr(value, "mode"):  # an image of Pillow
        file = io.BytesIO()
        value.save(file, "JPEG", quality=85)
        data["text/plain"] = ["<image>"]
        data["image/jpeg"] = base64.b64encode(file.getvalue()).decode()
    kind = {"output_type": "execute_result", "execution_count": count}
    return {**kind, "data": data, "metadata": {}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    path: Path = parser.parse_args().notebook
    content = json.loads(path.read_text(encoding="utf-8"))
    run_cells(content)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
