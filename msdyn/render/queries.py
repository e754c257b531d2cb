"""What a Gaussian sequence says of given pixels: trajectories, objects, depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.geometry import depth_in_camera, transform_points, unproject
from msdyn.render.render import draw
from msdyn.sequence import GaussianSequence

__all__ = ["query_objects", "query_tracks", "rendered_depth"]

# Positions at this many frames go through the rasterizer in one pass.
_FRAMES_A_PASS = 8


@torch.no_grad()
def query_tracks(
    sequence: GaussianSequence,
    query_frame: np.ndarray,
    query_xy: np.ndarray,
    *,
    frames: np.ndarray | None = None,
    levels: int | None = None,
    blended: bool = False,
    backend: str = "auto",
) -> np.ndarray:
    """Return the 3D trajectories of the surfaces seen at given pixels of the clip.

    A pixel shows the object that most of its colour is of. The point is where the pixel's ray meets
    the depth drawn of that object alone, and moves as its Gaussians do, blended as colours are. So
    a point on an outline does not hang between the object and what lies behind, and Gaussians
    larger than a pixel do not pull it to their centres.

    Args:
        sequence: its own cameras are those of the queries.
        query_frame: [N] frame index of each query, fractional ones too.
        query_xy: [N, 2] px.
        frames: [T] frame indices, fractional ones too, to follow them through; all frames of the
            clip by default.
        levels: use only the first so many motion levels.
        blended: blend the positions of all Gaussians at the pixel, whatever they are of: the way
            published methods are measured (shape-of-motion's tracks, for one).
        backend: see `rasterize`.

    Returns:
        [N, T, 3] float64, world; NaN where nothing is drawn at the pixel.
    """
    frames = np.arange(len(sequence.timeline)) if frames is None else np.asarray(frames)
    result = np.full((len(query_frame), len(frames), 3), np.nan)
    for frame in np.unique(query_frame):
        index = np.flatnonzero(query_frame == frame)
        seen = _Seen(sequence, float(frame), query_xy[index], levels, backend)
        layers = [_Layer(np.arange(len(index)), None, np.zeros((len(index), 3)))]
        before = torch.zeros_like(seen.posed.means.transpose(0, 1))  # [G, 1, 3]
        if not blended:
            layers, before = seen.layers(), seen.posed.means.transpose(0, 1)
        for start in range(0, len(frames), _FRAMES_A_PASS):
            times = torch.as_tensor(frames[start : start + _FRAMES_A_PASS], device=sequence.device)
            positions = sequence.posed(times.float(), levels=levels).means.transpose(0, 1)
            values = (positions - before).flatten(1)  # [G, B * 3]
            for layer in layers:
                moved = seen.mean(values, layer.mask)[layer.rows].unflatten(1, (len(times), 3))
                points = layer.points[:, None] + moved.double().cpu().numpy()  # [n, B, 3]
                result[index[layer.rows], start : start + len(times)] = points
    return result


@torch.no_grad()
def query_objects(
    sequence: GaussianSequence,
    query_frame: np.ndarray,
    query_xy: np.ndarray,
    *,
    levels: int | None = None,
    backend: str = "auto",
) -> np.ndarray:
    """Return which object is seen at given pixels of the clip, by the largest share of the colour.

    Args:
        sequence, query_frame, query_xy, levels, backend: as for `query_tracks`.

    Returns:
        [N] int, 0 where what stands still is seen, -1 where nothing is drawn.
    """
    result = np.full(len(query_frame), -1)
    for frame in np.unique(query_frame):
        index = np.flatnonzero(query_frame == frame)
        result[index] = _Seen(sequence, float(frame), query_xy[index], levels, backend).surface()[0]
    return result


def rendered_depth(
    sequence: GaussianSequence,
    frame: float,
    xy: np.ndarray,
    *,
    levels: int | None = None,
    backend: str = "auto",
) -> np.ndarray:
    """Return the z-depth drawn at pixels [N, 2] of a frame's camera, NaN where nothing is drawn.

    It is that of the object that most of a pixel's colour is of, alone: so a point of
    `query_tracks` lies at this depth where it was asked for. Pixels outside the image take the
    depth at its border.
    """
    with torch.no_grad():
        return _Seen(sequence, frame, xy, levels, backend).surface()[1]


@dataclass(frozen=True)
class _Layer:
    """What is seen of one object.

    Attributes:
        rows: [n] pixels that show it.
        mask: [G] bool, its Gaussians; None for all there are.
        points: [n, 3] where the rays of those pixels meet it, world.
    """

    rows: np.ndarray
    mask: Tensor | None
    points: np.ndarray


class _Seen:
    """Pixels of one frame, and what is blended there."""

    def __init__(
        self,
        sequence: GaussianSequence,
        frame: float,
        xy: np.ndarray,
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

    def mean(
        self, values: Float[Tensor, "gaussians channels"], of: Tensor | None = None
    ) -> Float[Tensor, "points channels"]:
        """Return the values of the Gaussians blended at the pixels, NaN where nothing is drawn.

        Args:
            values: of each Gaussian.
            of: [G] bool, those that count, behind and before whatever others; None for all.
        """
        if of is None:
            rendering = draw(
                self.posed,
                self.tensors,
                extra=values[None],
                depth=False,
                backend=self.backend,
            )
            return self._blended(rendering.features[0, ..., 3:], rendering.alpha)
        share = of[:, None].to(values.dtype)
        drawn = self.mean(torch.cat([values * share, share], dim=1))
        return drawn[:, :-1] / drawn[:, -1:]

    def surface(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the object [N] that each pixel shows, -1 for none, and its depth [N], or NaN."""
        z = depth_in_camera(self.tensors.cam_from_world, self.posed.means)[0]
        labels = self.posed.labels.unique()
        share = (self.posed.labels[:, None] == labels).float()
        shares, depths = self.mean(torch.cat([share, z[:, None] * share], dim=1)).chunk(2, dim=1)
        drawn = ~shares.isnan().any(1)
        most = shares.nan_to_num().argmax(1, keepdim=True)
        objects = torch.where(drawn, labels[most[:, 0]], -1)
        depth = (depths.gather(1, most) / shares.gather(1, most))[:, 0]
        return objects.cpu().numpy(), depth.double().cpu().numpy()

    def layers(self) -> list[_Layer]:
        """Return what is seen of each object that some pixel shows."""
        objects, depth = self.surface()
        in_camera = unproject(self.camera.intrinsics[0], self.xy, depth)
        points = transform_points(self.camera.world_from_cam[0], in_camera)
        layers = []
        for label in np.unique(objects[objects >= 0]).tolist():
            rows = np.flatnonzero(objects == label)
            layers.append(_Layer(rows, self.posed.labels == label, points[rows]))
        return layers

    def _blended(self, weighted: Tensor, alpha: Tensor) -> Tensor:
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
