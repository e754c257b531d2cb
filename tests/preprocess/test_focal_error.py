"""The error stated of a focal length, against a dense solution and against planted errors."""

from dataclasses import replace

import numpy as np
import pytest
from cards import placed
from scipy.optimize import approx_fprime, least_squares
from scipy.spatial.transform import Rotation

from msdyn.preprocess.contracts import SparsePoints
from msdyn.preprocess.multiview.focal_error import _step, focal_error

FOCAL, CENTRE = 250.0, (160.0, 120.0)


def observed(frames, points, noise, seed, focals=None, reach=2.0):
    """Return cameras [T, 4, 4] on an arc, and points with the observations of a pinhole camera."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-reach / 2, reach / 2, frames)
    world_from_cam = np.concatenate([placed(a, 0.1 * a * a, 0.2 * a, yaw=-12 * a) for a in x])
    cam_from_world = np.linalg.inv(world_from_cam)
    xyz = rng.uniform([-2, -1.5, 2], [2, 1.5, 6], (points, 3))
    local = xyz @ cam_from_world[:, :3, :3].swapaxes(1, 2) + cam_from_world[:, None, :3, 3]
    focal = np.full(frames, FOCAL) if focals is None else np.asarray(focals)
    xy = focal[:, None, None] * local[..., :2] / local[..., 2:] + CENTRE
    xy += rng.normal(0, noise, xy.shape) if noise else 0
    frame, point = np.indices((frames, points)).reshape(2, -1)
    return cam_from_world, SparsePoints(xyz, point, frame, xy.reshape(-1, 2).astype(np.float32))


def adjusted(cam_from_world, points, focal):
    """Return the focal length, poses and points of least squares, of all parameters together."""
    frames, count = len(cam_from_world), len(points.xyz)

    def unpack(x):
        turn = Rotation.from_rotvec(x[1 : 1 + 3 * frames].reshape(-1, 3)).as_matrix()
        poses = np.tile(np.eye(4), (frames, 1, 1))
        poses[:, :3, :3] = turn @ cam_from_world[:, :3, :3]
        poses[:, :3, 3] = x[1 + 3 * frames : 1 + 6 * frames].reshape(-1, 3)
        return np.exp(x[0]), poses, x[1 + 6 * frames :].reshape(count, 3)

    def residuals(x):
        f, poses, xyz = unpack(x)
        local = (poses[points.frame, :3, :3] @ xyz[points.point][..., None])[..., 0]
        local += poses[points.frame, :3, 3]
        return (f * local[:, :2] / local[:, 2:] + CENTRE - points.xy).ravel()

    start = np.concatenate(
        [
            [np.log(focal)],
            np.zeros(3 * frames),
            cam_from_world[:, :3, 3].ravel(),
            points.xyz.ravel(),
        ]
    )
    solved = least_squares(residuals, start, x_scale="jac", max_nfev=30)
    f, poses, xyz = unpack(solved.x)
    return f, poses, replace(points, xyz=xyz), residuals, solved


def test_step_and_variance_are_those_of_all_parameters_together():
    cam_from_world, points = observed(5, 24, 0.0, 0)
    # Residuals of one size: weights of the robust loss are then equal, and known.
    sign = np.random.default_rng(1).choice([-1.0, 1.0], points.xy.shape)
    points = replace(points, xy=(points.xy.astype(np.float64) + 0.1 * sign))
    step = _step(FOCAL, CENTRE, cam_from_world, points, np.ones(len(points.frame), bool))
    assert step is not None
    weight = (1 + 4) ** -0.5  # of a soft L1 loss of half the size of the residual
    _, _, _, residuals, _ = adjusted(cam_from_world, points, FOCAL)
    x = np.concatenate(
        [[np.log(FOCAL)], np.zeros(15), cam_from_world[:, :3, 3].ravel(), points.xyz.ravel()]
    )
    jacobian = np.asarray(approx_fprime(x, residuals, 1e-7))
    inverse = np.linalg.pinv(jacobian.T @ jacobian, rcond=1e-11)
    assert step.size == pytest.approx(-(inverse @ jacobian.T @ residuals(x))[0], rel=0.02)
    assert step.variance == pytest.approx(inverse[0, 0] / weight, rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_noise_alone_stays_within_the_error_stated(seed):
    f, poses, points, *_ = adjusted(*observed(12, 40, 0.3, seed), FOCAL)
    error = focal_error(f, CENTRE, poses, points)
    assert error is not None
    assert abs(np.log(f / FOCAL)) < error < 0.2


def test_parts_of_different_focal_lengths_are_noticed():
    """As of a lens that breathes: noise alone would state a twentieth of that."""
    focals = np.where(np.arange(12) < 6, 0.96, 1.04) * FOCAL
    exact = focal_error(FOCAL, CENTRE, *observed(12, 40, 0.05, 3))
    f, poses, points, *_ = adjusted(*observed(12, 40, 0.05, 3, focals), FOCAL)
    error = focal_error(f, CENTRE, poses, points)
    assert exact is not None and error is not None
    assert exact < 0.02 and error > 0.04


def test_a_part_in_which_the_camera_is_static_does_not_count():
    cam_from_world, points = observed(12, 40, 0.1, 4)
    still = np.concatenate([cam_from_world, np.tile(cam_from_world[-1:], (12, 1, 1))])
    rng = np.random.default_rng(0)
    last = points.frame == 11
    again = [
        replace(
            points,
            point=points.point[last],
            frame=np.full(last.sum(), 12 + i),
            xy=points.xy[last] + rng.normal(0, 0.1, (last.sum(), 2)).astype(np.float32),
        )
        for i in range(12)
    ]
    joined = replace(
        points,
        point=np.concatenate([points.point, *(p.point for p in again)]),
        frame=np.concatenate([points.frame, *(p.frame for p in again)]),
        xy=np.concatenate([points.xy, *(p.xy for p in again)]),
    )
    alone = focal_error(FOCAL, CENTRE, cam_from_world, points)
    longer = focal_error(FOCAL, CENTRE, still, joined)
    assert alone is not None and longer is not None and longer < 2 * alone


def test_too_short_or_too_few():
    cam_from_world, points = observed(5, 40, 0.1, 0)
    assert focal_error(FOCAL, CENTRE, cam_from_world, points) is None
    assert focal_error(FOCAL, CENTRE, *observed(12, 10, 0.1, 0)) is None
