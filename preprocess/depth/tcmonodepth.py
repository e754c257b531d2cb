"""TCMonoDepth small: relative depth by a network of 0.19 million parameters, quick on a CPU.

Reference: Li et al., "Enforcing Temporal Consistency in Video Depth Estimation", ICCV Workshops
2021, for training and decoder; Ma et al., "ShuffleNet V2", ECCV 2018, for the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from msdyn.errors import InputError
from msdyn.preprocess.checkpoints.pinned import PINNED, pinned_path
from msdyn.preprocess.checkpoints.placement import network_input, place
from msdyn.preprocess.depth.networks import register_depth_network
from msdyn.reading import read_torch, reading

__all__ = ["TCMonoDepth", "TCMonoDepthNetwork"]

_SHORT_SIDE, _STEP = 384, 32
_MEGABYTES = 60.0
_STEM = 24
_STAGES = ((48, 4), (96, 8), (192, 4))  # channels and units


@register_depth_network("small", model="tcmonodepth-small")
class TCMonoDepth:
    """Inverse depth by TCMonoDepth small."""

    metric = False

    def __init__(self, model: str, *, offline: bool, device: str = "auto") -> None:
        """Load a checkpoint.

        Args:
            model: a name of `PINNED`, or a file.
            offline: fetch nothing.
            device: as in `choose_device`.

        Raises:
            InputError: there is no such checkpoint, or it is of another network.
        """
        path = pinned_path(model, offline=offline) if model in PINNED else Path(model)
        self._network = TCMonoDepthNetwork.from_file(path)
        self.placement = place(self._network, _MEGABYTES, device)

    def predict(
        self, images: UInt8[np.ndarray, "batch height width 3"]
    ) -> Float32[np.ndarray, "batch h w"]:
        """Return inverse depth [B, h, w] of images [B, H, W, 3], up to a scale and a shift."""
        height, width = images.shape[1:3]
        factor = _SHORT_SIDE / min(height, width)
        size = tuple(max(_STEP, round(factor * x / _STEP) * _STEP) for x in (height, width))
        pixels = network_input(
            images, (size[0], size[1]), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), self.placement
        )
        with torch.inference_mode():
            return self._network(pixels).float().cpu().numpy()


class TCMonoDepthNetwork(nn.Module):
    """The network, with the parameter names of the published checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Encoder()
        self.decoder = _Decoder()

    @classmethod
    def from_file(cls, path: Path) -> TCMonoDepthNetwork:
        """Return the network with the weights of a file, for inference, in float32 on the CPU.

        Raises:
            InputError: the file is missing, or not a checkpoint of this network.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file of weights, and no name of a checkpoint")
        stored = read_torch(path, "file of weights")
        network = cls()
        expected = network.state_dict()
        # The file has the units of the encoder twice, and two heads that only training uses.
        items = stored.items() if isinstance(stored, Mapping) else ()
        weights = {name: value for name, value in items if name in expected}
        missing = sorted(expected.keys() - weights.keys())
        if missing:
            raise InputError(
                f"{path}: not a checkpoint of TCMonoDepth small: {len(missing)} of "
                f"{len(expected)} weights are missing ({missing[0]}, ...)"
            )
        with reading(path, "checkpoint of TCMonoDepth small"):
            network.load_state_dict(weights)
        return network.eval()

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch h w"]:
        """Return inverse depth, at least 0, of RGB images in [0, 1]; h, w multiples of 32."""
        return self.decoder(*self.encoder(images))


def _convolution(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


class _Encoder(nn.Module):
    """ShuffleNet V2 0.5x without its pooling and classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(
            _convolution(3, _STEM, 3, 2), nn.BatchNorm2d(_STEM), nn.ReLU(inplace=True)
        )
        units, channels = [], _STEM
        for outputs, count in _STAGES:
            units += [_Downsampling(channels, outputs), *(_Unit(outputs) for _ in range(count - 1))]
            channels = outputs
        self.features = nn.ModuleList(units)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> list[Tensor]:
        """Return features at 1/2, 1/4, 1/8 and 1/16 of the size of the images."""
        levels = [self.first_conv(images)]
        for unit in self.features:
            if isinstance(unit, _Downsampling):
                levels.append(unit(levels[-1]))
            else:
                levels[-1] = unit(levels[-1])
        return levels


def _main_branch(inputs: int, middle: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, middle, 1),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        _convolution(middle, middle, 3, stride, groups=middle),
        nn.BatchNorm2d(middle),
        _convolution(middle, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Unit(nn.Module):
    """Passes on the even channels and transforms the odd ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch_main = _main_branch(half, half, half, 1)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Tensor:
        return torch.cat([x[:, 0::2], self.branch_main(x[:, 1::2])], 1)


class _Downsampling(nn.Module):
    """Halves the size: both branches transform all channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branch_proj = nn.Sequential(
            _convolution(inputs, inputs, 3, 2, groups=inputs),
            nn.BatchNorm2d(inputs),
            _convolution(inputs, inputs, 1),
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
        )
        self.branch_main = _main_branch(inputs, outputs // 2, outputs - inputs, 2)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Tensor:
        return torch.cat([self.branch_proj(x), self.branch_main(x)], 1)


class _Decoder(nn.Module):
    """Joins the features from coarse to fine."""

    def __init__(self) -> None:
        super().__init__()
        (fine, _), (middle, _), (coarse, _) = _STAGES
        self.decoder3 = _Join(coarse, middle)
        self.decoder2 = _Join(middle, fine)
        self.decoder1 = _Join(fine, _STEM)
        self.final = nn.Conv2d(_STEM, 1, 3, padding=1)

    def forward(self, half: Tensor, quarter: Tensor, eighth: Tensor, sixteenth: Tensor) -> Tensor:
        x = self.decoder3(sixteenth, eighth)
        x = self.decoder1(self.decoder2(x, quarter), half)
        inverse = torch.relu(self.final(x))
        return interpolate(inverse, scale_factor=2, mode="bilinear", align_corners=False)[:, 0]


class _Join(nn.Module):
    """Joins coarse features with those of twice the size."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        quarter = coarse // 4
        self.skip_conv = nn.Sequential(
            _convolution(fine, quarter, 1), nn.BatchNorm2d(quarter), nn.ReLU(inplace=True)
        )
        self.last_conv = nn.Sequential(
            _Separable(coarse + quarter, fine), nn.BatchNorm2d(fine), nn.ReLU(inplace=True)
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        size = fine.shape[-2:]
        enlarged = interpolate(coarse, size, mode="bilinear", align_corners=False)
        return self.last_conv(torch.cat([enlarged, self.skip_conv(fine)], 1))


class _Separable(nn.Module):
    """A depthwise convolution followed by one of single pixels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _convolution(inputs, inputs, 3, groups=inputs),
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            _convolution(inputs, outputs, 1),
        )

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Tensor:
        return self.conv(x)
