"""The total loss of a step (Eq. 12): one rendering, all losses and their weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

import msdyn.fit.losses  # noqa: F401  registers the losses
from msdyn.devices import upload
from msdyn.errors import InputError
from msdyn.fit.camera_updates import CameraUpdates
from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData
from msdyn.fit.exposure import FrameExposure
from msdyn.fit.neighbours import Neighbours
from msdyn.fit.step import Step, registered_losses
from msdyn.fit.tracks import TrackSampler
from msdyn.geometry import Cameras
from msdyn.render import draw, jittered_axes
from msdyn.sequence import GaussianSequence

__all__ = ["Evaluation", "Objective", "Term"]


class Term(NamedTuple):
    """A loss's weight and value."""

    weight: float
    value: Float[Tensor, ""]


class Evaluation(NamedTuple):
    """The losses of a step.

    Attributes:
        terms: by name.
        info: the rasterizer's, for density control.
        psnr: mean over the frames, dB.
    """

    terms: dict[str, Term]
    info: dict[str, Any]
    psnr: Float[Tensor, ""]


class Objective:
    """Renders frames of a sequence and computes all losses.

    Attributes:
        cameras: optimised with the Gaussians; None if they are fixed.
    """

    def __init__(
        self, data: FitData, config: FitConfig, exposure: FrameExposure, steps: int
    ) -> None:
        self.data, self.exposure, self.steps = data, exposure, steps
        # A camera that stands still has no errors that differ between frames.
        joint = config.refine == "joint" and not data.cameras.share_pose
        self.cameras = CameraUpdates(data, config.rate.cameras) if joint else None
        self.weights, self.seed, self.jitter = config.loss, config.seed, config.order_jitter
        self.losses = registered_losses()
        if config.losses == "rgb":
            self.losses = {"rgb": self.losses["rgb"]}
        self.colour_only = config.losses == "rgb"
        self.tracks = TrackSampler(data, seed=config.seed)
        self.neighbours = Neighbours(seed=config.seed)
        self._numbers: Int[np.ndarray, " clip"] | None = None

    def __call__(
        self, sequence: GaussianSequence, frames: Int[np.ndarray, " frames"], number: int
    ) -> Evaluation:
        """Compute the losses of a step.

        Args:
            sequence: in the world of the fit.
            frames: indices of the clip's frames.
            number: of the step, which seeds the sampling of tracks and neighbours.
        """
        step, info = self._render(sequence, frames, number)
        terms: dict[str, Term] = {}
        for name, loss in self.losses.items():
            value = loss.function(step)
            if value is not None:
                terms[name] = Term(self.weights.weight_of(name, loss.weight), value)
        exposure = self.exposure.regulariser(step.truth)
        if exposure is not None:
            terms["exposure"] = Term(self.weights.weight_of("exposure", 1.0), exposure)
        if not self.colour_only and len(sequence.moving):
            for name, value in sequence.motion.regularisers().items():
                terms[name] = Term(self.weights.weight_of(name, 1.0), value)
        if number == 0:
            self._check_names(terms)
        with torch.no_grad():
            psnr = -10 * (step.rgb - step.truth.rgb).square().mean().clamp_min(1e-10).log10()
        return Evaluation(terms, info, psnr)

    def _render(
        self, sequence: GaussianSequence, frames: Int[np.ndarray, " frames"], number: int
    ) -> tuple[Step, dict[str, Any]]:
        truth = self.data.batch(frames)
        tracked = len(sequence.moving) > 0 and self.weights.track > 0 and not self.colour_only
        tracks = self.tracks.sample(frames, number) if tracked else None
        times = truth.index if tracks is None else torch.cat([truth.index, tracks.target])
        clip = frames if tracks is None else np.concatenate([frames, tracks.frames])
        # Source frames, then target frames.
        both = sequence.posed(times, keys=self._key_numbers(sequence, clip))
        posed = both.select(slice(len(frames)))
        extra = (posed.labels > 0).float()[:, None].expand(len(frames), -1, 1)
        if tracks is not None:
            extra = torch.cat([extra, both.means[len(frames) :]], dim=-1)
        drawn, cameras = posed, truth.cameras
        if self.cameras is not None and self.cameras.starts(number / self.steps):
            drawn, cameras = self.cameras.attach(posed, cameras, frames)
        along = None
        if self.jitter:
            along = jittered_axes(cameras.cam_from_world.detach(), self.jitter, (self.seed, number))
        image = draw(drawn, cameras, extra=extra, depth=True, along=along)
        assert image.depth is not None
        # The backward pass of a split is one concatenation; that of slices pads each with zeros.
        parts = image.features.split([3, 1] + [3] * (tracks is not None), dim=-1)
        step = Step(
            number,
            sequence,
            truth,
            posed,
            rgb=self.exposure.applied(parts[0], image.alpha, truth),
            moving=parts[1][..., 0],
            depth=image.depth,
            alpha=image.alpha,
            tracks=tracks,
            positions=None if tracks is None else parts[2],
            neighbours=self.neighbours,
        )
        return step, image.info | {"frames": truth.index}

    def _key_numbers(
        self, sequence: GaussianSequence, frames: Int[np.ndarray, " frames"]
    ) -> Int[Tensor, " frames"] | None:
        """Return the numbers of frames among the key frames of the motion, on the device.

        None where one of them is no key frame, as the motion of a prediction may have others.
        """
        if self._numbers is None:
            keys = sequence.motion.key_frames.cpu().numpy()
            clip = np.arange(len(self.data.rgb))
            numbers = np.searchsorted(keys, clip).clip(max=len(keys) - 1)
            self._numbers = np.where(keys[numbers] == clip, numbers, -1)
        numbers = self._numbers[frames]
        return upload(numbers, self.data.device) if (numbers >= 0).all() else None

    def step_cameras(self, number: int, factor: float) -> None:
        """Take a step of the cameras after the backward pass of a step of the fit.

        Args:
            number: of the step.
            factor: of the learning rate.
        """
        if self.cameras is not None:
            self.cameras.step(number / self.steps, factor)

    def scene_cameras(self) -> Cameras:
        """Return the cameras of all frames as they are now, in the world of the scene."""
        refined = self.data.refinement.cameras
        if self.cameras is None:
            return refined
        return self.cameras.corrected(refined, self.data.fit_from_scene.scale)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return how far the optimised cameras are from the refined ones, as `joint`, if any."""
        if self.cameras is None:
            return {}
        refinement = self.data.refinement
        return {"joint": refinement.change(refinement.cameras, self.scene_cameras())}

    def _check_names(self, terms: dict[str, Term]) -> None:
        known = {*self.losses, *terms}
        unknown = sorted(set(self.weights.extra) - known)
        if unknown:
            raise InputError(
                f"--loss.extra: no loss named {', '.join(unknown)}; "
                f"expected some of {', '.join(sorted(known))}"
            )
