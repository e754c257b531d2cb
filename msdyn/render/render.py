"""Rendering a Gaussian sequence: from cameras and times to images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Real, UInt8
from torch import Tensor

from msdyn.devices import upload
from msdyn.errors import InputError
from msdyn.geometry import Cameras, CameraTensors
from msdyn.raster import Rendering, rasterize
from msdyn.render.order import Order, input_axis, order_along
from msdyn.sequence import GaussianSequence, PosedGaussians
from msdyn.sequence.exposure import exposed

__all__ = ["RenderedImage", "draw", "render_image", "render_images"]


@dataclass(frozen=True)
class RenderedImage:
    """One rendered view as numpy arrays.

    Attributes:
        rgb: in [0, 1].
        depth: expected z-depth in scene units, 0 where nothing is rendered.
        alpha: accumulated opacity in [0, 1].
        moving: blending weight of the moving Gaussians, in [0, 1].
    """

    rgb: Float32[np.ndarray, "height width 3"]
    depth: Float32[np.ndarray, "height width"]
    alpha: Float32[np.ndarray, "height width"]
    moving: Float32[np.ndarray, "height width"]

    @property
    def rgb8(self) -> UInt8[np.ndarray, "height width 3"]:
        """The colours in 8 bits."""
        return (self.rgb * 255 + 0.5).astype(np.uint8)


def draw(
    posed: PosedGaussians,
    cameras: CameraTensors,
    *,
    extra: Float[Tensor, "*times gaussians channels"] | None = None,
    depth: bool = True,
    along: Float[Tensor, "times 3"] | None = None,
    backend: str = "auto",
) -> Rendering:
    """Rasterize posed Gaussians, each time in its own camera, differentiably.

    Args:
        posed: Gaussians at B times.
        cameras: B cameras, on the same device.
        extra: further features, blended in the same pass.
        depth: blend the z-depth too.
        along: directions in the world along which Gaussians are sorted, in place of the axes of
            the cameras; see `msdyn.render.order`.
        backend: see `rasterize`.

    Returns:
        A rendering whose features are RGB followed by `extra`.
    """
    features = posed.colours(cameras.centres)
    if extra is not None:
        if extra.dim() != features.dim():
            shape = (len(posed.means), *features.shape[-2:])
            features = features.expand(shape)
            extra = extra.expand(len(posed.means), *extra.shape[-2:])
        features = torch.cat([features, extra], dim=-1)
    return rasterize(
        posed.means,
        posed.quats_wxyz,
        posed.scales,
        posed.opacities,
        features,
        cameras.intrinsics,
        cameras.cam_from_world,
        cameras.width,
        cameras.height,
        depth=depth,
        order=None if along is None else order_along(posed.means, along),
        backend=backend,
    )


@torch.no_grad()
def render_image(
    sequence: GaussianSequence,
    camera: Cameras,
    time: float,
    *,
    levels: int | None = None,
    objects: Sequence[int] | None = None,
    background: bool = True,
    exposure: bool = False,
    order: Order = "input",
    backend: str = "auto",
) -> RenderedImage:
    """Render a sequence in one camera at one time.

    Args:
        sequence: the fit.
        camera: one camera, in the world of the sequence.
        time: normalised, 0 (first frame) to 1 (last frame).
        levels: use only the first so many motion levels.
        objects: mask indices of the moving objects to draw; all of them by default.
        background: draw the static Gaussians.
        exposure: give the image the exposure and white balance that the clip has at this time,
            where they were fitted, instead of the mean of the clip.
        order: sort the Gaussians along the axis of the input camera at this time, as in the fit, or
            along that of `camera`, as other viewers do; see `msdyn.render.order`.
        backend: see `rasterize`.

    Raises:
        InputError: more than one camera, or a time outside [0, 1].
    """
    if len(camera) != 1:
        raise InputError(f"camera: expected one, got {len(camera)}; index it, as cameras[0]")
    posed = sequence.at(time, levels=levels).only(objects, background=background)
    # Without motion all times look alike.
    shown = sequence.timeline.time_of_frame(sequence.canonical_frame) if levels == 0 else time
    rendering = draw(
        posed,
        camera.tensors(sequence.device),
        extra=(posed.labels > 0).float()[:, None],
        along=input_axis(sequence, camera, shown) if order == "input" else None,
        backend=backend,
    )
    assert rendering.depth is not None
    alpha = rendering.alpha[0]
    features = rendering.features[0]
    if exposure and sequence.exposure is not None:
        gains = sequence.exposure.at(np.array([sequence.timeline.frame_position(time)]))
        colours = exposed(
            features[None, ..., :3], alpha[None], upload(gains.astype(np.float32), features.device)
        )
        features = torch.cat([colours[0], features[..., 3:]], dim=-1)
    depth = torch.where(alpha > 1e-3, rendering.depth[0] / alpha.clamp_min(1e-3), 0.0)
    # Together: every copy waits for the GPU.
    channels = torch.cat([features.clamp(0, 1), torch.stack([depth, alpha], dim=-1)], dim=-1)
    image = channels.cpu().numpy()
    depth, alpha = (np.ascontiguousarray(image[..., channel]) for channel in (-2, -1))
    return RenderedImage(image[..., :3], depth, alpha, image[..., 3])


def render_images(
    sequence: GaussianSequence,
    cameras: Cameras,
    times: Sequence[float] | Real[np.ndarray, " times"],
    *,
    levels: int | None = None,
    objects: Sequence[int] | None = None,
    background: bool = True,
    exposure: bool = False,
    order: Order = "input",
    backend: str = "auto",
) -> Iterator[RenderedImage]:
    """Yield one image per camera, each at its own time.

    Args:
        sequence, levels, objects, background, exposure, order, backend: as for `render_image`.
        cameras: as many as times.
        times: normalised.

    Raises:
        InputError: numbers of cameras and times that differ, or a time outside [0, 1].
    """
    if len(cameras) != len(times):
        raise InputError(f"render: expected a time for each of {len(cameras)} cameras")
    for camera, time in zip(cameras, times, strict=True):
        yield render_image(
            sequence,
            camera,
            float(time),
            levels=levels,
            objects=objects,
            background=background,
            exposure=exposure,
            order=order,
            backend=backend,
        )
