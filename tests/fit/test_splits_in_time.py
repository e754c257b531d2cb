"""Gaussians that their frames pull to different places are split in time."""

import numpy as np
import pytest
import torch

from msdyn.fit.config import DensityConfig
from msdyn.fit.coverage import MOST_LIVES
from msdyn.fit.density import GaussianSet, make_strategy, split_in_time
from msdyn.fit.density_lives import Limit, add_pulls
from msdyn.raster import rasterize
from msdyn.sequence.life_spans import life_window

FRAMES, WIDTH, HEIGHT = 8, 32, 24
INFINITE = float("inf")


def test_pulls_are_summed_by_halves_of_the_lives():
    """Against loops over frames and Gaussians; culled ones and those that do not live are none."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, FRAMES, 40)
    last = np.minimum(first + rng.integers(0, FRAMES, 40), FRAMES - 1)
    spans = torch.from_numpy(np.column_stack([first - 0.5, last + 0.5])).float()
    spans[torch.from_numpy(last == FRAMES - 1), 1] = INFINITE
    state, expected = {"pulls": None}, np.zeros((40, 2, 3))
    for frames in ([0, 5], [7, 2], [3, 4]):
        means2d = torch.zeros(2, 40, 2)
        means2d.grad = torch.from_numpy(rng.normal(size=(2, 40, 2))).float()
        radii = torch.from_numpy(rng.integers(0, 4, (2, 40, 2)))
        info = {"means2d": means2d, "radii": radii, "width": WIDTH, "height": HEIGHT}
        add_pulls(state, info | {"n_cameras": 2, "frames": torch.tensor(frames)}, spans, FRAMES)
        for c, frame in enumerate(frames):
            for g in range(40):
                if first[g] <= frame <= last[g] and (radii[c, g] > 0).all():
                    half = int(frame > (first[g] + last[g]) / 2)
                    pull = means2d.grad[c, g].numpy() * [WIDTH / 2 * 2, HEIGHT / 2 * 2]
                    expected[g, half] += [*pull, 1]
    np.testing.assert_allclose(state["pulls"], expected, atol=1e-4)
    assert (expected[..., 2] > 0).all(-1).sum() > 5


def made_set(spans, pulls, gradient=1.0):
    """Return parameters, optimisers and state of Gaussians with these lives."""
    count = len(spans)
    params = {
        "means": torch.nn.Parameter(torch.arange(3.0 * count).reshape(count, 3)),
        "life_spans": torch.nn.Parameter(torch.tensor(spans)),
    }
    optimisers = {name: torch.optim.Adam([value]) for name, value in params.items()}
    for name, value in params.items():
        value.grad = torch.ones_like(value)
        optimisers[name].step()
    state = {"grad2d": torch.full((count,), gradient), "count": torch.ones(count)}
    return params, optimisers, state | {"pulls": torch.tensor(pulls)}


def pulled(early, late, seen=(2.0, 2.0)):
    """Return the pulls of a Gaussian, along x, from the mean gradients of its halves."""
    return [[early * seen[0], 0.0, seen[0]], [late * seen[1], 0.0, seen[1]]]


def test_only_what_is_pulled_apart_is_split():
    """Pulled apart, along, apart by less than the threshold, and seen in one half alone."""
    cases = [pulled(1, -1), pulled(1, 0.9), pulled(0.1, -0.2), pulled(2, 0, seen=(2.0, 0.0))]
    spans = [[-INFINITE, INFINITE], [0.5, 5.5], [0.5, 5.5], [0.5, 5.5]]
    params, optimisers, state = made_set(spans, cases)
    before = {name: value.detach().clone() for name, value in params.items()}
    split_in_time(params, optimisers, state, Limit(100, FRAMES), 0.2)
    assert all(len(value) == 5 for value in params.values())
    torch.testing.assert_close(params["means"][4], before["means"][0])
    torch.testing.assert_close(params["means"][:4], before["means"])
    torch.testing.assert_close(params["life_spans"][1:4], before["life_spans"][1:])
    halves = params["life_spans"].detach()[[0, 4]]
    assert halves.tolist() == [[-INFINITE, 3.5], [3.5, INFINITE]]
    times = torch.linspace(0, FRAMES - 1, 50)
    torch.testing.assert_close(life_window(halves, times).sum(1), torch.ones(50))
    assert state["grad2d"].tolist() == [0, 1, 1, 1, 0] and not state["pulls"].any()
    for name, value in params.items():
        adam = optimisers[name].state[value]
        assert optimisers[name].param_groups[0]["params"] == [value]
        assert len(adam["exp_avg"]) == 5 and not adam["exp_avg"][4].any()


@pytest.mark.parametrize(("room", "expected"), [(0, []), (1, [2]), (2, [1, 2]), (9, [1, 2, 3])])
def test_the_strongest_are_split_while_there_is_room(room, expected):
    limit = Limit(4, FRAMES)
    count = MOST_LIVES * limit.count - room
    pulls = [pulled(0, 0) for _ in range(count)]
    for i, strength in ((1, 5.0), (2, 7.0), (3, 1.0))[: max(count - 1, 0)]:
        if i < count:
            pulls[i] = pulled(strength, -strength)
    params, optimisers, state = made_set([[-0.5, 7.5]] * count, pulls)
    split_in_time(params, optimisers, state, limit, 0.3)
    ended = params["life_spans"].detach()[:count, 1] < 5
    assert np.flatnonzero(ended).tolist() == [i for i in expected if i < count]


def fitted(split):
    """Fit one Gaussian without motion to a dot that jumps between frames 3 and 4.

    Returns:
        The mean squared error at the end, and the life spans.
    """
    camera = torch.tensor([[[30.0, 0, WIDTH / 2], [0, 30, HEIGHT / 2], [0, 0, 1]]]), torch.eye(4)
    values = {
        "means": torch.tensor([[0.0, 0, 1]]),
        "quats": torch.tensor([[1.0, 0, 0, 0]]),
        "scales": torch.full((1, 3), 0.07).log(),
        "opacities": torch.tensor([3.0]),
        "life_spans": torch.tensor([[-INFINITE, INFINITE]]),
        "harmonics": torch.ones(1, 1, 3),
    }
    params = {name: torch.nn.Parameter(value) for name, value in values.items()}
    rates = dict.fromkeys(params, 0.0) | {"means": 4e-3}
    optimisers = {k: torch.optim.Adam([v], lr=rates[k], eps=1e-15) for k, v in params.items()}
    state = {"grad2d": None, "count": None, "scene_scale": 1.0} | ({"pulls": None} if split else {})
    density = DensityConfig(start=0.0, stop=0.4, every=50, prune_opacity=0.0)
    group = GaussianSet(params, optimisers, state, make_strategy(density, Limit(2, FRAMES), 160))

    def draw(means, windows):
        quats, scales, opacities, colours = (
            params[name] for name in ("quats", "scales", "opacities", "harmonics")
        )
        opacities = opacities.sigmoid() * windows
        count = len(means)
        return rasterize(
            means, quats[:count], scales[:count].exp(), opacities[:count], colours[:count, 0],
            camera[0], camera[1][None], WIDTH, HEIGHT,
        )  # fmt: skip

    sides = [torch.tensor([[0.1 * side, 0.0, 1.0]]) for side in (-1, 1)]
    truth = [draw(side, torch.ones(1)).features.detach() for side in sides]
    errors = []
    for step in range(160):
        frame = (3 * step) % FRAMES
        image = draw(
            params["means"], life_window(params["life_spans"], torch.tensor([float(frame)]))[0]
        )
        error = (image.features - truth[frame // (FRAMES // 2)]).square().mean()
        image.info["means2d"].retain_grad()
        error.backward()
        group.step()
        group.refine(step, image.info | {"frames": torch.tensor([frame])}, slice(None))
        errors.append(error.item())
    return np.mean(errors[-FRAMES:]), params["life_spans"].detach()


def test_a_dot_that_jumps_becomes_two_each_where_it_was_seen():
    """Two that exist always, as without splits, are as wrong as one."""
    error, spans = fitted(split=True)
    blurred, others = fitted(split=False)
    assert spans.tolist() == [[-INFINITE, 3.5], [3.5, INFINITE]]
    assert others.tolist() == [[-INFINITE, INFINITE]] * 2
    assert error < 0.05 * blurred
