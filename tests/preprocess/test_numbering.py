"""Cameras given by name: which frame each is of, decided by names, by tracks, or not at all."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from camera_writers import nerfstudio_content, write_colmap_text
from moving import write_scene
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError
from msdyn.geometry import Cameras, project, transform_points
from msdyn.preprocess import PreprocessConfig
from msdyn.preprocess.cameras.from_files import FileCameras
from msdyn.preprocess.frame_matching import Numbering, frame_files
from msdyn.scene import Scene, Tracks, stamp_stage
from msdyn.writing import write_json

HEIGHT, WIDTH, FRAMES = 96, 128, 24


def path(even=False):
    """Return cameras of a hand-held walk, or of even motion, one per frame of the video."""
    rng = np.random.default_rng(3)
    world_from_cam = np.tile(np.eye(4), (FRAMES, 1, 1))
    step = np.tile([0.03, 0.0, 0.0], (FRAMES, 1))
    if not even:
        step += rng.normal(0, 0.012, (FRAMES, 3))
        turns = np.cumsum(rng.normal(0, 0.006, (FRAMES, 3)), axis=0)
        world_from_cam[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
    world_from_cam[:, :3, 3] = np.cumsum(step, axis=0)
    return Cameras.pinhole(110.0, WIDTH, HEIGHT, np.linalg.inv(world_from_cam))


def observed(cameras, noise=0.1):
    """Return tracks of random points, with noise in px."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform([-1.5, -1.2, 1.5], [2.2, 1.2, 5], (300, 3))
    local = transform_points(cameras.cam_from_world, xyz)
    xy = project(cameras.intrinsics, local).swapaxes(0, 1)
    seen = ((xy >= 0) & (xy <= [WIDTH, HEIGHT])).all(-1)
    seen &= seen.sum(1, keepdims=True) > 3
    xy = np.where(seen[..., None], xy + rng.normal(0, noise, xy.shape), 0)
    first = seen.argmax(1)
    tracks = Tracks.from_dense(xy, seen, seen.astype(float), np.zeros(len(xy)), first)
    return tracks.select(tracks.lifetimes > 0)


def clip(folder, kept=None, names=None):
    """Return a scene of some frames of a video of 24, or of a folder of images."""
    kept = list(range(FRAMES)) if kept is None else kept
    scene = write_scene(folder / "scene", np.zeros((len(kept), HEIGHT, WIDTH, 3), np.uint8))
    options = dict(scene.info.stages["frames"]["options"])
    options |= {"source_frames": kept, "source_frame_count": FRAMES}
    if names is not None:
        options["source_names"] = names
    stamp_stage(
        scene.directory, "frames", backend="video", options=options, input_hash="f", seconds=0.0
    )
    return Scene(scene.directory)


def solve(folder, scene, cameras, frames, numbers, tracks, numbering=None, form="{:05d}.png"):
    """Solve with a COLMAP model of some frames of the video, whose images are numbered so."""
    names = [form.format(number) for number in numbers]
    shutil.rmtree(folder / "model", ignore_errors=True)
    model = write_colmap_text(  # at half the size
        folder / "model", cameras[np.array(frames)], params=[55, 55, 32, 24], names=names
    )
    return FileCameras(model, numbering=numbering).solve(scene, tracks, None)


def check(solution, truth, rows):
    """Compare the cameras of the frames `rows`, in the world of the file."""
    found = solution.cameras.cam_from_world[rows]
    np.testing.assert_allclose(found, truth.cam_from_world[rows], atol=1e-5)


@pytest.mark.parametrize(
    "frames, first, step",
    [
        (range(23), 1, 1),  # ffmpeg's names, the last image not registered
        (range(1, 24), 0, 1),  # names from 0, the first not registered
        (range(0, 24, 2), 1, 2),  # extracted at half the rate
        (range(1, 24, 3), 1, 3),  # at a third of it, of which ffmpeg takes frames 1, 4, ...
        (range(0, 24, 4), 0, 4),
    ],
)
def test_tracks_decide_what_the_numbers_count(tmp_path, caplog, frames, first, step):
    cameras, frames = path(), list(frames)
    numbers = [(frame - frames[0] % step) // step + first for frame in frames]
    solution = solve(tmp_path, clip(tmp_path), cameras, frames, numbers, observed(cameras))
    check(solution, cameras, frames)
    assert solution.quality["registered_frames"] == len(frames)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1 and "as the tracks show" in lines[0] and "\n" not in lines[0]


def test_even_motion_tells_nothing_and_is_refused_until_told(tmp_path):
    cameras, scene = path(even=True), clip(tmp_path)
    tracks, frames = observed(cameras), list(range(23))
    with pytest.raises(InputError, match=r"numbered from 0 \(--numbering 0 0 1\) or .*say which"):
        solve(tmp_path, scene, cameras, frames, range(1, 24), tracks)
    told = solve(tmp_path, scene, cameras, frames, range(1, 24), tracks, Numbering(1, 0, 1))
    check(told, cameras, frames)
    with pytest.raises(InputError, match="numbered from 0"):
        solve(tmp_path, scene, cameras, frames, range(1, 24), None)


def test_names_that_leave_no_choice_need_no_tracks(tmp_path, caplog):
    cameras, scene = path(even=True), clip(tmp_path)
    for first, frames in ((0, list(range(23))), (1, list(range(1, 24))), (1001, list(range(24)))):
        numbers = [frame + first for frame in frames]
        check(solve(tmp_path, scene, cameras, frames, numbers, None), cameras, frames)
    assert not caplog.records


def test_cameras_of_another_clip_fit_in_no_reading(tmp_path):
    cameras = path()
    rising = cameras.cam_from_world[:, [1, 0, 2, 3]]  # sideways and upwards exchanged
    other = replace(cameras, cam_from_world=rising[:, :, [1, 0, 2, 3]])
    with pytest.raises(InputError, match="in no reading of their names .*another clip"):
        solve(tmp_path, clip(tmp_path), other, range(23), range(1, 24), observed(cameras))


def test_a_whole_set_of_cameras_that_tracks_contradict_is_poor(tmp_path):
    cameras, scene = path(), clip(tmp_path)
    tracks = observed(cameras)
    good = solve(tmp_path, scene, cameras, range(24), range(24), tracks)
    assert good.verdict.grade == "good" and good.quality["track_error_px"] < 0.2
    inverse = replace(cameras, cam_from_world=cameras.world_from_cam)
    poor = solve(tmp_path, scene, inverse, range(24), range(24), tracks)
    assert poor.verdict.grade == "poor" and "most static tracks are" in poor.verdict.reason


def test_images_of_a_thinned_scene_are_numbered_by_its_frames(tmp_path):
    """Names of a model of scene/images, without its first frame: not frames 1, 2, ... of the video,
    nor of the scene from 1."""
    cameras, kept = path(), list(range(0, 24, 2))
    scene, thinned = clip(tmp_path, kept), cameras[np.array(kept)]
    tracks = observed(thinned)
    solution = solve(tmp_path, scene, cameras, kept[1:], range(1, 12), tracks)
    check(solution, thinned, list(range(1, 12)))
    # One for every frame kept: so it is documented, with tracks that tell nothing too.
    solution = solve(tmp_path, scene, cameras, kept, range(12), None)
    check(solution, thinned, list(range(12)))
    # The first twelve frames of the video, of which six are in the scene.
    solution = solve(tmp_path, scene, cameras, list(range(12)), range(12), tracks)
    check(solution, thinned, list(range(6)))


def test_images_of_a_folder_with_shifted_names(tmp_path):
    """A model of scene/images, whose names are those of the folder for the image before."""
    cameras = path()
    scene = clip(tmp_path, names=[f"{i:05d}.png" for i in range(1, 25)])
    frames = list(range(1, 24))
    solution = solve(tmp_path, scene, cameras, frames, frames, observed(cameras))
    check(solution, cameras, frames)
    named = [frame + 1 for frame in frames]
    solution = solve(tmp_path, scene, cameras, frames, named, observed(cameras))
    check(solution, cameras, frames)


def test_transforms_are_read_by_name_in_any_order(tmp_path):
    cameras = path()
    frames = [5, 3, *range(8, 23), 0, 1, 7]
    content = nerfstudio_content(
        cameras[np.array(frames)], [f"images/frame_{f + 1:05d}.png" for f in frames]
    )
    content |= {"w": WIDTH, "h": HEIGHT, "fl_x": 110, "fl_y": 110, "cx": 64, "cy": 48}
    write_json(tmp_path / "transforms.json", content)
    files = FileCameras(tmp_path / "transforms.json")
    check(files.solve(clip(tmp_path), observed(cameras), None), cameras, sorted(frames))


def test_objects_do_not_decide(tmp_path):
    """Tracks of an object, a third of all, are not used."""
    cameras = path()
    tracks = observed(cameras)
    moving = np.arange(len(tracks)) % 3 == 0
    tracks = replace(tracks, object=moving.astype(np.int32))
    solution = solve(tmp_path, clip(tmp_path), cameras, range(23), range(1, 24), tracks)
    check(solution, cameras, list(range(23)))


def write_files(folder, numbers, suffix=".npy", form="d_{:04d}"):
    folder.mkdir()
    for number in numbers:
        (folder / (form.format(number) + suffix)).touch()
    return folder


@pytest.mark.parametrize(
    "kept, numbers, found",
    [
        (None, range(24), range(24)),
        (None, range(1, 25), range(1, 25)),
        (None, range(1000, 1240, 10), range(1000, 1240, 10)),
        (range(0, 24, 2), range(1, 25), range(1, 25, 2)),
        (range(0, 24, 2), range(12), range(12)),  # one for every frame kept
        (range(0, 24, 2), range(0, 24, 2), range(0, 24, 2)),
        (range(0, 24, 2), range(1, 24, 2), range(1, 24, 2)),
        (range(0, 24, 2), range(23), range(0, 23, 2)),  # the last is of no frame kept
    ],
)
def test_files_are_matched_by_number(tmp_path, kept, numbers, found):
    scene = clip(tmp_path, None if kept is None else list(kept))
    files = frame_files(scene, write_files(tmp_path / "d", numbers), (".npy",))
    assert [int(file.stem[2:]) for file in files] == list(found)


@pytest.mark.parametrize(
    "numbers, missing",
    [
        ([*range(7), *range(8, 24)], "missing: d_0007.npy;"),
        ([*range(7), *range(8, 25)], "missing: d_0007.npy;"),  # 24 files, but not of 24 frames
        (range(23), "missing: d_0023.npy;"),
        (range(1, 24), "missing: d_0024.npy or d_0000.npy;"),
        (range(1, 13), "d_0013.npy, d_0014.npy, d_0015.npy, d_0016.npy, d_0017.npy and 7 more"),
        (range(0, 24, 2), "missing: .*--fps"),
    ],
)
def test_missing_files_are_named(tmp_path, numbers, missing):
    with pytest.raises(InputError, match=missing) as error:
        frame_files(clip(tmp_path), write_files(tmp_path / "d", numbers), (".npy",))
    assert "\n" not in str(error.value)


def test_files_numbered_from_0_or_1_are_refused_until_told(tmp_path):
    scene = clip(tmp_path, list(range(5, 15)))
    folder = write_files(tmp_path / "d", range(3, 20))
    with pytest.raises(
        InputError, match="from 0 or from 1 .* --numbering NUMBER FRAME STEP: 0 0 1"
    ):
        frame_files(scene, folder, (".npy",))
    files = frame_files(scene, folder, (".npy",), Numbering(3, 2, 1))
    assert [file.stem for file in files] == [f"d_{i:04d}" for i in range(6, 16)]
    # Said of cameras, it need not be true of depth.
    whole = write_files(tmp_path / "whole", range(24))
    files = frame_files(scene, whole, (".npy",), Numbering(1, 0, 2))
    assert [file.stem for file in files] == [f"d_{i:04d}" for i in range(5, 15)]


def test_files_named_as_the_images_are_matched_by_name(tmp_path):
    names = [f"IMG_{i}.JPG" for i in (7, 9, 12, *range(20, 41))]
    scene = clip(tmp_path, names=names)
    folder = write_files(tmp_path / "d", (7, 9, 12, *range(20, 60)), form="IMG_{}")
    files = frame_files(scene, folder, (".npy",))
    assert [file.stem for file in files] == [name[:-4] for name in names]


def test_files_of_file_managers_are_no_frames(tmp_path):
    folder = write_files(tmp_path / "d", range(24))
    for name in ("._d_0003.npy", ".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    assert len(frame_files(clip(tmp_path), folder, (".npy",))) == 24


def test_the_option_is_checked(tmp_path):
    for wrong in ((1, 0, 0), (-1, 0, 1), (1, 0, float("nan"))):
        with pytest.raises(InputError, match="numbering: expected"):
            PreprocessConfig(tmp_path / "v.mp4", numbering=wrong)
