"""Cameras that only rotate: rotations and focal length from tracks, and the residual parallax.

For a camera that rotates about its centre, pixels of two frames are related by `K R_b R_a^T K^-1`
whatever the depth. Fitting that to tracks by Gauss-Newton gives the rotations and the focal length;
the residual is the parallax, from which depth can be triangulated. So this small problem separates
rotating from moving cameras before structure from motion is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from msdyn.geometry import Cameras
from msdyn.scene import Tracks

__all__ = ["RotationSolution", "rotation_parallax", "solve_rotations"]

GAPS = (1, 2, 4, 8, 16, 32, 64)
PAIR_TRACKS = 120  # tracks used of each pair of frames
MIN_PAIR_TRACKS = 20
SOFT_PX = 1.0  # scale of the Cauchy loss
ITERATIONS = 40
BLOCK = 100  # pairs at a time, so that memory does not grow with the clip: a match takes 1 KB
FOCAL_PRIOR = 0.5  # standard deviation of the focal length about its guess, as a share of it


@dataclass(frozen=True)
class RotationSolution:
    """Rotations and one focal length, and how well they explain the tracks.

    Attributes:
        focal: px.
        rotations: [T, 3, 3] `cam_from_first`, the first the identity.
        error: px, median residual over all pairs of frames.
        parallax: degrees, the residual as an angle: its 80th percentile over the tracks, at the
            gap of frames where that is largest. At a focal length of at most the guess: a longer
            one, which a clip that does not rotate may give, makes any residual a small angle.
        angle: degrees, the same at the focal length found.
    """

    focal: float
    rotations: Float[np.ndarray, "frames 3 3"]
    error: float
    parallax: float
    angle: float


@dataclass(frozen=True)
class _Pairs:
    """Matched pixels, relative to the image centre, grouped by pair of frames.

    Attributes:
        first, second: [R] frames of each pair.
        start: [R] index of its first match.
        pair: [M] the pair of each match.
        a, b: [M, 2] px in the first and the second frame.
    """

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    start: Int[np.ndarray, " pairs"]
    pair: Int[np.ndarray, " matches"]
    a: Float[np.ndarray, "matches 2"]
    b: Float[np.ndarray, "matches 2"]


def solve_rotations(
    tracks: Tracks, intrinsics: Float[np.ndarray, "3 3"], seed: int = 0, *, fixed: bool = False
) -> RotationSolution | None:
    """Fit a rotating camera to static tracks; None where no two frames share enough of them.

    Args:
        tracks: tracks of static points, px.
        intrinsics: [3, 3], px; the focal length is a weak prior, for cameras that hardly rotate.
        seed: of the choice of tracks.
        fixed: the focal length is known.
    """
    focal_guess = float(intrinsics[0, 0])
    pairs = _match_pairs(tracks, intrinsics, seed)
    if pairs is None:
        return None
    frames = tracks.num_frames
    focal = focal_guess
    rotations = _chain(pairs, frames, focal)
    for _ in range(ITERATIONS):
        step = _step(pairs, rotations, focal, focal_guess, fixed=fixed)
        rotations = _exp(step[:-1].reshape(-1, 3)) @ rotations
        change = 0.0 if fixed else float(np.clip(step[-1], -0.2, 0.2))
        focal *= np.exp(change)
        if np.abs(step[:-1]).max() < 1e-7 and abs(change) < 1e-6:
            break
    error, residual = _errors(pairs, rotations, focal)
    shortest = min(focal, focal_guess)
    parallax, angle = (float(np.degrees(np.arctan(residual / f))) for f in (shortest, focal))
    return RotationSolution(float(focal), rotations @ rotations[0].T, error, parallax, angle)


def rotation_parallax(tracks: Tracks, cameras: Cameras, seed: int = 0) -> float | None:
    """Return the parallax, as of a `RotationSolution`, that given rotations leave.

    Args:
        tracks: tracks of static points, px.
        cameras: one per frame; their mean focal length and principal point are used.
        seed: of the choice of tracks.

    Returns:
        Degrees; None where no two frames share enough tracks.
    """
    mean = cameras.intrinsics.mean(0)
    pairs = _match_pairs(tracks, mean, seed)
    if pairs is None:
        return None
    rotations = cameras.cam_from_world[:, :3, :3]
    focal = float(mean[0, 0])
    return float(np.degrees(np.arctan(_errors(pairs, rotations, focal)[1] / focal)))


def _errors(
    pairs: _Pairs, rotations: Float[np.ndarray, "frames 3 3"], focal: float
) -> tuple[float, float]:
    """Return the error and the parallax of a `RotationSolution`, both in px."""
    residuals = [_residual(block, rotations, focal)[0] for block in _blocks(pairs)]
    error = np.linalg.norm(np.concatenate(residuals), axis=1)
    gap = (pairs.second - pairs.first)[pairs.pair]
    parallax = max(float(np.percentile(error[gap == g], 80)) for g in np.unique(gap))
    return float(np.median(error)), parallax


def _match_pairs(tracks: Tracks, intrinsics: Float[np.ndarray, "3 3"], seed: int) -> _Pairs | None:
    """Return positions of tracks in pairs of frames, None where no two frames share enough.

    Rows are scaled to the focal length along the columns.
    """
    centre = intrinsics[:2, 2]
    scale = np.array([1.0, intrinsics[0, 0] / intrinsics[1, 1]])
    rng = np.random.default_rng(seed)
    frames = tracks.num_frames
    first, second, rows = [], [], []
    for gap in GAPS:
        for a in range(0, frames - gap, max(1, gap // 2)):
            shared, _, _ = tracks.between(a, a + gap)
            if len(shared) < MIN_PAIR_TRACKS:
                continue
            if len(shared) > PAIR_TRACKS:
                shared = rng.choice(shared, PAIR_TRACKS, replace=False)
            first.append(a)
            second.append(a + gap)
            rows.append(shared)
    if not rows:
        return None
    number = np.array([len(r) for r in rows])
    pair = np.repeat(np.arange(len(rows)), number)
    index = np.concatenate(rows)
    first, second = np.array(first), np.array(second)
    return _Pairs(
        first,
        second,
        np.cumsum(number) - number,
        pair,
        (tracks.look_up(index, first[pair])[0].astype(np.float64) - centre) * scale,
        (tracks.look_up(index, second[pair])[0].astype(np.float64) - centre) * scale,
    )


def _blocks(pairs: _Pairs) -> Iterator[_Pairs]:
    """Yield blocks of the pairs, one after another."""
    ends = np.append(pairs.start[1:], len(pairs.pair))
    for first in range(0, len(pairs.start), BLOCK):
        block = slice(first, first + BLOCK)
        matches = slice(pairs.start[first], ends[block][-1])
        yield _Pairs(
            pairs.first[block],
            pairs.second[block],
            pairs.start[block] - pairs.start[first],
            pairs.pair[matches] - first,
            pairs.a[matches],
            pairs.b[matches],
        )


def _chain(pairs: _Pairs, frames: int, focal: float) -> Float[np.ndarray, "frames 3 3"]:
    """Return initial rotations [T, 3, 3], chained over neighbouring frames."""
    from scipy.spatial.transform import Rotation

    rotations = np.tile(np.eye(3), (frames, 1, 1))
    step = {}
    for k in np.flatnonzero(pairs.second - pairs.first == 1):
        matches = pairs.pair == k
        a, b = _rays(pairs.a[matches], focal), _rays(pairs.b[matches], focal)
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
        step[int(pairs.first[k])] = Rotation.align_vectors(b, a)[0].as_matrix()
    for frame in range(frames - 1):
        rotations[frame + 1] = step.get(frame, np.eye(3)) @ rotations[frame]
    return rotations


def _rays(offset: Float[np.ndarray, "matches 2"], focal: float) -> Float[np.ndarray, "matches 3"]:
    """Return viewing rays [M, 3] of unit depth, of pixels [M, 2] relative to the image centre."""
    return np.concatenate([offset / focal, np.ones((len(offset), 1))], axis=1)


def _residual(
    pairs: _Pairs, rotations: Float[np.ndarray, "frames 3 3"], focal: float
) -> tuple[
    Float[np.ndarray, "matches 2"], Float[np.ndarray, "matches 3"], Float[np.ndarray, "matches 3 3"]
]:
    """Return the residuals [M, 2] px, the rotated rays [M, 3] and the relative rotations."""
    relative = (rotations[pairs.second] @ rotations[pairs.first].swapaxes(1, 2))[pairs.pair]
    rotated = (relative @ _rays(pairs.a, focal)[..., None])[..., 0]
    return focal * rotated[:, :2] / rotated[:, 2:] - pairs.b, rotated, relative


def _step(
    pairs: _Pairs,
    rotations: Float[np.ndarray, "frames 3 3"],
    focal: float,
    focal_guess: float,
    *,
    fixed: bool,
) -> Float[np.ndarray, " parameters"]:
    """Return a Gauss-Newton step [3 T + 1]: rotation vectors (from the left), log focal length."""
    parts = [_normal_equations(block, rotations, focal) for block in _blocks(pairs)]
    hessians, gradients = (np.concatenate(part) for part in zip(*parts, strict=True))

    size = 3 * len(rotations) + 1
    columns = np.concatenate(
        [
            3 * pairs.first[:, None] + np.arange(3),
            3 * pairs.second[:, None] + np.arange(3),
            np.full((len(pairs.first), 1), size - 1),
        ],
        axis=1,
    )
    hessian, gradient = np.zeros((size, size)), np.zeros(size)
    np.add.at(hessian, (columns[:, :, None], columns[:, None, :]), hessians)
    np.add.at(gradient, columns, gradients)
    hessian[:3, :3] += 1e9 * np.eye(3)  # the first camera is fixed
    hessian[-1, -1] += 1e12 if fixed else FOCAL_PRIOR**-2
    gradient[-1] += FOCAL_PRIOR**-2 * np.log(focal / focal_guess)
    diagonal = np.arange(size)
    hessian[diagonal, diagonal] += 1e-6 * hessian[diagonal, diagonal] + 1e-9
    return -np.linalg.solve(hessian, gradient)


def _normal_equations(
    pairs: _Pairs, rotations: Float[np.ndarray, "frames 3 3"], focal: float
) -> tuple[Float[np.ndarray, "pairs 7 7"], Float[np.ndarray, "pairs 7"]]:
    """Return Hessian and gradient of each pair by both rotations and the log focal length."""
    residual, rotated, relative = _residual(pairs, rotations, focal)
    weight = 1 / (1 + (residual**2).sum(1) / SOFT_PX**2)
    slope = rotated[:, :2] / rotated[:, 2:]
    by_ray = np.zeros((len(rotated), 2, 3))  # d pixel / d rotated ray
    by_ray[:, 0, 0] = by_ray[:, 1, 1] = focal / rotated[:, 2]
    by_ray[:, :, 2] = -focal * slope / rotated[:, 2:]
    rays = _rays(pairs.a, focal)
    rays_by_log_focal = np.concatenate([-pairs.a / focal, np.zeros((len(rays), 1))], axis=1)
    jacobian = np.concatenate(
        [
            by_ray @ relative @ _skew(rays),  # by the first camera: R_b (exp(w) R_a)^T ray
            -by_ray @ _skew(rotated),  # by the second camera
            (focal * slope)[..., None] + by_ray @ relative @ rays_by_log_focal[..., None],
        ],
        axis=2,
    )  # [M, 2, 7]
    weighted = weight[:, None, None] * jacobian
    hessians = np.add.reduceat(weighted.swapaxes(1, 2) @ jacobian, pairs.start)
    return hessians, np.add.reduceat((weighted * residual[..., None]).sum(1), pairs.start)


def _skew(v: Float[np.ndarray, "count 3"]) -> Float[np.ndarray, "count 3 3"]:
    """Return the matrices [N, 3, 3] of the cross product by vectors [N, 3]."""
    matrix = np.zeros((len(v), 3, 3))
    matrix[:, 0, 1], matrix[:, 0, 2], matrix[:, 1, 2] = -v[:, 2], v[:, 1], -v[:, 0]
    return matrix - matrix.swapaxes(1, 2)


def _exp(rotvecs: Float[np.ndarray, "count 3"]) -> Float[np.ndarray, "count 3 3"]:
    """Return the rotations [N, 3, 3] of rotation vectors [N, 3]."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(rotvecs).as_matrix()
