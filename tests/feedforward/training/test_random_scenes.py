"""Random scenes: exact depth and motion, and the same scenes from the same seed."""

from dataclasses import fields

import pytest
import torch

from msdyn.feedforward.embeddings import pixel_rays
from msdyn.feedforward.training.batches import (
    BatchOptions,
    random_batch,
    render_batch,
    true_matches,
)
from msdyn.feedforward.training.random_scenes import OBJECTS, SceneOptions, random_scenes
from msdyn.feedforward.training.raycast import cast_rays

SIZE = 24


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes():
    return random_scenes(SceneOptions(), 5, generator())


@pytest.fixture(scope="module")
def batch(scenes):
    times = torch.linspace(0, 1, 3).expand(5, -1)
    return render_batch(scenes, times, times.flip(1), SIZE, targets=True)


def directions_of(scenes, world_from_cam):
    intrinsics = torch.stack([scenes.focal, scenes.focal, *[0 * scenes.focal + 0.5] * 2], dim=-1)
    rays = pixel_rays(intrinsics, SIZE, SIZE).flatten(1, 2)[:, None]
    return rays @ world_from_cam[..., :3, :3].mT


def inside(scenes, points, poses, margin):
    """Whether world points [B, V, N, 3] are within an object, or outside the room."""
    within = torch.zeros(points.shape[:-1], dtype=torch.bool)
    for index in range(OBJECTS):
        pose = poses[:, :, index]
        local = (points - pose[:, :, None, :3, 3]) @ pose[..., :3, :3]
        unit = local / scenes.half_sizes[:, None, None, index].clamp_min(1e-9)
        norm = unit.abs().amax(-1) if index < OBJECTS // 2 else unit.norm(dim=-1)
        within |= norm < 1 - margin
    room = (points - scenes.world_from_room[:, None, None, :3, 3]) @ (
        scenes.world_from_room[:, None, :3, :3]
    )
    return within | ((room.abs() / scenes.room_half_size[:, None, None]).amax(-1) > 1 + margin)


def test_rays_end_at_the_first_surface(scenes):
    """Free space up to the hit, an object or the outside of the room just behind it."""
    times = torch.tensor([[0.0, 0.7]]).expand(5, -1)
    cameras, poses = scenes.world_from_camera(times), scenes.world_from_object(times)
    directions = directions_of(scenes, cameras)
    hits = cast_rays(
        cameras[..., :3, 3], directions, poses, scenes.half_sizes,
        scenes.world_from_room, scenes.room_half_size,
    )  # fmt: skip

    def at(depth):
        return cameras[..., None, :3, 3] + depth[..., None] * directions

    for fraction in torch.linspace(0.02, 1, 60):
        free = ~inside(scenes, at(fraction * hits.depth), poses, 1e-3)
        assert free[(fraction * hits.depth) > 0.06].all()
    behind = inside(scenes, at(hits.depth + 0.01), poses, 0)
    assert behind.float().mean() > 0.98  # the others graze an edge


def test_a_ray_parallel_to_walls_ends_at_the_wall_in_front():
    room = torch.eye(4)[None]
    room[0, :3, 3] = torch.tensor([0.2, -0.3, 0.5])
    hits = cast_rays(
        torch.zeros(1, 1, 3),
        torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 1, 3),
        torch.eye(4).expand(1, 1, OBJECTS, 4, 4),
        torch.zeros(1, OBJECTS, 3),
        room,
        torch.tensor([[1.0, 1.0, 1.5]]),
    )
    torch.testing.assert_close(hits.depth, torch.full((1, 1, 1), 2.0))


def test_moved_points_are_on_the_surface_at_their_time(scenes, batch):
    """A ray from camera j to a point moved to time j ends there, or at an occluder."""
    times = batch.clip.times
    first = scenes.world_from_camera(times)[:, :1]
    poses = scenes.world_from_object(times)
    scale = scenes.world_from_camera(times)[:, -1, :3, 3] - first[:, 0, :3, 3]
    scale = scale.norm(dim=-1) / batch.clip.world_from_cam[:, -1, :3, 3].norm(dim=-1)
    seen = []
    for later in range(3):
        moved = batch.points + batch.motion_to_frame(later)
        world = moved.flatten(1, 3) * scale[:, None, None] @ first[:, 0, :3, :3].mT
        world = world + first[:, :, :3, 3]
        camera = scenes.world_from_camera(times)[:, later]
        offset = world - camera[:, None, :3, 3]
        depth = (offset @ camera[:, :3, 2:])[..., 0]
        front = depth > 0.1
        rays = offset / torch.where(front, depth, 1.0)[..., None]
        hits = cast_rays(
            camera[:, None, :3, 3], rays[:, None], poses[:, later : later + 1],
            scenes.half_sizes, scenes.world_from_room, scenes.room_half_size,
        )  # fmt: skip
        difference = (hits.depth[:, 0] - depth)[front & batch.moving.flatten(1)]
        assert difference.max() < 2e-3
        seen.append((difference.abs() < 2e-3).float().mean())
    assert min(seen) > 0.4  # the visible half of a mover


def test_static_pixels_do_not_move(batch):
    motion = batch.motion(0)
    assert batch.moving.any() and (~batch.moving).any()
    assert motion[~batch.moving].abs().max() == 0
    assert motion[batch.moving].norm(dim=-1).max() > 0.05


def test_the_motion_to_the_own_time_is_zero(batch):
    own = torch.stack([batch.motion_to_frame(frame)[:, frame] for frame in range(3)])
    assert own.abs().max() < 1e-5


def test_queries_at_times_of_frames_are_the_frames(batch):
    for query, frame in enumerate((2, 1, 0)):
        torch.testing.assert_close(
            batch.motion(query), batch.motion_to_frame(frame), atol=1e-5, rtol=0
        )


def test_the_world_is_canonical(batch):
    identity = torch.eye(4).expand(5, 4, 4)
    torch.testing.assert_close(batch.clip.world_from_cam[:, 0], identity, atol=1e-5, rtol=0)
    distance = batch.points.norm(dim=-1).mean(dim=(1, 2, 3))
    torch.testing.assert_close(distance, torch.ones(5), atol=1e-5, rtol=0)


def test_matches_of_a_frame_in_itself_are_its_cells(batch):
    positions, visible = true_matches(batch, 4)
    own = positions[:, torch.arange(3), torch.arange(3)]
    row, column = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    expected = torch.stack([column, row], dim=-1).flatten(0, 1)
    torch.testing.assert_close(own, expected.expand_as(own), atol=1e-3, rtol=0)
    assert visible[:, torch.arange(3), torch.arange(3)].all()


def test_a_seed_determines_the_batch():
    options = BatchOptions(scenes=2, frames=2, size=16)
    one, same, other = (
        random_batch(SceneOptions(), options, generator(seed)) for seed in (3, 3, 4)
    )
    for field in fields(one):
        if isinstance(getattr(one, field.name), torch.Tensor):
            assert torch.equal(getattr(one, field.name), getattr(same, field.name)), field.name
    assert torch.equal(one.clip.images, same.clip.images)
    assert not torch.equal(one.clip.images, other.clip.images)


def test_a_static_camera_and_pure_translation():
    still = SceneOptions(camera_travel=(0.0, 0.0), camera_rotation=0.0, rotation=0.0, curve=0.0)
    batch = random_batch(still, BatchOptions(scenes=3, frames=2, size=16), generator())
    torch.testing.assert_close(
        batch.clip.world_from_cam[:, 0], batch.clip.world_from_cam[:, 1], atol=1e-6, rtol=0
    )
    rotation = batch.frame_poses[..., :3, :3]
    torch.testing.assert_close(rotation[:, 0], rotation[:, 1], atol=1e-5, rtol=0)
