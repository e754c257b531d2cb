"""Embeddings of positions, times and cameras.

Shapes: B scenes, F frames, H x W pixels. Intrinsics are normalised, (fx/W, fy/H, cx/W, cy/H).
Cameras are `world_from_cam`, OpenCV axes, in the canonical world, which is the camera of frame 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

__all__ = [
    "POSE_NUMBERS",
    "TIME_NUMBERS",
    "grid_embedding",
    "patch_positions",
    "pixel_rays",
    "plucker_coordinates",
    "pose_encoding",
    "rotate_by_position",
    "rotated",
    "time_encoding",
]

_TIME_OCTAVES = 10
TIME_NUMBERS = 2 * _TIME_OCTAVES
"""Numbers that encode a time."""
POSE_NUMBERS = 9
"""Numbers that encode a camera: translation 3, quaternion 4, fields of view 2."""
_ROTARY_BASE = 100.0


def time_encoding(times: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 20"]:
    """Encode times in [0, 1] as sin(2^k t), then cos(2^k t), k = 0..9 (no factor of pi)."""
    octaves = 2.0 ** torch.arange(_TIME_OCTAVES, dtype=times.dtype, device=times.device)
    angles = times[..., None] * octaves
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def rotated(
    rotation: Float[Tensor, "*#batch 3 3"], vectors: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*#batch 3"]:
    """Rotate vectors, in their own precision under autocast too (a matrix product would not be)."""
    return (rotation * vectors[..., None, :]).sum(-1)


def pixel_rays(
    intrinsics: Float[Tensor, "*batch 4"], height: int, width: int
) -> Float[Tensor, "*batch height width 3"]:
    """Return the points at z-depth 1 of all pixel centres, in camera coordinates."""
    device, dtype = intrinsics.device, intrinsics.dtype
    x = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
    y = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
    fx, fy, cx, cy = intrinsics[..., None, None, :].unbind(-1)
    ray_x, ray_y = (x - cx) / fx, (y[:, None] - cy) / fy
    shape = (*intrinsics.shape[:-1], height, width)
    return torch.stack([ray_x.expand(shape), ray_y.expand(shape), ray_x.new_ones(shape)], dim=-1)


def plucker_coordinates(
    world_from_cam: Float[Tensor, "*batch 4 4"],
    intrinsics: Float[Tensor, "*batch 4"],
    height: int,
    width: int,
) -> Float[Tensor, "*batch 6 height width"]:
    """Return (o x d, d) of the ray of each pixel: o its camera centre, d its unit direction."""
    rays = pixel_rays(intrinsics, height, width)
    directions = normalize(rotated(world_from_cam[..., None, None, :3, :3], rays), dim=-1)
    centres = world_from_cam[..., None, None, :3, 3].expand_as(directions)
    moments = torch.linalg.cross(centres, directions)
    return torch.cat([moments, directions], dim=-1).movedim(-1, -3)


def pose_encoding(
    world_from_cam: Float[Tensor, "*batch 4 4"], intrinsics: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 9"]:
    """Encode cameras: of cam_from_world translation and quaternion (xyzw), then fov_y, fov_x."""
    from roma import rotmat_to_unitquat

    rotation = world_from_cam[..., :3, :3].mT
    translation = -rotated(rotation, world_from_cam[..., :3, 3])
    quats_xyzw = rotmat_to_unitquat(rotation.reshape(-1, 3, 3)).reshape(*rotation.shape[:-2], 4)
    # Both signs are the same rotation: the one with a positive real part is encoded.
    quats_xyzw = torch.where(quats_xyzw[..., 3:] < 0, -quats_xyzw, quats_xyzw)
    fov = 2 * torch.atan(0.5 / intrinsics[..., :2])  # x, y
    return torch.cat([translation, quats_xyzw, fov.flip(-1)], dim=-1)


def patch_positions(
    rows: int, columns: int, special_tokens: int, device: torch.device | str
) -> Int[Tensor, "tokens 2"]:
    """Return (row, column) of the tokens of a frame: patches from 1, special tokens (0, 0)."""
    row, column = torch.meshgrid(
        torch.arange(1, rows + 1, device=device),
        torch.arange(1, columns + 1, device=device),
        indexing="ij",
    )
    patches = torch.stack([row.flatten(), column.flatten()], dim=-1)
    return torch.cat([patches.new_zeros(special_tokens, 2), patches])


def rotate_by_position(
    x: Float[Tensor, "batch heads tokens channels"],
    positions: Int[Tensor, "tokens 2"] | Int[Tensor, "batch tokens 2"],
) -> Float[Tensor, "batch heads tokens channels"]:
    """Apply 2D rotary position embedding (RoPE, base 100).

    The first half of the channels is rotated by the row, the second half by the column; in each
    half of m channels, channel i is paired with channel i + m/2 and has frequency 100^(-2i/m).
    """
    pairs = x.shape[-1] // 4
    frequencies = _ROTARY_BASE ** (-torch.arange(pairs, device=x.device) / pairs)
    angles = positions[..., None] * frequencies  # [..., tokens, 2, pairs]
    if positions.ndim == 3:
        angles = angles[:, None]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.unflatten(-1, (2, 2, pairs)).unbind(-2)  # [B, heads, tokens, 2, pairs]
    rotated = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-2)
    return rotated.flatten(-3)


def grid_embedding(
    channels: int, rows: int, columns: int, aspect: float, device: torch.device | str
) -> Float[Tensor, "channels rows columns"]:
    """Return sinusoidal embeddings of the cells of a grid over the image, as the heads add them.

    Args:
        channels: a multiple of 4; the first half encodes x, the second y, each as sines, cosines.
        rows, columns: of the grid.
        aspect: width over height of the image, whose diagonal has length 2 in the grid.
    """
    diagonal = (aspect**2 + 1) ** 0.5
    quarter = channels // 4
    steps = torch.arange(quarter, dtype=torch.float64, device=device)
    frequencies = _ROTARY_BASE ** (-steps / quarter)

    def encoded(count: int, half: float) -> Tensor:
        end = half * (count - 1) / count
        places = torch.linspace(-end, end, count, dtype=torch.float64, device=device)
        angles = places * frequencies[:, None]
        return torch.cat([angles.sin(), angles.cos()])  # [channels / 2, count]

    x, y = encoded(columns, aspect / diagonal), encoded(rows, 1 / diagonal)
    size = (channels // 2, rows, columns)
    return torch.cat([x[:, None].expand(size), y[:, :, None].expand(size)]).float()
