"""Random scenes: exact depth and motion, and the same scenes from the same seed."""

import math
from dataclasses import fields, replace

import pytest
import torch

from msdyn.feedforward.batches import true_matches
from msdyn.feedforward.embeddings import pixel_rays
from msdyn.feedforward.scenes.random_scenes import OBJECTS, SceneOptions, random_scenes
from msdyn.feedforward.scenes.raycast import SHAPES, cast_rays, limits_of
from msdyn.feedforward.scenes.render import BatchOptions, random_batch, render_batch
from msdyn.feedforward.scenes.textures import TEXTURES, random_textures
from msdyn.feedforward.training.curriculum import HELD_OUT_SCENES, VARIED_SCENES

SIZE = 24
KINDS = {
    "default": SceneOptions(),
    "jointed": replace(VARIED_SCENES, jointed=1.0, soft=0.0, movers=(2, 3), mover_share=(0.1, 0.2)),
    "soft": replace(VARIED_SCENES, soft=1.0, jointed=0.0, movers=(2, 3), travel=(0.1, 0.3)),
    "both": replace(VARIED_SCENES, soft=1.0, jointed=1.0, softness=0.8),
    "held out": HELD_OUT_SCENES,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=list(KINDS))
def scenes(request):
    return random_scenes(KINDS[request.param], 5, generator())


@pytest.fixture(scope="module")
def batch(scenes):
    times = torch.linspace(0, 1, 3).expand(5, -1)
    return render_batch(scenes, times, times.flip(1), (SIZE, SIZE), targets=True)


def directions_of(scenes, world_from_cam):
    intrinsics = torch.stack([scenes.focal, scenes.focal, *[0 * scenes.focal + 0.5] * 2], dim=-1)
    rays = pixel_rays(intrinsics, SIZE, SIZE).flatten(1, 2)[:, None]
    return rays @ world_from_cam[..., :3, :3].mT


def inside(scenes, points, poses, margin):
    """Whether world points [B, V, N, 3] are within an object, or outside the room."""
    within = torch.zeros(points.shape[:-1], dtype=torch.bool)
    for index in range(OBJECTS):
        pose = poses[:, :, index]
        inverse = torch.linalg.inv(pose[..., :3, :3])
        local = (points - pose[:, :, None, :3, 3]) @ inverse.mT
        unit = local / scenes.half_sizes[:, None, None, index].clamp_min(1e-9)
        sphere, cylinder, octahedron = scenes.limits[:, index, :, None, None].unbind(1)
        within |= (
            (unit.abs().amax(-1) < 1 - margin)
            & (unit.norm(dim=-1) < sphere - margin)
            & (unit[..., :2].norm(dim=-1) < cylinder - margin)
            & (unit.abs().sum(-1) < octahedron - margin)
        )
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
        cameras[..., :3, 3], directions, poses, scenes.half_sizes, scenes.limits,
        scenes.world_from_room, scenes.room_half_size,
    )  # fmt: skip

    def at(depth):
        return cameras[..., None, :3, 3] + depth[..., None] * directions

    for fraction in torch.linspace(0.04, 1, 25):
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
        torch.full((1, OBJECTS, 3), torch.inf),
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
            scenes.half_sizes, scenes.limits, scenes.world_from_room, scenes.room_half_size,
        )  # fmt: skip
        difference = (hits.depth[:, 0] - depth)[front & batch.moving.flatten(1)]
        # All but those on an outline, which rounding may move beside the object.
        assert (difference > 2e-3).float().mean() < 1e-3
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


def test_the_parts_of_jointed_objects_share_the_hinge():
    scenes = random_scenes(KINDS["both"], 40, generator())
    assert scenes.joined.sum() >= 40
    times = torch.linspace(0, 1, 5).expand(40, -1)
    poses = scenes.world_from_object(times)

    def place(index, point):
        pose = poses[:, :, index]
        return (pose[..., :3, :3] @ point[:, None, :, None])[..., 0] + pose[..., :3, 3]

    for before, index in ((0, 4), (4, 1)):
        joined = scenes.joined[:, index]
        there = place(before, scenes.hinge[:, index])[joined]
        own = place(index, scenes.anchor[:, index])[joined]
        torch.testing.assert_close(own, there, atol=1e-5, rtol=0)
    # The parts turn against each other.
    second = scenes.joined[:, 4]
    relative = torch.linalg.inv(poses[second][:, :, 0]) @ poses[second][:, :, 4]
    assert (relative[:, 0] - relative[:, -1]).abs().amax(dim=(1, 2)).median() > 0.02


def test_soft_objects_change_their_shape_and_rigid_ones_do_not():
    times = torch.linspace(0, 1, 5).expand(40, -1)

    def squared_lengths(options):
        scenes = random_scenes(options, 40, generator())
        linear = scenes.world_from_object(times)[..., :3, :3]
        assert (torch.linalg.det(linear) > 0).all()
        return (linear.mT @ linear)[scenes.moving[:, None].expand(-1, 5, -1)]

    rigid = squared_lengths(replace(VARIED_SCENES, soft=0.0))
    torch.testing.assert_close(rigid, torch.eye(3).expand_as(rigid), atol=1e-5, rtol=0)
    soft = squared_lengths(replace(VARIED_SCENES, soft=1.0, log_lengths=False))
    assert (soft - torch.eye(3)).abs().amax(dim=(1, 2)).median() > 0.1


@pytest.mark.parametrize(
    ("shape", "offset", "depth", "normal"),
    [
        ("box", (0.9, 0.9), 1.0, (0, 0, -1)),
        ("ellipsoid", (0.6, 0.0), 1.2, (0.6, 0, -0.8)),
        ("cylinder", (0.6, 0.6), 1.0, (0, 0, -1)),
        ("cylinder", (0.9, 0.9), math.inf, None),
        ("rounded", (0.9, 0.0), 2 - math.sqrt(1.25**2 - 0.81), None),
        ("rounded", (0.1, 0.0), 1.0, (0, 0, -1)),
        ("octahedron", (0.5, 0.25), 1.75, (3**-0.5, 3**-0.5, -(3**-0.5))),
        ("cut", (0.8, 0.7), 1.5, (3**-0.5, 3**-0.5, -(3**-0.5))),
        ("cut", (0.5, 0.4), 1.0, (0, 0, -1)),
    ],
)
def test_shapes_are_where_they_should_be(shape, offset, depth, normal):
    """A ray along z towards an object of unit size, twice as far away."""
    limits = limits_of(torch.full((1, 1), SHAPES.index(shape)))
    pose = torch.eye(4)[None, None, None].clone()
    pose[..., 2, 3] = 2
    room = torch.eye(4)[None]
    hits = cast_rays(
        torch.tensor([[[*offset, 0.0]]]), torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 1, 3), pose,
        torch.ones(1, 1, 3), limits, room, torch.tensor([[9.0, 9.0, 9.0]]),
    )  # fmt: skip
    expected = 9.0 if depth == math.inf else depth
    torch.testing.assert_close(hits.depth, torch.full((1, 1, 1), expected), atol=1e-5, rtol=0)
    assert hits.index.item() == (1 if depth == math.inf else 0)
    if normal is not None:
        torch.testing.assert_close(
            hits.normal[0, 0, 0], torch.tensor(normal, dtype=torch.float32), atol=1e-5, rtol=0
        )


def test_normals_of_sheared_objects_are_perpendicular_to_the_surface():
    """Against the plane through three neighbouring hits."""
    linear = torch.tensor([[1.0, 0.4, 0.1], [0.0, 1.2, -0.3], [0.0, 0.0, 0.8]])
    pose = torch.eye(4)
    pose[:3, :3], pose[2, 3] = linear, 3.0
    step = 1e-3
    rays = torch.tensor([[0.02, 0.05, 1.0], [0.02 + step, 0.05, 1.0], [0.02, 0.05 + step, 1.0]])
    hits = cast_rays(
        torch.zeros(1, 1, 3), rays[None, None], pose[None, None, None], torch.ones(1, 1, 3),
        limits_of(torch.full((1, 1), SHAPES.index("ellipsoid"))), torch.eye(4)[None],
        torch.full((1, 3), 9.0),
    )  # fmt: skip
    points = (hits.depth[..., None] * rays)[0, 0]
    across = torch.linalg.cross(points[2] - points[0], points[1] - points[0])
    across = across / across.norm()
    torch.testing.assert_close(hits.normal[0, 0, 0], across, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", TEXTURES)
def test_textures_of_every_kind_are_colours(kind):
    textures = random_textures(3, 2, (0.05, 0.2), generator(), (kind,))
    points = torch.rand(3, 500, 3, generator=generator(1))
    colours = textures.colours_at(points, torch.ones(3, 500, dtype=torch.long))
    assert (textures.kind == TEXTURES.index(kind)).all()
    assert colours.min() >= 0 and colours.max() <= 1 and colours.isfinite().all()
    assert colours.std(dim=1).max() > 0.005


def test_held_out_scenes_have_nothing_of_the_training():
    assert not set(HELD_OUT_SCENES.shapes) & set(VARIED_SCENES.shapes)
    assert not set(HELD_OUT_SCENES.textures) & set(VARIED_SCENES.textures)


def test_heights_are_drawn_and_pixels_stay_square():
    options = BatchOptions(scenes=1, frames=2, size=32, heights=(16, 24))
    drawn = set()
    for seed in range(8):
        batch = random_batch(VARIED_SCENES, options, generator(seed))
        height, width = batch.clip.size
        drawn.add(height)
        focal = batch.clip.intrinsics[0, 0, :2] * torch.tensor([width, height])
        torch.testing.assert_close(focal[0], focal[1])
    assert drawn == {16, 24} and width == 32
