"""msdyn-render as a shell command: outputs, times, cameras and parts of the scene."""

import json
import shutil

import imageio.v3 as iio
import numpy as np
import pytest
from clips import two_boxes
from commands import exit_code
from evaluate.exact_fits import exact_sequence
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from msdyn.cli import render
from msdyn.colours import object_palette
from msdyn.geometry import make_path, transform_points
from msdyn.reading import read_json
from msdyn.render import auto_path, focus_points, render_image, render_objects
from msdyn.scene import write_cameras
from msdyn.sequence import Exposure, save_sequence


@pytest.fixture(scope="module")
def truth():
    return two_boxes(8, 64, 48)


@pytest.fixture(scope="module")
def exact(truth):
    return exact_sequence(truth)


@pytest.fixture(scope="module")
def folder(exact, tmp_path_factory):
    """A folder with only a sequence."""
    folder = tmp_path_factory.mktemp("render")
    save_sequence(exact, folder / "sequence.safetensors")
    return folder


@pytest.fixture
def call(folder, tmp_path, capsys):
    def run(*options, out=None):
        target = [] if out is None else ["--out", str(tmp_path / out)]
        assert render.main([str(folder), *options, *target]) == 0
        return tmp_path / (out or "")

    return run


def test_every_output_of_one_image(call, truth, exact, tmp_path):
    call("--output", "rgb,depth,alpha,objects,flow,tracks", "--frame", "3", out="a.png")
    time = exact.timeline.times[3]
    image = render_image(exact, exact.cameras[3], time)
    np.testing.assert_array_equal(iio.imread(tmp_path / "a-rgb.png"), image.rgb8)
    depth = Image.open(tmp_path / "a-depth.png")
    assert np.asarray(depth).dtype == np.uint16 and json.loads(depth.text["depth_step"]) == 0.001
    np.testing.assert_allclose(np.asarray(depth) * 0.001, image.depth, atol=0.00051)
    alpha = iio.imread(tmp_path / "a-alpha.png")
    np.testing.assert_allclose(alpha / 255, image.alpha, atol=0.002)
    objects = Image.open(tmp_path / "a-objects.png")
    assert objects.mode == "P"
    labels = np.asarray(objects)
    mask = truth.clip.masks[3]
    interior = maximum_filter(mask, 3) == minimum_filter(mask, 3)  # not at silhouettes
    assert (labels == mask)[interior].mean() > 0.97 and (labels == mask).mean() > 0.9
    np.testing.assert_array_equal(np.asarray(objects.convert("RGB")), object_palette()[labels])
    # Flow is white on static pixels, coloured on the boxes; trails are drawn over the image.
    flow = iio.imread(tmp_path / "a-flow.png").astype(int)
    colourful = np.ptp(flow, axis=-1) > 30
    assert colourful[truth.clip.masks[3] > 0].mean() > 0.8
    assert colourful[truth.clip.masks[3] == 0].mean() < 0.1
    tracks = iio.imread(tmp_path / "a-tracks.png").astype(int)
    changed = np.abs(tracks - image.rgb8).max(-1) > 40
    assert 0.005 < changed.mean() < 0.5
    assert changed[truth.clip.masks[3] > 0].mean() > 3 * changed[truth.clip.masks[3] == 0].mean()


def test_the_exposure_of_the_clip_only_on_demand(call, exact, folder, tmp_path, capsys):
    call("--frame", "3", out="none.png")
    call("--frame", "3", "--exposure", "clip", out="without.png")
    assert "--exposure clip: the sequence has no exposure" in capsys.readouterr().err
    gains = np.zeros((len(exact.timeline), 3))
    gains[3] = [0.2, 0, -0.2]
    save_sequence(exact.replaced(exposure=Exposure(gains)), tmp_path / "sequence.safetensors")
    for name in ("none", "clip"):
        options = ["--frame", "3", "--exposure", name, "--out", str(tmp_path / f"new-{name}.png")]
        assert render.main([str(tmp_path), *options]) == 0
    names = ("none", "without", "new-none", "new-clip")
    plain, without, new, clip = (iio.imread(tmp_path / f"{name}.png") for name in names)
    assert np.array_equal(plain, without) and np.array_equal(plain, new)
    redder, bluer = (clip[..., 0] > plain[..., 0]), (clip[..., 2] > plain[..., 2])
    assert redder.mean() > 0.9 and not bluer.any()
    assert np.array_equal(clip[..., 1], plain[..., 1])


def test_arrays_instead_of_images(call, exact):
    out = call("--output", "depth", "--time", "0.3", out="d.npy")
    expected = render_image(exact, exact.camera_at(0.3), 0.3).depth
    np.testing.assert_array_equal(np.load(out), expected)
    out = call("--output", "depth", "--depth-as", "float", "--time", "0.3", out="d.png")
    np.testing.assert_array_equal(np.load(out.with_suffix(".npy")), expected)
    out = call("--output", "depth", "--depth-as", "colour", "--time", "0.3", out="c.png")
    assert iio.imread(out).shape == (48, 64, 3)


def test_slow_motion_follows_the_input_between_frames(call, exact):
    out = call("--times", "0:1:15", out="slow")
    record = read_json(out / "render.json")
    np.testing.assert_allclose(record["times"], np.linspace(0, 1, 15))
    expected = exact.cameras.interpolated(np.linspace(0, 7, 15))
    np.testing.assert_allclose(record["cam_from_world"], expected.cam_from_world, atol=1e-12)
    pictures = sorted((out / "rgb").iterdir())
    assert len(pictures) == 15
    image = render_image(exact, expected[5], 5 / 14)
    np.testing.assert_array_equal(iio.imread(pictures[5]), image.rgb8)


def test_videos_of_several_outputs(call, tmp_path):
    call("--output", "rgb,depth,objects,flow,alpha", "--frames", "5", out="v.mp4")
    for name in ("rgb", "depth", "objects", "flow", "alpha"):
        frames = iio.imread(tmp_path / f"v-{name}.mp4", plugin="pyav")
        assert frames.shape == (5, 48, 64, 3), name
        assert frames.std() > 10 or name == "alpha"


def test_bullet_time_has_one_time(call, exact):
    out = call("--path", "bullet-time", "--time", "0.6", "--frames", "6", out="b")
    record = read_json(out / "render.json")
    assert record["times"] == [0.6] * 6
    # The path begins at the input camera of that time.
    at = exact.camera_at(0.6).cam_from_world[0]
    np.testing.assert_allclose(record["cam_from_world"][0], at, atol=1e-9)


def test_the_path_auto_is_chosen_and_described(call, exact, capsys):
    out = call("--path", "auto", "--frames", "6", out="auto")
    described = capsys.readouterr().err.splitlines()[0]
    chosen = auto_path(exact, np.linspace(0, 1, 6))
    assert described == f"path auto: {chosen}"
    assert f"{chosen.unsupported:.1%} of the pixels unsupported" in described
    record = read_json(out / "render.json")
    assert record["auto_path"] == {
        "base": chosen.base, "degrees": chosen.degrees, "unsupported": chosen.unsupported,
        "about_objects": True, "in_frame": True,
    }  # fmt: skip
    np.testing.assert_allclose(record["cam_from_world"], chosen.cameras.cam_from_world)
    np.testing.assert_allclose(record["intrinsics"], chosen.cameras.intrinsics)
    # About one object, at one time.
    out = call("--path", "auto", "--frames", "6", "--time", "0.5", "--objects", "1", out="one")
    record = read_json(out / "render.json")
    one = auto_path(exact, np.full(6, 0.5), objects=[1])
    np.testing.assert_allclose(record["cam_from_world"], one.cameras.cam_from_world)
    assert record["times"] == [0.5] * 6
    # Other paths have no such record.
    out = call("--path", "input", "--frames", "2", out="input")
    assert read_json(out / "render.json")["auto_path"] is None


def test_named_paths_lead_around_the_objects(call, exact):
    out = call("--path", "orbit", "--frames", "8", out="orbit")
    poses = np.array(read_json(out / "render.json")["cam_from_world"])
    focus = np.median(focus_points(exact, np.linspace(0, 1, 8)), axis=0)
    in_camera = transform_points(poses, focus[None, None])[:, 0]
    np.testing.assert_allclose(in_camera, np.tile(in_camera[0], (8, 1)), atol=1e-9)


def test_a_camera_file_with_times(call, exact, tmp_path):
    path = make_path("orbit", exact.cameras, 3)
    write_cameras(tmp_path / "path.json", path, np.array([0.9, 0.1, 0.5]))
    out = call("--camera", str(tmp_path / "path.json"), out="p")
    assert read_json(out / "render.json")["times"] == [0.9, 0.1, 0.5]
    first = iio.imread(out / "rgb" / "00000.png")
    np.testing.assert_array_equal(first, render_image(exact, path[0], 0.9).rgb8)
    # Times of the command line override those of the file.
    out = call("--camera", str(tmp_path / "path.json"), "--time", "0.2", out="q")
    assert read_json(out / "render.json")["times"] == [0.2] * 3


def test_one_camera_at_several_times(call, exact, tmp_path):
    write_cameras(tmp_path / "one.json", exact.cameras[0])
    out = call("--camera", str(tmp_path / "one.json"), "--times", "0,0.5,1", out="still")
    record = read_json(out / "render.json")
    assert record["times"] == [0, 0.5, 1]
    assert len({json.dumps(pose) for pose in record["cam_from_world"]}) == 1
    out = call("--camera", str(tmp_path / "one.json"), out="all.mp4")
    assert len(iio.imread(out, plugin="pyav")) == 8


def test_one_object_without_background_has_alpha(call, truth, exact):
    out = call("--objects", "1", "--background", "off", "--frame", "3", out="o.png")
    rgba = iio.imread(out)
    assert rgba.shape == (48, 64, 4)
    mask = truth.clip.masks[3]
    assert (rgba[mask == 1, 3] > 250).mean() > 0.95 and rgba[:4, :, 3].max() == 0
    # Inside the object, the colours are those of the whole render.
    whole = render_image(exact, exact.cameras[3], exact.timeline.times[3]).rgb8.astype(float)
    inside = (mask == 1) & (rgba[..., 3] == 255)
    assert np.abs(rgba[inside, :3] - whole[inside]).mean() < 6


def test_without_levels_all_times_are_canonical(call, exact):
    out = call("--levels", "0", "--times", "0,1", out="rest")
    camera = exact.cameras[0]
    canonical = render_image(exact, camera, exact.timeline.times[3])  # the canonical frame
    first = iio.imread(out / "rgb" / "00000.png").astype(float)
    assert np.abs(first - canonical.rgb8).mean() < 0.5


def test_an_empty_choice_of_objects_is_background(exact):
    assert not render_objects(exact, exact.cameras[0], 0.0, objects=[]).any()
    nothing = render_objects(exact, exact.cameras[0], 0.0, objects=[], background=False)
    assert not nothing.any()


@pytest.mark.parametrize(
    "options, text",
    [
        (["--output", "colour"], "expected some of rgb, depth"),
        (["--output", "rgb,rgb"], "each once"),
        (["--objects", "3"], "expected some of [1, 2]"),
        (["--levels", "2"], "expected at most 1"),
        (["--path", "orbit", "--camera", "a.json"], "--camera, --path: expected one"),
        (["--frames", "0"], "at least 1"),
        (["--frames", "3", "--times", "0,1"], "--frames, --times: expected one"),
        (["--path", "bullet-time", "--times", "0,1"], "expected one --time"),
        (["--times", "0:1:3", "--out", "a.png"], "expected a .mp4"),
        (["--time", "0", "--out", "a.mp4"], "expected a .png or .npy"),
    ],
)
def test_invalid_options(folder, tmp_path, monkeypatch, options, text, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code(render.main, [folder, *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and text in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_file_with_too_many_cameras_for_the_times(folder, exact, tmp_path, capsys):
    write_cameras(tmp_path / "three.json", exact.cameras[[0, 1, 2]])
    options = ["--camera", str(tmp_path / "three.json"), "--times", "0,1"]
    assert render.main([str(folder), *options]) == 2
    assert "one for each of the 3 cameras" in capsys.readouterr().err


def test_times_of_a_file_outside_the_clip(folder, exact, tmp_path, capsys):
    write_cameras(tmp_path / "late.json", exact.cameras[[0]], np.array([1.5]))
    assert render.main([str(folder), "--camera", str(tmp_path / "late.json")]) == 2
    error = capsys.readouterr().err
    assert "late.json" in error and "got 1.5" in error


def test_an_interrupted_video_leaves_nothing(folder, tmp_path, monkeypatch):
    from msdyn.render.pictures import Painter

    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    calls = []

    def interrupt(self, camera, time):
        calls.append(time)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render_image(self.sequence, camera, time)

    monkeypatch.setattr(Painter, "image", interrupt)
    out = tmp_path / "x" / "v.mp4"
    assert render.main([str(folder), "--path", "orbit", "--out", str(out)]) == 130
    assert not list(out.parent.iterdir())
