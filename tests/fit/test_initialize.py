"""Initial positions of the Gaussians, and surface samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from msdyn.fit import preset
from msdyn.fit.data import load_fit_data
from msdyn.fit.frame_maps import FrameMaps, MapFile
from msdyn.fit.initial_motion import _object_surfaces, estimate_motion
from msdyn.fit.initialize import _candidates, initialize
from msdyn.geometry import project, transform_points
from msdyn.scene import Scene
from msdyn.synthetic import make_scene, render_truth, write_priors

FRAMES, WIDTH, HEIGHT = 8, 96, 72


@pytest.fixture(scope="module")
def deforming_cup(tmp_path_factory):
    """A cup that deforms while it moves, with sensor-like priors."""
    folder = tmp_path_factory.mktemp("cup") / "scene"
    spec = make_scene("deformable", frames=FRAMES, width=WIDTH, height=HEIGHT)
    truth = render_truth(replace(spec, views={}))
    write_priors(truth, folder, level="sensor", seed=0)
    return Scene(folder)


@pytest.mark.parametrize("model", ["hierarchy", "single", "displacements"])
def test_moving_gaussians_are_on_the_observed_surface_of_their_frame(deforming_cup, model):
    options = preset("quick")
    motion = replace(options.motion, model=model, prefit_steps=20, joint_refinement="off")
    options = replace(
        options,
        moving_gaussians=800,
        static_gaussians=100,
        motion=motion,
        initial_depth="given",
    )
    data = load_fit_data(
        deforming_cup, long_side=None, holdout_every=0, device=torch.device("cpu"), refine="none"
    )
    sequence, data, _ = initialize(
        data, options, deforming_cup.info.timeline, deforming_cup.info.world_units
    )
    assert len(sequence.moving) > 400
    with torch.no_grad():
        means = sequence.posed(torch.arange(FRAMES).float()).means.double().numpy()
    means = means[:, len(sequence.static) :]
    error = np.full((FRAMES, means.shape[1]), np.inf)
    for frame in range(FRAMES):
        local = transform_points(data.cameras.cam_from_world[frame], means[frame])
        xy = project(data.cameras.intrinsics[frame], local)
        column, row = np.floor(xy).astype(int).T
        inside = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
        observed = data.depth[frame].numpy()[row[inside], column[inside]]
        error[frame, inside] = np.abs(local[inside, 2] - observed)
    # 0.22 with weights from neighbours in the canonical frame.
    assert (error.min(0) < 1e-4).mean() > 0.98


def test_surface_samples_agree_with_depth_and_image_of_their_frame(deforming_cup):
    data = load_fit_data(
        deforming_cup, long_side=None, holdout_every=0, device=torch.device("cpu"), refine="none"
    )
    objects = np.unique(data.tracks.object)
    surfaces = _object_surfaces(data, objects, seed=0)
    assert set(surfaces.object) == set(objects) and set(surfaces.frame) == set(range(FRAMES))
    for frame in range(FRAMES):
        own = surfaces.frame == frame
        local = transform_points(data.cameras.cam_from_world[frame], surfaces.samples.xyz[own])
        column, row = np.floor(project(data.cameras.intrinsics[frame], local)).astype(int).T
        np.testing.assert_allclose(local[:, 2], data.depth[frame].numpy()[row, column], rtol=1e-5)
        np.testing.assert_array_equal(surfaces.object[own], data.mask[frame].numpy()[row, column])
        colours = data.rgb[frame].numpy()[row, column] / 255
        np.testing.assert_allclose(surfaces.samples.rgb[own], colours, atol=1e-6)
        ray = surfaces.samples.xyz[own] - data.cameras.centres[frame]
        facing = -(surfaces.samples.normals[own] * ray).sum(1)
        assert (facing > 0).mean() > 0.98


@pytest.mark.parametrize("strays", [0, 2])
def test_background_inside_the_outline_of_a_mask_is_no_part_of_the_object(deforming_cup, strays):
    """Neither where only the outline is sampled, nor where a few tracks lie on the background."""
    options = preset("quick")
    motion = replace(options.motion, prefit_steps=0, joint_refinement="off")
    data = load_fit_data(
        deforming_cup, long_side=None, holdout_every=0, device=torch.device("cpu"), refine="none"
    )
    tracked, _, data = estimate_motion(data, replace(options, motion=motion))
    tracks = data.motion_tracks()
    inner = [binary_erosion(data.mask.numpy(frame) > 0, iterations=2) for frame in range(FRAMES)]
    depth = MapFile((HEIGHT, WIDTH), np.float32)
    for frame in range(FRAMES):
        outline = (data.mask.numpy(frame) > 0) & ~inner[frame]
        depth.append(np.where(outline, 3.0, 1.0) * data.depth.numpy(frame))
    data = replace(data, depth=FrameMaps(depth, torch.device("cpu")))
    xyz = tracks.xyz.copy()
    centres = data.cameras.centres
    xyz[:strays] = centres + 3 * (xyz[:strays] - centres)
    tracks = replace(tracks, xyz=xyz)

    def sampled(where):
        rng = np.random.default_rng(0)
        return _candidates(data, tracks, tracked, [1, 4], 500, rng, where)

    assert sampled(lambda frame: ~inner[frame]) is None
    assert len(sampled(lambda frame: inner[frame]).points) > 450
    # Everywhere: as many as lie inside.
    share = np.mean([inner[frame].sum() / (data.mask.numpy(frame) > 0).sum() for frame in (1, 4)])
    assert len(sampled(None).points) == pytest.approx(500 * share, rel=0.1)
