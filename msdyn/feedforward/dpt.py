"""Prediction heads: dense prediction transformers (DPT) from tokens to maps of image size."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.embeddings import TIME_NUMBERS, grid_embedding

__all__ = ["DETAIL_CHANNELS", "DetailNetwork", "DptHead"]

DETAIL_CHANNELS = 32
"""Channels of the features of `DetailNetwork`."""
_HIDDEN = 32
_EMBEDDING_WEIGHT = 0.1


class DptHead(nn.Module):
    """Maps the tokens of four layers to `outputs` channels and one confidence per pixel.

    With `timed`, the normalised tokens are scaled and shifted by a linear function of the encoded
    query time (AdaLN, paper, Fig. 2), which is zero at initialisation. With `shortcut`, a small
    convolutional network of that many input channels per pixel is added to the output.

    Args:
        config: sizes.
        tokens: channels of the tokens.
        outputs: channels of the output.
        timed: whether the output depends on a query time.
        shortcut: channels of the input of the shortcut; 0 for none.
        cue: channels of further features, of twice the resolution of the patches, that are added
            to the second level; 0 for none.

    Reference: Ranftl et al., "Vision transformers for dense prediction", 2021; paper, 3.2.2.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokens: int,
        outputs: int,
        *,
        timed: bool,
        shortcut: int = 0,
        cue: int = 0,
    ) -> None:
        super().__init__()
        features, channels = config.head_features, config.head_channels
        self.outputs = outputs
        self.norm = nn.LayerNorm(tokens)
        if timed:
            self.time_embed = nn.Linear(TIME_NUMBERS, 2 * tokens)
            nn.init.zeros_(self.time_embed.weight)
            nn.init.zeros_(self.time_embed.bias)
        self.timed = timed
        self.projects = nn.ModuleList(nn.Conv2d(tokens, count, 1) for count in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = Fusion(channels, features, outputs + 1, add_rectified=config.published)
        if cue:
            self.cue = nn.Conv2d(cue, channels[1], 1)
        if config.detail:
            self.detail = nn.Conv2d(DETAIL_CHANNELS, channels[0], 1)
        self.has_shortcut = shortcut > 0
        if shortcut:
            self.shortcut = nn.Sequential(
                nn.Conv2d(shortcut, _HIDDEN, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(_HIDDEN, outputs + 1, 1),
            )

    def forward(
        self,
        layers: Sequence[Float[Tensor, "images patches tokens"]],
        grid: tuple[int, int],
        size: tuple[int, int],
        *,
        query: Float[Tensor, "images numbers"] | None = None,
        shortcut: Float[Tensor, "images inputs height width"] | None = None,
        cue: Float[Tensor, "images features rows columns"] | None = None,
        detail: Float[Tensor, "images details fine_rows fine_columns"] | None = None,
    ) -> tuple[Float[Tensor, "images outputs height width"], Float[Tensor, "images height width"]]:
        """Return the raw output and the confidence (at least 1).

        Args:
            layers: patch tokens of the four layers.
            grid: rows and columns of patches.
            size: height and width of the image, px.
            query: the encoded query time of each image, for heads that are `timed`.
            shortcut: the input of the shortcut, for heads that have one.
            cue: further features, for heads that have a cue.
            detail: features of the images, of four times the resolution of the patches.
        """
        levels = self.levels(layers, grid, size, query=query)
        if cue is not None:
            levels[1] = levels[1] + self.cue(cue)
        if detail is not None:
            levels[0] = levels[0] + self.detail(detail)
        fused = self.scratch.fused(levels)
        # In bfloat16 the output, as the logarithm of depths, would be rounded to steps of 1/256.
        device = fused.device.type
        available = torch.amp.is_autocast_available(device)  # not on the meta device
        with torch.autocast(device, enabled=False) if available else nullcontext():
            raw = self.scratch.output(fused.float(), size)
            if self.has_shortcut and shortcut is not None:
                raw = raw + self.shortcut(shortcut.float())
        return raw[:, : self.outputs], 1 + raw[:, self.outputs].exp()

    def scale_shift(
        self, query: Float[Tensor, "images numbers"]
    ) -> Float[Tensor, "images parameters"]:
        """Return the scale, then the shift, of the tokens for encoded query times."""
        return self.time_embed(query)

    def levels(
        self,
        layers: Sequence[Float[Tensor, "images patches tokens"]],
        grid: tuple[int, int],
        size: tuple[int, int],
        *,
        query: Float[Tensor, "images numbers"] | None = None,
    ) -> list[Float[Tensor, "images channels rows columns"]]:
        """Return feature maps of four resolutions, from fine to coarse."""
        maps = []
        for tokens, project, resize in zip(layers, self.projects, self.resize_layers, strict=True):
            x = self.norm(tokens)
            if self.timed and query is not None:
                scale, shift = self.scale_shift(query)[:, None].chunk(2, dim=-1)
                x = x * (1 + scale) + shift
            x = project(x.mT.unflatten(2, grid))
            maps.append(resize(_with_positions(x, size)))
        return maps


class DetailNetwork(nn.Module):
    """Local features of images, of four times the resolution of the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, DETAIL_CHANNELS, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(DETAIL_CHANNELS, DETAIL_CHANNELS, 3, padding=1),
            nn.GELU(),
        )

    def forward(
        self, images: Float[Tensor, "images 3 height width"], grid: tuple[int, int]
    ) -> Float[Tensor, "images details fine_rows fine_columns"]:
        features = self.convolutions(2 * images - 1)
        size = (4 * grid[0], 4 * grid[1])
        if features.shape[-2:] == size:
            return features
        return interpolate(features, size, mode="bilinear", align_corners=False)


class Fusion(nn.Module):
    """Fuses feature maps from coarse to fine, and predicts from the result."""

    def __init__(
        self, channels: Sequence[int], features: int, outputs: int, *, add_rectified: bool
    ) -> None:
        super().__init__()
        half = features // 2
        for number, count in enumerate(channels, start=1):
            skip = nn.Conv2d(count, features, 3, padding=1, bias=False)
            self.add_module(f"layer{number}_rn", skip)
            stage = FusionStage(features, skip=number < len(channels), add_rectified=add_rectified)
            self.add_module(f"refinenet{number}", stage)
        self.output_conv1 = nn.Conv2d(features, half, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(half, _HIDDEN, 3, padding=1), nn.ReLU(), nn.Conv2d(_HIDDEN, outputs, 1)
        )

    def fused(self, levels: Sequence[Tensor]) -> Float[Tensor, "images features height width"]:
        """Return the features at twice the size of the finest level."""
        skips = [
            self.get_submodule(f"layer{number}_rn")(level)
            for number, level in enumerate(levels, start=1)
        ]
        x = None
        for number in range(len(skips), 0, -1):
            size = skips[number - 2].shape[-2:] if number > 1 else None
            stage = self.get_submodule(f"refinenet{number}")
            x = stage(skips[number - 1] if x is None else x, skips[number - 1], size)
        return self.output_conv1(x)

    def output(
        self, fused: Float[Tensor, "images features h w"], size: tuple[int, int]
    ) -> Float[Tensor, "images outputs height width"]:
        """Return the raw output at image size."""
        x = interpolate(fused, size, mode="bilinear", align_corners=True)
        return self.output_conv2(_with_positions(x, size))


class FusionStage(nn.Module):
    """Adds a finer skip connection, refines, and resizes to the next finer level."""

    def __init__(self, features: int, *, skip: bool, add_rectified: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        self.has_skip = skip
        if skip:
            self.resConfUnit1 = ResidualUnit(features, add_rectified=add_rectified)
        self.resConfUnit2 = ResidualUnit(features, add_rectified=add_rectified)

    def forward(
        self,
        x: Float[Tensor, "images features h w"],
        skip: Float[Tensor, "images features h w"],
        size: Sequence[int] | None,
    ) -> Float[Tensor, "images features rows columns"]:
        """Args: the coarser features, the skip connection, and the output size; None doubles."""
        if self.has_skip:
            x = x + self.resConfUnit1(skip)
        x = self.resConfUnit2(x)
        size = [2 * n for n in x.shape[-2:]] if size is None else list(size)
        return self.out_conv(interpolate(x, size, mode="bilinear", align_corners=True))


class ResidualUnit(nn.Module):
    """Two convolutions with rectification before each, added to the input.

    With `add_rectified`, to the rectified input, which is what the released network computes.
    """

    def __init__(self, features: int, *, add_rectified: bool) -> None:
        super().__init__()
        self.add_rectified = add_rectified
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Float[Tensor, "images features h w"]) -> Tensor:
        rectified = relu(x)
        changed = self.conv2(relu(self.conv1(rectified)))
        return changed + (rectified if self.add_rectified else x)


def _with_positions(
    x: Float[Tensor, "images channels h w"], size: tuple[int, int]
) -> Float[Tensor, "images channels h w"]:
    """Add the embedding of the positions in an image of the given height and width."""
    channels, rows, columns = x.shape[1:]
    embedding = grid_embedding(channels, rows, columns, size[1] / size[0], x.device)
    return x + _EMBEDDING_WEIGHT * embedding.to(x.dtype)
