"""Lens models against OpenCV and COLMAP, their inverse, and what cannot be inverted."""

import cv2
import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.geometry import LENS_MODELS, Lens
from msdyn.io.colmap import load_pycolmap

WIDTH, HEIGHT = 640, 480
DISTORTION = {
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": (-0.1,),
    "RADIAL": (-0.2, 0.03),
    "OPENCV": (-0.2, 0.05, 0.003, -0.002),
    "FULL_OPENCV": (0.1, -0.05, 0.003, -0.002, 0.01, 0.2, 0.01, 0.003),
    "SIMPLE_FISHEYE": (),
    "FISHEYE": (),
    "SIMPLE_RADIAL_FISHEYE": (0.03,),
    "RADIAL_FISHEYE": (0.03, -0.01),
    "OPENCV_FISHEYE": (0.02, -0.01, 0.004, -0.001),
    "THIN_PRISM_FISHEYE": (0.02, -0.01, 0.003, -0.002, 0.004, -0.001, 0.002, -0.001),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        0.02, -0.01, 0.004, -0.001, 5e-4, -2e-4, 0.003, -0.002, 0.002, -0.001, 0.0015, 7e-4,
    ),
    "FOV": (0.9,),
    "SIMPLE_DIVISION": (-0.2,),
    "DIVISION": (-0.25,),
    "EUCM": (0.6, 1.1),
}  # fmt: skip


def lens_of(model, distortion=None):
    focal = (400.0,) if LENS_MODELS[model].names[0] == "f" else (400.0, 410.0)
    distortion = DISTORTION[model] if distortion is None else distortion
    return Lens(model, (*focal, 322.0, 239.0, *distortion), WIDTH, HEIGHT)


def rays(count=400):
    return np.random.default_rng(0).uniform(-1, 1, (count, 2)) * [0.9, 0.7]


@pytest.mark.parametrize("model", list(LENS_MODELS))
def test_models_are_colmaps_and_invertible(model):
    lens, points = lens_of(model), rays()
    camera = load_pycolmap().Camera(model=model, width=WIDTH, height=HEIGHT, params=lens.params)
    expected = camera.img_from_cam(np.column_stack([points, np.ones(len(points))]))
    xy = lens.pixels(points)
    np.testing.assert_allclose(xy, expected, atol=1e-7)
    back, valid = lens.normalised(xy)
    assert valid.all()
    np.testing.assert_allclose(back, points, atol=1e-9)
    np.testing.assert_allclose(lens.pixels(np.zeros(2)), lens.pinhole[2:])  # the optical axis


def test_opencv_projects_alike():
    points = rays()
    lens = lens_of("FULL_OPENCV")
    k = np.array([[400, 0, 321.5], [0, 410, 238.5], [0, 0, 1.0]])  # first pixel's centre at 0
    solid = np.column_stack([points, np.ones(len(points))])[:, None]
    seen, _ = cv2.projectPoints(solid, np.zeros(3), np.zeros(3), k, np.array(lens.params[4:]))
    np.testing.assert_allclose(lens.pixels(points) - 0.5, seen[:, 0], atol=1e-9)
    lens = lens_of("OPENCV_FISHEYE")
    seen, _ = cv2.fisheye.projectPoints(
        solid, np.zeros(3), np.zeros(3), k, np.array(lens.params[4:])
    )
    np.testing.assert_allclose(lens.pixels(points) - 0.5, seen[:, 0], atol=1e-9)


def test_wide_fisheyes_are_inverted_to_their_rim():
    lens = Lens("OPENCV_FISHEYE", (150, 150, 320, 240, 0.05, -0.01, 0.002, 0), WIDTH, HEIGHT)
    angle, turn = np.meshgrid(np.radians([0, 30, 60, 80, 89]), np.linspace(0, 6, 7))
    points = np.tan(angle)[..., None] * np.stack([np.cos(turn), np.sin(turn)], -1)
    back, valid = lens.normalised(lens.pixels(points))
    assert valid.all() and valid.shape == (7, 5)
    np.testing.assert_allclose(np.arctan(np.linalg.norm(back, axis=-1)), angle, atol=1e-9)


def test_pixels_beyond_the_fold_are_not_valid():
    lens = lens_of("SIMPLE_RADIAL", (-0.6,))  # r - .6 r^3 is largest at r = .745, .497
    assert lens.widest == pytest.approx(np.arctan(np.sqrt(1 / 1.8)), abs=1e-3)
    points, valid = lens.normalised(np.array([[322 + 400 * 0.49, 239], [322 + 400 * 0.51, 239]]))
    assert valid.tolist() == [True, False] and np.isnan(points[1]).all()
    assert np.isnan(lens.pixels(np.array([0.8, 0]))).all()
    assert np.isfinite(lens.pixels(np.array([0.7, 0]))).all()
    assert not lens.normalised(np.array([np.nan, 0.0]))[1]


def test_resized_lenses_see_the_same():
    lens = Lens("OPENCV", (400, 410, 322, 239, -0.2, 0.05, 0.003, -0.002), WIDTH, HEIGHT, skew=3.0)
    half = lens.resized(320, 240)
    np.testing.assert_allclose(half.pixels(rays()), lens.pixels(rays()) / 2, atol=1e-9)
    back, _ = lens.normalised(lens.pixels(rays()))
    np.testing.assert_allclose(back, rays(), atol=1e-9)
    skewed = (
        lens.pixels(rays())[:, 0] - Lens("OPENCV", lens.params, WIDTH, HEIGHT).pixels(rays())[:, 0]
    )
    np.testing.assert_allclose(skewed, 3 * (lens.pixels(rays())[:, 1] - 239) / 410)


@pytest.mark.parametrize(
    "model, params, message",
    [
        ("WIDE", (1,), "expected one of the models SIMPLE_PINHOLE, .*, got 'WIDE'"),
        ("OPENCV", (400, 400, 320, 240), r"expected 8 parameters \(fx fy cx cy k1 k2 p1 p2\)"),
        ("RADIAL", (-400, 320, 240, 0, 0), "expected a focal length > 0"),
        ("RADIAL", (400, 3200, 240, 0, 0), "principal point within 640x480 px, got 3200 240"),
        ("RADIAL", (400, 320, 240, np.nan, 0), "expected finite numbers"),
        ("SIMPLE_RADIAL", (400, 320, 240, -9), "can be inverted on .* of the image"),
        ("FOV", (400, 400, 320, 240, 1e6), "inverted"),
    ],
)  # fmt: skip
def test_lenses_that_are_none(model, params, message):
    with pytest.raises(InputError, match=message) as error:
        _ = Lens(model, params, WIDTH, HEIGHT).displacement
    assert "\n" not in str(error.value)
