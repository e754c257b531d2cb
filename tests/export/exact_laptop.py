"""The synthetic laptop as a sequence without any fit: Gaussians on the true links."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch

from msdyn.geometry import Cameras, Rigid, sixd_from_rotations, transform_points
from msdyn.motion import MotionField
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.weights import BlendWeights
from msdyn.scene import Timeline
from msdyn.sequence import Gaussians, GaussianSequence
from msdyn.synthetic import link_motions, make_scene

CANONICAL = 5
LINKS = ("laptop/base", "laptop/lid")
BOXES = (((-0.26, -0.18, 0.0), (0.26, 0.18, 0.03)), ((-0.26, -0.01, 0.0), (0.26, 0.01, 0.34)))
"""Corners of the links, metres, in their own coordinates."""


class Laptop(NamedTuple):
    """The sequence, and the true hinge at the canonical frame.

    Attributes:
        sequence: two motion levels; primitives 0 and 1 are the base's, 2 and 3 the lid's.
        axis, point: of the hinge, in the world.
        angles: [T] radians about `axis` of the lid, relative to the base and the canonical frame.
        motions: [T] of base and lid, relative to the canonical frame.
        world_from_link: [4, 4] canonical, of base and lid.
    """

    sequence: GaussianSequence
    axis: np.ndarray
    point: np.ndarray
    angles: np.ndarray
    motions: tuple[Rigid, Rigid]
    world_from_link: tuple[np.ndarray, np.ndarray]


def true_hinge(frames: int, canonical: int, size=(96, 72)) -> tuple[Cameras, tuple]:
    """Return the cameras and all but the first field of `Laptop`, of a clip of so many frames."""
    spec = make_scene("articulated", frames=frames, width=size[0], height=size[1])
    found = link_motions(spec, reference=canonical)
    motions = [Rigid.from_matrix(found[link]) for link in LINKS]
    links = {part.link: part.world_from_link for part in spec.parts if part.link}
    poses = tuple(links[link][canonical] for link in LINKS)
    axis, point = poses[1][:3, 0], poses[1][:3, 3]
    relative = (motions[0].inverse() @ motions[1]).rotation
    angles = np.unwrap(np.arctan2(_skew(relative) @ axis, (np.trace(relative, 0, 1, 2) - 1) / 2))
    return spec.cameras, (axis, point, angles - angles[canonical], tuple(motions), poses)


def _skew(rotations):
    """Return the axis of each rotation times the sine of its angle."""
    lower = rotations[:, [2, 0, 1], [1, 2, 0]]
    return (lower - rotations[:, [1, 2, 0], [2, 0, 1]]) / 2


def box_surface(low, high, count, rng):
    """Return points [count, 3] spread evenly over the surface of a box."""
    low, high = np.array(low), np.array(high)
    size = high - low
    areas = np.repeat([size[1] * size[2], size[0] * size[2], size[0] * size[1]], 2)
    face = rng.choice(6, count, p=areas / areas.sum())
    points = rng.random((count, 3))
    points[np.arange(count), face // 2] = face % 2
    return low + size * points


def linked_sequence(points, owner, motions, cameras, table) -> GaussianSequence:
    """Return one object of primitives with given motions.

    Args:
        points: [N, 3] canonical.
        owner: [N] primitive of each point.
        motions: [T] of each primitive, relative to the canonical frame.
        cameras: [T].
        table: [S, 3] static points.
    """

    def gaussians(points) -> Gaussians:
        grey = torch.full((len(points), 3), 0.5)
        sizes = torch.full((len(points),), 0.006)
        return Gaussians.from_points(torch.from_numpy(points).float(), grey, sizes, opacity=0.95)

    frames, count = len(cameras), len(motions)
    index = torch.from_numpy(owner).long()[:, None]
    moving = gaussians(points)
    centres = torch.stack([moving.means[index[:, 0] == k].mean(0) for k in range(count)]).detach()
    sixd = torch.stack([sixd_from_rotations(torch.from_numpy(m.rotation)) for m in motions])
    middle = [c.double().numpy() for c in centres]
    shift = np.stack([m.apply(c[None])[:, 0] - c for m, c in zip(motions, middle, strict=True)])
    still = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(1, frames, 6).clone()
    field = PatternField(
        [centres.mean(0, keepdim=True), centres],
        [still, sixd.float()],
        [torch.zeros(1, frames, 3), torch.from_numpy(shift).float()],
        [torch.zeros(1).long(), torch.zeros(count).long()],
        torch.arange(frames),
        torch.tensor([1]),
    )
    none = torch.zeros_like(index, dtype=torch.float32)
    weights = [BlendWeights(torch.zeros_like(index), none), BlendWeights(index, none)]
    return GaussianSequence(
        gaussians(table),
        moving,
        MotionField(field, weights),
        torch.ones(len(index)).long(),
        timeline=Timeline.uniform(frames, 24.0),
        cameras=cameras,
        canonical_frame=CANONICAL,
        world_units="metric",
    )


@functools.cache
def exact_laptop(frames: int = 12, width: int = 96, height: int = 72) -> Laptop:
    cameras, truth = true_hinge(frames, CANONICAL, (width, height))
    axis, point, _, motions, poses = truth
    rng = np.random.default_rng(0)
    local = [box_surface(*corners, 4000, rng) for corners in BOXES]
    links = [transform_points(pose, own) for pose, own in zip(poses, local, strict=True)]
    points = np.concatenate(links)
    # Two primitives a link: halves across the hinge, which must be merged again.
    owner = 2 * np.repeat([0, 1], 4000) + ((points - point) @ axis > 0)
    both = [motions[k // 2] for k in range(4)]
    return Laptop(linked_sequence(points, owner, both, cameras, flat_table(rng)), *truth)


def flat_table(rng):
    """Return points [3000, 3] of a table at z = 0."""
    return np.column_stack([rng.uniform(-1, 1, (3000, 2)), np.zeros(3000)])
