"""Optimising the camera of a held-out image on that image, before it is evaluated.

Published evaluations with this setting hold the Gaussians fixed and move the camera of each test
image to where the rendering fits it best: errors of its calibration, and of the alignment of two
worlds, then do not count. The schedule is that of MoSca for DyCheck: Adam, 300 steps of 0.003 for
the first image of a camera; where the camera is static, each further image begins at the correction
of the one before, with 30 steps of a tenth of that. An image of a moving camera has 100 steps.
Differences from MoSca's code: the loss is the logarithm of the squared error of covisible pixels,
those that the figures count, where MoSca has all that are rendered with an opacity above 0.1;
translations are in multiples of the median depth of the image, so that the search does not depend
on the units of the scene; and what is taken is the best pose that was seen, among them the given
one.

Reference: Lei et al., "MoSca: Dynamic Gaussian Fusion from Casual Videos via 4D Motion Scaffolds",
2025, and its published code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from msdyn.geometry import Cameras, PoseSteps, cosine_decay, pose_updates_between, updated_poses
from msdyn.render import draw
from msdyn.sequence import PosedGaussians

__all__ = ["CameraSearch", "FoundCamera", "Schedule"]

_DECAY_START, _DECAY_END = 0.5, 1 / 30
_LEAST_ERROR = 1e-10
# Difference of elements of poses below which they are the same.
_SAME = 1e-9


@dataclass(frozen=True)
class Schedule:
    """Steps of the search, and their size.

    Attributes:
        first: steps for the first image of a view.
        static: steps for each further image of a camera that does not move.
        moving: steps for each further image of one that does.
        rate: of the steps, radians and multiples of the depth.
        static_rate: the same for further images of a camera that does not move.
    """

    first: int = 300
    static: int = 30
    moving: int = 100
    rate: float = 3e-3
    static_rate: float = 3e-4


@dataclass(frozen=True)
class FoundCamera:
    """A camera that was optimised.

    Attributes:
        camera: the optimised one.
        degrees: its rotation from the given one.
        shift: distance of the centres, scene units.
    """

    camera: Cameras
    degrees: float
    shift: float


class CameraSearch:
    """Optimises the cameras of the images of one view, one after the other."""

    def __init__(self, schedule: Schedule | None = None) -> None:
        self.schedule = schedule or Schedule()
        # Given pose of the last image and its correction, with translations in multiples of depth.
        self._last: tuple[Float[Tensor, "4 4"], Float[Tensor, " 6"]] | None = None

    def __call__(
        self,
        posed: PosedGaussians,
        camera: Cameras,
        image: UInt8[np.ndarray, "height width 3"],
        mask: Bool[np.ndarray, "height width"],
        along: Float[Tensor, "1 3"] | None = None,
    ) -> FoundCamera:
        """Return the camera that renders the pixels of a mask best.

        Args:
            posed: Gaussians at the time of the image; they are not changed.
            camera: one, as given.
            image: the true image; only its pixels in the mask are used.
            mask: pixels that count. If there are none, or nothing is rendered there, the camera is
                that given.
            along: direction along which Gaussians are sorted, see `draw`.
        """
        if not mask.any():
            return FoundCamera(camera, 0.0, 0.0)
        target = _Target(_detached(posed), camera, image, mask, along)
        given = torch.as_tensor(camera.cam_from_world)[0]
        start, least = given, target.error(given)
        steps, rate = self.schedule.first, self.schedule.rate
        if self._last is not None:
            pose, update = self._last
            steps = self.schedule.moving
            if torch.allclose(pose, given, rtol=0, atol=_SAME):
                steps, rate = self.schedule.static, self.schedule.static_rate
            corrected = updated_poses(given, update, target.unit)
            error = target.error(corrected)
            if error < least:
                start, least = corrected, error
        found = target.search(start, least, steps, rate)
        update = pose_updates_between(given, found, target.unit)
        self._last = given, update
        moved = replace(camera, cam_from_world=found[None].numpy())
        return FoundCamera(
            moved,
            float(torch.rad2deg(update[:3].norm())),
            float(np.linalg.norm(moved.centres - camera.centres)),
        )


def _detached(posed: PosedGaussians) -> PosedGaussians:
    """Return Gaussians without a graph."""
    values = {name: getattr(posed, name) for name in posed.__dataclass_fields__}
    return replace(posed, **{k: v.detach() for k, v in values.items() if isinstance(v, Tensor)})


class _Target:
    """The squared error of a rendering on the pixels of a mask, as a function of the pose."""

    def __init__(
        self,
        posed: PosedGaussians,
        camera: Cameras,
        image: UInt8[np.ndarray, "height width 3"],
        mask: Bool[np.ndarray, "height width"],
        along: Float[Tensor, "1 3"] | None,
    ) -> None:
        self.posed, self.along = posed, along
        self.tensors = camera.tensors(posed.means.device)
        self.mask = torch.as_tensor(mask, device=posed.means.device)
        # From here on, nothing is known of the image outside the mask.
        self.truth = torch.as_tensor(image[mask], device=self.mask.device).float() / 255
        with torch.no_grad():
            drawn = draw(posed, self.tensors, along=along)
        assert drawn.depth is not None
        alpha = drawn.alpha[0]
        seen = self.mask & (alpha > 0.5)
        depth = (drawn.depth[0] / alpha.clamp_min(0.5))[seen]
        self.unit = float(depth.median()) if len(depth) else 1.0

    def loss(self, pose: Float[Tensor, "1 4 4"]) -> Float[Tensor, ""]:
        """Return the logarithm of the mean squared error, differentiable in the pose."""
        tensors = replace(self.tensors, cam_from_world=pose)
        image = draw(self.posed, tensors, depth=False, along=self.along)
        colours = image.features[0, ..., :3][self.mask].clamp(0, 1)
        return (colours - self.truth).square().mean().clamp_min(_LEAST_ERROR).log()

    @torch.no_grad()
    def error(self, pose: Float[Tensor, "4 4"]) -> float:
        """Return the loss of a pose."""
        return float(self.loss(pose[None].to(self.tensors.cam_from_world)))

    def search(
        self, start: Float[Tensor, "4 4"], least: float, count: int, rate: float
    ) -> Float[Tensor, "4 4"]:
        """Return the best pose on the way of so many steps from one whose loss is `least`."""
        steps = PoseSteps(start[None].to(self.mask.device), self.unit)
        best, index = start, torch.zeros(1, dtype=torch.long, device=self.mask.device)
        for number in range(count + 1):
            updates = steps.zero_updates(index)
            loss = self.loss(steps.poses(index, updates))
            if (value := float(loss.detach())) < least:
                best, least = steps.cam_from_world[0].cpu().clone(), value
            if number == count or not loss.requires_grad:
                break
            (gradient,) = torch.autograd.grad(loss, updates)
            if not (gradient.isfinite().all() and gradient.any()):
                break
            decay = cosine_decay(number / count, start=_DECAY_START, end=_DECAY_END)
            steps.step(index, gradient, rate * decay)
        return best
