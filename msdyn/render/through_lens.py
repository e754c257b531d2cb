"""Renderings as a distorted lens shows them, in the images that a clip was taken with.

Gaussians are rasterized by a pinhole camera that covers the view of the lens, and the image is
resampled. Where the lens sees farther than 75 degrees from its axis nothing is rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, UInt8

from msdyn.geometry import Cameras, Undistortion, covering_camera, seen_through
from msdyn.render.flow import Flow, render_flow
from msdyn.render.pictures import Painter
from msdyn.render.render import RenderedImage
from msdyn.scene import FrameLenses
from msdyn.sequence import GaussianSequence

__all__ = ["LensPainter", "distorted_pixels", "lens_at", "render_flow_through", "straight_pixels"]


def lens_at(sequence: GaussianSequence, lenses: FrameLenses, time: float) -> Undistortion:
    """Return the lens of the frame that is nearest to a time."""
    return lenses[round(sequence.timeline.frame_position(time))]


def distorted_pixels(
    sequence: GaussianSequence, undistortion: Undistortion, xy: Float64[np.ndarray, "*batch 2"]
) -> Float64[np.ndarray, "*batch 2"]:
    """Return where pixels of the clip's images are in the images as they were taken; NaN there if
    nowhere."""
    cameras, lens = sequence.cameras, undistortion.lens
    scale = np.array([lens.width / cameras.width, lens.height / cameras.height])
    return undistortion.distorted(xy * scale)


def straight_pixels(
    sequence: GaussianSequence, undistortion: Undistortion, xy: Float64[np.ndarray, "*batch 2"]
) -> Float64[np.ndarray, "*batch 2"]:
    """Return where pixels of the images as they were taken are in those of the clip, or NaN."""
    cameras, lens = sequence.cameras, undistortion.lens
    scale = np.array([cameras.width / lens.width, cameras.height / lens.height])
    return undistortion.straight(xy)[0] * scale


def _covering(
    sequence: GaussianSequence, undistortion: Undistortion, camera: Cameras, time: float
) -> tuple[Cameras, Cameras]:
    """Return a pinhole camera that covers the view of a lens: for the resampling, and to render.

    They differ where the fit has changed the intrinsics: pixels of the clip's images, which belong
    to pixels of the lens, then belong to other rays.
    """
    cover = covering_camera(undistortion.lens, camera.cam_from_world[0])
    fitted = sequence.camera_at(time)
    given = undistortion.intrinsics(fitted.width, fitted.height)
    change = np.linalg.inv(given) @ fitted.intrinsics[0]
    if np.abs(change - np.eye(3)).max() < 1e-9:
        return cover, cover
    return cover, replace(cover, intrinsics=(cover.intrinsics[0] @ change)[None])


@dataclass(frozen=True)
class LensPainter(Painter):
    """Renders a part of a sequence as the lenses of the clip show it, in the size of their images.

    Of the cameras, the poses are used.

    Attributes:
        lenses: of the frames; at a time that of the nearest frame is used.
    """

    lenses: FrameLenses | None = None

    def image(self, camera: Cameras, time: float) -> RenderedImage:
        """Return colour, depth and alpha."""
        lens, cover, render = self._cameras(camera, time)
        image = super().image(render, time)
        return RenderedImage(
            seen_through(lens.lens, cover, image.rgb),
            seen_through(lens.lens, cover, image.depth, nearest=True),
            seen_through(lens.lens, cover, image.alpha),
            seen_through(lens.lens, cover, image.moving),
        )

    def labels(self, camera: Cameras, time: float) -> UInt8[np.ndarray, "height width"]:
        """Return the mask index of each pixel: see `render_objects`."""
        lens, cover, render = self._cameras(camera, time)
        return seen_through(lens.lens, cover, super().labels(render, time), nearest=True)

    def flow(self, cameras: tuple[Cameras, Cameras], times: tuple[float, float]) -> Flow:
        """Return the flow from one camera and time to another."""
        assert self.lenses is not None
        return render_flow_through(
            self.sequence, self.lenses, cameras, times,
            levels=self.levels, objects=self.objects, background=self.background,
        )  # fmt: skip

    def tracks(
        self, camera: Cameras, time: float, image: RenderedImage
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Return the image with the trails of points, see `Painter.tracks`."""
        lens, cover, render = self._cameras(camera, time)
        straight = super().image(render, time)
        return seen_through(lens.lens, cover, super().tracks(render, time, straight))

    def _cameras(self, camera: Cameras, time: float) -> tuple[Undistortion, Cameras, Cameras]:
        assert self.lenses is not None
        lens = lens_at(self.sequence, self.lenses, time)
        return lens, *_covering(self.sequence, lens, camera, time)


def render_flow_through(
    sequence: GaussianSequence,
    lenses: FrameLenses,
    cameras: tuple[Cameras, Cameras],
    times: tuple[float, float],
    *,
    levels: int | None = None,
    objects: Sequence[int] | None = None,
    background: bool = True,
    moving_px: float = 1.0,
) -> Flow:
    """Render the flow between the images of lenses, see `render_flow`.

    Each pixel has the flow of the nearest pixel of the pinhole image that is resampled. It is not
    valid where it ends beyond what the lens images.
    """
    lens, other = (lens_at(sequence, lenses, time) for time in times)
    cover, first = _covering(sequence, lens, cameras[0], times[0])
    cover_of_other, second = _covering(sequence, other, cameras[1], times[1])
    # `render_flow` takes cameras of one size, and reads no more than the intrinsics of the second.
    second = replace(second, width=first.width, height=first.height)
    flow = render_flow(
        sequence, (first, second), times,
        levels=levels, objects=objects, background=background, moving_px=moving_px,
    )  # fmt: skip
    rows, columns = np.mgrid[0 : first.height, 0 : first.width]
    centres = np.stack([columns + 0.5, rows + 0.5], axis=-1)
    start = lens.lens.pixels(_normalised(cover, centres))
    end = other.lens.pixels(_normalised(cover_of_other, centres + flow.xy))
    xy = end - start
    valid = flow.valid & np.isfinite(xy).all(-1)
    xy = np.where(valid[..., None], xy, 0).astype(np.float32)
    scene_flow = np.where(valid[..., None], flow.xyz, 0).astype(np.float32)

    def seen(values: np.ndarray) -> np.ndarray:
        return seen_through(lens.lens, cover, values, nearest=True)

    return Flow(seen(xy), seen(scene_flow), seen(valid), seen(flow.moving & valid))


def _normalised(camera: Cameras, xy: Float64[np.ndarray, "*batch 2"]) -> np.ndarray:
    k = camera.intrinsics[0]
    return (xy - k[:2, 2]) / [k[0, 0], k[1, 1]]
