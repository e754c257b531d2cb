"""The report of a fit: its content, self-containedness, and layout in a browser."""

import base64
import json
import os
import re
import shutil

import av
import numpy as np
import pytest
from browser import Browser

from msdyn.cli import evaluate, export, fit
from msdyn.colours import colour_depth
from msdyn.errors import InputError
from msdyn.html import bars, curve
from msdyn.preprocess.report.pictures import contact_sheet
from msdyn.reading import read_json
from msdyn.render import auto_path, render_image
from msdyn.scene import Scene, stamp_stage, write_image
from msdyn.sequence import load_sequence
from msdyn.view import write_report
from msdyn.view.facts import gather
from msdyn.writing import write_json


@pytest.fixture
def scene(fitted_plane_scene, tmp_path):
    return Scene(shutil.copytree(fitted_plane_scene, tmp_path / "plane <scene>"))


def text_of(path):
    return path.read_text(encoding="utf-8")


def test_it_is_self_contained_and_complete(scene):
    path = write_report(scene)
    assert path == scene.directory / "fit" / "report.html"
    page = text_of(path)
    for part in ("Reconstruction", "Input, render, error, depth", "Training curves",
                 "Motion explained by each level", "Paths of the objects", "Time",
                 "Configuration"):  # fmt: skip
        assert f"<h2>{part}</h2>" in page
    assert len(re.findall(r"<figure><img", page)) == 5 * 4
    assert page.count("<video") == 2 and page.count("<svg") == 4
    # Nothing is fetched: every resource is in the page.
    for source in re.findall(r'src="([^"]{0,20})', page):
        assert source.startswith("data:")
    assert not re.findall(r"https?://", page)
    assert "plane &lt;scene&gt;" in page and "<scene>" not in page


def test_it_opens_with_a_video_along_the_path_auto(scene, tmp_path):
    page = text_of(write_report(scene))
    # Before the figures and any other picture.
    figure = re.search(r"<figure><video (.*?)></video><figcaption>(.*?)</figcaption>", page)
    assert figure
    assert figure.start() < page.index("PSNR over the clip") < page.index("<img")
    attributes, caption = figure.groups()
    for word in ("autoplay", "loop", "muted", "playsinline", "controls"):
        assert re.search(rf"\b{word}\b", attributes.split('"')[-1])
    sequence = load_sequence(scene.directory)
    path = auto_path(sequence, np.linspace(0, 1, 24), seconds=2.0)
    assert caption.startswith(f"Novel view: {path}") and f'aria-label="{caption}"' in attributes
    assert f"{path.unsupported:.1%} of the pixels unsupported" in caption
    assert "slowed down 3.3 times" in caption  # six frames at 10 Hz
    content = re.search(r"data:video/mp4;base64,([^\"]*)", attributes)
    assert content
    file = tmp_path / "novel.mp4"
    file.write_bytes(base64.b64decode(content[1]))
    assert file.stat().st_size < 2e6
    with av.open(str(file)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
        assert float(stream.average_rate) == pytest.approx(12, abs=0.01)
    assert len(frames) == 24
    # The texture is noise, of which H.264 at this quality keeps the brightness.
    middle = render_image(sequence, path.cameras[12], 12 / 23).rgb8
    assert np.corrcoef(frames[12].mean(-1).ravel(), middle.mean(-1).ravel())[0, 1] > 0.9


def test_its_figures_are_those_of_the_fit(scene):
    sequence = load_sequence(scene.directory)
    facts = gather(scene, sequence, scene.directory / "fit")
    assert facts.frames == list(range(6)) and len(facts.psnr) == 6
    truth = scene.image(2) / 255
    error = ((facts.images[2].rgb8 / 255 - truth) ** 2).mean()
    assert facts.psnr[2] == pytest.approx(-10 * np.log10(error))
    assert facts.tracks == {1: 9.0}
    page = text_of(write_report(scene))
    assert f"{np.mean(facts.psnr):.1f} dB" in page
    assert f"{len(sequence.static):,}" in page and f"{len(sequence.moving):,}" in page
    row = re.search(r"<td>object 1</td>(.*?)</tr>", page)
    assert row and f">{facts.levels[1].mean(1)[0]:.4g}<" in row[1]
    lines = re.search(r'id="paths-data">(\{"paths".*?\})</script>', page)
    assert lines
    names = [line["name"] for line in json.loads(lines[1])["paths"]]
    assert names == ["object 1", "camera"]


def test_depth_has_the_colours_of_the_report_of_preprocessing(scene):
    """Their scale is that of the scene's depth maps."""
    depth = scene.depth(0)
    known = np.concatenate([scene.depth(t)[scene.depth(t) > 0][::37] for t in range(6)])
    near, far = np.percentile(known, (2, 98))
    stamp_stage(
        scene.directory, "depth", backend="x", options={}, input_hash="", seconds=1.0, quality={}
    )
    shown = contact_sheet(Scene(scene.directory))["depth"][0][1]
    expected = colour_depth(depth, near, far).mean((0, 1))  # the sheet's pictures are enlarged
    np.testing.assert_allclose(shown.mean((0, 1)), expected, atol=3)
    page = text_of(write_report(scene))
    assert f"depth, as in the report of preprocessing: {near:.3g} (red) to {far:.3g} " in page


def test_held_out_figures_are_shown_when_there_are_any(scene):
    assert "No frame was held out" in text_of(write_report(scene))
    row = {"mpsnr": 31.234, "mssim": 0.9, "mlpips": None, "ssim": 0.88, "images": 2}
    write_json(
        scene.directory / "fit" / "eval.json",
        {"frames": {**row, "kept_out_of_the_fit": True}, "views": {"views": {"side": row}}},
    )
    path = scene.directory / "fit" / "eval.json"
    past = (scene.directory / "fit" / "sequence.safetensors").stat().st_mtime - 60
    os.utime(path, (past, past))  # of an earlier fit
    assert "31.23" not in text_of(write_report(scene))
    os.utime(path)
    page = text_of(write_report(scene))
    assert "31.23" in page and "held-out camera side" in page and "held-out frames" in page


def test_warnings_give_advice(scene):
    """A perturbed frame, poor poses, and few tracks."""
    opposite = np.where(scene.image(4) < 128, 255, 0).astype(np.uint8)
    write_image(scene.directory / "images" / "00004.png", opposite)
    verdict = {"grade": "poor", "reason": "the camera only turns", "cure": "move it sideways"}
    stamp_stage(
        scene.directory, "cameras", backend="x", options={}, input_hash="", seconds=1.0,
        quality={"verdict": verdict},
    )  # fmt: skip
    stamp_stage(
        scene.directory, "depth", backend="x", options={}, input_hash="", seconds=1.0,
        quality={"known": 0.2},
    )  # fmt: skip
    facts = gather(Scene(scene.directory), load_sequence(scene.directory), scene.directory / "fit")
    said = " ".join(w.text for w in facts.warnings)
    assert (
        "the input is poor: cameras: the camera only turns" in said and "frame 4 fits badly" in said
    )
    assert "depth is known for 20%" in said
    assert any(w.cure == "move it sideways" for w in facts.warnings)
    page = text_of(write_report(Scene(scene.directory)))
    assert page.count('class="warning"') == len(facts.warnings)


def test_a_fit_without_its_log_still_has_a_report(scene):
    for name in ("metrics.jsonl", "config.json"):
        (scene.directory / "fit" / name).unlink()
    page = text_of(write_report(scene))
    assert "<h2>Time</h2>" in page and page.count("<svg") == 1  # PSNR of the frames alone


def test_the_fit_of_another_clip_is_an_error(scene, plane_scene):
    info = read_json(plane_scene.directory / "scene.json")
    info |= {"frame_count": 5, "timestamps": info["timestamps"][:5]}
    write_json(plane_scene.directory / "scene.json", info)
    with pytest.raises(InputError, match="expected the 6 frames of the fit, got 5"):
        write_report(Scene(plane_scene.directory), scene.directory / "fit")


def test_every_fit_writes_a_report_and_export_rewrites_it(plane_scene, capsys):
    options = ["--preset", "quick", "--epochs", "1", "--prefit-steps", "2", "--device", "cpu"]
    assert fit.main([str(plane_scene.directory), *options]) == 0
    report = plane_scene.directory / "fit" / "report.html"
    assert report.is_file() and str(report) in capsys.readouterr().out
    report.unlink()
    assert export.main([str(plane_scene.directory), "--format", "report"]) == 0
    assert report.is_file() and str(report) in capsys.readouterr().out


def test_a_fit_of_poor_input_repeats_the_verdict(plane_scene, caplog, capsys):
    """In one line at the start, in its records, in its report and in its evaluation."""
    verdict = {"grade": "poor", "reason": "the camera only rotates", "cure": "move it sideways"}
    stamp_stage(
        plane_scene.directory, "cameras", backend="x", options={}, input_hash="", seconds=1.0,
        quality={"verdict": verdict},
    )  # fmt: skip
    options = ["--preset", "quick", "--epochs", "1", "--prefit-steps", "2", "--device", "cpu"]
    assert fit.main([str(plane_scene.directory), *options]) == 0
    said = [r.getMessage() for r in caplog.records if "poor input" in r.getMessage()]
    assert len(said) == 1 and said[0].endswith("cameras: the camera only rotates")
    folder = plane_scene.directory / "fit"
    expected = {**verdict, "reason": "cameras: the camera only rotates"}
    assert read_json(folder / "config.json")["input"] == expected
    assert "the input is poor: cameras: the camera only rotates" in text_of(folder / "report.html")
    capsys.readouterr()
    assert evaluate.main([str(plane_scene.directory), "--no-pictures"]) == 0
    assert "the input is poor: cameras: the camera only rotates" in capsys.readouterr().out
    assert read_json(folder / "eval.json")["input"] == expected


def test_plots_leave_out_non_finite_values():
    plot = curve("loss", [0, 1, 2, 3], [1.0, np.nan, 0.0, 0.1], "step", log=True)
    points = re.search(r'points="([^"]*)"', plot)
    assert points and len(points[1].split()) == 2 and "nan" not in plot
    assert curve("loss", [0], [1.0], "step") == ""
    assert bars("PSNR", [np.nan], [False], "frame") == ""
    assert bars("PSNR", [20.0, 30.0], [False, True], "frame").count("<rect") == 2


# Clipped content: tables wider than their container, and labels that begin left of their plot.
CUT = """[...document.querySelectorAll('.wide')].filter(t => t.scrollWidth > t.clientWidth).concat(
  [...document.querySelectorAll('svg text')].filter(t => t.getBBox().x < 0)).map(t => t.textContent)
"""


@pytest.mark.slow
def test_in_a_wide_and_a_narrow_browser(scene, tmp_path):
    path = write_report(scene)
    with Browser(tmp_path, 1100, 900) as browser:
        browser.open(path.as_uri())
        browser.until("document.querySelector('video').readyState >= 2")
        for width in (1100, 390):
            browser.resize(width, 900, phone=width < 500)
            assert browser.run("document.documentElement.scrollWidth") <= width
            broken = "[...document.images].filter(i => !i.naturalWidth).length"
            assert browser.run(broken) == 0
            assert browser.run(CUT) == []
            browser.run("document.querySelector('canvas').scrollIntoView()")
            shot = browser.screenshot(tmp_path / f"report_{width}.png")
            assert shot.std() > 10
        assert browser.errors() == []
