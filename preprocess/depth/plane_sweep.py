"""Plane sweep stereo: the inverse depth of every pixel from neighbouring frames of known cameras.

The reference image is compared with its neighbours, warped by each of many planes parallel to the
image, evenly spaced in inverse depth. Semi-global matching (Hirschmueller, "Stereo processing by
semiglobal matching and mutual information", PAMI 2008) picks a plane for each pixel such that
neighbouring pixels agree, and a parabola interpolates between planes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

__all__ = ["Picture", "match_cost", "pick_planes", "plane_homographies", "semi_global"]

PATCH = 5  # px, side of the compared windows
NORMALISED = 7  # px, side of the window whose mean and contrast are normalised
SHIFT = 3  # px, side of the square in which the window of a pixel may be centred
# Variance (of intensities in [0, 1]) below which a window has no texture: that of the noise of a
# compressed video, 2 grey levels.
NOISE_VARIANCE = (2 / 255) ** 2
NO_MATCH = 1.0  # cost of a pixel without a visible neighbour: that of two unrelated windows


@dataclass(frozen=True)
class Picture:
    """A frame as input of a sweep.

    Attributes:
        gray: [H, W] in [0, 1].
        usable: [H, W] 1 on the body that is measured, 0 elsewhere.
        intrinsics: [3, 3] px of this size.
        cam_from_world: [4, 4].
    """

    gray: Float32[np.ndarray, "height width"]
    usable: Float32[np.ndarray, "height width"]
    intrinsics: Float[np.ndarray, "3 3"]
    cam_from_world: Float[np.ndarray, "4 4"]


def plane_homographies(
    reference: Picture, other: Picture, inverse_depths: Float[np.ndarray, " planes"]
) -> Float[np.ndarray, "planes 3 3"]:
    """Return the maps [D, 3, 3] of pixels of `reference` to `other` by planes parallel to it.

    Of array indices, whose origin is the centre of the first pixel.

    Args:
        reference, other: two frames.
        inverse_depths: [D] of the planes, 1 / scene units.
    """
    other_from_reference = other.cam_from_world @ np.linalg.inv(reference.cam_from_world)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    pixel_from_ray = np.linalg.inv(half) @ other.intrinsics
    ray_from_pixel = np.linalg.inv(reference.intrinsics) @ half
    far = pixel_from_ray @ other_from_reference[:3, :3] @ ray_from_pixel
    nearer = np.outer(pixel_from_ray @ other_from_reference[:3, 3], ray_from_pixel[2])
    return far + inverse_depths[:, None, None] * nearer


def match_cost(
    reference: Picture,
    sides: list[list[Picture]],
    inverse_depths: Float[np.ndarray, " planes"],
) -> Float32[np.ndarray, "planes height width"]:
    """Return the matching cost of each pixel at each plane, [D, H, W] in [0, 2].

    One minus the correlation of small windows of the locally normalised images, over all neighbours
    of a side in which the pixel is visible. The lower cost of the two sides is taken, since a pixel
    that is occluded before is often visible after.

    Args:
        reference: the frame whose depth is estimated.
        sides: neighbours before and after it, each a list (either may be empty).
        inverse_depths: [D] of the planes, 1 / scene units.
    """
    import cv2

    height, width = reference.gray.shape
    volume = np.full((len(inverse_depths), height, width), np.inf, np.float32)
    # Windows contain pixels of the body only, not those of a moving object next to it.
    own = reference.usable
    here = _normalised(reference) * own
    here_squared = here * here
    for side in filter(None, sides):
        layers = [np.where(p.usable > 0, _normalised(p), np.float32(np.nan)) for p in side]
        maps = [plane_homographies(reference, p, inverse_depths) for p in side]
        for plane in range(len(inverse_depths)):
            product = np.zeros((height, width), np.float32)
            there_squared = np.zeros((height, width), np.float32)
            visible = np.zeros((height, width), np.float32)
            for layer, there_from_here in zip(layers, maps, strict=True):
                there = cv2.warpPerspective(
                    layer,
                    there_from_here[plane],
                    (width, height),
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                    borderValue=np.nan,
                )
                visible += np.isfinite(there)
                cv2.patchNaNs(there, 0)
                cv2.accumulate(there, product)
                cv2.accumulateSquare(there, there_squared)
            power = _box(here_squared * visible) * _box(there_squared * own)
            correlation = _box(product * here) / np.sqrt(power + 1e-3)
            cost = np.where(visible > 0, 1 - correlation, NO_MATCH)
            np.minimum(volume[plane], cost, out=volume[plane])
    volume[np.isinf(volume)] = NO_MATCH
    # A window across an edge may be shifted to the side where it matches: otherwise the edges of
    # near surfaces are displaced by half a window.
    shifts = np.ones((SHIFT, SHIFT), np.uint8)
    return np.stack([cv2.erode(cost, shifts) for cost in volume])


def _normalised(picture: Picture) -> Float32[np.ndarray, "height width"]:
    """Return the image [H, W] with local mean and contrast normalised."""
    share = np.maximum(_box(picture.usable, NORMALISED), 1e-6)
    mean = _box(picture.gray * picture.usable, NORMALISED) / share
    square = _box(picture.gray**2 * picture.usable, NORMALISED) / share
    variance = np.maximum(square - mean**2, 0) + NOISE_VARIANCE
    return (picture.gray - mean) / np.sqrt(variance)


def _box(
    image: Float32[np.ndarray, "height width"], side: int = PATCH
) -> Float32[np.ndarray, "height width"]:
    """Return the mean over windows of `side` px."""
    import cv2

    return cv2.boxFilter(image, -1, (side, side), borderType=cv2.BORDER_REFLECT_101)


def semi_global(
    cost: Float32[np.ndarray, "planes height width"],
    image: Float32[np.ndarray, "height width"],
    small: float,
    large: float,
) -> Float32[np.ndarray, "planes height width"]:
    """Return the cost [D, H, W] summed along paths from left, right, top and bottom.

    Args:
        cost: [D, H, W].
        image: [H, W] in [0, 1]; at its edges a discontinuity of depth costs less.
        small: penalty of a change by one plane from pixel to pixel.
        large: penalty of any larger change.
    """
    by_pixel = np.ascontiguousarray(cost.transpose(1, 2, 0))  # [H, W, D]
    total = np.zeros_like(by_pixel)
    for axis in (0, 1):
        lines = by_pixel.swapaxes(0, axis)  # one line after another along the path
        sums = total.swapaxes(0, axis)
        edge = np.abs(np.diff(image.swapaxes(0, axis), axis=0))
        # Always more than the penalty of a change by one plane.
        jump = np.maximum(large / (1 + edge / 0.05), 1.5 * small).astype(np.float32)
        for order in (1, -1):
            _scan(lines[::order], sums[::order], jump[::order], small)
    return total.transpose(2, 0, 1)


def _scan(
    lines: Float32[np.ndarray, "lines pixels planes"],
    sums: Float32[np.ndarray, "lines pixels planes"],
    jump: Float32[np.ndarray, "steps pixels"],
    small: float,
) -> None:
    """Add the path costs of one direction, line by line, to `sums`."""
    path = lines[0].copy()
    sums[0] += path
    for line in range(1, len(lines)):
        least = path.min(axis=1, keepdims=True)
        best = np.minimum(path, least + jump[line - 1][:, None])
        np.minimum(best[:, 1:], path[:, :-1] + small, out=best[:, 1:])
        np.minimum(best[:, :-1], path[:, 1:] + small, out=best[:, :-1])
        best -= least
        best += lines[line]
        path = best
        sums[line] += path


def pick_planes(
    total: Float[np.ndarray, "planes height width"],
) -> tuple[Float32[np.ndarray, "height width"], Int[np.ndarray, "height width"]]:
    """Return the index of the plane of least cost [H, W], interpolated and as an integer."""
    best = total.argmin(axis=0)
    inner = best.clip(1, len(total) - 2)
    before, here, after = (
        np.take_along_axis(total, (inner + step)[None], axis=0)[0] for step in (-1, 0, 1)
    )
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / np.maximum(bend, 1e-9)
    refined = np.where(best == inner, inner + shift.clip(-0.5, 0.5), best)
    return refined.astype(np.float32), best
