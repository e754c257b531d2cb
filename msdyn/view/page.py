"""viser's page with an additional script, `page.js`.

The script suppresses one harmless error message of the page and, where the browser renders in
software, draws Gaussians as a list of triangles instead of instances, which is faster.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from msdyn.interruption import keep_temporary

__all__ = ["patched_page"]

_PATCHING = threading.Lock()


@contextmanager
def patched_page() -> Iterator[tempfile.TemporaryDirectory[str]]:
    """Make a `viser.ViserServer` created inside the context serve the patched page.

    viser has no option for the folder that it serves, so the class of its inner server is replaced
    during the context.

    Yields:
        The folder, which must live as long as the server.
    """
    from viser import infra

    inner = infra.WebsockServer
    folder = tempfile.TemporaryDirectory(prefix="msdyn-view-")
    keep_temporary(Path(folder.name))

    class PatchedServer(inner):
        def __init__(
            self, *args: Any, http_server_root: Path | None = None, **options: Any
        ) -> None:
            page = http_server_root / "index.html" if http_server_root is not None else None
            if page is not None and page.is_file():
                text = with_script(page.read_text(encoding="utf-8"))
                (Path(folder.name) / "index.html").write_text(text, encoding="utf-8")
                http_server_root = Path(folder.name)
            super().__init__(*args, http_server_root=http_server_root, **options)

    with _PATCHING:
        infra.WebsockServer = PatchedServer
        try:
            yield folder
        finally:
            infra.WebsockServer = inner


def with_script(page: str) -> str:
    """Return viser's page with `page.js` before any script of its own, and msdyn's title."""
    script = files("msdyn.view").joinpath("page.js").read_text(encoding="utf-8")
    page = page.replace("<title>Viser</title>", "<title>msdyn</title>", 1)
    return page.replace("<head>", f"<head>\n<script>\n{script}</script>", 1)
