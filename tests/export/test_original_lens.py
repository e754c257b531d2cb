"""Renderings and exports in the images as they were taken, by `--lens original`."""

import numpy as np
import pytest

from msdyn.cli.render import main as render
from msdyn.errors import InputError
from msdyn.export import ExportConfig, export_scene
from msdyn.geometry import Lens, Undistortion, transform_points
from msdyn.io import read_colmap, read_nerfstudio
from msdyn.io.colmap import load_pycolmap
from msdyn.reading import read_json, read_pixels
from msdyn.render import LensPainter, render_image
from msdyn.scene import FrameLenses, write_lenses
from msdyn.sequence import TimeSelection, save_sequence
from msdyn.synthetic.picture import render_picture
from msdyn.synthetic.raycast import Caster
from msdyn.synthetic.shading import Shader


@pytest.fixture(scope="module")
def lenses(exact):
    """A lens of images of twice the size, undistorted to the cameras of the sequence."""
    k = exact.cameras.intrinsics[0]
    pinhole = (2 * k[0, 0], 2 * k[1, 1], 2 * k[0, 2], 2 * k[1, 2])
    focal = (1.06 * pinhole[0], 1.06 * pinhole[1], pinhole[2] + 1, pinhole[3] - 2)
    lens = Lens("OPENCV", (*focal, -0.25, 0.06, 0.002, -0.002), 192, 144)
    return FrameLenses((Undistortion(lens, pinhole),))


@pytest.fixture(scope="module")
def folder(exact, lenses, tmp_path_factory):
    """A folder with a fit and the lens."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "fit").mkdir()
    save_sequence(exact, folder / "fit" / "sequence.safetensors")
    write_lenses(folder / "lens.json", lenses)
    return folder


def psnr(image, truth):
    return -10 * np.log10(((image - truth / 255) ** 2).mean())


def test_renderings_through_the_lens_are_its_images(exact, truth, lenses):
    caster = Caster(truth.spec)
    shader, lens, frame = Shader(caster), lenses[0].lens, 3
    camera = truth.spec.cameras[frame]
    light, big = shader.light(frame), camera.resized(lens.width, lens.height)
    taken = render_picture(caster, shader, frame, big, light, 3, lens)
    straight = render_picture(caster, shader, frame, big, light, 3)
    time = float(exact.timeline.times[frame])
    painter = LensPainter(exact, lenses=lenses)
    image = painter.image(camera, time)
    pinhole = render_image(exact, big, time)
    assert image.rgb.shape == (144, 192, 3)
    seen = image.alpha > 0.99
    assert seen.mean() > 0.8
    through = psnr(image.rgb[seen], taken.image[seen])
    assert through > psnr(pinhole.rgb[seen], straight.image[seen]) - 0.5
    assert through > psnr(pinhole.rgb[seen], taken.image[seen]) + 1
    near = np.abs(image.depth / taken.depth - 1)[seen]
    assert np.median(near) < 0.01
    assert (painter.labels(camera, time) != taken.mask)[seen].mean() < 0.03


def test_tracks_and_cameras_agree_as_colmap_projects(exact, lenses, folder, tmp_path):
    export_scene(ExportConfig(folder, "cameras", tmp_path / "cameras", lens="original"))
    posed = read_colmap(tmp_path / "cameras" / "colmap")
    assert set(posed.lenses) == {lenses[0].lens}
    nerfstudio = read_nerfstudio(tmp_path / "cameras" / "transforms.json")
    assert nerfstudio.lenses == posed.lenses
    np.testing.assert_allclose(
        posed.cameras.cam_from_world, exact.cameras.cam_from_world, atol=1e-9
    )
    points = "60,60:120,80:100.5,40"
    export_scene(ExportConfig(folder, "tracks", tmp_path / "t.npz", lens="original", points=points))
    tracks = np.load(tmp_path / "t.npz")
    asked = [[float(v) for v in pair.split(",")] for pair in points.split(":")]
    np.testing.assert_allclose(tracks["queries_xyt"][:, :2], asked, atol=1e-3)
    model = load_pycolmap().Reconstruction(str(tmp_path / "cameras" / "colmap" / "sparse" / "0"))
    (camera,) = model.cameras.values()
    local = transform_points(exact.cameras.cam_from_world, tracks["tracks_world"])
    for frame in range(len(local)):
        np.testing.assert_allclose(
            camera.img_from_cam(local[frame]), tracks["tracks_xy"][frame], atol=0.01
        )


def test_flow_is_between_pixels_of_the_lens(exact, lenses, folder, tmp_path):
    when = TimeSelection(times="0,1")
    export_scene(ExportConfig(folder, "flow", tmp_path / "flow", when=when, lens="original"))
    flow = np.load(tmp_path / "flow" / "flow_00000.npz")
    assert flow["flow"].shape == (144, 192, 2)
    lens, painter = lenses[0].lens, LensPainter(exact, lenses=lenses)
    depth = painter.image(exact.cameras[0], 0.0).depth
    static = flow["valid"] & ~flow["moving"] & (np.abs(flow["scene_flow"]).max(-1) < 1e-6)
    rows, columns = np.nonzero(static)
    xy = np.stack([columns + 0.5, rows + 0.5], axis=-1)
    rays = lens.normalised(xy)[0]
    local = np.column_stack([rays, np.ones(len(rays))]) * depth[rows, columns][:, None]
    world = transform_points(exact.cameras.world_from_cam[0], local)
    after = transform_points(exact.cameras.cam_from_world[-1], world)
    expected = lens.pixels(after[:, :2] / after[:, 2:]) - xy
    known = np.isfinite(expected).all(1)
    assert known.sum() > 5000
    error = np.linalg.norm(flow["flow"][rows, columns] - expected, axis=1)[known]
    assert np.median(error) < 0.1  # of the nearest pixel that was rendered


def test_the_commands(folder, exact_file, tmp_path, capsys):
    out = tmp_path / "images"
    arguments = ["--time", "0.5", "--output", "rgb,depth,objects", "--out", str(out)]
    assert render([str(folder), "--lens", "original", *arguments]) == 0
    assert read_pixels(out / "rgb" / "00000.png").shape == (144, 192, 3)
    record = read_json(out / "render.json")
    assert record["width"] == 192 and record["lens"]["lenses"][0]["model"] == "OPENCV"
    assert render([str(exact_file), "--lens", "original", *arguments]) == 2
    assert "has no lens.json" in capsys.readouterr().err
    with pytest.raises(InputError, match="expected with --format tracks, flow or cameras only"):
        ExportConfig(folder, "ply", lens="original")
