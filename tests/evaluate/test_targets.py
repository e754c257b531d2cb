"""Novel views of benchmarks: figures of known images, and agreement with DyCheck's evaluation."""

import numpy as np
import pytest
from clips import two_boxes
from exact_fits import moving_points
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from msdyn.errors import InputError
from msdyn.evaluate import (
    Lpips,
    Target,
    evaluate_targets,
    evaluate_views,
    renderer_of,
    targets_of_views,
)
from msdyn.geometry import Cameras
from msdyn.scene import Scene
from msdyn.synthetic import write_truth

SIZE = 40, 48
CAMERA = Cameras.pinhole(40.0, SIZE[1], SIZE[0], np.eye(4))


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


def test_figures_of_whole_images_are_those_of_scikit_image():
    truth = [noise(0), noise(1)]
    shown = {0.0: noise(2), 1.0: (truth[1] * 0.9).astype(np.uint8)}
    targets = [Target(CAMERA, float(t), image) for t, image in enumerate(truth)]
    found = evaluate_targets(lambda camera, time: shown[time], targets)
    pairs = list(zip(truth, shown.values(), strict=True))
    psnr = np.mean([peak_signal_noise_ratio(a, b) for a, b in pairs])
    ssim = np.mean(
        [
            structural_similarity(
                a, b, channel_axis=2, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False, data_range=255,
            )
            for a, b in pairs
        ]
    )  # fmt: skip
    assert found["psnr"] == pytest.approx(psnr) and found["ssim"] == pytest.approx(ssim, abs=1e-6)
    assert found["mssim"] == pytest.approx(found["ssim"])  # without a mask they are the same
    assert found["images"] == 2 and found["lpips"] is None and np.isnan(found["psnr_moving"])


def test_only_pixels_of_the_masks_count():
    """Off by 20 of 255 where the mask is, and by 100 elsewhere; by 51 where something moves."""
    truth = np.full((*SIZE, 3), 100, np.uint8)
    shown, mask, moving = truth.copy() + np.uint8(100), np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    mask[5:30, 5:30], moving[8:12, 8:12] = True, True
    shown[mask] = 120
    shown[moving] = 151
    expected = -10 * np.log10((609 * 20**2 + 16 * 51**2) / 625 / 255**2)
    target = Target(CAMERA, 0.5, truth, mask, moving)
    found = evaluate_targets(lambda camera, time: shown, [target])
    assert found["psnr"] == pytest.approx(expected)
    assert found["psnr_moving"] == pytest.approx(-20 * np.log10(51 / 255))


def test_lpips_is_plain_or_masked():
    class Network(Lpips):
        def __init__(self):
            pass

        def average(self, image, truth):
            return 0.25

        def __call__(self, image, truth, mask):
            return float(mask.mean())

    mask = np.zeros(SIZE, bool)
    mask[:10] = True
    targets = [Target(CAMERA, 0.0, noise(0)), Target(CAMERA, 0.0, noise(0), mask)]
    for target, expected in zip(targets, (0.25, 0.25), strict=True):
        assert evaluate_targets(lambda c, t: noise(1), [target], lpips=Network())[
            "lpips"
        ] == pytest.approx(expected)
    mask[:20] = True
    both = evaluate_targets(lambda c, t: noise(1), targets, lpips=Network())
    assert both["lpips"] == pytest.approx((0.25 + 0.5) / 2)


def test_no_images_have_no_figures():
    found = evaluate_targets(lambda camera, time: noise(0), [])
    assert found["images"] == 0 and np.isnan(found["psnr"]) and found["lpips"] is None


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return Scene(write_truth(two_boxes(8, 64, 48), tmp_path_factory.mktemp("views") / "boxes"))


def test_held_out_views_are_evaluated_as_by_msdyn_eval(scene):
    """Of any sequence: one that draws three points, each in its own time."""
    translations = np.zeros((3, 8, 3))
    translations[0, :, 0] = np.linspace(0, 0.5, 8)
    sequence = moving_points([[0, 0, 2.0], [0.3, 0, 2.5], [-0.4, 0.1, 3]], translations, scale=0.3)
    expected = evaluate_views(sequence, scene)
    found = evaluate_targets(renderer_of(sequence), targets_of_views(scene))
    assert found["images"] == expected["images"] == 16
    assert found["psnr"] == pytest.approx(expected["mpsnr"])
    assert found["mssim"] == pytest.approx(expected["mssim"])
    assert found["ssim"] == pytest.approx(expected["ssim"])


def test_a_scene_without_views(plane_scene):
    for path in (plane_scene.directory / "views").glob("*"):
        path.rename(plane_scene.directory / path.name)
    with pytest.raises(InputError, match="no held-out views"):
        next(targets_of_views(Scene(plane_scene.directory)))
