"""Exports of sequences whose Gaussians have life spans."""

import numpy as np
import pytest
import torch
from browser import Browser
from export.test_export_ply import read_back
from read_player import read_page, splats_at
from splats import compare

from msdyn.export import export_player, export_ply
from msdyn.render import render_image

HALVES = 0.5
"""Time, normalised, at which the lives of one half of the moving Gaussians end."""


@pytest.fixture
def living(exact):
    """Half of the moving Gaussians exist in the first half of the clip, half in the second."""
    middle = HALVES * (len(exact.timeline) - 1)
    even = torch.arange(len(exact.moving)) % 2 == 0
    infinity = torch.full((len(exact.moving),), float("inf"))
    spans = torch.stack(
        [torch.where(even, -infinity, middle), torch.where(even, middle, infinity)], 1
    )
    return exact.replaced(moving=exact.moving.with_life_spans(spans))


def test_ply_files_have_the_opacities_of_their_time(living, tmp_path):
    times = np.array([0.0, 0.5, 1.0])
    export_ply(living, tmp_path, times)
    for number, time in enumerate(times):
        stored = read_back(tmp_path / f"{number:05d}.ply")["opacities"]
        assert np.isfinite(stored).all()
        np.testing.assert_allclose(stored, living.at(time).opacities[0].detach(), atol=1e-5)


def test_the_page_has_the_opacities_of_all_times(living, tmp_path):
    times = living.timeline.times
    export_player(living, tmp_path / "a.html", times)
    header, arrays = read_page(tmp_path / "a.html")
    # None is missing because it does not exist at the first time.
    assert header["moving"] == len(living.moving)
    assert arrays["alpha"].shape == (len(times), living.num_gaussians)
    rows = compare(living, lambda time: splats_at(tmp_path / "a.html", time), [0.0, 3 / 7, 1.0])
    assert min(psnr for psnr, _, _ in rows) > 47
    for time in (0.0, 1.0):
        stored = np.sort(splats_at(tmp_path / "a.html", time).opacities)
        expected = np.sort(living.at(time).opacities[0].detach().numpy())
        np.testing.assert_allclose(stored, expected, atol=0.0021)


@pytest.mark.slow
def test_the_page_draws_what_exists(living, tmp_path):
    export_player(living, tmp_path / "a.html", living.timeline.times)
    width, height = 96 * 5, 72 * 5
    shots = {}
    with Browser(tmp_path, width, height) as browser:
        browser.open((tmp_path / "a.html").as_uri())
        browser.until("window.player && player.ready")
        browser.run(
            "player.playing = player.adaptive = false;"
            "document.getElementById('bar').style.display = 'none'"
        )
        for frame in (0, 7):
            time = float(living.timeline.times[frame])
            browser.run(
                f"player.time = {time};"
                "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
            )
            shots[frame] = browser.screenshot(tmp_path / f"{frame}.png").astype(float)
            camera = living.cameras[frame].resized(width, height)
            expected = render_image(living, camera, time, order="own").rgb8
            assert np.abs(shots[frame] - expected).mean() < 2.0
        assert browser.errors() == []
