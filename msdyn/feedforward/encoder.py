"""The image encoder: a DINOv2 vision transformer with registers, applied to single frames."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from msdyn.devices import upload
from msdyn.feedforward.attention import Block, run_block
from msdyn.feedforward.config import ModelConfig

__all__ = ["ImageEncoder"]

_MEAN = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
_STD = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
_EPS = 1e-6


class ImageEncoder(nn.Module):
    """Encodes images as patch tokens (paper, 3.2.1).

    Reference: Oquab et al., "DINOv2", 2024; Darcet et al., "Vision transformers need registers",
    2024.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, cells = config.width, config.position_grid**2
        self.grid = config.position_grid
        self.patch = config.patch
        self.recompute = False
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + cells, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, width))
        if config.published:  # in the checkpoint, used in pretraining only
            self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbedding(config.patch, width)
        self.blocks = nn.ModuleList(
            Block(width, config.encoder_heads, eps=_EPS, normalise=False, layer_scale=1.0)
            for _ in range(config.encoder_blocks)
        )
        self.norm = nn.LayerNorm(width, eps=_EPS)
        for table in (self.cls_token, self.pos_embed, self.register_tokens):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(
        self, images: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images patches channels"]:
        """Return the patch tokens of RGB images in [0, 1], whose sides are multiples of `patch`."""
        return self.norm(self.tokens(images)[:, 1 + self.register_tokens.shape[1] :])

    def tokens(
        self, images: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images tokens channels"]:
        """Return all tokens before the final normalisation: class, registers, patches."""
        count, _, height, width = images.shape
        mean, std = (upload(v, images.device).to(images.dtype) for v in (_MEAN, _STD))
        patches = self.patch_embed((images - mean) / std)
        positions = self._positions(height // self.patch, width // self.patch)
        tokens = torch.cat([self.cls_token.expand(count, -1, -1), patches], dim=1) + positions
        registers = self.register_tokens.expand(count, -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
        for block in self.blocks:
            tokens = run_block(block, tokens, recompute=self.recompute)
        return tokens

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 tokens channels"]:
        """Return the table of position embeddings, resized to the patches of an image."""
        if rows == columns == self.grid:
            return self.pos_embed
        table = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        resized = nn.functional.interpolate(
            table.float(), (rows, columns), mode="bicubic", antialias=True
        ).to(table.dtype)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).mT], dim=1)


class PatchEmbedding(nn.Module):
    """Maps square patches to tokens, row by row."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Tensor:
        return self.proj(images).flatten(2).mT
