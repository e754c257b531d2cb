"""The documentation names what exists: files, tests, options, registered names, layers.

Expected names come from the code. Links and the README's Python are tested in `test_readme.py`.
"""

import ast
import functools
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from command_options import SCRIPTS, parsers_of
from test_architecture import LAYERS

from msdyn.cli.options import options_of as options_of_config

ROOT = Path(__file__).parents[1]
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
# Folders that paths in the documentation are relative to.
BASES = tuple(ROOT / name for name in ("", "msdyn", "preprocess", "docs", "tests"))
FOREIGN = {"hubconf.py"}  # of torch hub
FILE = re.compile(r"(?:\w[\w.]*/)*[\w*]+\.(?:py|js|toml|md)")
FOLDERS = ("benchmarks", "docs", "examples", "msdyn", "preprocess", "tests", "tools")
OPTION = re.compile(r"(?<![\w-])--[a-z](?:[\w.-]*\w)?")
COMMAND = re.compile(r"(msdyn-[a-z]+|tools/\w+\.py|pytest)")

every_document = pytest.mark.parametrize("document", TEXTS)


def split(text: str) -> tuple[list[str], str]:
    """Return the lines of all code blocks, continued lines joined, and the text around them."""
    code, prose, fenced, before = [], [], False, ""
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
            continue
        indented = line.startswith("    ") and (not before.strip() or before.startswith("    "))
        (code if fenced or indented else prose).append(line)
        before = line if fenced or indented or not line.startswith("    ") else "prose"
    return "\n".join(code).replace("\\\n", " ").splitlines(), "\n".join(prose)


def quoted(text: str) -> list[str]:
    """Return the spans in backticks, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def find(path: str) -> Path | None:
    """Return a file or folder that the documentation names."""
    bare = "/" not in path
    for base in (ROOT / name for name in FOLDERS) if bare else BASES:
        if found := next(base.rglob(path) if bare else base.glob(path), None):
            return found
    return next(ROOT.glob(path), None)


def table(document: str, *head: str) -> list[list[str]]:
    """Return the cells of the table that has these first columns."""
    lines = iter(TEXTS[document].splitlines())
    for line in lines:
        if line.startswith("| " + " | ".join(head) + " |"):
            break
    next(lines, None)
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert found, f"{document} has no table of {', '.join(head)}"
    return found


def names_in(document: str, pattern: str) -> list[str]:
    """Return the names in backticks in the group of a pattern that a document matches once."""
    (part,) = re.findall(pattern, TEXTS[document], re.DOTALL)
    return quoted(part)


def ours(value: object) -> bool:
    """Whether a registered function or class is msdyn's, not of a plugin of another test."""
    return value.__module__.startswith("msdyn.")


# Paths and names


@every_document
def test_files_named_exist(document):
    wrong = []
    for span in quoted(split(TEXTS[document])[1]):
        path = span.split("::")[0]
        named = FILE.fullmatch(path) or (re.fullmatch(r"[\w./-]+", path) and path.startswith(
            tuple(f"{folder}/" for folder in FOLDERS)
        ))  # fmt: skip
        if named and path not in FOREIGN and find(path) is None:
            wrong.append(span)
    assert not wrong, f"{document} names {wrong}"


@every_document
def test_names_beside_files_are_defined_there(document):
    """As in "`motion/alignment.py` `align_cluster`" and "`fit/test_fit.py::test_fewer_levels`"."""
    wrong = []
    for line in split(TEXTS[document])[1].splitlines():
        path = ""
        for span in re.findall(r"`([^` ]+)`", line):
            before, _, test = span.partition("::")
            path = before or path  # a name alone is in the file named before it
            if test and test not in defined(find(path)):
                wrong.append(f"{path}::{test}")
        for path, name in re.findall(r"`([\w/]+\.py)` `([\w.]+)`", line):
            if not defined(find(path)) >= set(name.split(".")):
                wrong.append(f"{path} {name}")
    assert not wrong, f"{document} names {wrong}"


@functools.cache
def defined(path: Path | None) -> set[str]:
    """Return the names of the functions and classes that a file defines, methods too."""
    if path is None or path.suffix != ".py":
        return set()
    kinds = (ast.FunctionDef, ast.ClassDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize("document", ["docs/architecture.md", "docs/method.md"])
def test_identifiers_occur_in_the_sources(document):
    files = [p for folder in ("msdyn", "preprocess") for p in (ROOT / folder).rglob("*.py")]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in files)
    known = set(re.findall(r"\w+", sources))
    for span in quoted(split(TEXTS[document])[1]):
        if name := re.fullmatch(r"@?([A-Za-z_][\w.]*)(\(.*\))?", span):
            if not FILE.fullmatch(span) and "::" not in span:
                missing = set(name[1].split(".")) - known - {"json", "html", "npz", "mp4"}
                assert not missing, f"{document} names {span}"


# Options


@functools.cache
def options_of(command: str) -> frozenset[str]:
    """Return the options of a command, or of a tool, from its source."""
    if command not in SCRIPTS:
        source = (ROOT / command).read_text(encoding="utf-8")
        return frozenset(re.findall(r'add_argument\(\s*"(--[\w-]+)"', source)) | {"--help"}
    found = {"--help", "--version", "--progress"}
    for parser in parsers_of(command):
        options = options_of_config(parser.config, parser.default)
        found.update(f"--{option.name}" for option in options if not option.field.positional)
        flags = [option.name for option in options if option.field.kind == "flag"]
        found.update(f"--no-{name}" for name in flags)
    return frozenset(found)


def all_options() -> set[str]:
    tools = [f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py")]
    return set().union(*map(options_of, (*SCRIPTS, *tools)))


def used(line: str) -> list[tuple[str, list[str]]]:
    """Return the commands on a line and their options; those before any command have "" for it.

    Options in quotes are for other commands.
    """
    parts = ["", *COMMAND.split(re.sub('"[^"]*"', "", line))]
    return [
        (command, OPTION.findall(rest))
        for command, rest in zip(parts[::2], parts[1::2], strict=True)
    ]


@every_document
def test_options_in_code_blocks_exist(document):
    for line in split(TEXTS[document])[0]:
        for command, options in used(line):
            if command in SCRIPTS or command.startswith("tools/"):
                wrong = set(options) - options_of(command)
                assert not wrong, f"{document}: {command} has no {wrong}: {line.strip()}"


@every_document
def test_options_in_the_text_exist(document):
    for span in quoted(split(TEXTS[document])[1]):
        for command, options in used(span):
            if options and command != "pytest":
                wrong = set(options) - (options_of(command) if command else all_options())
                assert not wrong, f"{document}: no {wrong}: {span}"


def test_the_options_found_are_those_of_the_commands():
    assert {"--levels", "--loss.extra", "--preset", "--restart"} <= options_of("msdyn-fit")
    assert {"--check", "--from", "--factor", "--topic", "--accept-poor"} <= options_of(
        "msdyn-preprocess"
    )
    assert "--k-primitive" not in options_of("msdyn-render")


# Registries


def test_backends():
    import msdyn.feedforward.backends  # noqa: F401  registers itself
    from msdyn.preprocess import BACKEND_STAGES, backends
    from msdyn.preprocess.checkpoints.huggingface import CHECKPOINTS

    listed = {row[0]: row[1:] for row in table("docs/preprocessing.md", "stage", "without weights")}
    assert set(listed) == set(BACKEND_STAGES)
    for stage in BACKEND_STAGES:
        without, networks, _ = listed[stage]
        specs = {name: spec.model for name, spec in backends(stage).items() if name != "files"}
        assert set(quoted(without)) == {name for name, model in specs.items() if model is None}
        assert set(quoted(networks)) == {name for name, model in specs.items() if model}
        for name, model in specs.items():
            if model in CHECKPOINTS:
                licence = re.split(r"\W*\(", CHECKPOINTS[model].licence)[0]
                (note,) = re.findall(rf"`{name}` \(([^)]*)\)", networks)
                assert licence in note, f"{name}: {note} does not name {licence}"


def test_preprocessing_presets():
    from msdyn.preprocess import PreprocessConfig

    listed = [quoted(row[0]) for row in table("docs/preprocessing.md", "preset", "chooses")]
    assert listed == [[name] for name in get_args(get_type_hints(PreprocessConfig)["preset"])]


def test_importers():
    modules = {path.stem for path in (ROOT / "preprocess/importers").glob("*.py")} - {"__init__"}
    named = set(re.findall(r"--from ([a-z0-9]+)", "\n".join(TEXTS.values())))
    # Sequences, of other commands, and what finds the kind.
    assert named - {"fit", "predict", "auto"} == modules


def test_training_data_sets():
    from msdyn.feedforward.data.datasets import DATASETS, DatasetInfo

    *listed, other = table("docs/training_data.md", "data set", "draws per epoch")
    assert [quoted(row[0])[0] for row in listed] == list(DATASETS)
    for row, info in zip([*listed, other], [*DATASETS.values(), DatasetInfo()], strict=True):
        numbers = (info.repeat, info.depth_weight, info.motion_weight, info.stride)
        assert tuple(map(float, row[1:5])) == numbers and (row[5] == "yes") == info.static


def test_motion_models_and_fit_presets():
    from msdyn.fit.config import PRESETS
    from msdyn.motion import motion_class, motion_names

    registered = {name for name in motion_names() if ours(motion_class(name))}
    assert set(names_in("docs/method.md", r"Motion models \(`--motion`\):(.*?)\.\s")) == registered
    assert set(names_in("docs/method.md", r"Presets \(`--preset`\):(.*?)\.\s")) == set(PRESETS)


def test_losses():
    import msdyn.fit.losses  # noqa: F401  registers them
    from msdyn.fit.config import LossConfig
    from msdyn.fit.step import registered_losses

    listed = {quoted(row[0])[0]: float(row[1]) for row in table("docs/method.md", "loss", "weight")}
    assert listed == {f.name: f.default for f in fields(LossConfig) if f.name != "extra"}
    registered = {name for name, loss in registered_losses().items() if ours(loss.function)}
    assert registered <= set(listed)


def test_export_formats():
    from msdyn.export import FORMATS

    headings = re.findall(r"^## `([\w-]+)`", TEXTS["docs/formats.md"], re.MULTILINE)
    assert headings == list(FORMATS)
    for document in ("README.md", "docs/formats.md"):
        (choices,) = re.findall(r"--format ([\w-]+(?:\|[\w-]+)+)", TEXTS[document])
        assert choices.split("|") == list(FORMATS), document


def test_outputs_and_camera_paths():
    from msdyn.geometry import PATHS
    from msdyn.render.pictures import OUTPUTS

    outputs = [quoted(row[0])[0] for row in table("docs/rendering.md", "output")]
    assert outputs == list(OUTPUTS)
    paths = [name for row in table("docs/rendering.md", "path") for name in quoted(row[0])]
    assert set(paths) == {"auto", *PATHS}


def test_metrics():
    import msdyn.evaluate

    rows = table("docs/evaluation.md", "figure", "definition", "where")
    assert {quoted(row[-1])[0] for row in rows} <= set(msdyn.evaluate.__all__)


def test_layers():
    listed = [quoted(row[0]) for row in table("docs/architecture.md", "layer", "content")]
    expected = [[name.removeprefix("msdyn.") for name in row] for row in reversed(LAYERS)]
    assert list(map(sorted, listed)) == list(map(sorted, expected))


def test_benchmarks_name_no_folder_of_one_machine():
    for path in sorted((ROOT / "benchmarks").iterdir()):
        found = re.findall(r'[" =](/[\w.]+/[^" ]*)', path.read_text(encoding="utf-8"))
        assert not found, f"{path.name}: {found[:3]}"
