"""The order in which the Gaussians of a sequence are blended in a novel view.

Gaussians are sorted by the z-depth of their centres. Of neighbours on one surface, which are as far
apart as they are large, the nearer one covers a part of the other. Seen from elsewhere another one
is the nearer: what is left to be seen of each Gaussian moves to its far side, and with it the
texture that was fitted to it in another order, as if the whole surface were nearer than it is.
Sorted along the axis of the input camera about that time, neighbours cover each other as they did
in the fit.

Along any direction that makes an acute angle with all rays of a camera, what is farther on a ray
comes later: small Gaussians hide each other rightly. Large ones do up to a smaller angle.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from msdyn.devices import upload
from msdyn.geometry import Cameras, jumps, unproject
from msdyn.sequence import GaussianSequence

__all__ = ["Order", "input_axis", "jittered_axes", "order_along", "sort_axis", "steady_axis"]

Order = Literal["input", "own"]
"""Along which axis Gaussians are sorted: that of the input camera, or of the camera itself."""

# The largest angle between the axis of the order and a ray of the camera, degrees.
_MOST = 70.0
# Axes about a frame are averaged: those of frames this share of the clip away have 1/e of its
# weight; then those of all frames, of which the ones at so many degrees have 1/e of the weight.
_WINDOW, _NEAR = 0.1, 20.0


def order_along(
    means: Float[Tensor, "times gaussians 3"], axes: Float[Tensor, "times 3"]
) -> Float[Tensor, "times gaussians"]:
    """Return positive keys that sort Gaussians along a direction at each time; see `rasterize`."""
    along = (means.detach() @ axes[..., None])[..., 0].nan_to_num(0.0, 0.0, 0.0)
    if not along.shape[-1]:
        return along
    least, most = along.amin(-1, keepdim=True), along.amax(-1, keepdim=True)
    # The keys of a factor of four, which the sort of the CPU kernels is fast with.
    return along - least + ((most - least) / 3).clamp_min(1e-6)


def input_axis(sequence: GaussianSequence, camera: Cameras, time: float) -> Float[Tensor, "1 3"]:
    """Return the direction along which Gaussians are sorted in a camera, on the sequence's device.

    It is `sort_axis` for the `steady_axis` of the clip at a normalised time.
    """
    given = steady_axis(sequence.cameras, sequence.timeline.frame_position(time))
    axis = camera.cam_from_world[0, 2, :3] if given is None else sort_axis(camera, given)
    return upload(axis[None].astype(np.float32), sequence.device)


def steady_axis(cameras: Cameras, frame: float) -> Float[np.ndarray, " 3"] | None:
    """Return the mean of the axes of a clip's cameras about a frame, without the sway of a hand.

    With the sway, the order of neighbours would flicker. None for a camera that jumps, whose axis
    says nothing of how the neighbours of a frame were seen.

    Args:
        cameras: of all frames.
        frame: fractional index.
    """
    if jumps(cameras):
        return None
    axes = cameras.cam_from_world[:, 2, :3]
    away = (np.arange(len(axes)) - frame) / max(_WINDOW * len(axes), 1.0)
    mean = np.exp(-(away**2)) @ axes
    degrees = np.degrees(np.arccos(np.clip(axes @ mean / np.linalg.norm(mean), -1, 1)))
    mean = mean + np.exp(-((degrees / _NEAR) ** 2)) @ axes
    return mean / np.linalg.norm(mean)


def jittered_axes(
    cam_from_world: Float[Tensor, "cameras 4 4"], degrees: float, seed: tuple[int, ...]
) -> Float[Tensor, "cameras 3"]:
    """Return the axes of cameras, turned at random about the two others; not of unit length.

    Args:
        cam_from_world: rigid transforms.
        degrees: standard deviation of the angles.
        seed: of the angles.
    """
    angles = np.random.default_rng(seed).normal(scale=degrees, size=(len(cam_from_world), 2))
    slopes = np.tan(np.radians(angles.clip(-60, 60))).astype(np.float32)
    turns = upload(slopes, cam_from_world.device)
    right, down, ahead = cam_from_world[:, :3, :3].unbind(1)
    return ahead + turns[:, :1] * right + turns[:, 1:] * down


def sort_axis(camera: Cameras, given: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    """Return the direction nearest to a given one that is in front for all rays of a camera.

    It lies between the axis of the camera and the given one, at most 70 degrees from any ray; it
    is the axis of the camera if that is farther from its own rays.

    Args:
        camera: one camera.
        given: unit direction in the world.
    """
    own = camera.cam_from_world[0, 2, :3]
    width, height = camera.width, camera.height
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    rays = unproject(camera.intrinsics[0], corners, np.ones(4))
    half = np.degrees(np.arccos(1 / np.linalg.norm(rays, axis=1)).max())
    angle = np.degrees(np.arccos(np.clip(own @ given, -1, 1)))
    part = np.clip(_MOST - half, 0, angle)
    if np.sin(np.radians(angle)) < 1e-6:
        return own
    weights = np.sin(np.radians([angle - part, part])) / np.sin(np.radians(angle))
    return weights[0] * own + weights[1] * given
