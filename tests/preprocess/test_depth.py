"""Depth of whole clips of cards, whose depth is exactly known."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from cards import Card, card_tracks, placed, render, sliding_cameras, write_frames

from msdyn.preprocess.checkpoints.placement import Placement
from msdyn.preprocess.contracts import CameraSolution, SparsePoints, Verdict
from msdyn.preprocess.depth import fusion, networks
from msdyn.preprocess.depth.fused import BACKDROP, FusedDepth
from msdyn.preprocess.depth.multi_frame import Body, DenseBody
from msdyn.preprocess.depth.networks import ModelDepth
from msdyn.preprocess.depth.objects import BEFORE_BACKDROP
from msdyn.preprocess.depth.rigid_objects import solve_rigid_objects
from msdyn.preprocess.multiview.track_labels import assign_objects
from msdyn.preprocess.multiview.triangulation import reprojection_error, triangulate_tracks
from msdyn.scene import IGNORE

FRAMES, FOCAL, WIDTH, HEIGHT = 20, 220, 256, 192


@dataclasses.dataclass(frozen=True)
class Clip:
    scene: object
    tracks: object
    rendered: object
    solution: CameraSolution

    @property
    def static(self):
        return (self.rendered.labels == 0) & (self.rendered.depths > 0)

    def errors(self, depths):
        return np.abs(depths / self.rendered.depths - 1)


def box(world_from_box, side, label, seed):
    """Return the cards of a cube that is visible from the front and above."""
    half = side / 2
    faces = [placed(0, 0, -half), placed(-half, 0, 0, yaw=90), placed(half, 0, 0, yaw=90)]
    faces += [placed(0, -half, 0, pitch=90)]
    return [
        Card(side, side, world_from_box @ face, label=label, seed=seed + number)
        for number, face in enumerate(faces)
    ]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A room in which a box on the floor translates and rotates, with a moving camera."""
    cameras = sliding_cameras(FRAMES, FOCAL, WIDTH, HEIGHT, reach=1.2)
    s = np.linspace(0, 1, FRAMES)
    path = np.concatenate([placed(-0.4 + 0.8 * a, 0.35, 2.9, yaw=10 + 70 * a) for a in s])
    cards = [
        Card(14, 9, placed(0, 0, 6, frames=FRAMES), seed=1),
        Card(14, 8, placed(0, 0.8, 4, pitch=90, frames=FRAMES), seed=2),
        Card(1.0, 1.2, placed(-1.3, 0.2, 3.6, yaw=20, frames=FRAMES), seed=3),
        Card(0.8, 1.0, placed(1.4, 0.3, 3.2, yaw=-15, frames=FRAMES), seed=4),
        *box(path, 0.9, label=1, seed=10),
    ]
    rendered = render(cards, cameras)
    scene = write_frames(tmp_path_factory.mktemp("room") / "scene", rendered.images)
    tracks = card_tracks(cards, cameras, rendered, 40)
    points, _ = triangulate_tracks(tracks.select(tracks.object == 0), cameras)
    solution = CameraSolution(cameras, "moving", points, Verdict("good"))
    return Clip(scene, tracks, rendered, solution)


def estimate_with_confidence(clip, masks=None, solution=None, tracks=None, **options):
    tracks = clip.tracks if tracks is None else tracks
    masks = clip.rendered.labels if masks is None else masks
    tracks = dataclasses.replace(tracks, object=assign_objects(tracks, masks))
    solution = clip.solution if solution is None else solution
    stream = FusedDepth(**options).estimate(clip.scene, tracks, masks, solution).maps
    maps, figures = list(stream), stream.figures
    depths = np.stack([item.depth for item in maps])
    confidence = np.stack([item.confidence for item in maps])
    json.dumps(figures, allow_nan=False)
    assert depths.shape == clip.rendered.labels.shape and depths.dtype == np.float32
    assert np.isfinite(depths).all() and (depths >= 0).all()
    assert confidence.shape == depths.shape and confidence.dtype == np.uint8
    assert ((confidence > 0) == (depths > 0)).all()
    assert figures["unknown"] == pytest.approx((depths == 0).mean(), abs=1e-4)
    shares = [figures[key] for key in ("measured", "completed", "assumed", "unknown")]
    assert sum(shares) == pytest.approx(1, abs=3e-4)  # of rounded figures
    return depths, confidence, figures


def estimate(*arguments, **options):
    depths, _, figures = estimate_with_confidence(*arguments, **options)
    return depths, figures


@pytest.fixture(scope="module")
def measured_maps(clip):
    return estimate_with_confidence(clip, working_side=192)


@pytest.fixture(scope="module")
def measured(measured_maps):
    depths, _, figures = measured_maps
    return depths, figures


@pytest.mark.slow
def test_confidence_tells_good_from_bad(clip, measured_maps):
    depths, confidence, figures = measured_maps
    error = clip.errors(depths)
    confirmed, completed = (clip.static & (confidence == level) for level in (255, 128))
    assert (clip.static == (confirmed | completed)).all()
    assert (error[confirmed] > 0.05).mean() < 0.3 * (error[completed] > 0.05).mean()
    assert np.isin(confidence, (255, 160)).mean() == pytest.approx(figures["measured"], abs=1e-4)
    assert set(np.unique(confidence[clip.rendered.labels == 1])) == {160}  # its own motion


@pytest.mark.slow
def test_the_room_is_measured(clip, measured):
    depths, figures = measured
    error = clip.errors(depths)[clip.static]
    assert np.median(error) < 0.005  # 0.0034
    # Beyond the edges of near cards, and at the border; the ground nearest to the camera is not.
    assert (error > 0.05).mean() < 0.06  # 0.043
    assert np.median(clip.errors(depths)[:, -12:][clip.static[:, -12:]]) < 0.02  # 0.012
    assert figures["measured"] > 0.9  # 0.93
    assert figures["reprojection_difference"] < 0.003  # 0.0016


@pytest.mark.slow
def test_a_rigid_box_is_measured_relative_to_itself(clip, measured):
    depths, figures = measured
    assert figures["objects"] == {"1": {"shape": "own rigid motion", "placed_by": "contact"}}
    assert figures["assumed"] == 0
    for depth, exact, label in zip(depths, clip.rendered.depths, clip.rendered.labels, strict=True):
        ratio = depth[label == 1] / exact[label == 1]
        # Its position is from the floor next to it: 2.0 to 3.6 % too near.
        assert np.median(ratio) == pytest.approx(1, abs=0.04)
        # Its shape is its own: 0.16 to 0.26 %.
        assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.005


@pytest.mark.slow
def test_a_box_without_its_shape_stands_where_it_touches_the_floor(clip):
    depths, figures = estimate(clip, rigid_objects=False, working_side=128)
    assert figures["objects"] == {"1": {"shape": "one depth per frame", "placed_by": "contact"}}
    box = clip.rendered.labels == 1
    assert figures["assumed"] == pytest.approx(box.mean(), abs=1e-4)
    for depth, exact, own in zip(depths, clip.rendered.depths, box, strict=True):
        assert len(np.unique(depth[own])) == 1
        # The whole box is as deep as it is far: 0.9 of 2.9; 6.8 % at most.
        assert np.median(depth[own] / exact[own]) == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_points_are_triangulated_where_the_cameras_come_without(clip):
    """Cameras from files have no points; those of the tracks serve."""
    bare = dataclasses.replace(clip.solution, points=SparsePoints.empty(), motion="unknown")
    with_points = estimate(clip, rigid_objects=False, working_side=64)
    without = estimate(clip, solution=bare, rigid_objects=False, working_side=64)
    np.testing.assert_array_equal(with_points[0], without[0])
    assert with_points[1] == without[1]


@pytest.mark.parametrize("why", ["static", "rotating", "no tracks", "all moves"])
def test_without_parallax_there_is_a_backdrop(clip, why):
    masks, tracks = clip.rendered.labels.copy(), clip.tracks
    masks[3, :20] = IGNORE
    solution = dataclasses.replace(clip.solution, points=SparsePoints.empty())
    if why in ("static", "rotating"):
        solution = dataclasses.replace(solution, motion=why)
    elif why == "no tracks":
        tracks = tracks.select(np.zeros(len(tracks), bool))
    else:
        masks[masks == 0] = 2
    depths, figures = estimate(clip, masks, solution, tracks)
    expected = np.where(masks == 0, BACKDROP, BEFORE_BACKDROP)
    np.testing.assert_array_equal(depths, np.where(masks == IGNORE, 0, expected).astype(np.float32))
    assert figures["measured"] == figures["completed"] == 0
    assert figures["assumed"] == pytest.approx((masks != IGNORE).mean(), abs=1e-4)


def test_odd_masks(clip):
    """Ignored pixels, a frame in which every pixel moves, and an object in one frame."""
    masks = clip.rendered.labels.copy()
    masks[:, :10] = IGNORE
    masks[4] = 1
    masks[9, 100:120, 200:230] = 2
    depths, figures = estimate(clip, masks, rigid_objects=False, working_side=64)
    np.testing.assert_array_equal(depths == 0, masks == IGNORE)
    assert set(figures["objects"]) == {"1", "2"}
    # The depth of the object in the frame without background is from the other frames.
    assert np.median(clip.errors(depths)[4][clip.rendered.labels[4] == 1]) < 0.2
    assert figures["assumed"] == pytest.approx(np.isin(masks, (1, 2)).mean(), abs=1e-4)


def test_pictures_without_texture_give_depth_all_the_same(clip, tmp_path):
    blank = write_frames(tmp_path / "scene", np.full_like(clip.rendered.images, 90))
    depths, figures = estimate(
        dataclasses.replace(clip, scene=blank), rigid_objects=False, working_side=64
    )
    assert (depths > 0).all() and figures["measured"] < 0.01


def test_frames_whose_camera_is_unknown_measure_nothing(clip):
    known = np.ones(FRAMES, bool)
    known[5] = False
    body = Body(0, clip.solution.cameras, known, clip.solution.points)
    with DenseBody(clip.scene, clip.rendered.labels, body, (48, 64)) as dense:
        inverse, weight = dense.measure(5)
        assert not inverse.any() and not weight.any()
        inverse, weight = dense.measure(6)
        seen = weight > 0
        exact = 1 / clip.rendered.depths[6, 2::4, 2::4]
        assert seen.mean() > 0.7  # 0.81, of 0.86 that are static
        assert np.median(np.abs(inverse[seen] / exact[seen] - 1)) < 0.01  # 0.7 %
        # Off the body nothing is measured.
        inside = np.array([[4 * y + 2, 4 * x + 2] for y, x in np.argwhere(seen)])
        assert (clip.rendered.labels[6][tuple(inside.T)] == 1).mean() < 0.02


@pytest.mark.slow
def test_a_box_in_frames_between_those_solved_together(clip):
    body = Body(0, clip.solution.cameras, np.ones(FRAMES, bool), clip.solution.points)
    found = solve_rigid_objects(
        clip.scene, clip.tracks, clip.rendered.labels, body, max_key_frames=15
    )[1]
    assert found.known.all()
    assert (np.bincount(found.points.frame, minlength=FRAMES) > 20).all()
    assert reprojection_error(found.points, found.cameras) < 0.3
    # But for one scale, the path is the one that all frames give together.
    whole = solve_rigid_objects(clip.scene, clip.tracks, clip.rendered.labels, body)[1]
    parts = []
    for cameras in (found.cameras, whole.cameras):
        steps = np.linalg.norm(np.diff(cameras.centres, axis=0), axis=1)
        parts.append(steps / steps.sum())
    np.testing.assert_allclose(parts[0], parts[1], atol=0.01)  # of 0.053; 0.006 apart


def test_what_is_not_worth_trying_as_a_rigid_object(clip):
    body = Body(0, clip.solution.cameras, np.ones(FRAMES, bool), clip.solution.points)
    labels = clip.rendered.labels
    assert solve_rigid_objects(clip.scene, clip.tracks, np.zeros_like(labels), body) == {}
    short = labels.copy()
    short[7:] = 0  # of too few frames
    assert solve_rigid_objects(clip.scene, clip.tracks, short, body) == {}
    zoom = dataclasses.replace(body, cameras=_zooming(clip.solution.cameras))
    assert solve_rigid_objects(clip.scene, clip.tracks, labels, zoom) == {}


def _zooming(cameras):
    intrinsics = cameras.intrinsics.copy()
    intrinsics[:, [0, 1], [0, 1]] *= np.linspace(1, 1.1, len(cameras))[:, None]
    return dataclasses.replace(cameras, intrinsics=intrinsics)


class Wavy:
    """A network that knows the depth but for a smooth error, and a scale and shift that wander."""

    metric = False
    placement = Placement("cpu", False, 1)

    def __init__(self, depths, error):
        y, x = np.mgrid[0 : depths.shape[1], 0 : depths.shape[2]]
        wave = 1 + error * np.sin(x / 40) * np.cos(y / 30)
        depths = np.where(depths > 0, depths, np.median(depths))
        t = np.arange(len(depths))[:, None, None]
        self.inverse = iter((wave / depths - 0.02 * np.sin(t)) / (1 + 0.1 * np.cos(t / 3)))

    def predict(self, images):
        return np.stack([next(self.inverse) for _ in images]).astype(np.float32)


def estimate_with_network(clip, monkeypatch, error, working_side=320, **options):
    network = Wavy(clip.rendered.depths, error)
    monkeypatch.setattr(networks, "load_network", lambda *a, **k: network)
    monkeypatch.setattr(fusion, "solve_rigid_objects", lambda *a, **k: {})
    monkeypatch.setattr(networks, "FusionOptions", partial(fusion.FusionOptions, working_side))
    tracks = dataclasses.replace(
        clip.tracks, object=assign_objects(clip.tracks, clip.rendered.labels)
    )
    backend = ModelDepth("small", "somewhere", **options)
    stream = backend.estimate(clip.scene, tracks, clip.rendered.labels, clip.solution).maps
    maps = list(stream)
    json.dumps(stream.figures, allow_nan=False)
    return maps, stream.figures


@pytest.mark.slow
def test_a_network_completes_what_is_measured(clip, monkeypatch):
    maps, figures = estimate_with_network(clip, monkeypatch, 0.06)
    alone, of_network = estimate_with_network(clip, monkeypatch, 0.06, measure=False)
    error = clip.errors(np.stack([item.depth for item in maps]))
    error_alone = clip.errors(np.stack([item.depth for item in alone]))
    confidence = np.stack([item.confidence for item in maps])
    assert 0.5 < figures["measured"] < 1 and "measured" not in of_network
    confirmed = clip.static & (confidence == fusion.CONFIRMED)
    completed = clip.static & (confidence == fusion.COMPLETED)
    # Where it is measured the network has no say; beside that, what is measured corrects it.
    assert np.median(error[confirmed]) < 0.1 * np.median(error_alone[confirmed])
    assert completed.any() and error[completed].mean() < 0.5 * error_alone[completed].mean()
    errors = figures["completion_error"]
    assert figures["completed_by"] == "network" and errors["network"] < errors["edges"]

    # The box has the network's relief, at a distance that is smooth in time and fits the floor.
    box = clip.rendered.labels == 1
    assert figures["objects"] == {"1": {"shape": "network", "placed_by": "contact"}}
    assert (confidence[box] == fusion.ASSUMED).all() and figures["assumed"] > 0
    assert np.median(error[box]) < 0.06
    for t in (3, 12):
        depth, truth = maps[t].depth[box[t]], clip.rendered.depths[t][box[t]]
        assert np.log(depth / truth).std() < 0.9 * np.log(truth).std()  # that of one depth for all


@pytest.mark.slow
def test_a_network_that_predicts_worse_than_the_surroundings_is_left_out(clip, monkeypatch):
    maps, figures = estimate_with_network(clip, monkeypatch, 0.3, working_side=128)
    assert figures["completed_by"] == "edges"
    assert figures["objects"] == {"1": {"shape": "one depth per frame", "placed_by": "contact"}}
    own, _, of_own = estimate_with_confidence(clip, rigid_objects=False, working_side=128)
    np.testing.assert_array_equal(np.stack([item.depth for item in maps]), own)
    assert figures["measured"] == of_own["measured"]
