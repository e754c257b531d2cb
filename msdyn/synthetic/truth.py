"""Rendering a scene: images with exact depth, masks, covisibility and tracks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from threadpoolctl import threadpool_limits

from msdyn.geometry import Cameras
from msdyn.progress import track
from msdyn.scene import Tracks3D
from msdyn.synthetic.covisibility import covisible_pixels
from msdyn.synthetic.picture import Picture, render_picture
from msdyn.synthetic.raycast import Caster, SurfacePoints
from msdyn.synthetic.shading import Shader
from msdyn.synthetic.spec import SceneSpec
from msdyn.synthetic.surface_tracks import follow_pixels

__all__ = ["Shot", "Truth", "render_truth"]


@dataclass(frozen=True)
class Shot:
    """The ground truth of one camera.

    Attributes:
        cameras: one per frame.
        images: RGB.
        depths: z-depth at pixel centres, metres.
        masks: object index at pixel centres, 0 static.
        covisible: for a held-out camera, whether the surface point at the pixel centre is visible
            to the input camera in enough frames; all true for the input camera itself.
    """

    cameras: Cameras
    images: UInt8[np.ndarray, "frames height width 3"]
    depths: Float32[np.ndarray, "frames height width"]
    masks: UInt8[np.ndarray, "frames height width"]
    covisible: Bool[np.ndarray, "frames height width"]


@dataclass(frozen=True)
class Truth:
    """A rendered scene.

    Attributes:
        spec: the scene.
        clip: of the input camera.
        views: of the held-out cameras, by name.
        tracks: true trajectories of surface points.
    """

    spec: SceneSpec
    clip: Shot
    views: dict[str, Shot]
    tracks: Tracks3D


def render_truth(spec: SceneSpec, *, samples: int = 4, progress: bool = False) -> Truth:
    """Render a scene from all its cameras.

    Args:
        spec: the scene.
        samples: samples per pixel along each axis, for the images.
        progress: show a progress bar.

    Raises:
        InputError: the scene is not closed around a camera.
    """
    # Two frames are rendered in parallel; more threads in the small matrix products slow it down.
    with threadpool_limits(1, user_api="blas"):
        return _render_truth(spec, samples, progress)


def _render_truth(spec: SceneSpec, samples: int, progress: bool) -> Truth:
    caster = Caster(spec)
    shader = Shader(caster)
    names = ["", *spec.views]  # "" is the input camera

    def render_frame(frame: int) -> list[Picture]:
        light = shader.light(frame)
        cameras = [spec.cameras[frame], *spec.views.values()]
        return [render_picture(caster, shader, frame, camera, light, samples) for camera in cameras]

    with ThreadPoolExecutor(2) as pool:
        work = pool.map(render_frame, range(spec.frames))
        bar = track(work, f"render {spec.name}", spec.frames, hidden=not progress)
        pictures = list(bar)

    shots = {}
    for name, shot in zip(names, zip(*pictures, strict=True), strict=True):
        masks = np.stack([picture.mask for picture in shot])
        covisible = np.ones(masks.shape, bool)
        cameras = spec.cameras
        if name:
            points = SurfacePoints(
                np.concatenate([picture.points.face for picture in shot]),
                np.concatenate([picture.points.weights for picture in shot]),
            )
            flat = covisible_pixels(caster, points, masks.reshape(len(masks), -1) == 0)
            covisible = flat.reshape(masks.shape)
            cameras = spec.views[name][np.zeros(spec.frames, int)]
        shots[name] = Shot(
            cameras=cameras,
            images=np.stack([picture.image for picture in shot]),
            depths=np.stack([picture.depth for picture in shot]),
            masks=masks,
            covisible=covisible,
        )
    tracks, _ = follow_pixels(caster, per_object=400, static=800, seed=spec.seed)
    return Truth(spec, shots.pop(""), shots, tracks)
