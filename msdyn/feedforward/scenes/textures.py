"""Random solid textures: a colour for every point of an object, in the object's coordinates.

A texture mixes three colours by a pattern and fine noise. All objects read one periodic volume of
noise, each at an offset and a scale of its own. Patterns: `patches` of noise and `checks`, which
cover surfaces with features that can be matched between frames; `leaves`, flat patches of the three
colours; wavy `stripes`; `plain` surfaces with faint noise, and smooth `gradient`s, on which little
can be matched; `rings` and `dots`, for scenes unlike those of the training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from msdyn.feedforward.scenes.options import TextureKind

__all__ = ["TEXTURES", "TextureKind", "Textures", "random_textures"]

TEXTURES: tuple[TextureKind, ...] = get_args(TextureKind)

_CELLS = 32
"""Cells of the periodic volume along each axis."""
_OCTAVE = 2.3
"""Ratio of the two octaves' frequencies."""
_CHANNELS = 4
_CHECKS = 0.2
"""Share of surfaces with checks by default."""
_GRAIN = 0.25
_DOT = 0.7
"""Radius of dots, in cells."""


@dataclass(frozen=True)
class Textures:
    """Textures of all surfaces of B scenes; K surfaces each.

    Attributes:
        colours: the three colours that are mixed.
        cell: size of the coarse features, scene units.
        offset: into the volume of noise, in cells.
        contrast: of the coarse noise; large values give patches with sharp borders.
        detail: weight of the third colour, mixed by the fine noise.
        grain: contrast of the fine noise in all colours.
        kind: of the pattern, an index into `TEXTURES`.
    """

    colours: Float[Tensor, "scenes surfaces 3 3"]
    cell: Float[Tensor, "scenes surfaces"]
    offset: Float[Tensor, "scenes surfaces 3"]
    contrast: Float[Tensor, "scenes surfaces"]
    detail: Float[Tensor, "scenes surfaces"]
    grain: Float[Tensor, "scenes surfaces"]
    kind: Int[Tensor, "scenes surfaces"]

    def colours_at(
        self, points: Float[Tensor, "scenes points 3"], surface: Int[Tensor, "scenes points"]
    ) -> Float[Tensor, "scenes points 3"]:
        """Return the colours, in [0, 1], of points in the coordinates of their surfaces."""
        numbers = [self.cell, self.contrast, self.detail, self.grain, self.kind.float()]
        table = torch.cat(
            [self.colours.flatten(2), self.offset, torch.stack(numbers, dim=-1)], dim=-1
        )  # [B, K, 17]
        own = table.gather(1, surface[..., None].expand(-1, -1, table.shape[-1]))
        first, second, third, offset = own[..., :12].split(3, dim=-1)
        cell, contrast, detail, grain, kind = own[..., 12:].split(1, dim=-1)
        cells = points / cell + offset
        coarse = _noise(cells)
        fine = _noise(_OCTAVE * cells + offset.flip(-1))
        patches = _pattern(kind, cells, offset, coarse, contrast)
        colour = first + patches * (second - first)
        spots = ((fine[..., :1] - 0.5) * 4 + 0.5).clamp(0, 1)
        leaves = (coarse[..., 1:2] > 0.55).float()
        spots = torch.where(kind == TEXTURES.index("leaves"), leaves, detail * spots)
        colour = colour + spots * (third - colour)
        return (colour + grain * (fine[..., 1:] - 0.5)).clamp(0, 1)


def _pattern(
    kind: Float[Tensor, "scenes points 1"],
    cells: Float[Tensor, "scenes points 3"],
    offset: Float[Tensor, "scenes points 3"],
    coarse: Float[Tensor, "scenes points channels"],
    contrast: Float[Tensor, "scenes points 1"],
) -> Float[Tensor, "scenes points 1"]:
    """Return the weight of the second colour, of the pattern of each point."""
    across = (cells * normalize(offset - _CELLS / 2, dim=-1)).sum(-1, keepdim=True)
    noise = coarse[..., :1] - 0.5

    def pattern(name: TextureKind) -> Tensor:
        if name == "patches":
            return (noise * contrast + 0.5).clamp(0, 1)
        if name == "checks":
            return 0.5 + 0.5 * torch.sign(torch.sin(cells * torch.pi / 2).prod(-1, keepdim=True))
        if name == "leaves":
            return (noise > 0).float()
        if name == "stripes":
            return (torch.sin(torch.pi * (across + 1.5 * noise)) * contrast + 0.5).clamp(0, 1)
        if name == "plain":
            return torch.full_like(across, 0.5)
        if name == "gradient":
            return 0.5 + 0.5 * torch.sin(0.25 * torch.pi * across)
        if name == "rings":
            radius = (cells[..., :2].remainder(8) - 4).norm(dim=-1, keepdim=True)
            return (torch.sin(torch.pi * radius) * contrast + 0.5).clamp(0, 1)
        return ((cells.remainder(2) - 1).norm(dim=-1, keepdim=True) < _DOT).float()

    result = torch.zeros_like(across)
    for index in kind.unique().long().tolist():
        result = torch.where(kind == index, pattern(TEXTURES[index]), result)
    return result


def random_textures(
    scenes: int,
    surfaces: int,
    cell: tuple[float, float],
    generator: torch.Generator,
    kinds: tuple[TextureKind, ...] = (),
) -> Textures:
    """Return random textures on the generator's device.

    Args:
        scenes, surfaces: number of scenes, and of surfaces in each.
        cell: smallest and largest size of the coarse features, scene units.
        generator: of the random numbers.
        kinds: that are drawn, each as often, with colours of any contrast; by default patches, and
            a fifth of the surfaces checks, with colours of high contrast.
    """

    def uniform(*shape: int) -> Tensor:
        size = (scenes, surfaces, *shape)
        return torch.rand(size, generator=generator, device=generator.device)

    low, high = cell
    textures = Textures(
        colours=uniform(3, 3),
        cell=low * (high / low) ** uniform(),
        offset=_CELLS * uniform(3),
        contrast=1.5 * 6 ** uniform(),
        detail=0.9 * uniform(),
        kind=(uniform() < _CHECKS).long() * TEXTURES.index("checks"),
        grain=torch.full((scenes, surfaces), _GRAIN, device=generator.device),
    )
    if not kinds:
        return textures
    table = torch.tensor([TEXTURES.index(name) for name in kinds], device=generator.device)
    kind = table[(len(kinds) * uniform()).long().clamp_max(len(kinds) - 1)]
    faint = (kind == TEXTURES.index("plain")) | (kind == TEXTURES.index("gradient"))
    colours = textures.colours
    mean = colours.mean(dim=2, keepdim=True)
    contrast = (0.3 + 0.9 * uniform())[..., None, None]
    return replace(
        textures,
        colours=(mean + contrast * (colours - mean)).clamp(0, 1),
        detail=torch.where(faint, 0.3 * textures.detail, textures.detail),
        kind=kind,
        grain=_GRAIN * uniform(),
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
