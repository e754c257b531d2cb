"""One anti-aliased image of a scene, with depth, mask and surface points at its pixel centres.

Rays are cast through all pixel centres. Where a pixel and its neighbours show the same surface, the
surface points of its samples are interpolated between pixel centres, exact up to the perspective
distortion within a pixel. At edges, a ray is cast for every sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras, Lens
from msdyn.synthetic.raycast import Caster, SurfacePoints, pixel_centres, rays_through
from msdyn.synthetic.shading import Shader

__all__ = ["Picture", "render_picture"]

# Surface points of neighbouring pixels that are more pixel footprints apart than this are an edge.
LARGEST_STEP = 4.0


@dataclass(frozen=True)
class Picture:
    """The ground truth of one camera in one frame.

    Attributes:
        image: RGB.
        depth: z-depth at pixel centres, metres.
        mask: object index at pixel centres.
        points: surface points at pixel centres, row by row; weights in float32.
    """

    image: UInt8[np.ndarray, "height width 3"]
    depth: Float32[np.ndarray, "height width"]
    mask: UInt8[np.ndarray, "height width"]
    points: SurfacePoints


def render_picture(
    caster: Caster,
    shader: Shader,
    frame: int,
    camera: Cameras,
    light: Float[np.ndarray, " vertices"],
    samples: int,
    lens: Lens | None = None,
) -> Picture:
    """Render one frame from one camera.

    Args:
        caster: the meshes.
        shader: their textures and light.
        frame: frame of the scene.
        camera: one camera.
        light: of `shader.light(frame)`.
        samples: samples per pixel along each axis.
        lens: of the camera, in place of its intrinsics, which should be near; exact rays.

    Raises:
        InputError: a ray hits nothing: the scene is not closed around the camera.
    """
    import cv2

    height, width = camera.height, camera.width
    centres = pixel_centres(camera)
    rays, points = _cast(caster, frame, camera, centres, lens)
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
    _, edge_points = _cast(caster, frame, camera, xy.reshape(-1, 2), lens)
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
    caster: Caster,
    frame: int,
    camera: Cameras,
    xy: Float[np.ndarray, "pixels 2"],
    lens: Lens | None,
) -> tuple[Float[np.ndarray, "pixels 3"], SurfacePoints]:
    """Return the rays through pixels and the surface points they hit."""
    rays = rays_through(camera, xy, lens)
    points, _ = caster.mesh(frame).cast(camera.centres[0], rays)
    if len(points) and points.face.min() < 0:
        raise InputError(
            f"scene {caster.spec.name}: expected every camera to be inside a closed room, "
            f"got a ray that hits nothing in frame {frame}; add static parts around the cameras"
        )
    return rays, points


def _edges(
    surface: Float[np.ndarray, "height width 3"],
    chart: Int[np.ndarray, "height width"],
    footprint: Float[np.ndarray, "height width"],
) -> Bool[np.ndarray, "height width"]:
    """Return pixels with a neighbour that shows another surface, or a distant part of the same.

    Args:
        surface: of `Shader.surface`: x and y in the atlas first.
        chart: chart index.
        footprint: texels per pixel.
    """
    edge = np.zeros(chart.shape, bool)
    for axis in (0, 1):
        step = np.abs(np.diff(surface[..., :2], axis=axis)).max(-1)
        largest = LARGEST_STEP * np.moveaxis(footprint, axis, 0)[:-1]
        jump = np.moveaxis(step, axis, 0) > largest
        jump |= np.moveaxis(np.diff(chart, axis=axis), axis, 0) != 0
        rows = np.moveaxis(edge, axis, 0)
        rows[:-1] |= jump
        rows[1:] |= jump
    # Samples are interpolated between diagonal neighbours too.
    grown = edge.copy()
    grown[1:] |= edge[:-1]
    grown[:-1] |= edge[1:]
    # Samples outside the outermost pixel centres cannot be interpolated.
    grown[[0, -1]] = grown[:, [0, -1]] = True
    return grown
