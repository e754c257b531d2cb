"""Point transfer between key frames: known answers, occluded points, keypoints."""

import numpy as np
import pytest
from exact_fits import moving_points, three_points, write_scene_of
from scipy.interpolate import RegularGridInterpolator

from msdyn.errors import InputError
from msdyn.evaluate import Variant, evaluate_points
from msdyn.evaluate.correspondences import Correspondences, find_correspondences
from msdyn.geometry import Similarity
from msdyn.render import rendered_depth
from msdyn.scene import (
    Keypoints,
    Scene,
    Tracks3D,
    read_keypoints,
    save_npz,
    write_depth,
    write_keypoints,
)

FRAMES = 11


@pytest.fixture
def points():
    return three_points(FRAMES)


@pytest.fixture
def points_scene(points, tmp_path):
    return write_scene_of(points, tmp_path / "points")


def test_a_sequence_has_no_error_against_itself(points, points_scene):
    result = evaluate_points(points, points_scene)
    assert result is not None
    assert result["frames"] == 10 and result["points"] == 3 and result["source"] == "3D tracks"
    for part in ("transfer", "normalised"):
        assert result[part]["epe3d"] == pytest.approx(0, abs=5e-6)
        assert result[part]["delta_0.05"] == 1
    assert set(result["image"].values()) == {1.0} and result["pck_t"] == 1


def test_the_error_of_a_fit_without_motion_is_the_motion(tmp_path):
    """A wide point moves 0.3 along x: a frozen fit leaves it at its query position."""
    translations = np.zeros((1, FRAMES, 3))
    translations[0, :, 0] = np.linspace(0, 0.3, FRAMES)
    sequence = moving_points([[-0.2, 0, 2.0]], translations, scale=0.3)
    scene = write_scene_of(sequence, tmp_path / "wide")
    result = evaluate_points(sequence, scene, variant=Variant(frozen=True))
    assert result is not None
    keys = np.unique(np.linspace(0, FRAMES - 1, 10).round())
    x = 0.3 * keys / (FRAMES - 1)
    moved = np.abs(x - x[:, None])  # for each pair of key frames
    assert result["transfer"]["epe3d"] == pytest.approx(moved.mean(), abs=1e-5)
    # 60 / 2 px per unit: 9 px at most.
    others = ~np.eye(len(keys), dtype=bool)
    within = (30 * moved < 0.05 * 64).mean()
    assert result["pck_t"] == pytest.approx(within) and 0 < within < 1
    pck = [(30 * moved[others] < limit).mean() for limit in (4, 8, 16)]
    assert result["image"]["average_pck"] == pytest.approx((sum(pck) + 2) / 5)


def test_an_offset_is_measured_and_removed_by_alignment(points, points_scene):
    moved = points.rescaled(Similarity.of(1.0, [0.3, 0, -0.4]))
    result = evaluate_points(moved, points_scene)
    assert result is not None
    assert result["transfer"]["epe3d"] == pytest.approx(0.5, abs=1e-5)
    assert result["transfer"]["delta_0.10"] == 0
    # Image metrics are unchanged: the cameras moved with the points.
    assert set(result["image"].values()) == {1.0} and result["pck_t"] == 1
    scaled = points.rescaled(Similarity.of(2.0, [0.3, 0, -0.4]))
    result = evaluate_points(scaled, points_scene)
    assert result is not None and result["transfer"]["epe3d"] > 1


def occlusion_sequence():
    """A near point moves in front of a far one and occludes it in the last of three frames."""
    translations = np.zeros((2, 3, 3))
    translations[0, :, 0] = [-0.7, -0.35, 0]
    return moving_points([[0, 0, 1.5], [0, 0, 3.0]], translations, scale=0.08)


def test_depth_rendered_at_a_pixel():
    sequence = occlusion_sequence()
    pixel = np.array([[32.0, 24.0]])
    depth = [rendered_depth(sequence, t, pixel)[0] for t in range(3)]
    # A little of the far one shows through the near one, but its depth does not count.
    assert depth == pytest.approx([3, 3, 1.5], abs=1e-6)
    assert np.isnan(rendered_depth(sequence, 0, np.array([[62.0, 46.0]]))[0])


@pytest.mark.parametrize("occlusion_annotated", [True, False])
def test_occlusion_is_predicted_from_depth(tmp_path, occlusion_annotated):
    sequence = occlusion_sequence()
    scene = write_scene_of(sequence, tmp_path / "occluded")
    tracks = scene.views["beside"].tracks3d
    assert tracks is not None
    visible = np.array([[True, True, True], [True, True, not occlusion_annotated]])
    save_npz(
        scene.views["beside"].directory / "tracks3d.npz", xyz=tracks.xyz, visible=visible,
        query_frame=tracks.query_frame, query_xy=tracks.query_xy, object=tracks.object,
    )  # fmt: skip
    result = evaluate_points(sequence, Scene(scene.directory))
    assert result is not None
    image = result["image"]
    if occlusion_annotated:
        assert image["occlusion_accuracy"] == 1 and image["average_pck"] == 1
        assert image["average_jaccard"] == 1
        return
    # Counted: each point from each of three frames to two others. The far one is transferred to
    # the last frame from two, and predicted occluded there; queried there, the near one is tracked
    # instead, 28 and 14 px off in the other frames.
    assert image["occlusion_accuracy"] == pytest.approx(10 / 12)
    assert image["average_pck"] == pytest.approx(np.mean([10, 10, 11, 12, 12]) / 12)
    # true positives / (12 visible + 2 false positives, while beyond the threshold)
    assert image["average_jaccard"] == pytest.approx(
        np.mean([8 / 14, 8 / 14, 9 / 13, 10 / 12, 10 / 12])
    )


def test_true_tracks_become_key_frames(points_scene):
    tracks = points_scene.views["beside"].tracks3d
    assert isinstance(tracks, Tracks3D)
    few = Correspondences.from_tracks(tracks, points_scene.cameras, 3)
    assert few.frames.tolist() == [0, 5, 10] and few.known.all()
    np.testing.assert_array_equal(few.xyz[1], tracks.xyz[:, 5])
    # u = 60 x / z + 32 for the first point, at x = -0.6 + 0.15, z = 2
    np.testing.assert_allclose(few.xy[1, 0], [60 * -0.45 / 2 + 32, 60 * 0.1 / 2 + 24], atol=1e-5)
    every = Correspondences.from_tracks(tracks, points_scene.cameras, 50)
    assert every.frames.tolist() == list(range(FRAMES))


def test_keypoints_take_their_depth_from_the_clip(points_scene):
    """Bilinear depth, as SciPy has it; unknown where one of the four pixels is."""
    rng = np.random.default_rng(0)
    depths = rng.uniform(1, 3, (2, 48, 64)).astype(np.float32)
    depths[0, 20, 30] = 0
    for frame, depth in zip((2, 7), depths, strict=True):
        write_depth(points_scene.directory, frame, depth)
    xy = rng.uniform(1, 47, (2, 6, 2))
    xy[0, 0] = [30.9, 20.1]  # next to the hole
    xy[0, 1] = [10.5, 12.5]  # the centre of a pixel
    xy[1, 2] = [0.2, 20]  # outside the first pixel centre
    visible = np.ones((2, 6), bool)
    visible[1, 5] = False
    write_keypoints(points_scene.directory, Keypoints(np.array([2, 7]), xy, visible))
    keypoints = read_keypoints(points_scene.directory)
    assert keypoints is not None
    found = Correspondences.from_keypoints(keypoints, points_scene)
    expected = visible.copy()
    expected[0, 0] = expected[1, 2] = False
    np.testing.assert_array_equal(found.known, expected)
    for row in range(2):
        centres = np.arange(48) + 0.5, np.arange(64) + 0.5
        at = RegularGridInterpolator(centres, depths[row].astype(float), bounds_error=False)
        z = at(xy[row][:, ::-1])
        where = expected[row]
        # The camera is at the origin and has focal length 60.
        points = np.stack([(xy[row, :, 0] - 32) / 60 * z, (xy[row, :, 1] - 24) / 60 * z, z], -1)
        np.testing.assert_allclose(found.xyz[row][where], points[where], rtol=1e-6)
    assert find_correspondences(points_scene, keypoints).source == "keypoints and depth"  # pyright: ignore


def test_keypoints_of_the_points_themselves(points, points_scene):
    """Keypoints at the projections of the points: transferred exactly, preferred to true tracks."""
    tracks = points_scene.views["beside"].tracks3d
    assert tracks is not None
    truth = Correspondences.from_tracks(tracks, points_scene.cameras, 3)
    for frame in truth.frames:
        write_depth(points_scene.directory, int(frame), np.full((48, 64), 2.0, np.float32))
    keypoints = Keypoints(truth.frames, truth.xy, truth.visible)
    write_keypoints(points_scene.directory, keypoints)
    result = evaluate_points(points, Scene(points_scene.directory))
    assert result is not None and result["source"] == "keypoints and depth"
    assert result["pck_t"] == 1 and set(result["image"].values()) == {1.0}
    # The depth map is 2 everywhere, as the first point's; the third point is at 3 on its ray.
    assert result["transfer"]["epe3d"] > 0.1


def test_a_scene_without_points(points, points_scene):
    (points_scene.directory / "views/beside/tracks3d.npz").unlink()
    assert read_keypoints(points_scene.directory) is None
    assert evaluate_points(points, Scene(points_scene.directory)) is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"frames": np.array([3, 1])}, "increasing"),
        ({"xy": np.zeros((2, 4, 3))}, "xy: expected"),
        ({"xy": np.full((2, 4, 2), np.nan)}, "finite"),
        ({"visible": np.ones((2, 3), bool)}, "visible: expected"),
    ],
)
def test_keypoint_files_are_checked(tmp_path, change, message):
    good = {
        "frames": np.array([1, 3]),
        "xy": np.zeros((2, 4, 2)),
        "visible": np.ones((2, 4), bool),
    }
    save_npz(tmp_path / "views" / "keypoints.npz", **{**good, **change})
    with pytest.raises(InputError, match=message) as error:
        read_keypoints(tmp_path)
    assert "keypoints.npz" in str(error.value)
    save_npz(tmp_path / "views" / "keypoints.npz", frames=good["frames"])
    with pytest.raises(InputError, match="missing"):
        read_keypoints(tmp_path)
