"""viser's page with an additional script, `page.js`.

The script removes the token from the address bar, suppresses one harmless error message of the
page and, where the browser renders in software, draws Gaussians as a list of triangles instead of
instances, which is faster.
"""

from __future__ import annotations

from importlib.resources import files

__all__ = ["viewer_page", "with_script"]


def viewer_page() -> str:
    """Return the page, which has all its scripts and styles in itself."""
    page = files("viser").joinpath("client", "build", "index.html").read_text(encoding="utf-8")
    return with_script(page)


def with_script(page: str) -> str:
    """Return viser's page with `page.js` before any script of its own, and msdyn's title."""
    script = files("msdyn.view").joinpath("page.js").read_text(encoding="utf-8")
    page = page.replace("<title>Viser</title>", "<title>msdyn</title>", 1)
    return page.replace("<head>", f"<head>\n<script>\n{script}</script>", 1)
