"""The viewer in a headless browser: images, frame rate and error messages of the page."""

import time

import numpy as np
import pytest
import torch
from browser import Browser

from msdyn.geometry import Cameras, look_at
from msdyn.motion import MotionField
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.weights import BlendWeights
from msdyn.scene import Timeline
from msdyn.sequence import Gaussians, GaussianSequence
from msdyn.view import Viewer


def many_gaussians(count=30_000, frames=60):
    """A cloud of small Gaussians, a third of it static, the rest rotating about its centre."""
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.normal(size=(count, 3)) * [1, 0.6, 1]).float()
    colours = torch.from_numpy(rng.random((count, 3))).float()
    gaussians = [
        Gaussians.from_points(points[part], colours[part], torch.full((n,), 0.008), opacity=0.9)
        for part, n in (
            (slice(0, count // 3), count // 3),
            (slice(count // 3, count), 2 * count // 3),
        )
    ]
    angle = torch.linspace(0, 3, frames)
    turn = torch.stack(
        [angle.cos(), 0 * angle, -angle.sin(), 0 * angle, 0 * angle + 1, 0 * angle], -1
    )
    moving = len(gaussians[1])
    patterns = PatternField(
        [torch.zeros(1, 3)], [turn[None]], [torch.zeros(1, frames, 3)], [torch.zeros(1).long()],
        torch.arange(float(frames)), torch.tensor([1]),
    )  # fmt: skip
    weights = BlendWeights(torch.zeros(moving, 1).long(), torch.zeros(moving, 1))
    poses = [look_at(np.array([0, 0, -4.0]), np.zeros(3), np.array([0, 1.0, 0]))] * frames
    return GaussianSequence(
        *gaussians,
        MotionField(patterns, [weights]),
        torch.ones(moving).long(),
        timeline=Timeline.uniform(frames, 30.0),
        cameras=Cameras.pinhole(300.0, 320, 240, np.stack(poses)),
        canonical_frame=0, world_units="metric",
    )  # fmt: skip


# Counts the times shown by the page within some seconds, by the number next to the slider.
COUNT = """new Promise(done => {
  const seen = [], begun = performance.now();
  const box = [...document.querySelectorAll('input')].find(i => i.value !== '' && !isNaN(i.value));
  (function look() {
    if (seen[seen.length - 1] !== box.value) seen.push(box.value);
    if (performance.now() - begun < 4000) requestAnimationFrame(look);
    else done((seen.length - 1) / 4);
  })();
})"""


def opened(browser, viewer):
    """Open a viewer and wait until it is connected."""
    browser.open(viewer.address)
    browser.until("!!document.querySelector('canvas')")
    browser.until("document.body.innerText.includes('Connected')")
    for frame in range(len(viewer.sequence.timeline)):  # fills the cache of the server
        viewer.source.moving(float(frame), viewer.state.display)


def pictures(browser, viewer, folder):
    """Return the image left of the controls at two times, once it no longer changes."""
    shots = [np.zeros(1)]
    for frame in (0.0, 20.0):
        viewer.panel.go(frame)
        begun, last = time.monotonic(), np.zeros(1)
        while time.monotonic() < begun + 40:
            time.sleep(1.5)
            shot = browser.screenshot(folder / f"frame_{frame:.0f}.png")[170:, :180]
            another = shot.std() > 10 and not np.array_equal(shot, shots[-1])
            if another and np.array_equal(shot, last):
                break
            last = shot
        shots.append(shot)
    return np.stack(shots[1:]).astype(float)


@pytest.mark.slow
def test_in_a_browser(tmp_path, monkeypatch):
    """It loads without errors, renders, scrubs and plays; screenshots and frame rates are saved."""
    viewer = Viewer(many_gaussians(), port=8230, folder=tmp_path)
    try:
        with Browser(tmp_path, 480, 360) as browser:
            opened(browser, viewer)
            images = pictures(browser, viewer, tmp_path)
            # Not blank, and different at another time.
            assert images[0].std() > 10
            assert np.abs(images[0] - images[1]).mean() > 3
            viewer.panel.play(True)
            rates = {"480x360": browser.run(COUNT)}
            browser.resize(320, 240)
            rates["320x240"] = browser.run(COUNT)
            assert browser.errors() == []
            urls = [event["params"]["request"]["url"] for event in browser.events
                     if event.get("method") == "Network.requestWillBeSent"]  # fmt: skip
            local = (viewer.address, "data:", "blob:")  # works offline
            assert urls and all(url.startswith(local) for url in urls), urls
    finally:
        viewer.stop()
    monkeypatch.setattr("msdyn.view.page.with_script", lambda page: page)
    viewer = Viewer(many_gaussians(), port=8235, folder=tmp_path)
    (tmp_path / "plain").mkdir()
    try:
        with Browser(tmp_path / "plain", 480, 360) as browser:
            opened(browser, viewer)
            viewer.panel.play(True)
            plain = browser.run(COUNT)
    finally:
        viewer.stop()
    rates_text = "".join(f"{size}: {rate} steps per second\n" for size, rate in rates.items())
    rates_text += f"480x360 with viser's page: {plain}\n"
    (tmp_path / "rate.txt").write_text(rates_text, encoding="utf-8")
    # The frame rate depends on the computer (docs/viewer.md), but was more than twice viser's.
    assert rates["480x360"] > 1.5 * plain, rates_text


@pytest.mark.slow
def test_the_patched_page_renders_like_viser(tmp_path, monkeypatch):
    """Triangles instead of instances give the same image, except for viser's four samples per pixel
    at the faint rim of Gaussians: the difference is 0.2 of 255 on average, 9 at most."""
    images = {}
    for name in ("patched", "viser"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "viser":
            monkeypatch.setattr("msdyn.view.page.with_script", lambda page: page)
        viewer = Viewer(many_gaussians(3000), port=8240, folder=folder)
        try:
            with Browser(folder, 480, 360) as browser:
                opened(browser, viewer)
                images[name] = pictures(browser, viewer, folder)
                draws = browser.run("window.msdynPage?.draws ?? null")
                assert (draws is None) == (name == "viser") and draws != 0
        finally:
            viewer.stop()
    assert images["patched"].std() > 10
    difference = np.abs(images["patched"] - images["viser"])
    assert difference.mean() < 0.5 and difference.max() < 20
