"""Trajectories of bodies with exactly known motion."""

import numpy as np
from scipy.spatial.transform import Rotation

from msdyn.scene import LiftedTracks

FRAMES = 30


def rotations(axis, degrees):
    """Rotations [T, 3, 3] about an axis by the given angles [T]."""
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    return Rotation.from_rotvec(np.deg2rad(degrees)[:, None] * axis).as_matrix()


def rigid_body(rng, centre, axis, degrees, path, count=60, frames=FRAMES):
    """Points [N, T, 3] of a box, and its motion (R [T, 3, 3], t [T, 3]) from frame 0."""
    s = np.linspace(0, 1, frames)
    box = rng.uniform(-0.1, 0.1, (count, 3))
    R = rotations(axis, degrees * s)
    path_offset = np.asarray(path) * s[:, None] + 0.05 * np.sin(6 * s)[:, None]
    xyz = np.einsum("tij,nj->nti", R, box) + centre + path_offset - path_offset[0]
    t = centre + path_offset - path_offset[0] - R @ centre
    return xyz, R, t


def two_bodies(rng, frames=FRAMES):
    a = rigid_body(rng, np.array([0.0, 0, 2]), [0, 1, 0.3], 80, [0.3, 0.1, 0.2], frames=frames)
    b = rigid_body(rng, np.array([0.5, 0, 2.5]), [1, 0, 0], -50, [-0.2, 0.2, 0.0], frames=frames)
    return a, b


def laptop(rng, count=80, frames=FRAMES):
    """Two plates: the base translates, the lid also rotates about the hinge by 100 degrees."""
    s = np.linspace(0, 1, frames)
    base = np.c_[rng.uniform(-0.2, 0.2, (count, 1)), np.zeros(count), rng.uniform(0, 0.3, count)]
    lid = np.c_[rng.uniform(-0.2, 0.2, (count, 1)), np.zeros(count), rng.uniform(-0.3, 0, count)]
    R = rotations([1, 0, 0], 100 * s)
    slide = np.c_[0.3 * s, 0 * s, 0.1 * s]
    moved = np.concatenate([np.repeat(base[:, None], frames, 1), np.einsum("tij,nj->nti", R, lid)])
    return moved + slide + [0, 0, 2]


def sheet(rng, count=200, frames=FRAMES):
    """A sheet of increasing curvature, so that every point has its own trajectory."""
    s = np.linspace(0, 1, frames)
    u, v = rng.uniform(-0.3, 0.3, (2, count))
    curvature = 0.01 + 4.0 * s
    x = np.sin(curvature * u[:, None]) / curvature
    z = (1 - np.cos(curvature * u[:, None])) / curvature
    drift = 0.2 * s
    return np.stack([x + drift, np.repeat(v[:, None], frames, 1), z + 2], axis=-1)


def lifted(*bodies, visible=None, noise=0.0, rng=None):
    """Concatenate bodies [n, T, 3] to tracks of objects 1, 2, ..."""
    xyz = np.concatenate(bodies)
    label = np.repeat(np.arange(1, len(bodies) + 1), [len(b) for b in bodies])
    if visible is None:
        visible = np.ones(xyz.shape[:2], bool)
    if noise:
        xyz = xyz + rng.normal(0, noise, xyz.shape)
    xyz = np.where(visible[..., None], xyz, 0.0)
    return LiftedTracks(xyz, visible, visible.astype(float), label, np.zeros((*xyz.shape[:2], 2)))


def short_tracks(rng, count, frames=FRAMES, mean=12):
    """Visibility [N, T] of short tracks, such as those of chained optical flow."""
    start = rng.integers(-mean, frames, count)
    length = rng.integers(mean // 2, 2 * mean, count)
    t = np.arange(frames)
    return (t >= start[:, None]) & (t < (start + length)[:, None])
