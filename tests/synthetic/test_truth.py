"""Rendered images, covisibility and warping between frames."""

import numpy as np
import pytest
from brute import first_hit, weights_of
from scipy.ndimage import map_coordinates

from msdyn.geometry import project, transform_points, world_points_from_depth
from msdyn.synthetic import link_motions, make_scene, picture, render_truth
from msdyn.synthetic.raycast import Caster, pixel_centres, rays_through


def test_shapes_and_types(boxes):
    for shot in (boxes.clip, *boxes.views.values()):
        assert shot.images.shape == (12, 72, 96, 3) and shot.images.dtype == np.uint8
        assert shot.depths.shape == (12, 72, 96) and shot.depths.dtype == np.float32
        assert shot.masks.shape == (12, 72, 96) and set(np.unique(shot.masks)) == {0, 1, 2}
        assert shot.covisible.shape == (12, 72, 96) and len(shot.cameras) == 12
    assert list(boxes.views) == ["left15", "right28"]
    assert boxes.clip.covisible.all()
    contrast = boxes.clip.images.astype(float).std((1, 2))
    assert contrast.min() > 40  # textured; worst seen: 48.5


def test_rendering_depends_only_on_the_seed(tiny):
    again = render_truth(make_scene("two-boxes", frames=8, width=24, height=18))
    for a, b in zip(
        (tiny.clip, *tiny.views.values()), (again.clip, *again.views.values()), strict=True
    ):
        for name in ("images", "depths", "masks", "covisible"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("xyz", "visible", "query_frame", "query_xy", "object"):
        np.testing.assert_array_equal(getattr(tiny.tracks, name), getattr(again.tracks, name))
    other = render_truth(make_scene("two-boxes", frames=8, width=24, height=18, seed=1))
    assert (other.clip.images != tiny.clip.images).mean() > 0.5


@pytest.mark.reliability
def test_interpolated_samples_equal_ray_cast_ones(boxes, monkeypatch):
    """If every pixel counts as an edge, rays are cast for all samples."""
    monkeypatch.setattr(picture, "_edges", lambda surface, chart, footprint: chart >= 0)
    cast = render_truth(boxes.spec)
    error = cast.clip.images.astype(float) - boxes.clip.images
    # 59 dB at this size, where the perspective distortion within a pixel is largest; 67 at 320x240.
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 55


@pytest.mark.reliability
def test_covisibility_equals_brute_force(tiny):
    """The surface point of each pixel is tracked through all input frames, ray by ray."""
    caster, spec = Caster(tiny.spec), tiny.spec
    shot = tiny.views["right28"]
    view = spec.views["right28"]
    rays = rays_through(view, pixel_centres(view))
    origins = np.broadcast_to(view.centres[0], rays.shape)
    for frame in (0, 6):
        distance, face = first_hit(caster.vertices[frame], caster.faces, origins, rays)
        points = view.centres[0] + distance[:, None] * rays
        weights = weights_of(caster.vertices[frame], caster.faces, face, points)
        count = np.zeros(len(rays), int)
        for other in range(spec.frames):
            corners = caster.vertices[other][caster.faces[face]]
            xyz = (weights[:, None] @ corners)[:, 0]
            cam = spec.cameras[other]
            xyz_cam = transform_points(cam.cam_from_world[0], xyz)
            xy = project(cam.intrinsics[0], xyz_cam)
            inside = (xyz_cam[:, 2] > 0) & (xy >= 0).all(1) & (xy < [24, 18]).all(1)
            centre = np.broadcast_to(cam.centres[0], xyz.shape)
            first, _ = first_hit(caster.vertices[other], caster.faces, centre, xyz - centre)
            count += inside & (first > 1 - 2e-4)
        expected = (count > max(5, 0.1 * spec.frames)).reshape(18, 24)
        assert 0.2 < expected.mean() < 0.9
        # Points on a silhouette or the image's border may differ by rounding: at most 1 %.
        assert (shot.covisible[frame] == expected).mean() >= 0.99


@pytest.mark.parametrize("source, target", [(0, 2), (4, 7), (11, 9)])
def test_warped_frames_agree(boxes, source, target):
    """Depth, poses, motion, masks and images are consistent: a warped pixel keeps its colour."""
    clip = boxes.clip
    motions = list(link_motions(boxes.spec, reference=source).values())  # red is 1, green is 2
    xyz = world_points_from_depth(clip.depths[source], clip.cameras[source])
    for instance in (0, 1, 2):
        own = clip.masks[source] == instance
        motion = motions[instance - 1][target] if instance else np.eye(4)
        visible, correlation = agreement(
            clip, source, target, own, transform_points(motion, xyz[own])
        )
        # Points moved by the true motion are on the surface in the target frame, unless occluded,
        # and have the same colour up to the light (worst values: 0.64 and 0.88)...
        assert visible > 0.5 and correlation > 0.8
        if instance:  # ... and points that are not moved are not.
            visible, correlation = agreement(clip, source, target, own, xyz[own])
            assert visible < 0.5 or correlation < 0.6


def agreement(clip, source, target, own, xyz):
    """Return the fraction of points visible in the target frame and their colour correlation."""
    camera = clip.cameras[target]
    xyz_cam = transform_points(camera.cam_from_world[0], xyz)
    x, y = project(camera.intrinsics[0], xyz_cam).T
    inside = (x > 0.5) & (y > 0.5) & (x < 95.5) & (y < 71.5)
    row, column = np.floor(y).astype(int).clip(0, 71), np.floor(x).astype(int).clip(0, 95)
    visible = inside & (np.abs(clip.depths[target][row, column] - xyz_cam[:, 2]) < 0.03)
    before = clip.images[source][own].mean(-1)[visible]
    after = map_coordinates(
        clip.images[target].mean(-1), [y[visible] - 0.5, x[visible] - 0.5], order=1
    )
    return visible.mean(), np.corrcoef(before, after)[0, 1]
