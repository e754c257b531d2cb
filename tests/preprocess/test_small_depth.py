"""The small depth network: against the published one, its checkpoint, and how that is fetched."""

import dataclasses
import hashlib
import io
import socket
import urllib.error

import numpy as np
import pytest
import torch

from msdyn.errors import InputError
from msdyn.preprocess import find_backend
from msdyn.preprocess.checkpoints import pinned
from msdyn.preprocess.checkpoints.pinned import PINNED, find_pinned, pinned_path
from msdyn.preprocess.depth.networks import ModelDepth, load_network
from msdyn.preprocess.depth.tcmonodepth import TCMonoDepth, TCMonoDepthNetwork

NAME = "tcmonodepth-small"
FILE = PINNED[NAME].file


@pytest.fixture(scope="module")
def published(shared):
    """The published weights, and inputs and outputs of the published network."""
    path = shared / "weights" / FILE
    if not path.is_file():
        pytest.skip("needs the weights of TCMonoDepth in ../shared/weights")
    return path, np.load(path.with_name("tcmonodepth_small_parity.npz"))


@pytest.fixture(scope="module")
def random_file(tmp_path_factory):
    """A checkpoint of random weights in the layout of the published file."""
    torch.manual_seed(0)
    weights = TCMonoDepthNetwork().state_dict()
    weights["decoder.final.bias"] += 0.5  # above zero
    weights |= {"decoder.final2.0.bias": torch.zeros(1), "encoder.stage1.0.x": torch.zeros(2)}
    path = tmp_path_factory.mktemp("random") / FILE
    torch.save(weights, path)
    return path


def test_it_is_the_published_network(published):
    path, parity = published
    network = TCMonoDepthNetwork.from_file(path)
    with torch.inference_mode():
        for name in ("random", "camel"):
            output = network(torch.from_numpy(parity[f"{name}.input"]) / 255)
            np.testing.assert_allclose(output, parity[f"{name}.output"][:, 0], rtol=1e-4, atol=2e-5)
        features = network.encoder(torch.from_numpy(parity["random.input"]) / 255)
        x = features[3]
        for i, level in enumerate(features):
            np.testing.assert_allclose(level, parity[f"random.stage{i + 1}"], rtol=1e-4, atol=2e-5)
        for i in (3, 2, 1):
            x = getattr(network.decoder, f"decoder{i}")(x, features[i - 1])
            np.testing.assert_allclose(x, parity[f"random.d{i}"], rtol=1e-4, atol=2e-5)


def test_the_published_file_is_the_pinned_one(published, monkeypatch):
    path, _ = published
    monkeypatch.setenv("MSDYN_WEIGHTS", str(path.parent))
    assert find_pinned(NAME, offline=True).how == "cached"
    assert pinned_path(NAME, offline=True) == path
    assert path.stat().st_size == PINNED[NAME].size


@pytest.mark.parametrize("size", [(48, 64), (64, 36), (32, 320)])
def test_maps_of_any_size(random_file, size):
    network = TCMonoDepth(str(random_file), offline=True, device="cpu")
    images = np.random.default_rng(0).integers(0, 255, (2, *size, 3), dtype=np.uint8)
    inverse = network.predict(images)
    assert inverse.dtype == np.float32 and inverse.shape[0] == 2 and (inverse >= 0).all()
    assert min(inverse.shape[1:]) == 384 and all(side % 32 == 0 for side in inverse.shape[1:])
    ratio = inverse.shape[2] / inverse.shape[1] / (size[1] / size[0])
    assert 0.95 < ratio < 1.06
    np.testing.assert_allclose(network.predict(images[1:])[0], inverse[1], atol=1e-5)
    assert 1.8e5 < sum(p.numel() for p in TCMonoDepthNetwork().parameters()) < 2e5


def test_it_is_a_depth_backend_with_a_licence():
    assert find_backend("depth", "small").model == NAME
    assert ModelDepth("small", NAME).licence == "MIT"


def test_wrong_checkpoints_are_refused_in_one_line(tmp_path, random_file):
    def message(path):
        with pytest.raises(InputError) as error:
            load_network("small", str(path), offline=True, device="cpu")
        assert "\n" not in str(error.value) and str(path) in str(error.value)
        return str(error.value)

    assert "no such file" in message(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    assert "not a readable file of weights" in message(tmp_path / "text")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other")
    assert "weights are missing" in message(tmp_path / "other")
    torch.save([1, 2], tmp_path / "list")
    assert "weights are missing" in message(tmp_path / "list")
    weights = torch.load(random_file, weights_only=True)
    weights["decoder.final.bias"] = torch.zeros(7)
    torch.save(weights, tmp_path / "shape")
    assert "not a readable checkpoint of TCMonoDepth small" in message(tmp_path / "shape")


@pytest.fixture
def server(monkeypatch):
    """Let `urlopen` answer with some bytes, or fail; return what was asked for."""
    asked = []

    def serve(content):
        def urlopen(request, timeout):
            asked.append(request if isinstance(request, str) else request.get_method())
            if content is None:
                raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))
            return io.BytesIO(content)

        monkeypatch.setattr("urllib.request.urlopen", urlopen)
        monkeypatch.delenv("HF_HUB_OFFLINE")
        return asked

    return serve


@pytest.fixture
def content(random_file, monkeypatch):
    """The bytes of a file that is pinned in place of the published one."""
    content = random_file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    changed = dataclasses.replace(PINNED[NAME], sha256=digest, size=len(content))
    monkeypatch.setitem(PINNED, NAME, changed)
    return content


def test_it_is_fetched_once_and_said(server, content, caplog):
    asked = server(content)
    assert find_pinned(NAME, offline=False).how == "online"
    assert not find_pinned(NAME, offline=True)
    network = load_network("small", NAME, offline=False, device="cpu")
    assert network.placement.device == "cpu"
    assert asked == ["HEAD", PINNED[NAME].url]
    (line,) = caplog.messages
    assert "MIT" in line and "MB" in line and PINNED[NAME].url in line
    load_network("small", NAME, offline=True, device="cpu")
    assert find_pinned(NAME, offline=True).how == "cached" and len(asked) == 2
    assert (pinned._cache() / FILE).read_bytes() == content


@pytest.mark.parametrize("change", ["longer", "other", "shorter"])
def test_another_file_at_the_address_is_refused_and_not_kept(server, content, change):
    served = {"longer": content + b"x", "other": b"x" * len(content), "shorter": content[:-1]}
    server(served[change])
    with pytest.raises(InputError, match="SHA-256 .* expected, .* found"):
        pinned_path(NAME, offline=False)
    assert not pinned._cache().exists()


def test_a_file_on_disk_is_checked_too(content, tmp_path, monkeypatch):
    monkeypatch.setenv("MSDYN_WEIGHTS", str(tmp_path))
    (tmp_path / FILE).write_bytes(b"no weights")
    with pytest.raises(InputError, match="not the expected file"):
        pinned_path(NAME, offline=True)


def test_without_a_network_the_message_says_what_to_do(server):
    server(None)
    why = find_pinned(NAME, offline=False).why
    assert "not to be fetched (no connection" in why and "Errno" not in why
    for offline in (True, False):
        with pytest.raises(InputError, match="set MSDYN_WEIGHTS") as error:
            pinned_path(NAME, offline=offline)
        assert "\n" not in str(error.value)
