"""Joints between two rigid bodies, chosen and fitted by their relative motion over time.

The motion of a body is `Rigid` [T], from the canonical frame to each time, in one world. The
relative motion of a child in the canonical coordinates of its parent is
`parent^-1 @ child`: the identity where both move alike. A joint models it as
`Joint.motion(position) @ rest`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial.transform import Rotation

from msdyn.geometry.procrustes import nearest_rotations
from msdyn.geometry.rigid import Rigid, Similarity

__all__ = ["FREEDOM", "Joint", "JointKind", "Moments", "fit_joint"]

JointKind = Literal["fixed", "hinge", "slider", "ball", "free"]

FREEDOM: dict[JointKind, int] = {"fixed": 0, "hinge": 1, "slider": 1, "ball": 3, "free": 6}
"""Degrees of freedom per time."""
_PARAMETERS: dict[JointKind, int] = {"fixed": 6, "hinge": 10, "slider": 8, "ball": 6, "free": 0}
"""Parameters that all times share: rest pose, axis, point."""
_PER_TIME = 3.0
"""Charge for a degree of freedom of one time. Errors of fits drift over time: with 1.8, a rigid car
of the demo was divided by a slider of 2 cm; 2.5 and less made a ball of a hinge there."""
_KEPT = 0.9
"""Share of the times, the best ones, of which the residual is computed."""


@dataclass(frozen=True)
class Moments:
    """Where the mass of a body is: its weighted mean and standard deviations.

    Attributes:
        mean: [3] scene units.
        spread: [3, 3] principal axes as rows, scaled to the standard deviation along each.
    """

    mean: Float[np.ndarray, " 3"]
    spread: Float[np.ndarray, "3 3"]

    @classmethod
    def of(
        cls, points: Float[np.ndarray, "points 3"], weights: Float[np.ndarray, " points"]
    ) -> Moments:
        """Return the moments of weighted points."""
        share = weights / weights.sum()
        mean = share @ points
        centred = points - mean
        values, axes = np.linalg.eigh(centred.T @ (share[:, None] * centred))
        return cls(mean, axes.T * np.sqrt(values.clip(0))[:, None])

    @property
    def points(self) -> Float[np.ndarray, "6 3"]:
        """Six points with the same mean and covariance."""
        offsets = np.sqrt(3.0) * self.spread
        return np.concatenate([self.mean + offsets, self.mean - offsets])


@dataclass(frozen=True)
class Joint:
    """The joint of a child body with its parent, in the parent's canonical coordinates.

    Attributes:
        kind: "fixed", "hinge" (rotates about an axis), "slider" (moves along one), "ball" (rotates
            about a point) or "free".
        axis: [3] unit vector of a hinge or slider; zero otherwise.
        point: [3] on the axis of a hinge, nearest to where the bodies touch; the centre of a ball;
            otherwise where they touch. Scene units.
        rest: of the child at position 0, relative to where the canonical frame has it.
        positions: [T] radians about the axis of a hinge, scene units along that of a slider; zero
            at the canonical frame as nearly as the joint allows; [T] zeros for other kinds.
        motions: [T] relative motion of the child at each time as the joint has it.
        residual: distance of the child from where the joint has it, scene units: root mean square
            over the body and over the best 90 % of the times.
        residual_degrees: the same of its rotation.
    """

    kind: JointKind
    axis: Float[np.ndarray, " 3"]
    point: Float[np.ndarray, " 3"]
    rest: Rigid[np.ndarray]
    positions: Float[np.ndarray, " times"]
    motions: Rigid[np.ndarray]
    residual: float
    residual_degrees: float

    @property
    def range(self) -> tuple[float, float]:
        """The least and greatest position of the clip."""
        return float(self.positions.min(initial=0)), float(self.positions.max(initial=0))

    def motion(self, positions: Float[np.ndarray, " times"]) -> Rigid[np.ndarray]:
        """Return the motion [T] at positions of a hinge or slider; the identity for a fixed joint.

        The child's relative motion is this one after `rest`.
        """
        if self.kind == "hinge":
            return _about(self.axis, self.point, positions)
        shift = np.zeros((len(positions), 3))
        if self.kind == "slider":
            shift = positions[:, None] * self.axis
        return Rigid(np.tile(np.eye(3), (len(positions), 1, 1)), shift)

    def transformed(self, world: Similarity) -> Joint:
        """Return the same joint in other coordinates, `new_from_old`."""
        scale = world.scale if self.kind == "slider" else 1.0
        return replace(
            self,
            axis=world.rotation @ self.axis,
            point=world.apply(self.point),
            rest=world.conjugate(self.rest),
            positions=self.positions * scale,
            motions=world.conjugate(self.motions),
            residual=self.residual * world.scale,
        )


def fit_joint(
    relative: Rigid[np.ndarray],
    child: Moments,
    contact: Float[np.ndarray, " 3"],
    tolerance: float,
) -> Joint:
    """Return the joint that explains a relative motion with the fewest degrees of freedom.

    Each kind is fitted by least squares with a loss that bounds the influence of single times. The
    kind is that of the smallest criterion `6 T log(r^2 + tolerance^2) + s log(6 T) + 3 f T`, with
    residual r, s parameters of the joint and f of each time. It is the Bayesian information
    criterion, except that what each time has of its own is charged more than by its pose of six
    numbers (log 6 = 1.8). So freedom must reduce a residual above the tolerance, not noise below.

    Args:
        relative: [T] of the child, in the canonical coordinates of its parent.
        child: canonical moments of the child.
        contact: [3] where the bodies touch at the canonical frame, scene units.
        tolerance: residual of a good joint, scene units; positive.

    Reference: Sturm et al., "A Probabilistic Framework for Learning Kinematic Models of
        Articulated Objects", 2011 (the choice among kinds by this criterion).
    """
    case = _Case(relative, child, contact, tolerance)
    fits = [fit(case) for fit in (_fixed, _slider, _hinge, _ball, _free)]
    count = 6 * len(relative)

    def criterion(joint: Joint) -> float:
        shared = _PARAMETERS[joint.kind] * np.log(count)
        own = FREEDOM[joint.kind] * len(relative) * _PER_TIME
        return float(count * np.log(joint.residual**2 + tolerance**2) + shared + own)

    return min(fits, key=criterion)


@dataclass(frozen=True)
class _Case:
    """The arguments of `fit_joint`."""

    relative: Rigid[np.ndarray]
    child: Moments
    contact: Float[np.ndarray, " 3"]
    tolerance: float


def _fixed(case: _Case) -> Joint:
    relative = case.relative
    start = _mean(relative)

    def model(rest: Rigid[np.ndarray], _: Float[np.ndarray, " extra"]) -> Rigid[np.ndarray]:
        return Rigid(
            np.tile(rest.rotation, (len(relative), 1, 1)),
            np.tile(rest.translation, (len(relative), 1)),
        )

    rest, _ = _solve(model, start, np.zeros(0), case)
    zero, nothing = np.zeros(len(relative)), np.zeros(3)
    return _joint("fixed", nothing, case.contact, rest, zero, model(rest, nothing), case)


def _slider(case: _Case) -> Joint:
    relative, child = case.relative, case.child
    start = _mean(relative)
    moved = relative.apply(child.mean[None])[:, 0]
    axis = np.linalg.svd(moved - moved.mean(0))[2][0]
    frame = _beside(axis)

    def positions(rest: Rigid[np.ndarray], direction: Float64[np.ndarray, " 3"]) -> np.ndarray:
        return (moved - rest.apply(child.mean[None])) @ direction

    def direction_of(extra: Float[np.ndarray, " extra"]) -> Float64[np.ndarray, " 3"]:
        return _unit(axis + extra @ frame)

    def model(rest: Rigid[np.ndarray], extra: Float[np.ndarray, " extra"]) -> Rigid[np.ndarray]:
        direction = direction_of(extra)
        shift = positions(rest, direction)[:, None] * direction
        return Rigid(np.tile(rest.rotation, (len(shift), 1, 1)), rest.translation + shift)

    rest, extra = _solve(model, start, np.zeros(2), case)
    direction = direction_of(extra)
    # Position 0 is where the child is nearest to its place in the canonical frame.
    offset = float((rest.apply(child.mean[None])[0] - child.mean) @ direction)
    motions = model(rest, extra)
    rest = Rigid(rest.rotation, rest.translation - offset * direction)
    found = positions(rest, direction)
    return _joint("slider", direction, case.contact, rest, found, motions, case)


def _hinge(case: _Case) -> Joint:
    relative, child, contact = case.relative, case.child, case.contact
    start = _mean(relative)
    turns = _rotvecs(relative.rotation @ start.rotation.T)  # [T, 3]
    axis = np.linalg.eigh(turns.T @ turns)[1][:, 2]
    # t_t = p + R_t (t_rest - p), which is linear in p and the vector in parentheses.
    turned = relative.rotation @ start.rotation.T
    system = np.concatenate([np.tile(np.eye(3), (len(turned), 1, 1)), turned], axis=2)
    pivot = np.linalg.lstsq(system.reshape(-1, 6), relative.translation.reshape(-1), rcond=1e-9)[0]
    frame = _beside(axis)
    origin = pivot[:3] + axis * ((contact - pivot[:3]) @ axis)
    start = Rigid(start.rotation, origin + pivot[3:])
    samples = child.points
    moved = relative.apply(samples[None])  # [T, 6, 3]

    def line(
        extra: Float[np.ndarray, " extra"],
    ) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
        return _unit(axis + extra[:2] @ frame), origin + extra[2:] @ frame

    def model(rest: Rigid[np.ndarray], extra: Float[np.ndarray, " extra"]) -> Rigid[np.ndarray]:
        direction, point = line(extra)
        angles = _angles(direction, rest.apply(samples) - point, moved - point)
        return _about(direction, point, angles) @ rest

    rest, extra = _solve(model, start, np.zeros(4), case)
    direction, point = line(extra)
    point = point + direction * ((contact - point) @ direction)
    motions, before = model(rest, extra), rest.apply(samples) - point
    # Position 0 is where the child is nearest to its place in the canonical frame.
    zero = _angles(direction, before, samples[None] - point)
    rest = _about(direction, point, zero)[0] @ rest
    found = np.unwrap(_angles(direction, before, moved - point)) - zero
    found -= (
        2 * np.pi * np.round(found[np.argmin(np.abs(np.angle(np.exp(1j * found))))] / 2 / np.pi)
    )
    return _joint("hinge", direction, point, rest, found, motions, case)


def _angles(
    axis: Float[np.ndarray, " 3"],
    before: Float[np.ndarray, "points 3"],
    after: Float[np.ndarray, "times points 3"],
) -> Float64[np.ndarray, " times"]:
    """Return the angles about an axis through the origin that bring points nearest to others."""
    first, second = _beside(axis)
    a, b = before @ first, before @ second
    c, d = after @ first, after @ second
    return np.arctan2((a * d - b * c).sum(-1), (a * c + b * d).sum(-1))


def _ball(case: _Case) -> Joint:
    relative, contact = case.relative, case.contact
    from scipy.optimize import least_squares

    # R_t x + t_t = p for one point x of the child and one point p of the parent.
    system = np.concatenate([relative.rotation, -np.tile(np.eye(3), (len(relative), 1, 1))], axis=2)
    guess = np.r_[contact, contact]
    target = -relative.translation - np.einsum("tij,j->ti", system, guess)

    def residual(found: Float[np.ndarray, " 6"]) -> np.ndarray:
        return (np.einsum("tij,j->ti", system, found) - target).reshape(-1)

    # A weak prior at the contact: about an axis of rotation the centre is not determined.
    prior = 1e-3 * np.sqrt(len(relative))
    found = least_squares(
        lambda x: np.r_[residual(x), prior * x], np.zeros(6), loss="soft_l1", f_scale=case.tolerance
    ).x
    own, point = guess[:3] + found[:3], guess[3:] + found[3:]
    motions = Rigid(relative.rotation, point - np.einsum("tij,j->ti", relative.rotation, own))
    rest = Rigid(np.eye(3), point - own)
    zero = np.zeros(len(relative))
    return _joint("ball", np.zeros(3), point, rest, zero, motions, case)


def _free(case: _Case) -> Joint:
    zero, rest = np.zeros(len(case.relative)), Rigid.identity()
    return _joint("free", np.zeros(3), case.contact, rest, zero, case.relative, case)


def _joint(
    kind: JointKind,
    axis: Float[np.ndarray, " 3"],
    point: Float[np.ndarray, " 3"],
    rest: Rigid[np.ndarray],
    positions: Float[np.ndarray, " times"],
    motions: Rigid[np.ndarray],
    case: _Case,
) -> Joint:
    """Return a joint with its residuals."""
    samples, relative = case.child.points[None], case.relative
    apart = motions.apply(samples) - relative.apply(samples)
    turned = _rotvecs(motions.rotation @ relative.rotation.swapaxes(1, 2))
    return Joint(
        kind,
        axis,
        point,
        rest,
        positions,
        motions,
        _trimmed_rms(np.sqrt((apart**2).sum(2).mean(1))),
        float(np.degrees(_trimmed_rms(np.linalg.norm(turned, axis=1)))),
    )


def _solve(
    model: Callable[[Rigid[np.ndarray], Float[np.ndarray, " extra"]], Rigid[np.ndarray]],
    start: Rigid[np.ndarray],
    extra: Float[np.ndarray, " extra"],
    case: _Case,
) -> tuple[Rigid[np.ndarray], Float[np.ndarray, " extra"]]:
    """Refine the rest pose and further parameters, dimensionless angles first, by least squares."""
    from scipy.optimize import least_squares

    relative, child = case.relative, case.child
    samples = child.points
    size = max(float(np.linalg.norm(child.spread)), 1e-12)
    moved = relative.apply(samples[None])
    middle = start.apply(child.mean[None])[0]

    def unpacked(x: Float[np.ndarray, " all"]) -> tuple[Rigid[np.ndarray], np.ndarray]:
        turn = _rotations(x[None, :3])[0]
        # Rotate about the child's middle, so that rotation and translation decouple.
        about = Rigid(turn, middle - turn @ middle + size * x[3:6])
        others = x[6:].copy()
        others[2:] *= size
        return about @ start, extra + others

    def residual(x: Float[np.ndarray, " all"]) -> np.ndarray:
        return (model(*unpacked(x)).apply(samples[None]) - moved).reshape(-1)

    found = least_squares(
        residual, np.zeros(6 + len(extra)), loss="soft_l1", f_scale=case.tolerance, max_nfev=40
    )
    return unpacked(found.x)


def _mean(relative: Rigid[np.ndarray]) -> Rigid[np.ndarray]:
    rotation = nearest_rotations(relative.rotation.mean(0))
    return Rigid(rotation, np.median(relative.translation, axis=0))


def _about(
    axis: Float[np.ndarray, " 3"],
    point: Float[np.ndarray, " 3"],
    angles: Float[np.ndarray, " times"],
) -> Rigid[np.ndarray]:
    """Return the rotations [T] about a line."""
    rotation = _rotations(angles[:, None] * axis)
    return Rigid(rotation, point - rotation @ point)


def _beside(axis: Float[np.ndarray, " 3"]) -> Float64[np.ndarray, "2 3"]:
    """Return two unit vectors that make a right-handed frame with a unit axis as the third."""
    least = np.eye(3)[np.abs(axis).argmin()]
    first = _unit(np.cross(least, axis))
    return np.stack([first, np.cross(axis, first)])


def _unit(vector: Float[np.ndarray, " 3"]) -> Float64[np.ndarray, " 3"]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _rotations(rotvecs: Float[np.ndarray, "times 3"]) -> Float64[np.ndarray, "times 3 3"]:
    return Rotation.from_rotvec(rotvecs).as_matrix()


def _rotvecs(rotations: Float[np.ndarray, "times 3 3"]) -> Float64[np.ndarray, "times 3"]:
    return Rotation.from_matrix(rotations).as_rotvec()


def _trimmed_rms(values: Float[np.ndarray, " times"]) -> float:
    kept = np.sort(values)[: max(1, int(np.ceil(_KEPT * len(values))))]
    return float(np.sqrt((kept**2).mean()))
