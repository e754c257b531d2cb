"""CPU kernels that project Gaussians into images, forward and backward, 16 Gaussians at a time.

With (x, y, z) the mean in camera coordinates, R the rotation of the camera, Q and s the rotation
and scales of the Gaussian, u = x / z and v = y / z clamped to the view, which is extended by 15 %
of the image size on each side:

    J = [[f_x / z, 0, -f_x u / z], [0, f_y / z, -f_y v / z]]
    A = J R,  P = A Q diag(s),  cov2d = P P^T + eps2d I,  conic = cov2d^-1

The symbols p and q are the rows of P, a and b the rows of A, `columns` the columns of Q. Vectors
are tuples of three. Their entries are `Lanes` values, one lane per Gaussian, or float64 scalars for
quantities of the camera. Arrays that all cameras share have length one on their camera axis.

Reference: Zwicker et al., EWA Splatting, 2002; gsplat 1.5.3, `fully_fused_projection`, for the
clamp of u and v, the culling and the radii.
"""

from __future__ import annotations

import numpy as np

from msdyn.jit import kernel
from msdyn.raster.contract import ALPHA_CUT
from msdyn.raster.cpu.lanes import WIDTH, ceil, iota, log2, reduce_sum, select, sqrt
from msdyn.raster.cpu.lanes_memory import load, load_rows, scratch, store, store_rows
from msdyn.raster.cpu.lanes_vectors import cross, dot, lincomb

__all__ = ["BLOCK", "project_backward", "project_forward"]

# gsplat's limit, in standard deviations. It is just above 3.329, where alpha reaches the cut if the
# opacity is one.
_MAX_EXTENT = 3.33
# Gaussians per parallel job. It is constant, so that no sum depends on the number of threads.
BLOCK = 2048

_TWO_LN_2 = 2 * np.log(2)
# Makes `scratch` allocate one lanes value per row.
_ONE_CHANNEL = (0,)


@kernel()
def _multiply(a, b):
    """Return the elementwise product of two vectors."""
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@kernel()
def _read_camera(intrinsics, cam_from_world):
    """Return (f_x, f_y, c_x, c_y) px, the rows of R and the translation of a camera in float64."""
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
    """Return a quaternion wxyz divided by its norm, and the inverse of the norm."""
    inverse_norm = 1 / sqrt(w * w + x * x + y * y + z * z)
    return w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm, inverse_norm


@kernel()
def _rotation_columns(w, x, y, z):
    """Return the columns of the rotation matrix of a unit quaternion."""
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    )


@kernel()
def _clamp_to_view(u, focal, centre, size):
    """Clamp x / z (or y / z) to the view extended by 15 % of the image size on each side."""
    margin = 0.15 * size / focal
    low, high = -centre / focal - margin, (size - centre) / focal + margin
    return select(u < low, low, select(u > high, high, u))


@kernel()
def _project_gaussians(camera, rows, translation, mean, quat, scale, size, eps2d):
    """Project 16 Gaussians; return all that both passes need.

    Args:
        camera: (f_x, f_y, c_x, c_y) px.
        rows: of R.
        translation: of the camera.
        mean: in world coordinates.
        quat: wxyz, of any norm.
        scale: s.
        size: (width, height) px.
        eps2d: px^2.

    Returns:
        position: (x / z, y / z, z, 1 / z, u, v).
        factors: the unit quaternion and its inverse norm, the columns of Q, a, b, the entries
            (00, 02, 11, 12) of J, the rows of A Q (aq, bq), p and q.
        covariance: the entries (00, 01, 11) of cov2d, and its determinant.
    """
    fx, fy, cx, cy = camera
    z = dot(rows[2], mean) + translation[2]
    over_z = 1 / z
    x_over_z = (dot(rows[0], mean) + translation[0]) * over_z
    y_over_z = (dot(rows[1], mean) + translation[1]) * over_z
    u, v = _clamp_to_view(x_over_z, fx, cx, size[0]), _clamp_to_view(y_over_z, fy, cy, size[1])
    unit_quat = _unit_quat(*quat)
    columns = _rotation_columns(*unit_quat[:4])
    j00, j11 = fx * over_z, fy * over_z
    j02, j12 = 0 - j00 * u, 0 - j11 * v
    a, b = lincomb(j00, rows[0], j02, rows[2]), lincomb(j11, rows[1], j12, rows[2])
    aq = (dot(a, columns[0]), dot(a, columns[1]), dot(a, columns[2]))
    bq = (dot(b, columns[0]), dot(b, columns[1]), dot(b, columns[2]))
    p, q = _multiply(scale, aq), _multiply(scale, bq)
    # |p x q|^2 = det(P P^T), without the cancellation in |p|^2 |q|^2 - (p q)^2.
    normal = cross(p, q)
    pp, pq, qq = dot(p, p), dot(p, q), dot(q, q)
    determinant = dot(normal, normal) + eps2d * (pp + qq + eps2d)
    position = (x_over_z, y_over_z, z, over_z, u, v)
    factors = (unit_quat, columns, a, b, (j00, j02, j11, j12), aq, bq, p, q)
    return position, factors, (pp + eps2d, pq, qq + eps2d, determinant)


@kernel()
def project_forward(
    first_job,
    end_job,
    means,
    quats,
    scales,
    opacities,
    intrinsics,
    cam_from_world,
    size,
    near,
    far,
    eps2d,
    outputs,
):
    """Project Gaussians into images, those of the jobs `range(first_job, end_job)`.

    A job is a block of `BLOCK` Gaussians in one camera; there are C ceil(G / BLOCK) of them.

    A Gaussian is culled, all its outputs being zero, if it is nearer than `near` or beyond `far`,
    if its alpha is below the cut everywhere, if its bounding box is outside the image, if its
    quaternion is zero, or if its parameters are not finite.

    Args:
        first_job: the first job.
        end_job: the end of the range, exclusive.
        means: [C or 1, G, 3] world positions, scene units.
        quats: [C or 1, G, 4] wxyz, of any norm.
        scales: [G, 3] scene units.
        opacities: [C or 1, G, 1].
        intrinsics: [C, 3, 3] px.
        cam_from_world: [C, 4, 4].
        size: (width, height) px.
        near: minimum z-depth, scene units.
        far: maximum z-depth, scene units.
        eps2d: added to the diagonal of cov2d, px^2.
        outputs: arrays to fill: means2d [C, G, 2] px, conics [C, G, 3] px^-2 (entries 00, 01, 11),
            depths [C, G, 1] scene units, and extents [C, G, 2] px, half the width and height of the
            box outside of which alpha is below the cut.
    """
    means2d, conics, depths, extents = outputs
    count = scales.shape[0]
    blocks = (count + BLOCK - 1) // BLOCK
    for job in range(first_job, end_job):
        c, first = job // blocks, job % blocks * BLOCK
        camera, rows, translation = _read_camera(intrinsics[c], cam_from_world[c])
        fx, fy, cx, cy = camera
        width, height = size
        for g in range(first, min(count, first + BLOCK), WIDTH):
            position, _, covariance = _project_gaussians(
                camera,
                rows,
                translation,
                load_rows(means[c % means.shape[0]], g, 3),
                load_rows(quats[c % quats.shape[0]], g, 4),
                load_rows(scales, g, 3),
                size,
                eps2d,
            )
            x_over_z, y_over_z, z, _, _, _ = position
            xx, xy, yy, determinant = covariance
            opacity = load_rows(opacities[c % opacities.shape[0]], g, 1)[0]
            px, py = fx * x_over_z + cx, fy * y_over_z + cy
            # alpha equals the cut where half the squared Mahalanobis distance is ln(opacity / cut).
            extent = sqrt(_TWO_LN_2 * log2(opacity * (1 / ALPHA_CUT)))
            extent = select(extent < _MAX_EXTENT, extent, _MAX_EXTENT)
            extent_x, extent_y = extent * sqrt(xx), extent * sqrt(yy)
            # Comparisons with NaN are false, so NaN parameters cull the Gaussian.
            visible = (z >= near) & (z <= far) & (opacity >= ALPHA_CUT) & (opacity < np.inf)
            visible = visible & (determinant > 0) & (determinant < np.inf)
            visible = visible & (extent_x > 0) & (extent_y > 0)
            visible = visible & (px + ceil(extent_x) > 0) & (px - ceil(extent_x) < width)
            visible = visible & (py + ceil(extent_y) > 0) & (py - ceil(extent_y) < height)
            inverse = 1 / determinant
            store_rows(means2d[c], g, (px, py), visible)
            store_rows(conics[c], g, (yy * inverse, 0 - xy * inverse, xx * inverse), visible)
            store_rows(depths[c], g, (z,), visible)
            store_rows(extents[c], g, (extent_x, extent_y), visible)


@kernel()
def project_backward(
    first_job,
    end_job,
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
    with_cameras,
):
    """Compute the gradients of `project_forward`; those of culled Gaussians are zero.

    Args:
        first_job: `first_job`, `end_job`, `means`, `quats`, `scales`, `intrinsics`,
            `cam_from_world`, `size` and `eps2d` are those of `project_forward`.
        extents: [C, G, 2] px, as filled by `project_forward`; zero for culled Gaussians.
        upstream: gradients of means2d [C, G, 2], conics [C, G, 3] and depths [C, G, 1].
        outputs: gradients to fill: means [C, G, 3], quats [C, G, 4], scales [C, G, 3], and cameras
            [C, blocks, 16], which the caller sums over blocks: R row by row, translation, f_x, f_y,
            c_x, c_y.
        with_cameras: fill the gradients of the cameras too.
    """
    grad_means2d, grad_conics, grad_depths = upstream
    grad_means, grad_quats, grad_scales, grad_cameras = outputs
    count = scales.shape[0]
    blocks = (count + BLOCK - 1) // BLOCK
    for job in range(first_job, end_job):
        c, first = job // blocks, job % blocks * BLOCK
        camera, rows, translation = _read_camera(intrinsics[c], cam_from_world[c])
        fx, fy, _, _ = camera
        sums = scratch(16, _ONE_CHANNEL)
        for i in range(16):
            store(sums, i * WIDTH, 0 * iota())
        for g in range(first, min(count, first + BLOCK), WIDTH):
            mean, s = load_rows(means[c % means.shape[0]], g, 3), load_rows(scales, g, 3)
            quat = load_rows(quats[c % quats.shape[0]], g, 4)
            position, factors, (xx, xy, yy, determinant) = _project_gaussians(
                camera, rows, translation, mean, quat, s, size, eps2d
            )
            x_over_z, y_over_z, z, over_z, u, v = position
            unit_quat, columns, a, b, (j00, j02, j11, j12), aq, bq, p, q = factors
            w, qx, qy, qz, inverse_norm = unit_quat

            # conic = cov2d^-1: with G the symmetric gradient of the conic, that of cov2d is
            # V = -conic G conic. `cg` are the entries of conic G.
            inverse = 1 / determinant
            c00, c01, c11 = yy * inverse, 0 - xy * inverse, xx * inverse
            g00, g01, g11 = load_rows(grad_conics[c], g, 3)
            g01 = 0.5 * g01
            cg00, cg01 = c00 * g00 + c01 * g01, c00 * g01 + c01 * g11
            cg10, cg11 = c01 * g00 + c11 * g01, c01 * g01 + c11 * g11
            v00 = 0 - (cg00 * c00 + cg01 * c01)
            v01 = 0 - (cg00 * c01 + cg01 * c11)
            v11 = 0 - (cg10 * c01 + cg11 * c11)

            # cov2d = P P^T + eps2d I, with rows p and q of P; P = [a; b] Q diag(s).
            grad_p, grad_q = lincomb(2 * v00, p, 2 * v01, q), lincomb(2 * v01, p, 2 * v11, q)
            sp, sq = _multiply(s, grad_p), _multiply(s, grad_q)
            scale_gradient = (
                grad_p[0] * aq[0] + grad_q[0] * bq[0],
                grad_p[1] * aq[1] + grad_q[1] * bq[1],
                grad_p[2] * aq[2] + grad_q[2] * bq[2],
            )

            # The gradient of Q, column by column; `m10` is its entry in row 1 and column 0.
            m00, m10, m20 = lincomb(sp[0], a, sq[0], b)
            m01, m11, m21 = lincomb(sp[1], a, sq[1], b)
            m02, m12, m22 = lincomb(sp[2], a, sq[2], b)
            gw = 2 * (qx * (m21 - m12) + qy * (m02 - m20) + qz * (m10 - m01))
            gx = 2 * (w * (m21 - m12) + qy * (m01 + m10) + qz * (m02 + m20) - 2 * qx * (m11 + m22))
            gy = 2 * (w * (m02 - m20) + qx * (m01 + m10) + qz * (m12 + m21) - 2 * qy * (m00 + m22))
            gz = 2 * (w * (m10 - m01) + qx * (m02 + m20) + qy * (m12 + m21) - 2 * qz * (m00 + m11))
            # The norm of the quaternion has no effect: remove the component along it.
            radial = gw * w + gx * qx + gy * qy + gz * qz

            # A = J R: the gradients of a and b, and of the entries 00, 02, 11 and 12 of J.
            grad_a = lincomb(1, lincomb(sp[0], columns[0], sp[1], columns[1]), sp[2], columns[2])
            grad_b = lincomb(1, lincomb(sq[0], columns[0], sq[1], columns[1]), sq[2], columns[2])
            h00, h02 = dot(grad_a, rows[0]), dot(grad_a, rows[2])
            h11, h12 = dot(grad_b, rows[1]), dot(grad_b, rows[2])

            # J and the projected mean depend on the position in camera coordinates. Where u is
            # clamped, that is where it differs from x / z, it has no gradient to the position.
            grad_px, grad_py = load_rows(grad_means2d[c], g, 2)
            grad_u, grad_v = 0 - j00 * h02, 0 - j11 * h12
            free_u = (u >= x_over_z) & (u <= x_over_z)
            free_v = (v >= y_over_z) & (v <= y_over_z)
            grad_x = (fx * grad_px + select(free_u, grad_u, 0)) * over_z
            grad_y = (fy * grad_py + select(free_v, grad_v, 0)) * over_z
            grad_z = load_rows(grad_depths[c], g, 1)[0] - x_over_z * grad_x - y_over_z * grad_y
            grad_z = grad_z - (j00 * h00 + j02 * h02 + j11 * h11 + j12 * h12) * over_z
            mean_gradient = lincomb(1, lincomb(grad_x, rows[0], grad_y, rows[1]), grad_z, rows[2])

            visible = load_rows(extents[c], g, 2)[0] > 0
            quat_gradient = (
                (gw - radial * w) * inverse_norm,
                (gx - radial * qx) * inverse_norm,
                (gy - radial * qy) * inverse_norm,
                (gz - radial * qz) * inverse_norm,
            )
            store_rows(grad_means[c], g, mean_gradient, visible)
            store_rows(grad_quats[c], g, quat_gradient, visible)
            store_rows(grad_scales[c], g, scale_gradient, visible)

            if with_cameras:
                # Where u is clamped it equals a bound that is proportional to 1 / f_x and that a
                # change of c_x shifts by -1 / f_x times the change.
                bound_u = select(free_u, 0, grad_u) / fx
                bound_v = select(free_v, 0, grad_v) / fy
                values = (
                    lincomb(grad_x, mean, j00, grad_a)
                    + lincomb(grad_y, mean, j11, grad_b)
                    + lincomb(1, lincomb(grad_z, mean, j02, grad_a), j12, grad_b)
                    + (grad_x, grad_y, grad_z)
                    + (
                        x_over_z * grad_px + (j00 * h00 + j02 * h02) / fx - bound_u * u,
                        y_over_z * grad_py + (j11 * h11 + j12 * h12) / fy - bound_v * v,
                        grad_px - bound_u,
                        grad_py - bound_v,
                    )
                )
                for i in range(16):
                    store(sums, i * WIDTH, load(sums, i * WIDTH) + select(visible, values[i], 0))
        for i in range(16):
            grad_cameras[c, job % blocks, i] = reduce_sum(load(sums, i * WIDTH))
