"""Images, labels and points of a lens as those of a pinhole camera, and back."""

import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.geometry import Cameras, Lens, Undistortion, covering_camera, seen_through

WIDTH, HEIGHT = 160, 120
LENSES = {
    "barrel": Lens("OPENCV", (110, 112, 82, 58, -0.28, 0.08, 0.002, -0.002), WIDTH, HEIGHT),
    "pincushion": Lens("OPENCV", (110, 110, 80, 60, 0.15, 0.02, 0, 0), WIDTH, HEIGHT),
    "fisheye": Lens("OPENCV_FISHEYE", (90, 90, 80, 60, 0.02, -0.01, 0, 0), WIDTH, HEIGHT),
}


def grid(width, height):
    return np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)


def pattern(points):
    """Return the colour of rays, smooth: an exact image of any camera."""
    x, y = points[..., 0], points[..., 1]
    waves = [np.sin(9 * x + 4 * y), np.cos(8 * y - 3 * x), np.sin(7 * x * y + 1)]
    return (np.stack(waves, -1) * 100 + 128).round().astype(np.uint8)


@pytest.mark.parametrize("name", list(LENSES))
def test_undistorted_images_are_those_of_the_pinhole_camera(name):
    lens = LENSES[name]
    item = Undistortion.of(lens)
    taken = pattern(lens.normalised(grid(WIDTH, HEIGHT))[0])
    fx, fy, cx, cy = item.pinhole
    expected = pattern((grid(WIDTH, HEIGHT) - [cx, cy]) / [fx, fy])
    error = np.abs(item.image(taken).astype(int) - expected)
    assert error.max() <= 4 and error.mean() < 0.6
    half = item.image(taken, (HEIGHT // 2, WIDTH // 2))
    assert half.shape == (60, 80, 3)
    assert np.abs(half.astype(int) - expected.reshape(60, 2, 80, 2, 3).mean((1, 3))).mean() < 0.6


@pytest.mark.parametrize("name", list(LENSES))
def test_the_image_is_as_large_as_it_can_be_without_borders(name):
    lens = LENSES[name]
    item = Undistortion.of(lens)
    assert item.is_covered and (item.pinhole[2:] == lens.pinhole[2:])
    xy = item.distorted(grid(WIDTH, HEIGHT))
    assert ((xy >= 0) & (xy <= [WIDTH, HEIGHT])).all()
    wider = Undistortion(
        lens, (item.pinhole[0] * 0.995, item.pinhole[1] * 0.995, *item.pinhole[2:])
    )
    assert not wider.is_covered
    assert (item.pinhole[0] > lens.pinhole[0]) == (name == "pincushion")


@pytest.mark.parametrize("name", list(LENSES))
def test_points_there_and_back(name):
    item = Undistortion.of(LENSES[name])
    xy = np.random.default_rng(1).uniform(0, 1, (500, 2)) * [WIDTH, HEIGHT]
    back, valid = item.straight(item.distorted(xy))
    assert valid.all()
    np.testing.assert_allclose(back, xy, atol=1e-5)
    half = item.resized(80, 60)
    np.testing.assert_allclose(half.distorted(xy / 2), item.distorted(xy) / 2, atol=1e-9)


def test_labels_and_depth_are_not_mixed():
    item = Undistortion.of(LENSES["barrel"])
    rays = item.lens.normalised(grid(WIDTH, HEIGHT))[0]
    labels = np.where(rays[..., 0] > 0.1, 7, 200).astype(np.uint8)
    straight = item.nearest(labels, (HEIGHT, WIDTH))
    assert set(np.unique(straight)) == {7, 200}
    boundary = item.pinhole[0] * 0.1 + item.pinhole[2]  # a straight line again
    columns = np.array([np.argmax(row == 7) for row in straight])
    assert np.abs(columns - boundary).max() <= 1
    half = item.nearest(labels[::2, ::2], (HEIGHT, WIDTH))  # files of another size
    assert (half != straight).mean() < 0.02
    wide = Undistortion(item.lens, (60, 60, 80, 60)).nearest(labels, (HEIGHT, WIDTH), outside=255)
    assert wide[0, 0] == 255 and wide[60, 80] != 255


def test_what_is_no_lens_changes_nothing():
    item = Undistortion.of(Lens("OPENCV", (110, 110, 80, 60, 1e-6, 0, 0, 0), WIDTH, HEIGHT))
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    assert item.is_identity and item.image(image) is image


@pytest.mark.parametrize("name", list(LENSES))
def test_a_pinhole_image_seen_through_the_lens(name):
    lens = LENSES[name]
    camera = covering_camera(lens, np.eye(4))
    k = camera.intrinsics[0]
    rays = (grid(camera.width, camera.height) - k[:2, 2]) / k[[0, 1], [0, 1]]
    seen = seen_through(lens, camera, pattern(rays))
    expected = pattern(lens.normalised(grid(WIDTH, HEIGHT))[0])
    assert np.abs(seen.astype(int) - expected).max() <= 4
    side = seen_through(lens, camera, (rays[..., 0] > 0.1), nearest=True)
    assert side.dtype == bool
    assert (side != (lens.normalised(grid(WIDTH, HEIGHT))[0][..., 0] > 0.1)).mean() < 0.02


def test_of_a_wide_fisheye_what_is_within_75_degrees_is_rendered():
    lens = Lens("FISHEYE", (50, 50, 80, 60), WIDTH, HEIGHT)
    camera = covering_camera(lens, np.eye(4))
    seen = seen_through(lens, camera, np.ones((camera.height, camera.width), np.float32))
    assert seen[60, 80] == 1 and seen[60, 80 + 60] == 1 and seen[60, 80 + 70] == 0
    assert 2 * np.degrees(np.arctan(80 / Undistortion.of(lens).pinhole[0])) <= 120.01
    small = Cameras(camera.intrinsics, camera.cam_from_world, 8, 8)
    assert seen_through(lens, small, np.ones((8, 8), np.float32)).shape == (HEIGHT, WIDTH)


def test_a_distortion_that_folds_at_the_centre():
    with pytest.raises(InputError, match="lens"):
        Undistortion.of(Lens("SIMPLE_RADIAL", (100, 80, 60, -20), WIDTH, HEIGHT))
