"""Choice of frames, crops and the canonical world."""

import numpy as np
import pytest
from feedforward.data.test_shards import write
from feedforward.data.toy_clips import HEIGHT, STEP, WIDTH, wall_clip, wall_frame

from msdyn.errors import InputError
from msdyn.feedforward.data import ClipFrame, ClipLibrary
from msdyn.feedforward.data.sample import TRAVEL, draw_sample
from msdyn.feedforward.data.sampling import Crop, choose_frames, largest_angle, random_crop


def stored(folder, clip, **options):
    return ClipLibrary(write(folder, clip, **options)).clip(f"{clip.dataset}/{clip.name}")


def generator(seed=0):
    return np.random.default_rng(seed)


def choices(clip, count=200, frames=4, queries=3, stride=2, static=False, **options):
    return [
        choose_frames(
            clip, frames, queries, generator(seed), stride=stride, static=static, **options
        )
        for seed in range(count)
    ]


def test_inputs_are_evenly_spaced_in_a_window(tmp_path):
    clip = stored(tmp_path, wall_clip(frames=40))
    lengths = set()
    for choice in choices(clip):
        steps = np.diff(choice.inputs)
        assert steps.min() >= 1 and steps.max() - steps.min() <= 1
        lengths.add(choice.inputs[-1] - choice.inputs[0] + 1)
        assert choice.outputs.min() >= choice.inputs[0]
        assert choice.outputs.max() <= choice.inputs[-1]
        assert (np.diff(choice.outputs) > 0).all()
        np.testing.assert_allclose(choice.times[[0, -1]], [0, 1])
        np.testing.assert_allclose(
            choice.query_times,
            (choice.outputs - choice.inputs[0]) / (choice.inputs[-1] - choice.inputs[0]),
        )
    assert lengths == set(range(4, 4 * 2 * 3 + 2))


def test_the_stride_of_the_data_set_limits_the_window(tmp_path):
    clip = stored(tmp_path, wall_clip(frames=40))
    assert {np.diff(c.inputs).max() for c in choices(clip, stride=1)} <= {1, 2, 3, 4}


def test_outputs_are_at_times_of_inputs_in_a_quarter_of_the_samples_at_most(tmp_path):
    clip = stored(tmp_path, wall_clip(frames=40))
    shared = [np.isin(c.outputs, c.inputs).any() for c in choices(clip, 400)]
    # Windows of four frames have no others: 1 of 22 lengths. Of the others, a quarter may.
    assert 0.08 < np.mean(shared) < 0.3
    inputs = choices(clip, query_times="frames")
    assert all(np.isin(c.outputs, c.inputs).all() for c in inputs)


def test_more_queries_than_frames_repeat_some(tmp_path):
    clip = stored(tmp_path, wall_clip(frames=5))
    for choice in choices(clip, 20, frames=2, queries=8):
        assert len(choice.outputs) == 8


def test_static_clips_have_one_time_half_of_the_time(tmp_path):
    clip = stored(tmp_path, wall_clip(frames=40))
    one = [np.ptp(c.query_times) == 0 for c in choices(clip, 400, static=True)]
    assert 0.4 < np.mean(one) < 0.6
    times = [
        c.query_times[0] for c in choices(clip, 400, static=True) if np.ptp(c.query_times) == 0
    ]
    assert min(times) < 0.05 and max(times) > 0.95
    assert not any(np.ptp(c.query_times) == 0 for c in choices(clip, static=False))


def test_outputs_are_of_the_target_view_at_their_times(tmp_path):
    own = wall_clip(frames=9, target=np.arange(9) >= 5)
    own.times[5:] = [10, 12, 14, 15]  # the times of frames 0, 1, 2, and between 2 and 3
    clip = stored(tmp_path, own)
    seen = set()
    for choice in choices(clip, frames=3, queries=1):
        first, last = own.times[choice.inputs[[0, -1]]]
        within = [i for i in range(5, 9) if first <= own.times[i] <= last]
        assert choice.outputs[0] in (within or range(5))
        seen.add(int(choice.outputs[0]))
    assert {5, 6, 7, 8} <= seen


def test_too_few_frames(tmp_path):
    clip = stored(tmp_path, wall_clip(frames=3))
    with pytest.raises(InputError, match="toy/wall: expected at least 4 input frames, got 3"):
        choices(clip, 1)


def test_the_largest_angle_between_neighbours():
    cameras = np.tile(np.eye(4), (3, 1, 1))
    turn = np.radians(50)
    cameras[2, :2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    np.testing.assert_allclose(largest_angle(cameras), 50)
    assert largest_angle(cameras[:1]) == 0


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (8, 24), (32, 48)])
def test_a_point_keeps_its_ray_through_a_crop(size):
    """The ramps of the image tell where each pixel was; intrinsics must agree with them."""
    crop = random_crop((HEIGHT, WIDTH), size, (0.77, 0.9), generator(2))
    left, top, right, bottom = crop.box
    np.testing.assert_allclose([left + right, top + bottom], [WIDTH, HEIGHT])
    np.testing.assert_allclose((right - left) / (bottom - top), size[1] / size[0])
    before = np.array([0.8, 1.2, 0.45, 0.55])
    after = crop.intrinsics(before)
    columns = (np.arange(size[1]) + 0.5) / size[1]
    rays = (columns - after[2]) / after[0]
    original = (rays * before[0] + before[2]) * WIDTH  # px, before the crop
    ramp = np.tile(np.arange(WIDTH, dtype=np.uint8) * 10, (HEIGHT, 1))
    image = crop.image(np.repeat(ramp[..., None], 3, axis=2))[size[0] // 2, :, 0]
    inner = slice(2, -2) if size[1] > 8 else slice(1, -1)
    np.testing.assert_allclose(image[inner], (original[inner] - 0.5) * 10, atol=4)
    nearest = crop.nearest(ramp)[size[0] // 2]
    np.testing.assert_array_equal(nearest, np.floor(original) * 10)


def test_without_crop_an_image_stays_as_it_is():
    crop = random_crop((HEIGHT, WIDTH), (HEIGHT, WIDTH), (1.0, 1.0), generator())
    image = wall_frame(3).image
    np.testing.assert_array_equal(crop.image(image), image)
    np.testing.assert_array_equal(crop.nearest(image[..., 1]), image[..., 1])
    np.testing.assert_allclose(
        crop.intrinsics(np.array([0.8, 1.2, 0.5, 0.5])), [0.8, 1.2, 0.5, 0.5]
    )


def test_images_are_reduced_without_aliasing():
    """Stripes of one pixel become grey, not stripes."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = Crop((0.0, 0.0, 64.0, 64.0), (64, 64), (16, 16)).image(stripes)
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() < 6


def sample_of(clip, *, frames=3, seed=0, crop=(1.0, 1.0)):
    return draw_sample(
        clip, (HEIGHT, WIDTH), frames, 2, generator(seed),
        crop=crop, query_times="random", targets=True,
    )  # fmt: skip


def test_the_unit_is_the_mean_distance_of_known_points(tmp_path):
    sample = sample_of(stored(tmp_path, wall_clip()))
    np.testing.assert_array_equal(sample.world_from_cam[0], np.eye(4))
    assert sample.valid.mean() == 1 - 16 / (HEIGHT * WIDTH)
    assert (sample.depth[~sample.valid] == 0).all()
    x = ((np.arange(WIDTH) + 0.5) / WIDTH - 0.5) / 0.8
    y = ((np.arange(HEIGHT) + 0.5) / HEIGHT - 0.5) / 1.2
    rays = np.stack([*np.meshgrid(x, y), np.ones((HEIGHT, WIDTH))], axis=-1)
    points = rays * sample.depth[..., None] + sample.world_from_cam[:, None, None, :3, 3]
    distance = np.linalg.norm(points, axis=-1)[sample.valid].mean()
    np.testing.assert_allclose(distance, 1, rtol=1e-5)
    step = (sample.choice.inputs[1] - sample.choice.inputs[0]) * STEP
    unit = 4 / sample.depth[sample.valid].mean()
    np.testing.assert_allclose(sample.world_from_cam[1, 0, 3], step / unit, rtol=1e-5)


def test_without_depth_the_unit_is_given_by_the_camera(tmp_path):
    def frame(index):
        return ClipFrame(wall_frame(index).image)

    sample = sample_of(stored(tmp_path, wall_clip(frame=frame)))
    np.testing.assert_allclose(sample.world_from_cam[:, 0, 3].max(), TRAVEL, rtol=1e-6)
    assert not sample.valid.any()
    still = wall_clip("still", frame=frame)
    still.world_from_cam[:] = np.eye(4)
    sample = sample_of(stored(tmp_path, still))
    np.testing.assert_array_equal(sample.world_from_cam, np.tile(np.eye(4), (3, 1, 1)))


def test_realestate10k_has_no_extreme_depth(tmp_path):
    def frame(index):
        depth = np.arange(1, HEIGHT * WIDTH + 1, dtype=np.float32).reshape(HEIGHT, WIDTH)
        return ClipFrame(wall_frame(index).image, depth)

    sample = sample_of(stored(tmp_path, wall_clip(dataset="realestate10k", frame=frame)))
    assert abs(sample.valid.mean() - 0.6) < 0.01
    kept = np.flatnonzero(sample.valid[0].reshape(-1)) / (HEIGHT * WIDTH)
    assert 0.19 < kept.min() and kept.max() < 0.81


def test_frames_without_depth_are_drawn_again(tmp_path):
    def frame(index):
        depth = wall_frame(index).depth
        return ClipFrame(wall_frame(index).image, depth if index > 5 else np.zeros_like(depth))

    clip = stored(tmp_path, wall_clip(frame=frame, frames=12))
    samples = [sample_of(clip, seed=seed) for seed in range(20)]
    assert all(sample.choice.inputs[-1] > 5 for sample in samples)
    assert sum(sample.redrawn for sample in samples) > 0


def test_clips_without_a_usable_sample_are_named(tmp_path):
    spun = wall_clip("spun", frames=5)
    for index in range(5):
        a = np.radians(60 * index)
        spun.world_from_cam[index, :2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    clip = stored(tmp_path, spun)
    with pytest.raises(InputError, match="clip toy/spun: none of 20 .* rotated by .* degrees"):
        sample_of(clip, frames=2)
    dark = wall_clip("dark", frame=lambda i: ClipFrame(
        wall_frame(i).image, np.pad([[1.0]], ((0, HEIGHT - 1), (0, WIDTH - 1))).astype(np.float32)
    ))  # fmt: skip
    with pytest.raises(InputError, match="clip toy/dark: none of 20 .* 0.26% of the pixels"):
        sample_of(stored(tmp_path / "dark", dark))
