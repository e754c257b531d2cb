"""LPIPS: against a reimplementation and the original package, and without weights."""

import importlib.util
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from msdyn.cli.evaluate import main
from msdyn.errors import InputError
from msdyn.evaluate import Lpips, load_lpips
from msdyn.reading import read_json

CHANNELS = (64, 192, 384, 256, 256)
CONVOLUTIONS = (0, 3, 6, 8, 10)


def alexnet():
    """The convolutions of AlexNet, by its layers."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(),
    ).requires_grad_(False)  # fmt: skip


@pytest.fixture(scope="module")
def random_weights():
    torch.manual_seed(0)
    weights = {f"features.{k}": v for k, v in alexnet().state_dict().items()}
    for level, channels in enumerate(CHANNELS):
        weights[f"lin{level}.model.1.weight"] = torch.rand(1, channels, 1, 1) / channels
    return weights


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    """An empty hub folder, no package that ships heads, and no socket."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def fail(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", fail)
    return tmp_path / "hub" / "checkpoints"


def save(folder, weights):
    """Write the features and the heads as torch hub would, in two files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "alexnet-owt-00000000.pth", folder / "lpips-v0.1-alex-df73285e.pth"
    torch.save({k: v for k, v in weights.items() if k.startswith("features")}, paths[0])
    torch.save({k: v for k, v in weights.items() if k.startswith("lin")}, paths[1])
    return paths


def pair(size=(61, 83), seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((*size, 3))
    return np.clip(truth + 0.2 * rng.normal(size=truth.shape), 0, 1), truth


def reference_maps(weights, image, truth):
    """The distances of each layer by another implementation: a module and an einsum."""
    network = alexnet()
    network.load_state_dict({k[9:]: v for k, v in weights.items() if k.startswith("features")})
    mean, std = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    x, y = (
        torch.from_numpy(((2 * v - 1 - mean) / std).transpose(2, 0, 1)).float()[None]
        for v in (image, truth)
    )
    maps = []
    for index, layer in enumerate(network):
        x, y = layer(x), layer(y)
        if index - 1 in CONVOLUTIONS:
            level = CONVOLUTIONS.index(index - 1)
            a, b = x[0].double().numpy(), y[0].double().numpy()
            a, b = (v / np.sqrt((v**2).sum(0)).clip(1e-10) for v in (a, b))
            head = weights[f"lin{level}.model.1.weight"].double().numpy()[0, :, 0, 0]
            maps.append(np.einsum("c,chw->hw", head, (a - b) ** 2))
    return maps


def reference_distances(weights, image, truth):
    """The distance map by another implementation, with an upsampling layer."""
    upsample = nn.Upsample(size=image.shape[:2], mode="bilinear", align_corners=False)
    maps = reference_maps(weights, image, truth)
    return sum(upsample(torch.from_numpy(distance)[None, None])[0, 0].numpy() for distance in maps)


@pytest.mark.parametrize("size", [(61, 83), (31, 31), (64, 48)])
def test_it_agrees_with_another_implementation(random_weights, size):
    image, truth = pair(size)
    network = Lpips(random_weights)
    expected = reference_distances(random_weights, image, truth)
    assert expected.shape == size and expected.min() > 0
    np.testing.assert_allclose(network.distances(image, truth), expected, rtol=1e-4, atol=1e-7)
    assert network(image, truth) == pytest.approx(expected.mean(), rel=1e-5)
    average = sum(distance.mean() for distance in reference_maps(random_weights, image, truth))
    assert network.average(image, truth) == pytest.approx(average, rel=1e-5)


def test_vgg_agrees_with_another_implementation():
    """Layers in a row, as torchvision defines them, compared after the last ReLU of each block."""
    torch.manual_seed(1)
    layers, inputs = [], 3
    for block, (channels, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        layers += [nn.MaxPool2d(2, 2)] if block else []
        for _ in range(count):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
            inputs = channels
    network = nn.Sequential(*layers).requires_grad_(False)
    weights = {f"features.{name}": value for name, value in network.state_dict().items()}
    heads = [torch.rand(1, channels, 1, 1) for channels in (64, 128, 256, 512, 512)]
    weights |= {f"lin{level}.model.1.weight": head for level, head in enumerate(heads)}
    image, truth = pair((24, 40))
    mean, std = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    x, y = (
        torch.from_numpy(((2 * v - 1 - mean) / std).transpose(2, 0, 1)).float()[None]
        for v in (image, truth)
    )
    expected = 0.0
    for index, layer in enumerate(network):
        x, y = layer(x), layer(y)
        if index in (3, 8, 15, 22, 29):
            a, b = x[0].double().numpy(), y[0].double().numpy()
            a, b = (v / np.sqrt((v**2).sum(0)).clip(1e-10) for v in (a, b))
            head = heads[(3, 8, 15, 22, 29).index(index)].double().numpy()[0, :, 0, 0]
            expected += np.einsum("c,chw->hw", head, (a - b) ** 2).mean()
    found = Lpips(weights)
    assert found.network == "vgg" and found.average(truth, truth) == 0
    assert found.average(image, truth) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(InputError, match="at least 16 pixels"):
        found.average(image[:15], truth[:15])
    with pytest.raises(InputError, match=r"lin4.model.1.weight: expected \(1, 512, 1, 1\)"):
        Lpips({**weights, "lin4.model.1.weight": torch.zeros(1, 256, 1, 1)})


def test_as_a_loss_it_is_the_usual_average_with_gradients(random_weights):
    network = Lpips(random_weights).to("cpu")
    images, truth = (
        torch.from_numpy(np.stack(values)).float().permute(0, 3, 1, 2)
        for values in zip(pair((40, 48)), pair((40, 48), seed=1), strict=True)
    )
    images.requires_grad_()
    distances = network.between(images, truth)
    for index in range(2):
        one, other = (v[index].detach().permute(1, 2, 0).double().numpy() for v in (images, truth))
        assert distances[index].item() == pytest.approx(network.average(one, other), rel=1e-4)
    distances.sum().backward()
    closer = (images - 5 * images.grad).detach()
    assert (network.between(closer, truth) < distances).all()
    black = torch.zeros(1, 3, 40, 40, requires_grad=True)
    network.between(black, torch.zeros(1, 3, 40, 40)).sum().backward()
    assert black.grad.isfinite().all()


def test_properties(random_weights):
    network = Lpips(random_weights)
    assert network.network == "alex"
    image, truth = pair()
    assert network(truth, truth) == 0
    assert network(image, truth) == pytest.approx(network(truth, image), rel=1e-5)
    assert network((image + truth) / 2, truth) < network(image, truth)


def test_the_mask_blacks_out_and_averages(random_weights):
    network = Lpips(random_weights)
    image, truth = pair()
    mask = np.zeros(truth.shape[:2], bool)
    mask[10:50, 20:60] = True
    black = mask[..., None]
    expected = reference_distances(random_weights, image * black, truth * black)[mask].mean()
    assert network(image, truth, mask) == pytest.approx(expected, rel=1e-5)
    other = np.where(black, image, 0.7)
    assert network(other, truth, mask) == network(image, truth, mask)
    assert np.isnan(network(image, truth, ~mask & mask))


def test_degenerate_input(random_weights):
    network = Lpips(random_weights)
    image, truth = pair((30, 40))
    with pytest.raises(InputError, match="at least 31 pixels"):
        network(image, truth)
    with pytest.raises(InputError, match="two"):
        network(image[:-1], truth)
    black = np.zeros((40, 40, 3))
    assert network(black, black) == 0  # no division by features of length zero


def test_incomplete_and_misshapen_weights(random_weights):
    short = {k: v for k, v in random_weights.items() if k != "lin3.model.1.weight"}
    with pytest.raises(InputError, match=r"lin3.model.1.weight is missing"):
        Lpips(short)
    with pytest.raises(InputError, match=r"features.0.bias: expected \(64,\), got \(3,\)"):
        Lpips({**random_weights, "features.0.bias": torch.zeros(3)})


def test_without_weights_there_is_no_metric_and_no_download(no_hub, boxes, capsys):
    assert load_lpips() is None
    assert main([str(boxes.directory), "--no-pictures"]) == 0
    written = read_json(boxes.directory / "fit" / "eval.json")
    assert written["views"]["mlpips"] is None and written["frames"]["mlpips"] is None
    assert written["protocol"]["lpips"].startswith("not available: no weights found")
    assert "mLPIPS: not available" in capsys.readouterr().out


def test_weights_in_the_hub_folder_are_found(no_hub, random_weights):
    features, heads = save(no_hub, random_weights)
    image, truth = pair()
    network = load_lpips()
    assert network is not None and network(image, truth) == Lpips(random_weights)(image, truth)
    assert "alexnet-owt-00000000.pth (" in network.source
    heads.unlink()
    assert load_lpips() is None
    features.unlink()
    assert load_lpips() is None


def test_heads_of_an_installed_package_are_found_without_importing_it(
    no_hub, random_weights, tmp_path, monkeypatch
):
    _, heads = save(no_hub, random_weights)
    package = tmp_path / "site" / "lpips"
    (package / "weights" / "v0.1").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('needs torchvision')")
    heads.rename(package / "weights" / "v0.1" / "alex.pth")
    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(no_hub.parent))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    network = load_lpips()
    assert network is not None and "alex.pth (" in network.source


def test_weights_given_by_path(no_hub, boxes, random_weights, tmp_path, capsys):
    paths = [str(path) for path in save(tmp_path / "weights", random_weights)]
    assert main([str(boxes.directory), "--no-pictures", "--lpips", *paths]) == 0
    written = read_json(boxes.directory / "fit" / "eval.json")
    views = written["views"]["views"]
    assert written["views"]["mlpips"] == pytest.approx(
        np.mean([views["left15"]["mlpips"], views["right28"]["mlpips"]])
    )
    assert f"{written['views']['mlpips']:.4f}" in capsys.readouterr().out
    assert "alexnet-owt-00000000.pth" in written["protocol"]["lpips"]


@pytest.mark.parametrize(
    "content, message",
    [(None, "no such file"), (b"nonsense", "not a readable file of weights"), ("list", "by name")],
)
def test_files_that_are_not_weights(boxes, tmp_path, capsys, content, message):
    path = tmp_path / "weights.pth"
    if content == "list":
        torch.save([torch.zeros(1)], path)
    elif content is not None:
        path.write_bytes(content)
    assert main([str(boxes.directory), "--lpips", str(path)]) == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0] and str(path) in errors[0]


def test_downloads_happen_only_on_request(no_hub, random_weights, monkeypatch):
    fetched = []

    def fetch(url, folder, file_name=None, check_hash=False, **_):
        assert check_hash
        fetched.append(url)
        save(Path(folder), random_weights)

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    assert load_lpips() is None and not fetched
    no_hub.mkdir(parents=True)
    # The fake download writes both files at once, the heads under their final name.
    (no_hub / "alexnet-owt-00000000.pth").write_bytes(b"")
    assert load_lpips(download=True) is not None
    assert fetched == [
        "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/"
        "lpips/weights/v0.1/alex.pth"
    ]

    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    (no_hub / "lpips-v0.1-alex-df73285e.pth").unlink()
    with pytest.raises(InputError, match="cannot be downloaded"):
        load_lpips(download=True)


def test_the_original_package_gives_the_same_numbers(shared):
    """Values of `lpips` 0.1.4 (AlexNet, spatial), on a photograph shifted, darkened and grey."""
    heads = heads_file()
    network = load_lpips([shared / "weights" / "lpips_alexnet_features.pth", heads])
    assert network is not None
    truth = data.astronaut()[100:228, 150:300] / 255
    mask = np.zeros(truth.shape[:2], bool)
    mask[:, :70] = True
    for image, whole, masked in (
        (np.roll(truth, 4, 1), 0.0676504, 0.0903401),
        (truth * 0.5, 0.0869640, 0.1078507),
        (np.repeat(truth.mean(-1, keepdims=True), 3, -1), 0.0974838, 0.1041942),
    ):
        assert network(image, truth) == pytest.approx(whole, abs=2e-6)
        assert network(image, truth, mask) == pytest.approx(masked, abs=2e-6)


def heads_file():
    hub = Path(torch.hub.get_dir()) / "checkpoints" / "lpips-v0.1-alex-df73285e.pth"
    spec = importlib.util.find_spec("lpips")
    folders = (spec and spec.submodule_search_locations) or []
    for path in (hub, *(Path(folder) / "weights/v0.1/alex.pth" for folder in folders)):
        if path.is_file():
            return path
    pytest.skip("the linear heads of LPIPS v0.1 (6 kB, in the PyPI package lpips) are not here")
