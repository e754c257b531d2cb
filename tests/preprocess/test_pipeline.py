"""The pipeline and its command: order, cache, interruption, verdicts, errors and exit codes."""

import dataclasses
import json
import typing

import numpy as np
import pytest
from moving import panning, paste, texture
from msdyn.preprocess import STAGES, PreprocessConfig, pipeline, preprocess_video
from msdyn.preprocess.backends import BACKENDS, BackendSpec
from msdyn.preprocess.base import CameraSolution, SparsePoints, Verdict
from msdyn.preprocess.files import FileDepth

from msdyn.cli.preprocess import main
from msdyn.errors import InputError, PoorInputError
from msdyn.geometry import Cameras
from msdyn.io import write_video
from msdyn.scene import (
    Scene,
    check_scene,
    create_scene,
    write_cameras,
    write_image,
    write_mask,
)

SIZE, FRAMES = (72, 96), 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with clip.mp4 (a square over a panned background), cameras.json and depth/."""
    folder = tmp_path_factory.mktemp("clip")
    frames, _ = panning(FRAMES, SIZE, shift=(1.0, 0.3))
    sprite = texture(30, 30, seed=4)
    frames = [paste(image, sprite, (10 + 3 * t, 20))[0] for t, image in enumerate(frames)]
    write_video(folder / "clip.mp4", frames, 24)
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 0, 3] = 0.01 * np.arange(FRAMES)
    write_cameras(folder / "cameras.json", Cameras.pinhole(90.0, SIZE[1], SIZE[0], poses))
    (folder / "depth").mkdir()
    for i in range(FRAMES):
        np.save(folder / "depth" / f"{i:05d}.npy", np.full(SIZE, 2.0, np.float32))
    return folder


@pytest.fixture
def config(clip, tmp_path):
    return PreprocessConfig(
        clip / "clip.mp4",
        tmp_path / "scene",
        cameras="files",
        cameras_path=clip / "cameras.json",
        depth="files",
        depth_path=clip / "depth",
        world_units="metric",
    )


class Poor:
    """A cameras backend that solves but cannot be trusted; a depth backend that needs cameras."""

    name = "sfm"

    def solve(self, scene, tracks, masks):
        poses = np.tile(np.eye(4), (len(scene), 1, 1))
        cameras = Cameras.pinhole(90.0, scene.info.width, scene.info.height, poses)
        points = SparsePoints(
            np.ones((1, 3)), np.zeros(2, int), np.arange(2), np.zeros((2, 2), np.float32)
        )
        verdict = Verdict("poor", "the camera only turns", "bring depth files")
        return CameraSolution(cameras, "rotating", points, verdict, quality={"focal_px": 90.0})

    def estimate(self, scene, tracks, masks, solution):
        assert solution.motion == "rotating" and solution.points.frame.tolist() == [0, 1]
        return (np.ones(scene.size, np.float32) for _ in range(len(scene))), {"known": 1.0}


@pytest.fixture
def poor(monkeypatch):
    """Let the defaults of cameras and depth be quick, and poor."""
    for stage in ("cameras", "depth"):
        spec = BackendSpec(
            lambda config: Poor(), BACKENDS[stage]["sfm" if stage == "cameras" else "fused"].needs
        )
        monkeypatch.setitem(BACKENDS[stage], "sfm" if stage == "cameras" else "fused", spec)


@pytest.fixture
def ran(monkeypatch):
    """The stages that were run, in their order."""
    stages = []
    forget = pipeline._Run._forget

    def note(self, stage):
        stages.append(stage)
        forget(self, stage)

    monkeypatch.setattr(pipeline._Run, "_forget", note)
    return stages


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
    from msdyn.preprocess import frames

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

    needs = BACKENDS["masks"]["motion"].needs
    monkeypatch.setitem(BACKENDS["masks"], "motion", BackendSpec(lambda config: Needy(), needs))
    for stage, name in (("cameras", "sfm"), ("depth", "fused")):
        spec = BackendSpec(lambda config: Moving(), BACKENDS[stage][name].needs)
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
        ({"masks_path": "m"}, "masks_path: given, but masks is 'motion'"),
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
        assert set(typing.get_args(hints[stage])) == set(names)
        assert set().union(*(spec.needs for spec in names.values())) <= set(STAGES)
    assert PreprocessConfig(tmp_path / "a" / "street.mov").directory.as_posix() == "street"
    (tmp_path / "shots.1").mkdir()
    assert PreprocessConfig(tmp_path / "shots.1").directory.as_posix() == "shots.1_scene"


def command(config, *more):
    return [
        str(config.video), "--out", str(config.out), "--cameras", "files",
        "--cameras-path", str(config.cameras_path), "--depth", "files",
        "--depth-path", str(config.depth_path), *more,
    ]  # fmt: skip


def test_the_command_ends_with_a_table_and_what_comes_next(config, capsys):
    assert main(command(config)) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [*STAGES, "next:"]
    assert lines[-1] == f"next: msdyn-fit {config.out}"
    assert "objects 1" in lines[2] and err == ""
    assert main(["--check", str(config.out)]) == 0
    out, err = capsys.readouterr()
    assert "12 frames of 96x72" in out and err == ""


def test_the_command_says_poor_in_one_line_and_exits_3(config, poor, capsys):
    arguments = [str(config.video), "--out", str(config.out)]
    assert main(arguments) == 3
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith(f"error: {config.out}: the camera only turns;")
    assert [line.split()[0] for line in out.splitlines()] == list(STAGES[:-1])
    assert main([*arguments, "--accept-poor"]) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gone.mp4"], "gone.mp4: no such file"),
        (["{clip}/cameras.json"], "not a video"),
        (["{clip}/clip.mp4", "--out", "{clip}"], "was not made by msdyn-preprocess"),
        (["--check", "{clip}"], "not a scene directory"),
        (["--check", "gone"], "not a scene directory"),
        (["{clip}/clip.mp4", "--depth", "files", "--depth-path", "gone"], "no such file"),
    ],
)
def test_errors_are_one_line_and_exit_2(arguments, message, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([argument.format(clip=clip) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and message in err


def test_bad_depth_is_one_line_naming_the_file(config, clip, tmp_path, capsys):
    depth = tmp_path / "depth"
    depth.mkdir()
    for i in range(FRAMES):
        np.save(depth / f"{i}.npy", np.full(SIZE, np.nan if i == 7 else 1.0))
    own = dataclasses.replace(config, depth_path=depth)
    assert main(command(own)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "7.npy: 6912 of 6912 values are NaN" in err


@pytest.fixture
def bad(clip, tmp_path, monkeypatch):
    """The working directory, with every kind of input that is refused."""
    monkeypatch.chdir(tmp_path)
    whole = (clip / "clip.mp4").read_bytes()
    write_video(tmp_path / "one.mp4", [texture(*SIZE)], 24)
    encode_mkv(tmp_path / "whole.mkv", clip / "clip.mp4")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    matroska = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(matroska[: len(matroska) // 2])
    for name in ("sizes", "masks", "masks_of_one_frame", "empty"):
        (tmp_path / name).mkdir()
    for i, size in enumerate([SIZE, SIZE, (SIZE[0], SIZE[1] - 2)]):
        write_image(tmp_path / "sizes" / f"{i}.png", texture(*size))
    for i in range(FRAMES):
        wrong = (SIZE[0], SIZE[1] // 2) if i == 5 else SIZE
        write_image(tmp_path / "masks" / f"{i:05d}.png", np.zeros(wrong, np.uint8))
    write_image(tmp_path / "masks_of_one_frame" / "0.png", np.zeros(SIZE, np.uint8))
    return tmp_path


def encode_mkv(path, source):
    """Write a video again as Matroska, of which any beginning can be opened."""
    import av

    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["cut.mp4"], "cut.mp4: not a video, or one cut short"),
        (["cut.mkv"], "cut.mkv: the video is cut short or damaged"),
        (["one.mp4"], "one.mp4: it holds one frame; a moving scene needs at least 2"),
        (["sizes"], "2.png: frames of differing sizes, 94x72 here and 96x72 in 0.png"),
        (["empty"], "empty: no images in this folder"),
        (
            ["{clip}/clip.mp4", "--out", "s", "--masks", "files", "--masks-path", "masks"],
            "00005.png: expected 96x72 or a size of that shape, got 48x72",
        ),
        (
            ["{clip}/clip.mp4", "--out", "s", "--masks", "files", "--masks-path"]
            + ["masks_of_one_frame"],
            "expected 12, one for every frame of the video; got 1",
        ),
    ],
)
def test_bad_input_is_one_line_and_exits_2(arguments, message, bad, clip, capsys):
    assert main([argument.format(clip=clip) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("error: ") and message in err
    assert out == ""


def test_a_mask_naming_an_object_without_tracks_fails_the_check(config, capsys):
    preprocess_video(config)
    scene = Scene(config.out)
    mask = scene.mask(4)
    mask[:5, :5] = 7
    write_mask(config.out, 4, mask)
    assert main(["--check", str(config.out)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and out == ""
    assert "7" in err and "track" in err


def test_an_unknown_backend_is_named_beside_those_there_are(clip, capsys):
    with pytest.raises(SystemExit) as error:
        main([str(clip / "clip.mp4"), "--depth", "guessed"])
    assert error.value.code == 2
    err = capsys.readouterr().err
    assert "guessed" in err and "'fused'" in err and "'files'" in err


@pytest.mark.parametrize(
    "arguments",
    [[], ["v.mp4", "--fps", "-1"], ["v.mp4", "--mask", "none"], ["v.mp4", "--only", "x"]],
)
def test_bad_options_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(PreprocessConfig)[1:]:
        assert f"--{field.name.replace('_', '-')}" in text
    assert "--check" in text


def test_an_interruption_exits_130(config, monkeypatch, capsys):
    def interrupt(self, scene):
        raise KeyboardInterrupt

    monkeypatch.setattr("msdyn.preprocess.tracks.FlowTracks.track", interrupt)
    assert main(command(config)) == 130
    assert "kept" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(command(config)) == 0


def test_a_fault_of_ours_keeps_its_traceback(config, monkeypatch):
    def break_down(self, scene, tracks, masks, solution):
        raise ZeroDivisionError

    monkeypatch.setattr(FileDepth, "estimate", break_down)
    with pytest.raises(ZeroDivisionError):
        main(command(config))


def test_records_are_json_of_one_form(config):
    preprocess_video(config)
    content = json.loads((config.out / "scene.json").read_text())
    keys = {"backend", "model", "licence", "options", "input_hash", "seconds", "quality"}
    assert all(set(record) == keys for record in content["stages"].values())
