"""PLY files, read by another reader and rendered again."""

import numpy as np
import pytest
import torch
from evaluate.exact_fits import moving_points
from plyfile import PlyData
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError
from msdyn.export import export_ply
from msdyn.export.gaussians import rotated_harmonics
from msdyn.geometry import SH_C0, harmonics_basis
from msdyn.io import write_gaussians_ply
from msdyn.raster import rasterize
from msdyn.reading import read_json
from msdyn.render import render_image
from msdyn.sequence import Gaussians, PartSelection


def columns(path):
    vertex = PlyData.read(path)["vertex"]
    return {p.name: np.asarray(vertex[p.name]) for p in vertex.properties}


def read_back(path):
    """Return the parameters that 3DGS's own loader reads: activated, SH [G, K, 3]."""
    c = columns(path)
    rest = [c[f"f_rest_{i}"] for i in range(sum(name.startswith("f_rest_") for name in c))]
    dc = np.stack([c[f"f_dc_{i}"] for i in range(3)], -1)[:, None]
    count = len(rest) // 3
    high = np.stack(rest, -1).reshape(len(dc), 3, count).swapaxes(1, 2) if rest else dc[:, :0]
    return {
        "means": np.stack([c[n] for n in "xyz"], -1),
        "scales": np.exp(np.stack([c[f"scale_{i}"] for i in range(3)], -1)),
        "quats": np.stack([c[f"rot_{i}"] for i in range(4)], -1),
        "opacities": 1 / (1 + np.exp(-c["opacity"].astype(np.float64))),
        "harmonics": np.concatenate([dc, high], 1),
    }


def rendered_again(path, camera):
    """Render a file independently of the sequence: colours evaluated in the world."""
    g = {k: torch.from_numpy(np.ascontiguousarray(v)).float() for k, v in read_back(path).items()}
    degree = int(g["harmonics"].shape[1] ** 0.5) - 1
    directions = g["means"] - torch.from_numpy(camera.centres[0]).float()
    basis = harmonics_basis(degree, torch.nn.functional.normalize(directions, dim=-1))
    colours = (torch.einsum("gk,gkc->gc", basis, g["harmonics"]) + 0.5).clamp_min(0)
    image = rasterize(
        g["means"], g["quats"], g["scales"], g["opacities"], colours,
        torch.from_numpy(camera.intrinsics).float(),
        torch.from_numpy(camera.cam_from_world).float(), camera.width, camera.height,
    )  # fmt: skip
    return image.features[0].clamp(0, 1).numpy()


def test_every_time_renders_like_the_sequence(exact, tmp_path):
    times = np.array([0.0, 0.4, 1.0])
    paths = export_ply(exact, tmp_path, times)
    assert [p.name for p in paths] == ["00000.ply", "00001.ply", "00002.ply", "manifest.json"]
    for path, time in zip(paths, times, strict=False):
        camera = exact.camera_at(time)
        expected = render_image(exact, camera, time, order="own").rgb
        assert expected.std() > 0.1
        # Quaternions are normalised in the file and again when rendered; measured 6e-6.
        np.testing.assert_allclose(rendered_again(path, camera), expected, atol=1e-4)


def test_the_order_of_properties_is_that_of_3dgs(exact, tmp_path):
    export_ply(exact, tmp_path, np.array([0.0]))
    names = list(columns(tmp_path / "00000.ply"))
    assert names == [
        "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
        "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    ]  # fmt: skip


def test_stored_values_are_those_of_the_sequence(exact, tmp_path):
    export_ply(exact, tmp_path, np.array([0.0]))
    c = columns(tmp_path / "00000.ply")
    logits = torch.cat([exact.static.opacity_logits, exact.moving.opacity_logits]).detach()
    np.testing.assert_array_equal(c["opacity"], logits.numpy())
    dc = torch.cat([exact.static.harmonics, exact.moving.harmonics])[:, 0, 1].detach()
    np.testing.assert_array_equal(c["f_dc_1"], dc.numpy())
    assert np.median(c["f_dc_1"] * SH_C0 + 0.5) == pytest.approx(0.5, abs=0.4)


def test_a_part_of_the_sequence(exact, tmp_path):
    export_ply(exact, tmp_path, np.array([0.5]), PartSelection(objects="2", background="off"))
    c = columns(tmp_path / "00000.ply")
    assert len(c["x"]) == int((exact.labels == 2).sum())
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["gaussians"] == len(c["x"]) and manifest["times"] == [0.5]
    assert manifest["seconds"] == [pytest.approx(0.5 * exact.timeline.seconds[-1])]


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_rotated_harmonics_rotate_the_function(degree):
    rng = np.random.default_rng(degree)
    harmonics = torch.from_numpy(rng.normal(size=(5, (degree + 1) ** 2, 3)))
    rotations = torch.from_numpy(Rotation.random(5, random_state=0).as_matrix())
    directions = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(7, 3))), dim=-1)
    turned = rotated_harmonics(harmonics, rotations)
    ahead = harmonics_basis(degree, directions) @ turned
    before = harmonics_basis(degree, directions @ rotations) @ harmonics
    np.testing.assert_allclose(ahead, before, atol=1e-10)
    same = rotated_harmonics(harmonics, torch.eye(3).expand(5, 3, 3))
    np.testing.assert_allclose(same, harmonics, atol=1e-10)


def test_view_dependent_colours_survive_a_rotation(exact, tmp_path):
    """The file's colours, evaluated in the world, are the sequence's, in the canonical frame."""
    from copy import deepcopy

    sequence = deepcopy(exact)
    generator = torch.Generator().manual_seed(0)
    for name in ("static", "moving"):
        old = getattr(sequence, name)
        high = 0.2 * torch.randn(len(old), 8, 3, generator=generator)
        setattr(sequence, name, Gaussians(old.means, old.log_scales, old.quats_wxyz,
                old.opacity_logits, torch.cat([old.harmonics, high], 1)))  # fmt: skip
    export_ply(sequence, tmp_path, np.array([0.9]))
    camera = sequence.camera_at(0.2)
    expected = render_image(sequence, camera, 0.9, order="own").rgb
    np.testing.assert_allclose(rendered_again(tmp_path / "00000.ply", camera), expected, atol=1e-4)


def test_non_finite_numbers_are_an_error_and_leave_no_file(tmp_path):
    sequence = moving_points([[0, 0, 2.0]], np.zeros((1, 2, 3)))
    gaussians = {
        "means": np.array([[0, np.nan, 1]]), "log_scales": np.zeros((1, 3)),
        "quats_wxyz": np.array([[1.0, 0, 0, 0]]), "opacity_logits": np.zeros(1),
        "harmonics": sequence.moving.harmonics.detach().numpy(),
    }  # fmt: skip
    with pytest.raises(InputError, match="y: expected finite"):
        write_gaussians_ply(tmp_path / "a.ply", **gaussians)
    assert not list(tmp_path.iterdir())
