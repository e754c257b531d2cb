"""Finds frames that are blurred: less sharp than frames shortly before and shortly after them.

The sharpness of a tile of an image is the logarithm of its mean squared gradient. A moving object,
an occluder that passes, or a change of what is in view alters some tiles, or alters them for good;
a shake of the camera or a loss of focus lowers most of the tiles that have texture, and they
recover.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, UInt8

from msdyn.preprocess.imaging.flow import grey

__all__ = ["DIP", "REACH", "mark_blurred", "tile_sharpness"]

TILES = 8
"""Tiles per side of the image."""
REACH = 4
"""A frame is compared with the sharpest of this many frames on either side."""
DIP = 0.35
"""Natural logarithm of the drop in squared gradients above which a frame counts as blurred. In any
frame of seven real clips, 384 px wide, the drop is .20 at most. Motion blur of 8 px in one frame
gives .36 to .81, of 12 px .58 or more; of 3 px, which does not disturb flow, .29 at most."""
SMOOTHING_PX = 1.0
"""Gradients are those of a smoothed image: noise of the sensor stays sharp in a blurred one."""
FLOOR = 4.0
"""Squared grey levels per px, added so that tiles without texture have no large logarithms."""


def tile_sharpness(
    image: UInt8[np.ndarray, "height width 3"],
) -> Float[np.ndarray, "tiles tiles"]:
    """Return the natural logarithm of the mean squared gradient of each tile of an image."""
    import cv2

    smooth = cv2.GaussianBlur(grey(image).astype(np.float32), (0, 0), SMOOTHING_PX)
    across, down = smooth[1:-1, 2:] - smooth[1:-1, :-2], smooth[2:, 1:-1] - smooth[:-2, 1:-1]
    energy = cv2.resize(across**2 + down**2, (TILES, TILES), interpolation=cv2.INTER_AREA)
    return np.log(energy + FLOOR)


def mark_blurred(
    images: Iterable[UInt8[np.ndarray, "height width 3"]],
) -> Iterator[tuple[UInt8[np.ndarray, "height width 3"], bool]]:
    """Yield each image with whether it is blurred, holding `REACH` images in memory.

    The first and the last image are never blurred: they have neighbours on one side only.
    """
    before: deque[np.ndarray] = deque(maxlen=REACH)
    ahead: deque[tuple[np.ndarray, np.ndarray]] = deque()
    for image in images:
        ahead.append((image, tile_sharpness(image)))
        if len(ahead) > REACH:
            yield _judged(before, ahead)
    while ahead:
        yield _judged(before, ahead)


def _judged(
    before: deque[np.ndarray], ahead: deque[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, bool]:
    """Move the first image ahead to those before; return it, and whether it is blurred."""
    image, own = ahead.popleft()
    blurred = False
    if before and ahead:
        sharpest = np.minimum(
            np.max(before, axis=0), np.max([sharpness for _, sharpness in ahead], axis=0)
        )
        textured = sharpest >= np.median(sharpest)
        blurred = bool(np.median((sharpest - own)[textured]) > DIP)
    before.append(own)
    return image, blurred
