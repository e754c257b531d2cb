"""3D tracks of single pixels of a clip, from the network's windows.

A query is at the pixel of the network's image nearest to it. The frame of each query must be an
input frame, because only there the network predicts a point for the pixel. To take all of these
frames at once would make windows short; `windows_of_queries` takes them in turn instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Real

from msdyn.errors import InputError
from msdyn.feedforward.windows import (
    WindowPixels,
    choose_windows,
    key_frames_of,
    log_ratio,
    owners,
    trajectories,
)

__all__ = ["at_scale_of", "pixel_tracks", "windows_of_queries"]


def windows_of_queries(
    frames: int, length: int, every: int | None, overlap: int, wanted: Iterable[int]
) -> list[tuple[list[int], list[list[int]]]]:
    """Return several choices of windows, so that each wanted frame is an input frame of one.

    Each choice is that of `choose_windows` with input frames shifted to wanted ones, so that its
    windows span as much of the clip. Wanted frames beside the ends of the clip, which stay, are
    added.

    Args:
        frames, length, every, overlap: as for `choose_windows`.
        wanted: frames of queries.

    Returns:
        For each choice, the wanted frames that it has, increasing, and its windows.

    Raises:
        InputError: a number out of range.
    """
    regular = choose_windows(frames, length, every, overlap)
    inputs = np.unique([frame for window in regular for frame in window])
    shifts: dict[int, list[int]] = {}
    for frame in sorted({int(frame) for frame in wanted}):
        if not 0 <= frame < frames:
            raise InputError(f"queries: expected frames 0 to {frames - 1}, got {frame}")
        shifts.setdefault(frame - int(inputs[_nearest(inputs, frame)]), []).append(frame)
    choices = []
    for _, group in sorted(shifts.items()):
        chosen = set(inputs.tolist())
        for frame in group:
            nearest = _nearest(inputs, frame)
            if 0 < nearest < len(inputs) - 1:
                chosen.discard(int(inputs[nearest]))
            chosen.add(frame)
        order = sorted(chosen)
        windows = choose_windows(len(order), length, 1, overlap)
        choices.append((group, [[order[position] for position in w] for w in windows]))
    return choices


def at_scale_of(
    windows: Sequence[WindowPixels], reference: Sequence[WindowPixels]
) -> list[WindowPixels]:
    """Bring windows to the scale of others of the same clip, at the ends of the clip.

    Args:
        windows: at one scale, from the first frame of the clip to the last.
        reference: likewise, with other input frames between.
    """
    ratios = [log_ratio(reference[end], windows[end]) for end in (0, -1)]
    factor = float(np.exp(np.mean(ratios)))
    return [window.scaled(factor) for window in windows]


def _nearest(inputs: Int[np.ndarray, " inputs"], frame: int) -> int:
    """Return the position of the input frame that is nearest to a frame."""
    return int(np.abs(inputs - frame).argmin())


def pixel_tracks(
    windows: Sequence[WindowPixels],
    query_frame: Int[np.ndarray, " queries"],
    query_xy: Real[np.ndarray, "queries 2"],
    size: tuple[int, int],
    frames: int,
) -> Float64[np.ndarray, "queries frames 3"]:
    """Return the positions of the points at some pixels in all frames of the clip, world.

    Between input frames positions are interpolated linearly.

    Args:
        windows: at one scale.
        query_frame: frame of each query, an input frame.
        query_xy: px of the clip's images.
        size: width and height of the clip's images, px.
        frames: number of frames of the clip.

    Raises:
        InputError: the frame of a query is not an input frame.
    """
    keys, owned = key_frames_of(windows), owners(windows)
    result = np.zeros((len(query_frame), frames, 3))
    for frame in np.unique(query_frame).tolist():
        if frame not in owned:
            raise InputError(f"queries: expected input frames of the network, got frame {frame}")
        rows = np.flatnonzero(query_frame == frame)
        number, position = owned[frame]
        window = windows[number]
        pixels = _nearest_pixels(query_xy[rows], size, window.depth.shape[1:])
        start = window.splats.means[position].reshape(-1, 3)[pixels]
        moved = trajectories(windows, number, position, keys, pixels=pixels)
        positions = (start[:, None] + moved).double().numpy()
        result[rows] = _interpolated(positions, keys, frames)
    return result


def _nearest_pixels(
    xy: Real[np.ndarray, "queries 2"], size: tuple[int, int], shape: Sequence[int]
) -> Int[torch.Tensor, " queries"]:
    """Return indices into the flattened map of the pixels at positions in a larger image."""
    height, width = shape
    scaled = np.asarray(xy, np.float64) * np.array([width, height]) / np.array(size)
    column = np.floor(scaled[:, 0]).clip(0, width - 1)
    row = np.floor(scaled[:, 1]).clip(0, height - 1)
    return torch.from_numpy((row * width + column).astype(np.int64))


def _interpolated(
    positions: Float[np.ndarray, "queries keys 3"], keys: Sequence[int], frames: int
) -> Float64[np.ndarray, "queries frames 3"]:
    """Return positions at all frames; before the first key and after the last they stay."""
    place = np.interp(np.arange(frames), keys, np.arange(len(keys)))
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(keys) - 1)
    share = (place - low)[:, None]
    return (1 - share) * positions[:, low] + share * positions[:, high]
