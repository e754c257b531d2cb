"""Random solid textures: a colour for every point of an object, in the object's coordinates.

A texture mixes three colours by noise of two octaves, or by checks, so that surfaces are covered
with features that can be matched between frames. All objects read one periodic volume of noise,
each at an offset and a scale of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample

__all__ = ["Textures", "random_textures"]

_CELLS = 32
"""Cells of the periodic volume along each axis."""
_OCTAVE = 2.3
"""Ratio of the two octaves' frequencies."""
_CHANNELS = 4


@dataclass(frozen=True)
class Textures:
    """Textures of all surfaces of B scenes; K surfaces each.

    Attributes:
        colours: the three colours that are mixed.
        cell: size of the coarse features, scene units.
        offset: into the volume of noise, in cells.
        contrast: of the coarse noise; large values give patches with sharp borders.
        detail: weight of the third colour, mixed by the fine noise.
        checks: 1 for checks instead of coarse noise, else 0.
    """

    colours: Float[Tensor, "scenes surfaces 3 3"]
    cell: Float[Tensor, "scenes surfaces"]
    offset: Float[Tensor, "scenes surfaces 3"]
    contrast: Float[Tensor, "scenes surfaces"]
    detail: Float[Tensor, "scenes surfaces"]
    checks: Float[Tensor, "scenes surfaces"]

    def colours_at(
        self, points: Float[Tensor, "scenes points 3"], surface: Int[Tensor, "scenes points"]
    ) -> Float[Tensor, "scenes points 3"]:
        """Return the colours, in [0, 1], of points in the coordinates of their surfaces."""
        table = torch.cat(
            [
                self.colours.flatten(2),
                self.offset,
                torch.stack([self.cell, self.contrast, self.detail, self.checks], dim=-1),
            ],
            dim=-1,
        )  # [B, K, 16]
        own = table.gather(1, surface[..., None].expand(-1, -1, table.shape[-1]))
        first, second, third, offset = own[..., :12].split(3, dim=-1)
        cell, contrast, detail, checks = own[..., 12:].split(1, dim=-1)
        cells = points / cell + offset
        coarse = _noise(cells)
        fine = _noise(_OCTAVE * cells + offset.flip(-1))
        patches = ((coarse[..., :1] - 0.5) * contrast + 0.5).clamp(0, 1)
        parity = 0.5 + 0.5 * torch.sign(torch.sin(cells * torch.pi / 2).prod(-1, keepdim=True))
        patches = torch.where(checks > 0.5, parity, patches)
        colour = first + patches * (second - first)
        spots = ((fine[..., :1] - 0.5) * 4 + 0.5).clamp(0, 1)
        colour = colour + detail * spots * (third - colour)
        return (colour + 0.25 * (fine[..., 1:] - 0.5)).clamp(0, 1)


def random_textures(
    scenes: int, surfaces: int, cell: tuple[float, float], generator: torch.Generator
) -> Textures:
    """Return random textures on the generator's device.

    Args:
        scenes, surfaces: number of scenes, and of surfaces in each.
        cell: smallest and largest size of the coarse features, scene units.
        generator: of the random numbers.
    """

    def uniform(*shape: int) -> Tensor:
        size = (scenes, surfaces, *shape)
        return torch.rand(size, generator=generator, device=generator.device)

    low, high = cell
    return Textures(
        colours=uniform(3, 3),
        cell=low * (high / low) ** uniform(),
        offset=_CELLS * uniform(3),
        contrast=1.5 * 6 ** uniform(),
        detail=0.9 * uniform(),
        checks=(uniform() < 0.2).float(),
    )


def _noise(cells: Float[Tensor, "scenes points 3"]) -> Float[Tensor, "scenes points channels"]:
    """Return trilinear periodic noise in [0, 1] at positions in cells."""
    grid = cells.remainder(_CELLS) * (2 / _CELLS) - 1
    volume = _volume(str(cells.device)).to(cells.dtype)
    sampled = grid_sample(volume, grid.reshape(1, 1, 1, -1, 3), align_corners=True)
    return sampled.view(_CHANNELS, *cells.shape[:-1]).movedim(0, -1)


@lru_cache(maxsize=8)
def _volume(device: str) -> Float[Tensor, "1 channels cells cells cells"]:
    """Return the volume, whose last planes repeat the first; always the same."""
    fixed = torch.Generator().manual_seed(0)
    volume = torch.rand(1, _CHANNELS, _CELLS, _CELLS, _CELLS, generator=fixed)
    for axis in (2, 3, 4):
        volume = torch.cat([volume, volume.narrow(axis, 0, 1)], dim=axis)
    return volume.to(device)
