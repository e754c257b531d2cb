"""Quality figures: exact scenes are good, and planted faults are found."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from moving import panning, write_scene
from scipy.spatial.transform import Rotation

from msdyn.cli.preprocess import main
from msdyn.geometry import Cameras, Similarity
from msdyn.preprocess import preprocess_video
from msdyn.preprocess.report.fitness import judge_scene, measure_fitness
from msdyn.preprocess.report.page import write_report
from msdyn.preprocess.report.quality import judge_stages, mask_figures
from msdyn.scene import (
    Scene,
    Tracks,
    stamp_stage,
    write_cameras,
    write_depth,
    write_mask,
    write_tracks,
)
from msdyn.synthetic import make_scene, render_truth, write_truth


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A synthetic scene with exact cameras, depth, masks and tracks. Tests must not write to it."""
    spec = make_scene("two-boxes", frames=10, width=96, height=72)
    return write_truth(render_truth(spec), tmp_path_factory.mktemp("exact") / "scene")


@pytest.fixture
def copy(exact, tmp_path):
    import shutil

    return shutil.copytree(exact, tmp_path / "scene")


def grades(directory):
    return {figure.name: figure.verdict.grade for figure in measure_fitness(Scene(directory))}


def test_an_exact_scene_is_good(exact, capsys):
    found = {figure.name: figure for figure in measure_fitness(Scene(exact))}
    assert {figure.verdict.grade for figure in found.values()} == {"good"}, found
    pixels = float(re.match(r"([0-9.]+) px", found["static points"].value)[1])
    assert pixels < 0.6  # depth is sampled at whole pixels
    assert main(["--check", str(exact)]) == 0
    assert "can take" in capsys.readouterr().out


def test_cameras_of_another_scale_are_poor(copy, capsys):
    cameras = Scene(copy).cameras
    write_cameras(copy / "cameras.json", cameras.transformed(Similarity.of(3.0)))
    found = grades(copy)
    assert found["static points"] == "poor"
    assert main(["--check", str(copy)]) == 3
    out = capsys.readouterr().out
    assert (
        "check the cameras (of another clip" in out and "not one that a fit would do well on" in out
    )


def test_a_stage_that_is_poor_makes_the_scene_poor(copy, capsys):
    """As after --accept-poor: what was refused once is not fit because its parts agree."""
    verdict = {"grade": "poor", "reason": "the camera is static", "cure": "move it"}
    stamp_stage(
        copy, "cameras", backend="sfm", options={}, input_hash="", seconds=1.0,
        quality={"motion": "static", "verdict": verdict},
    )  # fmt: skip
    stamp_stage(
        copy, "depth", backend="fused", options={}, input_hash="", seconds=1.0, quality={}
    )  # fmt: skip
    assert set(grades(copy).values()) == {"good"}
    found = judge_scene(Scene(copy))
    assert (found.grade, found.reason, found.cure) == (
        "poor", "cameras: the camera is static", "move it"
    )  # fmt: skip
    assert main(["--check", str(copy)]) == 3
    assert "cameras poor: the camera is static; move it" in capsys.readouterr().out


def test_the_verdict_on_an_incomplete_scene_is_that_of_its_stages(tmp_path):
    scene = write_scene(tmp_path / "scene", panning(12, (40, 60))[0])
    assert judge_scene(scene).grade == "good"
    values = {"mean_life_frames": 2.0}
    stamp_stage(
        scene.directory, "tracks", backend="x", options={}, input_hash="", seconds=1.0,
        quality=values,
    )  # fmt: skip
    assert judge_scene(Scene(scene.directory)).grade == "poor"


def test_poses_given_the_wrong_way_round_are_poor(copy):
    cameras = Scene(copy).cameras
    turned = Cameras(cameras.intrinsics, cameras.world_from_cam, cameras.width, cameras.height)
    write_cameras(copy / "cameras.json", turned)
    assert "poor" in grades(copy).values()


def test_depth_that_flickers_is_not_good(copy):
    scene = Scene(copy)
    for t in range(len(scene)):
        # Four frames apart, which is what is compared, signs differ.
        write_depth(copy, t, scene.depth(t) * np.float32(1 + 0.04 * (1 if t % 8 < 4 else -1)))
    assert grades(copy)["depth"] == "usable"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_frames_each_of_another_scale_are_poor(copy, seed):
    scene, rng = Scene(copy), np.random.default_rng(seed)
    for t in range(len(scene)):
        write_depth(copy, t, scene.depth(t) * np.float32(2 ** rng.uniform(-1, 1)))
    figure = next(f for f in measure_fitness(Scene(copy)) if f.name == "depth")
    assert figure.verdict.grade == "poor"
    assert re.search("four frames later|no surface of one frame", figure.verdict.reason)


@pytest.mark.parametrize(
    "jitter, degrees, grade", [(3.0, 0.0, "good"), (0.0, 0.6, "usable"), (0.0, 3.0, "poor")]
)
def test_noise_of_single_tracks_counts_less_than_errors_of_cameras(copy, jitter, degrees, grade):
    """The first is 3 px per axis, the second .7 and 3.7 px in the middle of the image."""
    scene, rng = Scene(copy), np.random.default_rng(0)
    tracks = scene.tracks
    seen = tracks.observations()
    xy = seen.xy + rng.normal(0, jitter, seen.xy.shape) if jitter else seen.xy
    xy = np.clip(xy, 0, [95.9, 71.9])
    changed = Tracks.from_observations(
        len(scene), seen._replace(xy=xy.astype(np.float32)), tracks.object, tracks.query_frame
    )
    write_tracks(copy / "tracks.npz", changed)
    poses = scene.cameras.cam_from_world.copy()
    signs = np.where(np.arange(len(scene)) % 16 < 8, 1, -1)[:, None]
    turn = Rotation.from_rotvec(signs * [0, degrees / 2, 0], degrees=True).as_matrix()
    poses[:, :3] = turn @ poses[:, :3]
    own = scene.cameras
    write_cameras(copy / "cameras.json", Cameras(own.intrinsics, poses, own.width, own.height))
    assert grades(copy)["static points"] == grade


def test_tracks_off_their_masks_and_few_tracks(copy):
    scene = Scene(copy)
    labels = set(np.unique(scene.tracks.object).tolist()) - {0, -1}
    label = min(labels)
    for t in range(len(scene)):
        mask = scene.mask(t)
        write_mask(copy, t, np.roll(mask, 25, axis=1))
    assert grades(copy)[f"object {label}"] in ("usable", "poor")
    for t in range(len(scene)):
        write_mask(copy, t, scene.mask(t).copy())
    tracks = scene.tracks
    few = np.flatnonzero(tracks.object == label)[5:]
    write_tracks(copy / "tracks.npz", tracks.select(np.setdiff1d(np.arange(len(tracks)), few)))
    figure = next(f for f in measure_fitness(Scene(copy)) if f.name == f"object {label}")
    assert figure.verdict.grade == "usable" and "has 5 tracks" in figure.verdict.reason


def test_figures_of_masks_by_hand():
    masks = np.zeros((4, 10, 10), np.uint8)
    masks[:, :, :5] = 1
    x = np.array([[1, 2, 3, 4], [3, 4, 5, 6], [7, 7, 7, 7]])  # stays, leaves, is static
    tracks = Tracks.from_dense(
        np.stack([x, np.full_like(x, 5)], -1), np.ones((3, 4)), np.ones((3, 4)),
        np.array([1, 1, 0]), np.zeros(3),
    )  # fmt: skip
    figures = mask_figures(tracks, masks)
    assert figures["tracks_of_objects"] == {
        "1": {"tracks": 2, "mean_life_frames": 4.0, "inside": 0.75}
    }
    # Steps on the object before or after: 3 of the first, 2 of the second of which one leaves.
    assert figures["stability"] == 0.8
    nothing = mask_figures(tracks.select(np.array([2])), masks * 0)
    assert nothing == {"tracks_of_objects": {}, "stability": None}


@pytest.mark.parametrize(
    "stage, quality, grade",
    [
        ("frames", {"source_frames": [1, 2, 3]}, "usable"),
        ("tracks", {"mean_life_frames": 12.0}, "good"),
        ("tracks", {"mean_life_frames": 5.0}, "usable"),
        ("tracks", {"mean_life_frames": 2.0}, "poor"),
        ("masks", {"objects": 0, "moving_share": 0.0}, "usable"),
        ("masks", {"objects": 1, "moving_share": 0.7}, "usable"),
        ("masks", {"needs_cameras": True, "views": "two"}, "poor"),
        ("masks", {"needs_cameras": True, "views": "many", "stability": 0.95}, "good"),
        ("masks", {"stability": 0.5}, "usable"),
        ("depth", {"measured": 0.0}, "poor"),
        ("depth", {"measured": 0.5, "assumed": 0.3}, "usable"),
        ("depth", {"measured": 0.5, "reprojection_difference": 0.1}, "usable"),
        ("depth", {"measured": 0.5, "reprojection_difference": 0.01, "disagreeing": 0.2}, "usable"),
        ("depth", {"measured": 0, "completed_by": "network", "assumed": 0.1}, "usable"),
        ("depth", {"measured": 0, "completed_by": "edges"}, "poor"),
        ("depth", {"reprojection_difference": 0.04, "disagreeing": 0.91}, "poor"),
        ("depth", {"verdict": {"grade": "good"}, "disagreeing": 0.91}, "poor"),
        (
            "depth",
            {"verdict": {"grade": "usable", "reason": "a", "cure": "b"}, "disagreeing": 0.05},
            "usable",
        ),
        ("depth", {"known": 1.0}, "good"),
        ("cameras", {"verdict": {"grade": "poor", "reason": "a", "cure": "b"}}, "poor"),
    ],
)
def test_verdicts_of_stages(stage, quality, grade):
    record = {"backend": "any", "options": {}, "quality": quality}
    verdict = judge_stages({stage: record})[stage]
    assert verdict.grade == grade
    assert (grade == "good") != bool(verdict.reason and verdict.cure)


@pytest.mark.parametrize("motion", ["static", "rotating", "moving"])
@pytest.mark.parametrize("backend", ["fused", "files", "small"])
def test_a_camera_that_does_not_move_is_usable_with_depth_of_its_own(motion, backend):
    poor = {"grade": "poor", "reason": "depth cannot be triangulated", "cure": "move"}
    records = {
        "cameras": {
            "backend": "sfm",
            "options": {},
            "quality": {"motion": motion, "verdict": poor},
        },
        "depth": {"backend": backend, "options": {}, "quality": {}},
    }
    verdict = judge_stages(records)["cameras"]
    usable = motion != "moving" and backend != "fused"
    assert verdict.grade == ("usable" if usable else "poor")
    assert ("cannot be triangulated" in verdict.reason) != usable
    assert judge_stages({"cameras": records["cameras"]})["cameras"].grade == "poor"


@pytest.mark.parametrize(
    "backend, depth, grade",
    [
        ("fused", {"measured": 0.9}, "poor"),
        ("small", {"measured": 0.9}, "poor"),  # the network completes triangulated depth
        ("small", {}, "usable"),
        ("files", {"known": 1.0}, "usable"),
    ],
)
def test_ambiguous_cameras_are_usable_where_depth_is_not_triangulated(backend, depth, grade):
    poor = {"grade": "poor", "reason": "the focal length is ambiguous (2 or 3 px): a", "cure": "b"}
    quality = {"motion": "moving", "ambiguous": True, "verdict": poor}
    records = {
        "cameras": {"backend": "sfm", "options": {}, "quality": quality},
        "depth": {"backend": backend, "options": {}, "quality": depth},
    }
    verdict = judge_stages(records)["cameras"]
    assert verdict.grade == grade and "the focal length is ambiguous (2 or 3 px)" in verdict.reason


class Page(HTMLParser):
    """Collects images, links, scripts and text, and checks that tags match."""

    def __init__(self):
        super().__init__()
        self.images, self.links, self.open, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "img":
            self.images.append(values["src"])
        self.links += [values[key] for key in ("href", "src") if key in values and tag != "img"]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_report_stands_alone_and_says_everything(config):
    scene = preprocess_video(config)
    path = scene.directory / "preprocess_report.html"
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert not page.open and not page.links
    assert not re.search("https?:", re.sub(r"base64,[^\"]*", "", text))
    assert len(page.images) == 4 * 6  # frames, masks, depth, tracks
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in page.images)
    for words in ("Verdicts", "How the parts fit one another", "Camera path", "object 1",
                  "forward backward px", "clip.mp4", "12 frames of 96x72"):  # fmt: skip
        assert words in page.text, words
    assert "12 cameras" in page.text and len(text) < 2_000_000
    before = path.stat().st_mtime_ns
    preprocess_video(config)
    assert path.stat().st_mtime_ns == before  # nothing ran
    path.unlink()
    preprocess_video(config)
    assert path.is_file()


def test_a_report_of_frames_alone_and_of_odd_names(tmp_path):
    scene = write_scene(tmp_path / "a<b>&c", panning(5, (40, 60))[0])
    text = write_report(scene).read_text()
    assert "<b>" not in text and "not done" in text and text.count("<img") == 5
