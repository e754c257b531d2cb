"""One anti-aliased image of a scene, with what lies at its pixel centres.

Rays are cast through all pixel centres. Inside a pixel whose neighbours show the same stretch of
surface, the samples' places on the surface are interpolated between pixel centres, which is exact
but for the curvature of perspective within a pixel; every other pixel has rays cast for its
samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.synthetic.raycast import Caster, SurfacePoints, pixel_centres, rays_through
from msdyn.synthetic.shading import Shader

__all__ = ["Picture", "render_picture"]

# A step on the surface, from pixel to pixel, of more than this many pixel footprints is an edge.
LARGEST_STEP = 4.0


@dataclass(frozen=True)
class Picture:
    """What one camera records in one frame.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        depth: [H, W] float32 z-depth at pixel centres, metres.
        mask: [H, W] uint8 object index at pixel centres.
        points: [H * W] the surface points at pixel centres, weights in float32.
    """

    image: np.ndarray
    depth: np.ndarray
    mask: np.ndarray
    points: SurfacePoints


def render_picture(
    caster: Caster, shader: Shader, frame: int, camera: Cameras, light: np.ndarray, samples: int
) -> Picture:
    """Render one frame from one camera.

    Args:
        caster: the meshes.
        shader: their textures and light.
        frame: frame of the scene.
        camera: one camera.
        light: of `shader.light(frame)`.
        samples: samples a pixel along each axis.

    Raises:
        InputError: a ray meets nothing: the scene is not closed around the camera.
    """
    import cv2

    height, width = camera.height, camera.width
    centres = pixel_centres(camera)
    rays, points = _cast(caster, frame, camera, centres)
    surface = shader.surface(points, light).reshape(height, width, 3)
    level = shader.mip_levels(frame, camera, samples)  # [F]
    pixel_level = level[points.face].reshape(height, width)
    chart = shader.chart[points.face].reshape(height, width)
    edge = _edges(surface, chart, samples * 2.0**pixel_level)

    fine = cv2.resize(surface, (width * samples, height * samples), interpolation=cv2.INTER_LINEAR)
    fine_level = pixel_level.repeat(samples, 0).repeat(samples, 1)
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    offsets = np.stack(np.meshgrid(offsets, offsets), -1).reshape(-1, 2)  # row by row
    xy = centres[edge.reshape(-1)][:, None] + offsets  # [edges, samples^2, 2]
    _, edge_points = _cast(caster, frame, camera, xy.reshape(-1, 2))
    # Views of the fine images in which [edge] picks all samples of a pixel.
    blocks = (height, samples, width, samples)
    fine.reshape(*blocks, 3).swapaxes(1, 2)[edge] = shader.surface(edge_points, light).reshape(
        -1, samples, samples, 3
    )
    fine_level.reshape(blocks).swapaxes(1, 2)[edge] = level[edge_points.face].reshape(
        -1, samples, samples
    )
    colours = shader.colours(fine, fine_level)
    image = cv2.resize(colours, (width, height), interpolation=cv2.INTER_AREA)
    depth = caster.depth(frame, camera, rays, points.face)
    return Picture(
        image=np.rint(image.clip(0, 255)).astype(np.uint8),
        depth=depth.reshape(height, width).astype(np.float32),
        mask=caster.face_object[points.face].reshape(height, width).astype(np.uint8),
        points=SurfacePoints(points.face, points.weights.astype(np.float32)),
    )


def _cast(
    caster: Caster, frame: int, camera: Cameras, xy: np.ndarray
) -> tuple[np.ndarray, SurfacePoints]:
    """Return the rays [N, 3] through pixels [N, 2] and the surface points they meet."""
    rays = rays_through(camera, xy)
    points, _ = caster.mesh(frame).cast(camera.centres[0], rays)
    if len(points) and points.face.min() < 0:
        raise InputError(
            f"scene {caster.spec.name}: expected every camera to be inside a closed room, "
            f"got a ray that meets nothing in frame {frame}"
        )
    return rays, points


def _edges(surface: np.ndarray, chart: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Return [H, W] bool: pixels with a neighbour that shows another stretch of surface.

    Args:
        surface: [H, W, 3] x and y in the atlas first.
        chart: [H, W] chart index.
        footprint: [H, W] texels a pixel.
    """
    edge = np.zeros(chart.shape, bool)
    for axis in (0, 1):
        step = np.abs(np.diff(surface[..., :2], axis=axis)).max(-1)
        here = np.moveaxis(footprint, axis, 0)[:-1]
        jump = np.moveaxis(step, axis, 0) > LARGEST_STEP * here
        jump |= np.moveaxis(np.diff(chart, axis=axis), axis, 0) != 0
        rows = np.moveaxis(edge, axis, 0)
        rows[:-1] |= jump
        rows[1:] |= jump
    # Samples are interpolated between pixels on a diagonal too.
    grown = edge.copy()
    grown[1:] |= edge[:-1]
    grown[:-1] |= edge[1:]
    # Beyond the outermost pixel centres there is nothing to interpolate with.
    grown[[0, -1]] = grown[:, [0, -1]] = True
    return grown
