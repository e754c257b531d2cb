"""Ray casting against closed forms and against brute force."""

import numpy as np
import pytest
from brute import first_hit

from msdyn.errors import InputError
from msdyn.geometry import Cameras, look_at, project, transform_points
from msdyn.synthetic import Part, SceneSpec, render_truth
from msdyn.synthetic.raycast import Caster, SurfacePoints, pixel_centres, rays_through
from msdyn.synthetic.shapes import ball, box, room
from msdyn.synthetic.spec import DOWN
from msdyn.synthetic.textures import plaster

PAINT = plaster((0.2, 0.3, 0.4), (0.8, 0.7, 0.6))


def camera(centre, target, width=40, height=30, focal=35.0):
    pose = look_at(np.asarray(centre, float), np.asarray(target, float), DOWN)
    return Cameras.pinhole(focal, width, height, np.stack([pose, pose]))


def scene(parts, cameras):
    walls = Part("room", room(4, 4, 4, 1.0).moved((0, 0, -2)), PAINT, texel=0.05)
    return SceneSpec("test", (walls, *parts), cameras, {})


def test_depth_of_the_walls_is_exact():
    """A ray from inside a cube hits the nearest of three planes."""
    cameras = camera((0.3, -1.1, 0.4), (-0.5, 1.0, -0.7))
    truth = render_truth(scene([], cameras), samples=1)
    rays = rays_through(cameras[0], pixel_centres(cameras[0]))
    origin = cameras.centres[0]
    exact = ((2 * np.sign(rays) - origin) / rays).min(1)
    error = np.abs(truth.clip.depths[0].reshape(-1) - exact)
    assert error.max() < 5e-7  # worst seen: 2.4e-7, the rounding of float32 at 3 m


def test_depth_of_a_ball_is_slightly_larger_than_that_of_the_sphere():
    """A polyhedron is inside its sphere: depth is never less, and at most the sagitta more."""
    sphere = Part("ball", ball(1, 1, 1, subdivisions=4).moved((0, 0, -0.5)), PAINT, texel=0.02)
    cameras = camera((0, -1.5, 0.2), (0, 0, 0))
    truth = render_truth(scene([sphere], cameras), samples=1)
    rays = rays_through(cameras[0], pixel_centres(cameras[0]))
    origin = cameras.centres[0]
    b = (rays @ origin) / (rays**2).sum(1)
    disc = b**2 - (origin @ origin - 0.25) / (rays**2).sum(1)
    inner = disc > 0.02  # without the silhouette, where the two differ most
    exact = -b[inner] - np.sqrt(disc[inner])
    excess = truth.clip.depths[0].reshape(-1)[inner] - exact
    assert inner.sum() > 100
    assert excess.min() > -1e-6
    assert excess.max() < 3e-3  # worst seen: 1.5e-3


def test_first_hits_equal_brute_force(tiny):
    caster = Caster(tiny.spec)
    for frame in (0, 5):
        view = tiny.spec.cameras[frame]
        rays = rays_through(view, pixel_centres(view))
        points, distance = caster.mesh(frame).cast(view.centres[0], rays)
        origins = np.broadcast_to(view.centres[0], rays.shape)
        exact, face = first_hit(caster.vertices[frame], caster.faces, origins, rays)
        # Rays along an edge may hit either of its faces: at most one in a hundred here.
        assert (points.face == face).mean() > 0.99
        np.testing.assert_allclose(distance, exact, rtol=1e-5)
        np.testing.assert_allclose(tiny.clip.depths[frame].reshape(-1), exact, rtol=1e-6)
        assert (tiny.clip.masks[frame].reshape(-1) == caster.face_object[face]).all()


def test_a_box_occludes_the_wall_behind_it_and_its_own_back():
    block = Part("block", box(1, 1, 1).moved((0, 0, -0.5)), PAINT, texel=0.05)
    cameras = camera((0, -1.8, 0), (0, 0, 0))
    caster = Caster(scene([block], cameras))
    vertices, faces = caster.vertices[0], caster.faces
    normals = caster.face_normals(0, np.arange(len(faces)))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    middle = vertices[faces].mean(1)
    points = SurfacePoints(np.arange(len(faces)), np.full((len(faces), 3), 1 / 3))
    visible = caster.visible(0, cameras[0], points)
    own = caster.face_part == 1
    front = own & (normals[:, 1] < -0.9)
    assert front.sum() == 2 and visible[front].all()
    assert not visible[own & ~front].any()
    # The block, 1 m wide at a distance of 1.3 m, occludes part of the far wall (y = 2).
    wall = ~own & (middle[:, 1] > 1.99)
    occluded = (np.abs(middle[:, [0, 2]]) < 0.5 * 3.8 / 1.3).all(1)
    xy = project(cameras.intrinsics[0], transform_points(cameras.cam_from_world[0], middle))
    inside = (xy >= 0).all(1) & (xy < [40, 30]).all(1)
    assert (visible[wall] == (inside & ~occluded)[wall]).all()
    assert visible[wall].any() or occluded[wall].all()


def test_a_scene_that_does_not_enclose_its_cameras_is_refused():
    only = Part("block", box(1, 1, 1), PAINT, texel=0.05)
    cameras = camera((0, -1.8, 0), (0, 0, 0))
    with pytest.raises(InputError, match="closed room"):
        render_truth(SceneSpec("open", (only,), cameras, {}))
