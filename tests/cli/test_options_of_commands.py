"""Every option of every command: a wrong value is one line that names it, before anything runs."""

import importlib
import os
import random
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_options import SCRIPTS, parsers_of

from msdyn.cli import help as texts
from msdyn.cli.options import options_of, parse
from msdyn.fit.config import FitConfig

NUMBERS = ("-1", "0", "nan", "inf", "-inf", "1e30", str(10**30), "abc", "")
NEVER = {"nan", "inf", "-inf", "1e30", str(10**30), "abc", ""}
TEXTS = ("", " ", "\udcff", "a\nb", "x" * 5000, "~/[*?", "-", "%s", "None")


def with_text(options, tried, text) -> list[str]:
    """Return arguments with a text for one option, and what must be given besides."""
    named, positional = [], ["--"]
    for option in options:
        values = option.field.values
        if option is tried:
            given = [text] * (len(values) if option.field.kind == "fixed" else 1)
        elif option.default is texts.MISSING:
            plain = "x" if values[0].kind in (str, Path) else "1"
            given = [str(values[0].choices()[0]) if values[0].choices else plain]
        else:
            continue
        if option.field.positional:
            positional += given
        elif option.field.kind == "pairs":
            named += [f"--{option.name}", "name", *given]
        elif len(given) > 1:
            named += [f"--{option.name}", *given]
        else:
            named.append(f"--{option.name}={given[0]}")
    return named + positional


CASES = [
    pytest.param(parser, id=f"{script}-{parser.config.__name__}")
    for script in SCRIPTS
    for parser in parsers_of(script)
]


@pytest.mark.slow
@pytest.mark.parametrize("parser", CASES)
def test_every_option_refuses_in_one_line(parser, capsys, monkeypatch):
    module = importlib.import_module(SCRIPTS[parser.command])
    monkeypatch.setattr("msdyn.cli.options.load_plugins", lambda: None)
    monkeypatch.setattr(module, "run", lambda function, config, **_: 0)
    options = options_of(parser.config, parser.default)
    assert options
    for row, option in enumerate(options):
        if option.name == "from" and "lerobot" in parser.variant:
            continue  # with another kind, the command parses other options
        numeric = any(value.kind in (int, float) for value in option.field.values)
        # A fifth of the texts for each option: neighbours, which are alike, get the others.
        for text in (NUMBERS if numeric else TEXTS)[row % 5 :: 5]:
            arguments = [*parser.start, *with_text(options, option, text)]
            try:
                code = module.main(arguments)
            except SystemExit as end:
                code = end.code
            out, err = capsys.readouterr()
            assert code in (0, 2) and not out, (arguments, code)
            assert err.count("\n") == (code == 2), (arguments, err)
            assert code == 0 or re.match(r"error: \S", err), (arguments, err)
            if option.field.kind == "flag" or (numeric and text in NEVER) or not text.strip():
                assert code == 2 and err.startswith(f"error: {option.label}: "), (arguments, err)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_has_every_option_once_with_examples(script, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    module = importlib.import_module(SCRIPTS[script])
    for parser in parsers_of(script):
        with pytest.raises(SystemExit) as end:
            module.main([*parser.start, *parser.variant, "-h"])
        text = capsys.readouterr().out
        assert end.value.code == 0 and text.startswith("usage: ")
        assert max(map(len, text.splitlines())) <= 110 and "None" not in text
        for option in options_of(parser.config, parser.default):
            described = texts.documentation(option.owner)
            assert described.get(option.path[-1]), f"{option.name} has no help"
            if not option.field.positional:
                name = f"--no-{option.name}" if option.default is True else f"--{option.name}"
                assert len(re.findall(rf"^  {re.escape(name)}(?:\s|$)", text, re.M)) == 1, name
    with pytest.raises(SystemExit):
        module.main(["--help"])
    text = capsys.readouterr().out
    (examples,) = re.findall(r"Examples\n((?:  .*\n)+)", text)
    assert examples.count(script) >= 2


def test_examples_in_help_are_read(capsys, monkeypatch):
    for script in SCRIPTS:
        module = importlib.import_module(SCRIPTS[script])
        monkeypatch.setattr(module, "run", lambda function, config, **_: 0)
        for example in module.EXAMPLES:
            assert module.main(shlex.split(example.partition("#")[0])) == 0, (script, example)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--k-primitve", "3"], "--k-primitve: no such option of msdyn-fit; similar: --k-pri"),
        (["x", "--rgb", "3"], "--rgb: no such option of msdyn-fit; similar: --loss.rgb"),
        (["x", "--zzzz"], "--zzzz: no such option of msdyn-fit; msdyn-fit --help lists them"),
        (["x", "-z"], "-z: no such option of msdyn-fit; msdyn-fit --help lists them"),
        (["x", "--epochs"], "--epochs: expected a value, got none"),
        (["x", "--epochs", "--batch", "3"], "--epochs: expected a value, got none"),
        (["x", "--epochs", "1e3"], "--epochs: expected a whole number, got '1e3'"),
        (["x", "--epochs", "9" * 5000], "--epochs: expected a whole number, got '99999"),
        (["x", "--loss.rgb", "nan"], "--loss.rgb: expected a finite number, got nan"),
        (["x", "--loss.extra", "a"], "--loss.extra: expected a name and a number, got 'a'"),
        (["x", "--device", "gpu"], "--device: expected auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["x", "y"], "expected SCENE, got 'y' besides"),
        (["x", "--preset", "fast"], "--preset: expected one of quick, default, paper, got 'fast'"),
        (["x", "--sh-degree", "7"], "--sh-degree: expected one of 0, 1, 2, 3, got '7'"),
    ],
)
def test_what_cannot_be_read_is_one_line(arguments, message, capsys):
    from msdyn.cli import fit

    with pytest.raises(SystemExit) as end:
        fit.main(arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith(f"error: {message}") and error.count("\n") == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "VIDEO: missing"),
        (["--wrong"], "--wrong: no such option of msdyn-preprocess"),
        (["--shot=1", "--wrong=-"], "--wrong: no such option of msdyn-preprocess"),
        (["v", "--intrinsics", "1", "2"], "--intrinsics: expected 4 numbers"),
        (["v", "--redo"], "--redo: expected one of frames, tracks, masks, cameras, depth, got"),
        (
            ["v", "--redo", "x"],
            "--redo: expected one of frames, tracks, masks, cameras, depth, got",
        ),
        (["v", "--out="], "--out: expected a path that is not empty"),
        (["v", "--shot", "x"], "--shot: expected a whole number, got 'x'"),
    ],
)
def test_a_refusal_is_the_same_on_any_terminal(arguments, message, encoding, tmp_path):
    """Whatever boxes the messages are read from, and however narrow it is."""
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from msdyn.cli.preprocess import main; main()",
            *arguments,
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONIOENCODING": encoding,
            "COLUMNS": "9",
        },
        check=False,
    )
    assert run.returncode == 2 and run.stderr.startswith(f"error: {message}"), run.stderr
    assert run.stderr.count("\n") == 1 and not set("╭│─\x1b|") & set(run.stderr)


def test_ways_to_give_options():
    def read(*arguments):
        return parse(FitConfig, arguments, "msdyn-fit", "")

    assert read("--epochs=3", "a") == read("a", "--epochs", "3") == FitConfig(Path("a"), epochs=3)
    assert read("--long_side", "64") == read("--long-side", "64")
    assert read("--epochs", "3", "--epochs", "4").epochs == 4
    assert read("--", "--restart").scene == Path("--restart")
    assert not read("--restart", "--no-restart").restart
    extra = read("--loss.extra", "a", "1", "b", "2", "--loss.rgb", "3").loss
    assert extra.extra == {"a": 1, "b": 2} and extra.rgb == 3
    assert read("--density.max-static", "7").density.max_static == 7


def test_a_misspelt_file_is_told_quickly(tmp_path):
    """Less than a second of processor time from the start of the interpreter to the message."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from msdyn.cli.fit import main; sys.exit(main())",
            "no",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 2 and run.stderr == "error: no: no such file or folder\n"
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 1, f"{used:.2f} s"


def test_options_of_another_command_may_begin_with_dashes():
    from msdyn.batch.config import RetryConfig

    def read(*arguments):
        return parse({"retry": RetryConfig}, ["retry", *arguments], "msdyn-batch", "")

    assert read("run", "--preprocess", "--accept-poor").preprocess == "--accept-poor"
    assert read("run", "--fit", "--epochs 3", "--workers", "2").fit == "--epochs 3"
    assert read("--preprocess=--no-x", "run").preprocess == "--no-x"
    with pytest.raises(SystemExit):  # an option of its own is none of another command
        read("run", "--preprocess", "--workers", "2")


WORDS = [
    "",
    "-",
    "--",
    "---",
    "=",
    "-h=",
    "--=",
    "--no-",
    "-1",
    "x",
    "--help=1",
    "\n",
    "\udcff",
    "é",
]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_any_arguments_end_in_order(script, capsys, monkeypatch):
    """Random words, options among them: 0 or 2, at most one line of error."""
    module = importlib.import_module(SCRIPTS[script])
    monkeypatch.setattr("msdyn.cli.options.load_plugins", lambda: None)
    monkeypatch.setattr(module, "run", lambda function, config, **_: 0)
    configs = [parser.config for parser in parsers_of(script)]
    known = [f"--{option.name}" for config in configs for option in options_of(config)]
    words = [
        *WORDS,
        *known,
        *(name.upper() for name in known[:3]),
        *getattr(module, "COMMANDS", ()),
    ]
    generator = random.Random(0)
    for _ in range(60):
        arguments = generator.choices(words, k=generator.randrange(7))
        try:
            code = module.main(arguments)
        except SystemExit as end:
            code = end.code
        err = capsys.readouterr().err
        assert code in (0, 2) and err.count("\n") == (code == 2), (arguments, code, err)


def test_help_whose_reader_leaves_early():
    """As `msdyn-fit --help | head -1`: no traceback, and success."""
    code = "import sys; from msdyn.cli.fit import main; sys.exit(main())"
    run = subprocess.Popen(
        [sys.executable, "-c", code, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout is not None and run.stderr is not None
    run.stdout.close()
    assert run.wait(60) == 0 and not run.stderr.read()
    run.stderr.close()
