"""What frames say about the place of a moving point, where masks and depth are wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from msdyn.fit.candidates import Candidates
from msdyn.fit.data import load_fit_data
from msdyn.fit.initial_lives import estimate_lives
from msdyn.fit.life_evidence import Comparison, MovingRule
from msdyn.fit.sampling import sample_frame
from msdyn.scene import Scene
from msdyn.synthetic import make_scene, render_truth, write_priors

FRAMES = 12
OUTLINE = 0.02  # of the longer side


class Rule(MovingRule):
    """The rule, with colours that differ or do not."""

    def __init__(self):
        self.tolerance = 0.02
        self.score_colours = lambda difference: np.where(difference > 0.02, -2.0, 1.0)


def compared(**given):
    """Return points that are on their object, at its surface, unless something is given."""
    usual = {"own": True, "outside": 0.0, "behind": False, "in_front": 0.0}
    usual |= {"in_front_of_all": 0.0, "cosine": 1.0, "difference": 0.0}
    values = {name: np.atleast_1d(given.get(name, value)) for name, value in usual.items()}
    count = max(map(len, values.values()))
    return Comparison(**{name: np.resize(value, count) for name, value in values.items()})


def test_in_doubt_colours_decide_about_a_point_beside_its_mask():
    off = np.array([0.3, 0.9]) * OUTLINE
    beside = Rule().in_doubt(compared(own=False, outside=off))
    assert (beside > 0).all() and (beside < Rule().in_doubt(compared())).all()
    assert (Rule()(compared(own=False, outside=off)) < -2).all()
    assert (Rule().in_doubt(compared(own=False, outside=off, difference=0.5)) < -1).all()
    # Far from it, and in front of all that is seen about there, it is wrong.
    far = Rule().in_doubt(compared(own=False, outside=np.array([1.1, 2, 4]) * OUTLINE))
    assert (far < -1).all() and (np.diff(far) < 0).all()
    front = {"own": False, "outside": off, "in_front": 8.0}
    assert (Rule().in_doubt(compared(**front)) > 0).all()
    assert (Rule().in_doubt(compared(**front, in_front_of_all=8.0)) < -5).all()


def test_in_doubt_a_surface_that_has_turned_away_is_not_seen():
    wrong = {"own": False, "outside": 1.0}
    assert (Rule().in_doubt(compared(**wrong, cosine=np.array([-1.0, -0.1]))) == 0).all()
    assert (Rule().in_doubt(compared(**wrong, cosine=np.array([0.3, 1.0]))) < -1).all()


def test_cosines_are_those_of_the_normal_and_the_camera():
    """A plane z = 0 that is seen from below; its tangents go right and down in the image."""
    across, down = np.array([2.0, 0, 0]), np.array([0, 3.0, 0])
    tangents = np.stack([across, down], -1)[None].repeat(2, 0)
    tangents[1] = 0
    points = np.array([[1.0, 1.0, 0.0], [0, 0, 0]])
    none = np.zeros(2, int)
    plane = Candidates(points, points, none, none, np.ones(2), tangents, None)
    below = plane.cosines(0, np.array([1.0, 1.0, -5.0]))
    slanted = plane.cosines(0, np.array([1.0 + 3, 1.0, -4.0]))
    above = plane.cosines(0, np.array([1.0, 1.0, 5.0]))
    np.testing.assert_allclose([below[0], slanted[0], above[0]], [1, 0.8, -1])
    assert below[1] == above[1] == 1  # nothing is known of it


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """An object that stands still before a camera that does: all frames are the first one."""
    folder = tmp_path_factory.mktemp("standing") / "scene"
    spec = make_scene("rigid", frames=FRAMES, width=128, height=96)
    write_priors(render_truth(replace(spec, views={}), samples=1), folder, level="exact", seed=0)
    scene = Scene(folder)
    data = load_fit_data(scene, long_side=None, holdout_every=0, device=torch.device("cpu"))
    first = {name: getattr(data, name).numpy(0).copy() for name in ("rgb", "depth", "mask")}
    cameras = data.cameras[np.zeros(FRAMES, int)]
    maps = {
        name: getattr(data, name).changed(lambda _, __, value=value: value)
        for name, value in first.items()
    }
    return replace(data, cameras=cameras, **maps)


def lives(data):
    """Return the spans of points of the object that are sampled in the first frame, and rest."""
    sample = sample_frame(data, 0, data.mask.numpy(0) == 1, 300, np.random.default_rng(0))
    still = Candidates.at_rest(sample, np.zeros(len(sample.points), int))
    still = replace(still, labels=still.labels + 1)
    return estimate_lives(data, still, Rule(), data.frames).spans


def test_points_in_the_right_place_live_always_though_masks_are_too_small(standing):
    def eroded(frame, mask):
        inner = np.asarray(binary_erosion(mask == 1, iterations=2))
        return np.where((mask == 1) & (inner == 0) & (frame > 0), 0, mask).astype(mask.dtype)

    small = replace(standing, mask=standing.mask.changed(eroded))
    assert np.isinf(lives(standing)).all()
    assert np.isinf(lives(small)).all(1).mean() > 0.99


def test_points_in_the_right_place_live_always_though_depth_is_noisy(standing):
    """A tenth of the pixels are 8 % too far away, four tolerances, in each frame others."""
    rng = np.random.default_rng(0)

    def noisy(frame, depth):
        far = rng.random(depth.shape) < 0.1 * (frame > 0)
        return np.where(far, depth * 1.08, depth).astype(depth.dtype)

    changed = replace(standing, depth=standing.depth.changed(noisy))
    assert np.isinf(lives(changed)).all(1).mean() > 0.99


def test_points_that_are_carried_off_their_object_end(standing, monkeypatch):
    """By a tenth of the image: that is off the object, or to another colour."""
    pose, focal = standing.cameras.cam_from_world[0], standing.cameras.intrinsics[0, 0, 0]
    aside = 0.1 * 128 / focal * pose[0, :3]
    monkeypatch.setattr(Candidates, "positions", lambda own, t: own.points + (t >= 6) * aside)
    spans = lives(standing)
    assert np.isinf(spans[:, 0]).all()
    assert (spans[:, 1] == 5.5).mean() > 0.5


@pytest.mark.parametrize("side", [1, 15])
def test_a_life_ends_where_an_area_changes(standing, side):
    """Squares 24 px apart, from frame 6 on: pixels are noise, areas are not."""
    row, column = np.divmod(np.arange(96 * 128).reshape(96, 128), 128)
    inside = (row % 24 < side) & (column % 24 < side)

    def stained(frame, rgb):
        return np.where((inside & (frame >= 6))[..., None], 255 - rgb, rgb).astype(np.uint8)

    spans = lives(replace(standing, rgb=standing.rgb.changed(stained)))
    ended = (spans[:, 1] == 5.5).mean()
    assert np.isinf(spans[:, 0]).all() and (ended < 0.01 if side == 1 else ended > 0.25)
