"""OpenUSD stages, read, moved and checked by OpenUSD itself."""

import sys

import numpy as np
import pytest
from evaluate.exact_fits import moving_points
from export.moving_exports import bending, half_lives, with_harmonics

from msdyn.cli import export
from msdyn.errors import InputError, MissingExtraError
from msdyn.export import export_usd
from msdyn.geometry import Cameras
from msdyn.render import render_image
from msdyn.sequence import PartSelection, object_poses, without_objects

pytest.importorskip("pxr.UsdVol")
from pxr import Usd, UsdGeom, UsdValidation, UsdVol  # noqa: E402
from read_usd import UsdFile  # noqa: E402
from splats import compare, picture  # noqa: E402


def written(sequence, folder, times=None, what=None, name="a.usdc", **options):
    times = sequence.timeline.times if times is None else np.asarray(times)
    assert export_usd(sequence, folder / name, times, what, **options) == [folder / name]
    return UsdFile(folder / name)


@pytest.fixture(scope="module")
def file(exact, tmp_path_factory):
    return written(exact, tmp_path_factory.mktemp("usd"))


def splat_prims(file):
    kind = UsdVol.ParticleField3DGaussianSplat
    return {str(prim.GetPath()): kind(prim) for prim in file.stage.Traverse() if prim.IsA(kind)}


def problems(file):
    registry = UsdValidation.ValidationRegistry()
    context = UsdValidation.ValidationContext(registry.GetOrLoadAllValidators())
    return [error.GetMessage() for error in context.Validate(file.stage)]


def test_every_time_renders_like_the_sequence(exact, file):
    for psnr, _, expected in compare(exact, file.at, [0.0, 4 / 7, 1.0]):
        assert expected.std() > 0.1
        assert psnr > 65, psnr  # measured 74 to 80 dB: float32


def test_the_stage_says_what_it_is(exact, file):
    stage = file.stage
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert stage.GetTimeCodesPerSecond() == exact.timeline.fps == 24
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, 7)
    assert stage.GetDefaultPrim().GetPath() == "/World"
    assert "OpenCV" in stage.GetRootLayer().customLayerData["axes"]
    assert Usd.ColorSpaceAPI.ComputeColorSpaceName(
        stage.GetPrimAtPath("/World/Static"), None
    ) == "srgb_rec709_scene"  # fmt: skip
    assert problems(file) == []


def test_prims_are_as_the_schema_says(exact, file):
    prims = splat_prims(file)
    assert list(prims) == [
        "/World/Static", "/World/Object_1/Part_0", "/World/Object_2/Part_1",
    ]  # fmt: skip
    total = 0
    for splats in prims.values():
        count = len(splats.GetPositionsAttr().Get())
        assert len(splats.GetOrientationsAttr().Get()) == len(splats.GetScalesAttr().Get()) == count
        assert len(splats.GetRadianceSphericalHarmonicsCoefficientsAttr().Get()) == count
        assert splats.GetRadianceSphericalHarmonicsDegreeAttr().Get() == 0
        low, high = np.array(splats.GetExtentAttr().Get())
        means = np.array(splats.GetPositionsAttr().Get())
        assert (low < means.min(0)).all() and (high > means.max(0)).all()
        total += count
    assert total == exact.num_gaussians


def test_objects_have_their_poses(exact, file):
    poses = object_poses(exact, np.arange(8.0))
    for frame in (0, 3, 6):
        cache = UsdGeom.XformCache(Usd.TimeCode(frame))
        for label, expected in poses.items():
            prim = file.stage.GetPrimAtPath(f"/World/Object_{label}")
            world_from_object = np.array(cache.GetLocalToWorldTransform(prim)).T
            flip = np.diag([1.0, -1.0, -1.0, 1.0])
            np.testing.assert_allclose(flip @ world_from_object, expected[frame], atol=1e-5)


def test_the_camera_keeps_its_principal_point(exact, tmp_path):
    cameras = exact.cameras
    intrinsics = cameras.intrinsics.copy()
    intrinsics[:, 0, 0] *= np.linspace(1, 1.2, len(cameras))
    intrinsics[:, :2, 2] += [5.0, -7.0]
    other = Cameras(intrinsics, cameras.cam_from_world, cameras.width, cameras.height)
    file = written(exact.replaced(cameras=other), tmp_path)
    for frame, time in enumerate(exact.timeline.times):
        world_from_cam, found = file.camera(float(time), cameras.width, cameras.height)
        np.testing.assert_allclose(world_from_cam, cameras.world_from_cam[frame], atol=1e-5)
        np.testing.assert_allclose(found, intrinsics[frame], atol=1e-3)


def test_text_holds_the_same(exact, file, tmp_path):
    text = written(exact, tmp_path, [0.0, 1.0], PartSelection(background="off"), name="a.usda")
    assert (tmp_path / "a.usda").read_bytes().startswith(b"#usda 1.0")
    own = text.at(1.0)
    np.testing.assert_allclose(own.means, file.at(1.0).means[-len(own.means) :], atol=1e-6)


def test_another_reader_finds_the_first_time(exact, tmp_path):
    fourdgs = pytest.importorskip("fourdgs")
    written(exact, tmp_path)
    found = fourdgs.from_usd(str(tmp_path / "a.usdc"))
    posed = exact.at(0.0)
    expected = posed.means[0].detach().numpy() * [1, -1, -1]
    np.testing.assert_allclose(found.gaussians.positions, expected, atol=1e-5)
    np.testing.assert_allclose(found.gaussians.scales, posed.scales.detach(), rtol=1e-5)


@pytest.mark.parametrize("degree", [1, 3])
def test_view_dependent_colours_turn_with_their_part(exact, tmp_path, degree):
    sequence = with_harmonics(exact, degree)
    file = written(sequence, tmp_path, [0.0, 0.5, 1.0])
    camera = sequence.camera_at(0.2)
    expected = render_image(sequence, camera, 1.0, order="own").rgb
    np.testing.assert_allclose(picture(file.at(1.0), camera), expected, atol=2e-3)
    assert np.abs(expected - render_image(exact, camera, 1.0).rgb).max() > 0.1


def test_opacities_have_the_samples_of_lives(exact, tmp_path):
    sequence = half_lives(exact)
    file = written(sequence, tmp_path)
    prims = splat_prims(file)
    assert prims["/World/Static"].GetOpacitiesAttr().GetNumTimeSamples() == 0
    assert prims["/World/Object_1/Part_0"].GetOpacitiesAttr().GetNumTimeSamples() == 8
    for psnr, _, _ in compare(sequence, file.at, [3 / 7, 4 / 7]):
        assert psnr > 65, psnr


def test_what_bends_can_be_baked(tmp_path, capsys, one_part):
    sequence = with_harmonics(bending(), 2)
    file = written(sequence, tmp_path, baked=True)
    assert "that bend more are stored at each time" in capsys.readouterr().err
    assert problems(file) == []
    bent = splat_prims(file)["/World/Object_1/Bent"]
    assert bent.GetPositionsAttr().GetNumTimeSamples() == 5
    for psnr, _, _ in compare(sequence, file.at, [0.0, 0.5, 1.0]):
        assert psnr > 35, psnr
    assert len(bent.GetPositionsAttr().Get()) == 1
    finest = written(sequence, tmp_path, name="b.usdc")
    assert list(splat_prims(finest)) == ["/World/Object_1/Part_0"]
    assert finest.stage.GetRootLayer().customLayerData["error_px"] > 0.3


def test_one_time_has_no_samples(exact, tmp_path):
    file = written(exact, tmp_path, [0.5], PartSelection(objects="2"))
    assert list(splat_prims(file)) == ["/World/Static", "/World/Object_2/Part_0"]
    for prim in file.stage.Traverse():
        assert not any(a.GetNumTimeSamples() for a in prim.GetAttributes())
    assert file.stage.GetStartTimeCode() == file.stage.GetEndTimeCode() == 3.5
    own = (exact.labels == 2).numpy()
    expected = exact.at(0.5).means[0, len(exact.static) :].detach().numpy()[own]
    np.testing.assert_allclose(file.at(0.5).means[-own.sum() :], expected, atol=1e-5)


def test_a_sequence_without_objects(exact, tmp_path):
    file = written(without_objects(exact, [1, 2]), tmp_path)
    assert list(splat_prims(file)) == ["/World/Static"]


def test_an_arbitrary_scale_is_told(tmp_path):
    sequence = moving_points([[0, 0, 2.0]], np.zeros((1, 2, 3)))
    metric = written(sequence, tmp_path)
    sequence.world_units = "arbitrary"
    arbitrary = written(sequence, tmp_path, name="b.usdc")
    assert "metersPerUnit" not in metric.stage.GetRootLayer().customLayerData
    assert "arbitrary" in arbitrary.stage.GetRootLayer().customLayerData["metersPerUnit"]


def test_unusable_times_parts_and_names_are_refused(exact, exact_file, tmp_path, capsys):
    with pytest.raises(InputError, match="increasing times"):
        written(exact, tmp_path, [0.5, 0.5])
    sequence = moving_points([[0, 0, 2.0]], np.zeros((1, 2, 3)))
    sequence.moving.opacity_logits.data[:] = -20
    with pytest.raises(InputError, match="visible at these times, got none"):
        written(sequence, tmp_path)
    out = tmp_path / "a.usd"
    assert export.main([str(exact_file), "--format", "usdc", "--out", str(out)]) == 2
    assert "expected a .usdc or .usda file for usdc" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_openusd_the_extra_is_named(exact, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pxr.UsdVol", None)
    with pytest.raises(MissingExtraError, match=r'pip install "msdyn\[usd\]"'):
        written(exact, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_old_openusd_is_refused(exact, tmp_path, monkeypatch):
    monkeypatch.delattr(UsdVol, "ParticleField3DGaussianSplat")
    with pytest.raises(MissingExtraError, match="expected 26.3 or later"):
        written(exact, tmp_path)
