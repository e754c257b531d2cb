"""The pipeline: order, cache, interruption, verdicts, and what it refuses."""

import dataclasses
import typing
from pathlib import Path

import numpy as np
import pytest
from small_clip import FRAMES, SIZE, Poor

from msdyn.errors import InputError, PoorInputError
from msdyn.preprocess import STAGES, PreprocessConfig, pipeline, preprocess_video
from msdyn.preprocess.contracts import DepthMap, Verdict
from msdyn.preprocess.registry import BACKENDS
from msdyn.scene import Scene, check_scene, create_scene


def test_a_scene_that_can_be_fitted_comes_out(config):
    scene = preprocess_video(config)
    report = check_scene(scene)
    assert not report.warnings
    assert list(scene.info.stages) == ["frames", "tracks", "masks", "cameras", "depth"]
    for record in scene.info.stages.values():
        assert record["seconds"] >= 0 and len(record["input_hash"]) == 32
    assert scene.info.world_units == "metric"
    assert scene.info.stages["frames"]["options"]["source_frames"] == list(range(FRAMES))
    assert scene.info.stages["depth"]["options"]["path"].endswith("depth")
    assert set(np.unique(scene.tracks.object)) == {-1, 0, 1}
    assert (scene.masks() == 1).mean() == pytest.approx(30 * 30 / (72 * 96), rel=0.2)


def test_a_second_run_does_nothing(config, ran):
    preprocess_video(config)
    assert ran == list(STAGES)
    before = {p: p.stat().st_mtime_ns for p in config.out.rglob("*") if p.is_file()}
    ran.clear()
    preprocess_video(config)
    assert ran == []
    assert before == {p: p.stat().st_mtime_ns for p in config.out.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "change, again",
    [
        ({"depth_scale": 2.0}, ["depth"]),
        ({"masks": "none"}, ["masks"]),  # cameras and depth from files do not hang on it
        ({"world_units": "arbitrary"}, ["cameras"]),
        ({"max_frames": 6}, list(STAGES)),
        ({"redo": ("tracks",)}, ["tracks", "tracks", "masks"]),
    ],
)
def test_a_change_runs_that_stage_and_what_hangs_on_it(config, ran, change, again):
    preprocess_video(config)
    ran.clear()
    scene = preprocess_video(dataclasses.replace(config, **change))
    assert ran == again
    check_scene(scene)


def test_changed_files_are_read_again(config, clip, ran, tmp_path):
    depth = tmp_path / "depth"
    depth.mkdir()
    for file in (clip / "depth").iterdir():
        np.save(depth / file.name, np.full(SIZE, 3.0, np.float32))
    config = dataclasses.replace(config, depth_path=depth)
    preprocess_video(config)
    ran.clear()
    np.save(depth / "00000.npy", np.full(SIZE, 4.0, np.float32))
    scene = preprocess_video(config)
    assert ran == ["depth"] and scene.depth(0)[0, 0] == 4
    ran.clear()
    moved = depth.rename(tmp_path / "elsewhere")  # the same content
    preprocess_video(dataclasses.replace(config, depth_path=moved))
    assert ran == []


def test_results_that_were_deleted_are_made_again(config, ran):
    scene = preprocess_video(config)
    for stage, path in (("depth", "depth/00003.npy"), ("cameras", "cameras.json")):
        ran.clear()
        (scene.directory / path).unlink()
        preprocess_video(config)
        assert ran == [stage] and (scene.directory / path).is_file()


@pytest.mark.parametrize("writer, stage", [("write_mask", "masks"), ("write_depth", "depth")])
def test_a_run_cut_short_goes_on(config, ran, monkeypatch, writer, stage):
    write = getattr(pipeline, writer)

    def cut(directory, frame, content):
        if frame == 5:
            raise KeyboardInterrupt
        write(directory, frame, content)

    monkeypatch.setattr(pipeline, writer, cut)
    with pytest.raises(KeyboardInterrupt):
        preprocess_video(config)
    done = STAGES[: STAGES.index(stage)]
    assert list(Scene(config.out).info.stages) == list(done)
    monkeypatch.setattr(pipeline, writer, write)
    ran.clear()
    check_scene(preprocess_video(config))
    assert ran == list(STAGES[len(done) :])


def test_frames_cut_short_are_begun_again(config, monkeypatch):
    from msdyn.preprocess.frames import extract as frames

    def cut(path, image):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(frames, "write_image", cut)
        with pytest.raises(KeyboardInterrupt):
            preprocess_video(config)
    assert not (config.out / "scene.json").exists()
    check_scene(preprocess_video(config))


def test_only_runs_what_it_is_told(config, ran):
    only = dataclasses.replace(config, only=("frames", "tracks"))
    assert list(preprocess_video(only).info.stages) == ["frames", "tracks"]
    ran.clear()
    depth = dataclasses.replace(config, only=("depth",))  # needs the frames alone
    assert list(preprocess_video(depth).info.stages) == ["frames", "tracks", "depth"]
    assert ran == ["depth"]
    fresh = dataclasses.replace(config, out=config.out.parent / "other", only=("masks",))
    with pytest.raises(InputError, match="masks need the frames stage, which is not done"):
        preprocess_video(fresh)


def test_poor_cameras_stop_after_all_but_depth_is_written(config, poor):
    config = PreprocessConfig(config.video, config.out)
    for _ in range(2):  # the verdict is remembered
        with pytest.raises(PoorInputError, match="only turns; .* depth is not: bring depth files"):
            preprocess_video(config)
        scene = Scene(config.out)
        assert list(scene.info.stages) == ["frames", "tracks", "masks", "cameras"]
        assert len(scene.cameras) == len(scene.masks()) == FRAMES and len(scene.tracks)
    scene = preprocess_video(dataclasses.replace(config, accept_poor=True))
    check_scene(scene)
    with pytest.raises(PoorInputError):
        preprocess_video(config)


def test_poor_cameras_do_not_stop_depth_from_files(config, poor, clip):
    own = PreprocessConfig(config.video, config.out, depth="files", depth_path=clip / "depth")
    scene = preprocess_video(own)
    check_scene(scene)
    assert scene.info.stages["cameras"]["quality"]["verdict"]["grade"] == "poor"


def test_masks_are_made_again_with_the_cameras_they_need(config, poor, monkeypatch, ran):
    """A masks backend that asks for cameras gets them once they are there; its cameras no masks."""
    given = []

    class Needy:
        name = "motion"

        def segment(self, scene, tracks, solution):
            given.append(solution is not None)
            mask = np.zeros(scene.size, np.uint8)
            mask[20:50, 20:60] = 1 + (solution is not None)
            return (mask for _ in range(len(scene))), {"needs_cameras": True}

    class Moving(Poor):
        def solve(self, scene, tracks, masks):
            assert masks is None and (tracks.object == -1).all()
            solved = super().solve(scene, tracks, masks)
            return dataclasses.replace(solved, motion="moving", verdict=Verdict("good"))

        def estimate(self, scene, tracks, masks, solution):
            assert given[-1]
            return (np.ones(scene.size, np.float32) for _ in range(len(scene))), {}

    spec = dataclasses.replace(BACKENDS["masks"]["motion"], make=lambda config: Needy())
    monkeypatch.setitem(BACKENDS["masks"], "motion", spec)
    for stage, name in (("cameras", "sfm"), ("depth", "fused")):
        spec = dataclasses.replace(BACKENDS[stage][name], make=lambda config: Moving())
        monkeypatch.setitem(BACKENDS[stage], name, spec)
    config = PreprocessConfig(config.video, config.out)
    check_scene(preprocess_video(config))
    assert given == [False, True]
    ran.clear()
    preprocess_video(config)
    assert given == [False, True] and ran == []
    preprocess_video(dataclasses.replace(config, redo=("cameras",)))
    assert given == [False, True, True]

    # Cut short while it segments again: the whole is put right.
    write, count = pipeline.write_mask, []

    def cut(directory, frame, mask):
        count.append(frame)
        if len(count) == 5:
            raise KeyboardInterrupt
        write(directory, frame, mask)

    monkeypatch.setattr(pipeline, "write_mask", cut)
    with pytest.raises(KeyboardInterrupt):
        preprocess_video(dataclasses.replace(config, redo=("cameras",)))
    monkeypatch.setattr(pipeline, "write_mask", write)
    check_scene(preprocess_video(config))
    assert given[-1]


def test_an_object_without_a_track_is_ignored(config, clip, tmp_path):
    from PIL import Image

    folder = tmp_path / "masks"
    folder.mkdir()
    mask = np.zeros(SIZE, np.uint8)
    mask[10:40, 10:40], mask[60, 80] = 3, 7  # tracks are 4 px apart; none lies on one pixel
    for i in range(FRAMES):
        Image.fromarray(mask).save(folder / f"{i}.png")
    own = dataclasses.replace(config, masks="files", masks_path=folder)
    scene = preprocess_video(own)
    check_scene(scene)
    assert set(np.unique(scene.masks())) == {0, 1, 255}
    quality = scene.info.stages["masks"]["quality"]
    assert quality["objects"] == 1 and quality["objects_without_track"] == 1


def test_directories_of_others_are_left_alone(config, tmp_path):
    config.out.mkdir()
    (config.out / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and was not made by msdyn-preprocess"):
        preprocess_video(config)
    assert [p.name for p in config.out.iterdir()] == ["precious.txt"]
    from msdyn.scene import Timeline

    create_scene(
        tmp_path / "foreign", width=9, height=9, fps=1.0, timeline=Timeline.uniform(2, 1.0)
    )
    with pytest.raises(InputError, match="was not made by msdyn-preprocess"):
        preprocess_video(dataclasses.replace(config, out=tmp_path / "foreign"))


def test_another_video_does_not_replace_a_scene(config, clip, tmp_path):
    preprocess_video(dataclasses.replace(config, only=("frames",)))
    other = tmp_path / "other.mp4"
    other.write_bytes((clip / "clip.mp4").read_bytes())
    again = dataclasses.replace(config, video=other, only=("frames",))
    with pytest.raises(InputError, match=r"holds the scene of clip\.mp4, not of other\.mp4"):
        preprocess_video(again)
    scene = preprocess_video(dataclasses.replace(again, redo=("frames",)))
    assert scene.info.stages["frames"]["options"]["source"] == "other.mp4"


def test_a_stage_does_not_read_what_it_writes(config):
    preprocess_video(config)
    own = dataclasses.replace(config, depth_path=config.out / "depth")
    with pytest.raises(InputError, match="the depth stage writes here"):
        preprocess_video(own)
    assert check_scene(Scene(config.out))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fps": 0.0}, "fps: expected a number > 0, got 0.0"),
        ({"max_frames": 1}, "max_frames: expected at least 2, got 1"),
        ({"long_side": 10}, "long_side: expected at least 64, or 0, got 10"),
        ({"depth_scale": -1.0}, "depth_scale: expected a number > 0"),
        ({"depth": "files"}, "depth_path: missing; depth from files need"),
        ({"depth_model": "m"}, "depth_model: given, but depth is chosen by --preset; use --depth"),
        ({"depth": "fused", "depth_model": "m"}, "depth_model: given, but depth is fused"),
        ({"masks": "motion", "prompts": Path("p")}, "prompts: given, but masks is motion"),
        ({"masks_path": "m"}, "masks_path: given, but masks is chosen by --preset; use --masks"),
    ],
)
def test_options_that_make_no_sense(options, message, tmp_path):
    if "masks_path" in options:
        options = {"masks_path": tmp_path}
    with pytest.raises(InputError, match=message):
        PreprocessConfig(tmp_path / "v.mp4", **options)


def test_config_names_the_backends_and_the_default_directory(tmp_path):
    hints = typing.get_type_hints(PreprocessConfig)
    for stage, names in BACKENDS.items():
        literal, none = typing.get_args(hints[stage])
        assert set(typing.get_args(literal)) == set(names) and none is type(None)
        assert set().union(*(spec.needs for spec in names.values())) <= set(STAGES)
    assert PreprocessConfig(tmp_path / "a" / "street.mov").directory.as_posix() == "street"
    (tmp_path / "shots.1").mkdir()
    assert PreprocessConfig(tmp_path / "shots.1").directory.as_posix() == "shots.1_scene"


def test_confidence_of_depth_comes_and_goes_with_it(config, poor, monkeypatch):
    class Sure(Poor):
        def estimate(self, scene, tracks, masks, solution):
            depth, sure = np.ones(SIZE, np.float32), np.full(SIZE, 255, np.uint8)
            return (DepthMap(depth, sure) for _ in range(len(scene))), {}

    spec = dataclasses.replace(BACKENDS["depth"]["fused"], make=lambda config: Sure())
    monkeypatch.setitem(BACKENDS["depth"], "fused", spec)
    sure = dataclasses.replace(config, depth="fused", depth_path=None, accept_poor=True)
    scene = preprocess_video(sure)
    check_scene(scene)
    folder = scene.directory / "depth_confidence"
    assert len(list(folder.iterdir())) == FRAMES
    assert "confidence of depth" in (scene.directory / "preprocess_report.html").read_text()
    preprocess_video(config)  # depth from files says nothing of it
    assert not folder.exists()


@pytest.mark.parametrize(
    "motion, grade, second, passes",
    [
        ("moving", "good", "good", 2),
        ("moving", "good", "poor", 2),  # the first cameras are kept
        ("moving", "usable", "usable", 1),
        ("unknown", "good", "good", 1),
        ("moving", "poor", "poor", 1),
    ],
)
def test_masks_are_improved_by_good_cameras(
    config, poor, monkeypatch, motion, grade, second, passes
):
    """Those that structure from motion found; which are then solved with the better masks."""
    given, seen = [], []

    class Better:
        name = "motion"

        def segment(self, scene, tracks, solution):
            given.append(solution is not None)
            mask = np.zeros(scene.size, np.uint8)
            mask[20 : 50 + 4 * (solution is not None), 20:60] = 1
            figures = {"needs_cameras": False, "better_with_cameras": solution is None}
            return (mask for _ in range(len(scene))), figures

    class Cameras(Poor):
        def solve(self, scene, tracks, masks):
            assert masks is not None and all(mask.any() for mask in masks)
            seen.append((masks[0] > 0).sum())
            solved = super().solve(scene, tracks, masks)
            now = second if len(seen) == 2 else grade
            verdict = Verdict(now, "" if now == "good" else "why", "cure")
            return dataclasses.replace(solved, motion=motion, verdict=verdict)

    for stage, name, backend in (("masks", "motion", Better), ("cameras", "sfm", Cameras)):
        spec = dataclasses.replace(BACKENDS[stage][name], make=lambda config, b=backend: b())
        monkeypatch.setitem(BACKENDS[stage], name, spec)
    own = dataclasses.replace(config, cameras=None, cameras_path=None)
    preprocess_video(own)
    assert given == [False, True][:passes]
    assert seen == [30 * 40, 34 * 40][:passes]
    record = Scene(own.directory).info.stages["cameras"]
    assert record["quality"]["verdict"]["grade"] == grade
    assert record["quality"]["focal_px"] == 90.0 and record["options"]["preset"] == "auto"
    preprocess_video(own)
    assert len(given) == len(seen) == passes
    preprocess_video(dataclasses.replace(own, redo=("cameras",)))  # they are asked again
    assert given == [False, True, True][: 2 * passes - 1]
