"""Division of moving Gaussians into rigid parts."""

import numpy as np
import pytest
import torch
from clips import two_boxes
from evaluate.exact_fits import exact_sequence, moving_points

from msdyn.geometry import Rigid, rotations_from_rotvecs, sixd_from_rotations
from msdyn.motion import MotionField
from msdyn.motion.models.displacements import Displacements
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.weights import BlendWeights
from msdyn.sequence import Gaussians, object_poses, rigid_parts

FRAMES = 5


@pytest.fixture(scope="module")
def exact():
    """Two rigid boxes, 8 frames."""
    return exact_sequence(two_boxes(8, 96, 72))


def test_rigid_objects_are_one_part_each_with_the_pose_of_the_object(exact):
    frames = np.array([0.0, 2.5, 7.0])
    found = rigid_parts(exact, frames)
    assert [part.label for part in found.parts] == [1, 2]
    assert [part.level for part in found.parts] == [0, 0]
    assert found.error_px < 1e-2 and found.mean_error_px < 1e-2
    poses = object_poses(exact, frames)
    for part in found.parts:
        np.testing.assert_allclose(part.world_from_part, poses[part.label], atol=1e-4)
        assert set(part.index) == set(torch.nonzero(exact.labels == part.label)[:, 0].tolist())


def two_halves(count=20):
    """Return an object 5 units away whose halves, groups of level 1, drift apart, and the drift."""
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(count, 3, generator=generator) + torch.tensor([-0.5, -0.5, 5.0])
    half = torch.arange(count) % 2
    drift = torch.zeros(2, FRAMES, 3)
    drift[1, :, 0] = torch.linspace(0, 1, FRAMES)
    turns = rotations_from_rotvecs(torch.tensor([0.0, 0.0, 0.3]) * torch.arange(FRAMES)[:, None])
    whole = sixd_from_rotations(turns)[None].float()
    still = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(2, FRAMES, 6).clone()
    pivots = [
        points.mean(0, keepdim=True),
        torch.stack([points[half == k].mean(0) for k in (0, 1)]),
    ]
    field = PatternField(
        pivots, [whole, still], [torch.zeros(1, FRAMES, 3), drift],
        [torch.zeros(1).long(), torch.zeros(2).long()],
        torch.arange(float(FRAMES)), torch.tensor([1]),
    )  # fmt: skip
    one = torch.zeros(count, 1)
    weights = [BlendWeights(torch.zeros(count, 1).long(), one), BlendWeights(half[:, None], one)]
    sequence = moving_points(points, np.zeros((count, FRAMES, 3)))
    labels = torch.ones(count).long()
    return sequence.replaced(motion=MotionField(field, weights), labels=labels), half


def test_what_is_not_rigid_is_divided_into_the_groups_of_the_next_level():
    sequence, half = two_halves()
    frames = np.arange(float(FRAMES))
    coarse = rigid_parts(sequence, frames, tolerance_px=1e9)
    assert len(coarse.parts) == 1 and coarse.error_px > 1
    fine = rigid_parts(sequence, frames)
    assert [part.level for part in fine.parts] == [1, 1]
    assert fine.error_px < 1e-3
    for part, k in zip(fine.parts, (0, 1), strict=True):
        assert part.index.tolist() == torch.nonzero(half == k)[:, 0].tolist()
        posed = sequence.posed(torch.from_numpy(frames).float())
        local = sequence.moving.means[part.index].detach().numpy() - part.centre
        found = Rigid.from_matrix(part.world_from_part).apply(local[None])
        np.testing.assert_allclose(found, posed.means[:, part.index].detach(), atol=1e-4)
    assert "2 rigid parts" in str(fine)


def parting(count):
    """Return an object of two points, five units away, that part by 0.2 units; and its paths."""
    paths = np.zeros((2, count, 3))
    paths[0, :, 0], paths[1, :, 0] = np.linspace(0, -0.1, count), np.linspace(0, 0.1, count)
    sequence = moving_points([[-0.5, 0, 5], [0.5, 0, 5]], paths)
    motion = Displacements(torch.from_numpy(paths).float(), torch.arange(float(count)))
    return sequence.replaced(motion=motion, labels=torch.ones(2).long())


def test_the_error_is_what_the_camera_sees():
    """Each point is 0.1 units from the rigid pair in the end: 60 px / 5 * 0.1."""
    found = rigid_parts(parting(2), np.arange(2.0), tolerance_px=2)
    assert found.parts[0].error_px == pytest.approx([0, 60 / 5 * 0.1], abs=1e-3)
    assert found.mean_error_px == pytest.approx(60 / 5 * 0.1 / 2, abs=1e-3)


@pytest.mark.parametrize("count", [2, 100])
def test_a_motion_without_groups_is_divided_too(count):
    found = rigid_parts(parting(count), np.arange(float(count)), tolerance_px=0.5)
    assert [part.index.tolist() for part in found.parts] == [[0], [1]]
    assert found.error_px < 1e-3 and found.parts[0].world_from_part.shape == (count, 4, 4)


def test_a_single_gaussian_has_its_own_rotation():
    sequence, _ = two_halves(2)
    frames = np.arange(float(FRAMES))
    for part in rigid_parts(sequence, frames).parts:
        turn = np.arctan2(part.world_from_part[:, 1, 0], part.world_from_part[:, 0, 0])
        np.testing.assert_allclose(turn, 0.3 * frames, atol=1e-4)


def test_without_moving_gaussians_there_are_no_parts():
    sequence = moving_points(np.zeros((1, 3)) + 5, np.zeros((1, 2, 3)))
    found = rigid_parts(sequence, np.arange(2.0), labels=[])
    assert found.parts == () and found.error_px == 0.0 and found.mean_error_px == 0.0
    nothing = sequence.replaced(
        moving=Gaussians.empty(),
        motion=sequence.motion.select(torch.zeros(0).long()),
        labels=torch.zeros(0).long(),
    )
    assert rigid_parts(nothing, np.arange(2.0)).parts == ()
