"""What a file of a scene can have loaded: nothing but checkpoints of our own list."""

import contextlib
import dataclasses
import hashlib
import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import hub

import msdyn
import msdyn.preprocess
from msdyn.cli import fit
from msdyn.cli import render as render_command
from msdyn.cli.preprocess import main
from msdyn.errors import InputError, printable
from msdyn.preprocess import BACKEND_STAGES, PreprocessConfig, presets
from msdyn.preprocess.checkpoints.huggingface import (
    CHECKPOINTS,
    Availability,
    find_checkpoint,
    licence_of,
    load_pretrained,
)
from msdyn.preprocess.checkpoints.names import folder_of
from msdyn.preprocess.checkpoints.torch_hub import HUB, HubWeights, hub_weights, load_from_hub
from msdyn.preprocess.registry import backends
from msdyn.sequence import load_sequence


@pytest.fixture
def nothing_fetched(monkeypatch):
    """No checkpoint can be had, and a look-up of a host name fails the test."""
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("a name was looked up"))
    for name in ("find_checkpoint", "find_pinned"):
        monkeypatch.setattr(presets, name, lambda *a, **k: Availability("no", "nowhere"))
    monkeypatch.setattr(presets, "find_cotracker", lambda **k: Availability("no", "nowhere"))


@pytest.mark.parametrize("preset", ["auto", "offline", "best"])
def test_records_name_only_what_the_preset_can_choose(nothing_fetched, tmp_path, preset, caplog):
    """Every backend with every kind of name, as a preset would have left it."""
    config = PreprocessConfig(tmp_path / "v.mp4", preset=preset)
    names = ["clip/extra", "./extra", "/tmp/extra", "~/extra", "evil/repository", "evil/repo:main",
             "https://evil.example/x", "", None, 3, ["a"], {}, *HUB, *CHECKPOINTS]  # fmt: skip
    for stage in BACKEND_STAGES:
        offered = presets._candidates(stage, config)
        allowed = [(c.backend, c.model) for c in offered] + [(presets.WITHOUT_WEIGHTS[stage], None)]
        for backend in (*backends(stage), "nothing", "os.system", None, 3, ["a"]):
            for model in names:
                record = {"backend": backend, "model": model, "options": {"preset": preset}}
                choice = presets.choose_backends(config, lambda s, r=record, w=stage:
                                                 r if s == w else None)[1][stage]  # fmt: skip
                if (backend, model) in allowed:
                    assert (choice.backend, choice.model) == (backend, model)
                else:
                    assert choice.backend == presets.WITHOUT_WEIGHTS[stage]
                    assert choice.model is None
    assert "clip/extra of" in caplog.text or "names clip/extra" in caplog.text


@pytest.mark.parametrize("backend", ["cotracker", "tapir", "raft"])
def test_a_record_runs_no_code_of_its_scene(prepared, tmp_path, monkeypatch, backend):
    """The README's command beside a scene with a `hubconf.py`, which its record names."""
    clip, scene = prepared
    canary = tmp_path / "canary"
    (scene / "extra").mkdir()
    text = f"open({str(canary)!r}, 'w').close()\nraise RuntimeError('ran')\n"
    (scene / "extra" / "hubconf.py").write_text(text)
    info = json.loads((scene / "scene.json").read_text())
    record = info["stages"]["tracks"]
    record.update(backend=backend, model="clip/extra", licence=None, input_hash="x")
    record["options"] = {"preset": "offline", "why": "on this disk"}
    (scene / "scene.json").write_text(json.dumps(info))
    monkeypatch.chdir(tmp_path)
    code = main([str(clip), "--out", "clip", "--preset", "offline", "--accept-poor",
                 "--only", "frames", "--only", "tracks"])  # fmt: skip
    assert not canary.exists() and code == 0
    assert json.loads((scene / "scene.json").read_text())["stages"]["tracks"]["backend"] == "flow"


@pytest.fixture
def prepared(clip, tmp_path):
    """A clip, and the scene of it in `clip/` with frames and tracks."""
    video = clip / "clip.mp4"
    arguments = [str(video), "--out", str(tmp_path / "clip"), "--preset", "offline"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*arguments, "--only", "frames", "--only", "tracks"]) == 0
    return video, tmp_path / "clip"


def test_a_folder_does_not_take_the_place_of_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "load", lambda *a, **k: pytest.fail("code was loaded"))
    for name in ("someone/network", "facebookresearch/co-tracker", "facebook/sam2.1-hiera-tiny"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "hubconf.py").write_text("raise RuntimeError")
        with pytest.raises(InputError, match="has the form of a name on a hub"):
            folder_of(name)
    for load in (lambda name: load_from_hub(name, "raft", offline=True),
                 lambda name: load_pretrained("Any", name, offline=True),
                 lambda name: find_checkpoint(name, offline=True), licence_of):  # fmt: skip
        with pytest.raises(InputError, match="write ./someone/network for the folder"):
            load("someone/network")
    for name in ("./someone/network", str(tmp_path / "someone/network"), "someone"):
        assert folder_of(name) == Path(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder_of("~/someone/network") == tmp_path / "someone/network"
    assert folder_of("nobody/nothing") is None
    with pytest.raises(InputError, match="not on this disk"):
        load_from_hub("facebookresearch/co-tracker", "cotracker3_offline", offline=True)
    for name in ("no_such_folder", "../x", "a/b/c", "/gone", "https://evil.example/a/b"):
        with pytest.raises(InputError, match="expected a folder with a hubconf.py, or"):
            load_from_hub(name, "raft", offline=False)


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    folder = tmp_path / "torch_hub"
    monkeypatch.setattr(hub, "get_dir", lambda: str(folder))
    (folder / "checkpoints").mkdir(parents=True)
    return folder


def test_code_of_our_list_is_of_one_commit(hub_folder, monkeypatch, caplog):
    """And its weights are checked before it runs; the licence is shown before the first fetch."""
    loaded = []
    monkeypatch.setattr(hub, "load", lambda *a, **k: loaded.append((a, k)) or torch.nn.Identity())
    (name,) = HUB
    known = HUB[name]
    (weights,) = known.weights
    content = b"weights"
    monkeypatch.setattr(
        hub,
        "download_url_to_file",
        lambda url, path, digest, progress: Path(path).write_bytes(content),
    )
    with pytest.raises(InputError, match="not the expected file of weights"):
        load_from_hub(name, "cotracker3_offline", offline=False)
    assert loaded == [] and "fetching https://huggingface.co" in caplog.text
    weights.path.unlink()
    weights = dataclasses.replace(weights, sha256=hashlib.sha256(content).hexdigest())
    known = dataclasses.replace(known, weights=(weights,))
    monkeypatch.setitem(HUB, name, known)
    caplog.clear()
    load_from_hub(name, "cotracker3_offline", offline=False)
    arguments, options = loaded.pop()
    assert arguments == (f"{name}:{known.commit}", "cotracker3_offline")
    assert options["skip_validation"] and "source" not in options
    fetches = [line for line in caplog.messages if line.startswith("fetching")]
    assert len(fetches) == 2 and all("(licence: CC-BY-NC-4.0)" in line for line in fetches)
    known.folder.mkdir()
    caplog.clear()
    load_from_hub(name, "cotracker3_offline", offline=True)
    arguments, options = loaded.pop()
    assert arguments == (str(known.folder), "cotracker3_offline") and caplog.messages == []
    assert options["source"] == "local"


def test_weights_at_an_address_are_checked(hub_folder, monkeypatch):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    weights = HubWeights(f"https://a.example/net-{digest[:8]}.pth", "MIT")
    assert weights.digest == digest[:8]
    with pytest.raises(InputError, match="nothing is fetched offline"):
        hub_weights(weights, offline=True)
    weights.path.write_bytes(buffer.getvalue())
    assert hub_weights(weights, offline=True)["a"].sum() == 2
    weights.path.write_bytes(buffer.getvalue() + b"x")  # changed since it was fetched
    with pytest.raises(InputError, match="not the expected file of weights") as error:
        hub_weights(weights, offline=True)
    assert "\n" not in str(error.value)


def test_every_revision_is_a_commit():
    commits = [c.revision for c in CHECKPOINTS.values()] + [h.commit for h in HUB.values()]
    missing = [c.repo for c in CHECKPOINTS.values() if c.revision is None]
    assert missing == ["apple/DepthPro-hf", "facebook/sam3"]
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in commits if commit)
    # What a preset chooses is pinned.
    best = PreprocessConfig(Path("v.mp4"), preset="best")
    chosen = [c.model for stage in BACKEND_STAGES for c in presets._candidates(stage, best)]
    for model in chosen:
        known = CHECKPOINTS.get(model)
        assert model == "tcmonodepth-small" or model in HUB or (known and known.revision), model


def test_checkpoints_of_the_hub_are_loaded_at_their_revision(monkeypatch, caplog):
    pytest.importorskip("transformers")
    from transformers import DepthAnythingForDepthEstimation as Architecture

    asked = {}
    monkeypatch.setattr(
        Architecture,
        "from_pretrained",
        lambda model, **options: asked.update(options, model=model) or 1 / 0,
    )
    for name, checkpoint in CHECKPOINTS.items():
        caplog.clear()
        with pytest.raises(ZeroDivisionError):
            load_pretrained("DepthAnythingForDepthEstimation", name, offline=False)
        assert asked["model"] == name and asked["use_safetensors"] is True
        assert asked["revision"] == (checkpoint.revision or "main")
        assert not asked.get("trust_remote_code")
        (line,) = caplog.messages
        assert line.startswith(f"fetching {name}") and f"licence: {checkpoint.licence}" in line


def test_no_code_of_a_hub_is_ever_trusted():
    """In the source: no remote code, no pickle but weights, one place that loads hub code."""
    folders = [Path(module.__file__).parent for module in (msdyn, msdyn.preprocess)]
    sources = {path: path.read_text() for f in folders for path in f.rglob("*.py")}
    assert len(sources) > 200
    hubs = [path.name for path, text in sources.items() if re.search(r"torch\.hub\.load\b", text)]
    assert hubs == ["torch_hub.py"]
    for path, text in sources.items():
        assert "trust_remote_code" not in text and "weights_only=False" not in text, path
        assert not re.search(r"import pickle|pickle\.load|allow_pickle=True", text), path
        assert not re.search(r"(?<![\w.])(eval|exec)\(", text), path


def test_a_sequence_names_only_registered_motions(fitted_plane_scene, tmp_path, capsys):
    """Its header has the name of the motion model, which is looked up and never imported."""
    source = fitted_plane_scene / "fit" / "sequence.safetensors"
    with safe_open(source, "pt") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}
    before = set(sys.modules)
    key = next(key for key, value in metadata.items() if '"motion"' in value)
    for name in ("os", "antigravity", "./evil", "msdyn.cli.train", "__import__('os')", 3, ["a"]):
        header = json.loads(metadata[key]) | {"motion": name}
        path = tmp_path / "sequence.safetensors"
        save_file(tensors, path, metadata | {key: json.dumps(header)})
        with pytest.raises(InputError):
            load_sequence(path)
        assert render_command.main([str(path), "--out", str(tmp_path / "a.mp4")]) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 7 == said.count("\n")
    assert "antigravity" not in set(sys.modules) - before


def test_the_config_of_a_fit_loads_nothing(plane_scene, tmp_path, monkeypatch, capsys):
    """Nor do plugins come from the scene or the current directory: only from the environment."""
    canary = tmp_path / "canary"
    monkeypatch.chdir(plane_scene.directory)
    for name in ("evil", "sitecustomize", "msdyn_plugins", "hubconf"):
        Path(f"{name}.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    Path("fit").mkdir()
    plugins = {"plugins": ["evil"], "MSDYN_PLUGINS": "evil", "motion": "evil", "model": "."}
    Path("fit/config.json").write_text(json.dumps(plugins))
    info = json.loads(Path("scene.json").read_text())
    Path("scene.json").write_text(json.dumps(info | plugins))
    fit.main([".", "--preset", "quick", "--epochs", "1", "--prefit-steps", "1", "--device", "cpu"])
    assert not canary.exists() and "evil" not in sys.modules


def test_texts_of_files_do_not_command_the_terminal():
    assert printable("a\x1b]0;title\x07b\r\nc\u202ed\u2028e") == "a?]0;title?b  c?d e"
    assert printable({"a": 1}) == "{'a': 1}" and len(printable("x" * 10**6)) == 400
