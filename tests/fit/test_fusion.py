"""Depth of the first Gaussians, fused over the frames, against exact truth."""

import numpy as np
import pytest
import torch

from msdyn.fit.data import load_fit_data
from msdyn.fit.fusion import Sampled, fuse_depth
from msdyn.fit.sampling import sample_frame
from msdyn.scene import Scene
from msdyn.synthetic import make_scene, render_truth, write_priors

FRAMES, WIDTH, HEIGHT = 12, 96, 72


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The same clip with exact priors, and with depth of one percent of noise."""
    folder = tmp_path_factory.mktemp("fusion")
    truth = render_truth(make_scene("rigid", frames=FRAMES, width=WIDTH, height=HEIGHT))
    for level in ("exact", "sensor"):
        write_priors(truth, folder / level, level=level, seed=0)
    return {level: loaded(Scene(folder / level)) for level in ("exact", "sensor")}


def loaded(scene):
    return load_fit_data(
        scene, long_side=None, holdout_every=0, device=torch.device("cpu"), refine="both"
    )


def static_samples(data, count=400):
    rng = np.random.default_rng(0)
    points, sources = [], []
    for frame in range(0, FRAMES, 3):
        points.append(sample_frame(data, frame, data.mask.numpy(frame) == 0, count, rng)[0])
        sources.append(np.full(len(points[-1]), frame))
    points, sources = np.concatenate(points), np.concatenate(sources)
    return Sampled(points, sources, np.zeros(len(points), int))


def still(points):
    return lambda _: points


def distances(data, sampled, points):
    return np.linalg.norm(points - data.cameras.centres[sampled.source], axis=1)


def test_noise_of_depth_is_averaged(clips):
    noisy, exact = clips["sensor"], clips["exact"]
    sampled = static_samples(noisy)
    fused = fuse_depth(noisy, sampled, list(range(FRAMES)), still)
    assert fused.kept.mean() > 0.95
    # The truth at the same pixels; the cameras are refined to a fraction of the noise of depth.
    ratio = exact.fit_from_scene.scale / noisy.fit_from_scene.scale
    true = np.full(len(sampled.points), np.nan)
    for frame in np.unique(sampled.source):
        own = np.flatnonzero(sampled.source == frame)
        local = (
            noisy.cameras.cam_from_world[frame][:3, :3]
            @ (sampled.points[own] - noisy.cameras.centres[frame]).T
        )
        xy = (noisy.cameras.intrinsics[frame] @ local)[:2] / local[2]
        depth = exact.depth.numpy(frame)[tuple(xy[::-1].astype(int))] / ratio
        true[own] = distances(noisy, sampled, sampled.points)[own] * depth / local[2]
    before = np.abs(distances(noisy, sampled, sampled.points) / true - 1)
    after = np.abs(distances(noisy, sampled, fused.points) / true - 1)
    # Twelve frames, of which the camera has moved on for some: a third to a half is left.
    assert np.median(after) < 0.6 * np.median(before)
    # Points move along the rays on which they were sampled.
    offsets = sampled.points - noisy.cameras.centres[sampled.source]
    moved = fused.points - noisy.cameras.centres[sampled.source]
    along = np.cross(offsets, moved)
    assert np.abs(along).max() < 1e-9


def test_exact_depth_is_kept(clips):
    data = clips["exact"]
    sampled = static_samples(data)
    fused = fuse_depth(data, sampled, list(range(FRAMES)), still)
    change = distances(data, sampled, fused.points) / distances(data, sampled, sampled.points) - 1
    assert np.median(np.abs(change)) < 1e-3 and np.quantile(np.abs(change), 0.95) < 5e-3
    assert fused.kept.mean() > 0.98


def test_points_in_empty_space_are_dropped_and_hidden_ones_are_not(clips):
    data = clips["exact"]
    sampled = static_samples(data)
    centres = data.cameras.centres[sampled.source]
    kept = {}
    for share in (0.6, 1.4):
        moved = sampled._replace(points=centres + share * (sampled.points - centres))
        kept[share] = fuse_depth(data, moved, list(range(FRAMES)), still).kept.mean()
    assert kept[0.6] < 0.1 and kept[1.4] > 0.9


def test_where_nothing_is_known_nothing_changes(clips):
    data = clips["exact"]
    sampled = static_samples(data)
    behind = sampled._replace(points=2 * data.cameras.centres[sampled.source] - sampled.points)
    fused = fuse_depth(data, behind, list(range(FRAMES)), still)
    np.testing.assert_allclose(fused.points, behind.points, rtol=1e-12)
    assert fused.kept.all()
    # Of another object than the masks say.
    other = sampled._replace(labels=np.full(len(sampled.points), 7))
    np.testing.assert_allclose(
        fuse_depth(data, other, list(range(FRAMES)), still).points, sampled.points
    )
    none = Sampled(np.zeros((0, 3)), np.zeros(0, int), np.zeros(0, int))
    assert len(fuse_depth(data, none, [0], still).points) == 0
