"""SPZ files, unpacked as their published format has it."""

import gzip
import struct
import sys

import numpy as np
import pytest
import torch
from splats import compare

from msdyn.cli import export
from msdyn.errors import InputError
from msdyn.export import export_as, export_spz
from msdyn.io import write_spz
from msdyn.reading import read_json
from msdyn.sequence import Gaussians

pytest.importorskip("gsply")
read_spz = pytest.importorskip("read_spz")


def psnr(sequence, path, times):
    return [row[0] for row in compare(sequence, lambda t: read_spz.splats_at(path, t), times)]


def of_degree(sequence, degree):
    def cut(part):
        return Gaussians(part.means, part.log_scales, part.quats_wxyz, part.opacity_logits,
                         part.harmonics[:, : (degree + 1) ** 2])  # fmt: skip

    return sequence.replaced(static=cut(sequence.static), moving=cut(sequence.moving))


def test_pictures_are_those_of_the_sequence(sparse, tmp_path):
    export_spz(sparse, tmp_path, np.array([0.0, 0.4, 1.0]))
    found = psnr(sparse, tmp_path, [0.0, 0.4, 1.0])
    assert min(found) > 45


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_view_dependent_colours_in_the_axes_of_the_format(shiny, tmp_path, degree):
    sequence = of_degree(shiny, degree)
    export_spz(sequence, tmp_path, np.array([1.0]))
    found = psnr(sequence, tmp_path, [1.0])
    assert min(found) > 38
    header = gzip.decompress((tmp_path / "00000.spz").read_bytes())[:16]
    assert struct.unpack("<IIIBBBB", header)[3] == degree


def test_the_axes_are_right_up_back(tmp_path):
    path = tmp_path / "a.spz"
    ours = {
        "means": np.array([[1.0, -2.0, 3.0]]), "log_scales": np.log([[0.1, 0.2, 0.3]]),
        "quats_wxyz": np.array([[0.5, 0.5, -0.5, 0.5]]), "opacity_logits": np.zeros(1),
        "harmonics": np.zeros((1, 1, 3)),
    }  # fmt: skip
    write_spz(path, **ours)
    found = read_spz.spz_splats(path)
    np.testing.assert_allclose(found.means, [[1, 2, -3]], atol=1e-5)
    np.testing.assert_allclose(np.abs(found.quats_wxyz[0]), 0.5, atol=2e-3)
    np.testing.assert_allclose(found.scales, [[0.1, 0.2, 0.3]], rtol=0.033)
    np.testing.assert_allclose(found.opacities, 0.5, atol=0.002)


def test_positions_are_as_fine_as_the_gaussians_need(sparse, tmp_path):
    export_spz(sparse, tmp_path / "a.spz", np.array([0.0]))
    found = read_spz.spz_splats(tmp_path / "a.spz").means
    true = sparse.at(0.0).means[0].detach().numpy()
    step = 0.02 * float(sparse.static.scales.detach().median())
    assert len(found) == len(true)
    assert np.abs(found - true).max() < step


def test_a_folder_has_a_manifest_with_its_axes(sparse, tmp_path):
    files = export_as(sparse, "spz", tmp_path, times="0,1").files
    assert [path.name for path in files] == ["00000.spz", "00001.spz", "manifest.json"]
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["axes"].startswith("right, up, back")
    assert manifest["gaussians"] == sparse.num_gaussians and manifest["times"] == [0, 1]


def test_one_time_is_one_file(exact_file, tmp_path, capsys):
    out = tmp_path / "still.spz"
    options = ["--format", "spz", "--frame", "3", "--objects", "1", "--background", "off"]
    assert export.main([str(exact_file), *options, "--out", str(out)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["still.spz"]
    assert capsys.readouterr().out.startswith(f"{out} (1 file")
    assert export.main([str(exact_file), "--format", "spz", "--out", str(out)]) == 2
    assert "expected a folder" in capsys.readouterr().err


def test_gaussians_without_opacity_are_left_out(succeeding, tmp_path):
    export_spz(succeeding, tmp_path, np.array([0.0, 1.0]))
    counts = [len(read_spz.splats_at(tmp_path, time).means) for time in (0.0, 1.0)]
    assert sum(counts) == 2 * len(succeeding.static) + len(succeeding.moving)


def test_what_the_format_cannot_hold(tmp_path):
    nothing = {"means": np.zeros((0, 3)), "log_scales": np.zeros((0, 3)),
               "quats_wxyz": np.zeros((0, 4)), "opacity_logits": np.zeros(0),
               "harmonics": np.zeros((0, 1, 3))}  # fmt: skip
    with pytest.raises(InputError, match="at least one Gaussian"):
        write_spz(tmp_path / "a.spz", **nothing)
    one = {"log_scales": np.zeros((1, 3)), "quats_wxyz": np.eye(4)[:1],
           "opacity_logits": np.zeros(1), "harmonics": np.zeros((1, 1, 3))}  # fmt: skip
    with pytest.raises(InputError, match="positions below"):
        write_spz(tmp_path / "a.spz", means=np.full((1, 3), 1e7), **one)
    with pytest.raises(InputError, match="means: expected finite"):
        write_spz(tmp_path / "a.spz", means=np.full((1, 3), np.nan), **one)
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_extra_is_named(exact_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gsply", None)
    for name in ("spz", "compressed-ply"):
        options = ["--format", name, "--out", str(tmp_path / name)]
        assert export.main([str(exact_file), *options]) == 2
        assert 'pip install "msdyn[spz]"' in capsys.readouterr().err


def test_static_gaussians_alone(sparse, tmp_path):
    none = torch.zeros(0, dtype=torch.long)
    sequence = sparse.replaced(
        moving=sparse.moving.select(none),
        motion=sparse.motion.select(none),
        labels=sparse.labels[none],
    )
    export_spz(sequence, tmp_path / "a.spz", np.array([0.5]))
    assert len(read_spz.spz_splats(tmp_path / "a.spz").means) == len(sparse.static)
