"""The flat layer of shared bases, the baseline of the hierarchy."""

import numpy as np
import pytest
import torch
from motion.bodies import FRAMES, laptop, lifted, sheet

from msdyn.errors import InputError
from msdyn.motion import MotionConfig, TrackedScene, build_single, motion_class


def two_bodies():
    """Two separate rigid bodies: one rotates, the other translates."""
    rng = np.random.default_rng(3)
    angle = np.linspace(0, 0.8, FRAMES)
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros(FRAMES), np.ones(FRAMES)
    rotation = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    first = rng.uniform(-0.2, 0.2, (40, 3))
    second = rng.uniform(-0.2, 0.2, (40, 3)) + [2, 0, 0]
    translation = np.linspace(0, 0.5, FRAMES)[:, None] * [0, 0, 1.0]
    return lifted(np.einsum("tij,nj->nti", rotation, first), second[:, None] + translation)


def test_bases_are_shared_by_the_points_of_all_objects():
    tracks = two_bodies()
    hierarchy = build_single(tracks, 0, patterns=2)
    assert len(hierarchy.levels) == 1 and len(hierarchy.levels[0]) == 2
    assert hierarchy.max_patterns == (2,)
    # Two bases explain two rigid bodies to float precision.
    assert hierarchy.residuals[0] > 0.1 and hierarchy.residuals[1] < 1e-12
    labels = hierarchy.levels[0].labels
    assert len(set(labels[:40])) == 1 and len(set(labels[40:])) == 1 and labels[0] != labels[40]
    assert sorted(hierarchy.objects.tolist()) == [1, 2]


def test_every_point_may_use_every_basis():
    rng = np.random.default_rng(0)
    tracks = lifted(laptop(rng, count=40), sheet(rng, count=60))
    scene = TrackedScene(tracks, 0, np.arange(FRAMES))
    tracked = motion_class("single").from_tracks(scene, MotionConfig(model="single", k=10))
    (own,) = tracked.motion.weights
    assert own.index.shape == (len(tracks), 10)
    assert (own.index.sort(1).values == torch.arange(10)).all()
    assert (own.values > 1e-5).all()
    moved = tracked.motion.positions(tracked.points, tracked.motion.key_frames)
    error = (moved.transpose(0, 1) - torch.from_numpy(tracks.xyz)).norm(dim=-1)
    frozen = (moved[:1].transpose(0, 1) - torch.from_numpy(tracks.xyz)).norm(dim=-1)
    assert error.mean() < 0.5 * frozen.mean()


@pytest.mark.slow
def test_more_bases_reduce_the_residual():
    rng = np.random.default_rng(0)
    tracks = lifted(laptop(rng, count=40), sheet(rng, count=60))
    residuals = [build_single(tracks, 0, patterns=k).residuals[1] for k in (1, 3, 10)]
    assert residuals[0] > residuals[1] > residuals[2]


def test_degenerate_input():
    empty = two_bodies().select(np.zeros(0, int))
    hierarchy = build_single(empty, 0)
    assert len(hierarchy.levels[0]) == 0 and hierarchy.residuals == [0.0, 0.0]
    few = two_bodies().select(np.array([0, 50]))
    assert len(build_single(few, 0, patterns=10).levels[0]) == 1
    with pytest.raises(InputError, match="k: expected at least 1"):
        build_single(few, 0, patterns=0)
