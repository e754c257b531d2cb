"""Windows of a clip, which the network processes one at a time, and how they are joined.

A window is a sequence of input frames. Neighbouring windows share frames, at which the predicted
depth is brought to one scale, and at which points are handed on from one window to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from msdyn.errors import InputError
from msdyn.feedforward.splats import SplatterPixels
from msdyn.geometry import Cameras
from msdyn.indices import evenly_spaced

__all__ = [
    "WindowPixels",
    "choose_windows",
    "default_overlap",
    "key_frames_of",
    "log_ratio",
    "match_scales",
    "owners",
    "pixels_of",
    "trajectories",
]

_OWN_SCALE = 0.05
"""Weight of the scale that each window has by its cameras, against that of a neighbour."""
_SAME_SURFACE = 0.05
"""Relative difference of depth up to which a point is on the surface seen in a pixel."""


@dataclass(frozen=True)
class WindowPixels:
    """The prediction for one window: a Gaussian per pixel of its F frames, in the world.

    Attributes:
        frames: indices in the clip, increasing.
        cameras: of these frames, for images of the size of the maps.
        depth: z-depth, scene units.
        splats: at the frames' own times.
        displacements: to the times of all frames of the window, scene units.
        scale: of the network's world, in scene units.
    """

    frames: list[int]
    cameras: Cameras
    depth: Float[Tensor, "frames height width"]
    splats: SplatterPixels
    displacements: Float[Tensor, "frames height width keys 3"]
    scale: float

    def scaled(self, factor: float) -> WindowPixels:
        """Return the same prediction at another scale: depth and displacements multiplied."""
        centres = torch.as_tensor(self.cameras.centres, dtype=self.depth.dtype)[:, None, None]
        splats = replace(
            self.splats,
            means=centres + factor * (self.splats.means - centres),
            scales=factor * self.splats.scales,
        )
        return replace(
            self,
            depth=factor * self.depth,
            splats=splats,
            displacements=factor * self.displacements,
            scale=factor * self.scale,
        )


def default_overlap(length: int) -> int:
    """Return the number of input frames that windows of a length share by default."""
    return max(1, length // 4)


def choose_windows(frames: int, length: int, every: int | None, overlap: int) -> list[list[int]]:
    """Return the input frames of each window.

    Args:
        frames: number of frames of the clip.
        length: frames of a window, at least 2.
        every: distance of the input frames; None for as little as one window allows, at most 4.
        overlap: input frames that neighbouring windows share, at least 1.

    Returns:
        Windows of equal length, evenly spaced; the last frame of the clip is in the last one.

    Raises:
        InputError: a number out of range.
    """
    for name, value, least in (("frames", length, 2), ("overlap", overlap, 1)):
        if value < least:
            raise InputError(f"{name}: expected at least {least}, got {value}")
    if every is not None and every < 1:
        raise InputError(f"every: expected at least 1, got {every}")
    if overlap >= length:
        raise InputError(f"overlap: expected less than {length}, the frames of a window, "
                         f"got {overlap}")  # fmt: skip
    if every is None:
        every = int(np.clip(round((frames - 1) / (length - 1)), 1, 4))
    # The last frame is an input frame too, so that the whole clip is covered.
    count = max(2, round((frames - 1) / every) + 1)
    inputs = evenly_spaced(frames, count)
    length = min(length, len(inputs))
    overlap = min(overlap, length - 1)
    windows = 1 + max(0, -(-(len(inputs) - length) // (length - overlap)))
    starts = np.linspace(0, len(inputs) - length, windows).round().astype(int)
    return [inputs[start : start + length].tolist() for start in starts]


def key_frames_of(windows: Sequence[WindowPixels]) -> list[int]:
    """Return all input frames, increasing."""
    return sorted({frame for window in windows for frame in window.frames})


def owners(windows: Sequence[WindowPixels]) -> dict[int, tuple[int, int]]:
    """Return, for each input frame, the window in which it is farthest from both ends.

    Returns:
        By frame, the number of the window and the position of the frame in it.
    """
    best: dict[int, tuple[int, int, int]] = {}
    for number, window in enumerate(windows):
        for position, frame in enumerate(window.frames):
            distance = min(position, len(window.frames) - 1 - position)
            if frame not in best or distance > best[frame][0]:
                best[frame] = (distance, number, position)
    return {frame: (number, position) for frame, (_, number, position) in sorted(best.items())}


def match_scales(
    windows: Sequence[WindowPixels],
) -> tuple[list[WindowPixels], list[dict[str, float]]]:
    """Bring the depth of all windows to one scale, at the frames that neighbours share.

    Least squares on the logarithms of the factors: of neighbours' differences, which are observed,
    and, with a small weight, of their size, because each window has a scale by its cameras, and
    errors of a long chain would add up.

    Returns:
        The windows, scaled, and for each pair of neighbours the observed factor between them, and
        what remains: `depth`, the median relative difference of depth,
        and `displacement`, the median difference of displacements between shared frames where
        either window has a displacement, relative to the larger of the two.
    """
    ratios = [log_ratio(a, b) for a, b in zip(windows, windows[1:], strict=False)]
    difference = np.diff(np.eye(len(windows)), axis=0)  # [pairs, windows]
    normal = difference.T @ difference + _OWN_SCALE * np.eye(len(windows))
    factors = np.exp(np.linalg.solve(normal, difference.T @ np.array(ratios)))
    scaled = [window.scaled(float(factor)) for window, factor in zip(windows, factors, strict=True)]
    residuals = []
    for number, (first, second) in enumerate(zip(scaled, scaled[1:], strict=False)):
        own, other = _shared(first, second)
        depth = (first.depth[own] / second.depth[other]).log().abs().median()
        residuals.append(
            {
                "factor": float(np.exp(ratios[number])),
                "depth": float(depth),
                "displacement": _displacement_residual(first, second),
            }
        )
    return scaled, residuals


def _shared(first: WindowPixels, second: WindowPixels) -> tuple[list[int], list[int]]:
    """Return the positions, in both windows, of the frames that they share."""
    frames = [frame for frame in first.frames if frame in second.frames]
    return [first.frames.index(f) for f in frames], [second.frames.index(f) for f in frames]


def log_ratio(first: WindowPixels, second: WindowPixels) -> float:
    """Return the logarithm of the factor that brings the second window to the first one's scale."""
    own, other = _shared(first, second)
    return float((first.depth[own] / second.depth[other]).log().median())


def _displacement_residual(first: WindowPixels, second: WindowPixels) -> float:
    own, other = _shared(first, second)
    a = first.displacements[own][..., own, :]
    b = second.displacements[other][..., other, :]
    size = torch.maximum(a.norm(dim=-1), b.norm(dim=-1))
    moving = size > 0.005 * first.scale
    if not moving.any():
        return 0.0
    return float(((a - b).norm(dim=-1) / size.clamp_min(1e-12))[moving].median())


def trajectories(
    windows: Sequence[WindowPixels],
    number: int,
    position: int,
    keys: Sequence[int],
    *,
    pixels: Int[Tensor, " pixels"] | None = None,
) -> Float[Tensor, "pixels keys 3"]:
    """Return the displacements of pixels of a frame to all key frames.

    Within the frame's window they are those predicted. Beyond it, points are handed on: at the last
    frame (or the first) that the next window shares, a point is projected into the image; if it is
    on the surface that the next window sees there, it moves on as that pixel does. Otherwise, it
    is occluded or outside the image and stays where it is.

    Args:
        windows: all windows, at one scale.
        number: of the window.
        position: of the frame in the window.
        keys: all input frames.
        pixels: indices of the flattened image; all of them by default.
    """
    window = windows[number]
    start = window.splats.means[position].reshape(-1, 3)
    chosen = slice(None) if pixels is None else pixels
    start = start[chosen]
    result = start.new_zeros(len(start), len(keys), 3)
    columns = [keys.index(frame) for frame in window.frames]
    result[:, columns] = window.displacements[position].reshape(-1, len(columns), 3)[chosen]
    for step in (1, -1):
        current, other = number, number + step
        while 0 <= other < len(windows):
            _hand_on(windows[current], windows[other], start, result, keys, forward=step > 0)
            current, other = other, other + step
    return result


def _hand_on(
    current: WindowPixels,
    following: WindowPixels,
    start: Float[Tensor, "pixels 3"],
    result: Float[Tensor, "pixels keys 3"],
    keys: Sequence[int],
    *,
    forward: bool,
) -> None:
    """Fill in the displacements at the frames of a window that the one before it does not have."""
    shared = [frame for frame in current.frames if frame in following.frames]
    frame = shared[-1] if forward else shared[0]
    here = following.frames.index(frame)
    moved = result[:, keys.index(frame)]
    pixel, on_surface = pixels_of(following, here, start + moved)
    beyond = [f for f in following.frames if (f > frame if forward else f < frame)]
    for key in beyond:
        column = following.frames.index(key)
        onward = following.displacements[here].reshape(-1, len(following.frames), 3)[pixel, column]
        result[:, keys.index(key)] = moved + onward * on_surface[:, None]


def pixels_of(
    window: WindowPixels, position: int, points: Float[Tensor, "points 3"]
) -> tuple[Int[Tensor, " points"], Bool[Tensor, " points"]]:
    """Return the pixel of a frame at which each point is, and whether it is on the surface there.

    Pixels are indices of the flattened image; those of points outside are arbitrary.
    """
    camera = window.cameras[position].tensors()
    pose, intrinsics = camera.cam_from_world[0], camera.intrinsics[0]
    local = points @ pose[:3, :3].T + pose[:3, 3]
    depth = local[:, 2]
    xy = (local @ intrinsics.T)[:, :2] / depth.clamp_min(1e-9)[:, None]
    height, width = window.depth.shape[1:]
    inside = (depth > 0) & (xy >= 0).all(1) & (xy < xy.new_tensor([width, height])).all(1)
    column = xy[:, 0].nan_to_num().clamp(0, width - 1).long()
    row = xy[:, 1].nan_to_num().clamp(0, height - 1).long()
    pixel = row * width + column
    seen = window.depth[position].reshape(-1)[pixel]
    return pixel, inside & ((depth / seen).log().abs() < _SAME_SURFACE)
