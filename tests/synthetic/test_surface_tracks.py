"""Trajectories of surface points and the motion of links."""

import numpy as np
import pytest

from msdyn.geometry import transform_points
from msdyn.synthetic import link_motions, make_scene, project_tracks, surface_tracks
from msdyn.synthetic.raycast import Caster, rays_through


@pytest.fixture(scope="module")
def demo():
    """Tracks of the demo scene at a small size."""
    spec = make_scene("demo", frames=8, width=64, height=48)
    return spec, *surface_tracks(spec, per_object=150, static=150)


def test_tracks_project_to_their_queries(demo):
    spec, tracks, links = demo
    assert np.bincount(tracks.object).tolist() == [150] * 4
    row = np.arange(len(tracks.object))
    assert tracks.visible[row, tracks.query_frame].all()
    xy = project_tracks(spec, tracks)[row, tracks.query_frame]
    assert np.abs(xy - tracks.query_xy).max() < 1e-3  # worst seen: 2.1e-4, rays are float32
    assert set(links[tracks.object == 2]) == {"crane/turret", "crane/boom", "crane/fore"}
    assert set(links[tracks.object == 0]) == {""}


def test_static_points_do_not_move_and_others_move_with_their_link(demo):
    spec, tracks, links = demo
    motions = link_motions(spec, reference=3)
    assert set(motions) == {"truck", "crane/turret", "crane/boom", "crane/fore"}
    assert np.ptp(tracks.xyz[tracks.object == 0], axis=1).max() == 0
    for link, motion in motions.items():
        np.testing.assert_allclose(motion[3], np.eye(4), atol=1e-12)
        own = tracks.xyz[links == link]
        moved = transform_points(motion, own[None, :, 3]).swapaxes(0, 1)
        assert len(own) > 5
        assert np.abs(moved - own).max() < 1e-12  # worst seen: 4e-16


def test_the_cactus_deforms(demo):
    """Distances between its points change, unlike those between points of the truck."""
    _, tracks, _ = demo

    def stretch(instance):
        xyz = tracks.xyz[tracks.object == instance]
        distance = np.linalg.norm(xyz[:, None] - xyz[None], axis=-1)
        return np.ptp(distance, axis=-1).max()

    assert stretch(1) < 1e-12
    assert stretch(3) > 0.1


def test_visible_points_have_the_depth_of_their_pixel_and_occluded_ones_more(boxes):
    spec, tracks = boxes.spec, boxes.tracks
    caster, xy = Caster(spec), project_tracks(spec, tracks)
    occluded = 0
    for frame, camera in enumerate(spec.cameras):
        depth = transform_points(camera.cam_from_world[0], tracks.xyz[:, frame])[:, 2]
        inside = (xy[:, frame] >= 0).all(1) & (xy[:, frame] < [96, 72]).all(1) & (depth > 0)
        assert not tracks.visible[~inside, frame].any()
        rays = rays_through(camera, xy[inside, frame])
        points, distance = caster.mesh(frame).cast(camera.centres[0], rays)  # z-depths
        visible, depth = tracks.visible[inside, frame], depth[inside]
        assert np.abs(distance - depth)[visible].max() < 1e-3
        assert (caster.face_object[points.face] == tracks.object[inside])[visible].mean() > 0.999
        # An occluded point is not nearer than the first hit along its ray.
        assert (distance - depth)[~visible].max() < 1e-3
        occluded += (distance - depth < -0.02)[~visible].sum()
        # The masks agree, except at their edges.
        x, y = np.floor(xy[inside, frame]).astype(int)[visible].T
        same = boxes.clip.masks[frame][y, x] == tracks.object[inside][visible]
        assert same.mean() > 0.9  # worst seen: 0.97
    assert occluded > 500


def test_sampling_depends_only_on_the_seed():
    spec = make_scene("two-boxes", frames=4, width=32, height=24)
    first, _ = surface_tracks(spec, per_object=20, static=20)
    again, _ = surface_tracks(spec, per_object=20, static=20)
    other, _ = surface_tracks(spec, per_object=20, static=20, seed=1)
    np.testing.assert_array_equal(first.xyz, again.xyz)
    assert (first.query_xy != other.query_xy).all()
