"""3D track metrics, and the tracks of a Gaussian sequence for given pixels."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.render import draw
from msdyn.sequence import GaussianSequence

__all__ = ["epe3d", "query_tracks"]

# Positions at this many frames go through the rasterizer in one pass.
_FRAMES_A_PASS = 8


def epe3d(tracks: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Return the mean distance between trajectories [N, T, 3], scene units; NaN if none is valid.

    Args:
        tracks: estimated positions.
        truth: true positions.
        valid: [N, T] bool, which ones count; all of them by default.
    """
    distance = np.linalg.norm(tracks - truth, axis=-1)
    if valid is not None:
        distance = distance[valid]
    return float(distance.mean()) if distance.size else float("nan")


@torch.no_grad()
def query_tracks(
    sequence: GaussianSequence,
    query_frame: np.ndarray,
    query_xy: np.ndarray,
    *,
    levels: int | None = None,
    backend: str = "auto",
) -> np.ndarray:
    """Return the 3D trajectories of the surfaces seen at given pixels of the clip.

    The positions of all Gaussians at every frame are blended at the query's pixel, as colours are.

    Args:
        sequence: its own cameras are those of the queries.
        query_frame: [N] frame index of each query.
        query_xy: [N, 2] px.
        levels: use only the first so many motion levels.
        backend: see `rasterize`.

    Returns:
        [N, T, 3] float64, world; NaN where nothing is drawn at the pixel.
    """
    frames = len(sequence.timeline)
    cameras = sequence.cameras
    height, width = cameras.height, cameras.width
    result = np.full((len(query_frame), frames, 3), np.nan)
    device = sequence.device
    for frame in np.unique(query_frame):
        index = np.flatnonzero(query_frame == frame)
        # Pixel centres lie at +0.5; grid_sample without corners uses the same convention.
        xy = torch.as_tensor(query_xy[index], dtype=torch.float32, device=device)
        grid = 2 * xy / torch.tensor([width, height], device=device) - 1
        posed = sequence.posed(torch.tensor([float(frame)], device=device), levels=levels)
        intrinsics = _tensor(cameras.intrinsics[[frame]], device)
        cam_from_world = _tensor(cameras.cam_from_world[[frame]], device)
        for start in range(0, frames, _FRAMES_A_PASS):
            times = torch.arange(start, min(start + _FRAMES_A_PASS, frames), device=device).float()
            positions = sequence.posed(times, levels=levels).means  # [B, G, 3]
            rendering = draw(
                posed,
                intrinsics,
                cam_from_world,
                width,
                height,
                extra=positions.transpose(0, 1).flatten(1)[None],
                depth=False,
                backend=backend,
            )
            weighted = _sample(rendering.features[0, ..., 3:], grid)  # [n, 3 B]
            alpha = _sample(rendering.alpha[0, ..., None], grid)
            points = torch.where(alpha > 1e-2, weighted / alpha.clamp_min(1e-2), torch.nan)
            result[index, start : start + len(times)] = (
                points.unflatten(1, (len(times), 3)).double().cpu().numpy()
            )
    return result


def _sample(
    image: Float[Tensor, "height width channels"], grid: Float[Tensor, "points 2"]
) -> Float[Tensor, "points channels"]:
    """Sample an image bilinearly at points in [-1, 1]."""
    sampled = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None], grid[None, None], align_corners=False, padding_mode="border"
    )
    return sampled[0, :, 0].T


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float32, device=device)
