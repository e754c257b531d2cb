"""`msdyn-batch` with real clips: the results of the commands that one would give by hand."""

import json
import socket
import sys

import pyarrow.parquet as pq
import pytest
from commands import exit_code

from msdyn.batch import STAGES, Clip, StageWork, Store, read_rows
from msdyn.batch.workspace import Workspace
from msdyn.cli import batch, evaluate, fit, preprocess
from msdyn.cli.batch_worker import run_stage
from msdyn.io import write_video
from msdyn.scene import Scene
from msdyn.synthetic import make_scene, render_truth

PREPROCESS = "--preset offline --saliency off --accept-poor"
FRAMES = 9
FIT = (
    "--preset quick --epochs 1 --prefit-steps 5 --joint-refinement off --static-gaussians 200 "
    "--moving-gaussians 100 --holdout-every 4 --device cpu"
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Return a folder with a clip and a damaged one."""
    folder = tmp_path_factory.mktemp("videos")
    scene = make_scene("two-boxes", frames=FRAMES, width=96, height=72, seed=0)
    write_video(folder / "clip.mp4", render_truth(scene).clip.images, 24)
    whole = (folder / "clip.mp4").read_bytes()
    (folder / "damaged.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


def test_a_cluster_that_does_not_answer(videos, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # of nobody, once it is closed
    given = ["run", videos, "--out", tmp_path / "out", "--engine", "ray"]
    assert exit_code(batch.main, [*given, "--address", f"127.0.0.1:{port}"]) == 2
    assert f"--address 127.0.0.1:{port}: no cluster of Ray answers" in capsys.readouterr().err


@pytest.mark.slow
def test_a_batch_is_what_the_commands_do(videos, tmp_path, capfd):
    out, scene = tmp_path / "run", tmp_path / "by-hand"
    options = ["--preprocess", PREPROCESS, "--fit", FIT, "--workers", 1]
    assert exit_code(batch.main, ["run", videos, "--out", out, *options]) == 0
    text = capfd.readouterr().out
    assert "2 of 2 clips have ended" in text and "done" in text and "bad-input" in text
    assert (
        exit_code(preprocess.main, [videos / "clip.mp4", "--out", scene, *PREPROCESS.split()]) == 0
    )
    assert exit_code(fit.main, [scene, *FIT.split()]) == 0
    assert exit_code(evaluate.main, [scene]) == 0
    names = ["cameras.json", "tracks.npz", "fit/sequence.safetensors"]
    names += [
        f"{folder}/{i:05d}.{end}"
        for i in range(FRAMES)
        for folder, end in (("depth", "npy"), ("masks", "png"))
    ]
    ours = out / "clips/clip/scene"
    for name in names:
        assert (ours / name).read_bytes() == (scene / name).read_bytes(), name
    rows = {row.stage: row for row in read_rows(Store(str(out))) if row.clip == "clip"}
    assert list(rows) == list(STAGES) and rows["evaluate"].ended == "done"
    by_hand = json.loads((scene / "fit/eval.json").read_text())
    assert by_hand["frames"]["kept_out_of_the_fit"]
    assert rows["evaluate"].psnr == pytest.approx(by_hand["frames"]["mpsnr"], abs=1e-3)
    assert rows["evaluate"].verdict == by_hand["input"]["grade"]
    assert (out / "clips/clip/thumbnail.jpg").is_file()
    assert "== fit, attempt 1" in (out / "clips/clip/log.txt").read_text()
    (bad,) = pq.read_table(out / "quarantine.parquet").to_pylist()
    assert (
        bad["clip"] == "damaged" and bad["reason"] == "bad-input" and "damaged.mp4" in bad["error"]
    )
    page = (out / "index.html").read_text()
    assert 'href="clips/clip/scene/fit/report.html"' in page and "data:image/jpeg" in page
    assert exit_code(batch.main, ["status", out]) == 0
    assert "2 of 2 clips have ended" in capfd.readouterr().out


def test_dry_run(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["run", videos, "--dry-run", "--fit", FIT, "--workers", 2, "--until", "fit"]
    assert exit_code(batch.main, arguments) == 0
    text = capsys.readouterr().out
    assert "2 clips to run, 0 have ended" in text and "stages: tracks (CPU)" in text
    assert "evaluate" not in text and "2 workers" in text and "of disk" in text
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--preprocess", "--long-side 1"], "error: --preprocess: --long-side: expected"),
        (["--preprocess", "--only frames"], "--only cannot be given for a batch"),
        (["--fit", "--nothing 3"], "error: --fit: --nothing: no such option"),
        (["--fit", "--preset 'quick"], "No closing quotation"),
        (["--shard", "4/3"], "error: shard: expected 1/3 to 3/3"),
        (["--workers", "0"], "--workers"),
        (["--time-limit", "-1"], "--time-limit"),
    ],
)
def test_wrong_options(videos, tmp_path, options, message, capsys):
    arguments = ["run", videos, "--out", tmp_path / "out", *options]
    assert exit_code(batch.main, arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_not_there(tmp_path, capsys):
    for arguments in (["run", tmp_path / "none.csv"], ["status", tmp_path], ["retry", tmp_path]):
        assert exit_code(batch.main, arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1


def test_ray_that_is_missing(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["run", videos, "--out", tmp_path / "out", "--engine", "ray"]
    assert exit_code(batch.main, arguments) == 2
    assert 'pip install "msdyn[cluster]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "code, line, state",
    [
        (2, "a.mp4: not a video", "bad-input"),
        (3, "the camera is static", "poor"),
        (4, "2 GB of memory are in use, more than --max-memory 1G; ...", "out-of-memory"),
        (4, "a: the memory is full; end other programs", "out-of-memory"),
        (4, "/data/memory/a.npy: no space left on the disk; make room", "refused"),
    ],
)
def test_ends_of_commands(videos, tmp_path, monkeypatch, code, line, state):
    """The exit code and the one line of a command are the end of its stage."""
    clip = Clip("a", str(videos / "clip.mp4"))
    workspace = Workspace(Store(str(tmp_path)), clip, None)
    workspace.folder.mkdir(parents=True)

    def main(arguments):
        with workspace.log.open("a") as log:
            log.write(f"loading ...\nerror: {line}\n")
        return code

    monkeypatch.setattr(preprocess, "main", main)
    result = run_stage(StageWork(clip, "tracks", workspace, False, "", "", None))
    assert result.state == state and result.error == line and result.error_class


def test_smaller_images_of_the_second_try(videos, tmp_path):
    """Half of the size that the images have, which may be below the limit that was asked for."""
    clip = Clip("a", str(videos / "clip.mp4"))
    workspace = Workspace(Store(str(tmp_path)), clip, None)
    workspace.folder.mkdir(parents=True)
    sizes = []
    for smaller in (False, True, True):
        work = StageWork(clip, "tracks", workspace, smaller, PREPROCESS, FIT, None)
        workspace.log.touch()
        assert run_stage(work).state == "done"
        sizes.append(Scene(workspace.scene).size)
    assert sizes == [(72, 96), (48, 64), (48, 64)]
    work = StageWork(clip, "tracks", workspace, False, f"{PREPROCESS} --out x", FIT, None)
    assert run_stage(work).state == "bad-input"
