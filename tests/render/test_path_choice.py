"""The path `auto`: supported by the input, about the moving objects, where the camera was."""

import numpy as np
import pytest
import torch
from clips import two_boxes
from evaluate.exact_fits import exact_sequence, moving_points

from msdyn.errors import InputError
from msdyn.geometry import Cameras, focus_point, look_at, project, transform_points
from msdyn.render import InputViews, auto_path, focus_points, render_image
from msdyn.sequence import Gaussians, GaussianSequence
from msdyn.synthetic.raycast import Caster, SurfacePoints, pixel_centres, rays_through

SIZE = (96, 72)
FOCAL = 90.0


def sheet(corner, right, down, step=0.04):
    """Return points on a parallelogram, `step` apart."""
    right, down = np.asarray(right, float), np.asarray(down, float)
    u, v = (np.arange(step / 2, np.linalg.norm(side), step) for side in (right, down))
    unit = [side / np.linalg.norm(side) for side in (right, down)]
    u, v = np.meshgrid(u, v)
    return np.asarray(corner, float) + u.reshape(-1, 1) * unit[0] + v.reshape(-1, 1) * unit[1]


def sequence_of(static, moving, translations, cameras=None, scale=0.03):
    """Return opaque static Gaussians, and moving ones with common translations [T, 3]."""
    translations = np.asarray(translations, float)
    moves = moving_points(
        moving, np.tile(translations, (len(moving), 1, 1)), size=SIZE, focal=FOCAL, scale=scale
    )
    static = torch.from_numpy(np.asarray(static, float)).float()
    colours = torch.rand(len(static), 3, generator=torch.Generator().manual_seed(1))
    gaussians = Gaussians.from_points(
        static, colours, torch.full((len(static),), scale), opacity=0.99
    )
    return moves.replaced(static=gaussians, cameras=cameras)


def facing(centres, forward=(0, 0, 1.0)):
    poses = [look_at(c, np.add(c, forward), np.array([0, 1.0, 0])) for c in centres]
    return Cameras.pinhole(FOCAL, *SIZE, np.stack(poses))


def without_objects(sequence: GaussianSequence) -> GaussianSequence:
    none = torch.zeros(0).long()
    return sequence.replaced(
        moving=Gaussians.empty(), motion=sequence.motion.select(none), labels=none
    )


def still_mover(x=0.0, frames=12, travel=0.0, wall=4.0):
    """A card at depth 2 before a wall at depth 3 that reaches `wall` to each side."""
    background = sheet([-wall, -wall, 3.0], [2 * wall, 0, 0], [0, 2 * wall, 0], 0.06)
    card = sheet([x - 0.2, -0.2, 2.0], [0.4, 0, 0], [0, 0.4, 0], 0.05)
    translations = np.zeros((frames, 3))
    translations[:, 0] = np.linspace(0, travel, frames)
    return sequence_of(background, card, translations, scale=0.04)


@pytest.fixture(scope="module")
def truth():
    return two_boxes(12, 96, 72)


@pytest.fixture(scope="module")
def boxes(truth):
    return exact_sequence(truth)


@pytest.fixture(scope="module")
def chosen(boxes):
    return auto_path(boxes, boxes.timeline.times)


def test_ray_casting_finds_that_the_input_saw_the_background(truth, boxes, chosen):
    """The meshes of the scene say which static surfaces the input camera saw."""
    caster = Caster(truth.spec)
    shares = []
    for frame in range(0, 12, 2):
        camera = chosen.cameras[frame]
        rays = rays_through(camera, pixel_centres(camera))
        points, _ = caster.mesh(frame).cast(camera.centres[0], rays)
        static = np.flatnonzero(caster.face_object[points.face] == 0)
        unseen = SurfacePoints(points.face[static], points.weights[static])
        for other in range(12):
            seen = caster.visible(other, truth.clip.cameras[other], unseen)
            unseen = unseen.select(~seen)
        shares.append(len(unseen) / len(points))
    assert chosen.degrees >= 8 and chosen.is_supported
    assert np.mean(shares) < 0.04
    assert chosen.unsupported == pytest.approx(np.mean(shares), abs=0.015)


def test_few_pixels_are_empty_at_full_size(boxes, chosen):
    images = [render_image(boxes, chosen.cameras[i], t) for i, t in enumerate(boxes.timeline.times)]
    empty = [(image.alpha < 0.5).mean() for image in images]
    assert np.mean(empty) < 0.03 and max(empty) < 0.09


def test_the_boxes_stay_in_frame(truth, boxes, chosen):
    assert chosen.in_frame and chosen.about_objects
    caster = Caster(truth.spec)
    moving = np.unique(caster.faces[caster.face_object > 0])
    for frame in range(12):
        centre = caster.vertices[frame][moving].mean(0)
        camera = chosen.cameras[frame]
        xy = project(
            camera.intrinsics[0], transform_points(camera.cam_from_world[0], centre[None])
        )[0]
        assert (xy > [8, 6]).all() and (xy < [88, 66]).all()


def test_a_walking_camera_stays_between_the_walls():
    """A corridor that is 2 wide; the camera follows a mover through it, around no corner."""
    length, frames = 12.0, 16
    sides = [sheet([x, -1, 0], [0, 0, length], [0, 2, 0], 0.1) for x in (-1, 1)]
    floors = [sheet([-1, y, 0], [2, 0, 0], [0, 0, length], 0.1) for y in (-1, 1)]
    end = sheet([-1, -1, length], [2, 0, 0], [0, 2, 0], 0.1)
    rng = np.random.default_rng(0)
    centres = np.zeros((frames, 3)) + 0.02 * rng.normal(size=(frames, 3))
    centres[:, 2] += np.linspace(0.5, 7, frames)
    mover = sheet([-0.2, -0.2, 2.5], [0.4, 0, 0], [0, 0.4, 0], 0.1)
    translations = np.zeros((frames, 3))
    translations[:, 2] = np.linspace(0, 6.5, frames)
    static = np.concatenate([*sides, *floors, end])
    walk = sequence_of(static, mover, translations, facing(centres), scale=0.06)
    path = auto_path(walk, walk.timeline.times)
    assert path.base in ("stabilised", "input") and path.degrees > 0
    inside = np.abs(path.cameras.centres[:, :2]).max()
    # At most the swing about the mover, which is 2 ahead.
    assert inside < 2.1 * np.sin(np.deg2rad(path.degrees)) + 0.1 and inside < 0.9
    along = np.diff(path.cameras.centres[:, 2])
    assert (along > 0).all() and along.sum() > 5


@pytest.mark.parametrize("side", [-0.2, 0.2])
def test_unsupported_pixels_are_those_that_a_card_hid(side):
    """Seen from beside, the wall that the card hid from the input camera appears."""
    wall = sheet([-1.6, -1, 2.0], [3.2, 0, 0], [0, 2, 0], 0.02)
    card = sheet([-0.3, -0.6, 1.0], [0.6, 0, 0], [0, 1.2, 0], 0.02)
    static = np.concatenate([wall, card])
    scene = without_objects(sequence_of(static, card, np.zeros((4, 3)), scale=0.012))
    found = InputViews(scene, np.arange(4.0), 96).unsupported(facing(np.array([[side, 0, 0]])), 0.0)
    x = (np.arange(96) + 0.5 - 48) / FOCAL
    on_card = np.abs(side + x) < 0.3
    at_wall = side + 2 * x
    # The card's shadow is 1.2 wide on the wall; the input image ends at 2 * 48 / 90.
    expected = ~on_card & ((np.abs(at_wall) < 0.6) | (np.abs(at_wall) > 2 * 48 / FOCAL))
    assert 0.05 < expected.mean() < 0.3
    kind = 2 * expected.astype(int) + on_card
    edges = np.diff(kind, prepend=kind[0]) != 0
    # Not within two pixels of an edge, where Gaussians blend.
    clear = np.convolve(edges, np.ones(5), "same") == 0
    assert clear.mean() > 0.7
    agrees = (found == expected)[:, clear]
    assert agrees.mean() > 0.97


def test_a_camera_in_front_of_a_surface_is_unsupported():
    wall = without_objects(still_mover())
    views = InputViews(wall, np.array([0.0]), 96)
    assert views.unsupported(facing(np.array([[0, 0, 0.5]])), 0.0).mean() < 0.01
    assert views.unsupported(facing(np.array([[0, 0, 2.0]])), 0.0).mean() > 0.99


def test_the_swing_is_as_wide_as_the_background_allows():
    """The wall is all within the image or reaches beyond it; a static camera stays where it is."""
    wide = auto_path(still_mover(), np.linspace(0, 1, 12))
    assert wide.base == "mean" and 2 <= wide.degrees < 15 and wide.is_supported
    # With a wall that is narrower than the image, no view is supported.
    narrow = auto_path(still_mover(wall=1.0), np.linspace(0, 1, 12))
    assert narrow.degrees == 0 and not narrow.is_supported
    assert "without a swing" in str(narrow) and f"{narrow.unsupported:.1%}" in str(narrow)
    assert f"up to {wide.degrees:.0f} degrees" in str(wide)


def test_the_first_and_last_view_are_without_a_swing(boxes, chosen):
    base = auto_path(boxes, boxes.timeline.times, seconds=16.0)  # two swings
    for path in (chosen, base):
        np.testing.assert_allclose(
            path.cameras.centres[[0, -1]], chosen.cameras.centres[[0, -1]], atol=1e-9
        )
    assert np.abs(chosen.cameras.centres - base.cameras.centres).max() > 0.05


def test_at_one_time_it_swings_about_the_camera_of_that_time(boxes):
    path = auto_path(boxes, np.full(9, 0.6))
    at = boxes.camera_at(0.6).cam_from_world[0]
    for end in (0, -1):
        np.testing.assert_allclose(path.cameras.cam_from_world[end], at, atol=1e-9)
    focus = focus_points(boxes, np.array([0.6]))[0]
    distance = np.linalg.norm(path.cameras.centres - focus, axis=1)
    np.testing.assert_allclose(distance, distance[0], atol=1e-9)
    assert path.degrees > 0 and np.ptp(path.cameras.centres, axis=0).max() > 0.1


def test_a_mover_that_leaves_the_image_or_is_fast():
    leaving = still_mover(x=-0.5, travel=3.0)
    path = auto_path(leaving, leaving.timeline.times)
    # It is in frame as long as in the input.
    assert path.in_frame and path.degrees > 0
    there_and_back = still_mover(x=-0.9)
    moves = np.where(np.arange(12) % 2, 1.8, 0.0)
    fast = sequence_of(
        there_and_back.static.means.detach(), there_and_back.moving.means.detach(),
        np.stack([moves, 0 * moves, 0 * moves], 1), scale=0.04,
    )  # fmt: skip
    path = auto_path(fast, fast.timeline.times)
    assert path.in_frame and path.degrees > 0
    # The focus is smoothed: the swing does not follow every jump.
    focus = focus_points(fast, fast.timeline.times)
    assert np.abs(np.diff(focus[:, 0])).max() < 0.9


def test_the_focus_is_the_centre_of_the_objects(boxes, truth):
    caster = Caster(truth.spec)
    for objects in (None, [1], [2]):
        wanted = [1, 2] if objects is None else objects
        own = np.unique(caster.faces[np.isin(caster.face_object, wanted)])
        middle = caster.vertices[5:7][:, own].mean((0, 1))
        focus = focus_points(boxes, np.array([0.5]), objects)[0]
        assert np.linalg.norm(focus - middle) < 0.12, objects


def test_without_moving_objects_the_focus_is_on_the_surfaces():
    wall = without_objects(still_mover())
    path = auto_path(wall, wall.timeline.times)
    assert not path.about_objects and "about the scene" in str(path)
    np.testing.assert_allclose(
        focus_points(wall, np.array([0.0, 1.0])), [[0, 0, 3.0]] * 2, atol=0.06
    )
    # There the whole image is unsupported.
    empty = wall.replaced(static=Gaussians.empty())
    path = auto_path(empty, np.linspace(0, 1, 3))
    assert path.unsupported == 1 and len(path.cameras) == 3
    focus = focus_points(empty, np.array([0.5]))[0]
    np.testing.assert_allclose(focus, focus_point(empty.cameras))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_two_frames_and_few_times(count):
    pair = still_mover(frames=2)
    path = auto_path(pair, np.linspace(0, 1, count))
    assert len(path.cameras) == count and path.is_supported


def test_times_out_of_the_clip_are_an_error(boxes):
    with pytest.raises(InputError, match="at least one time"):
        auto_path(boxes, np.zeros(0))
    with pytest.raises(InputError, match="got 1.5"):
        auto_path(boxes, np.array([0.0, 1.5]))
