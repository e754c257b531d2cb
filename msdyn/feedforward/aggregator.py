"""The aggregator: attention within frames and among frames in turn, and the special tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from msdyn.feedforward.attention import Block, run_block
from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.embeddings import (
    POSE_NUMBERS,
    TIME_NUMBERS,
    patch_positions,
    pose_encoding,
    time_encoding,
)

__all__ = ["Aggregator"]

_EPS = 1e-5


class Aggregator(nn.Module):
    """Pairs of a frame block and a global block (paper, 3.2.1; VGGT's alternating attention).

    The tokens of a frame are, in this order: time, camera pose (both switchable), camera,
    registers, patches. The camera and register tokens of frame 0 differ from those of the others,
    which tells the network whose camera the world is.

    Attributes:
        recompute: activations in the backward pass instead of storing them, for training.

    Reference: Wang et al., "VGGT", 2025.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        width = config.width
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.registers, width))
        nn.init.normal_(self.camera_token, std=0.02)
        nn.init.normal_(self.register_token, std=0.02)
        if config.camera_token:
            self.extra_embed = nn.Linear(POSE_NUMBERS, width)
        if config.time_token:
            self.time_embed = nn.Linear(TIME_NUMBERS, width)

        def blocks() -> nn.ModuleList:
            scale = config.aggregator_layer_scale
            return nn.ModuleList(
                Block(width, config.heads, eps=_EPS, normalise=True, layer_scale=scale)
                for _ in range(config.pairs)
            )

        self.frame_blocks = blocks()
        self.global_blocks = blocks()

    def forward(
        self,
        patches: Float[Tensor, "scenes frames patches width"],
        grid: tuple[int, int],
        world_from_cam: Float[Tensor, "scenes frames 4 4"],
        intrinsics: Float[Tensor, "scenes frames 4"],
        times: Float[Tensor, "scenes frames"],
    ) -> dict[int, Float[Tensor, "scenes frames patches channels"]]:
        """Return the patch tokens after the pairs that the heads read, by the index of the pair.

        Args:
            patches: tokens of the encoder.
            grid: rows and columns of patches.
            world_from_cam: cameras, that of frame 0 the identity.
            intrinsics: normalised.
            times: of the frames, in [0, 1].

        Returns:
            Outputs of frame block and global block, concatenated along the channels.
        """
        scenes, frames = patches.shape[:2]
        special = self.special(world_from_cam, intrinsics, times).to(patches.dtype)
        tokens = torch.cat([special, patches], dim=2)
        positions = patch_positions(*grid, special.shape[2], patches.device)
        all_positions = positions.repeat(frames, 1)
        kept: dict[int, Tensor] = {}
        tokens = tokens.flatten(0, 1)
        for index, (frame_block, global_block) in enumerate(
            zip(self.frame_blocks, self.global_blocks, strict=True)
        ):
            own = run_block(
                frame_block, tokens, positions, recompute=self.recompute
            )  # [B F, tokens, width]
            joint = run_block(
                global_block,
                own.reshape(scenes, -1, own.shape[-1]),
                all_positions,
                recompute=self.recompute,
            ).reshape(own.shape)
            if index in self.config.head_layers:
                both = torch.cat([own, joint], dim=-1)[:, special.shape[2] :]
                kept[index] = both.unflatten(0, (scenes, frames))
            tokens = joint
        return kept

    def special(
        self,
        world_from_cam: Float[Tensor, "scenes frames 4 4"],
        intrinsics: Float[Tensor, "scenes frames 4"],
        times: Float[Tensor, "scenes frames"],
    ) -> Float[Tensor, "scenes frames tokens width"]:
        """Return the special tokens of the frames."""
        scenes, frames = times.shape
        tokens = []
        if self.config.time_token:
            tokens.append(self.time_embed(time_encoding(times))[:, :, None])
        if self.config.camera_token:
            tokens.append(self.extra_embed(pose_encoding(world_from_cam, intrinsics))[:, :, None])
        later = torch.ones(frames, dtype=torch.long, device=times.device)
        later[0] = 0
        learned = torch.cat([self.camera_token, self.register_token], dim=2)[:, later]
        tokens.append(learned.expand(scenes, -1, -1, -1))
        return torch.cat([token.to(tokens[0].dtype) for token in tokens], dim=2)
