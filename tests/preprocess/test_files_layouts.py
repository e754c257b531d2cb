"""Files of other programs as backends: which frame is which, what is missing, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from camera_writers import nerfstudio_content, write_colmap_text, write_tum
from moving import write_scene
from PIL import Image
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError
from msdyn.geometry import Cameras, project, transform_points
from msdyn.preprocess.cameras.from_files import FileCameras
from msdyn.preprocess.depth.from_files import FileDepth
from msdyn.preprocess.masks.from_files import FileMasks
from msdyn.preprocess.multiview.track_labels import assign_objects
from msdyn.preprocess.tracks.from_files import FileTracks
from msdyn.scene import Scene, Tracks, stamp_stage
from msdyn.writing import write_json

HEIGHT, WIDTH, FRAMES = 48, 64, 10
NO_TRACKS = Tracks.from_dense(
    np.zeros((0, FRAMES, 2)),
    np.zeros((0, FRAMES)),
    np.zeros((0, FRAMES)),
    np.zeros(0),
    np.zeros(0),
)


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene", np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8))


@pytest.fixture
def cameras():
    """Constant rotation and translation, so that interpolated cameras are exact."""
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    turned = Rotation.from_rotvec(np.arange(FRAMES)[:, None] * [0, 0.02, 0])
    world_from_cam = poses.copy()
    world_from_cam[:, :3, :3] = turned.as_matrix()
    world_from_cam[:, :3, 3] = np.arange(FRAMES)[:, None] * [0.1, 0, 0.05]
    return Cameras.pinhole(70.0, WIDTH, HEIGHT, np.linalg.inv(world_from_cam))


def close(found, cameras, atol=1e-6):
    np.testing.assert_allclose(found.cam_from_world, cameras.cam_from_world, atol=atol)


def test_images_that_colmap_did_not_register_lie_between_their_neighbours(scene, cameras, tmp_path):
    kept = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9])
    names = [f"{i:05d}.png" for i in kept]
    folder = write_colmap_text(tmp_path / "m", cameras[kept], names=names)
    solution = FileCameras(folder).solve(scene, None, None)
    close(solution.cameras, cameras)
    assert solution.quality["registered_frames"] == 9 and solution.quality["layout"] == "COLMAP"
    assert solution.verdict.grade == "usable" and "1 of 10 frames" in solution.verdict.reason


def test_frames_without_camera_are_placed_by_tracks(tmp_path, cameras):
    """The camera jolts in two frames without a camera; static tracks give its pose."""
    scene = write_scene(tmp_path / "scene", np.zeros((FRAMES, 192, 256, 3), np.uint8))
    poses = cameras.world_from_cam.copy()
    poses[3:5, :3, 3] += [[0, 0.04, -0.03], [0.02, -0.05, 0]]
    jolting = Cameras.pinhole(220.0, 256, 192, np.linalg.inv(poses))
    xyz = np.random.default_rng(0).uniform([-1.5, -1.5, 2], [2.5, 1.5, 5], (300, 3))
    xy = project(jolting.intrinsics, transform_points(jolting.cam_from_world, xyz)).swapaxes(0, 1)
    seen = ((xy >= 0) & (xy <= [256, 192])).all(-1)
    xy = np.where(seen[..., None], xy, 0)
    xy[:40, :, 0] += np.where(seen[:40], 4.0 * np.arange(FRAMES), 0)  # a moving object
    masks = np.zeros((FRAMES, 192, 256), np.uint8)
    for frame, (x, y) in enumerate(xy[:40].transpose(1, 2, 0)):
        masks[frame, y.astype(int).clip(0, 191), x.astype(int).clip(0, 255)] = seen[:40, frame]
    tracks = Tracks.from_dense(xy, seen, seen.astype(float), np.zeros(300), np.zeros(300))
    tracks = replace(tracks, object=assign_objects(tracks, masks))
    kept = np.array([0, 1, 2, 5, 6, 7, 8, 9])
    content = nerfstudio_content(jolting[kept], [f"images/{i:05d}.png" for i in kept])
    content |= {"w": 256, "h": 192, "fl_x": 220.0, "fl_y": 220.0, "cx": 128.0, "cy": 96.0}
    write_json(tmp_path / "transforms.json", content)
    files = FileCameras(tmp_path / "transforms.json")
    between = files.solve(scene, None, None)
    assert np.abs(between.cameras.centres - jolting.centres).max() > 0.03
    solution = files.solve(scene, tracks, masks)
    close(solution.cameras, jolting, atol=1e-4)
    assert solution.quality["placed_by_tracks"] == 2
    assert "from static tracks (2)" in solution.verdict.reason


def test_too_few_registered_images_are_poor(scene, cameras, tmp_path):
    kept = np.array([0, 4, 9])
    names = [f"{i + 1:05d}.png" for i in kept]  # numbered from 1
    folder = write_colmap_text(tmp_path / "m", cameras[kept], names=names)
    solution = FileCameras(folder).solve(scene, None, None)
    close(solution.cameras, cameras)
    assert solution.verdict.grade == "poor"


def test_names_that_tell_no_frame_are_refused(scene, cameras, tmp_path):
    for i, names in enumerate((["a.png", "b.png", "c.png"], ["1.png", "7.png", "99.png"])):
        folder = write_colmap_text(tmp_path / str(i), cameras[[0, 1, 2]], names=names)
        with pytest.raises(InputError, match="names that end with frame numbers of the video"):
            FileCameras(folder).solve(scene, None, None)


def test_a_folder_of_images_goes_by_its_names(scene, cameras, tmp_path):
    options = dict(scene.info.stages["frames"]["options"])
    options["source_names"] = [f"shot_{7 * i}.jpg" for i in range(FRAMES)]
    stamp_stage(
        scene.directory, "frames", backend="video", options=options, input_hash="f", seconds=0.0
    )
    kept = np.arange(1, FRAMES)
    content = nerfstudio_content(cameras[kept], [f"./images/shot_{7 * i}.png" for i in kept])
    content |= {"fl_x": 70.0, "fl_y": 70.0, "cx": WIDTH / 2, "cy": HEIGHT / 2}
    write_json(tmp_path / "transforms.json", content)
    solution = FileCameras(tmp_path / "transforms.json").solve(Scene(scene.directory), None, None)
    close(solution.cameras[kept], cameras[kept])
    assert solution.quality["registered_frames"] == FRAMES - 1


def test_poses_at_other_times_are_interpolated(scene, cameras, tmp_path):
    path = tmp_path / "t.txt"
    seconds = 1.3e9 + np.arange(5) * 2 / 24 + np.array([0, 0, 0, 0, 1]) / 24
    write_tum(path, cameras[[0, 2, 4, 6, 9]], seconds)
    solution = FileCameras(path, "metric", (70, 70, 32, 24)).solve(scene, None, None)
    close(solution.cameras, cameras, atol=1e-5)
    assert solution.world_units == "metric"
    write_tum(path, cameras[[0, 2, 4]], seconds[:3])
    with pytest.raises(InputError, match=r"expected poses from 0\.00 to 0\.38 s"):
        FileCameras(path, "metric", (70, 70, 32, 24)).solve(scene, None, None)


def test_one_npz_gives_cameras_and_depth_at_the_size_of_a_network(scene, cameras, tmp_path):
    # 70x52: multiples of 14 or so, a little off the shape of 64x48.
    small = cameras.resized(70, 52)
    depth = np.full((FRAMES, 52, 70), 2.0, np.float32)
    depth[:, :, 35:] = 5
    depth[3, 0] = np.nan
    np.savez(
        tmp_path / "r.npz",
        depth=depth,
        extrinsics=small.cam_from_world[:, :3],
        intrinsics=small.intrinsics,
    )
    solution = FileCameras(tmp_path / "r.npz").solve(scene, None, None)
    close(solution.cameras, cameras)
    np.testing.assert_allclose(solution.cameras.intrinsics, cameras.intrinsics, atol=1e-9)
    stream = FileDepth(tmp_path / "r.npz").estimate(scene, None, None, None).maps
    maps = np.stack([item.depth for item in stream])
    assert maps.shape == (FRAMES, HEIGHT, WIDTH) and stream.figures["known"] < 1
    assert set(np.unique(maps[0])) == {2, 5} and (maps[3, 0] == 0).all()
    assert (maps[0] == 5).mean() == pytest.approx(0.5)


def test_a_folder_an_object(scene, tmp_path):
    large = np.zeros((HEIGHT, WIDTH), np.uint8)
    large[10:40, 10:40] = 255
    small = np.zeros((HEIGHT, WIDTH), np.uint8)
    small[20:25, 30:50] = 1
    for name, mask in (("2", large), ("10", small)):
        (tmp_path / "m" / name).mkdir(parents=True)
        for i in range(FRAMES):
            Image.fromarray(np.roll(mask, i, 1)).save(tmp_path / "m" / name / f"{i}.png")
    stream = FileMasks(tmp_path / "m").segment(scene, NO_TRACKS, None).masks
    masks = np.stack(list(stream))
    assert stream.figures == {"folders": ["2", "10"], "resampled": 1}
    expected = np.where(small > 0, 2, np.where(large > 0, 1, 0))
    np.testing.assert_array_equal(masks[0], expected)  # the smaller one on top
    np.testing.assert_array_equal(masks[4], np.roll(expected, 4, 1))
    (tmp_path / "m" / "10" / "3.png").unlink()
    with pytest.raises(InputError, match="10: .png files: expected 10, .* got 9"):
        FileMasks(tmp_path / "m").segment(scene, NO_TRACKS, None)


def test_tracks_of_other_layouts(scene, tmp_path):
    xy = np.random.default_rng(0).uniform(1, 40, (FRAMES, 4, 2)).astype(np.float32)
    np.savez(tmp_path / "c.npz", pred_tracks=xy, pred_visibility=np.ones((FRAMES, 4), bool))
    result = FileTracks(tmp_path / "c.npz").track(scene)
    assert result.figures["layout"] == "CoTracker"
    assert result.figures["mean_life_frames"] == FRAMES
    np.testing.assert_allclose(result.tracks.xy, xy.swapaxes(0, 1) + 0.5)
    np.savez(tmp_path / "o.npz", points=xy)
    with pytest.raises(InputError, match=r"no tracks of a known layout; .* got points"):
        FileTracks(tmp_path / "o.npz").track(scene)
