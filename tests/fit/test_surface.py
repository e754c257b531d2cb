"""Tangents of depth maps of planes and spheres, and Gaussians whose images are round."""

from __future__ import annotations

import numpy as np
import pytest

from msdyn.fit.surface import discs, surface_tangents

K = np.array([[90.0, 0, 31.0], [0, 80.0, 25.0], [0, 0, 1]])
HEIGHT, WIDTH = 48, 64


def all_tangents(depth, mask, intrinsics):
    pixels = np.arange(depth.size)
    return surface_tangents(depth, mask, intrinsics, pixels).reshape(*depth.shape, 3, 2)


def rays() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)


def plane(normal) -> np.ndarray:
    """Depth of the plane with this normal through a point 2 in front of the camera."""
    return 2 * normal[2] / (rays() @ np.asarray(normal, float))


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.4, -0.2, -1), (0, 0.9, -0.6)])
def test_tangents_of_a_plane_are_those_of_its_points(normal):
    depth = plane(normal)
    tangents = all_tangents(depth, np.zeros(depth.shape, int), K)
    inner = tangents[4:-4, 4:-4]
    assert np.abs(inner.swapaxes(-1, -2) @ np.asarray(normal, float)).max() < 2e-3 * depth.max()
    points = rays() * depth[..., None]
    across = (points[:, 2:] - points[:, :-2])[4:-4, 3:-3] / 2
    # The slopes of a few pixels are drawn to zero by 1 / 40.
    np.testing.assert_allclose(inner[..., 0], across, atol=0.04 * np.abs(across).max())


def test_tangents_of_a_sphere_are_orthogonal_to_its_radius():
    r, centre = rays(), np.array([0.0, 0.0, 3.0])
    b, c = r @ centre, centre @ centre - 1
    depth = (b - np.sqrt(np.maximum(b**2 - (r**2).sum(-1) * c, 0))) / (r**2).sum(-1)
    hit = b**2 - (r**2).sum(-1) * c > 0.05
    tangents = all_tangents(np.where(hit, depth, 0), hit.astype(int), K)
    normal = r * depth[..., None] - centre
    unit = tangents / np.maximum(np.linalg.norm(tangents, axis=-2, keepdims=True), 1e-12)
    facing = hit & (-(normal * r).sum(-1) / np.linalg.norm(r, axis=-1) > 0.6)
    cosine = np.abs((unit * normal[..., None]).sum(-2))[facing]
    assert facing.sum() > 400 and np.quantile(cosine, 0.95) < 0.06


def test_surfaces_do_not_mix_across_steps_and_masks():
    """Two planes parallel to the image, a step apart or of two masks: no slope at the border."""
    depth = np.full((HEIGHT, WIDTH), 2.0)
    depth[:, 32:] = 3.0
    none = np.zeros(depth.shape, int)
    flat = np.zeros((HEIGHT, WIDTH, 2))
    far = all_tangents(depth, none, K)
    assert np.abs(far[..., 2, :]).max() < 0.1 * far[0, 0, 0, 0]  # a tenth of the lateral one
    depth[:, 32:] = 2.02
    masks = none.copy()
    masks[:, 32:] = 1
    np.testing.assert_allclose(all_tangents(depth, masks, K)[..., 2, :], flat, atol=1e-12)
    assert np.abs(all_tangents(depth, none, K)[..., 2, :]).max() > 1e-3


def test_unknown_depth_has_no_tangents_and_lone_pixels_face_the_camera():
    depth = np.zeros((HEIGHT, WIDTH))
    depth[20, 30] = 4.0
    tangents = all_tangents(depth, np.zeros(depth.shape, int), K)
    assert not tangents[depth == 0].any()
    np.testing.assert_allclose(tangents[20, 30], 4 * np.array([[1 / 90, 0], [0, 1 / 80], [0, 0]]))


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.4, -0.2, -1), (0.5, 0.5, -0.6)])
def test_images_of_discs_are_round(normal):
    depth = plane(normal)
    tangents = all_tangents(depth, np.zeros(depth.shape, int), K)[8:-8:8, 8:-8:8]
    found = discs(tangents.reshape(-1, 3, 2))
    points = (rays() * depth[..., None])[8:-8:8, 8:-8:8].reshape(-1, 3)
    x, y, z = points.T
    zero = np.zeros_like(z)
    jacobian = np.stack(
        [
            np.stack([K[0, 0] / z, zero, -K[0, 0] * x / z**2], -1),
            np.stack([zero, K[1, 1] / z, -K[1, 1] * y / z**2], -1),
        ],
        1,
    )
    unit = np.linalg.svd(tangents.reshape(-1, 3, 2))[1][:, 1]  # of one px
    axes = jacobian @ (found.rotations * (unit[:, None] * found.scales)[:, None])[..., :2]
    covariance = axes @ axes.swapaxes(1, 2)
    np.testing.assert_allclose(covariance, np.eye(2).repeat(len(z)).reshape(2, 2, -1).T, atol=0.15)
    np.testing.assert_allclose(np.linalg.det(found.rotations), 1)
    cosine = found.rotations[:, :, 2] @ np.asarray(normal) / np.linalg.norm(normal)
    assert np.abs(cosine).min() > 0.999


def test_discs_of_grazing_or_missing_surfaces_are_bounded():
    tangents = np.zeros((3, 3, 2))
    tangents[0, 0, 0] = tangents[0, 1, 1] = 1e-3
    tangents[0, 2, 0] = 1.0
    tangents[1, 0, 0] = 1e-3
    found = discs(tangents)
    assert found.scales.max() <= 4 and np.isfinite(found.rotations).all()
