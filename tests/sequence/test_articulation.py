"""Objects as trees of bodies."""

import numpy as np
import pytest
import torch
from clips import two_boxes
from evaluate.exact_fits import exact_sequence, moving_points
from export.exact_laptop import exact_laptop

from msdyn.motion.models.displacements import Displacements
from msdyn.sequence import articulated_objects, object_motions


@pytest.fixture(scope="module")
def laptop():
    return exact_laptop()


def angle(a, b):
    return np.degrees(np.arccos(min(1.0, abs(float(a @ b)))))


def test_the_primitives_of_a_link_are_merged_and_the_hinge_is_found(laptop):
    frames = np.arange(12.0)
    (found,) = articulated_objects(laptop.sequence, frames)
    assert [len(body.index) for body in found.bodies] == [4000, 4000]
    owner = laptop.sequence.motion.groups(1).numpy()
    assert sorted({*(owner[body.index] // 2)}.pop() for body in found.bodies) == [0, 1]
    root, child = found.bodies
    assert root.parent is None and root.joint is None and child.parent == 0
    joint = child.joint
    assert joint.kind == "hinge" and angle(joint.axis, laptop.axis) < 0.001
    apart = joint.point - laptop.point
    assert np.linalg.norm(apart - apart @ laptop.axis * laptop.axis) < 1e-5
    lid_is_child = owner[child.index[0]] // 2 == 1
    sign = np.sign(joint.axis @ laptop.axis) * (1 if lid_is_child else -1)
    np.testing.assert_allclose(joint.positions * sign, laptop.angles, atol=1e-5)
    for body in found.bodies:
        true = laptop.motions[owner[body.index[0]] // 2]
        np.testing.assert_allclose(body.motion.matrix, true.matrix, atol=1e-5)
        assert body.error < 1e-5


def test_a_perturbed_motion_still_gives_two_links(laptop):
    """Each primitive is wrong by 0.5 degrees and 2 mm at each time, independently."""
    generator = torch.Generator().manual_seed(0)
    changed = exact_laptop.__wrapped__().sequence
    with torch.no_grad():
        for name, value in changed.motion.named_parameters():
            if name.endswith("sixd.1"):
                value.add_(0.009 * torch.randn(value.shape, generator=generator) / 3**0.5)
            if name.endswith("translations.1"):
                value.add_(0.002 * torch.randn(value.shape, generator=generator) / 3**0.5)
    (found,) = articulated_objects(changed, np.arange(12.0))
    assert [len(body.index) for body in found.bodies] == [4000, 4000]
    joint = found.bodies[1].joint
    assert joint.kind == "hinge" and angle(joint.axis, laptop.axis) < 1.0  # 0.4
    apart = joint.point - laptop.point
    assert np.linalg.norm(apart - apart @ laptop.axis * laptop.axis) < 0.005
    assert 0 < joint.residual < 0.01 and 0 < joint.residual_degrees < 1.0


def test_rigid_objects_are_one_body_each():
    sequence = exact_sequence(two_boxes(8, 96, 72))
    frames = np.arange(8.0)
    found = articulated_objects(sequence, frames)
    assert [thing.label for thing in found] == [1, 2]
    motions = object_motions(sequence, frames)
    for thing in found:
        (body,) = thing.bodies
        np.testing.assert_allclose(body.motion.matrix, motions[thing.label].matrix, atol=1e-9)
    (only,) = articulated_objects(sequence, frames, labels=[2])
    assert only.label == 2


def test_without_joints_or_with_the_outermost_level_an_object_is_one_body(laptop):
    frames = np.arange(12.0)
    for options in ({"joints": False}, {"levels": 1}):
        (found,) = articulated_objects(laptop.sequence, frames, **options)
        assert len(found.bodies) == 1 and len(found.bodies[0].index) == 8000


def test_a_motion_without_groups_is_one_body():
    paths = np.random.default_rng(0).normal(size=(5, 4, 3)) * 0.1
    sequence = moving_points(np.random.default_rng(1).normal(size=(5, 3)) + [0, 0, 5], paths)
    sequence = sequence.replaced(
        motion=Displacements(torch.from_numpy(paths).float(), torch.arange(4.0)),
        labels=torch.ones(5).long(),
    )
    (found,) = articulated_objects(sequence, np.arange(4.0))
    assert len(found.bodies) == 1 and found.bodies[0].error > 0.01
