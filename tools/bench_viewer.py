"""Measure how many time steps per second the viewer's page shows while it plays, in this browser.

    python tools/bench_viewer.py                   # Debian: chromium, or chromium libgl1-mesa-dri

A cloud of 30 000 Gaussians, 20 000 of them moving, at 30 frames per second; also with viser's own
rendering instead of msdyn's. Without a GPU the browser draws in software.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from browser import Browser

from msdyn.geometry import Cameras, look_at
from msdyn.motion import MotionField
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.weights import BlendWeights
from msdyn.scene import Timeline
from msdyn.sequence import Gaussians, GaussianSequence
from msdyn.view import Viewer, page

# The number next to the slider.
TIME_BOX = "[...document.querySelectorAll('input')].find(i => i.value !== '' && !isNaN(i.value))"
# Counts the times that it shows within some seconds.
STEPS = (
    """new Promise(done => {{
  const seen = [], begun = performance.now();
  const box = """
    + TIME_BOX
    + """;
  (function look() {{
    if (seen[seen.length - 1] !== box.value) seen.push(box.value);
    if (performance.now() - begun < 1000 * {seconds}) requestAnimationFrame(look);
    else done((seen.length - 1) / {seconds});
  }})();
}})"""
)


def main() -> int:
    for rendering in ("msdyn", "viser"):
        with tempfile.TemporaryDirectory() as folder:
            for size, rate in rates(rendering, Path(folder)).items():
                print(f"{rendering}, {size}: {rate} steps per second")
    return 0


def rates(rendering: str, folder: Path) -> dict[str, float]:
    """Return the steps per second by window size."""
    found = {}
    patched = page.with_script if rendering == "msdyn" else lambda html: html
    with patch("msdyn.view.page.with_script", patched):
        viewer = Viewer(rotating_cloud(30_000), port=0, folder=folder)
    try:
        with Browser(folder, 480, 360) as browser:
            open_viewer(browser, viewer)
            viewer.panel.play(True)
            for width, height in ((480, 360), (320, 240)):
                browser.resize(width, height)
                found[f"{width}x{height}"] = browser.run(STEPS.format(seconds=4))
    finally:
        viewer.stop()
    return found


def open_viewer(browser: Browser, viewer: Viewer, query: str = "") -> None:
    """Open a viewer, wait until it is connected, and fill the cache of its server."""
    browser.open(viewer.address + query)
    browser.until("!!document.querySelector('canvas')")
    browser.until("document.body.innerText.includes('Connected')")
    browser.until(f"!!{TIME_BOX}")  # the panel comes after the connection
    for frame in range(len(viewer.sequence.timeline)):
        viewer.source.moving(float(frame), viewer.state.display)


def rotating_cloud(count: int, frames: int = 60) -> GaussianSequence:
    """Return a cloud of small Gaussians, a third static, the rest rotating about its centre."""
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


if __name__ == "__main__":
    sys.exit(main())
