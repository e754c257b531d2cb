"""All outputs of `msdyn-render` as arrays: colour, depth, alpha, objects, flow, tracks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int, UInt8

from msdyn.colours import draw_trails
from msdyn.geometry import Cameras, nearest_pixels, project, transform_points
from msdyn.render.flow import Flow, render_flow
from msdyn.render.order import input_axis
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
) -> UInt8[np.ndarray, "height width"]:
    """Return the mask index of the object that contributes most to each pixel.

    0 stands for the background, and for pixels of which less than half is covered.

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
        along=input_axis(sequence, camera, time),
        backend=backend,
    )
    if not len(labels):
        return np.zeros((camera.height, camera.width), np.uint8)
    dominant = labels[rendering.features[0, ..., 3:].argmax(-1)]
    return torch.where(rendering.alpha[0] > 0.5, dominant, 0).byte().cpu().numpy()


@dataclass(frozen=True)
class Painter:
    """Renders a part of a sequence to all kinds of outputs.

    Attributes:
        sequence: the fit.
        levels, objects, background: the part of it; see `render_image`.
        exposure: of images, see `render_image`.
    """

    sequence: GaussianSequence
    levels: int | None = None
    objects: list[int] | None = None
    background: bool = True
    exposure: bool = False

    def image(self, camera: Cameras, time: float) -> RenderedImage:
        """Return colour, depth and alpha."""
        return render_image(
            self.sequence, camera, time,
            levels=self.levels, objects=self.objects, background=self.background,
            exposure=self.exposure,
        )  # fmt: skip

    def labels(self, camera: Cameras, time: float) -> UInt8[np.ndarray, "height width"]:
        """Return the mask index of each pixel: see `render_objects`."""
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

    def tracks(
        self, camera: Cameras, time: float, image: RenderedImage
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Return the image with the trails of points on moving objects over the last frames.

        Points that are occluded at this time are left out.
        """
        frame = self.sequence.timeline.frame_position(time)
        chosen = trail_gaussians(self.sequence, _TRAILS, frame, self.objects)
        if not len(chosen):
            return image.rgb8
        paths = gaussian_trails(
            self.sequence,
            chosen,
            frame,
            frames=_TRAIL_FRAMES,
            points=_TRAIL_POINTS,
            levels=self.levels,
        )  # [points, trails, 3]
        in_camera = transform_points(camera.cam_from_world[0], paths)
        depth = in_camera[..., 2]
        in_front = depth > 1e-6
        in_camera = np.where(in_front[..., None], in_camera, [np.nan, np.nan, 1.0])
        xy = project(camera.intrinsics[0], in_camera).swapaxes(0, 1)  # [trails, points, 2]
        y, x, inside = nearest_pixels(xy[:, -1], camera.height, camera.width)
        inside &= in_front[-1]
        rendered = image.depth[y, x]
        # The centre of a Gaussian lies slightly behind the surface that it renders.
        visible = inside & (depth[-1] < 1.03 * rendered)
        colours = self._colours(chosen)
        return draw_trails(image.rgb8, xy[visible], colours[visible])

    def _colours(self, chosen: Int[np.ndarray, " trails"]) -> UInt8[np.ndarray, "trails 3"]:
        """Return a colour for each trail: hue by its rank in world x."""
        from matplotlib import colormaps

        positions = self.sequence.moving.means.detach().cpu().numpy()[chosen]
        rank = positions[:, 0].argsort().argsort() / max(len(positions), 1)
        return (colormaps["hsv"](0.9 * rank)[:, :3] * 255).round().astype(np.uint8)
