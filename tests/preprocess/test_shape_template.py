"""Points of the first frame carried by tracks: depth of what moves before a static camera."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from msdyn.geometry import Cameras, project
from msdyn.preprocess.contracts import SparsePoints
from msdyn.preprocess.depth.multi_frame import Body
from msdyn.preprocess.depth.shape_template import make_template
from msdyn.preprocess.depth.template_depth import TemplateDepth, moving_points
from msdyn.preprocess.depth.template_fit import follow_template, front_of
from msdyn.scene import Tracks

FRAMES, WIDTH, HEIGHT, FOCAL = 10, 320, 240, 300.0
CAMERAS = Cameras.pinhole(FOCAL, WIDTH, HEIGHT, np.tile(np.eye(4), (FRAMES, 1, 1)))


@pytest.fixture(autouse=True)
def few_nodes(monkeypatch):
    monkeypatch.setattr("msdyn.preprocess.depth.shape_template.MOST_NODES", 70)


def egg(rng, centre, radii, count=3000):
    """Return points on an ellipsoid."""
    away = rng.standard_normal((count, 3))
    return centre + radii * away / np.linalg.norm(away, axis=1, keepdims=True)


def moved(xyz, centre, frame, *, towards=-0.04, degrees=2.0, aside=0.01):
    """Return points that turn about the vertical and come nearer."""
    turn = Rotation.from_euler("y", degrees * frame, degrees=True).as_matrix()
    return (xyz - centre) @ turn.T + centre + frame * np.array([aside, 0, towards])


def tracks_of(paths, rng, noise=0.0, every=6):
    """Return tracks [N] of those points [T, N, 3] that the first frame shows."""
    camera = CAMERAS[0]
    visible = front_of(paths[0], camera, 3.0, 0.05)[2]
    chosen = np.flatnonzero(visible)[::every]
    xy = np.stack([project(camera.intrinsics[0], frame[chosen]) for frame in paths], 1)
    xy += noise * rng.standard_normal(xy.shape)
    inside = ((xy >= 0) & (xy < (WIDTH, HEIGHT))).all(-1)
    number = len(chosen)
    return Tracks.from_dense(
        np.where(inside[..., None], xy, 0), inside, inside.astype(np.float32),
        np.ones(number, int), np.zeros(number, int),
    )  # fmt: skip


def test_an_object_that_becomes_larger_comes_nearer():
    """The truth is exact: an egg 3 away turns by 18 degrees and comes nearer by 36 cm."""
    rng = np.random.default_rng(0)
    centre = np.array([0.1, 0, 3.0])
    xyz = egg(rng, centre, (0.35, 0.5, 0.25))
    paths = np.stack([moved(xyz, centre, frame) for frame in range(FRAMES)])
    template = make_template(xyz + 0.004 * rng.standard_normal(xyz.shape))
    carried = list(follow_template(template, tracks_of(paths, rng, 0.15), CAMERAS))
    for frame in (3, 6, FRAMES - 1):
        expected = moved(template.xyz, centre, frame)
        front = front_of(expected, CAMERAS[0], 3.0, 0.05)[2]
        off = template.points(carried[frame]) - expected
        assert np.median(np.abs(off[front, 2])) < 0.045  # of .12, .24 and .36 it has moved
        assert np.median(np.linalg.norm(off[front, :2], axis=1)) < 0.015
    # Without tracks nothing is known, and it stays.
    still = list(follow_template(template, tracks_of(paths, rng).select(slice(0)), CAMERAS))
    np.testing.assert_allclose(template.points(still[-1]), template.xyz, atol=1e-9)


def test_two_things_that_touch_at_first_part():
    rng = np.random.default_rng(1)
    left, right = np.array([-0.3, 0, 3.0]), np.array([0.3, 0, 3.0])
    xyz = np.concatenate([egg(rng, c, 0.29) for c in (left, right)])
    own = np.arange(len(xyz)) < len(xyz) // 2
    paths = np.stack([
        np.concatenate([xyz[own] - (0.02 * t, 0, 0), moved(xyz[~own], right, t, aside=0.02)])
        for t in range(FRAMES)
    ])  # fmt: skip
    template = make_template(xyz)
    last = list(follow_template(template, tracks_of(paths, rng), CAMERAS))[-1]
    at = template.points(last)
    nearer = np.median(at[template.xyz[:, 0] > 0.05, 2]) - np.median(
        at[template.xyz[:, 0] < -0.05, 2]
    )
    assert nearer == pytest.approx(-0.36, abs=0.1)


def test_depth_of_pixels_and_which_points_move():
    rng = np.random.default_rng(2)
    centre = np.array([0.0, 0, 3.0])
    xyz = egg(rng, centre, 0.5)
    wall = np.stack([*rng.uniform(-1.2, 1.2, (2, 500)), np.full(500, 4.0)], 1)
    xy = project(CAMERAS.intrinsics[0], np.concatenate([xyz, wall]))
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([(x - WIDTH / 2) / FOCAL, (y - HEIGHT / 2) / FOCAL, np.ones_like(x)], -1)
    a, b = (rays**2).sum(-1), rays @ centre
    root = b**2 - a * (centre @ centre - 0.25)
    truth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 4.0)
    masks = np.repeat((root > 0)[None], FRAMES, 0).astype(np.uint8)
    shown = np.flatnonzero(np.r_[xyz[:, 2] < 2.8, (np.abs(wall[:, :2]) > 0.9).any(1)])
    rows, columns = (xy[shown, k].astype(int) for k in (1, 0))
    shown = shown[(np.r_[np.ones(3000), np.zeros(500)][shown] > 0) == (masks[0][rows, columns] > 0)]
    points = SparsePoints(np.concatenate([xyz, wall[(np.abs(wall[:, :2]) > 0.9).any(1)]]),
                          np.arange(0), np.arange(0), np.zeros((0, 2)))  # fmt: skip
    index = shown.copy()
    index[shown >= 3000] = 3000 + np.arange((shown >= 3000).sum())
    points = SparsePoints(points.xyz, index, np.zeros(len(index), int), xy[shown])
    moving = moving_points(points, masks)
    assert moving[:3000].all() and not moving[3000:].any()  # its back has no observation
    body = Body(0, CAMERAS, np.ones(FRAMES, bool), points, swept=False)
    paths = np.repeat(xyz[None], FRAMES, 0)
    depth = TemplateDepth.of(body, tracks_of(paths, rng), masks).depth(FRAMES - 1, masks[0] > 0)
    off = np.abs(depth - truth)[masks[0] > 0]
    assert np.median(off) < 0.02 and np.percentile(off, 95) < 0.15  # of a radius of .5
    elsewhere = np.zeros((HEIGHT, WIDTH), bool)
    elsewhere[:8, :8] = True
    assert TemplateDepth.of(body, tracks_of(paths, rng), masks).depth(0, elsewhere) is None


@pytest.mark.parametrize("count", [0, 1, 5, 40])
def test_few_points_are_no_template(count):
    assert make_template(np.zeros((count, 3))) is None
