"""CPU kernels that project Gaussians into images, forward and backward, sixteen at a time.

With x the mean in camera coordinates, R the rotation of the camera, Q and s the Gaussian's rotation
and scales, and u = x_0 / x_2, v = x_1 / x_2 held to the view and 15 % of its size on each side:

    J = [[f_x / z, 0, -f_x u / z], [0, f_y / z, -f_y v / z]]
    A = J R,  P = A Q diag(s),  cov2d = P P^T + eps2d I,  conic = cov2d^-1

Vectors are tuples of three, `columns` the three columns of Q; a number is a `Lanes` value, or a
float64 where it is the camera's. An array that the cameras share has length one on its camera axis.

Reference: Zwicker et al., EWA Splatting, 2002; gsplat 1.5.3, `fully_fused_projection`, for the
clamp of u and v, for what is dropped and for the radii.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from msdyn.jit import kernel
from msdyn.raster.contract import ALPHA_CUT
from msdyn.raster.cpu.lanes import WIDTH, ceil, iota, log2, select, sqrt, total
from msdyn.raster.cpu.lanes_memory import load, load_column, scratch, store, store_column

__all__ = ["BLOCK", "project_backward", "project_forward"]

# Standard deviations; an opacity of one reaches the alpha cut just before, at 3.329.
_MAX_EXTENT = 3.33
# Gaussians a job. It is fixed, so that no sum depends on the number of threads.
BLOCK = 2048

_TWO_LN_2 = 2 * np.log(2)
_ONE = (0,)


@kernel()
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel()
def _combine(s, a, t, b):
    return s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]


@kernel()
def _times(a, b):
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@kernel()
def _load_vector(matrix, row, column):
    """Return columns `column` to `column + 2` of 16 rows of a matrix."""
    return (
        load_column(matrix, row, column),
        load_column(matrix, row, column + 1),
        load_column(matrix, row, column + 2),
    )


@kernel()
def _load_quat(matrix, row):
    return (load_column(matrix, row, 0),) + _load_vector(matrix, row, 1)


@kernel()
def _store(matrix, row, drawn, values):
    """Write 16 rows of a matrix, zero where not drawn."""
    for i in range(len(values)):
        store_column(matrix, row, i, select(drawn, values[i], 0))


@kernel()
def _read_camera(intrinsics, cam_from_world):
    """Return (f_x, f_y, c_x, c_y), the rows of R, and the translation of one camera in float64."""
    focal_and_centre = (
        np.float64(intrinsics[0, 0]),
        np.float64(intrinsics[1, 1]),
        np.float64(intrinsics[0, 2]),
        np.float64(intrinsics[1, 2]),
    )
    pose = cam_from_world.astype(np.float64)
    rows = (
        (pose[0, 0], pose[0, 1], pose[0, 2]),
        (pose[1, 0], pose[1, 1], pose[1, 2]),
        (pose[2, 0], pose[2, 1], pose[2, 2]),
    )
    return focal_and_centre, rows, (pose[0, 3], pose[1, 3], pose[2, 3])


@kernel()
def _unit_quat(w, x, y, z):
    """Return a quaternion divided by its length, and one over the length."""
    inverse_norm = 1 / sqrt(w * w + x * x + y * y + z * z)
    return w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm, inverse_norm


@kernel()
def _columns(w, x, y, z):
    """Return the columns of the rotation matrix of a unit quaternion."""
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    )


@kernel()
def _hold(u, focal, centre, size):
    """Hold x / z (or y / z) to the view and 15 % of its size more on each side."""
    margin = 0.15 * size / focal
    low, high = -centre / focal - margin, (size - centre) / focal + margin
    return select(u < low, low, select(u > high, high, u))


@kernel()
def _footprint(camera, rows, translation, mean, quat, scale, size, eps2d):
    """Return what both passes need of a Gaussian: position, frame and cov2d."""
    fx, fy, cx, cy = camera
    z = _dot(rows[2], mean) + translation[2]
    over_z = 1 / z
    x_over_z = (_dot(rows[0], mean) + translation[0]) * over_z
    y_over_z = (_dot(rows[1], mean) + translation[1]) * over_z
    u, v = _hold(x_over_z, fx, cx, size[0]), _hold(y_over_z, fy, cy, size[1])
    unit_quat = _unit_quat(*quat)
    columns = _columns(*unit_quat[:4])
    j00, j11 = fx * over_z, fy * over_z
    j02, j12 = 0 - j00 * u, 0 - j11 * v
    a, b = _combine(j00, rows[0], j02, rows[2]), _combine(j11, rows[1], j12, rows[2])
    along_a = (_dot(a, columns[0]), _dot(a, columns[1]), _dot(a, columns[2]))
    along_b = (_dot(b, columns[0]), _dot(b, columns[1]), _dot(b, columns[2]))
    p, q = _times(scale, along_a), _times(scale, along_b)
    # |p x q|^2 is the determinant of P P^T without the cancellation of the usual formula.
    cross = (p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0])
    pp, pq, qq = _dot(p, p), _dot(p, q), _dot(q, q)
    determinant = _dot(cross, cross) + eps2d * (pp + qq + eps2d)
    position = (x_over_z, y_over_z, z, over_z, u, v)
    frame = (unit_quat, columns, a, b, (j00, j02, j11, j12), along_a, along_b, p, q)
    return position, frame, (pp + eps2d, pq, qq + eps2d, determinant)


@kernel(parallel=True)
def project_forward(
    means, quats, scales, opacities, intrinsics, cam_from_world, size, near, far, eps2d, outputs
):
    """Project Gaussians into images.

    A Gaussian that is not drawn gets zeros: nearer than `near`, beyond `far`, nowhere above the
    alpha cut, wholly outside the image, of a quaternion of length zero, or not finite.

    Args:
        means: [C or 1, G, 3] world positions.
        quats: [C or 1, G, 4] wxyz.
        scales: [G, 3].
        opacities: [G, 1].
        intrinsics: [C, 3, 3].
        cam_from_world: [C, 4, 4].
        size: (width, height) px.
        near: least z-depth.
        far: greatest z-depth.
        eps2d: px^2.
        outputs: arrays to fill: means2d [C, G, 2] px, conics [C, G, 3] (entries 00, 01, 11),
            depths [C, G, 1], extents [C, G, 2] px, half the sides of the box outside of which
            alpha is below the cut.
    """
    means2d, conics, depths, extents = outputs
    count = scales.shape[0]
    blocks = (count + BLOCK - 1) // BLOCK
    for job in prange(blocks * intrinsics.shape[0]):
        c, first = job // blocks, job % blocks * BLOCK
        camera, rows, translation = _read_camera(intrinsics[c], cam_from_world[c])
        fx, fy, cx, cy = camera
        width, height = size
        for g in range(first, min(count, first + BLOCK), WIDTH):
            position, _, covariance = _footprint(
                camera,
                rows,
                translation,
                _load_vector(means[c % means.shape[0]], g, 0),
                _load_quat(quats[c % quats.shape[0]], g),
                _load_vector(scales, g, 0),
                size,
                eps2d,
            )
            x_over_z, y_over_z, z, _, _, _ = position
            xx, xy, yy, determinant = covariance
            opacity = load_column(opacities, g, 0)
            px, py = fx * x_over_z + cx, fy * y_over_z + cy
            # alpha falls to the cut at half a squared distance of ln(opacity / cut).
            extent = sqrt(_TWO_LN_2 * log2(opacity * (1 / ALPHA_CUT)))
            extent = select(extent < _MAX_EXTENT, extent, _MAX_EXTENT)
            extent_x, extent_y = extent * sqrt(xx), extent * sqrt(yy)
            # Written so that NaN fails.
            drawn = (z >= near) & (z <= far) & (opacity >= ALPHA_CUT) & (opacity < np.inf)
            drawn = drawn & (determinant > 0) & (determinant < np.inf)
            drawn = drawn & (extent_x > 0) & (extent_y > 0)
            drawn = drawn & (px + ceil(extent_x) > 0) & (px - ceil(extent_x) < width)
            drawn = drawn & (py + ceil(extent_y) > 0) & (py - ceil(extent_y) < height)
            over = 1 / determinant
            _store(means2d[c], g, drawn, (px, py))
            _store(conics[c], g, drawn, (yy * over, 0 - xy * over, xx * over))
            _store(depths[c], g, drawn, (z,))
            _store(extents[c], g, drawn, (extent_x, extent_y))


@kernel(parallel=True)
def project_backward(
    means,
    quats,
    scales,
    intrinsics,
    cam_from_world,
    size,
    eps2d,
    extents,
    upstream,
    outputs,
    cameras_too,
):
    """Carry gradients back through `project_forward`; Gaussians that were not drawn get zeros.

    Args:
        means: and the next six as in `project_forward`.
        extents: [C, G, 2], as filled by it.
        upstream: gradients of means2d, conics and depths.
        outputs: gradients to fill: means [C, G, 3], quats [C, G, 4], scales [C, G, 3]; and of the
            cameras [C, blocks, 16], to be summed over blocks: R by rows, translation, f_x, f_y,
            c_x, c_y.
        cameras_too: fill the last one.
    """
    grad_means2d, grad_conics, grad_depths = upstream
    grad_means, grad_quats, grad_scales, grad_cameras = outputs
    count = scales.shape[0]
    blocks = (count + BLOCK - 1) // BLOCK
    for job in prange(blocks * intrinsics.shape[0]):
        c, first = job // blocks, job % blocks * BLOCK
        camera, rows, translation = _read_camera(intrinsics[c], cam_from_world[c])
        fx, fy, _, _ = camera
        sums = scratch(16, _ONE)
        for i in range(16):
            store(sums, i * WIDTH, 0 * iota())
        for g in range(first, min(count, first + BLOCK), WIDTH):
            mean, s = _load_vector(means[c % means.shape[0]], g, 0), _load_vector(scales, g, 0)
            quat = _load_quat(quats[c % quats.shape[0]], g)
            position, frame, (xx, xy, yy, determinant) = _footprint(
                camera, rows, translation, mean, quat, s, size, eps2d
            )
            x_over_z, y_over_z, z, over_z, u, v = position
            unit_quat, columns, a, b, (j00, j02, j11, j12), along_a, along_b, p, q = frame
            w, qx, qy, qz, inverse_norm = unit_quat

            # conic = cov2d^-1: the gradient V of cov2d is -conic G conic, with G symmetric.
            over = 1 / determinant
            c00, c01, c11 = yy * over, 0 - xy * over, xx * over
            g00, g01, g11 = _load_vector(grad_conics[c], g, 0)
            g01 = 0.5 * g01
            left0, left1 = c00 * g00 + c01 * g01, c00 * g01 + c01 * g11
            right0, right1 = c01 * g00 + c11 * g01, c01 * g01 + c11 * g11
            v00 = 0 - (left0 * c00 + left1 * c01)
            v01 = 0 - (left0 * c01 + left1 * c11)
            v11 = 0 - (right0 * c01 + right1 * c11)

            # cov2d = P P^T + eps2d I, with rows p and q of P; P = [a; b] Q diag(s).
            grad_p, grad_q = _combine(2 * v00, p, 2 * v01, q), _combine(2 * v01, p, 2 * v11, q)
            sp, sq = _times(s, grad_p), _times(s, grad_q)
            scale_gradient = (
                grad_p[0] * along_a[0] + grad_q[0] * along_b[0],
                grad_p[1] * along_a[1] + grad_q[1] * along_b[1],
                grad_p[2] * along_a[2] + grad_q[2] * along_b[2],
            )

            # The columns of Q's gradient; `m10` is its entry in row 1 and column 0.
            m00, m10, m20 = _combine(sp[0], a, sq[0], b)
            m01, m11, m21 = _combine(sp[1], a, sq[1], b)
            m02, m12, m22 = _combine(sp[2], a, sq[2], b)
            gw = 2 * (qx * (m21 - m12) + qy * (m02 - m20) + qz * (m10 - m01))
            gx = 2 * (w * (m21 - m12) + qy * (m01 + m10) + qz * (m02 + m20) - 2 * qx * (m11 + m22))
            gy = 2 * (w * (m02 - m20) + qx * (m01 + m10) + qz * (m12 + m21) - 2 * qy * (m00 + m22))
            gz = 2 * (w * (m10 - m01) + qx * (m02 + m20) + qy * (m12 + m21) - 2 * qz * (m00 + m11))
            # The length of a quaternion has no effect.
            radial = gw * w + gx * qx + gy * qy + gz * qz

            # A = J R.
            grad_a = _combine(1, _combine(sp[0], columns[0], sp[1], columns[1]), sp[2], columns[2])
            grad_b = _combine(1, _combine(sq[0], columns[0], sq[1], columns[1]), sq[2], columns[2])
            h00, h02 = _dot(grad_a, rows[0]), _dot(grad_a, rows[2])
            h11, h12 = _dot(grad_b, rows[1]), _dot(grad_b, rows[2])

            # J and the mean in the image, by the position in camera coordinates. Where u is held,
            # it has no gradient to the position: there it differs from x / z.
            grad_px = load_column(grad_means2d[c], g, 0)
            grad_py = load_column(grad_means2d[c], g, 1)
            grad_u, grad_v = 0 - j00 * h02, 0 - j11 * h12
            free_u = (u >= x_over_z) & (u <= x_over_z)
            free_v = (v >= y_over_z) & (v <= y_over_z)
            grad_x = (fx * grad_px + select(free_u, grad_u, 0)) * over_z
            grad_y = (fy * grad_py + select(free_v, grad_v, 0)) * over_z
            grad_z = load_column(grad_depths[c], g, 0) - x_over_z * grad_x - y_over_z * grad_y
            grad_z = grad_z - (j00 * h00 + j02 * h02 + j11 * h11 + j12 * h12) * over_z
            mean_gradient = _combine(1, _combine(grad_x, rows[0], grad_y, rows[1]), grad_z, rows[2])

            drawn = load_column(extents[c], g, 0) > 0
            quat_gradient = (
                (gw - radial * w) * inverse_norm,
                (gx - radial * qx) * inverse_norm,
                (gy - radial * qy) * inverse_norm,
                (gz - radial * qz) * inverse_norm,
            )
            _store(grad_means[c], g, drawn, mean_gradient)
            _store(grad_quats[c], g, drawn, quat_gradient)
            _store(grad_scales[c], g, drawn, scale_gradient)

            if cameras_too:
                # The bounds of u and v are proportional to 1 / f and move with the centre.
                held_u, held_v = select(free_u, 0, grad_u) / fx, select(free_v, 0, grad_v) / fy
                values = (
                    _combine(grad_x, mean, j00, grad_a)
                    + _combine(grad_y, mean, j11, grad_b)
                    + _combine(1, _combine(grad_z, mean, j02, grad_a), j12, grad_b)
                    + (grad_x, grad_y, grad_z)
                    + (
                        x_over_z * grad_px + (j00 * h00 + j02 * h02) / fx - held_u * u,
                        y_over_z * grad_py + (j11 * h11 + j12 * h12) / fy - held_v * v,
                        grad_px - held_u,
                        grad_py - held_v,
                    )
                )
                for i in range(16):
                    store(sums, i * WIDTH, load(sums, i * WIDTH) + select(drawn, values[i], 0))
        for i in range(16):
            grad_cameras[c, job % blocks, i] = total(load(sums, i * WIDTH))
