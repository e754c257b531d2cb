"""Tracks that supervise a step, against dense arrays of the same tracks."""

import numpy as np
import pytest
import torch

from msdyn.fit.data import load_fit_data
from msdyn.fit.tracks import TrackSampler
from msdyn.geometry import transform_points
from msdyn.scene import Scene, lift_scene_tracks
from msdyn.synthetic import make_scene, render_truth, write_priors

FRAMES = 9


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A scene of which every fourth frame is held out, at half its size."""
    folder = tmp_path_factory.mktemp("tracks") / "scene"
    truth = render_truth(make_scene("two-boxes", frames=FRAMES, width=96, height=72))
    write_priors(truth, folder, level="sensor", seed=0)
    scene = Scene(folder)
    options = {"long_side": 48, "holdout_every": 4, "device": torch.device("cpu")}
    return scene, load_fit_data(scene, **options)


def test_tracks_are_those_of_the_scene_in_the_world_and_size_of_the_fit(data):
    scene, fit_data = data
    given = lift_scene_tracks(scene).dense()
    visible = given.visible[:, fit_data.frames]
    kept = visible.any(1)
    tracks = fit_data.tracks.dense()
    np.testing.assert_array_equal(tracks.visible, visible[kept])
    xyz = fit_data.fit_from_scene.apply(given.xyz[kept][:, fit_data.frames])
    np.testing.assert_allclose(tracks.xyz[tracks.visible], xyz[tracks.visible])
    xy = given.xy[kept][:, fit_data.frames] / 2
    np.testing.assert_allclose(tracks.xy[tracks.visible], xy[tracks.visible])
    assert len(fit_data.motion_tracks()) == len(tracks)


def test_a_sample_has_one_track_in_two_frames(data):
    fit_data = data[1]
    tracks, sampler = fit_data.tracks.dense(), TrackSampler(fit_data, seed=3)
    shared = tracks.visible.T.astype(float) @ tracks.visible
    np.fill_diagonal(shared, 0)
    np.testing.assert_allclose(sampler.affinity, np.sqrt(shared), rtol=1e-6)
    sources = fit_data.frames[[0, 2, 5]]
    batch = sampler.sample(sources, 7)
    for i, frame in enumerate(sources):
        source = int(np.searchsorted(fit_data.frames, frame))
        target = int(np.searchsorted(fit_data.frames, int(batch.target[i])))
        assert fit_data.frames[target] == int(batch.target[i]) and source != target
        common = tracks.visible[:, source] & tracks.visible[:, target]
        used = batch.weights[i] > 0
        certain = common & (tracks.confidence[:, target] > 0)
        assert int(used.sum()) == min(512, np.count_nonzero(certain))
        pose = fit_data.cameras.cam_from_world[fit_data.frames[target]]
        expected = {
            tuple(np.float32([*tracks.xy[n, source], *tracks.xy[n, target]]).round(4)): (
                transform_points(pose, tracks.xyz[n, target][None])[0, 2],
                tracks.confidence[n, target],
            )
            for n in np.flatnonzero(common)
        }
        for j in np.flatnonzero(used.numpy()):
            place = torch.cat([batch.source_xy[i, j], batch.target_xy[i, j]]).numpy()
            depth, weight = expected[tuple(place.round(4))]
            assert batch.target_depth[i, j] == pytest.approx(depth, rel=1e-5)
            assert batch.weights[i, j] == pytest.approx(weight)
    again = sampler.sample(sources, 7)
    assert torch.equal(again.source_xy, batch.source_xy)
    assert not torch.equal(sampler.sample(sources, 8).source_xy, batch.source_xy)
