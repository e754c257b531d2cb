"""Gaussian sequences: posing, storage, world coordinates, colours."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation
from unchecked import construct_unchecked

from msdyn.errors import InputError
from msdyn.geometry import Cameras, Similarity, rotations_from_quats_wxyz
from msdyn.motion import MotionField
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.weights import BlendWeights
from msdyn.scene import Timeline
from msdyn.sequence import Gaussians, GaussianSequence, load_sequence, save_sequence

FRAMES = 5


def random_gaussians(count, degree=0, seed=0):
    g = torch.Generator().manual_seed(seed)
    gaussians = Gaussians.from_points(
        torch.randn(count, 3, generator=g),
        torch.rand(count, 3, generator=g),
        0.1 + 0.1 * torch.rand(count, generator=g),
        degree=degree,
    )
    with torch.no_grad():
        gaussians.quats_wxyz += torch.randn(count, 4, generator=g)
        gaussians.harmonics[:, 1:] += 0.3 * torch.randn(
            count, (degree + 1) ** 2 - 1, 3, generator=g
        )
    return gaussians


@pytest.fixture
def sequence():
    """A rotation by 90 degrees about y at x = 1 with a translation; two static Gaussians."""
    angle = np.linspace(0, np.pi / 2, FRAMES)
    rotation = Rotation.from_rotvec(angle[:, None] * [0, 1, 0]).as_matrix()
    sixd = torch.from_numpy(np.concatenate([rotation[..., 0], rotation[..., 1]], -1))[None].float()
    translation = torch.from_numpy(np.linspace(0, 1, FRAMES)[:, None] * [0, 0, 2.0])[None].float()
    patterns = PatternField(
        [torch.tensor([[1.0, 0, 0]])], [sixd], [translation], [torch.zeros(1).long()],
        torch.arange(float(FRAMES)), torch.tensor([4]),
    )  # fmt: skip
    weights = [BlendWeights(torch.zeros(3, 1).long(), torch.zeros(3, 1))]
    return GaussianSequence(
        random_gaussians(2),
        random_gaussians(3, seed=1),
        MotionField(patterns, weights),
        torch.full((3,), 4),
        timeline=Timeline.uniform(FRAMES, 8.0),
        cameras=Cameras.pinhole(50.0, 64, 48, np.tile(np.eye(4), (FRAMES, 1, 1))),
        canonical_frame=0,
        world_units="metric",
    )


def test_gaussians_are_posed_at_any_time(sequence):
    posed = sequence.at(0.5)
    half = torch.from_numpy(Rotation.from_rotvec([0, np.pi / 4, 0]).as_matrix()).float()
    pivot = torch.tensor([1.0, 0, 0])
    expected = (sequence.moving.means - pivot) @ half.T + pivot + torch.tensor([0, 0, 1.0])
    torch.testing.assert_close(posed.means[0, 2:], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(posed.means[0, :2], sequence.static.means)
    assert posed.labels.tolist() == [0, 0, 4, 4, 4] and posed.num_static == 2
    # Eq. 7: the orientation rotates with the object.
    before = rotations_from_quats_wxyz(sequence.moving.quats_wxyz)
    after = rotations_from_quats_wxyz(posed.quats_wxyz[0, 2:])
    torch.testing.assert_close(after, half @ before, atol=1e-5, rtol=0)
    between = sequence.at(0.5 + 0.125 / 2)
    assert not torch.equal(between.means, posed.means)


def test_canonical_gaussians_have_no_motion(sequence):
    torch.testing.assert_close(sequence.canonical().means[0, 2:], sequence.moving.means)
    assert torch.equal(sequence.at(0.8, levels=0).means, sequence.canonical().means)


@pytest.mark.parametrize("time", [-0.01, 1.01, float("nan")])
def test_times_outside_the_clip_are_refused(sequence, time):
    with pytest.raises(InputError, match="time: expected 0"):
        sequence.at(time)


def test_storage_round_trip_is_exact(sequence, tmp_path):
    save_sequence(sequence, tmp_path / "s.safetensors")
    again = load_sequence(tmp_path / "s.safetensors")
    for time in (0.0, 0.37, 1.0):
        a, b = sequence.at(time), again.at(time)
        for name in ("means", "quats_wxyz", "scales", "opacities", "harmonics", "labels"):
            assert torch.equal(getattr(a, name), getattr(b, name))
    assert again.world_units == "metric" and again.canonical_frame == 0
    np.testing.assert_array_equal(again.cameras.cam_from_world, sequence.cameras.cam_from_world)
    np.testing.assert_array_equal(again.timeline.seconds, sequence.timeline.seconds)


def test_invalid_files_are_refused(sequence, tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_sequence(path)
    with pytest.raises(FileNotFoundError, match="no fit yet; make one with `msdyn-fit"):
        load_sequence(tmp_path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a readable sequence"):
        load_sequence(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="another safetensors file"):
        load_sequence(path)


def test_rescaling_keeps_the_scene(sequence):
    moved = sequence.rescaled(Similarity.of(2.0, [1.0, -2, 3]))
    for time in (0.0, 0.6):
        a, b = sequence.at(time), moved.at(time)
        torch.testing.assert_close(b.means, 2 * a.means + torch.tensor([1.0, -2, 3]))
        torch.testing.assert_close(b.scales, 2 * a.scales)
        torch.testing.assert_close(b.quats_wxyz, a.quats_wxyz)
    np.testing.assert_allclose(moved.cameras.centres, [[1, -2, 3]] * FRAMES)


def test_colours_of_degree_zero_are_view_independent(sequence):
    posed = sequence.at(0.3)
    colours = posed.colours(torch.randn(1, 3))
    assert colours.shape == (5, 3)
    assert torch.equal(colours, posed.colours(torch.randn(1, 3)))


def test_view_dependent_colours_rotate_with_the_object(sequence):
    """The colour is unchanged if the camera moves with the object."""
    sequence.static, sequence.moving = random_gaussians(2, 2), random_gaussians(3, 2, seed=1)
    start, end = sequence.at(0.0), sequence.at(1.0)
    camera = torch.tensor([[0.0, 0, -5]])
    rotation = torch.from_numpy(Rotation.from_rotvec([0, np.pi / 2, 0]).as_matrix()).float()
    pivot = torch.tensor([1.0, 0, 0])
    moved_camera = (camera - pivot) @ rotation.T + pivot + torch.tensor([0, 0, 2.0])
    torch.testing.assert_close(
        end.colours(moved_camera)[0, 2:], start.colours(camera)[0, 2:], atol=1e-4, rtol=0
    )
    assert not torch.allclose(
        end.colours(moved_camera)[0, :2], start.colours(camera)[0, :2], atol=1e-3
    )


def test_shapes_are_checked():
    good = random_gaussians(3)
    values = dict(good.named_parameters())
    with pytest.raises(InputError, match="log_scales: expected"):
        construct_unchecked(Gaussians, **{**values, "log_scales": good.means[:2]})
    with pytest.raises(InputError, match="harmonics: expected"):
        construct_unchecked(Gaussians, **{**values, "harmonics": torch.zeros(3, 2, 3)})
