"""Which pixels of a held-out camera show surface that is visible to the input camera."""

import numpy as np
from jaxtyping import Bool

from msdyn.synthetic.raycast import Caster, SurfacePoints

__all__ = ["covisible_pixels", "required_frames"]

CHUNK = 200_000  # points traced at a time, to bound memory


def required_frames(frames: int) -> float:
    """Return the number of input frames that must be exceeded: dycheck's max(5, 10 %)."""
    return max(5.0, 0.1 * frames)


def covisible_pixels(
    caster: Caster, points: SurfacePoints, static: Bool[np.ndarray, "frames pixels"]
) -> Bool[np.ndarray, "frames pixels"]:
    """Return for every pixel of a static camera whether the input camera sees its surface point.

    The point moves with its surface; it must be visible in more than `required_frames` frames.

    Args:
        caster: the scene.
        points: the surface points at all pixel centres in every frame, frame by frame.
        static: pixels that show a static surface. Such a pixel shows the same point in all frames
            in which it shows a static surface.

    Reference: Gao et al., "Monocular Dynamic View Synthesis: A Reality Check", 2022.
    """
    frames, pixels = static.shape
    index = np.arange(frames * pixels).reshape(frames, pixels)
    first_static = static.argmax(0)
    dynamic_points = index[~static]
    static_points = index[first_static, np.arange(pixels)][static.any(0)]
    result = np.zeros((frames, pixels), bool)
    result[~static] = _visible_in_enough_frames(caster, points.select(dynamic_points))
    background = np.zeros(pixels, bool)
    background[static.any(0)] = _visible_in_enough_frames(caster, points.select(static_points))
    return np.where(static, background, result)


def _visible_in_enough_frames(caster: Caster, points: SurfacePoints) -> Bool[np.ndarray, " points"]:
    """Return which points the input camera sees in more than `required_frames` frames."""
    spec = caster.spec
    required = required_frames(spec.frames)
    # Frames far apart come first (golden ratio): most points are decided after a few of them.
    order = np.argsort(np.arange(spec.frames) * 0.618034 % 1).tolist()
    count = np.zeros(len(points), int)
    for start in range(0, len(points), CHUNK):
        undecided = np.arange(start, min(start + CHUNK, len(points)))
        for done, frame in enumerate(order, 1):
            count[undecided] += caster.visible(frame, spec.cameras[frame], points.select(undecided))
            attainable = count[undecided] + spec.frames - done
            undecided = undecided[(count[undecided] <= required) & (attainable > required)]
    return count > required
