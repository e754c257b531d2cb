"""Corrections of the depth of moving objects, per object and frame.

The depth of moving objects is the least reliable: networks see each frame alone, and other frames
do not confirm it. An object that keeps its size moves consistently only if its depth has the right
scale in every frame. The scale and the slope over the image are therefore estimated with the motion
(`prefit.py`), under a prior whose width is measured: motion is smooth in time, errors of networks
are not, so that the second differences of an object's depth show the size of the errors. Depth that
is smooth in time is kept. The mean over time of an object's scale is not observable and is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from msdyn.motion import noise_of_second_differences
from msdyn.scene import LiftedObservations, LiftedTracks

__all__ = ["ObjectDepth", "ObjectDepthModel", "scale_error"]

# Prior standard deviation of the change of the scale's logarithm per standard deviation of the
# object's tracks in the image, as a multiple of that of the logarithm itself.
_SLOPE = 0.4
# The errors of an object's tracks are correlated: many count as this number of independent ones.
_INDEPENDENT_TRACKS = 100
# Minimum number of tracks, and of frames, from which the size of the errors is measured.
_MIN_TRACKS, _MIN_FRAMES = 8, 3
# Beyond this many standard deviations from its centre the correction of an object is constant.
_MAX_OFFSET = 2.5


@dataclass(frozen=True)
class ObjectDepth:
    """The corrections of O objects in F frames.

    Attributes:
        objects: [O] labels, increasing.
        centre: [F, O, 2] mean position of the visible tracks, px.
        size: [O] standard deviation of their positions, px.
        log_scale: [F, O, 3] logarithm of the scale at the centre, and its change per `size` along
            x and y.
        error: [O] of the logarithm of the scale in single frames, see `scale_error`.
    """

    objects: Int[np.ndarray, " objects"]
    centre: Float[np.ndarray, "frames objects 2"]
    size: Float[np.ndarray, " objects"]
    log_scale: Float[np.ndarray, "frames objects 3"]
    error: Float[np.ndarray, " objects"]

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the error of each object's depth, and the root mean square of its corrections."""
        rms = np.sqrt((self.log_scale[..., 0] ** 2).mean(0))
        return {
            str(label): {"scale_error": round(float(e), 5), "corrected": round(float(c), 5)}
            for label, e, c in zip(self.objects, self.error, rms, strict=True)
        }

    @property
    def magnitude(self) -> float:
        """Root mean square of the logarithms of the scales at the centres."""
        scales = self.log_scale[..., 0]
        return float(np.sqrt((scales**2).mean())) if scales.size else 0.0

    @classmethod
    def none(cls, tracks: LiftedTracks) -> ObjectDepth:
        """Return zero corrections for the objects of the tracks, px as in `tracks.xy`."""
        objects, number = np.unique(tracks.object, return_inverse=True)
        frames = tracks.num_frames
        centre, size = np.zeros((frames, len(objects), 2)), np.ones(len(objects))
        for i in range(len(objects)):
            xy, seen = tracks.xy[number == i], tracks.visible[number == i][..., None]
            centre[:, i] = (seen * xy).sum(0) / np.maximum(seen.sum(0), 1)
            spread = (seen * (xy - centre[:, i]) ** 2).sum() / max(2 * int(seen.sum()), 1)
            size[i] = max(float(np.sqrt(spread)), 1.0)
        log_scale = np.zeros((frames, len(objects), 3))
        return cls(objects, centre, size, log_scale, np.zeros(len(objects)))

    def offsets(
        self,
        xy: Float[np.ndarray, "*points 2"],
        frame: Int[np.ndarray, "*points"],
        number: Int[np.ndarray, "*points"],
    ) -> Float[np.ndarray, "*points 3"]:
        """Return the factors of `log_scale` at image positions.

        Args:
            xy: px.
            frame: index into the F frames.
            number: of the object, an index into `objects`.
        """
        relative = (xy - self.centre[frame, number]) / self.size[number][..., None]
        relative = relative.clip(-_MAX_OFFSET, _MAX_OFFSET)
        return np.concatenate([np.ones((*relative.shape[:-1], 1)), relative], axis=-1)

    def correct_map(
        self,
        depth: Float[np.ndarray, "height width"],
        mask: Shaped[np.ndarray, "height width"],
        frame: int,
    ) -> Float[np.ndarray, "height width"]:
        """Return the depth map of a frame with corrected objects; unknown pixels stay unknown."""
        result = depth.copy()
        for number, instance in enumerate(self.objects):
            y, x = np.nonzero(mask == instance)
            xy = np.stack([x, y], axis=1) + 0.5
            log_scale = self._at(xy, np.full(len(xy), frame), np.full(len(xy), number))
            result[y, x] *= np.exp(log_scale).astype(depth.dtype)
        return result

    def correct_tracks(
        self, tracks: LiftedObservations, centres: Float[np.ndarray, "frames 3"]
    ) -> LiftedObservations:
        """Return tracks at corrected depth, moved along their rays.

        Args:
            tracks: in the F frames.
            centres: of the cameras.
        """
        number = np.searchsorted(self.objects, tracks.object)[tracks.track]
        log_scale = self._at(tracks.xy, tracks.frame, number)
        centre = centres[tracks.frame]
        moved = centre + np.exp(log_scale)[:, None] * (tracks.xyz - centre)
        return replace(tracks, xyz=moved)

    def _at(
        self,
        xy: Float[np.ndarray, "*points 2"],
        frame: Int[np.ndarray, "*points"],
        number: Int[np.ndarray, "*points"],
    ) -> Float[np.ndarray, "*points"]:
        """Return the logarithm of the scale at image positions, arguments as of `offsets`."""
        return (self.offsets(xy, frame, number) * self.log_scale[frame, number]).sum(-1)


def scale_error(
    distances: Float[np.ndarray, "tracks frames"], visible: Bool[np.ndarray, "tracks frames"]
) -> float:
    """Return the error per frame of the logarithm of an object's scale, 0 if there are few tracks.

    It is the standard deviation of white noise that has the observed second differences over time,
    where those of a frame are the median over the tracks.

    Args:
        distances: from the camera.
        visible: where they are known.
    """
    valid = visible[:, 2:] & visible[:, 1:-1] & visible[:, :-2]
    log = np.log(np.where(visible, distances, 1.0))
    second = log[:, 2:] - 2 * log[:, 1:-1] + log[:, :-2]
    frames = np.flatnonzero(valid.sum(0) >= _MIN_TRACKS)
    if len(frames) < _MIN_FRAMES:
        return 0.0
    common = [np.median(second[valid[:, frame], frame]) for frame in frames]
    return noise_of_second_differences(np.array(common))


class ObjectDepthModel:
    """Corrections as parameters of an optimisation on tracks.

    Attributes:
        parameter: [F, O, 3], in multiples of the prior standard deviations.
    """

    def __init__(self, tracks: LiftedTracks, distances: Float[np.ndarray, "tracks frames"]) -> None:
        """Make corrections of zero.

        Args:
            tracks: in F frames.
            distances: of the tracks from the cameras.
        """
        self.start = ObjectDepth.none(tracks)
        self.number = np.searchsorted(self.start.objects, tracks.object)
        self.offsets = torch.empty((*tracks.visible.shape, 3))
        for frame in range(tracks.num_frames):
            every = np.full(len(tracks), frame)
            offsets = self.start.offsets(tracks.xy[:, frame], every, self.number)
            self.offsets[:, frame] = torch.from_numpy(offsets)
        objects = range(len(self.start.objects))
        # Objects that a frame does not show have no correction there.
        seen = np.stack([tracks.visible[self.number == i].sum(0) for i in objects], axis=-1)
        self.shown = torch.from_numpy(seen > 0).float()[..., None]
        weight = np.maximum(seen / _INDEPENDENT_TRACKS, 1)
        self.prior_weight = torch.from_numpy(weight).float()[..., None]
        own = [self.number == i for i in objects]
        self.error = np.array([scale_error(distances[i], tracks.visible[i]) for i in own])
        self.expected = torch.from_numpy(self.error).float()[:, None] * torch.tensor(
            [1.0, _SLOPE, _SLOPE]
        )
        self.parameter = torch.zeros(self.start.log_scale.shape, requires_grad=True)

    def _log_scale(self) -> Float[Tensor, "frames objects 3"]:
        return self.expected * self._centred()

    def _centred(self) -> Float[Tensor, "frames objects 3"]:
        """Return the parameters with a mean of zero over the frames that show an object."""
        own = self.parameter * self.shown
        return (own - own.sum(0) / self.shown.sum(0).clamp_min(1)) * self.shown

    def scales(self, frames: Int[Tensor, " chosen"]) -> Float[Tensor, "tracks chosen"]:
        """Return the factor of each track's depth in some frames."""
        own = self._log_scale()[frames][:, torch.from_numpy(self.number)].transpose(0, 1)
        return (own * self.offsets[:, frames]).sum(-1).exp()

    def negative_log_prior(self, frames: Int[Tensor, " chosen"]) -> Float[Tensor, ""]:
        """Return that of some frames' corrections, up to a constant."""
        squared = self._centred()[frames].square() * self.prior_weight[frames]
        return 0.5 * (squared * (self.expected > 0)).sum()

    def result(self) -> ObjectDepth:
        """Return the corrections."""
        log_scale = self._log_scale().detach().double().numpy()
        return replace(self.start, log_scale=log_scale, error=self.error)
