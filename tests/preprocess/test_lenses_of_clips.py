"""A clip filmed through a lens, with files of its own: all of it as of a pinhole camera."""

import dataclasses
import shutil

import numpy as np
import pytest
from clips import two_boxes

from msdyn.cli.preprocess import main as preprocess
from msdyn.errors import InputError
from msdyn.geometry import Lens, project, transform_points
from msdyn.io import Dycheck, write_colmap, write_dycheck
from msdyn.preprocess import PreprocessConfig, preprocess_video
from msdyn.preprocess.cameras.known_intrinsics import lens_intrinsics
from msdyn.preprocess.frames.given_lens import given_lens
from msdyn.reading import read_json
from msdyn.scene import (
    FrameLenses,
    Scene,
    frame_path,
    read_lenses,
    write_depth,
    write_image,
    write_lenses,
    write_mask,
)
from msdyn.synthetic import write_truth
from msdyn.synthetic.picture import render_picture
from msdyn.synthetic.raycast import Caster
from msdyn.synthetic.shading import Shader
from msdyn.writing import write_json

WIDTH, HEIGHT, FRAMES = 128, 96, 4


@pytest.fixture(scope="module")
def truth():
    return two_boxes(FRAMES, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def lens(truth):
    k = truth.spec.cameras.intrinsics[0]
    params = (k[0, 0], k[1, 1], k[0, 2] + 2, k[1, 2] - 1, -0.25, 0.06, 0.002, -0.002)
    return Lens("OPENCV", params, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def filmed(truth, lens, tmp_path_factory):
    """Images, depth, masks, tracks and cameras as they were taken, by exact rays.

    The layout of tracks, CoTracker's, has the centre of the first pixel at (0, 0).
    """
    folder = tmp_path_factory.mktemp("filmed")
    spec, caster = truth.spec, Caster(truth.spec)
    shader = Shader(caster)
    for frame in range(FRAMES):
        light = shader.light(frame)
        picture = render_picture(caster, shader, frame, spec.cameras[frame], light, 3, lens)
        write_image(frame_path(folder / "images", frame, ".png"), picture.image)
        write_depth(folder, frame, picture.depth)
        write_mask(folder, frame, picture.mask)
    local = transform_points(spec.cameras.cam_from_world, truth.tracks.xyz.swapaxes(0, 1))
    xy = lens.pixels(local[..., :2] / local[..., 2:]).swapaxes(0, 1)  # [N, T, 2]
    inside = ((xy >= 0) & (xy < [WIDTH, HEIGHT])).all(-1)  # false for NaN
    np.savez(
        folder / "tracks.npz",
        tracks=np.where(inside[..., None], xy - 0.5, 0).astype(np.float32)[None].swapaxes(1, 2),
        visibility=(truth.tracks.visible & inside)[None].swapaxes(1, 2),
    )
    names = [f"{frame:05d}.png" for frame in range(FRAMES)]
    write_colmap(folder / "colmap", spec.cameras, names, lenses=[lens] * FRAMES)
    return folder


def config(folder, out, **options):
    return PreprocessConfig(
        video=folder / "images", out=out, preset="offline", accept_poor=True,
        **({"cameras": "files", "cameras_path": folder / "colmap", "depth": "files",
            "depth_path": folder / "depth", "masks": "files", "masks_path": folder / "masks",
            "tracks": "files", "tracks_path": folder / "tracks.npz"} | options),
    )  # fmt: skip


@pytest.fixture(scope="module")
def scene(filmed, tmp_path_factory):
    return preprocess_video(config(filmed, tmp_path_factory.mktemp("lens") / "scene"))


def test_images_depth_and_masks_are_those_of_the_pinhole_camera(truth, scene):
    caster = Caster(truth.spec)
    shader = Shader(caster)
    exact = render_picture(caster, shader, 1, scene.cameras[1], shader.light(1), 3)
    error = (scene.image(1) / 255 - exact.image / 255) ** 2
    plain = (truth.clip.images[1] / 255 - exact.image / 255) ** 2
    assert -10 * np.log10(error.mean()) > 30 > -10 * np.log10(plain.mean())
    assert (scene.mask(1) != exact.mask).mean() < 0.02
    # The nearest pixel: at most half a pixel of slope, but for edges.
    assert (np.abs(scene.depth(1) / exact.depth - 1) > 0.03).mean() < 0.05


def test_cameras_are_those_of_the_undistorted_images(truth, lens, scene):
    np.testing.assert_allclose(
        scene.cameras.cam_from_world, truth.spec.cameras.cam_from_world, atol=1e-12
    )
    fx, fy, cx, cy = scene.lenses[0].pinhole
    np.testing.assert_allclose(scene.cameras.intrinsics[2], [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    assert scene.lenses[0].lens == lens and (cx, cy) == lens.pinhole[2:]
    known = lens_intrinsics(scene)
    assert known.fixed and known.fx == pytest.approx(fx)


def test_tracks_are_at_the_projections_of_their_points(truth, scene):
    tracks = scene.tracks
    assert len(tracks) > 50
    _, frame, xy, _ = tracks.observations()
    # The file's rows without any observation are gone: match by the nearest true point.
    local = transform_points(scene.cameras.cam_from_world, truth.tracks.xyz.swapaxes(0, 1))
    true = project(scene.cameras.intrinsics, local)  # [T, N, 2]
    for here in range(FRAMES):
        apart = np.linalg.norm(true[here][:, None] - xy[frame == here], axis=-1)
        assert apart.min(0).max() < 0.01
    assert ((xy >= 0) & (xy <= [WIDTH, HEIGHT])).all()


def test_another_lens_makes_the_frames_stage_run_again(filmed, lens, scene, tmp_path, capsys):
    copy = shutil.copytree(scene.directory, tmp_path / "scene")
    before = Scene(copy).info.stages
    assert preprocess_video(config(filmed, copy)).info.stages == before  # nothing to be done
    other = dataclasses.replace(lens, params=(*lens.params[:4], -0.2, 0.06, 0.002, -0.002))
    names = [f"{frame:05d}.png" for frame in range(FRAMES)]
    write_colmap(tmp_path / "other", scene.cameras, names, lenses=[other] * FRAMES)
    again = preprocess_video(config(filmed, copy, cameras_path=tmp_path / "other"))
    assert again.info.stages["frames"]["input_hash"] != before["frames"]["input_hash"]
    assert again.lenses[0].lens == other
    pinhole = tmp_path / "pinhole"
    write_colmap(pinhole, scene.cameras, names)
    without = preprocess_video(config(filmed, copy, cameras_path=pinhole, only=("frames",)))
    assert without.lenses is None
    assert without.info.stages["frames"]["options"].get("lens") is None
    np.testing.assert_array_equal(without.image(0), scene_image(filmed, 0))
    with pytest.raises(InputError, match="run the frames stage with it too"):
        preprocess_video(config(filmed, copy, only=("cameras",)))


def scene_image(folder, frame):
    import imageio.v3 as iio

    return iio.imread(frame_path(folder / "images", frame, ".png"))


def test_the_same_lens_by_hand_or_by_file(filmed, lens, scene):
    text = "opencv," + ",".join(map(repr, lens.params))
    given = given_lens(text, None).of_frames((WIDTH, HEIGHT), FRAMES, np.arange(FRAMES))
    assert given == read_lenses(scene.directory / "lens.json")
    again = given_lens(str(scene.directory / "lens.json"), None)
    resized = again.of_frames((WIDTH // 2, HEIGHT // 2), FRAMES, np.arange(2))
    assert resized[0].lens.width == WIDTH // 2
    with pytest.raises(InputError, match="expected a lens of images of 96x96 or a size of that"):
        again.of_frames((96, 96), FRAMES, np.arange(2))
    with pytest.raises(InputError, match="has the lens of its images; leave it out"):
        given_lens(text, filmed / "colmap")


@pytest.mark.parametrize(
    "text, message",
    [
        ("nothing.json", "expected a file, or one of the models SIMPLE_PINHOLE"),
        ("OPENCV,1,2", r"OPENCV: expected 8 parameters \(fx,fy,cx,cy,k1,k2,p1,p2\), got 2"),
        ("FOV 100 100 64 48 wide", "FOV: expected numbers"),
        ("SIMPLE_RADIAL,100,64,48,-20", "inverted"),
    ],
)
def test_wrong_lenses_give_one_line_and_exit_code_2(filmed, tmp_path, capsys, text, message):
    arguments = [str(filmed / "images"), "--lens", text, "--out", str(tmp_path / "out")]
    assert preprocess([*arguments, "--only", "frames"]) == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error: ")]
    assert len(errors) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(errors[0])


def test_lenses_per_image(lens, tmp_path):
    """Of a file with as many images as frames, or with their names."""
    lenses = tuple(
        dataclasses.replace(lens, params=(100.0 + i, *lens.params[1:])) for i in range(6)
    )
    write_lenses(tmp_path / "lens.json", FrameLenses.of(lenses))
    given = given_lens(str(tmp_path / "lens.json"), None)
    whole = given.of_frames((WIDTH, HEIGHT), 6, np.array([1, 4]))
    assert [whole[f].lens.params[0] for f in range(2)] == [101, 104]
    kept = given.of_frames((WIDTH, HEIGHT), 20, np.arange(6))
    assert kept[5].lens.params[0] == 105
    with pytest.raises(InputError, match="images have different lenses"):
        given.of_frames((WIDTH, HEIGHT), 20, np.arange(7))
    named = dataclasses.replace(given, names=tuple(f"b{i}.jpg" for i in range(6)))
    names = tuple(f"b{i}.png" for i in (9, 3, 2))
    found = named.of_frames((WIDTH, HEIGHT), 3, np.arange(3), names)
    assert [found[f].lens.params[0] for f in range(3)] == [103, 103, 102]


def test_dycheck_with_a_distortion(truth, tmp_path):
    source = write_dycheck(Scene(write_truth(truth, tmp_path / "truth")), tmp_path / "sequence")
    for path in (source / "camera").glob("*.json"):
        write_json(path, read_json(path) | {"radial_distortion": [-0.2, 0.05, 0.0]})
    sequence = Dycheck(source)
    assert len(sequence.lenses) == FRAMES
    arguments = ["--from", "dycheck", str(source), "--masks", "none", "--out"]
    assert preprocess([*arguments, str(tmp_path / "scene")]) == 0
    scene = Scene(tmp_path / "scene")
    item = scene.lenses[0]
    assert item.lens.params[4:9] == (-0.2, 0.05, 0, 0, 0)
    np.testing.assert_array_equal(scene.image(2), item.image(sequence.image(sequence.names[2])[0]))
    depth = sequence.depth(sequence.names[2])
    np.testing.assert_array_equal(scene.depth(2), item.nearest(depth, scene.size))
    name, view = next(iter(sequence.views.items()))
    frame, image = next(iter(view.names.items()))
    undistorted = view.lenses[frame].image(sequence.image(image)[0])
    np.testing.assert_array_equal(scene.views[name].image(frame), undistorted)
    k = view.lenses[frame].intrinsics(WIDTH, HEIGHT)
    np.testing.assert_allclose(scene.views[name].cameras.intrinsics[frame], k)
