"""Queries at pixels of the clip: 3D trajectories, objects and rendered depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Real
from torch import Tensor

from msdyn.geometry import depth_in_camera, transform_points, unproject
from msdyn.render.render import draw
from msdyn.sequence import GaussianSequence

__all__ = ["query_objects", "query_tracks", "rendered_depth"]

# Positions at this many frames are blended in one pass of the rasterizer.
_FRAMES_PER_PASS = 8


@torch.no_grad()
def query_tracks(
    sequence: GaussianSequence,
    query_frame: Real[np.ndarray, " queries"],
    query_xy: Real[np.ndarray, "queries 2"],
    *,
    frames: Real[np.ndarray, " times"] | None = None,
    levels: int | None = None,
    blended: bool = False,
    backend: str = "auto",
) -> Float64[np.ndarray, "queries times 3"]:
    """Return the 3D trajectories of the surface points visible at given pixels of the clip.

    The point is where the pixel's ray meets the depth of the object that contributes most to the
    pixel's colour, rendered alone. It moves with that object's Gaussians, blended as colours are.
    So a point at a silhouette does not float between foreground and background, and Gaussians
    larger than a pixel do not pull it to their centres.

    Args:
        sequence: the fit; the queries are in its own cameras.
        query_frame: frame index of each query, may be fractional.
        query_xy: px.
        frames: frame indices at which to return positions, may be fractional; all frames of the
            clip by default.
        levels: use only the first so many motion levels.
        blended: blend the positions of all Gaussians at the pixel, of whatever object, as
            published evaluations do (shape-of-motion's, for one).
        backend: see `rasterize`.

    Returns:
        World positions; NaN where nothing is rendered at the pixel.
    """
    frames = np.arange(len(sequence.timeline)) if frames is None else np.asarray(frames)
    result = np.full((len(query_frame), len(frames), 3), np.nan)
    for frame in np.unique(query_frame):
        index = np.flatnonzero(query_frame == frame)
        pixels = _PixelQueries(sequence, float(frame), query_xy[index], levels, backend)
        layers = [_Layer(np.arange(len(index)), None, np.zeros((len(index), 3)))]
        before = torch.zeros_like(pixels.posed.means.transpose(0, 1))  # [G, 1, 3]
        if not blended:
            layers, before = pixels.layers(), pixels.posed.means.transpose(0, 1)
        for start in range(0, len(frames), _FRAMES_PER_PASS):
            times = torch.as_tensor(
                frames[start : start + _FRAMES_PER_PASS], device=sequence.device
            )
            positions = sequence.posed(times.float(), levels=levels).means.transpose(0, 1)
            values = (positions - before).flatten(1)  # [G, B * 3]
            for layer in layers:
                moved = pixels.blend(values, layer.mask)[layer.rows].unflatten(1, (len(times), 3))
                points = layer.points[:, None] + moved.double().cpu().numpy()  # [n, B, 3]
                result[index[layer.rows], start : start + len(times)] = points
    return result


@torch.no_grad()
def query_objects(
    sequence: GaussianSequence,
    query_frame: Real[np.ndarray, " queries"],
    query_xy: Real[np.ndarray, "queries 2"],
    *,
    levels: int | None = None,
    backend: str = "auto",
) -> Int[np.ndarray, " queries"]:
    """Return the object that contributes most to the colour of given pixels of the clip.

    Args:
        sequence, query_frame, query_xy, levels, backend: as for `query_tracks`.

    Returns:
        Mask indices; 0 for the background, -1 where nothing is rendered.
    """
    result = np.full(len(query_frame), -1)
    for frame in np.unique(query_frame):
        index = np.flatnonzero(query_frame == frame)
        pixels = _PixelQueries(sequence, float(frame), query_xy[index], levels, backend)
        result[index] = pixels.surface()[0]
    return result


def rendered_depth(
    sequence: GaussianSequence,
    frame: float,
    xy: Real[np.ndarray, "points 2"],
    *,
    levels: int | None = None,
    backend: str = "auto",
) -> Float64[np.ndarray, " points"]:
    """Return the z-depth rendered at pixels of a frame's camera; NaN where nothing is rendered.

    It is the depth of the object that contributes most to the pixel's colour, rendered alone, so a
    point of `query_tracks` lies at this depth in its query frame. Pixels outside the image take the
    depth at its border.

    Args:
        sequence: the fit.
        frame: frame index, may be fractional.
        xy: px.
        levels, backend: as for `query_tracks`.
    """
    with torch.no_grad():
        return _PixelQueries(sequence, frame, xy, levels, backend).surface()[1]


@dataclass(frozen=True)
class _Layer:
    """The visible part of one object.

    Attributes:
        rows: indices of the pixels that show it.
        mask: its Gaussians; None for all there are.
        points: where the rays of those pixels meet its surface, world.
    """

    rows: Int[np.ndarray, " visible"]
    mask: Bool[Tensor, " gaussians"] | None
    points: Float[np.ndarray, "visible 3"]


class _PixelQueries:
    """Pixels of one frame, and values of the Gaussians blended there."""

    def __init__(
        self,
        sequence: GaussianSequence,
        frame: float,
        xy: Real[np.ndarray, "points 2"],
        levels: int | None,
        backend: str,
    ) -> None:
        self.device, self.backend, self.xy = sequence.device, backend, np.asarray(xy, np.float64)
        self.camera = sequence.cameras.interpolated(np.array([frame]))
        self.tensors = self.camera.tensors(self.device)
        # Pixel centres lie at +0.5; grid_sample without corners uses the same convention.
        pixels = torch.as_tensor(xy, dtype=torch.float32, device=self.device)
        size = torch.tensor([self.camera.width, self.camera.height], device=self.device)
        self.grid = 2 * pixels / size - 1
        self.posed = sequence.posed(torch.tensor([float(frame)], device=self.device), levels=levels)

    def blend(
        self,
        values: Float[Tensor, "gaussians channels"],
        mask: Bool[Tensor, " gaussians"] | None = None,
    ) -> Float[Tensor, "points channels"]:
        """Return values blended at the pixels and normalised; NaN where nothing is rendered.

        Args:
            values: of each Gaussian.
            mask: Gaussians to average over, with the weights they have among all; None for all.
        """
        if mask is None:
            rendering = draw(
                self.posed,
                self.tensors,
                extra=values[None],
                depth=False,
                backend=self.backend,
            )
            return self._normalised(rendering.features[0, ..., 3:], rendering.alpha)
        indicator = mask[:, None].to(values.dtype)
        blended = self.blend(torch.cat([values * indicator, indicator], dim=1))
        return blended[:, :-1] / blended[:, -1:]

    def surface(self) -> tuple[Int[np.ndarray, " points"], Float64[np.ndarray, " points"]]:
        """Return the object that dominates each pixel (-1 for none), and its depth (or NaN)."""
        z = depth_in_camera(self.tensors.cam_from_world, self.posed.means)[0]
        labels = self.posed.labels.unique()
        one_hot = (self.posed.labels[:, None] == labels).float()
        blended = self.blend(torch.cat([one_hot, z[:, None] * one_hot], dim=1))
        weights, depths = blended.chunk(2, dim=1)
        rendered = ~weights.isnan().any(1)
        dominant = weights.nan_to_num().argmax(1, keepdim=True)
        objects = torch.where(rendered, labels[dominant[:, 0]], -1)
        depth = (depths.gather(1, dominant) / weights.gather(1, dominant))[:, 0]
        return objects.cpu().numpy(), depth.double().cpu().numpy()

    def layers(self) -> list[_Layer]:
        """Return the visible part of each object that dominates some pixel."""
        objects, depth = self.surface()
        in_camera = unproject(self.camera.intrinsics[0], self.xy, depth)
        points = transform_points(self.camera.world_from_cam[0], in_camera)
        layers = []
        for label in np.unique(objects[objects >= 0]).tolist():
            rows = np.flatnonzero(objects == label)
            layers.append(_Layer(rows, self.posed.labels == label, points[rows]))
        return layers

    def _normalised(
        self,
        weighted: Float[Tensor, "height width channels"],
        alpha: Float[Tensor, "1 height width"],
    ) -> Float[Tensor, "points channels"]:
        """Sample blended values at the pixels and divide them by alpha."""
        weighted, alpha = _sample(weighted, self.grid), _sample(alpha[0, ..., None], self.grid)
        return torch.where(alpha > 1e-2, weighted / alpha.clamp_min(1e-2), torch.nan)


def _sample(
    image: Float[Tensor, "height width channels"], grid: Float[Tensor, "points 2"]
) -> Float[Tensor, "points channels"]:
    """Sample an image bilinearly at points in [-1, 1]."""
    sampled = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None], grid[None, None], align_corners=False, padding_mode="border"
    )
    return sampled[0, :, 0].T
