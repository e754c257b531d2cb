"""Motion between key frames: a cubic spline on SE(3), against scipy's and exact motions."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError
from msdyn.geometry import sixd_from_rotations
from msdyn.motion import MotionField
from msdyn.motion.keys import KeyTimes
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.weights import BlendWeights

UNEVEN = np.array([2.0, 3, 5, 6, 7, 10, 12])


def field_of(rotations, translations, keys, interpolation="cubic", centres=None):
    """A level of patterns with rotations [K, T, 3, 3] and translations [K, T, 3], in float64."""
    count = len(translations)
    centres = np.zeros((count, 3)) if centres is None else centres
    field = PatternField(
        [torch.as_tensor(centres)], [sixd_from_rotations(torch.as_tensor(rotations))],
        [torch.as_tensor(translations)], [torch.zeros(count).long()],
        torch.as_tensor(keys), torch.ones(count).long(), interpolation,
    )  # fmt: skip
    return field.double()


def random_field(keys, interpolation="cubic", *, seed=0, count=3):
    rng = np.random.default_rng(seed)
    rotations = Rotation.from_rotvec(rng.normal(0, 0.5, (count * len(keys), 3))).as_matrix()
    shape = (count, len(keys), 3)
    return field_of(
        rotations.reshape(*shape, 3), rng.normal(size=shape), keys, interpolation,
        rng.normal(size=(count, 3)),
    )  # fmt: skip


def identities(count, keys):
    return np.tile(np.eye(3), (count, len(keys), 1, 1))


def about_axis(angles):
    """Rotations [1, T, 3, 3] about a fixed axis."""
    axis = np.array([1.0, 2, -2]) / 3
    return Rotation.from_rotvec(np.outer(angles, axis)).as_matrix()[None]


def catmull_rom(keys, values):
    """scipy's Hermite spline, with the mean velocity between the neighbours of each key frame."""
    last = len(keys) - 1
    around = [(max(0, i - 1), min(last, i + 1)) for i in range(len(keys))]
    slopes = [(values[b] - values[a]) / (keys[b] - keys[a]) for a, b in around]
    return CubicHermiteSpline(keys, values, np.array(slopes))


@torch.no_grad()
def poses(field, frames):
    rigid = field.at(0, torch.as_tensor(frames, dtype=torch.float64))
    return rigid.rotation.numpy(), rigid.translation.numpy()


@pytest.mark.parametrize("keys", [UNEVEN, np.arange(6.0), UNEVEN[:3], UNEVEN[:2]], ids=len)
def test_it_is_the_spline_of_scipy(keys):
    """Of translations, of rotations about one axis, and of any values; constant beyond the ends."""
    rng = np.random.default_rng(len(keys))
    angles, values = rng.normal(0, 0.4, len(keys)), rng.normal(size=(len(keys), 3))
    frames = np.array([keys[0] - 1, *np.linspace(keys[0], keys[-1], 23), keys[-1] + 0.5])
    inside = frames.clip(keys[0], keys[-1])
    rotation, translation = poses(field_of(about_axis(angles), values[None], keys), frames)
    np.testing.assert_allclose(translation[0], catmull_rom(keys, values)(inside), atol=1e-12)
    expected = about_axis(catmull_rom(keys, angles)(inside))
    np.testing.assert_allclose(rotation, expected, atol=1e-12)
    times = KeyTimes.of(torch.from_numpy(keys), torch.from_numpy(frames), "cubic")
    own = times.interpolate(torch.from_numpy(values)[None])[0]
    np.testing.assert_allclose(own, catmull_rom(keys, values)(inside), atol=1e-12)


def test_constant_velocity_is_exact_between_uneven_key_frames():
    start, spin = Rotation.random(random_state=1), np.array([0.2, -0.1, 0.15])
    velocity = np.array([0.3, 0.1, -0.2])

    def rotations(frames):
        return (start * Rotation.from_rotvec(np.outer(frames, spin))).as_matrix()

    frames = np.linspace(2, 12, 31)
    field = field_of(rotations(UNEVEN)[None], np.outer(UNEVEN, velocity)[None], UNEVEN)
    rotation, translation = poses(field, frames)
    np.testing.assert_allclose(rotation[0], rotations(frames), atol=1e-12)
    np.testing.assert_allclose(translation[0], np.outer(frames, velocity), atol=1e-12)


def test_constant_acceleration_is_exact_between_even_key_frames():
    """Not in the first and last gap, where there is nothing to tell the acceleration from."""
    keys, frames = np.arange(0.0, 12, 2), np.linspace(2, 8, 25)

    def angles(t):
        return 0.1 * t + 0.02 * t**2

    def positions(t):
        return np.outer(t**2, [0.1, 0.0, -0.2]) + np.outer(t, [0.0, 0.3, 0.1])

    rotation, translation = poses(
        field_of(about_axis(angles(keys)), positions(keys)[None], keys), frames
    )
    np.testing.assert_allclose(rotation, about_axis(angles(frames)), atol=1e-12)
    np.testing.assert_allclose(translation[0], positions(frames), atol=1e-12)
    straight = field_of(about_axis(angles(keys)), positions(keys)[None], keys, "linear")
    assert np.abs(poses(straight, frames)[1][0] - positions(frames)).max() > 0.05


def velocity_jumps(field):
    """Largest jumps of the angular and linear velocities at the inner key frames."""
    keys, step = field.key_frames.numpy()[1:-1], 1e-5
    (before, x), (at, y), (after, z) = (poses(field, keys + d) for d in (-step, 0, step))

    def turn(a, b):  # in the body's frame at the key frame, which both velocities share
        relative = np.swapaxes(a, -1, -2) @ b
        return Rotation.from_matrix(relative.reshape(-1, 3, 3)).as_rotvec() / step

    return (
        np.abs(turn(before, at) - turn(at, after)).max(),
        np.abs((y - x) / step - (z - y) / step).max(),
    )


@pytest.mark.parametrize("keys", [UNEVEN, np.arange(8.0)], ids=["uneven", "even"])
def test_velocities_are_continuous_at_key_frames(keys):
    assert max(velocity_jumps(random_field(keys))) < 1e-3
    assert min(velocity_jumps(random_field(keys, "linear"))) > 0.3


@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
def test_a_rigid_transform_of_all_key_frames_is_one_of_all_times(interpolation):
    """The world has no preferred axes and no origin: pivots move to centre + translation."""
    field = random_field(UNEVEN, interpolation)
    turn = Rotation.random(random_state=2).as_matrix()
    offset = np.array([1.0, -2, 0.5])
    centres = field.centres(0).numpy()
    key_rotations, key_translations = poses(field, UNEVEN)
    moved = (centres[:, None] + key_translations) @ turn.T + offset - centres[:, None]
    other = field_of(turn @ key_rotations, moved, UNEVEN, interpolation, centres)
    frames = np.linspace(1, 13, 29)
    rotation, translation = poses(field, frames)
    expected = (centres[:, None] + translation) @ turn.T + offset - centres[:, None]
    np.testing.assert_allclose(poses(other, frames)[0], turn @ rotation, atol=1e-12)
    np.testing.assert_allclose(poses(other, frames)[1], expected, atol=1e-12)


def motion_of(field, *, residual=False, varying=False, gaussians=20):
    generator = torch.Generator().manual_seed(3)
    keys, count = len(field.key_frames), field.num_patterns(0)
    index = torch.arange(count).expand(gaussians, count)
    shape = (gaussians, count, keys) if varying else (gaussians, count)
    like = field.centres(0)
    logits = torch.randn(shape, generator=generator).to(like)
    free = torch.randn(gaussians, keys, 3, generator=generator).to(like) if residual else None
    return MotionField(field, [BlendWeights(index, logits)], free)


def gaussians_of(motion):
    generator = torch.Generator().manual_seed(4)
    like = motion.patterns.centres(0)
    points, quats = (torch.randn(len(motion), n, generator=generator) for n in (3, 4))
    return points.to(like), quats.to(like)


def test_residuals_and_weights_have_continuous_velocities_and_undo():
    motion = motion_of(random_field(UNEVEN), residual=True, varying=True)
    points, _ = gaussians_of(motion)
    keys, step = motion.key_frames[1:-1], 1e-5
    with torch.no_grad():
        before, at, after = (motion.positions(points, keys + d) for d in (-step, 0, step))
        assert float((before + after - 2 * at).abs().max() / step) < 2e-3
        moved = motion.positions(points, torch.tensor([8.7], dtype=torch.float64))[0]
        torch.testing.assert_close(motion.undo(moved, 8.7), points)


def test_the_compiled_field_agrees():
    field = random_field(UNEVEN).float()
    motion = motion_of(field)
    points, quats = gaussians_of(motion)
    frames = torch.tensor([2.0, 2.4, 6.5, 8.1, 12.0])
    with torch.no_grad():
        compiled = motion.pose(points, quats, frames)
        exact = motion_of(random_field(UNEVEN)).pose(points.double(), quats.double(), frames)
    for own, expected in zip(compiled, exact, strict=True):
        torch.testing.assert_close(own.double(), expected, atol=2e-5, rtol=1e-5)


def test_gradients_agree_with_finite_differences():
    field = random_field(UNEVEN[:5], count=2)
    frames = torch.tensor([2.3, 4.0, 5.5, 6.8], dtype=torch.float64)

    def at(sixd, translation):
        state = {"sixd.0": sixd, "translations.0": translation}
        return torch.func.functional_call(_At(field), {f"field.{k}": v for k, v in state.items()},
                                          (frames,))  # fmt: skip

    inputs = [field.sixd[0].detach().clone(), field.translations[0].detach().clone()]
    assert torch.autograd.gradcheck(at, [v.requires_grad_() for v in inputs], fast_mode=True)


class _At(torch.nn.Module):
    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, frames):
        rigid = self.field.at(0, frames)
        return rigid.rotation, rigid.translation


def test_patterns_at_rest_stay_at_rest_and_have_finite_gradients():
    field = field_of(identities(2, UNEVEN), np.zeros((2, len(UNEVEN), 3)), UNEVEN)
    rigid = field.at(0, torch.tensor([2.5, 3.0, 9.0], dtype=torch.float64))
    assert torch.equal(rigid.rotation, torch.eye(3).double().expand(2, 3, 3, 3))
    assert not rigid.translation.any()
    (rigid.rotation * torch.randn(3, 3)).sum().backward()
    gradient = field.sixd[0].grad
    assert gradient is not None and torch.isfinite(gradient).all() and gradient.any()


def test_files_tell_the_interpolation_and_older_ones_are_linear():
    motion = motion_of(random_field(UNEVEN).float())
    stored = MotionField.from_tensors(motion.tensors(), motion.header())
    assert stored.patterns.interpolation == "cubic"
    older = {k: v for k, v in motion.header().items() if k != "key_interpolation"}
    linear = MotionField.from_tensors(motion.tensors(), older)
    assert linear.patterns.interpolation == "linear" and linear.header() == older
    with pytest.raises(InputError, match="key_interpolation"):
        MotionField.from_tensors(motion.tensors(), older | {"key_interpolation": "none"})
