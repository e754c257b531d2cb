"""Choosing frames of a clip, and cropping and resizing them, as the paper's training does.

Reference: MoVieS, 3.3 and the released code; docs/training_data.md says what is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped, UInt8
from PIL import Image

from msdyn.errors import InputError
from msdyn.feedforward.data.stored import StoredClip

__all__ = ["Crop", "FrameChoice", "QueryTimes", "choose_frames", "largest_angle", "random_crop"]

QueryTimes = Literal["frames", "random"]

_LONGEST_STEP = 4
"""Of input frames, in units of the stride of the data set."""
_WITH_INPUTS = 0.25
"""Share of samples whose outputs may be at the times of inputs."""
_ONE_TIME = 0.5
"""Share of samples of static clips whose outputs are all given one random time."""


@dataclass(frozen=True)
class FrameChoice:
    """Frames of a sample.

    Attributes:
        inputs, outputs: indices in the clip, increasing.
        times, query_times: of inputs and outputs, in [0, 1] over all of them.
    """

    inputs: Int64[np.ndarray, " frames"]
    outputs: Int64[np.ndarray, " queries"]
    times: Float64[np.ndarray, " frames"]
    query_times: Float64[np.ndarray, " queries"]


def choose_frames(
    clip: StoredClip,
    frames: int,
    queries: int,
    generator: np.random.Generator,
    *,
    stride: int,
    static: bool,
    query_times: QueryTimes = "random",
) -> FrameChoice:
    """Choose input frames, evenly spaced in a window of the clip, and output frames within it.

    Outputs are of the target view, if the clip has frames of it in the window. In a quarter of the
    samples they may be at the times of inputs, else they are not, if there are enough others. They
    differ if the window has enough frames.

    Args:
        clip: with at least `frames` frames that may be input.
        frames: inputs.
        queries: outputs.
        generator: of the choice.
        stride: the window has `frames` to 4 `stride` (`frames` - 1) + 1 frames.
        static: nothing moves; in half of the samples all outputs are given one random time.
        query_times: outputs are at times of inputs only, or as above.

    Raises:
        InputError: the clip has too few frames.
    """
    own, other = np.flatnonzero(~clip.target), np.flatnonzero(clip.target)
    if len(own) < frames:
        raise InputError(
            f"clip {clip.entry.key}: expected at least {frames} input frames, got {len(own)}"
        )
    longest = min(len(own), _LONGEST_STEP * stride * (frames - 1) + 1)
    length = int(generator.integers(frames, longest, endpoint=True))
    start = int(generator.integers(0, len(own) - length, endpoint=True))
    inputs = own[start + np.rint(np.linspace(0, length - 1, frames)).astype(np.int64)]

    times = clip.times
    first, last = times[inputs[0]], times[inputs[-1]]
    window = own[start : start + length]
    of_target = other[(times[other] >= first) & (times[other] <= last)]
    if len(of_target):
        window = of_target
    at_input = np.isin(times[window], times[inputs])
    if query_times == "frames":
        pool = window[at_input] if at_input.any() else inputs
    elif generator.random() >= _WITH_INPUTS and (~at_input).sum() >= queries:
        pool = window[~at_input]
    else:
        pool = window
    outputs = np.sort(generator.choice(pool, queries, replace=len(pool) < queries))

    span = max(last - first, 1e-12)
    normalised = (times - first) / span
    at = normalised[outputs]
    if static and query_times == "random" and generator.random() < _ONE_TIME:
        at = np.full(queries, generator.random())
    return FrameChoice(inputs, outputs, normalised[inputs], at)


def largest_angle(world_from_cam: Float64[np.ndarray, "frames 4 4"]) -> float:
    """Return the largest rotation between the cameras of neighbouring frames, degrees."""
    rotation = world_from_cam[:, :3, :3]
    traces = np.einsum("fij,fij->f", rotation[1:], rotation[:-1])
    return float(np.degrees(np.arccos(((traces - 1) / 2).clip(-1, 1))).max(initial=0))


@dataclass(frozen=True)
class Crop:
    """A part of an image, which is resized.

    Attributes:
        box: left, top, right, bottom, px of the original, fractions of pixels too.
        original: height and width of the original.
        size: height and width of the result.
    """

    box: tuple[float, float, float, float]
    original: tuple[int, int]
    size: tuple[int, int]

    def image(
        self, image: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[np.ndarray, "new_height new_width 3"]:
        """Crop an image and resize it without aliasing."""
        height, width = self.size
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, self.box)
        return np.asarray(resized)

    def nearest(
        self, values: Shaped[np.ndarray, "height width"]
    ) -> Shaped[np.ndarray, "new_height new_width"]:
        """Crop a map; each pixel has the value of the original pixel that contains its centre."""
        left, top, right, bottom = self.box
        height, width = self.size
        rows = top + (np.arange(height) + 0.5) * (bottom - top) / height
        columns = left + (np.arange(width) + 0.5) * (right - left) / width
        rows = rows.astype(np.int64).clip(0, self.original[0] - 1)
        return values[rows[:, None], columns.astype(np.int64).clip(0, self.original[1] - 1)]

    def intrinsics(
        self, intrinsics: Float64[np.ndarray, "*batch 4"]
    ) -> Float32[np.ndarray, "*batch 4"]:
        """Return the (fx/W, fy/H, cx/W, cy/H) of the result."""
        left, top, right, bottom = self.box
        sides = np.array([self.original[1], self.original[0]])
        extent = np.array([right - left, bottom - top])
        focal = intrinsics[..., :2] * sides / extent
        centre = (intrinsics[..., 2:] * sides - [left, top]) / extent
        return np.concatenate([focal, centre], axis=-1).astype(np.float32)


def random_crop(
    original: tuple[int, int],
    size: tuple[int, int],
    share: tuple[float, float],
    generator: np.random.Generator,
) -> Crop:
    """Return a crop about the centre, of the largest with the aspect of `size` a random share.

    Args:
        original: height and width of the images.
        size: height and width of the result.
        share: smallest and largest share of either side.
        generator: of the share.
    """
    height, width = original
    largest = min(width / size[1], height / size[0]) * generator.uniform(*share)
    # Exact sides where nothing is cut off.
    crop_width, crop_height = min(largest * size[1], width), min(largest * size[0], height)
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return Crop((left, top, left + crop_width, top + crop_height), original, size)
