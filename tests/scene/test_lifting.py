"""Lifting tracks to 3D, and the canonical frame."""

import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.geometry import project, transform_points
from msdyn.scene import LiftedTracks, Tracks, canonical_frame, lift_scene_tracks, lift_tracks


def lift(tracks, scene, depths):
    return lift_tracks(tracks, depths, scene.masks(), scene.cameras).dense()


def test_lifted_points_reproject_and_have_the_objects_depth(plane_scene):
    lifted = lift_scene_tracks(plane_scene).dense()
    assert lifted.visible.all()
    cameras = plane_scene.cameras
    cam = transform_points(cameras.cam_from_world, lifted.xyz.swapaxes(0, 1))
    np.testing.assert_allclose(cam[..., 2], 1.5)
    xy = project(cameras.intrinsics, cam).swapaxes(0, 1)
    np.testing.assert_allclose(xy, plane_scene.tracks.xy, atol=1e-5)


def test_a_point_next_to_the_silhouette_gets_the_objects_depth(plane_scene):
    # The square spans x in [6, 14) in frame 0: 14.3 lies just outside, 20 far outside.
    xy = np.zeros((2, 6, 2), np.float32)
    xy[0, 0], xy[1, 0] = [14.3, 12], [20, 12]
    visible = np.zeros((2, 6), bool)
    visible[:, 0] = True
    tracks = Tracks.from_dense(xy, visible, visible.astype(float), np.ones(2), np.zeros(2))
    lifted = lift(tracks, plane_scene, plane_scene.depths())
    assert lifted.visible[:, 0].tolist() == [True, False]
    assert transform_points(plane_scene.cameras.cam_from_world[0], lifted.xyz[:1, 0])[
        0, 2
    ] == pytest.approx(1.5)


def test_points_without_depth_or_outside_the_image_are_not_visible(plane_scene):
    depths = plane_scene.depths().copy()
    depths[3] = 0
    tracks = plane_scene.tracks
    xy = tracks.xy.copy()
    xy[0, 1] = [-5, 3]
    moved = Tracks.from_dense(
        xy, tracks.visible, tracks.confidence, tracks.object, tracks.query_frame
    )
    lifted = lift(moved, plane_scene, depths)
    assert not lifted.visible[:, 3].any() and not lifted.visible[0, 1]
    assert lifted.visible[:, 2].all()
    assert (lifted.confidence[:, 3] == 0).all()


def test_counts_must_agree(plane_scene):
    with pytest.raises(InputError, match="expected 6 depths"):
        lift_tracks(
            plane_scene.tracks, plane_scene.depths()[:4], plane_scene.masks(), plane_scene.cameras
        )


def tracks_of(visible, objects):
    visible = np.asarray(visible, bool)
    shape = visible.shape
    return LiftedTracks(
        np.zeros((*shape, 3)),
        visible,
        visible.astype(float),
        np.asarray(objects, int),
        np.zeros((*shape, 2)),
    )


def test_the_canonical_frame_is_the_least_occluded():
    assert canonical_frame(tracks_of([[1, 0, 1], [0, 0, 1], [1, 0, 0], [1, 1, 1]], [1] * 4)) == 0
    # Two tracks of a small object have the same weight as many of a large one.
    many = [[1, 0, 0]] * 10 + [[1, 1, 0]] * 9
    small = [[0, 1, 1]] * 2
    assert canonical_frame(tracks_of(many + small, [1] * 19 + [2] * 2)) == 1


def test_without_tracks_the_canonical_frame_is_the_middle_one():
    assert canonical_frame(tracks_of(np.zeros((0, 7)), [])) == 3


def test_only_some_frames_are_lifted(plane_scene):
    chosen = np.array([1, 4, 5])
    arguments = (plane_scene.depths(), plane_scene.masks(), plane_scene.cameras)
    some = lift_tracks(plane_scene.tracks, *arguments, chosen).dense()
    every = lift_tracks(plane_scene.tracks, *arguments).dense()
    assert some.num_frames == 3
    np.testing.assert_array_equal(some.xyz, every.xyz[:, chosen])
    np.testing.assert_array_equal(some.confidence, every.confidence[:, chosen])
