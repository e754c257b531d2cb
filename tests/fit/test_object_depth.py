"""Corrections of the depth of moving objects, against the truth of synthetic scenes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from msdyn.fit import preset
from msdyn.fit.data import load_fit_data
from msdyn.fit.initial_motion import estimate_motion
from msdyn.fit.object_depth import ObjectDepth
from msdyn.geometry import project, transform_points
from msdyn.scene import LiftedTracks, Scene, write_depth
from msdyn.synthetic import make_scene, render_truth, write_priors

FRAMES = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A rigid and a bending object; the depth of each has another scale in every frame."""
    folder = tmp_path_factory.mktemp("objects") / "scene"
    spec = make_scene("rigid-deformable", frames=FRAMES, width=112, height=84)
    truth = render_truth(replace(spec, views={}))
    write_priors(truth, folder, level="exact", seed=0)
    rng = np.random.default_rng(0)
    scales = np.exp(0.05 * rng.standard_normal((FRAMES, 3)))
    scales[:, 0] = 1  # the static scene
    masks = truth.clip.masks
    for frame, depth in enumerate(truth.clip.depths):
        write_depth(folder, frame, depth * scales[frame][masks[frame]].astype(np.float32))
    return Scene(folder), truth, scales


def loaded(scene):
    return load_fit_data(
        scene, long_side=None, holdout_every=0, device=torch.device("cpu"), refine="none"
    )


def every(maps):
    """Return the maps of all frames."""
    return maps[range(len(maps))].numpy()


def options(*, steps=120, **changes):
    chosen = preset("quick", **changes)
    motion = replace(chosen.motion, prefit_steps=steps, joint_refinement="off")
    return replace(chosen, motion=motion)


@pytest.mark.slow
def test_the_scales_of_objects_are_recovered(clip):
    scene, truth, scales = clip
    data = loaded(scene)
    _, correction, corrected = estimate_motion(data, options())
    masks = truth.clip.masks
    for number, instance in enumerate(correction.objects):
        shown = np.array([(mask == instance).sum() > 100 for mask in masks])
        before = np.log(scales[shown, instance])
        after = before + correction.log_scale[shown, number, 0]
        # The second object also bends; in 16 frames, size and bending are partly confounded.
        assert after.std() < (0.35, 0.7)[number] * before.std()
        # Independent per frame, so that differences are the errors that motion cannot explain.
        assert np.abs(np.diff(after)).mean() < 0.2 * np.abs(np.diff(before)).mean()
        # The mean scale is not observable, and is kept.
        assert abs(correction.log_scale[shown, number, 0].mean()) < 0.01
    static = masks == 0
    np.testing.assert_array_equal(every(corrected.depth)[static], every(data.depth)[static])
    relative = every(corrected.depth) / corrected.fit_from_scene.scale / truth.clip.depths
    given = every(data.depth) / data.fit_from_scene.scale / truth.clip.depths
    moving = ~static
    assert np.abs(np.log(relative[moving])).mean() < 0.6 * np.abs(np.log(given[moving])).mean()


@pytest.mark.reliability
def test_exact_depth_is_kept(clip, tmp_path):
    write_priors(clip[1], tmp_path / "scene", level="exact", seed=0)
    data = loaded(Scene(tmp_path / "scene"))
    _, correction, _ = estimate_motion(data, options())
    # Of the bending object. The other accelerates: part of that is taken for errors of depth.
    assert np.abs(correction.log_scale[:, 1]).max() < 0.002
    assert correction.magnitude < 0.01
    # As written to refinement.json.
    assert correction.summary()["2"]["scale_error"] < 0.002 < correction.summary()["1"]["corrected"]


@pytest.mark.slow
def test_without_correction_the_depth_is_that_of_the_scene(clip):
    data = loaded(clip[0])
    _, correction, kept = estimate_motion(data, options(steps=2, object_depth="given"))
    assert not correction.log_scale.any()
    assert (every(kept.depth) == every(data.depth)).all()
    assert preset("paper").object_depth == "given"


def test_maps_and_tracks_are_corrected_alike(clip):
    """A corrected track projects to the same pixel, and lies on the corrected map."""
    data = loaded(clip[0])
    rng = np.random.default_rng(0)
    none = ObjectDepth.none(data.motion_tracks())
    # Maps are corrected at pixel centres, up to 0.7 px from the tracks: the slopes are moderate.
    log_scale = rng.standard_normal(none.log_scale.shape) * [0.05, 0.01, 0.01]
    correction = replace(none, log_scale=log_scale)
    corrected = data.with_object_depth(correction)
    for frame in range(FRAMES):
        seen = data.tracks.at(frame)
        for tracks in (data.tracks, corrected.tracks):
            local = transform_points(data.cameras.cam_from_world[frame], tracks.xyz[seen])
            xy = project(data.cameras.intrinsics[frame], local)
            np.testing.assert_allclose(xy, data.tracks.xy[seen], atol=1e-3)
        column, row = np.floor(data.tracks.xy[seen]).astype(int).T
        own = data.mask[frame].numpy()[row, column] == data.tracks.object[data.tracks.track[seen]]
        factor = corrected.depth[frame].numpy() / data.depth[frame].numpy()
        centre = data.cameras.centres[frame]
        moved = np.linalg.norm(corrected.tracks.xyz[seen] - centre, axis=1)
        moved /= np.linalg.norm(data.tracks.xyz[seen] - centre, axis=1)
        np.testing.assert_allclose(moved[own], factor[row, column][own], rtol=5e-3)


def test_no_tracks_and_hidden_objects():
    empty = LiftedTracks(
        np.zeros((0, 3, 3)), np.zeros((0, 3), bool), np.zeros((0, 3)), np.zeros(0, int),
        np.zeros((0, 3, 2)),
    )  # fmt: skip
    none = ObjectDepth.none(empty)
    depth = np.ones((4, 5), np.float32)
    np.testing.assert_array_equal(none.correct_map(depth, np.ones((4, 5), np.uint8), 0), depth)
    hidden = LiftedTracks(
        np.zeros((2, 3, 3)), np.zeros((2, 3), bool), np.zeros((2, 3)), np.ones(2, int),
        np.zeros((2, 3, 2)),
    )  # fmt: skip
    assert np.isfinite(ObjectDepth.none(hidden).centre).all()
