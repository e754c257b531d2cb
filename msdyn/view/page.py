"""viser's page with an additional script, `page.js`, and styles for phones, `page.css`.

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
    """Return viser's page with our script before any of its own, our styles last, and our title."""
    folder = files("msdyn.view")
    script = folder.joinpath("page.js").read_text(encoding="utf-8")
    styles = folder.joinpath("page.css").read_text(encoding="utf-8")
    page = page.replace("<title>Viser</title>", "<title>msdyn</title>", 1)
    page = page.replace("<head>", f"<head>\n<script>\n{script}</script>", 1)
    return page.replace("<body>", f"<body>\n<style>\n{styles}</style>", 1)
