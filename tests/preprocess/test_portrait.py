"""Portrait clips: a clip rotated by a quarter has the same cameras, rotated, and the same verdict.

Limits that depend on the size of the image are those of its longer side.
"""

from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
from cards import render, room_of_cards, sliding_cameras, write_frames
from moving import panning, turn
from scipy.spatial.transform import Rotation

from msdyn.cli.preprocess import main
from msdyn.geometry import Cameras, align_camera_paths
from msdyn.io import scan_video, thumbnail_size, write_video
from msdyn.preprocess.cameras.camera_motion import motion_of_given
from msdyn.preprocess.frames.shots import find_cuts
from msdyn.preprocess.masks.motion import MotionMasks
from msdyn.preprocess.report.quality import judge_stages
from msdyn.scene import Scene

FRAMES, FOCAL, WIDTH, HEIGHT = 14, 220, 256, 192
UNTIL_CAMERAS = [part for stage in ("frames", "tracks", "masks", "cameras")
                 for part in ("--only", stage)]  # fmt: skip


def preprocessed(folder, images, quarters, *options):
    """Return code and scene of images that are rotated by quarters anticlockwise."""
    source = folder / f"images{quarters}"
    source.mkdir()
    for i, image in enumerate(images):
        iio.imwrite(source / f"{i:03d}.png", np.rot90(image, quarters))
    out = folder / f"scene{quarters}"
    arguments = [str(source), "--out", str(out), "--saliency", "off", *options, *UNTIL_CAMERAS]
    return main(arguments), Scene(out)


def rotated_back(cameras, quarters):
    """Return the orientations that cameras of rotated images have before they are rotated."""
    about_z = np.eye(4)
    about_z[:3, :3] = Rotation.from_euler("z", 90 * quarters, degrees=True).as_matrix()
    return replace(cameras, cam_from_world=about_z @ cameras.cam_from_world)


def room():
    """Return images of a camera that moves through a room in which one card moves."""
    cameras = sliding_cameras(FRAMES, FOCAL, WIDTH, HEIGHT, reach=1.2)
    return render(room_of_cards(FRAMES), cameras).images


@pytest.mark.slow
@pytest.mark.reliability
@pytest.mark.parametrize("quarters", [1, 3])
def test_a_moving_camera_is_the_same_in_portrait(tmp_path, quarters):
    images = room()
    code, scene = preprocessed(tmp_path, images, 0)
    cameras, stages = scene.cameras, scene.info.stages
    length = np.linalg.norm(np.diff(cameras.centres, axis=0), axis=1).sum()
    other_code, other = preprocessed(tmp_path, images, quarters)
    assert code == other_code == 0 and other.size == (WIDTH, HEIGHT)
    assert other.info.stages["cameras"]["quality"]["motion"] == "moving"
    assert judge_stages(other.info.stages)["cameras"] == judge_stages(stages)["cameras"]
    found = rotated_back(other.cameras, quarters)
    np.testing.assert_array_equal(found.intrinsics[0, :2, 2], [HEIGHT / 2, WIDTH / 2])
    focal = cameras.intrinsics[0, 0, 0]
    assert found.intrinsics[0, 0, 0] == pytest.approx(focal, rel=0.003)  # .02 %
    found = found.transformed(align_camera_paths(found, cameras))
    away = np.linalg.norm(found.centres - cameras.centres, axis=1)
    assert away.max() < 0.002 * length  # .015 %
    between = found.cam_from_world[:, :3, :3] @ cameras.cam_from_world[:, :3, :3].swapaxes(1, 2)
    assert np.degrees(Rotation.from_matrix(between).magnitude()).max() < 0.05  # .008 degrees
    shares = [s.info.stages["masks"]["quality"]["moving_share"] for s in (scene, other)]
    assert shares[1] == pytest.approx(shares[0], rel=0.05)  # .5 %


def test_a_rotating_camera_is_rotating_in_portrait(tmp_path, capsys):
    images = panning(8, (72, 96), 1.5, (1.0, 0.0))[0]
    found = [preprocessed(tmp_path, images, quarters, "--masks", "none") for quarters in (0, 1)]
    assert [code for code, _ in found] == [3, 3]
    assert capsys.readouterr().err.count("rotating in one place") == 2
    (_, scene), (_, other) = found
    back = rotated_back(other.cameras, 1).cam_from_world[:, :3, :3]
    back = back @ back[0].T
    between = back @ scene.cameras.cam_from_world[:, :3, :3].swapaxes(1, 2)
    assert np.degrees(Rotation.from_matrix(between).magnitude()).max() < 0.2


def test_cameras_of_the_user_are_judged_by_the_longer_side():
    cameras = Cameras.pinhole(900.0, 540, 960, np.tile(np.eye(4), (3, 1, 1)))
    sideways = Cameras.pinhole(900.0, 960, 540, np.tile(np.eye(4), (3, 1, 1)))
    assert motion_of_given(cameras, None) == motion_of_given(sideways, None)


def test_outlines_of_masks_move_as_far_in_portrait(monkeypatch, tmp_path):
    from msdyn.preprocess.masks import motion

    bands = []
    monkeypatch.setattr(motion, "_refine_outline", lambda image, labels, band: bands.append(band))
    for size in ((96, 480), (480, 96)):
        scene = write_frames(tmp_path / str(size), np.zeros((2, *size, 3), np.uint8))
        outlines = MotionMasks(band_px=40)._outlines(scene, [np.zeros((1, 1), np.uint8)], {})
        with pytest.raises(TypeError):  # None is no mask
            next(outlines)
    assert bands == [22, 22]


def test_a_phone_that_records_portrait_as_rotation_metadata(tmp_path, capsys):
    upright = panning(8, (96, 72), 1.5, (1.0, 0.0))[0]
    write_video(tmp_path / "phone.mp4", [np.rot90(image) for image in upright], 24, crf=4)
    turn(tmp_path / "phone.mp4", 90)
    write_video(tmp_path / "upright.mp4", list(upright), 24, crf=4)
    found = []
    for name in ("phone", "upright"):
        out = tmp_path / name
        options = ["--masks", "none", "--intrinsics", "200", "200", "36", "48", *UNTIL_CAMERAS]
        assert main([str(tmp_path / f"{name}.mp4"), "--out", str(out), *options]) == 3
        found.append(Scene(out))
    phone, other = found
    assert phone.size == other.size == (96, 72)
    difference = phone.image(5).astype(int) - other.image(5)
    assert np.abs(difference.mean(-1)).mean() < 3 < np.abs(difference[::-1]).mean()
    np.testing.assert_array_equal(phone.cameras.intrinsics, other.cameras.intrinsics)
    a, b = (scene.cameras.cam_from_world[:, :3, :3] for scene in found)
    assert np.degrees(Rotation.from_matrix(a @ b.swapaxes(1, 2)).magnitude()).max() < 0.3
    # Intrinsics of the stored, landscape picture are refused, in one line.
    capsys.readouterr()
    options = ["--masks", "none", "--intrinsics", "200", "200", "48", "36", *UNTIL_CAMERAS]
    assert main([str(tmp_path / "phone.mp4"), "--out", str(tmp_path / "phone"), *options]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "at its full size, 72x96" in err and "exchange" in err


def test_cuts_are_found_in_thumbnails_of_the_same_size(tmp_path):
    assert thumbnail_size(3840, 2160, 160) == (160, 90)
    assert thumbnail_size(2160, 3840, 160) == (90, 160)
    cut = [*panning(6, (54, 96))[0], *panning(6, (54, 96), seed=7)[0]]
    for quarters in (0, 1):
        write_video(tmp_path / "v.mp4", [np.rot90(image, quarters) for image in cut], 24)
        thumbnails = scan_video(tmp_path / "v.mp4", thumbnail_side=160).thumbnails
        assert max(thumbnails.shape[1:]) == 160 and find_cuts(thumbnails).tolist() == [6]


@pytest.mark.parametrize("quarters", [0, 1])
def test_clips_of_an_extreme_shape(tmp_path, quarters):
    strip = panning(5, (40, 640), shift=(20.0, 0.0))[0]
    code, scene = preprocessed(tmp_path, strip, quarters, "--masks", "none")
    assert code in (0, 3) and max(scene.size) == 640
