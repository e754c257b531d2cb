"""Intrinsics that the user gives, or images recorded: kept or started from, and checked."""

from dataclasses import replace

import numpy as np
import pytest
from cards import Card, card_tracks, placed, render, sliding_cameras
from moving import write_scene
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError
from msdyn.geometry import Cameras, align_camera_paths
from msdyn.preprocess import PreprocessConfig
from msdyn.preprocess.cameras.from_files import FileCameras
from msdyn.preprocess.cameras.known_intrinsics import checked_intrinsics
from msdyn.preprocess.cameras.reliability import CameraFigures, judge_cameras
from msdyn.preprocess.cameras.structure_from_motion import SfmCameras
from msdyn.scene import Observations, Scene, Tracks, stamp_stage, write_cameras

FRAMES, FOCAL, WIDTH, HEIGHT, CUT = 8, 220, 256, 192, 48


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A camera slides past cards; images of which the left 48 columns are cut off."""
    cameras = sliding_cameras(FRAMES, FOCAL, WIDTH, HEIGHT, reach=1.0)
    cards = [
        Card(9, 7, placed(0, 0, 5, frames=FRAMES), seed=1),
        Card(6, 5, placed(0, 1.1, 3.2, pitch=75, frames=FRAMES), seed=2),
        Card(1.0, 1.2, placed(-1.0, -0.2, 3.2, yaw=20, frames=FRAMES), seed=3),
        Card(0.8, 1.0, placed(1.1, 0.1, 2.8, yaw=-15, frames=FRAMES), seed=4),
    ]
    rendered = render(cards, cameras)
    scene = write_scene(tmp_path_factory.mktemp("cut") / "scene", rendered.images[:, :, CUT:])
    seen = card_tracks(cards, cameras, rendered, 14).observations()
    xy = seen.xy - np.array([CUT, 0], np.float32)
    inside = xy[:, 0] > 0
    track, number = np.unique(seen.track[inside], return_inverse=True)
    found = Observations(number, seen.frame[inside], xy[inside], seen.confidence[inside])
    none = np.zeros(len(track), int)
    first = np.full(len(track), FRAMES)
    np.minimum.at(first, number, found.frame)
    return scene, Tracks.from_observations(FRAMES, found, none, first), cameras


TRUE = (FOCAL, FOCAL, WIDTH / 2 - CUT, HEIGHT / 2)


def turns(solution, cameras):
    """Return the mean angle in degrees between orientations of aligned cameras."""
    found = solution.cameras.transformed(align_camera_paths(solution.cameras, cameras))
    between = found.cam_from_world[:, :3, :3] @ cameras.cam_from_world[:, :3, :3].swapaxes(1, 2)
    return float(np.degrees(Rotation.from_matrix(between).magnitude()).mean())


def test_structure_from_motion_keeps_given_intrinsics(clip):
    scene, tracks, cameras = clip
    solution = SfmCameras(intrinsics=TRUE).solve(scene, tracks, None)
    k = solution.cameras.intrinsics[0]
    assert [k[0, 0], k[1, 1], k[0, 2], k[1, 2]] == pytest.approx(TRUE)
    assert solution.motion == "moving" and solution.quality["intrinsics"] == "given"
    assert solution.verdict.grade == "good" and turns(solution, cameras) < 0.05
    assert "focal_error" not in solution.quality


def test_structure_from_motion_starts_from_a_focal_length(clip):
    scene, tracks, cameras = clip
    start = (FOCAL * 1.3, FOCAL * 1.3, *TRUE[2:])
    solution = SfmCameras(intrinsics=start, intrinsics_use="start").solve(scene, tracks, None)
    k = solution.cameras.intrinsics[0]
    assert k[0, 0] == k[1, 1] == pytest.approx(FOCAL, rel=0.02)
    assert k[0, 2] == TRUE[2] and len(solution.quality["focal_candidates_px"]) == 1
    assert turns(solution, cameras) < 0.1


@pytest.mark.reliability
def test_structure_from_motion_starts_from_what_images_recorded(clip, caplog):
    scene, tracks, _ = clip
    old = scene.info.stages["frames"]
    more = {"source_focal_px": FOCAL * 1.05, "source_focal": "EXIF: 26 mm, as on full frame"}
    stamp_stage(
        scene.directory, "frames", backend="video", options=old["options"] | more, input_hash="f",
        seconds=0.0,
    )  # fmt: skip
    solution = SfmCameras().solve(Scene(scene.directory), tracks, None)
    assert len(solution.quality["focal_candidates_px"]) == 1
    assert [r.message for r in caplog.records] == [
        "cameras: the focal length starts from EXIF: 26 mm, as on full frame"
    ]
    stamp_stage(
        scene.directory, "frames", backend="video", options=old["options"], input_hash="f",
        seconds=0.0,
    )  # fmt: skip


def test_given_intrinsics_are_scaled_to_the_scene_and_kept_by_a_static_camera(tmp_path):
    scene = write_scene(tmp_path / "s", np.zeros((12, 48, 64, 3), np.uint8))
    options = scene.info.stages["frames"]["options"] | {"source_width": 640, "source_height": 480}
    stamp_stage(
        scene.directory, "frames", backend="video", options=options, input_hash="f", seconds=0.0
    )
    xy = np.random.default_rng(0).uniform(2, 45, (50, 1, 2)) + np.zeros((50, 12, 2))
    ones = np.ones((50, 12))
    tracks = Tracks.from_dense(xy, ones > 0, ones, np.zeros(50), np.zeros(50))
    files = SfmCameras(intrinsics=(500, 510, 330, 230))
    solution = files.solve(Scene(scene.directory), tracks, None)
    assert solution.motion == "static" and "guess" not in solution.verdict.reason
    k = solution.cameras.intrinsics[3]
    assert [k[0, 0], k[1, 1], k[0, 2], k[1, 2]] == pytest.approx([50, 51, 33, 23])


@pytest.mark.reliability
def test_a_given_focal_length_that_the_clip_contradicts_is_said(tmp_path):
    cameras = sliding_cameras(14, FOCAL, WIDTH, HEIGHT, reach=1.2)
    cards = [
        Card(9, 7, placed(0, 0, 5, frames=14), seed=1),
        Card(6, 5, placed(0, 1.1, 3.2, pitch=75, frames=14), seed=2),
        Card(1.0, 1.2, placed(-1.2, -0.2, 3.2, yaw=20, frames=14), seed=3),
        Card(0.8, 1.0, placed(1.1, 0.1, 2.8, yaw=-15, frames=14), seed=4),
    ]
    rendered = render(cards, cameras)
    scene = write_scene(tmp_path / "scene", rendered.images)
    tracks = card_tracks(cards, cameras, rendered, 14)
    middle = (WIDTH / 2, HEIGHT / 2)
    for factor, words in ((1.0, ""), (1.5, "shorter fits"), (0.7, "longer fits")):
        given = (factor * FOCAL, factor * FOCAL, *middle)
        verdict = SfmCameras(intrinsics=given).solve(scene, tracks, None).verdict
        assert verdict.grade == ("usable" if words else "good"), (factor, verdict)
        assert words in verdict.reason


@pytest.mark.parametrize(
    "values, words",
    [
        ((150, 150, 80, 60), "expected cx cy near the middle .*1920x1080.* of an image of 160x120"),
        ((1500, 1500, 80, 540), "expected cx cy near the middle"),
        ((30000, 30000, 960, 540), "is one of 3.7 degrees"),
        ((50, 50, 960, 540), "is one of 17"),
        ((float("nan"), 1, 960, 540), "fx fy > 0"),
    ],
)
def test_impossible_intrinsics_are_refused(values, words):
    with pytest.raises(InputError, match=f"--intrinsics: .*{words}") as error:
        checked_intrinsics(values, (1080, 1920))
    assert "\n" not in str(error.value)


def test_intrinsics_beside_cameras_that_have_their_own_are_refused(tmp_path):
    scene = write_scene(tmp_path / "s", np.zeros((4, 48, 64, 3), np.uint8))
    poses = np.tile(np.eye(4), (4, 1, 1))
    write_cameras(tmp_path / "c.json", Cameras.pinhole(60.0, 64, 48, poses))
    files = FileCameras(tmp_path / "c.json", intrinsics=(60, 60, 32, 24))
    with pytest.raises(InputError, match="given, but .* has its own; leave it out"):
        files.solve(scene, None, None)


def test_options_are_checked_as_they_are_read(tmp_path):
    with pytest.raises(InputError, match="intrinsics: expected above 0, got 0"):
        PreprocessConfig(tmp_path / "v.mp4", intrinsics=(0, 1, 2, 3))


def test_a_known_focal_length_of_a_planar_scene_is_no_reason_for_doubt():
    figures = CameraFigures(
        "moving", 640, 20, registered=20, angle=8.0, background_px=9.0, focals=(500.0,), planar=1.0
    )
    assert judge_cameras(figures).grade == "usable"
    assert judge_cameras(replace(figures, focal_given=True)).grade == "good"
