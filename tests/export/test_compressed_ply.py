"""Compressed PLY files, read by two other readers."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from splats import compare

from msdyn.errors import InputError
from msdyn.export import export_as, export_compressed_ply
from msdyn.io import write_compressed_ply

pytest.importorskip("gsply")
read_compressed_ply = pytest.importorskip("read_compressed_ply")


def psnr(sequence, path, times):
    at = read_compressed_ply.splats_at
    return [row[0] for row in compare(sequence, lambda t: at(path, t), times)]


def test_pictures_are_those_of_the_sequence(sparse, tmp_path):
    export_compressed_ply(sparse, tmp_path, np.array([0.0, 1.0]))
    found = psnr(sparse, tmp_path, [0.0, 1.0])
    assert min(found) > 45


def test_orientations_and_view_dependent_colours(shiny, tmp_path):
    export_compressed_ply(shiny, tmp_path, np.array([1.0]))
    found = psnr(shiny, tmp_path, [1.0])
    assert min(found) > 38


def test_another_package_reads_the_same(shiny, tmp_path):
    fourdgs = pytest.importorskip("fourdgs")
    path = tmp_path / "a.compressed.ply"
    export_compressed_ply(shiny, path, np.array([0.5]))
    ours, other = read_compressed_ply.compressed_ply_splats(path), fourdgs.read_compressed_ply(path)
    np.testing.assert_allclose(other["positions"], ours.means, atol=1e-6)
    np.testing.assert_allclose(other["scales"], ours.scales, rtol=1e-6)
    np.testing.assert_allclose(other["colors"][:, 3], ours.opacities, atol=1e-9)
    rgb = ours.harmonics[:, 0] * 0.28209479 + 0.5
    np.testing.assert_allclose(other["colors"][:, :3], rgb.clip(0, 1), atol=1e-6)
    assert other["sh_degree"] == 3
    higher = (other["sh"] * (8 / 255) - 4).reshape(-1, 3, 15).swapaxes(1, 2)
    np.testing.assert_allclose(higher, ours.harmonics[:, 1:], atol=1e-9)


def test_neighbours_lie_in_one_chunk(sparse, tmp_path):
    """Bounds of 256 Gaussians are small, so that their 10 and 11 bits are fine."""
    path = tmp_path / "a.compressed.ply"
    export_compressed_ply(sparse, path, np.array([0.0]))
    found = read_compressed_ply.compressed_ply_splats(path).means
    true = sparse.at(0.0).means[0].detach().numpy()
    nearest, _ = cKDTree(true).query(found)
    assert np.median(nearest) < 0.0002 * np.ptp(true, axis=0).max()


def test_files_for_times_and_for_one(sparse, tmp_path):
    files = export_as(sparse, "compressed-ply", tmp_path / "all", times="0,1").files
    names = ["00000.compressed.ply", "00001.compressed.ply", "manifest.json"]
    assert [path.name for path in files] == names
    one = export_as(sparse, "compressed-ply", tmp_path / "a.compressed.ply", time=1.0).files
    assert [path.name for path in one] == ["a.compressed.ply"]
    assert one[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(InputError, match="expected a .ply file"):
        export_as(sparse, "compressed-ply", tmp_path / "b", time=1.0)


def test_nothing_to_write(tmp_path):
    with pytest.raises(InputError, match="at least one Gaussian"):
        write_compressed_ply(
            tmp_path / "a.ply", means=np.zeros((0, 3)), log_scales=np.zeros((0, 3)),
            quats_wxyz=np.zeros((0, 4)), opacity_logits=np.zeros(0), harmonics=np.zeros((0, 1, 3)),
        )  # fmt: skip
