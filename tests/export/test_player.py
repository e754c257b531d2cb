"""The page that plays a sequence, opened as a file in a headless browser."""

import base64
import gzip
import json
import re

import numpy as np
import pytest
from browser import Browser

from msdyn.errors import InputError
from msdyn.export import export_player
from msdyn.render import render_image
from msdyn.sequence import PartSelection


def unpacked(path):
    """Return header and bytes of a page."""
    page = path.read_text(encoding="utf-8")
    data = re.search(r'type="text/plain">([^<]*)<', page)
    header = re.search(r'<script type="application/json" id="header">([^<]*)</script>', page)
    assert data and header
    return json.loads(header[1]), gzip.decompress(base64.b64decode(data[1]))


def test_the_stored_arrays_are_the_sequence(exact, tmp_path):
    times = np.linspace(0, 1, 3)
    export_player(exact, tmp_path / "a.html", times)
    header, blob = unpacked(tmp_path / "a.html")
    part = {row["name"]: row for row in header["parts"]}
    kinds = {"f4": "<f4", "u2": "<u2", "i2": "<i2", "u1": "u1", "i1": "i1"}

    def array(name):
        row = part[name]
        return np.frombuffer(blob, kinds[row["kind"]], row["count"], row["offset"])

    stored = array("moving_positions").reshape(3, -1, 3) * header["step"] + header["low"]
    for row, time in zip(stored, times, strict=True):
        expected = exact.at(time).means[0, len(exact.static) :].detach().numpy()
        assert np.abs(row - expected).max() < max(header["step"])  # 16 bits of the extent
    assert max(header["step"]) < 1e-4
    np.testing.assert_array_equal(
        array("fixed_positions").reshape(-1, 3), exact.static.means.detach().numpy()
    )
    assert header["labels"] == [0, 1, 2] and header["times"] == [0, 0.5, 1]


def test_nothing_is_fetched_from_elsewhere(exact, tmp_path):
    export_player(exact, tmp_path / "a.html", np.linspace(0, 1, 2), title="<b>&")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:https?:)?//[a-z]+\.", page) and "src=" not in page
    assert "<title>&lt;b&gt;&amp;</title>" in page


def test_times_must_increase(exact, tmp_path):
    with pytest.raises(InputError, match="increasing times"):
        export_player(exact, tmp_path / "a.html", np.array([0.5, 0.2]))


@pytest.mark.slow
def test_it_plays_and_renders_like_msdyn(exact, tmp_path):
    export_player(exact, tmp_path / "a.html", exact.timeline.times)
    width, height = 96 * 5, 72 * 5
    with Browser(tmp_path, width, height) as browser:
        browser.open((tmp_path / "a.html").as_uri())
        browser.until("window.player && player.ready")
        assert browser.errors() == []
        # It plays automatically, and the time advances.
        start = browser.run("player.steps")
        browser.until(f"player.steps > {start + 3}")
        browser.run("player.playing = false; document.getElementById('bar').hidden = true;"
                    "document.getElementById('bar').style.display = 'none'")  # fmt: skip
        shots = []
        for frame in (0, 7):
            time = float(exact.timeline.times[frame])
            browser.run(
                f"player.time = {time};"
                "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
            )
            shots.append(browser.screenshot(tmp_path / f"{frame}.png").astype(float))
            camera = exact.cameras[frame].resized(width, height)
            expected = render_image(exact, camera, time).rgb8
            difference = np.abs(shots[-1] - expected)
            # Quaternions have 8 bits, colours are blended in 8 bits; measured 1.0 of 255.
            assert difference.mean() < 2.0
            assert expected.std() > 20
        assert np.abs(shots[0] - shots[1]).mean() > 5  # scrubbing changes the image
        # Objects can be hidden, and the view rotated by dragging.
        browser.run("player.shown[1] = player.shown[2] = false")
        browser.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        without = browser.screenshot().astype(float)
        expected = render_image(exact, camera, time, objects=[]).rgb8
        assert np.abs(without - expected).mean() < 2.0
        for kind, x in (("mousePressed", 200), ("mouseMoved", 260), ("mouseReleased", 260)):
            browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=150, button="left",
                         buttons=1, clickCount=1)  # fmt: skip
        browser.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        assert np.abs(browser.screenshot().astype(float) - without).mean() > 5
        assert browser.run("player.follow") is False
        assert browser.errors() == []


def test_a_part_of_the_sequence(exact, tmp_path):
    what = PartSelection(objects="2", background="off")
    export_player(exact, tmp_path / "a.html", np.linspace(0, 1, 2), what)
    header, _ = unpacked(tmp_path / "a.html")
    assert header["labels"] == [2] and header["fixed"] == 0
    assert header["moving"] == int((exact.labels == 2).sum())
