"""Every command line of the documentation is read by its command, and run here, or says why not."""

import importlib
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_options import SCRIPTS
from commands import exit_code
from test_docs import TEXTS, split

from msdyn import events

ROOT = Path(__file__).parents[1]
DOCUMENTS = {**TEXTS, "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")}
PROGRAMS = ("docker", "git", "make", "pip", "pytest", "python", "ray", "torchrun", "uv")
START = re.compile(rf"(?:msdyn-\w+|(?:{'|'.join(PROGRAMS)})(?=\s))")


@dataclass(frozen=True)
class Line:
    """One command of a document, without variables, comments, redirections and what follows."""

    document: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def commands_of(document: str) -> list[Line]:
    """Return the commands in the code blocks of a document; of one page in its tables, too."""
    text = DOCUMENTS[document]
    rows = text.splitlines() if document == "docs/questions.md" else []
    cells = [span for row in rows for span in re.findall(r"`((?:\w+=\S+ )?msdyn-\w+ [^`]+)`", row)]
    found = []
    for line in [*split(text)[0], *cells]:
        for part in line.partition(" #")[0].split(" && "):
            words = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", part.strip())
            words = re.sub(r" \d?> \S+$", "", words)
            if START.match(words) and " = " not in words:
                found.append(Line(document, " ".join(words.split())))
    return found


LINES = [line for document in DOCUMENTS for line in commands_of(document)]
OURS = [line for line in LINES if line.text.startswith("msdyn-")]
FORMS = {
    "msdyn-export scene_dir --format ply|": "lists all formats",
    "msdyn-export video --format ply|": "lists all formats",
    "msdyn-render scene_dir [what]": "names the parts of a command line",
}
"""Lines that show a form, not a command, by their beginning."""
PLUGINS = ("--motion mine", "--depth mine")
"""Names that a plugin registers: tests/test_plugins.py and test_backend_plugin.py run such."""


def read(line: Line, monkeypatch) -> int:
    """Return the exit code of a command that reads its options and does nothing."""
    command, *words = line.words
    module = importlib.import_module(SCRIPTS[command])
    monkeypatch.setattr(module, "run", lambda function, config, **_: 0)
    return exit_code(module.main, words)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if commands_of(d)])
def test_our_commands_read_their_lines(document, monkeypatch, capsys):
    monkeypatch.setattr("msdyn.cli.options.load_plugins", lambda: None)
    for line in commands_of(document):
        if not line.text.startswith("msdyn-") or line.text.startswith(tuple(FORMS)):
            continue
        code = read(line, monkeypatch)
        events.choose("auto")
        refused = capsys.readouterr().err
        if line.text.endswith(PLUGINS):
            assert code == 2 and "'mine'" in refused
        else:
            assert code == 0, f"{document}: {line.text}: {refused}"


def test_extras_targets_and_files_exist():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in LINES:
        program, *words = line.words
        for extras in re.findall(r"msdyn\[([\w,]+)\]", line.text):
            assert all(f'"{extra}": [' in setup for extra in extras.split(",")), line
        if program == "make":
            target = next((word for word in words if "=" not in word), "")
            known = re.findall(r"^([\w.\-/$()]+):", makefile, re.MULTILINE)
            assert target.replace(".venv/installed", "$(INSTALLED)") in known, line
        if program == "python" and words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), line
        if program == "pytest":
            assert (ROOT / words[0]).exists(), line


# What is run here, in a folder with small scenes of these names; each takes a second or less.
RUN = (
    "msdyn-preprocess --check scene",
    "msdyn-eval scene",
    "msdyn-eval scene --frozen",
    "msdyn-render scene --time 0.4 --out middle.png",
    "msdyn-render scene --path bullet-time --time 0.5 --out frozen.mp4",
    "msdyn-render scene --path stabilised --out steady.mp4",
    "msdyn-render scene --output rgb,depth,objects,flow,tracks --out look",
    "msdyn-render scene --output depth --depth-as float --out depth",
    "msdyn-render scene --objects 1 --background off --out object.png --time 0.5",
    "msdyn-render scene --levels 1 --out coarse.mp4",
    "msdyn-render scene --camera camera_path.json --out mine.mp4",
    "msdyn-render video --camera camera_path.json --time 0.4 --objects 1 --background off",
    "msdyn-export scene --format html",
    "msdyn-export scene --format ply --time 0.5",
    "msdyn-export scene --format compressed-ply",
    "msdyn-export scene --format cameras",
    "msdyn-export scene --format points",
    "msdyn-export scene --format tracks",
    "msdyn-export scene --format tracks --points 12,8:20,9",
    "msdyn-export scene --format objects --fps 100",
    "msdyn-export scene --format flow --times 0,0.5",
    "msdyn-clips scene scene --out clips/own",
)


@pytest.fixture(scope="module")
def folder(fitted_plane_scene, tmp_path_factory) -> Path:
    """A folder with what the commands of `RUN` name."""
    here = tmp_path_factory.mktemp("commands")
    for name in ("scene", "video"):
        shutil.copytree(fitted_plane_scene, here / name)
    shutil.copy(here / "scene/cameras.json", here / "camera_path.json")
    return here


@pytest.mark.parametrize("text", RUN)
def test_a_command_runs(text, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    command, *words = shlex.split(text)
    module = importlib.import_module(SCRIPTS[command])
    code = exit_code(module.main, words)
    assert code in ((0, 3) if "--check" in text else (0,)), capsys.readouterr().err
    out = words[words.index("--out") + 1] if "--out" in words else None
    assert out is None or (folder / out).exists()


# Every other line, by a pattern, and why it is not run here.
ELSEWHERE = {
    r"make (demo|test|docs|\.venv/installed|check)": "by .ci/run, which has these targets, and "
    "`make package`, which runs the demo from the wheel",
    r"pip install": "by the Makefile and the tests of the Dockerfile",
    r"msdyn-demo": "tests/demo/test_demo.py, and `make package`",
    r"msdyn-preprocess .*(--depth mine)": "tests/preprocess/test_backend_plugin.py",
    r"msdyn-preprocess (\w+\.mp4|images/)": "seconds to minutes; tests/preprocess "
    "(test_preprocess_command.py, test_pipeline.py, test_files_backends.py, test_masks.py) run "
    "these options on small clips; networks have stand-ins (test_model_adapters.py)",
    r"msdyn-preprocess --from lerobot": "tests/preprocess/test_from_lerobot.py writes a dataset",
    r"msdyn-preprocess --from": "tests/preprocess/test_imported_recordings.py and "
    "tests/io/test_dycheck.py write such data",
    r"msdyn-fit \S+ --view": "tests/view looks at a fit with a browser",
    r"msdyn-fit \S+( --preset paper --device cuda)?( --[\w.-]+( \S+)?)*$": "a fit takes minutes; "
    "tests/fit runs these options on small scenes",
    r"msdyn-predict": "tests/feedforward/test_predict.py",
    r"msdyn-(render|export) .*--lens original": "needs a scene with a lens; "
    "tests/preprocess/test_lenses_of_clips.py, tests/export/test_original_lens.py",
    r"msdyn-render .*--from predict": "tests/feedforward/test_predict.py",
    r"msdyn-render .*(--times 0:1:240|novel\.json|--path (auto|spiral))": "the same options with "
    "fewer images in tests/cli/test_render_command.py; the file is of the reader",
    r"msdyn-view": "does not end by itself; tests/view",
    r"msdyn-eval .*(--protocol|--from|--truth|--align|--test-time-cameras)": "needs such data; "
    "tests/evaluate and tests/feedforward write them",
    r"msdyn-eval \S+$": "the same as `msdyn-eval scene`",
    r"msdyn-export .*--format (glb|usdc|4dgs|spz|rrd|mjcf|urdf|lerobot|report)": "tests/export, a "
    "module for each format",
    r"msdyn-batch": "tests/batch",
    r"msdyn-train|torchrun": "hours; tests/feedforward/training",
    r"msdyn-clips": "tests/cli/test_clips_command.py; public data sets have writers in "
    "tests/feedforward/data",
    r"python tools/|python -c": "measurements of minutes to hours, whose results are in the "
    "document; tests/tools run the tools on small input, test_docs.py checks their options",
    r"python examples/": "tests/export/test_examples.py",
    r"python -m mujoco": "opens a window; tests/export/test_mjcf.py loads the file",
    r"pytest": "part of the tests",
    r"git worktree": "takes an older commit",
    r"ray start": "a cluster; tests/batch runs Ray on one machine",
    r"docker": "no daemon in tests; tests/test_dockerfile.py checks it and runs its pip lines",
}


def test_every_line_is_run_or_explained():
    """By the first pattern that it matches; no pattern and no line of `RUN` is left over."""
    used = set()
    for line in LINES:
        if line.text in RUN or line.text.startswith(tuple(FORMS)):
            used.add(line.text)
            continue
        pattern = next((p for p in ELSEWHERE if re.match(p, line.text)), None)
        assert pattern, f"{line.document}: {line.text}: run it in {Path(__file__).name}, or say why"
        used.add(pattern)
    left = [text for text in (*RUN, *ELSEWHERE) if text not in used]
    assert not left, "no document has such a line"


def test_files_named_as_reasons_exist():
    for reason in ELSEWHERE.values():
        for name in re.findall(r"tests/[\w/]+(?:\.py)?", reason):
            assert (ROOT / name).exists(), name
        for name in re.findall(r"(?<![\w/])test_\w+\.py", reason):
            assert next((ROOT / "tests").rglob(name), None), name
