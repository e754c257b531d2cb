"""What can be drawn of a sequence besides colour, as arrays: one `Picture` a camera and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from msdyn.colours import draw_trails
from msdyn.geometry import Cameras, nearest_pixels, project, transform_points
from msdyn.render.flow import Flow, render_flow
from msdyn.render.render import RenderedImage, draw, render_image
from msdyn.render.trails import gaussian_trails, trail_gaussians
from msdyn.sequence import GaussianSequence

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OUTPUTS", "Painter", "render_objects"]

OUTPUTS = ("rgb", "depth", "alpha", "objects", "flow", "tracks")
_TRAILS = 150
_TRAIL_FRAMES = 8.0
_TRAIL_POINTS = 13


@torch.no_grad()
def render_objects(
    sequence: GaussianSequence,
    camera: Cameras,
    time: float,
    *,
    levels: int | None = None,
    objects: Sequence[int] | None = None,
    background: bool = True,
    backend: str = "auto",
) -> np.ndarray:
    """Return which object most of every pixel shows, [H, W] uint8 mask indices.

    0 where what stands still is seen, and where less than half of a pixel is covered.

    Args:
        sequence, camera, time, levels, objects, background, backend: as for `render_image`.
    """
    posed = sequence.at(time, levels=levels).only(objects, background=background)
    labels = posed.labels.unique()
    rendering = draw(
        posed,
        camera.tensors(sequence.device),
        extra=(posed.labels[:, None] == labels).float(),
        depth=False,
        backend=backend,
    )
    if not len(labels):
        return np.zeros((camera.height, camera.width), np.uint8)
    most = labels[rendering.features[0, ..., 3:].argmax(-1)]
    return torch.where(rendering.alpha[0] > 0.5, most, 0).byte().cpu().numpy()


@dataclass(frozen=True)
class Painter:
    """Draws a part of a sequence.

    Attributes:
        sequence: what to draw.
        levels, objects, background: which part; see `render_image`.
    """

    sequence: GaussianSequence
    levels: int | None = None
    objects: list[int] | None = None
    background: bool = True

    def image(self, camera: Cameras, time: float) -> RenderedImage:
        """Return colour, depth and alpha."""
        return render_image(
            self.sequence, camera, time,
            levels=self.levels, objects=self.objects, background=self.background,
        )  # fmt: skip

    def labels(self, camera: Cameras, time: float) -> np.ndarray:
        """Return mask indices [H, W] uint8."""
        return render_objects(
            self.sequence, camera, time,
            levels=self.levels, objects=self.objects, background=self.background,
        )  # fmt: skip

    def flow(self, cameras: tuple[Cameras, Cameras], times: tuple[float, float]) -> Flow:
        """Return the flow from one camera and time to another."""
        return render_flow(
            self.sequence, cameras, times,
            levels=self.levels, objects=self.objects, background=self.background,
        )  # fmt: skip

    def tracks(self, camera: Cameras, time: float, image: RenderedImage) -> np.ndarray:
        """Return the image [H, W, 3] uint8 with the last trails of points on moving objects.

        Points that something else hides now are left out.
        """
        chosen = trail_gaussians(self.sequence, _TRAILS, self.objects)
        if not len(chosen):
            return image.rgb8
        paths = gaussian_trails(
            self.sequence,
            chosen,
            self.sequence.timeline.frame_position(time),
            frames=_TRAIL_FRAMES,
            points=_TRAIL_POINTS,
            levels=self.levels,
        )  # [P, n, 3]
        in_camera = transform_points(camera.cam_from_world[0], paths)
        depth = in_camera[..., 2]
        ahead = depth > 1e-6
        in_camera = np.where(ahead[..., None], in_camera, [np.nan, np.nan, 1.0])
        xy = project(camera.intrinsics[0], in_camera).swapaxes(0, 1)  # [n, P, 2]
        y, x, inside = nearest_pixels(xy[:, -1], camera.height, camera.width)
        inside &= ahead[-1]
        drawn = image.depth[y, x]
        # A Gaussian's centre lies within the surface that it draws, not on it.
        seen = inside & (depth[-1] < 1.03 * drawn)
        colours = self._colours(chosen)
        return draw_trails(image.rgb8, xy[seen], colours[seen])

    def _colours(self, chosen: np.ndarray) -> np.ndarray:
        """Return a colour for each trail: hues by place across the objects."""
        from matplotlib import colormaps

        places = self.sequence.moving.means.detach().cpu().numpy()[chosen]
        rank = places[:, 0].argsort().argsort() / max(len(places), 1)
        return (colormaps["hsv"](0.9 * rank)[:, :3] * 255).round().astype(np.uint8)
