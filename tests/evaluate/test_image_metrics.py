"""Image metrics: closed forms, scikit-image as the oracle, and masking."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from msdyn.errors import InputError
from msdyn.evaluate import masked_psnr, masked_ssim, masked_ssim_dycheck


def pair(seed=0, size=(40, 50), noise=0.1):
    rng = np.random.default_rng(seed)
    truth = rng.random((*size, 3))
    return np.clip(truth + noise * rng.normal(size=truth.shape), 0, 1), truth


def eight_bit(image):
    return np.round(image * 255) / 255


def test_psnr_of_a_known_difference():
    truth = np.zeros((20, 20, 3))
    image = truth.copy()
    image[:10] = 51 / 255  # a fifth of the range, on half of the pixels
    assert masked_psnr(image, truth) == pytest.approx(-10 * np.log10(0.04 / 2))
    mask = np.zeros((20, 20), bool)
    mask[:10] = True
    assert masked_psnr(image, truth, mask) == pytest.approx(-10 * np.log10(0.04))
    assert masked_psnr(image, truth, ~mask) == np.inf


def test_psnr_agrees_with_scikit_image():
    image, truth = pair()
    expected = peak_signal_noise_ratio(eight_bit(truth), eight_bit(image), data_range=1)
    assert masked_psnr(image, truth) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", [masked_ssim, masked_ssim_dycheck])
def test_ssim_without_a_mask_agrees_with_scikit_image(metric):
    image, truth = pair()
    full = structural_similarity(
        truth, image, channel_axis=-1, data_range=1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )[1]  # fmt: skip
    expected = full[5:-5, 5:-5].mean()
    assert metric(image, truth) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("metric", [masked_psnr, masked_ssim, masked_ssim_dycheck])
def test_masked_pixels_do_not_matter(metric):
    image, truth = pair(1)
    mask = np.zeros(truth.shape[:2], bool)
    mask[8:30, 10:35] = True
    other = np.where(mask[..., None], image, 0.3)
    assert metric(other, truth, mask) == pytest.approx(metric(image, truth, mask), abs=1e-12)


def test_masked_ssim_inside_equals_the_usual_one():
    """Windows that lie wholly inside the mask score as they do without one."""
    image, truth = pair(2)
    mask = np.zeros(truth.shape[:2], bool)
    mask[5:36, 5:46] = True
    cropped = masked_ssim(image[5:36, 5:46], truth[5:36, 5:46])
    inner = np.zeros_like(mask)
    inner[10:31, 10:41] = True
    assert masked_ssim(image, truth, inner) != pytest.approx(cropped)
    everything = np.ones_like(mask)
    assert masked_ssim(image[5:36, 5:46], truth[5:36, 5:46], everything[5:36, 5:46]) == cropped


def test_small_masks_inflate_the_ssim_of_dycheck_only():
    """Noise against noise: 0.00, 0.48 and 0.80 at 100, 50 and 20 % covisibility, as published."""
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 200, 200, 3))
    for share, expected in ((1.0, 0.004), (0.5, 0.482), (0.2, 0.797)):
        mask = np.zeros((200, 200), bool)
        mask[: int(200 * share)] = True
        # The published figures have other noise and another mask: two digits agree.
        assert masked_ssim_dycheck(a, b, mask) == pytest.approx(expected, abs=0.03)
        assert masked_ssim(a, b, mask) < 0.05


@pytest.mark.parametrize("metric", [masked_psnr, masked_ssim, masked_ssim_dycheck])
def test_degenerate_input(metric):
    image, truth = pair()
    assert np.isnan(metric(image, truth, np.zeros(truth.shape[:2], bool)))
    with pytest.raises(InputError, match="two"):
        metric(image[:-1], truth)
    with pytest.raises(InputError, match="mask"):
        metric(image, truth, np.ones((3, 3), bool))
    with pytest.raises(InputError, match="at least 11"):
        metric(image[:8], truth[:8])


def test_better_images_score_better():
    truth = pair()[1]
    for metric in (masked_psnr, masked_ssim, masked_ssim_dycheck):
        scores = [metric(pair(0, noise=n)[0], truth) for n in (0.05, 0.1, 0.3)]
        assert scores == sorted(scores, reverse=True)


def gaussian_taps():
    taps = [np.exp(-0.5 * ((i - 5) / 1.5) ** 2) for i in range(11)]
    return [tap / sum(taps) for tap in taps]


def ssim_of(moments):
    a, b, aa, bb, ab = moments
    va, vb = max(aa - a * a, 0), max(bb - b * b, 0)
    cov = np.sign(ab - a * b) * min(np.sqrt(va * vb), abs(ab - a * b))
    c1, c2 = 0.01**2, 0.03**2
    return (2 * a * b + c1) * (2 * cov + c2) / ((a * a + b * b + c1) * (va + vb + c2))


@pytest.mark.parametrize("seed", range(3))
def test_masked_ssim_agrees_with_plain_loops(seed):
    """DyCheck's two partial convolutions, rows first, and msdyn's jointly normalised windows."""
    rng = np.random.default_rng(seed)
    image, truth = rng.random((2, 15, 17, 1))
    mask = rng.random((15, 17)) < 0.4
    mask[:, :12] &= rng.random((15, 1)) < 0.3  # some windows are empty
    taps = gaussian_taps()
    products = [image, truth, image**2, truth**2, image * truth]
    partial, ours = [], []
    for y in range(5):
        for x in range(7):
            moments, whole = [], []
            for product in products:
                column, nonempty = [], []
                for row in range(y, y + 11):
                    inside = [x + k for k in range(11) if mask[row, x + k]]
                    total = sum(taps[c - x] * product[row, c, 0] for c in inside)
                    column.append(total * 11 / len(inside) if inside else 0)
                    nonempty.append(bool(inside))
                total = sum(t * value for t, value in zip(taps, column, strict=True))
                moments.append(total * 11 / sum(nonempty) if any(nonempty) else 0)
                window = [(j, i) for j in range(11) for i in range(11) if mask[y + j, x + i]]
                weight = sum(taps[j] * taps[i] for j, i in window)
                total = sum(taps[j] * taps[i] * product[y + j, x + i, 0] for j, i in window)
                whole.append(total / weight if window else 0)
            partial.append(ssim_of(moments))
            if mask[y + 5, x + 5]:
                ours.append(ssim_of(whole))
    assert masked_ssim_dycheck(image, truth, mask) == pytest.approx(np.mean(partial), abs=1e-12)
    assert masked_ssim(image, truth, mask) == pytest.approx(np.mean(ours), abs=1e-9)
