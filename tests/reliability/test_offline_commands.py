"""The commands themselves, from clip to demo, in processes that can reach no network.

Each runs with the guard of `network_guard.py` from its start and, where the system lets a user have
a network of its own, in one without any interface but loopback, for sockets of compiled code.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import network_guard
import pytest
from planes import make_plane_scene

from msdyn.io import write_video

pytestmark = pytest.mark.reliability
TINY = ["--frames", "8", "--width", "96", "--epochs", "2", "--device", "cpu"]
QUICK = ["--preset", "quick", "--epochs", "2", "--prefit-steps", "2", "--device", "cpu"]


def isolated():
    """Return the words that start a program without a network, none where that is not allowed."""
    words = ["unshare", "--map-root-user", "--net"]
    allowed = (
        shutil.which("unshare") and not subprocess.run([*words, "true"], check=False).returncode
    )
    return words if allowed else []


@pytest.fixture
def command(tmp_path):
    """Run a command of msdyn in a process of its own; return its output and what it tried."""
    guard = tmp_path / "guard"
    guard.mkdir()
    shutil.copy(network_guard.__file__, guard / "sitecustomize.py")
    log = tmp_path / "network.log"
    path = os.pathsep.join([str(guard), *filter(None, sys.path)])
    environment = {**os.environ, network_guard.VARIABLE: str(log), "PYTHONPATH": path}
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "https_proxy"):
        environment.pop(name, None)

    def run(module, *arguments, within=isolated()):  # noqa: B008
        code = f"import sys; from msdyn.cli.{module} import main; sys.exit(main())"
        words = [*within, sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(
            words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
            timeout=3000,
        )  # fmt: skip
        tried = log.read_text() if log.is_file() else ""
        return done, tried

    return run


def succeed(answer):
    done, tried = answer
    assert done.returncode == 0, done.stdout + done.stderr
    assert tried == ""


def test_the_guard_sees_what_a_process_tries(command, tmp_path):
    """Of the one command that reports what it could not look up."""
    clip = tmp_path / "clip.mp4"
    write_video(clip, iter([__import__("numpy").zeros((48, 64, 3), "uint8")] * 6), 10)
    _, tried = command("preprocess", clip, "--out", tmp_path / "scene", "--only", "frames")
    assert "socket.getaddrinfo" in tried  # --preset auto asks what can be had


def test_from_a_scene_to_every_result(command, tmp_path):
    scene = make_plane_scene(tmp_path / "scene").directory
    succeed(command("fit", scene, *QUICK))
    succeed(command("evaluate", scene))
    succeed(command("render", scene, "--path", "auto", "--out", tmp_path / "a.mp4"))
    for kind in ("ply", "tracks", "objects", "cameras", "html", "report", "points"):
        succeed(command("export", scene, "--format", kind))
    succeed(command("preprocess", "--check", scene))


def test_from_a_clip_alone(command, tmp_path):
    succeed(command("demo", *TINY, "--bare", "--out", tmp_path / "demo"))
    clip = next(Path(tmp_path / "demo").rglob("*.mp4"))
    succeed(command("preprocess", clip, "--out", tmp_path / "scene", "--preset", "offline",
                    "--accept-poor"))  # fmt: skip
