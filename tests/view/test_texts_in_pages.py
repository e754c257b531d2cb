"""Texts of files in pages: none becomes an element, an attribute or a script."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import Browser

from msdyn.errors import InputError
from msdyn.export import export_player
from msdyn.html import Path3D, data_script, element, page, paths_3d, policy
from msdyn.preprocess.report.page import write_report as write_preprocess_report
from msdyn.scene import Scene, stamp_stage
from msdyn.sequence import load_sequence
from msdyn.view import write_report

MARK = "onerror=parent.hacked=1"
EVIL = (
    f"<img src=x {MARK}>\"'><script>hacked=1</script></script></style></title><!--\u2028\u2029 "
    "${hacked=1} {{hacked}} @HEADER@ @DATA@ javascript:hacked=1 &lt;b&gt; \x00\x1b</pre></svg>"
)
NAME = EVIL.replace("/", "\u2215").replace("\x00", "")[:80]


class Structure(HTMLParser):
    """Tags with the names of their attributes, and the texts in between."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text = [], [], []
        self.inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(sorted(name for name, _ in attrs))))
        self.inside = tag
        for name, value in attrs:
            assert not name.startswith("on") and "javascript:" not in (value or "")[:20].lower()

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        (self.scripts if self.inside == "script" else self.text).append(data)


def structure(path):
    return Structure(path.read_text(encoding="utf-8"))


def with_texts(value, text):
    """Return JSON values in which every text, and one key of every mapping, is another."""
    if isinstance(value, dict):
        more = {} if "grade" in value else {text: text}  # a verdict has no other keys
        kept = {key: value[key] for key in ("grade", "motion") if key in value}  # of few values
        return {key: with_texts(item, text) for key, item in value.items()} | more | kept
    if isinstance(value, list):
        return [with_texts(item, text) for item in value]
    return text if isinstance(value, str) else value


VERDICT = {"grade": "usable", "reason": "r", "cure": "c"}
RECORDS = {
    "frames": {"options": {"source": "s", "source_names": ["a.png", "b.png"], "fps": 24.0}},
    "tracks": {"quality": {"tracks": 9, "note": "text"}},
    "masks": {"quality": {"objects": 1, "verdict": VERDICT}},
    "cameras": {"quality": {"verdict": VERDICT,
                            "motion": "moving", "unknown": ["x", {"y": "z"}]}},
    "depth": {"quality": {"known": 0.2, "verdict": {"grade": "usable", "reason": "", "cure": ""}}},
}  # fmt: skip


def write_all(directory, text):
    """Write the scene's texts, and return the three pages."""
    for stage, record in RECORDS.items():
        stamp_stage(directory, stage, backend="backend", options={"preset": "auto", "why": "why"}
                    | record.get("options", {}), input_hash="x", seconds=1.0, model="model",
                    licence="licence", quality=record.get("quality", {}))  # fmt: skip
    info = json.loads((directory / "scene.json").read_text())
    info["stages"] = {
        # The grade and the motion of cameras choose a branch: their own texts are tested below.
        stage: with_texts(record, text)
        for stage, record in info["stages"].items()
    }
    (directory / "scene.json").write_text(json.dumps(info))
    config = directory / "fit" / "config.json"
    config.write_text(json.dumps(with_texts(json.loads(config.read_text()), text)))
    row = {"mpsnr": 31.2, "mssim": 0.9, "mlpips": None, "ssim": 0.9, "images": 2}
    (directory / "fit" / "eval.json").write_text(json.dumps(
        {"frames": row, "views": {"views": {text: row}}, text: text}
    ))  # fmt: skip
    scene = Scene(directory)
    out = directory / f"{text[:40].replace('/', '')}.html"
    return [
        write_preprocess_report(scene),
        write_report(scene),
        export_player(load_sequence(directory), out, np.linspace(0, 1, 2), title=text)[0],
    ]


@pytest.fixture(scope="module")
def pages(fitted_plane_scene, tmp_path_factory):
    """The pages of a scene of harmless texts, and of one of others."""
    folder = tmp_path_factory.mktemp("texts")
    return [
        write_all(shutil.copytree(fitted_plane_scene, folder / name), text)
        for name, text in (("name", "text"), (NAME, EVIL))
    ]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_elements_are_those_of_harmless_texts(pages, which):
    plain, hostile = (structure(paths[which]) for paths in pages)
    assert hostile.tags == plain.tags and len(plain.tags) > 10
    # The scripts that run are the same; data are JSON, with the texts in it.
    assert len(hostile.scripts) == len(plain.scripts)
    for mine, theirs in zip(plain.scripts, hostile.scripts, strict=True):
        if not mine.startswith("{"):
            assert mine == theirs or which == 2
        else:
            json.loads(theirs)
    assert not any(MARK in script for script in hostile.scripts)
    assert MARK in "".join(hostile.text)  # shown as the text that it is


def test_every_text_of_a_verdict_is_escaped(fitted_plane_scene, tmp_path):
    """Also where it chooses the class of an element."""
    scene = shutil.copytree(fitted_plane_scene, tmp_path / "scene")
    for stage, record in RECORDS.items():
        stamp_stage(scene, stage, backend="b", options=record.get("options", {}), input_hash="x",
                    seconds=1.0, quality=record.get("quality", {}))  # fmt: skip
    found = []
    for grade, text in (("usable", "text"), ("usable", EVIL), (EVIL, EVIL)):
        info = json.loads((scene / "scene.json").read_text())
        verdict = {"grade": grade, "reason": text, "cure": text}
        info["stages"]["cameras"]["quality"] |= {"verdict": verdict}
        info["stages"]["masks"]["quality"] |= {"verdict": verdict}
        (scene / "scene.json").write_text(json.dumps(info))
        try:
            found.append(structure(write_preprocess_report(Scene(scene))).tags)
        except InputError:  # such a grade is refused altogether
            assert grade == EVIL
    assert len(found) == 2 and found[0] == found[1]


def test_elements_escape_texts_and_attributes():
    made = element("p", EVIL, class_=EVIL, style=EVIL)
    assert Structure(made).tags == [("p", ("class", "style"))]
    assert Structure(page(EVIL, EVIL)).tags == Structure(page("a", "b")).tags


def test_data_for_scripts_cannot_end_their_element():
    points = np.array([[0, 0, 0.0], [1, 1, 1], [np.nan, 0, 0]])
    canvas = paths_3d([Path3D(points, EVIL, EVIL)], points, np.eye(3))
    data = Structure(canvas).scripts[0]
    path = json.loads(data)["paths"][0]
    assert path["name"] == EVIL and path["colour"] == EVIL
    assert path["points"] == [[0, 0, 0], [1, 1, 1]]
    assert "<" not in data and "\u2028" not in data
    with pytest.raises(ValueError, match="JSON compliant"):
        data_script(float("nan"), "x")


def test_pages_run_their_own_scripts_only():
    rule = Structure(policy("a", "b"))
    assert rule.tags == [("meta", ("content", "http-equiv"))]
    for text in (page("a", "b"), policy("a")):
        content = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
        assert content and "default-src &#39;none&#39;" in content[1]
        assert (
            "script-src &#39;sha256-" in content[1]
            and "unsafe-inline" not in (content[1].partition("script-src")[2].partition(";")[0])
        )


@pytest.mark.slow
def test_in_a_browser_nothing_of_them_runs(pages, tmp_path):
    with Browser(tmp_path, 800, 600) as browser:
        for path in pages[1]:
            browser.open(path.as_uri())
            assert browser.run("typeof hacked") == "undefined"
            assert browser.run("document.querySelectorAll('[onerror], [src=x]').length") == 0
            # And the page's policy stops what would have come through.
            browser.run(
                "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"wx=1\">')"
            )
            browser.run("new Promise(done => setTimeout(done, 200))")
            assert browser.run("typeof wx") == "undefined"
        browser.events.clear()
        for path in pages[1]:
            browser.open(path.as_uri())
            browser.until("!!document.querySelector('canvas')")
            browser.run("new Promise(done => setTimeout(done, 1000))")
        assert browser.errors() == []
        assert browser.run("player.ready && player.steps > 0")
