"""The README's Python runs as it stands there, and what it names exists."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import msdyn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_block_runs(fitted_plane_scene, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 1 and len(blocks[0].strip().splitlines()) <= 10
    shutil.copytree(fitted_plane_scene, tmp_path / "video", ignore=shutil.ignore_patterns("fit"))
    monkeypatch.chdir(tmp_path)
    short = replace(msdyn.preset("quick"), epochs=1, static_gaussians=500, moving_gaussians=200)
    monkeypatch.setattr(msdyn, "preset", lambda _: short)
    names: dict = {}
    exec(blocks[0], names)
    assert names["image"].rgb.shape == (24, 32, 3)
    assert len(names["sequence"].moving) > 0
    assert (tmp_path / "video" / "fit" / "sequence.safetensors").is_file()


@pytest.mark.parametrize(
    "document", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def test_commands_named_are_installed():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for command in set(re.findall(r"msdyn-[a-z]+", README)):
        assert f'"{command}=' in setup, command
