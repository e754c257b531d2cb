"""Scale and shift of a network's inverse depth: against known lines, with outliers and gaps."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moving import write_scene

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.preprocess.checkpoints.placement import Placement
from msdyn.preprocess.contracts import CameraSolution, SparsePoints, Verdict
from msdyn.preprocess.depth import networks
from msdyn.preprocess.depth.aligned_depth import WIDE_FOCAL
from msdyn.preprocess.depth.networks import ModelDepth
from msdyn.preprocess.depth.scale_alignment import fit_inverse_depth, fit_to_tracks
from msdyn.scene import Tracks

FRAMES, POINTS = 12, 200


def observations(seed=0, noise=0.0, outliers=0.0, scales=None, shifts=None):
    """Return predicted, target, frame, and the true scale and shift of each frame."""
    rng = np.random.default_rng(seed)
    frame = np.repeat(np.arange(FRAMES), POINTS)
    target = 1 / rng.uniform(1, 8, len(frame))
    scale = rng.uniform(0.8, 1.25, FRAMES) if scales is None else np.asarray(scales)
    shift = rng.uniform(-0.05, 0.05, FRAMES) if shifts is None else np.asarray(shifts)
    predicted = (target * (1 + noise * rng.standard_normal(len(frame))) - shift[frame]) / scale[
        frame
    ]
    wrong = rng.random(len(frame)) < outliers
    predicted[wrong] = rng.uniform(0, 1.5, wrong.sum())
    return predicted, target, frame, scale, shift


@given(st.floats(1e-4, 1e4), st.floats(1e-3, 1e3), st.floats(-0.2, 0.2), st.integers(0, 2**31 - 1))
def test_one_line_for_all_frames_is_exact_in_any_units(unit, scale, shift, seed):
    """Smoothness and prior pull towards what is already the truth."""
    predicted, target, frame, *_ = observations(
        seed, scales=[scale] * FRAMES, shifts=[shift] * FRAMES
    )
    fit = fit_inverse_depth(predicted * unit, target, frame, FRAMES)
    np.testing.assert_allclose(fit.scale, scale / unit, rtol=1e-4)
    np.testing.assert_allclose(fit.shift, shift, atol=1e-4)
    assert fit.typical_error < 1e-3 and fit.wobble < 1e-4


def test_frames_have_lines_of_their_own():
    predicted, target, frame, scale, shift = observations()
    fit = fit_inverse_depth(predicted, target, frame, FRAMES)
    for t in range(FRAMES):  # least squares, frame by frame
        slope, offset = np.polyfit(predicted[frame == t], target[frame == t], 1)
        np.testing.assert_allclose([slope, offset], [scale[t], shift[t]], atol=1e-9)
    # Neighbours pull a little. Measured: 0.3 %.
    assert fit.typical_error < 0.01
    assert np.corrcoef(fit.scale, scale)[0, 1] > 0.9


def test_a_fifth_of_the_points_may_be_wrong():
    scale = 1 + 0.1 * np.sin(np.arange(FRAMES) / 2)
    shift = 0.03 * np.cos(np.arange(FRAMES) / 3)
    predicted, target, frame, scale, shift = observations(
        noise=0.02, outliers=0.2, scales=scale, shifts=shift
    )
    fit = fit_inverse_depth(predicted, target, frame, FRAMES)
    middle = 1 / 4.0
    fitted = fit.scale * (middle - shift) / scale + fit.shift
    assert np.abs(fitted / middle - 1).max() < 0.03
    naive = [np.polyfit(predicted[frame == t], target[frame == t], 1) for t in range(FRAMES)]
    worst = max(
        abs((a * (middle - shift[t]) / scale[t] + b) / middle - 1) for t, (a, b) in enumerate(naive)
    )
    assert worst > 0.1  # least squares is led astray


def test_frames_without_points_lie_between_their_neighbours():
    scales = np.linspace(1, 1.4, FRAMES)
    predicted, target, frame, *_ = observations(scales=scales, shifts=np.zeros(FRAMES))
    kept = ~np.isin(frame, [0, 5, 6])
    fit = fit_inverse_depth(predicted[kept], target[kept], frame[kept], FRAMES)
    assert np.isnan(fit.error[[0, 5, 6]]).all() and fit.count[5] == 0
    assert scales[4] < fit.scale[5] < fit.scale[6] < scales[7]
    assert np.isfinite(fit.scale).all()
    nothing = fit_inverse_depth(np.zeros(0), np.zeros(0), np.zeros(0, int), 3)
    assert nothing.scale.tolist() == [1] * 3 and nothing.typical_error is None


def test_a_still_camera_makes_frames_agree_without_shrinking():
    rng = np.random.default_rng(0)
    true = 1 / rng.uniform(1, 8, 300)
    scale = 1 + 0.2 * rng.standard_normal(FRAMES).clip(-2, 2)
    predicted = true[:, None] * scale + 0.02 * rng.standard_normal(FRAMES)
    visible = rng.random(predicted.shape) < 0.8
    tracks = Tracks.from_dense(
        np.zeros((*predicted.shape, 2)), visible, visible * 1.0, np.zeros(300), np.zeros(300)
    )
    fit = fit_to_tracks(predicted[visible], tracks)
    fitted = fit.scale * predicted + fit.shift
    wobble = (fitted.std(1) / fitted.mean(1)).mean()
    before = (predicted.std(1) / predicted.mean(1)).mean()
    assert before > 0.1 and wobble < 0.1 * before
    assert fit.scale.mean() == pytest.approx(1) and fit.shift.mean() == pytest.approx(0, abs=1e-9)


SIZE = (48, 64)
WALL, STEP, BOX = 4.0, 2.0, 1.2


class Distorted:
    """A network that knows the depth but for a scale and shift that wander."""

    metric = False
    placement = Placement("cpu", False, 5)

    def __init__(self, sign=1.0):
        self.frame, self.sign = 0, sign

    def predict(self, images):
        maps = []
        for _ in images:
            t = self.frame
            self.frame += 1
            inverse = self.sign / true_depth(t)[::2, ::2]  # at half size
            maps.append((inverse - 0.02 * np.sin(t)) / (1 + 0.1 * np.cos(t / 3)))
        return np.stack(maps).astype(np.float32)


def true_depth(frame):
    depth = np.full(SIZE, WALL)
    depth[:, 32:] = STEP
    depth[20:30, 4 + 2 * frame : 16 + 2 * frame] = BOX  # moves
    return depth


@pytest.fixture
def known(tmp_path):
    """A scene, no tracks, masks, and cameras with points on the two planes."""
    scene = write_scene(tmp_path / "s", np.zeros((FRAMES, *SIZE, 3), np.uint8))
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 0, 3] = -0.001 * np.arange(FRAMES)
    cameras = Cameras.pinhole(60.0, SIZE[1], SIZE[0], poses)
    xy = np.array([[x, y] for x in range(2, 63, 4) for y in (5, 10, 38, 43)], float) + 0.5
    depth = np.where(xy[:, 0] > 32, STEP, WALL)
    xyz = np.concatenate([(xy - [32, 24]) / 60 * depth[:, None], depth[:, None]], 1)
    point, frame = np.meshgrid(np.arange(len(xy)), np.arange(FRAMES), indexing="ij")
    points = SparsePoints(
        xyz, point.ravel(), frame.ravel(), np.repeat(xy, FRAMES, 0).astype(np.float32)
    )
    solution = CameraSolution(cameras, "moving", points, Verdict("good"))
    masks = np.stack([true_depth(t) == BOX for t in range(FRAMES)]).astype(np.uint8)
    masks[3, :2] = 255
    none = np.zeros((0, FRAMES))
    tracks = Tracks.from_dense(np.zeros((0, FRAMES, 2)), none, none, np.zeros(0), np.zeros(0))
    return scene, tracks, masks, solution


def estimate(monkeypatch, known, network, **changes):
    monkeypatch.setattr(networks, "load_network", lambda *a, **k: network)
    scene, tracks, masks, solution = known
    backend = ModelDepth("depth-anything", "somewhere")
    maps = backend.estimate(scene, tracks, masks, solution).maps
    return np.stack([item.depth for item in maps]), maps.figures


def test_a_network_is_brought_to_the_cameras_scale(monkeypatch, known):
    maps, quality = estimate(monkeypatch, known, Distorted())
    for t in range(FRAMES):
        truth = true_depth(t)
        inner = np.ones(SIZE, bool)
        inner[:, 30:35] = False  # resampled across the edges
        inner[18:32] = False
        inner[known[2][t] == 255] = False
        assert np.abs(maps[t][inner] / truth[inner] - 1).max() < 0.04
    # No point is on the moving object, and yet its depth is right.
    box = maps[6][23:27, 20:24]
    assert np.median(box) == pytest.approx(BOX, rel=0.05)
    assert (maps[3][:2] == 0).all()  # ignored
    assert quality["alignment_error"] < 0.03 and quality["completed_by"] == "network"
    assert quality["scale_wobble"] > 0.03 and quality["alignment_points"] == 64


def test_a_network_that_contradicts_the_cameras_is_refused(monkeypatch, known):
    scene, tracks, masks, solution = known
    poor = dataclasses.replace(solution, verdict=Verdict("poor", "why", "cure"))
    with pytest.raises(InputError, match="near and far are exchanged"):
        estimate(monkeypatch, (scene, tracks, masks, poor), Distorted(sign=-1))
    # With good cameras, depth is measured without it.
    maps, quality = estimate(monkeypatch, known, Distorted(sign=-1))
    assert "left out: its depth contradicts" in quality["note"] and "completed_by" not in quality
    assert (maps > 0).mean() > 0.9 and "verdict" not in quality


def test_without_parallax_the_scale_is_said_to_be_assumed(monkeypatch, known):
    scene, tracks, masks, solution = known
    still = CameraSolution(
        solution.cameras, "static", SparsePoints.empty(), Verdict("poor", "still", "move")
    )
    maps, quality = estimate(monkeypatch, (scene, tracks, masks, still), Distorted())
    assert "scale is assumed" in quality["note"] and quality["verdict"]["grade"] == "usable"
    assert np.isfinite(maps).all() and (maps[0] > 0).all()
    assert np.median(maps[0]) == pytest.approx(1, rel=0.5)
    near, far = maps[0][40, 50], maps[0][40, 5]
    assert near < far < 11


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_a_long_lens_sees_a_flatter_scene(monkeypatch, known, factor):
    """With k times the focal length of a wide lens, depths are a k-th as far apart around 1."""
    scene, tracks, masks, solution = known
    maps = []
    for longer in (1.0, factor):
        focal = longer * WIDE_FOCAL * max(SIZE)
        cameras = Cameras.pinhole(focal, SIZE[1], SIZE[0], solution.cameras.cam_from_world)
        turning = CameraSolution(cameras, "rotating", SparsePoints.empty(), Verdict("poor", "a"))
        maps.append(estimate(monkeypatch, (scene, tracks, masks, turning), Distorted())[0])
    known_pixels = maps[0] > 0
    apart = (maps[1][known_pixels] - 1) / (maps[0][known_pixels] - 1)
    np.testing.assert_allclose(apart, 1 / max(factor, 1), rtol=1e-3)
