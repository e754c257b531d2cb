"""Motion models that know the truth, and scenes that stand still, against exact trajectories."""

import numpy as np
import pytest
import torch
from frozen_scene import cameras_around, focus_of, frozen, write_frozen
from pattern_limits import limit
from true_motion import TrueMotion, TruePatterns, face_rotations, use_truth
from view_errors import ViewErrors, moving_pixels

from msdyn.geometry import Similarity
from msdyn.motion import MotionLearningRates, TrackedScene
from msdyn.motion.config import MotionConfig
from msdyn.render import RenderedImage
from msdyn.scene import LiftedTracks, Scene
from msdyn.synthetic import link_motions, make_scene, render_truth, surface_tracks, write_priors
from msdyn.synthetic.raycast import Caster

WORLD = Similarity.of(0.7, (0.1, -0.2, 0.3))


def tracked(name: str = "two-boxes", frames: int = 6) -> tuple[TrackedScene, np.ndarray]:
    """Return the true tracks of a scene as input of a motion model, and their positions."""
    spec = make_scene(name, frames=frames, width=64, height=48)
    use_truth(spec, WORLD)
    tracks, _ = surface_tracks(spec, per_object=60, static=0)
    rows = tracks.visible.any(1)
    xyz, visible = WORLD.apply(tracks.xyz[rows]), tracks.visible[rows]
    lifted = LiftedTracks(
        np.where(visible[..., None], xyz, 0), visible, visible * 1.0,
        tracks.object[rows].astype(int), np.zeros((*visible.shape, 2)),
    )  # fmt: skip
    return TrackedScene(lifted, 2, np.arange(frames)), xyz


def test_faces_of_links_rotate_as_their_links():
    spec = make_scene("two-boxes", frames=4, width=32, height=24)
    caster = Caster(spec)
    for part in spec.parts:
        if part.object:
            faces = np.flatnonzero(caster.face_part == spec.parts.index(part))
            rotations = face_rotations(caster, faces)
            expected = link_motions(spec)[part.link][:, None, :3, :3]
            np.testing.assert_allclose(
                rotations, np.broadcast_to(expected, rotations.shape), atol=1e-6
            )


@pytest.mark.parametrize("name", ["two-boxes", "deformable"])
def test_points_of_the_surface_follow_their_true_trajectories(name):
    scene, xyz = tracked(name)
    result = TrueMotion.from_tracks(scene, MotionConfig())
    # New Gaussians are observed at another frame, and bound there.
    near = torch.arange(len(xyz))[:, None]
    own = result.motion.mixed(near, torch.ones(len(xyz), 1))
    points = own.undo(torch.from_numpy(xyz[:, 1]).float(), 1.0)
    moved = own.positions(points, torch.arange(6.0)).transpose(0, 1).numpy()
    # Bound to samples some millimetres away: exact on rigid objects, nearly so on soft ones.
    assert np.linalg.norm(moved - xyz, axis=-1).max() < (1e-4 if name == "two-boxes" else 4e-3)
    # The round trip at that frame, and the canonical frame without motion.
    np.testing.assert_allclose(moved[:, 1], xyz[:, 1], atol=1e-5)
    np.testing.assert_allclose(moved[:, 2], points, atol=1e-5)


def test_true_motion_keeps_distances_near_a_rigid_surface_and_has_no_parameters():
    scene, xyz = tracked()
    motion = TrueMotion.from_tracks(scene, MotionConfig()).motion
    assert not list(motion.parameters()) and not motion.gaussian_parameters()
    points = torch.from_numpy(xyz[:, 2]).float() + 0.02 * torch.randn(len(xyz), 3)
    pose = motion.pose(
        points, torch.tensor([[1.0, 0, 0, 0]]).repeat(len(xyz), 1), torch.arange(6.0)
    )
    one = torch.from_numpy(scene.tracks.object == 1)
    own = pose.means[:, one]
    apart = (own[:, :, None] - own[:, None]).norm(dim=-1)
    torch.testing.assert_close(apart, apart[2:3].expand_as(apart), atol=2e-5, rtol=0)
    identity = torch.eye(3).expand_as(pose.rotations)
    torch.testing.assert_close(
        pose.rotations @ pose.rotations.transpose(-1, -2), identity, atol=1e-5, rtol=0
    )


def test_outliers_have_no_weight():
    scene, _ = tracked()
    scene.tracks.xyz[3] += 0.3 * np.arange(6)[:, None]
    weights = TrueMotion.from_tracks(scene, MotionConfig()).weights
    inlier = scene.tracks.visible.copy()
    assert weights[3].sum() < inlier[3].sum()
    assert (weights[4].numpy() > 0).tolist() == inlier[4].tolist()


def test_storage_keeps_the_motion_and_only_what_it_uses():
    scene, xyz = tracked()
    motion = TrueMotion.from_tracks(scene, MotionConfig()).motion.select(torch.arange(7))
    restored = TrueMotion.from_tensors(motion.tensors(), motion.header())
    points, frames = torch.from_numpy(xyz[:7, 2]).float(), torch.tensor([0.0, 2.5, 5.0])
    torch.testing.assert_close(restored.positions(points, frames), motion.positions(points, frames))
    assert motion.tensors()["truth.positions"].shape[1] <= 7
    back = motion.rescaled(WORLD.inverse())
    world = torch.from_numpy(WORLD.inverse().apply(points.double().numpy())).float()
    expected = WORLD.inverse().apply(motion.positions(points, frames).double().numpy())
    np.testing.assert_allclose(back.positions(world, frames), expected, atol=1e-5)


def test_true_patterns_explain_rigid_objects_exactly_and_do_not_change(monkeypatch):
    monkeypatch.setattr("true_motion._PATTERN_STEPS", 4)
    scene, xyz = tracked()
    result = TruePatterns.from_tracks(scene, MotionConfig(levels=2, k_primitive=2))
    moved = result.motion.positions(result.points, torch.arange(6.0)).transpose(0, 1)
    # The points are samples some millimetres from those of the tracks, on the same rigid bodies.
    distance = np.linalg.norm(moved.detach().numpy() - xyz, axis=-1)
    assert np.abs(distance - distance[:, 2:3]).max() < 1e-3 and distance.max() < 0.01
    assert set(result.motion.learning_rates(MotionLearningRates(1, 1, 1)).values()) == {0.0}


def test_limits_of_patterns_are_exact_for_rigid_bodies_and_not_for_one_pattern_of_two_links():
    frames, rng = 5, np.random.default_rng(0)
    angle = np.linspace(0, 1.2, frames)
    turn = np.zeros((frames, 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 0, 1], turn[:, 1, 0] = -np.sin(angle), np.sin(angle)
    turn[:, 2, 2] = 1
    rest = rng.uniform(-0.2, 0.2, (60, 3)) + (0.1, 0, 1)
    rigid = np.einsum("tij,nj->nti", turn, rest)
    objects = np.ones(60, int)
    one = MotionConfig(levels=1)
    # One step: further ones of Adam move an exact start by as much as their size.
    assert limit(rigid, objects, one, steps=1) < 1e-6
    # A second link that stands still: one rigid motion cannot explain both.
    linked = rigid.copy()
    linked[rest[:, 0] < 0.1] = rest[rest[:, 0] < 0.1][:, None]
    assert limit(linked, objects, one, steps=20) > 0.02


def test_a_frozen_scene_shows_one_frame_and_avoids_held_out_cameras(tmp_path):
    spec = make_scene("two-boxes", frames=7, width=48, height=36)
    truth = render_truth(spec)
    moving = write_priors(truth, tmp_path / "moving", level="exact")
    scene = write_frozen(
        spec, Scene(moving), 4, tmp_path / "still", around=False, level="exact", seed=0
    )
    # The camera of that frame sees the same image, those of other frames do not.
    np.testing.assert_array_equal(scene.image(4), truth.clip.images[4])
    assert (scene.image(0) != truth.clip.images[0]).any() and not scene.mask(4).any()
    assert list(scene.views["left15"].frames) == [0]
    np.testing.assert_array_equal(scene.views["left15"].image(0), truth.views["left15"].images[4])
    # What only motion reveals does not count, and nothing is added.
    covisible, before = scene.views["left15"].covisible(0), truth.views["left15"].covisible[4]
    assert not (covisible & ~before).any() and covisible.sum() > 0.8 * before.sum()
    focus, around = focus_of(spec), cameras_around(spec, 9)
    rays = around.centres - focus
    for view in spec.views.values():
        ray = view.centres[0] - focus
        cosine = rays @ ray / np.linalg.norm(rays, axis=-1) / np.linalg.norm(ray)
        assert np.degrees(np.arccos(cosine.clip(-1, 1))).min() >= 4
        axis = view.cam_from_world[0, 2, :3]
        assert np.linalg.norm(np.cross(axis, focus - view.centres[0])) < 0.05
    still = frozen(spec, 4, around)
    np.testing.assert_array_equal(Caster(still).vertices[0], Caster(spec).vertices[4])
    np.testing.assert_array_equal(Caster(still).vertices[8], Caster(spec).vertices[4])


def test_errors_of_moving_and_static_pixels_add_up(tmp_path):
    spec = make_scene("two-boxes", frames=7, width=48, height=36)
    truth = render_truth(spec, samples=1)
    moving = moving_pixels(spec)
    for name, shot in truth.views.items():
        np.testing.assert_array_equal(moving[name], shot.masks > 0)
    scene = Scene(write_priors(truth, tmp_path / "scene", level="exact"))
    errors, view = ViewErrors(moving), scene.views["right28"]
    true, mask = view.image(3), moving["right28"][3]
    wrong = true.copy()
    wrong[mask] = 255 - wrong[mask]
    blank = np.ones(mask.shape, np.float32)
    errors.add(view, 3, RenderedImage((wrong / 255).astype(np.float32), blank, blank, blank))
    found = errors.result()
    assert found["share"] == 1 and found["psnr_static"] == pytest.approx(100)
    frame, total, count, other, rest = found["images"]["right28"][0]
    assert frame == 3 and other == 0 and total > 0
    assert count + rest == view.covisible(3).sum()
