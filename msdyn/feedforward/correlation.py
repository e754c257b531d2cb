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
from torch.nn.functional import gelu, grid_sample, normalize

from msdyn.devices import numbers_like
from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.embeddings import pixel_rays

__all__ = ["CUE_CHANNELS", "MOTION_CHANNELS", "Correlation", "CorrelationCue", "MotionCue"]

_CHANNELS = 64
_HIDDEN = 64
_WINDOW = 1
"""Cells, in each direction, about the best match that determine its position."""
_FINE_REACH = 2
"""Half width, in fine cells, of the window in which matches are refined."""
_FINE_CHANNELS = 32
_PARALLAX_NOISE = 3e-4
"""Regularises inverse depths from small parallax, in units of the focal length, squared."""
_PAIR_NUMBERS = 28
"""Numbers that describe a match, see `CorrelationCue._describe`."""
_MOTION_NUMBERS = 26
"""Numbers that describe a lifted match, see `MotionCue.forward`."""
_INITIAL_TRUST = -1.0
"""Logit of the weight of lifted displacements at initialisation."""
CUE_CHANNELS = 2 * _HIDDEN + 2
"""Channels of the features of cells of `CorrelationCue`."""
MOTION_CHANNELS = 2 * _HIDDEN + 7
"""Channels of the features of `MotionCue`."""


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

    def consistency(self) -> Float[Tensor, "scenes frames frames cells 2"]:
        """Return how well matches there and back agree: exp(-d^2) and min(d, 3), d in cells.

        Most of what is matched wrongly does not come back to where it started.
        """
        rows, columns = self.grid
        nearest = self.positions.detach().round()
        nearest = nearest.clamp_min(0).minimum(numbers_like([columns - 1, rows - 1], nearest))
        index = (nearest[..., 1] * columns + nearest[..., 0]).long()[..., None]
        back = self.positions.transpose(1, 2).gather(3, index.expand(-1, -1, -1, -1, 2))
        returned = back + self.positions - nearest
        own = _cell_positions(rows, columns, nearest.device)
        distance = ((returned - own).square().sum(dim=-1, keepdim=True) + 1e-6).sqrt()
        return torch.cat([(-distance.square()).exp(), distance.clamp_max(3)], dim=-1)


class CorrelationCue(nn.Module):
    """Matches cells between frames and encodes the matches as patch features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cell = config.patch // 2
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        first = 2 if self.cell % 2 == 0 else 1
        second = self.cell // first
        self.middle = nn.Conv2d(32, 48, 3, stride=first, padding=1)
        size = max(second, 3)
        self.reduce = nn.Conv2d(
            48, _CHANNELS, size, stride=second, padding=(size - second + 1) // 2
        )
        self.refine = nn.ModuleList(nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1) for _ in range(3))
        self.project = nn.Conv2d(_CHANNELS, _CHANNELS, 1)
        self.fine = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(48, 48, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(48, _FINE_CHANNELS, 3, padding=1),
        )
        self.fine_log_sharpness = nn.Parameter(torch.tensor(3.0))
        self.log_sharpness = nn.Parameter(torch.tensor(3.0))
        self.no_match = nn.Parameter(torch.tensor(0.4))
        self.encode_pair = nn.Sequential(
            nn.Linear(_PAIR_NUMBERS, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, _HIDDEN), nn.GELU()
        )
        self.to_tokens = nn.Conv2d(CUE_CHANNELS, config.width, 2, stride=2)

    def forward(
        self,
        images: Float[Tensor, "scenes frames 3 height width"],
        world_from_cam: Float[Tensor, "scenes frames 4 4"],
        intrinsics: Float[Tensor, "scenes frames 4"],
        times: Float[Tensor, "scenes frames"],
        matches: Correlation | None = None,
    ) -> tuple[
        Float[Tensor, "scenes frames patches channels"],
        Float[Tensor, "scenes frames features rows columns"],
        Correlation,
    ]:
        """Return features to add to the patch tokens, those of the cells, and the matches.

        Matches may be given, if they have been computed before.
        """
        if matches is None:
            matches = self.match(images)
        described, equations = self._describe(matches, world_from_cam, intrinsics, times)
        encoded = self.encode_pair(described)  # [B, F, F, N, hidden]
        frames = images.shape[1]
        others = ~torch.eye(frames, dtype=torch.bool, device=images.device)
        others = others[:, :, None, None]
        mean = (encoded * others).sum(dim=2) / max(frames - 1, 1)
        largest = encoded.masked_fill(~others, 0).amax(dim=2)
        along, length = equations.sum(dim=2).split(1, dim=-1)
        inverse_depth = (along / (length + _PARALLAX_NOISE)).clamp(0.2, 5)
        triangulated = torch.cat([-inverse_depth.log(), 3 * (length + 1e-6).sqrt()], dim=-1)
        features = torch.cat([mean, largest, triangulated], dim=-1)  # [B, F, N, channels]
        maps = features.flatten(0, 1).mT.unflatten(2, matches.grid)
        tokens = self.to_tokens(maps).flatten(2).mT
        return (
            tokens.unflatten(0, images.shape[:2]),
            maps.unflatten(0, images.shape[:2]),
            matches,
        )

    def match(self, images: Float[Tensor, "scenes frames 3 height width"]) -> Correlation:
        """Return the matches between all frames."""
        x = self.stem(2 * images.flatten(0, 1) - 1)
        x = self.middle(gelu(x))
        fine = self.fine(x).unflatten(0, images.shape[:2])
        x = self.reduce(gelu(x))
        for layer in self.refine:
            x = x + layer(gelu(x))
        rows, columns = x.shape[-2:]
        features = self.project(x).flatten(2).unflatten(0, images.shape[:2])  # [B, F, c, N]
        # What all cells of the clip have in common says nothing about which ones match.
        features = normalize(features - features.mean(dim=(1, 3), keepdim=True), dim=2)
        similarity = torch.einsum("bicn,bjcm->bijnm", features, features)
        sharpness = self.log_sharpness.exp()
        logits = similarity * sharpness
        none = (self.no_match * sharpness).expand(*logits.shape[:-1], 1)
        log_probabilities = torch.cat([logits, none], dim=-1).log_softmax(dim=-1)
        # The mean position of a window about the best match: far-off alternatives do not bias it.
        cells = _cell_positions(rows, columns, images.device)
        near = (cells[:, None] - cells).abs().amax(dim=-1) <= _WINDOW  # [N, N]
        probabilities = logits.masked_fill(~near[logits.argmax(dim=-1)], -1e4).softmax(dim=-1)
        positions = probabilities @ cells
        positions = self._refined(fine, positions.detach(), (rows, columns))
        return Correlation(log_probabilities, positions, (rows, columns))

    def _refined(
        self,
        fine: Float[Tensor, "scenes frames channels fine_rows fine_columns"],
        positions: Float[Tensor, "scenes frames frames cells 2"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "scenes frames frames cells 2"]:
        """Return positions refined by features of higher resolution, in a small window."""
        scenes, frames = fine.shape[:2]
        fine = fine - fine.mean(dim=(1, 3, 4), keepdim=True)
        fine = normalize(fine, dim=2).flatten(0, 1)  # [B F, c, 2 h, 2 w]
        half = numbers_like([grid[1], grid[0]], positions) / 2
        cells = (_cell_positions(*grid, positions.device) + 0.5) / half - 1
        own = grid_sample(
            fine, cells.expand(len(fine), 1, -1, -1), padding_mode="border", align_corners=False
        )[:, :, 0].unflatten(0, (scenes, frames))  # [B, F, c, N]
        steps = torch.arange(-_FINE_REACH, _FINE_REACH + 1, device=positions.device)
        row, column = torch.meshgrid(steps, steps, indexing="ij")
        step = grid[1] / fine.shape[-1]  # of a fine cell, in cells
        offsets = torch.stack([column, row], dim=-1).flatten(0, 1) * step  # [K, 2]
        places = (positions[..., None, :] + offsets + 0.5) / half - 1  # [B, i, j, N, K, 2]
        found = grid_sample(
            fine,
            places.transpose(1, 2).flatten(0, 1).flatten(1, 2),
            padding_mode="zeros",
            align_corners=False,
        )  # [B j, c, i N, K]
        found = found.unflatten(0, (scenes, frames)).unflatten(3, (frames, -1))
        similarity = torch.einsum("bicn,bjcink->bijnk", own, found)
        weights = (similarity * self.fine_log_sharpness.exp()).softmax(dim=-1)
        return positions + weights @ offsets

    def _describe(
        self,
        matches: Correlation,
        world_from_cam: Float[Tensor, "scenes frames 4 4"],
        intrinsics: Float[Tensor, "scenes frames 4"],
        times: Float[Tensor, "scenes frames"],
    ) -> tuple[
        Float[Tensor, "scenes frames frames cells numbers"],
        Float[Tensor, "scenes frames frames cells 2"],
    ]:
        """Return the geometry of each match: positions, rays, baseline, times, confidence.

        Second, the two sides of its normal equation of the inverse depth.
        """
        rows, columns = matches.grid
        rotation, centre = world_from_cam[..., :3, :3], world_from_cam[..., :3, 3]
        half = numbers_like([columns, rows], matches.positions) / 2
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
        # If static, parallax = (inverse depth) * slope.
        in_camera = baseline @ rotation[:, :, None]
        slope = turned * in_camera[..., 2:] - in_camera[..., :2]
        along = (parallax * slope).sum(-1, keepdim=True)
        length = slope.square().sum(-1, keepdim=True)
        certainty = 3 * (length + 1e-6).sqrt()
        inverse_depth = (along / (length + _PARALLAX_NOISE)).clamp(-1, 5)
        residual = parallax - inverse_depth * slope
        visible = 1 - matches.log_probabilities[..., -1:].exp()
        own_time, time = times[:, :, None], times[:, None, :]
        gap = time - own_time
        clock = torch.stack([own_time.expand_as(gap), time.expand_as(gap), gap], dim=-1)
        clock = clock[..., None, :].expand(*ray.shape[:-1], 3)
        peak = matches.log_probabilities[..., :-1].amax(dim=-1, keepdim=True).exp()
        flow = position - own_position
        described = torch.cat(
            [
                own_position, flow, 5 * parallax, 10 * residual, inverse_depth, certainty,
                own_world, world, 5 * in_camera, clock, visible, peak, visible * flow,
                matches.consistency(),
            ],
            dim=-1,
        )  # fmt: skip
        return described, torch.cat([visible * along, visible * length], dim=-1)


def _cell_positions(rows: int, columns: int, device: torch.device) -> Float[Tensor, "cells 2"]:
    row, column = torch.meshgrid(
        torch.arange(rows, device=device, dtype=torch.float32),
        torch.arange(columns, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([column, row], dim=-1).flatten(0, 1)


class MotionCue(nn.Module):
    """Lifts matches to 3D displacements and encodes them for the motion heads.

    A cell's point and that of its match, both by the predicted depth, differ by the displacement to
    the time of the other frame. The displacement to the query time lies between those to the
    frames; which ones count, and how much, is learned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encode_pair = nn.Sequential(
            nn.Linear(_MOTION_NUMBERS, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, _HIDDEN), nn.GELU()
        )
        self.score = nn.Linear(_HIDDEN, 1)
        # In the displacement at the cell's own depth, and in what the match's depth adds.
        self.trust = nn.Linear(MOTION_CHANNELS, 2)
        nn.init.zeros_(self.trust.weight)
        nn.init.constant_(self.trust.bias, _INITIAL_TRUST)

    def forward(
        self,
        matches: Correlation,
        points: Float[Tensor, "scenes frames height width 3"],
        world_from_cam: Float[Tensor, "scenes frames 4 4"],
        intrinsics: Float[Tensor, "scenes frames 4"],
        times: Float[Tensor, "scenes frames"],
        query_times: Float[Tensor, " scenes"],
    ) -> tuple[
        Float[Tensor, "images channels rows columns"], Float[Tensor, "images 3 rows columns"]
    ]:
        """Return features of the cells of all frames, and a first estimate of their displacement.

        Args:
            matches: between the frames.
            points: of the pixels, in the canonical world, at the frames' own times.
            world_from_cam, intrinsics, times: of the frames.
            query_times: of the scenes.
        """
        scenes, frames = times.shape
        rows, columns = matches.grid
        half = numbers_like([columns, rows], points) / 2
        own_place = (_cell_positions(rows, columns, half.device) + 0.5) / half - 1
        own_place = own_place.expand(scenes, frames, 1, rows * columns, 2)
        own = _sample(points, own_place)  # [B, F, 1, N, 3]
        # Places in frame j, of the matches of the cells of all frames i.
        places = (matches.positions + 0.5) / half - 1
        found = _sample(points, places.transpose(1, 2)).transpose(1, 2)  # [B, F, F, N, 3]
        displacement = found - own
        # Without the depth of the match, which is less certain: the point of its ray at the cell's
        # own depth, in the cell's camera.
        axis, start = (
            world_from_cam[:, :, None, None, :3, 2],
            world_from_cam[:, None, :, None, :3, 3],
        )
        ray = self._rays(places, world_from_cam, intrinsics)
        forward = (ray * axis).sum(-1, keepdim=True).clamp_min(0.1)
        reach = ((own - start) * axis).sum(-1, keepdim=True) / forward
        lateral = (start + reach * ray - own).clamp(-2, 2)
        # Where the cell would be in frame j if it were static.
        rotation, centre = world_from_cam[..., :3, :3], world_from_cam[..., :3, 3]
        in_camera = (own - centre[:, None, :, None]) @ rotation[:, None]
        plane = in_camera[..., :2] / in_camera[..., 2:].clamp_min(0.1)
        still = plane * intrinsics[:, None, :, None, :2] + intrinsics[:, None, :, None, 2:]
        residual = places - (2 * still - 1).clamp(-2, 2)
        own_time, time = times[:, :, None], times[:, None, :]
        gap, wanted = time - own_time, query_times[:, None, None] - own_time
        ratio = wanted * gap / (gap.square() + 0.01)
        clock = torch.stack(
            torch.broadcast_tensors(
                own_time, time, query_times[:, None, None], gap, wanted, wanted - gap,
                (wanted - gap).abs(), ratio,
            ),
            dim=-1,
        )  # fmt: skip
        clock = clock[..., None, :].expand(*displacement.shape[:-1], -1)
        estimate = ratio[..., None, None] * displacement
        across = ratio[..., None, None] * lateral
        visible = 1 - matches.log_probabilities[..., -1:].exp()
        peak = matches.log_probabilities[..., :-1].amax(dim=-1, keepdim=True).exp()
        described = torch.cat(
            [
                5 * displacement, 5 * estimate, 5 * residual, visible, peak, clock,
                own.expand_as(found), 5 * across, matches.consistency(),
            ],
            dim=-1,
        )  # fmt: skip
        encoded = self.encode_pair(described)  # [B, F, F, N, hidden]
        same = torch.eye(frames, dtype=torch.bool, device=times.device)[:, :, None, None]
        weights = self.score(encoded).masked_fill(same, -1e4).softmax(dim=2)
        features = torch.cat(
            [
                (weights * encoded).sum(dim=2),
                encoded.masked_fill(same, 0).mean(dim=2),
                (weights * 5 * estimate).sum(dim=2),
                (weights * visible).sum(dim=2),
                (weights * 5 * across).sum(dim=2),
            ],
            dim=-1,
        )
        trust = self.trust(features).sigmoid()  # [B, F, N, 2]
        sideways = (weights * across).sum(dim=2)
        rest = (weights * (estimate - across)).sum(dim=2).clamp(-1, 1)
        first = trust[..., :1] * sideways + trust[..., 1:] * rest
        return (
            features.flatten(0, 1).mT.unflatten(2, matches.grid),
            first.flatten(0, 1).mT.unflatten(2, matches.grid),
        )

    @staticmethod
    def _rays(
        places: Float[Tensor, "scenes frames others cells 2"],
        world_from_cam: Float[Tensor, "scenes others 4 4"],
        intrinsics: Float[Tensor, "scenes others 4"],
    ) -> Float[Tensor, "scenes frames others cells 3"]:
        """Return directions, in the world, through positions in [-1, 1] of the other frames."""
        focal, offset = intrinsics[:, None, :, None, :2], intrinsics[:, None, :, None, 2:]
        plane = ((places + 1) / 2 - offset) / focal
        ray = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1)
        return ray @ world_from_cam[:, None, :, :3, :3].mT


def _sample(
    points: Float[Tensor, "scenes frames height width 3"],
    places: Float[Tensor, "scenes frames others cells 2"],
) -> Float[Tensor, "scenes frames others cells 3"]:
    """Return points interpolated at positions in [-1, 1] of the frames of dimension 1."""
    sampled = grid_sample(
        points.flatten(0, 1).movedim(-1, 1), places.flatten(0, 1), padding_mode="border",
        align_corners=False,
    )  # fmt: skip
    return sampled.movedim(1, -1).unflatten(0, points.shape[:2])
