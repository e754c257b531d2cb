"""The page that plays a sequence: what it stores, and that it plays in a headless browser."""

import re

import numpy as np
import pytest
import torch
from browser import Browser
from evaluate.exact_fits import exact_sequence
from read_player import _numbers, read_page, splats_at
from splats import compare

from msdyn.errors import InputError
from msdyn.export import export_player
from msdyn.export.player_pack import pack_array
from msdyn.geometry import Cameras, rotations_from_quats_wxyz
from msdyn.render import render_image
from msdyn.sequence import Gaussians, PartSelection

QUIET = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
AT_REST = (
    "player.playing = player.adaptive = false; document.getElementById('bar').style.display = "
    "'none'"
)


@pytest.fixture(scope="module")
def slanted(truth):
    """The exact sequence of three key frames with Gaussians of all shapes and orientations."""
    exact = exact_sequence(truth, [0, 3, 7])
    random = torch.Generator().manual_seed(0)

    def dressed(gaussians):
        count = len(gaussians)
        return Gaussians(
            # None coincide: equal depths are drawn in the order of the file.
            gaussians.means + 0.01 * torch.randn(count, 3, generator=random),
            gaussians.log_scales + 0.5 * torch.randn(count, 3, generator=random),
            torch.randn(count, 4, generator=random),
            gaussians.opacity_logits + torch.randn(count, generator=random),
            gaussians.harmonics * 1.3,  # some colours are brighter than white
        )

    return exact.replaced(static=dressed(exact.static), moving=dressed(exact.moving))


@pytest.mark.parametrize("shape", [(6, 50), (3, 0), (1, 7)])
@pytest.mark.parametrize("largest", [3, 300, 2**27])
def test_whole_numbers_are_read_back(shape, largest):
    values = np.random.default_rng(0).integers(-largest, largest, shape)
    smooth = values // max(largest, 1) + np.arange(shape[1])  # differences are smaller
    for array in (values, smooth, smooth.cumsum(0)):
        row, content = pack_array(array, 3 if len(array) % 3 == 0 else 1)
        np.testing.assert_array_equal(_numbers(row | {"offset": 2}, b"xx" + content), array)


def test_the_page_has_the_gaussians(slanted, tmp_path):
    times = np.linspace(0, 1, 3)
    page = tmp_path / "a.html"
    export_player(slanted, page, times)
    header, _ = read_page(page)
    assert header["labels"] == [0, 1, 2] and header["times"] == [0, 0.5, 1]
    camera = slanted.cameras[0]
    for time in (0.0, 0.5, 1.0):
        posed, found = slanted.at(time), splats_at(page, time)
        assert len(found.means) == slanted.num_gaussians == header["fixed"] + header["moving"]
        means = posed.means[0].detach().numpy()
        quats, scales = posed.quats_wxyz[0].detach()[::301], posed.scales.detach().numpy()[::301]
        # They are in another order; sizes tell apart those of one place.
        mine = np.concatenate([means[::301], np.sort(np.log(scales)) / 10], axis=1)
        theirs = np.concatenate([found.means, np.sort(np.log(found.scales)) / 10], axis=1)
        rows = [int(np.square(theirs - row).sum(1).argmin()) for row in mine]
        assert np.abs(found.means[rows] - means[::301]).max() < 0.51 * header["step"] + 1e-6
        # Axes may have other names and signs: the ellipsoid is the same.
        covariance = ellipsoids(quats, scales)
        other = ellipsoids(torch.from_numpy(found.quats_wxyz[rows]), found.scales[rows])
        size = np.abs(covariance).max((1, 2))
        assert (np.abs(covariance - other).max((1, 2)) / size).max() < 0.03
        opacities = posed.opacities[0].detach()[::301]
        np.testing.assert_allclose(found.opacities[rows], opacities, atol=0.0021)
    # The step is an eighth of half a pixel, for all but the nearest 2 %.
    row = camera.cam_from_world[0, 2]
    near = np.quantile(means @ row[:3] + row[3], 0.02)
    assert header["step"] * camera.intrinsics[0, 0, 0] / near == pytest.approx(1 / 16, rel=0.2)


def ellipsoids(quats, scales):
    turns = rotations_from_quats_wxyz(quats.double()).numpy()
    return (turns * scales[:, None] ** 2) @ turns.swapaxes(1, 2)


@pytest.mark.parametrize(("tolerance_px", "least"), [(0.5, 41), (0.05, 46)])
def test_its_gaussians_drawn_are_the_sequence(slanted, tmp_path, tolerance_px, least):
    page = tmp_path / "a.html"
    export_player(slanted, page, slanted.timeline.times, tolerance_px=tolerance_px)
    # Between two stored times too, as far as the motion there is a straight line.
    rows = compare(slanted, lambda time: splats_at(page, time), [0.0, 3.5 / 7, 1.0])
    assert min(psnr for psnr, _, _ in rows) > least


def test_nothing_is_fetched_from_elsewhere(exact, tmp_path):
    export_player(exact, tmp_path / "a.html", np.linspace(0, 1, 2), title="<b>&")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:https?:)?//[a-z]+\.", page)
    assert re.findall(r'src="([^,]*)', page) == ["data:image/jpeg;base64"]  # the first picture
    assert "<title>&lt;b&gt;&amp;</title>" in page


def test_times_must_increase(exact, tmp_path):
    with pytest.raises(InputError, match="increasing times"):
        export_player(exact, tmp_path / "a.html", np.array([0.5, 0.2]))


@pytest.mark.parametrize(
    ("what", "labels"),
    [
        (PartSelection(objects="2", background="off"), [2]),
        (PartSelection(levels="1", objects="1"), [0, 1]),
    ],
)
def test_a_part_of_the_sequence(exact, tmp_path, what, labels):
    export_player(exact, tmp_path / "a.html", np.array([0.5]), what)
    header, arrays = read_page(tmp_path / "a.html")
    assert header["labels"] == labels and header["duration"] == 0
    assert header["fixed"] == (len(exact.static) if 0 in labels else 0)
    assert header["moving"] == int((exact.labels == labels[-1]).sum())
    assert len(splats_at(tmp_path / "a.html", 0.0).means) == arrays["scales"].shape[1]


def test_nothing_that_is_visible(exact, tmp_path):
    faint = exact.static.select(torch.arange(3))
    faint.opacity_logits.data[:] = -20
    none = exact.replaced(
        static=faint,
        moving=exact.moving.select(torch.arange(0)),
        motion=exact.motion.select(torch.arange(0)),
        labels=exact.labels[:0],
    )
    export_player(none, tmp_path / "a.html", np.linspace(0, 1, 2))
    assert len(splats_at(tmp_path / "a.html", 0.3).means) == 0


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
        # Where that is too slow, fewer pixels are drawn; at rest all of them.
        browser.run("player.slow = 0")
        browser.until("player.scale < 1 && document.getElementById('canvas').width < 300")
        browser.run("player.playing = false")
        browser.until(f"document.getElementById('canvas').width === {width}")
        browser.run(AT_REST)
        shots = []
        for frame in (0, 7):
            time = float(exact.timeline.times[frame])
            browser.run(f"player.time = {time}; {QUIET}")
            shots.append(browser.screenshot(tmp_path / f"{frame}.png").astype(float))
            camera = exact.cameras[frame].resized(width, height)
            expected = render_image(exact, camera, time).rgb8
            # Colours are blended in 8 bits; measured 0.9 of 255.
            assert np.abs(shots[-1] - expected).mean() < 1.3
            assert expected.std() > 20
        assert np.abs(shots[0] - shots[1]).mean() > 5  # scrubbing changes the image
        # Nothing is drawn while nothing changes.
        steps = browser.run("player.steps")
        assert browser.run(f"{QUIET}.then(() => player.steps)") == steps
        # Objects can be hidden, and the view rotated by dragging.
        browser.run(f"player.shown[1] = player.shown[2] = false; {QUIET}")
        without = browser.screenshot().astype(float)
        expected = render_image(exact, camera, time, objects=[]).rgb8
        assert np.abs(without - expected).mean() < 1.3
        for kind, x in (("mousePressed", 200), ("mouseMoved", 260), ("mouseReleased", 260)):
            browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=150, button="left",
                         buttons=1, clickCount=1)  # fmt: skip
        browser.run(QUIET)
        assert np.abs(browser.screenshot().astype(float) - without).mean() > 5
        assert browser.run("player.follow") is False
        # A graphics card that is taken away and given back.
        browser.run(f"player.follow = true; {QUIET}")
        browser.run(
            "window.extension = document.getElementById('canvas').getContext('webgl2')"
            ".getExtension('WEBGL_lose_context'); extension.loseContext()"
        )
        browser.until("document.body.innerText.includes('waiting')")
        browser.run("extension.restoreContext()")
        browser.until("!document.body.innerText.includes('waiting')")
        browser.run(QUIET)
        assert np.abs(browser.screenshot().astype(float) - without).mean() < 0.5
        assert browser.errors() == []


def in_window(camera, width, height):
    """Return a camera whose image lies in the middle of a window, as large as it fits."""
    scale = min(width / camera.width, height / camera.height)
    k = camera.intrinsics.copy()
    k[:, :2] *= scale
    k[:, 0, 2] += (width - camera.width * scale) / 2
    k[:, 1, 2] += (height - camera.height * scale) / 2
    return Cameras(k, camera.cam_from_world, width, height)


@pytest.mark.slow
def test_it_plays_on_a_phone(exact, tmp_path):
    export_player(exact, tmp_path / "a.html", exact.timeline.times)
    address = (tmp_path / "a.html").as_uri()
    with Browser(tmp_path, 390, 844) as browser:
        browser.resize(390, 844, phone=True)
        browser.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
        reduced = [{"name": "prefers-reduced-motion", "value": "reduce"}]
        browser.call("Emulation.setEmulatedMedia", features=reduced)
        browser.open(address)
        browser.until("window.player && player.ready")
        assert not browser.run("player.playing")  # where less motion is wanted
        for width, height in ((844, 390), (390, 844)):
            browser.resize(width, height, phone=True)
            browser.run(QUIET)
            boxes = browser.run(
                "[...document.querySelectorAll('#bar button, #bar select, #bar label, #slider')]"
                ".map(e => e.getBoundingClientRect()).map(b => [b.x, b.y, b.right, b.bottom])"
            )
            x, y, right, bottom = np.array(boxes).T
            assert min(x.min(), y.min()) >= 0 and bottom.max() <= height
            assert (bottom - y).min() >= 44 and (right - x)[:6].min() >= 44
            # On a low window the objects are reached by scrolling.
            assert right[: len(right) if height > width else 4].max() <= width
            assert browser.run(
                "[...document.querySelectorAll('button, label')].every("
                "e => e.scrollWidth <= e.offsetWidth)"
            )
            assert browser.run("document.documentElement.scrollWidth") <= width
        # A tap on the button plays.
        middle = browser.run(
            "(b => [b.x + b.width / 2, b.y + b.height / 2])"
            "(document.getElementById('play').getBoundingClientRect())"
        )
        browser.touch("touchStart", tuple(middle))
        browser.touch("touchEnd")
        browser.until("player.playing && player.steps > 2")
        browser.run(f"{AT_REST}; player.time = 1; {QUIET}")
        shot = browser.screenshot(tmp_path / "phone.png").astype(float)
        expected = render_image(exact, in_window(exact.cameras[7], 390, 844), 1.0).rgb8
        assert np.abs(shot - expected).mean() < 1.3 and expected.std() > 20
        # One finger rotates about the point in the middle, two zoom and move, two taps reset.
        browser.touch("touchStart", (200, 400))
        for x in (210, 240, 280):
            browser.touch("touchMove", (x, 400))
        browser.touch("touchEnd")
        browser.run(QUIET)
        rotated = browser.run("player.view")
        assert browser.run("player.follow") is False
        assert np.abs(browser.screenshot().astype(float) - shot).mean() > 3
        focus = [exact.cameras[7].cam_from_world[0, 2, :3], rotated["rotation"][6:]]
        assert np.arccos(focus[0] @ focus[1]) == pytest.approx(3 * 80 / 844, rel=0.2)
        browser.touch("touchStart", (150, 400), (250, 400))
        for step in (10, 30, 50):
            browser.touch("touchMove", (150 - step, 400), (250 + step, 400))
        browser.touch("touchEnd")
        zoomed = browser.run("player.view")
        assert zoomed["distance"] == pytest.approx(rotated["distance"] / 2, rel=0.1)
        assert zoomed["rotation"] == rotated["rotation"]
        for _ in range(40):  # on a busy machine two can be too far apart
            browser.touch("touchStart", (100, 300))
            browser.touch("touchEnd")
            if browser.run("player.follow"):
                break
        assert browser.run("player.follow")
        browser.run(QUIET)
        assert np.abs(browser.screenshot().astype(float) - shot).mean() < 0.5
        # Browsers without what the page needs say so.
        for missing, text in (
            ("window.DecompressionStream = undefined", "browser of 2023"),
            ("HTMLCanvasElement.prototype.getContext = () => null", "WebGL 2"),
        ):
            added = browser.call("Page.addScriptToEvaluateOnNewDocument", source=missing)
            browser.open(address)
            browser.until(f"document.getElementById('message').textContent.includes('{text}')")
            browser.call("Page.removeScriptToEvaluateOnNewDocument", **added)
        assert browser.errors() == []
