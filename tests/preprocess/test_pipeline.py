"""The pipeline: order, cache, interruption, verdicts, and what it refuses."""

import dataclasses

import numpy as np
import pytest
from camera_writers import nerfstudio_content
from moving import MARGIN, texture, turn_about, warped
from small_clip import FRAMES, SIZE, Poor, flat_depth

from msdyn.errors import InputError, PoorInputError
from msdyn.geometry import Cameras
from msdyn.io import write_video
from msdyn.preprocess import (
    STAGES,
    Backend,
    MaskResult,
    PreprocessConfig,
    Streamed,
    Verdict,
    pipeline,
    preprocess_video,
    results,
)
from msdyn.reading import read_json
from msdyn.scene import Scene, check_scene, create_scene, read_cameras
from msdyn.writing import write_json


@pytest.fixture
def with_report():
    """Let a run write its report."""


@pytest.fixture(autouse=True)
def without_report(request, monkeypatch):
    """Leave the report out elsewhere: it takes half the time of these runs."""
    if "with_report" not in request.fixturenames:
        monkeypatch.setattr(pipeline, "write_report", lambda scene, points: None)


def test_a_scene_that_can_be_fitted_comes_out(config, with_report):
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


def test_a_second_run_does_nothing(config, ran, with_report):
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
        ({"masks": "none"}, ["masks", "cameras", "depth"]),  # static tracks tell its unit
        ({"world_units": "arbitrary"}, ["cameras", "depth"]),
        ({"max_frames": 6}, list(STAGES)),
        ({"redo": ("tracks",)}, ["tracks", "tracks", "masks", "cameras", "depth"]),
    ],
)
def test_a_change_runs_that_stage_and_those_that_depend_on_it(config, ran, change, again):
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
    config = dataclasses.replace(config, depth_path=depth, depth_scale=1.0)
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
    for stages, path in (
        (["depth"], "depth/00003.npy"),
        (["cameras", "depth"], "cameras.json"),
    ):
        ran.clear()
        (scene.directory / path).unlink()
        preprocess_video(config)
        assert ran == stages and (scene.directory / path).is_file()


@pytest.mark.parametrize("writer, stage", [("write_mask", "masks"), ("write_depth", "depth")])
def test_a_run_cut_short_goes_on(config, ran, monkeypatch, writer, stage):
    write = getattr(results, writer)

    def cut(directory, frame, content):
        if frame == 5:
            raise KeyboardInterrupt
        write(directory, frame, content)

    monkeypatch.setattr(results, writer, cut)
    with pytest.raises(KeyboardInterrupt):
        preprocess_video(config)
    done = STAGES[: STAGES.index(stage)]
    assert list(Scene(config.out).info.stages) == list(done)
    monkeypatch.setattr(results, writer, write)
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


def test_only_runs_what_it_is_told(config, ran, with_report):
    only = dataclasses.replace(config, only=("frames", "tracks"))
    assert list(preprocess_video(only).info.stages) == ["frames", "tracks"]
    ran.clear()
    depth = dataclasses.replace(config, only=("depth",))  # needs the frames alone
    assert list(preprocess_video(depth).info.stages) == ["frames", "tracks", "depth"]
    assert ran == ["depth"]
    fresh = dataclasses.replace(config, out=config.out.parent / "other", only=("masks",))
    with pytest.raises(InputError, match="masks need the frames stage, which is not done"):
        preprocess_video(fresh)


def test_poor_cameras_stop_after_all_but_depth_is_written(config, poor, with_report):
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


def test_masks_are_made_again_with_the_cameras_they_need(config, use_backend, monkeypatch, ran):
    """A masks backend that needs cameras gets them once they are solved, without its masks."""
    given = []

    class Needy(Backend):
        name = "motion"

        def segment(self, scene, tracks, solution):
            given.append(solution is not None)
            mask = np.zeros(scene.size, np.uint8)
            mask[20:50, 20:60] = 1 + (solution is not None)
            return MaskResult(Streamed.of([mask] * len(scene), {}), needs_cameras=True)

    class Moving(Poor):
        def solve(self, scene, tracks, masks):
            assert masks is None and (tracks.object == 0).all()
            solved = super().solve(scene, tracks, masks)
            return dataclasses.replace(solved, motion="moving", verdict=Verdict("good"))

        def estimate(self, scene, tracks, masks, solution):
            assert given[-1]
            return flat_depth(scene, {})

    use_backend("masks", "motion", Needy())
    use_backend("cameras", "sfm", Moving())
    use_backend("depth", "fused", Moving())
    config = PreprocessConfig(config.video, config.out)
    check_scene(preprocess_video(config))
    assert given == [False, True]
    ran.clear()
    preprocess_video(config)
    assert given == [False, True] and ran == []
    preprocess_video(dataclasses.replace(config, redo=("cameras",)))
    assert given == [False, True, True]

    # Cut short while it segments again: the whole is put right.
    write, count = results.write_mask, []

    def cut(directory, frame, mask):
        count.append(frame)
        if len(count) == 5:
            raise KeyboardInterrupt
        write(directory, frame, mask)

    monkeypatch.setattr(results, "write_mask", cut)
    with pytest.raises(KeyboardInterrupt):
        preprocess_video(dataclasses.replace(config, redo=("cameras",)))
    monkeypatch.setattr(results, "write_mask", write)
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


def test_confidence_of_depth_comes_and_goes_with_it(config, use_backend, with_report):
    class Sure(Poor):
        def estimate(self, scene, tracks, masks, solution):
            return flat_depth(scene, {}, np.full(SIZE, 255, np.uint8))

    use_backend("depth", "fused", Sure())
    sure = dataclasses.replace(config, depth="fused", depth_path=None, accept_poor=True)
    scene = preprocess_video(sure)
    check_scene(scene)
    folder = scene.directory / "depth_confidence"
    assert len(list(folder.iterdir())) == FRAMES
    assert "confidence of depth" in (scene.directory / "preprocess_report.html").read_text()
    preprocess_video(config)  # depth from files has no confidence
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
def test_masks_are_improved_by_good_cameras(config, use_backend, motion, grade, second, passes):
    """Those of structure from motion, which are then solved again with the better masks."""
    given, seen = [], []

    class Better(Backend):
        name = "motion"

        def segment(self, scene, tracks, solution):
            given.append(solution is not None)
            mask = np.zeros(scene.size, np.uint8)
            mask[20 : 50 + 4 * (solution is not None), 20:60] = 1
            masks = Streamed.of([mask] * len(scene), {})
            return MaskResult(masks, better_with_cameras=solution is None)

    class Cameras(Poor):
        def solve(self, scene, tracks, masks):
            assert masks is not None and all(mask.any() for mask in masks)
            seen.append((masks[0] > 0).sum())
            solved = super().solve(scene, tracks, masks)
            now = second if len(seen) == 2 else grade
            verdict = Verdict(now, "" if now == "good" else "why", "cure")
            return dataclasses.replace(solved, motion=motion, verdict=verdict)

    use_backend("masks", "motion", Better())
    use_backend("cameras", "sfm", Cameras())
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


def test_frames_without_a_camera_are_placed_by_tracks(tmp_path):
    """The camera jolts in two frames that the file leaves out."""
    shift = np.arange(FRAMES)[:, None] * [1.0, 0.3]
    shift[5:7] += [[3, -2], [4, 2]]
    background = texture(SIZE[0] + 2 * MARGIN, SIZE[1] + 2 * MARGIN)
    maps = [turn_about((0, 0), 0, xy) for xy in shift]
    write_video(tmp_path / "clip.mp4", [warped(background, matrix, SIZE) for matrix in maps], 24)
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, :2, 3] = shift * 2 / 90  # a wall at depth 2
    cameras = Cameras.pinhole(90.0, SIZE[1], SIZE[0], poses)
    kept = np.r_[0:5, 7:FRAMES]
    content = nerfstudio_content(cameras[kept], [f"images/{i:05d}.png" for i in kept])
    content |= {"w": SIZE[1], "h": SIZE[0], "fl_x": 90.0, "fl_y": 90.0}
    write_json(tmp_path / "transforms.json", content | {"cx": SIZE[1] / 2, "cy": SIZE[0] / 2})
    files = {"cameras": "files", "cameras_path": tmp_path / "transforms.json"}
    config = PreprocessConfig(
        tmp_path / "clip.mp4", tmp_path / "scene", masks="none", tracks="flow", **files,
        only=("frames", "tracks", "masks", "cameras"),
    )  # fmt: skip
    scene = preprocess_video(config)
    quality = scene.info.stages["cameras"]["quality"]
    assert quality["registered_frames"] == FRAMES - 2 and quality["placed_by_tracks"] == 2
    away = np.linalg.norm(scene.cameras.centres - cameras.centres, axis=1)
    assert away.max() < 0.02  # 0.007; interpolated, 0.099


def test_cameras_are_read_once_by_the_pipeline_and_once_by_the_report(
    config, poor, monkeypatch, with_report
):
    from msdyn.scene import scene as scenes

    reads = []

    def note(path):
        reads.append(path)
        return read_cameras(path)

    monkeypatch.setattr(scenes, "read_cameras", note)
    preprocess_video(PreprocessConfig(config.video, config.out, accept_poor=True))
    assert len(reads) == 2


def test_records_of_older_versions_do_without_some_figures(config, ran, with_report):
    preprocess_video(dataclasses.replace(config, masks="none"))
    path = config.out / "scene.json"
    content = read_json(path)
    for name in ("needs_cameras", "better_with_cameras"):
        assert content["stages"]["masks"]["quality"].pop(name) is False
    write_json(path, content)
    ran.clear()
    preprocess_video(dataclasses.replace(config, masks="none"))
    assert ran == []
