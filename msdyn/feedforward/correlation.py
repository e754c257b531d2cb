"""Correlation between frames: an explicit cue of correspondence for the aggregator.

A small network without pretraining does not discover correspondence from the losses of depth and
motion in reasonable time. This module computes it: local features of cells (half a patch wide) are
compared with those of all cells of every other frame, and the matches, with the cameras' rays
through them, are encoded and added to the patch tokens. It is not part of the published network.

Shapes: B scenes, F frames, N = rows x columns cells of a frame. Coordinates of cells are in cells,
cell centres at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.embeddings import pixel_rays

__all__ = ["Correlation", "CorrelationCue"]

_CHANNELS = 64
_HIDDEN = 64
_PAIR_NUMBERS = 26
"""Numbers that describe a match, see `CorrelationCue._describe`."""


@dataclass(frozen=True)
class Correlation:
    """Matches of the cells of each frame i in each frame j.

    Attributes:
        log_probabilities: of the cells of frame j, and last that the cell has no match there.
        positions: mean position of the match (column, row), in cells.
        grid: rows and columns of cells.
    """

    log_probabilities: Float[Tensor, "scenes frames frames cells choices"]
    positions: Float[Tensor, "scenes frames frames cells 2"]
    grid: tuple[int, int]


class CorrelationCue(nn.Module):
    """Matches cells between frames and encodes the matches as patch features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cell = config.patch // 2
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.reduce = nn.Conv2d(32, _CHANNELS, self.cell, stride=self.cell)
        self.refine = nn.ModuleList(
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1) for _ in range(2)
        )
        self.project = nn.Conv2d(_CHANNELS, _CHANNELS, 1)
        self.log_sharpness = nn.Parameter(torch.tensor(2.5))
        self.no_match = nn.Parameter(torch.tensor(4.0))
        self.encode_pair = nn.Sequential(
            nn.Linear(_PAIR_NUMBERS, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, _HIDDEN), nn.GELU()
        )
        self.to_tokens = nn.Conv2d(2 * _HIDDEN, config.width, 2, stride=2)

    def forward(
        self,
        images: Float[Tensor, "scenes frames 3 height width"],
        world_from_cam: Float[Tensor, "scenes frames 4 4"],
        intrinsics: Float[Tensor, "scenes frames 4"],
        times: Float[Tensor, "scenes frames"],
    ) -> tuple[Float[Tensor, "scenes frames patches channels"], Correlation]:
        """Return features to add to the patch tokens, and the matches."""
        matches = self.match(images)
        described = self._describe(matches, world_from_cam, intrinsics, times)
        encoded = self.encode_pair(described)  # [B, F, F, N, hidden]
        frames = images.shape[1]
        others = ~torch.eye(frames, dtype=torch.bool, device=images.device)
        others = others[:, :, None, None]
        mean = (encoded * others).sum(dim=2) / max(frames - 1, 1)
        largest = encoded.masked_fill(~others, 0).amax(dim=2)
        features = torch.cat([mean, largest], dim=-1)  # [B, F, N, 2 hidden]
        maps = features.flatten(0, 1).mT.unflatten(2, matches.grid)
        tokens = self.to_tokens(maps).flatten(2).mT
        return tokens.unflatten(0, images.shape[:2]), matches

    def match(self, images: Float[Tensor, "scenes frames 3 height width"]) -> Correlation:
        """Return the matches between all frames."""
        x = self.stem(2 * images.flatten(0, 1) - 1)
        x = self.reduce(gelu(x))
        for layer in self.refine:
            x = x + layer(gelu(x))
        rows, columns = x.shape[-2:]
        features = normalize(self.project(x).flatten(2), dim=1).unflatten(0, images.shape[:2])
        similarity = torch.einsum("bicn,bjcm->bijnm", features, features)
        logits = similarity * self.log_sharpness.exp()
        none = self.no_match.expand(*logits.shape[:-1], 1)
        log_probabilities = torch.cat([logits, none], dim=-1).log_softmax(dim=-1)
        probabilities = logits.softmax(dim=-1)
        positions = probabilities @ _cell_positions(rows, columns, images.device)
        return Correlation(log_probabilities, positions, (rows, columns))

    def _describe(
        self,
        matches: Correlation,
        world_from_cam: Float[Tensor, "scenes frames 4 4"],
        intrinsics: Float[Tensor, "scenes frames 4"],
        times: Float[Tensor, "scenes frames"],
    ) -> Float[Tensor, "scenes frames frames cells numbers"]:
        """Return the geometry of each match: positions, rays, baseline, times, confidence."""
        rows, columns = matches.grid
        rotation, centre = world_from_cam[..., :3, :3], world_from_cam[..., :3, 3]
        half = matches.positions.new_tensor([columns, rows]) / 2
        own_position = (_cell_positions(rows, columns, half.device) + 0.5) / half - 1
        position = (matches.positions + 0.5) / half - 1  # [B, F, F, N, 2], in [-1, 1]
        own_position = own_position.expand_as(position)
        own_ray = pixel_rays(intrinsics, rows, columns).flatten(2, 3)  # [B, F, N, 3]
        focal, offset = intrinsics[..., None, :2], intrinsics[..., None, 2:]
        plane = (position + 1) / 2
        ray = (plane - offset[:, None]) / focal[:, None]
        ray = torch.cat([ray, torch.ones_like(ray[..., :1])], dim=-1)
        own_world = (own_ray @ rotation.mT)[:, :, None].expand_as(ray)
        world = ray @ rotation[:, None].mT
        baseline = (centre[:, None] - centre[:, :, None])[..., None, :].expand_as(ray)
        # The match in the camera of the frame, as if it were infinitely far: what remains is
        # parallax and motion.
        turned = world @ rotation[:, :, None]
        turned = turned[..., :2] / turned[..., 2:].clamp_min(0.1)
        parallax = turned - own_ray[:, :, None, :, :2]
        # Distance from the epipolar plane: zero for what is static.
        residual = (torch.linalg.cross(own_world, world) * baseline).sum(-1, keepdim=True)
        in_camera = baseline @ rotation[:, :, None]
        own_time, time = times[:, :, None], times[:, None, :]
        gap = time - own_time
        clock = torch.stack([own_time.expand_as(gap), time.expand_as(gap), gap], dim=-1)
        clock = clock[..., None, :].expand(*ray.shape[:-1], 3)
        visible = 1 - matches.log_probabilities[..., -1:].exp()
        peak = matches.log_probabilities[..., :-1].amax(dim=-1, keepdim=True).exp()
        flow = position - own_position
        return torch.cat(
            [
                own_position, flow, 5 * parallax, 10 * residual, own_world, world, 5 * in_camera,
                5 * baseline, clock, visible, peak, visible * flow,
            ],
            dim=-1,
        )  # fmt: skip


def _cell_positions(
    rows: int, columns: int, device: torch.device
) -> Float[Tensor, "cells 2"]:
    row, column = torch.meshgrid(
        torch.arange(rows, device=device, dtype=torch.float32),
        torch.arange(columns, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([column, row], dim=-1).flatten(0, 1)
