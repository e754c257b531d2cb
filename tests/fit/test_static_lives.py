"""Life spans of static Gaussians: what rests for a part of the clip, against exact truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from msdyn.fit import preset
from msdyn.fit.data import load_fit_data
from msdyn.fit.initial_static import static_gaussians
from msdyn.geometry import world_points_from_depth
from msdyn.scene import Scene
from msdyn.synthetic import make_scene, render_truth, write_priors

FRAMES, GONE = 12, 7
CONFIG = preset("quick", static_gaussians=1500)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rest") / "scene"
    spec = make_scene("rigid", frames=FRAMES, width=128, height=96)
    write_priors(render_truth(replace(spec, views={})), folder, level="exact", seed=0)
    return load_fit_data(
        Scene(folder), long_side=None, holdout_every=0, device=torch.device("cpu")
    )


def centre_and_radius(data):
    """Return a ball about a static point in the lower middle of the first image."""
    points = world_points_from_depth(data.depth.numpy(0), data.cameras[0])
    height, width = data.mask.shape[1:]
    row, column = height * 4 // 5, width // 4
    assert data.mask.numpy(0)[row, column] == 0
    return points[row, column], 0.1 * float(data.depth.numpy(0)[row, column])


def with_a_stain(data):
    """Colour what is in the ball red, until it has gone."""
    centre, radius = centre_and_radius(data)

    def painted(frame, rgb):
        points = world_points_from_depth(data.depth.numpy(frame), data.cameras[frame])
        inside = np.linalg.norm(points - centre, axis=-1) < radius
        inside &= (data.mask.numpy(frame) == 0) & (frame < GONE)
        return np.where(inside[..., None], np.array([230, 20, 30], np.uint8), rgb)

    return replace(data, rgb=data.rgb.changed(painted))


def is_red(gaussians):
    colour = gaussians.harmonics[:, 0].detach()
    return (colour[:, 0] - colour[:, 1:].amax(1) > 1).numpy()


def test_what_rests_for_a_while_exists_for_that_while(data):
    gaussians = static_gaussians(with_a_stain(data), CONFIG, np.random.default_rng(0))
    spans = gaussians.life_spans
    assert spans is not None
    spans, red = spans.detach().numpy(), is_red(gaussians)
    centre, radius = centre_and_radius(data)
    distance = np.linalg.norm(gaussians.means.detach().numpy() - centre, axis=1)
    assert red.sum() > 10 and distance[red].max() < 1.1 * radius
    # Colours are averaged over 3x3 pixels: at its edge they are mixed.
    inner = distance < 0.8 * radius
    ends, begins = spans[red & inner, 1], spans[~red & inner, 0]
    assert np.median(ends) == GONE - 0.5 and (ends == GONE - 0.5).mean() > 0.9
    assert len(begins) > 10 and (begins == GONE - 0.5).mean() > 0.9
    elsewhere = distance > 1.3 * radius
    assert np.isinf(spans[elsewhere]).all(1).mean() > 0.97


def test_without_such_a_thing_static_gaussians_exist_always(data):
    gaussians = static_gaussians(data, CONFIG, np.random.default_rng(0))
    if gaussians.life_spans is not None:
        assert torch.isinf(gaussians.life_spans).all(1).float().mean() > 0.98
    off = replace(CONFIG, life_spans="off")
    assert static_gaussians(data, off, np.random.default_rng(0)).life_spans is None
