"""viser's page with a script of ours in front, `page.js`.

The script keeps one needless complaint of the page from the console and, where the browser draws in
software, has Gaussians drawn as one list of triangles in place of instances.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

__all__ = ["our_page"]

_PATCHING = threading.Lock()


@contextmanager
def our_page() -> Iterator[tempfile.TemporaryDirectory[str]]:
    """Have a `viser.ViserServer` that is made within serve our page instead of its own.

    Which folder a server serves is not among viser's options, so the class of its inner server is
    replaced meanwhile.

    Yields:
        The folder, which must live as long as the server.
    """
    from viser import infra

    inner = infra.WebsockServer
    folder = tempfile.TemporaryDirectory(prefix="msdyn-view-")

    class OurServer(inner):
        def __init__(self, *args: Any, http_server_root: Path | None = None, **more: Any) -> None:
            page = http_server_root / "index.html" if http_server_root is not None else None
            if page is not None and page.is_file():
                text = with_our_script(page.read_text(encoding="utf-8"))
                (Path(folder.name) / "index.html").write_text(text, encoding="utf-8")
                http_server_root = Path(folder.name)
            super().__init__(*args, http_server_root=http_server_root, **more)

    with _PATCHING:
        infra.WebsockServer = OurServer
        try:
            yield folder
        finally:
            infra.WebsockServer = inner


def with_our_script(page: str) -> str:
    """Return viser's page with `page.js` before any script of its own, and our title."""
    script = files("msdyn.view").joinpath("page.js").read_text(encoding="utf-8")
    page = page.replace("<title>Viser</title>", "<title>msdyn</title>", 1)
    return page.replace("<head>", f"<head>\n<script>\n{script}</script>", 1)
