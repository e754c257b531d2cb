"""The viewer in a headless browser: images, playing and error messages of the page."""

import time
from contextlib import contextmanager

import numpy as np
import pytest
from bench_viewer import STEPS, open_viewer, rotating_cloud
from browser import Browser
from reverse_proxy import Proxy

from msdyn.view import Viewer


@contextmanager
def shown(folder):
    """Yield a viewer of a cloud of Gaussians and a browser that shows it."""
    folder.mkdir()
    viewer = Viewer(rotating_cloud(3000), port=0, folder=folder)
    try:
        with Browser(folder, 640, 360) as browser:
            # viser's page lowers its resolution where drawing is slow, as on a busy machine.
            open_viewer(browser, viewer, "&fixedDpr=1")
            yield viewer, browser
    finally:
        viewer.stop()


def until_equal(browsers, folder, before):
    """Return the image left of the controls, once that of all browsers is the same, and new.

    The Gaussians are sorted in the background, so an image appears some time after its frame.
    """
    end = time.monotonic() + 60
    while True:
        shots = [b.screenshot(folder / f"{i}.png")[170:, :180] for i, b in enumerate(browsers)]
        first, *others = (shot.astype(float) for shot in shots)
        difference = max(np.abs(first - other).max() for other in others)
        mean = max(np.abs(first - other).mean() for other in others)
        new = first.std() > 10 and np.abs(first - before).mean() > 3
        if (new and mean < 0.5 and difference < 20) or time.monotonic() > end:
            assert new, "no image, or that of the frame before"
            assert mean < 0.5 and difference < 20
            return first
        time.sleep(0.3)


def first_client(viewer):
    """Return the only browser that shows a viewer; one is known by its first camera."""
    end = time.monotonic() + 60
    while not viewer.server.get_clients():
        assert time.monotonic() < end
        time.sleep(0.1)
    (client,) = viewer.server.get_clients().values()
    return client


def test_in_a_browser(tmp_path, monkeypatch):
    """The page loads without errors, needs no network, scrubs, plays, and looks like viser's.

    Triangles instead of instances give the same image, except for viser's four samples per pixel at
    the faint rim of Gaussians: the difference is 0.2 of 255 on average, 9 at most.
    """
    with shown(tmp_path / "patched") as (viewer, browser):
        with monkeypatch.context() as patch:
            patch.setattr("msdyn.view.page.with_script", lambda page: page)
            with shown(tmp_path / "viser") as (plain_viewer, plain):
                image = np.zeros(1)
                for frame in (0.0, 20.0):
                    for one in (viewer, plain_viewer):
                        one.panel.go(frame)
                    image = until_equal([browser, plain], tmp_path / f"{frame:.0f}", image)
                draws = "window.msdynPage?.draws ?? null"
                assert browser.run(draws) > 0 and plain.run(draws) is None
        open_viewer(browser, viewer)
        viewer.panel.play(True)
        assert any(browser.run(STEPS.format(seconds=1)) > 0 for _ in range(30))
        assert browser.errors() == []
        urls = [event["params"]["request"]["url"] for event in browser.events
                if event.get("method") == "Network.requestWillBeSent"]  # fmt: skip
        local = (viewer.address.partition("?")[0], "data:", "blob:")
        assert urls and all(url.startswith(local) for url in urls), urls


# Buttons, boxes and fields in view order, and how far they reach; the labels of a box count too.
TARGETS = """[...document.querySelectorAll('.mantine-Paper-root button, .mantine-Paper-root input')]
  .filter(e => e.getClientRects().length && !e.closest('[role=dialog]') && e.type !== 'hidden')
  .map(e => [e.innerText || e.type, e.getBoundingClientRect().left, e.getBoundingClientRect().right,
             e.getBoundingClientRect().height])"""
PANEL = """(() => { const box = [...document.querySelectorAll('.mantine-Paper-root')]
  .find(e => e.style.position === 'fixed').getBoundingClientRect();
  return [box.left, box.right, box.top]; })()"""


@pytest.mark.slow
def test_on_a_phone(tmp_path):
    """The panel has the width of the screen, leaves half of it, and is large enough for fingers."""
    viewer = Viewer(
        rotating_cloud(300, frames=6), port=0, folder=tmp_path, export=str, formats=("ply",)
    )
    try:
        with Browser(tmp_path, 390, 844) as browser:
            browser.resize(390, 844, phone=True)
            open_viewer(browser, viewer, "&fixedDpr=1")
            browser.until(f"{TARGETS}.length > 12")  # the panel is filled control by control
            left, right, top = browser.run(PANEL)
            assert (left, right) == (0, 390) and top > 844 / 2
            assert browser.run("document.documentElement.scrollWidth") == 390
            targets = browser.run(TARGETS)
            assert len(targets) > 12
            for name, start, end, height in targets:
                assert 0 <= start < end <= 390 and height >= 26, name
            assert "token" not in browser.run("location.href + document.referrer")
            client = first_client(viewer)
            camera = viewer.sequence.cameras[0]
            half_width = camera.width / 2 / camera.intrinsics[0, 0, 0]
            assert np.tan(client.camera.fov / 2) * client.camera.aspect >= 0.99 * half_width
            assert browser.errors() == []
    finally:
        viewer.stop()


@pytest.mark.slow
def test_behind_a_proxy_below_a_path(tmp_path):
    """The page finds its websocket, and the token leaves the address bar."""
    with shown(tmp_path / "direct") as (viewer, browser):
        proxy = Proxy(viewer.access.port, pass_host=True, strip=False)
        for end in ("/msdyn/", "/msdyn"):
            browser.open(f"http://{proxy.address}{end}?token={viewer.access.token}")
            browser.until("document.body.innerText.includes('Connected')")
            assert browser.run("location.href").startswith(f"http://{proxy.address}{end}")
            assert "token" not in browser.run("location.href")
        browser.open(f"http://{proxy.address}/msdyn/")  # the cookie alone
        browser.until("document.body.innerText.includes('Connected')")
        first_client(viewer)
        assert browser.errors() == []
        proxy.listening.close()
