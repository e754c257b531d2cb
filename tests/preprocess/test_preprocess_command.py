"""`msdyn-preprocess` as a shell calls it: tables, errors in one line, exit codes."""

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import exit_code
from moving import texture
from small_clip import FRAMES, SIZE

from msdyn.cli import verdicts
from msdyn.cli.preprocess import main
from msdyn.io import write_video
from msdyn.preprocess import STAGES, PreprocessConfig, preprocess_video
from msdyn.preprocess.contracts import Verdict
from msdyn.preprocess.depth.from_files import FileDepth
from msdyn.preprocess.report.fitness import Fitness
from msdyn.scene import Scene, write_image, write_mask


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
    assert [line.split()[0] for line in lines] == [*STAGES, "note:", "report:", "next:"]
    assert lines[-3].startswith("note: masks by motion: facebook/sam2.1-hiera-tiny is not on this")
    assert lines[-2] == f"report: {config.out / 'preprocess_report.html'}"
    assert lines[-1] == f"next: msdyn-fit {config.out}"
    assert "objects 1" in lines[2] and err == ""
    assert main(["--check", str(config.out)]) == 0
    out, err = capsys.readouterr()
    assert "12 frames of 96x72" in out and err == ""


def test_redo_and_only_choose_the_stages_to_run(config, capsys):
    assert main(command(config, "--only", "frames", "--only", "tracks")) == 0
    assert sorted(Scene(config.out).info.stages) == ["frames", "tracks"]
    assert not (config.out / "masks").exists()
    assert main(command(config)) == 0
    written = {name: (config.out / name).stat().st_mtime_ns for name in ("images", "masks")}
    assert main(command(config, "--redo", "masks")) == 0
    assert capsys.readouterr().err == ""
    assert (config.out / "images").stat().st_mtime_ns == written["images"]
    assert (config.out / "masks").stat().st_mtime_ns > written["masks"]


def test_the_command_says_poor_in_one_line_and_exits_3(config, poor, capsys):
    arguments = [str(config.video), "--out", str(config.out)]
    assert main(arguments) == 3
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith(f"error: {config.out}: the camera only turns;")
    words = [line.split()[0] for line in out.splitlines()]
    assert words == [*STAGES[:-1], "note:", "report:"]
    assert "bring depth files" in err
    assert (config.out / "preprocess_report.html").is_file()
    assert main([*arguments, "--accept-poor"]) == 0


def test_only_some_stages_end_with_the_code_of_what_they_judge(config, poor, capsys):
    """As the whole run: poor cameras are 3, unless depth does not depend on them."""
    stages = [part for stage in STAGES[:-1] for part in ("--only", stage)]
    arguments = [str(config.video), "--out", str(config.out), *stages]
    assert main(arguments) == 3
    assert "the camera only turns" in capsys.readouterr().err
    assert main([*arguments, "--accept-poor"]) == 0
    assert main([*arguments[:3], "--only", "tracks"]) == 0
    files = ["--depth", "files", "--depth-path", str(config.depth_path)]
    assert main([*arguments, *files]) == 0


def test_each_verdict_is_printed_once(config, poor, capsys):
    assert main([str(config.video), "--out", str(config.out)]) == 3
    out, err = capsys.readouterr()
    assert (out + err).count("the camera only turns") == 1
    assert main([str(config.video), "--out", str(config.out), "--accept-poor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    warnings = [line.split(": ", 2)[-1] for line in lines if line.startswith("warning")]
    assert warnings and len(set(warnings)) == len(warnings)


def test_a_verdict_that_is_measured_again_is_not_repeated(monkeypatch, capsys):
    class Clip(Scene):
        info = SimpleNamespace(stages={})

        def __init__(self):
            pass

    of_stage = {"depth": Verdict("usable", "30% differ", "move")}
    monkeypatch.setattr(verdicts, "judge_stages", lambda *_: of_stage)
    measured = [
        Fitness("depth", "", Verdict("usable", "31% differ", "move")),
        Fitness("depth", "", Verdict("poor", "nothing agrees", "move")),
        Fitness("static points", "", Verdict("usable", "2 px off", "look")),
    ]
    verdicts.print_reasons(Clip(), measured)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1] for line in lines] == [" depth poor", " static points usable"]


def test_without_a_terminal_every_stage_has_a_line(config, monkeypatch, capfd):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    assert main(command(config)) == 0
    err = capfd.readouterr().err
    assert "\r" not in err and "\x1b" not in err
    ends = [line.split(":")[0] for line in err.splitlines() if re.search(r": \d+\.\d s$", line)]
    assert [name for name in ends if name in STAGES] == list(STAGES)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gone.mp4"], "gone.mp4: no such file"),
        (["{clip}/cameras.json"], "not a video"),
        (["{clip}/clip.mp4", "--out", "{clip}"], "was not made by msdyn-preprocess"),
        (["--check", "{clip}"], "not a scene directory"),
        (["--check", "gone"], "gone: no such file or folder"),
        (["--check", "."], "not a scene directory"),
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
    assert "guessed" in err and "fused, files" in err


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
    def interrupt(self, scene, footage):
        raise KeyboardInterrupt

    monkeypatch.setattr("msdyn.preprocess.tracks.chained_flow.FlowTracks.track", interrupt)
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


def test_a_device_that_is_not_there_exits_2_before_anything_runs(config, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, words in (("cuda:1", "torch finds none"), ("tpu", "expected auto, cpu, cuda")):
        arguments = [config.video, "--out", config.out, "--device", device]
        assert exit_code(main, arguments) == 2
        assert words in capsys.readouterr().err
    assert not config.out.exists()
