"""Rigid links with joints: what files of simulators (MJCF, URDF) are written from.

Lengths are metres, angles radians; z is up. The frame of a link has its origin at the joint with
its parent; a child's joint acts in the child's frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

__all__ = ["Link", "LinkJoint", "number_text", "wxyz"]


@dataclass(frozen=True)
class LinkJoint:
    """The joint of a link with its parent.

    Attributes:
        kind: "hinge" and "slider" have an axis and a range, "ball" has neither.
        axis: [3] unit, in the frame of the child.
        range: least and greatest position, radians or metres.
    """

    kind: Literal["hinge", "slider", "ball"]
    axis: Float[np.ndarray, " 3"]
    range: tuple[float, float]


@dataclass(frozen=True)
class Link:
    """A rigid body.

    Attributes:
        name: unique; also of its joint.
        parent: index of a link before this one; None for a body that nothing carries.
        position, rotation: `parent_from_link` at position 0 of the joint, or `world_from_link`.
        joint: with the parent; None without a parent.
        visual: file of the closed mesh, in the frame of the link, relative to the folder.
        collisions: files of convex meshes.
        rgb: [3] in [0, 1].
        volume: of the closed mesh, cubic metres.
        centre: [3] of the volume.
        inertia: [3, 3] about `centre` for a density of one, metres to the fifth power.
    """

    name: str
    parent: int | None
    position: Float[np.ndarray, " 3"]
    rotation: Float[np.ndarray, "3 3"]
    joint: LinkJoint | None
    visual: str
    collisions: tuple[str, ...]
    rgb: Float[np.ndarray, " 3"]
    volume: float
    centre: Float[np.ndarray, " 3"]
    inertia: Float[np.ndarray, "3 3"]


def number_text(values: Float[np.ndarray, " values"] | list[float] | tuple[float, ...]) -> str:
    """Return numbers for an attribute of XML, separated by spaces."""
    return " ".join(f"{float(value) + 0.0:.9g}" for value in values)


def wxyz(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " 4"]:
    """Return the unit quaternion of a rotation, w >= 0."""
    quat = Rotation.from_matrix(rotation).as_quat()[[3, 0, 1, 2]]
    return -quat if quat[0] < 0 else quat
