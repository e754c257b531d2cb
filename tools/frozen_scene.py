"""A synthetic scene that stands still at one frame, to measure what is not motion.

Its images are those of that frame, from the cameras of the clip or from all around, and held-out
cameras are compared on the covisible pixels of the moving scene in that frame. From the cameras of
the clip, pixels are left out that only motion reveals.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from msdyn.geometry import Cameras, look_at
from msdyn.scene import Scene
from msdyn.synthetic import Part, SceneSpec, Shot, Truth, render_truth, write_priors
from msdyn.synthetic.covisibility import covisible_pixels
from msdyn.synthetic.raycast import Caster, pixel_centres, rays_through
from msdyn.synthetic.spec import DOWN

__all__ = ["cameras_around", "focus_of", "frozen", "write_frozen"]

# Cameras around the scene: degrees to the sides and upwards, as seen from the focus.
_SIDES, _UPWARDS = (-40.0, 44.0), (-6.0, 0.0, 8.0)
# Degrees that they keep from held-out cameras.
_APART = 4.0


def frozen(spec: SceneSpec, frame: int, cameras: Cameras) -> SceneSpec:
    """Return the scene with all objects as they are in one frame, seen by other cameras."""

    def still(part: Part) -> Part:
        if part.world_from_link is None:
            return part
        pose, deform = part.world_from_link[frame], part.deformation
        return replace(
            part,
            world_from_link=np.repeat(pose[None], len(cameras), 0),
            deformation=None if deform is None else lambda vertices, _: deform(vertices, frame),
        )

    return replace(spec, parts=tuple(map(still, spec.parts)), cameras=cameras, views={})


def focus_of(spec: SceneSpec) -> Float[np.ndarray, " 3"]:
    """Return the point nearest to the optical axes of all cameras."""
    cameras = [spec.cameras, *spec.views.values()]
    axes = np.concatenate([c.cam_from_world[:, 2, :3] for c in cameras])
    centres = np.concatenate([c.centres for c in cameras])
    across = np.eye(3) - axes[:, :, None] * axes[:, None]
    return np.linalg.solve(across.sum(0), (across @ centres[..., None]).sum(0)[:, 0])


def cameras_around(spec: SceneSpec, count: int) -> Cameras:
    """Return cameras on an arc around the scene in three rows, none of them a held-out one."""
    focus, middle = focus_of(spec), spec.cameras[len(spec.cameras) // 2]
    offset = middle.centres[0] - focus
    radius = np.linalg.norm(offset)
    azimuth, elevation = np.arctan2(offset[1], offset[0]), np.arcsin(offset[2] / radius)
    held_out = [view.centres[0] - focus for view in spec.views.values()]
    poses: list[Float[np.ndarray, "4 4"]] = []
    for number in range(count):
        upwards = _UPWARDS[number % len(_UPWARDS)]
        sideways = _SIDES[0] + (_SIDES[1] - _SIDES[0]) * number / max(count - 1, 1)
        for shift in (0.0, 2.0, -2.0, 4.0, -4.0, 6.0, -6.0, 8.0):
            a = azimuth + np.radians(sideways + shift)
            e = elevation + np.radians(upwards)
            ray = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
            if all(_degrees(ray, other) >= _APART for other in held_out):
                poses.append(look_at(focus + radius * ray, focus, DOWN))
                break
    intrinsics = np.repeat(middle.intrinsics, len(poses), 0)
    return Cameras(intrinsics, np.stack(poses), middle.width, middle.height)


def _degrees(first: Float[np.ndarray, " 3"], second: Float[np.ndarray, " 3"]) -> float:
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def write_frozen(
    spec: SceneSpec,
    moving: Scene,
    frame: int,
    folder: Path,
    *,
    around: bool,
    level: str,
    seed: int,
) -> Scene:
    """Write a scene that stands still; held-out views have one image, that of the frame.

    Args:
        spec: the moving scene.
        moving: its directory, with the held-out views.
        frame: at which it stands still.
        folder: the new scene directory.
        around: see it from `cameras_around`, otherwise from the cameras of the clip.
        level, seed: of the errors of the priors.
    """
    cameras = cameras_around(spec, spec.frames) if around else spec.cameras
    still_spec = frozen(spec, frame, cameras)
    truth, caster = render_truth(still_spec), Caster(still_spec)
    still = np.zeros(len(truth.tracks.object), truth.tracks.object.dtype)
    views = {}
    for name, view in moving.views.items():
        image, size = view.image(frame)[None], (1, *moving.size)
        rays = rays_through(spec.views[name], pixel_centres(spec.views[name]))
        points, _ = caster.mesh(0).cast(spec.views[name].centres[0], rays)
        seen = covisible_pixels(caster, points, np.zeros((1, len(points)), bool)).reshape(size)
        views[name] = Shot(
            spec.views[name][np.zeros(len(cameras), int)],
            image,
            np.ones(size, np.float32),
            np.zeros(size, np.uint8),
            view.covisible(frame)[None] if around else view.covisible(frame)[None] & seen,
        )
    clip = replace(truth.clip, masks=np.zeros_like(truth.clip.masks))
    spec = replace(truth.spec, parts=tuple(p for p in spec.parts if not p.object))
    static = Truth(spec, clip, views, replace(truth.tracks, object=still))
    write_priors(static, folder, level=level, seed=seed)
    return Scene(folder)
