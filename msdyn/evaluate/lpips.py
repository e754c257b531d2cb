"""LPIPS, the learned perceptual distance, on features of AlexNet or VGG-16; and its weights.

The weights are not part of msdyn: the convolutions of torchvision's AlexNet or VGG-16 and the
linear heads of LPIPS v0.1. Without them the metric is not available; it is never replaced by
another number, and nothing is downloaded unless requested. DyCheck's mLPIPS is on AlexNet, and so
is what is searched for; VGG-16 is for weights given by file.

Reference: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
2018; masked as in Gao et al., "Monocular Dynamic View Synthesis: A Reality Check", 2022.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from msdyn.errors import InputError
from msdyn.evaluate.image_metrics import Image, Mask, check_images
from msdyn.reading import opened_file, read_torch

__all__ = ["LPIPS_MISSING", "Lpips", "load_lpips"]

LPIPS_MISSING = "not available: no weights found; give --lpips FEATURES HEADS, or --lpips-download"

Weights = Mapping[str, Shaped[Tensor, "*_shape"]]


@dataclass(frozen=True)
class _Convolution:
    """A convolution of the features, with the ReLU that follows it.

    Attributes:
        index: in `features` of torchvision's network.
        channels, kernel, stride, padding: of the convolution.
        pool: size of the window of the max pooling before it, of stride 2; 0 for none.
        compared: whether the features after the ReLU are compared.
    """

    index: int
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    compared: bool = True


_ALEXNET = (
    _Convolution(0, 64, 11, 4, 2),
    _Convolution(3, 192, 5, 1, 2, pool=3),
    _Convolution(6, 384, pool=3),
    _Convolution(8, 256),
    _Convolution(10, 256),
)
_VGG16 = (
    _Convolution(0, 64, compared=False),
    _Convolution(2, 64),
    _Convolution(5, 128, pool=2, compared=False),
    _Convolution(7, 128),
    _Convolution(10, 256, pool=2, compared=False),
    _Convolution(12, 256, compared=False),
    _Convolution(14, 256),
    _Convolution(17, 512, pool=2, compared=False),
    _Convolution(19, 512, compared=False),
    _Convolution(21, 512),
    _Convolution(24, 512, pool=2, compared=False),
    _Convolution(26, 512, compared=False),
    _Convolution(28, 512),
)
# Mean and standard deviation of the training images, for values in [-1, 1].
_MEAN = (-0.030, -0.088, -0.188)
_STD = (0.458, 0.448, 0.450)
_MIN_SIDE = {"alex": 31, "vgg": 16}  # px; the last feature map of smaller images is empty

_FEATURES_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
_HEADS_URL = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/"
    "lpips/weights/v0.1/alex.pth"
)
# The name ends on the first digits of the file's SHA-256, which torch hub checks.
_HEADS_NAME = "lpips-v0.1-alex-df73285e.pth"
# Packages that ship the heads. Only the files are read; the packages are not imported.
_PACKAGED_HEADS = {
    "lpips": "weights/v0.1/alex.pth",
    "torchmetrics": "functional/image/lpips_models/alex.pth",
}


class Lpips:
    """The network of LPIPS v0.1 with AlexNet or VGG-16.

    Attributes:
        network: `alex` or `vgg`, by the size of the first convolution.
        source: names and digests of the files with the weights.
    """

    def __init__(self, weights: Weights, source: str = "given") -> None:
        """Take weights by name: `features.N.weight`, `features.N.bias`, `lin0.model.1.weight`...

        Raises:
            InputError: a tensor is missing or of another shape.
        """
        self.source = source
        first = weights.get("features.0.weight")
        is_vgg = first is not None and tuple(first.shape[-2:]) == (3, 3)
        self.network = "vgg" if is_vgg else "alex"
        self._convolutions = _VGG16 if is_vgg else _ALEXNET
        self._layers: list[tuple[Tensor, Tensor, Tensor | None]] = []
        inputs, level = 3, 0
        for part in self._convolutions:
            name, shape = f"features.{part.index}", (part.channels, inputs, part.kernel)
            weight = _checked_weight(weights, f"{name}.weight", (*shape, part.kernel))
            bias = _checked_weight(weights, f"{name}.bias", (part.channels,))
            head = None
            if part.compared:
                shape = (1, part.channels, 1, 1)
                head = _checked_weight(weights, f"lin{level}.model.1.weight", shape)
                level += 1
            self._layers.append((weight, bias, head))
            inputs = part.channels

    def __call__(self, image: Image, truth: Image, mask: Mask | None = None) -> float:
        """Return DyCheck's mLPIPS of two RGB images in [0, 1]; NaN for an empty mask.

        Both are set to black outside the mask, and distances are averaged inside it.

        Raises:
            InputError: differing sizes, or images of less than 31 pixels a side (VGG-16: 16).
        """
        image, truth, mask = check_images(image, truth, mask)
        if not mask.any():
            return float("nan")
        return float(self.distances(image * mask[..., None], truth * mask[..., None])[mask].mean())

    def to(self, device: torch.device | str) -> Lpips:
        """Move the weights to a device, and return the network."""
        self._layers = [
            (weight.to(device), bias.to(device), None if head is None else head.to(device))
            for weight, bias, head in self._layers
        ]
        return self

    def between(
        self,
        images: Float[Tensor, "images 3 height width"],
        true: Float[Tensor, "images 3 height width"],
    ) -> Float[Tensor, " images"]:
        """Return LPIPS of images in [0, 1] as it is usually reported; differentiable, for a loss.

        Distances are averaged over each layer's own map; `distances` resamples the maps first.

        Raises:
            InputError: images of less than 31 pixels a side (VGG-16: 16).
        """
        maps = self._maps(images, true)
        return torch.stack([distance.mean(dim=(1, 2, 3)) for distance in maps]).sum(dim=0)

    @torch.no_grad()
    def average(self, image: Image, truth: Image) -> float:
        """Return `between` of two RGB images.

        Raises:
            InputError: differing sizes, or images of less than 31 pixels a side (VGG-16: 16).
        """
        image, truth, _ = check_images(image, truth, None)
        return float(self.between(*self._pair(image, truth)))

    @torch.no_grad()
    def distances(
        self, image: Float[np.ndarray, "height width 3"], truth: Float[np.ndarray, "height width 3"]
    ) -> Float[np.ndarray, "height width"]:
        """Return the perceptual distance at each pixel of two images in [0, 1].

        Raises:
            InputError: images of less than 31 pixels a side (VGG-16: 16).
        """
        size = image.shape[:2]
        total = torch.zeros(1, 1, *size)
        for distance in self._maps(*self._pair(image, truth)):
            total += F.interpolate(distance, size, mode="bilinear", align_corners=False).cpu()
        return total[0, 0].numpy()

    def _pair(
        self, *images: Float[np.ndarray, "height width 3"]
    ) -> list[Float[Tensor, "1 3 height width"]]:
        device = self._layers[0][0].device
        return [torch.from_numpy(i).float().permute(2, 0, 1)[None].to(device) for i in images]

    def _maps(
        self,
        images: Float[Tensor, "images 3 height width"],
        true: Float[Tensor, "images 3 height width"],
    ) -> list[Float[Tensor, "images 1 rows columns"]]:
        """Return the distances at each position of each layer."""
        height, width = images.shape[-2:]
        if min(height, width) < _MIN_SIDE[self.network]:
            raise InputError(
                f"lpips: expected at least {_MIN_SIDE[self.network]} pixels a side, "
                f"got {width}x{height}"
            )
        mean, std = (images.new_tensor(value)[:, None, None] for value in (_MEAN, _STD))
        x = (torch.cat([images, true]) * 2 - 1 - mean) / std
        maps = []
        for part, (weight, bias, head) in zip(self._convolutions, self._layers, strict=True):
            if part.pool:
                x = F.max_pool2d(x, part.pool, 2)
            x = F.relu(F.conv2d(x, weight, bias, part.stride, part.padding))
            if head is not None:
                ours, theirs = _normalised(x).chunk(2)
                maps.append(F.conv2d((ours - theirs) ** 2, head))
        return maps


def load_lpips(paths: Sequence[Path] = (), *, download: bool = False) -> Lpips | None:
    """Find the weights of LPIPS and return the network, or None where there are none.

    Args:
        paths: files that together hold the convolutions and the heads. By default those of
            AlexNet are searched for in torch hub's folder of checkpoints, and the heads also in an
            installed `lpips` or `torchmetrics`.
        download: fetch missing files (from pytorch.org and github.com) through torch hub.

    Raises:
        FileNotFoundError: a given path does not exist.
        InputError: a file cannot be read, or the given ones lack a tensor.
    """
    if paths:
        return _assemble([_read(Path(path)) for path in paths], [Path(path) for path in paths])
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    files = {
        "features": _first(sorted(folder.glob("alexnet-*.pth"))),
        "heads": _first([folder / _HEADS_NAME, *_packaged_heads()]),
    }
    if download:
        urls = {"features": (_FEATURES_URL, None), "heads": (_HEADS_URL, _HEADS_NAME)}
        for part, (url, name) in urls.items():
            files[part] = files[part] or _fetch(url, folder, name)
    found = [path for path in files.values() if path is not None]
    if len(found) < len(files):
        return None
    return _assemble([_read(path) for path in found], found)


def _normalised(x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
    """Scale the feature vector of each pixel to unit length."""
    # Not the square root itself, whose gradient is infinite where all features are zero.
    return x / (x.square().sum(1, keepdim=True) + 1e-20).sqrt()


def _checked_weight(weights: Weights, name: str, shape: tuple[int, ...]) -> Float[Tensor, "*shape"]:
    """Return one of the weights, which must have a shape."""
    if name not in weights:
        raise InputError(
            f"lpips weights: {name} is missing; expected features.N.* of AlexNet or VGG-16 and "
            "linN.model.1.weight of LPIPS v0.1"
        )
    found = tuple(getattr(weights[name], "shape", ()))
    if found != shape:
        raise InputError(f"lpips weights: {name}: expected {shape}, got {found}")
    return weights[name].float()


def _assemble(states: list[Weights], paths: list[Path]) -> Lpips:
    merged = {key: value for state in states for key, value in state.items()}
    digests = []
    for path in paths:
        with opened_file(path) as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest()[:8])
    named = zip(paths, digests, strict=True)
    return Lpips(merged, ", ".join(f"{path.name} ({digest})" for path, digest in named))


def _read(path: Path) -> Weights:
    state = read_torch(path, "file of weights")
    if not isinstance(state, Mapping):
        raise InputError(f"{path}: expected tensors by name, got {type(state).__name__}")
    return state


def _first(paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _packaged_heads() -> list[Path]:
    paths = []
    for package, relative in _PACKAGED_HEADS.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or []:
            paths.append(Path(folder) / relative)
    return paths


def _fetch(url: str, folder: Path, name: str | None) -> Path:
    """Download one file into torch hub's folder, check its digest, and return its path."""
    path = folder / (name or url.rsplit("/", 1)[1])
    try:
        torch.hub.load_state_dict_from_url(
            url, str(folder), map_location="cpu", progress=False, check_hash=True,
            file_name=name, weights_only=True,
        )  # fmt: skip
    except (OSError, RuntimeError) as error:
        raise InputError(f"{url}: cannot be downloaded ({error}); use --lpips FILES") from error
    return path
