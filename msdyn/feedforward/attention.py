"""Transformer blocks: pre-norm attention and MLP, each with a layer scale."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from msdyn.feedforward.embeddings import rotate_by_position

__all__ = ["Block", "run_block"]

_MLP_RATIO = 4


class LayerScale(nn.Module):
    """A factor per channel."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention, optionally with normalised queries and keys.

    Positions, if given, rotate queries and keys (RoPE).
    """

    def __init__(self, width: int, heads: int, *, normalise: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads) if normalise else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if normalise else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], positions: Int[Tensor, "... 2"] | None
    ) -> Float[Tensor, "batch tokens width"]:
        # [3, B, heads, tokens, width / heads]
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        # Under autocast a normalisation returns float32; attention wants one dtype.
        query, key = self.q_norm(query).to(value.dtype), self.k_norm(key).to(value.dtype)
        if positions is not None:
            query = rotate_by_position(query, positions)
            key = rotate_by_position(key, positions)
        attended = scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention, then an MLP, each added to its input.

    Args:
        width: channels of a token.
        heads: of the attention.
        eps: of the two LayerNorms.
        normalise: queries and keys by LayerNorms over the channels of a head.
        layer_scale: initial layer scale.
    """

    def __init__(
        self, width: int, heads: int, *, eps: float, normalise: bool, layer_scale: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, normalise=normalise)
        self.ls1 = LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width, layer_scale)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        positions: Int[Tensor, "... 2"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        x = x + self.ls1(self.attn(self.norm1(x), positions))
        return x + self.ls2(self.mlp(self.norm2(x)))


def run_block(
    block: nn.Module, tokens: Tensor, positions: Tensor | None = None, *, recompute: bool
) -> Tensor:
    """Return a block's output, whose activations are computed again for gradients if asked for."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, tokens, positions, use_reentrant=False)
    return block(tokens, positions)
