"""Which pixels of a held-out camera show surface that the input camera has seen."""

import numpy as np

from msdyn.synthetic.raycast import Caster, SurfacePoints

__all__ = ["covisible_pixels", "required_frames"]

CHUNK = 200_000  # points followed at a time, to bound memory


def required_frames(frames: int) -> float:
    """Return the number of input frames that must be exceeded: dycheck's max(5, 10 %)."""
    return max(5.0, 0.1 * frames)


def covisible_pixels(caster: Caster, points: SurfacePoints, static: np.ndarray) -> np.ndarray:
    """Tell for every pixel of a static camera whether the input camera sees its surface point.

    The point moves with its surface; it must be seen in more than `required_frames` of the frames.

    Args:
        caster: the scene.
        points: [T * P] the surface points at the P pixel centres in every frame.
        static: [T, P] bool, pixels that show a static surface: there a pixel shows the same point
            whenever it shows a static one.

    Returns:
        [T, P] bool.

    Reference: Gao et al., "Monocular Dynamic View Synthesis: A Reality Check", 2022.
    """
    frames, pixels = static.shape
    index = np.arange(frames * pixels).reshape(frames, pixels)
    first_static = static.argmax(0)
    moving = index[~static]
    stationary = index[first_static, np.arange(pixels)][static.any(0)]
    result = np.zeros((frames, pixels), bool)
    result[~static] = seen_often(caster, points.select(moving))
    background = np.zeros(pixels, bool)
    background[static.any(0)] = seen_often(caster, points.select(stationary))
    return np.where(static, background, result)


def seen_often(caster: Caster, points: SurfacePoints) -> np.ndarray:
    """Return [N] bool: points that the input camera sees in more than `required_frames`."""
    spec = caster.spec
    required = required_frames(spec.frames)
    # Frames far apart come first: most points are decided after a few of them.
    order = np.argsort(np.arange(spec.frames) * 0.618034 % 1).tolist()
    count = np.zeros(len(points), int)
    for start in range(0, len(points), CHUNK):
        open_cases = np.arange(start, min(start + CHUNK, len(points)))
        for done, frame in enumerate(order, 1):
            seen = caster.visible(frame, spec.cameras[frame], points.select(open_cases))
            count[open_cases] += seen
            reachable = count[open_cases] + spec.frames - done
            undecided = (count[open_cases] <= required) & (reachable > required)
            open_cases = open_cases[undecided]
    return count > required
