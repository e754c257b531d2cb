"""Exact motion: trajectories of surface points, and the rigid motion of links."""

import numpy as np

from msdyn.geometry import invert_transforms, transform_points
from msdyn.scene import Tracks3D
from msdyn.synthetic.raycast import Caster, SurfacePoints, rays_through
from msdyn.synthetic.spec import SceneSpec

__all__ = ["link_motions", "surface_tracks"]


def surface_tracks(
    spec: SceneSpec, *, per_object: int = 400, static: int = 800, seed: int = 0
) -> tuple[Tracks3D, np.ndarray]:
    """Follow points drawn evenly over the pixels that show each object, in all frames.

    Args:
        spec: the scene; its images are not rendered.
        per_object: number of points on each moving object (fewer where hardly any pixel shows it).
        static: number of points on static surfaces.
        seed: of the choice of points.

    Returns:
        The trajectories with their visibility in the input camera, and the link [N] (a name, ""
        for static points) that carries each point.
    """
    return follow_pixels(Caster(spec), per_object, static, seed)


def follow_pixels(
    caster: Caster, per_object: int, static: int, seed: int
) -> tuple[Tracks3D, np.ndarray]:
    """Do the work of `surface_tracks` for meshes that are ready for ray casting."""
    spec = caster.spec
    rng = np.random.default_rng([seed, 1])
    # About twice the rays that the rarest object would need if it covered 1 % of the image.
    rays = -(-200 * max(per_object, static) // spec.frames)
    query_xy, face, weights = [], [], []
    for frame, camera in enumerate(spec.cameras):
        xy = rng.uniform((0, 0), (spec.width, spec.height), (rays, 2))
        points, _ = caster.mesh(frame).cast(camera.centres[0], rays_through(camera, xy))
        query_xy.append(xy)
        face.append(points.face)
        weights.append(points.weights)
    query_xy = np.concatenate(query_xy)
    query_frame = np.repeat(np.arange(spec.frames), rays)
    points = SurfacePoints(np.concatenate(face), np.concatenate(weights))
    owner = np.where(points.face >= 0, caster.face_object[points.face], -1)

    chosen = []
    for instance in [0, *spec.objects]:
        own = rng.permutation(np.flatnonzero(owner == instance))
        chosen.append(own[: per_object if instance else static])
    chosen = np.concatenate(chosen)
    points = points.select(chosen)
    tracks = Tracks3D(
        xyz=np.stack([caster.positions(t, points) for t in range(spec.frames)], 1),
        visible=np.stack(
            [caster.visible(t, camera, points) for t, camera in enumerate(spec.cameras)], 1
        ),
        query_frame=query_frame[chosen],
        query_xy=query_xy[chosen],
        object=owner[chosen],
    )
    links = np.array([part.link for part in spec.parts])[caster.face_part[points.face]]
    return tracks, links


def link_motions(spec: SceneSpec, reference: int = 0) -> dict[str, np.ndarray]:
    """Return how each rigid link has moved since a reference frame.

    Returns:
        By the link's name, [T, 4, 4]: maps the world positions of its points in the reference frame
        to those in every frame. Links that carry a deforming part are left out.
    """
    motions = {}
    for part in spec.parts:
        if part.world_from_link is not None:
            pose = part.world_from_link
            motions[part.link] = pose @ invert_transforms(pose[reference])
    for part in spec.parts:
        if part.deformation is not None:
            motions.pop(part.link, None)
    return motions


def project_tracks(spec: SceneSpec, tracks: Tracks3D) -> np.ndarray:
    """Return where trajectories project in the input camera, [N, T, 2] px (0 behind the camera)."""
    xyz_cam = transform_points(spec.cameras.cam_from_world, tracks.xyz.swapaxes(0, 1))  # [T, N, 3]
    depth = xyz_cam[..., 2:]
    homogeneous = xyz_cam @ spec.cameras.intrinsics.swapaxes(-1, -2)
    xy = np.where(depth > 1e-6, homogeneous[..., :2] / np.where(depth > 1e-6, depth, 1), 0)
    return xy.swapaxes(0, 1)
