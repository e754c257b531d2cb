"""Tracks, object trajectories and flow, against the truth of a synthetic scene."""

import json

import numpy as np
import pytest
from evaluate.exact_fits import CANONICAL, LINKS, moving_points
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError
from msdyn.evaluate import pose_errors
from msdyn.export import export_flow, export_objects, export_tracks
from msdyn.export.objects import resampled_times
from msdyn.geometry import (
    Rigid,
    project,
    transform_points,
    world_points_from_depth,
)
from msdyn.io import read_flo, read_tum
from msdyn.render import grid_points, point_tracks, render_flow, render_image
from msdyn.sequence import object_centres
from msdyn.synthetic import link_motions


def test_tracks_lie_on_the_true_ones(truth, exact, tmp_path):
    frame = int(truth.tracks.query_frame[0])
    own = np.flatnonzero(truth.tracks.query_frame == frame)
    tracks = point_tracks(exact, truth.tracks.query_xy[own], frame)
    export_tracks(exact, tmp_path / "tracks.npz", tracks)
    with np.load(tmp_path / "tracks.npz") as file:
        world, visible, in_camera = file["tracks_world"], file["visibility"], file["tracks_XYZ"]
        queries, w2c, k = file["queries_xyt"], file["extrinsics_w2c"], file["fx_fy_cx_cy"]
        xy = file["tracks_xy"]
    assert world.shape == (8, len(own), 3) and visible.shape == (8, len(own))
    error = np.linalg.norm(world - truth.tracks.xyz[own].swapaxes(0, 1), axis=-1)
    # The boxes move by 0.3 to 0.4 m. Measured medians: 5 mm on them, 18 mm on the background, all
    # of it error of the rendered depth; silhouettes dominate the means.
    moving = truth.tracks.object[own] > 0
    assert np.median(error[:, moving]) < 0.01 and error[:, moving].mean() < 0.03
    assert np.median(error[:, ~moving]) < 0.03
    # In the query frame, the camera coordinates project to the query pixels.
    np.testing.assert_allclose(queries[:, 2], frame)
    at_query = in_camera[frame]
    pixel = at_query[:, :2] / at_query[:, 2:] * k[:2] + k[2:]
    np.testing.assert_allclose(pixel, queries[:, :2], atol=1e-3)
    np.testing.assert_allclose(pixel, xy[frame], atol=1e-3)
    np.testing.assert_allclose(w2c, truth.clip.cameras.cam_from_world)
    agreement = (visible == truth.tracks.visible[own].T).mean()
    assert agreement > 0.85 and 0.1 < visible.mean() < 1  # neither all nor none


def test_a_query_of_an_empty_pixel_is_left_out(tmp_path):
    sequence = moving_points([[0, 0, 2.0]], np.zeros((1, 3, 3)), scale=0.05)
    tracks = point_tracks(sequence, np.array([[32.0, 24.0], [2.0, 2.0]]), 0)
    assert tracks.object.tolist() == [1, -1]
    export_tracks(sequence, tmp_path / "t.npz", tracks)
    with np.load(tmp_path / "t.npz") as file:
        assert file["tracks_XYZ"].shape == (3, 1, 3) and file["visibility"].all()


def test_an_occluded_point_is_not_visible():
    """The second of two points passes behind the first, which is static."""
    shifts = np.zeros((2, 5, 3))
    shifts[1, :, 0] = [-0.8, -0.4, 0, 0.4, 0.8]
    sequence = moving_points([[0, 0, 2.0], [0, 0, 3.0]], shifts, scale=0.1)
    start = project(sequence.cameras.intrinsics[0], np.array([[-0.8, 0, 3.0]]))
    tracks = point_tracks(sequence, start, 0)
    assert tracks.visible[0].tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(
    "xy, frame, text", [([[97.0, 3]], 0, "x from 0 to 96"), ([[3.0, 3]], 9, "frame: expected 0 to")]
)
def test_pixels_and_frames_outside_are_errors(exact, xy, frame, text):
    with pytest.raises(InputError, match=text):
        point_tracks(exact, np.array(xy), frame)


def test_the_grid_covers_the_image(exact):
    grid = grid_points(exact, 8)
    assert len(grid) == 12 * 9 and grid.min() == 4.5 and grid.max() == 92.5
    with pytest.raises(InputError, match="at least 1"):
        grid_points(exact, 0)


def test_objects_move_as_in_the_truth(truth, exact, tmp_path):
    export_objects(exact, tmp_path, exact.timeline.times)
    content = json.loads((tmp_path / "objects.json").read_text())
    centres = object_centres(exact)
    for row in content["objects"]:
        label = row["object"]
        true = Rigid.from_matrix(link_motions(truth.spec, reference=CANONICAL)[LINKS[label]])
        poses = np.array(row["world_from_object"])
        found = Rigid.from_matrix(poses)
        degrees, apart = pose_errors(found @ found[CANONICAL].inverse(), true, centres[label])
        assert degrees.max() < 0.01 and apart.max() < 1e-4  # float32; measured 2e-4, 1e-6
        assert np.ptp(true.translation, axis=0).max() > 0.1  # it does move
        np.testing.assert_allclose(poses[CANONICAL, :3, :3], np.eye(3), atol=1e-5)
        np.testing.assert_allclose(poses[CANONICAL, :3, 3], centres[label], atol=1e-5)
        # The same as quaternions, and in the TUM file.
        quats = np.array(row["quaternions_wxyz"])
        turned = Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix()
        np.testing.assert_allclose(turned, poses[:, :3, :3], atol=1e-6)
        table = np.loadtxt(tmp_path / f"object_{label}.txt")
        np.testing.assert_allclose(table[:, 0], exact.timeline.seconds, atol=1e-8)
        np.testing.assert_allclose(table[:, 1:4], poses[:, :3, 3], atol=1e-8)
        matrices = Rotation.from_quat(table[:, 4:]).as_matrix()
        np.testing.assert_allclose(matrices, poses[:, :3, :3], atol=1e-6)
        assert (np.sum(table[1:, 4:] * table[:-1, 4:], axis=1) > 0).all()  # no sign jumps
    assert len(content["objects"]) == 2


def test_any_frame_rate(exact, tmp_path):
    times = resampled_times(exact, 100.0)
    assert times[0] == 0 and times[-1] <= 1
    np.testing.assert_allclose(np.diff(times) * exact.timeline.seconds[-1], 0.01)
    export_objects(exact, tmp_path, times, labels=[2])
    seconds, poses = read_tum(tmp_path / "object_2.txt")
    assert len(seconds) == len(times) and not (tmp_path / "object_1.txt").exists()
    assert np.abs(np.diff(poses[:, :3, 3], axis=0)).max() < 0.05  # smooth in between


def true_flow(truth, a, b):
    """Return the exact optical flow and scene flow from frame a to b, of pixel centres."""
    points = world_points_from_depth(truth.clip.depths[a], truth.clip.cameras[a])
    moved = points.copy()
    for instance, link in LINKS.items():
        own = truth.clip.masks[a] == instance
        motions = link_motions(truth.spec, reference=a)[link]
        moved[own] = transform_points(motions[b], points[own])
    camera = truth.clip.cameras[b]
    seen = project(camera.intrinsics[0], transform_points(camera.cam_from_world[0], moved))
    rows, columns = np.mgrid[0:72, 0:96]
    return seen - np.stack([columns + 0.5, rows + 0.5], -1), moved - points


def test_flow_is_the_true_one(truth, exact, tmp_path):
    times = exact.timeline.times[[1, 6]]
    export_flow(exact, tmp_path, times)
    flow, scene_flow = true_flow(truth, 1, 6)
    with np.load(tmp_path / "flow_00000.npz") as file:
        found, found3d, valid, moving = (
            file[key] for key in ("flow", "scene_flow", "valid", "moving")
        )
    assert valid.mean() > 0.99
    error = np.linalg.norm(found - flow, axis=-1)
    length = np.linalg.norm(flow, axis=-1)
    # Measured: 0.39 px of 16 px, 3.4 and 4.5 mm of 0.3 to 0.4 m on the boxes, from depth errors.
    assert np.median(error) < 0.6 and np.median(length) > 10
    error3d = np.linalg.norm(found3d - scene_flow, axis=-1)
    masks = truth.clip.masks[1]
    assert np.median(error3d[masks > 0]) < 0.008 and error3d[masks > 0].mean() < 0.03
    assert np.median(error3d[masks == 0]) == 0
    # The mask of moving pixels is that of the boxes, except for silhouettes.
    camera = truth.clip.cameras[6]
    points = world_points_from_depth(truth.clip.depths[1], truth.clip.cameras[1])
    to_pixels = [
        project(camera.intrinsics[0], transform_points(camera.cam_from_world[0], p))
        for p in (points, points + scene_flow)
    ]
    true_moving = np.linalg.norm(to_pixels[1] - to_pixels[0], axis=-1) > 1.0
    assert 0.1 < true_moving.mean() < 0.5 and (true_moving == moving).mean() > 0.95
    stored, known = read_flo(tmp_path / "flow_00000.flo")
    np.testing.assert_array_equal(stored, np.where(known[..., None], found, 0))
    np.testing.assert_array_equal(known, valid)


def test_flow_is_exact_except_for_the_depth(truth, exact):
    """Where only one body is rendered, flow is its motion applied to the rendered point."""
    camera, times = exact.cameras[1], exact.timeline.times[[1, 6]]
    flow = render_flow(exact, (camera, exact.cameras[6]), tuple(times))
    whole = render_image(exact, camera, times[0])
    points = world_points_from_depth(whole.depth, camera)
    for instance, link in LINKS.items():
        share = render_image(exact, camera, times[0], objects=[instance], background=False)
        # Only pixels that the body covers completely.
        pure = (share.alpha > 0.999) & (np.abs(share.depth - whole.depth) < 1e-3)
        assert pure.sum() > 50
        motion = link_motions(truth.spec, reference=1)[link][6]
        expected = transform_points(motion, points[pure]) - points[pure]
        # 0.1 % of another body may show through.
        assert np.linalg.norm(flow.xyz[pure] - expected, axis=-1).max() < 2e-3


def test_static_points_have_exactly_no_scene_flow(exact):
    camera = exact.cameras[0]
    flow = render_flow(exact, (camera, camera), (0.0, 0.7), objects=[])
    assert not flow.xyz.any() and not flow.moving.any()
    assert np.abs(flow.xy[flow.valid]).max() < 1e-4


def test_forward_and_backward_flow_cancel(exact):
    """Forward flow followed by the backward flow at its end leads back to the pixel."""
    camera = exact.cameras[2]
    ahead = render_flow(exact, (camera, camera), (0.2, 0.6))
    back = render_flow(exact, (camera, camera), (0.6, 0.2))
    # Only inside the boxes: at silhouettes two motions are blended, and points become occluded.
    inner = binary_erosion(ahead.moving, iterations=3)
    rows, columns = np.nonzero(inner)
    start = np.stack([columns, rows], -1) + 0.5
    landed = start + ahead.xy[inner]
    inside = (landed >= 0).all(1) & (landed < [96, 72]).all(1)
    x, y = np.floor(landed[inside]).astype(int).T
    home = landed[inside] + back.xy[y, x] - start[inside]
    length = np.linalg.norm(ahead.xy[inner], axis=-1)
    # Backward flow is sampled at the nearest pixel; measured 0.32 px.
    assert np.median(np.linalg.norm(home, axis=-1)) < 0.5 and np.median(length) > 3


def test_one_time_has_no_flow(exact, tmp_path):
    with pytest.raises(InputError, match="at least two times"):
        export_flow(exact, tmp_path, np.array([0.5]))
