"""Cuts: where one shot ends and the next begins.

Between two frames of a shot, however the camera moves, optical flow finds most of the second image
in the first; across a cut it finds nothing. A pair of frames is a cut where what flow explains of
the detail is little, and much less than between the frames around it. Fades and dissolves are not
found: they have no one frame at which to cut.
"""

from __future__ import annotations

import numpy as np

from msdyn.preprocess.imaging.flow import estimate_flow

__all__ = ["THUMBNAIL_WIDTH", "find_cuts"]

THUMBNAIL_WIDTH = 160
# On camel, duck and hand .73 or more of the detail is explained between neighbouring frames; three
# frames apart .22, amid others of .5. Between frames of different clips it is .20 at most, and .30
# between fine random textures.
MAX_EXPLAINED, MIN_DROP = 0.45, 0.35
NEIGHBOURS = 3
# Pairs that correlate like this without any flow need no closer look.
PLAINLY_ALIKE = 0.9
MIN_CONTRAST = 2.0  # grey levels; flatter images tell nothing
DETAIL_PX = 4.0


def find_cuts(thumbnails: np.ndarray) -> np.ndarray:
    """Return the first frames of all shots but the first, increasing.

    Args:
        thumbnails: [T, h, w] uint8, grey, about `THUMBNAIL_WIDTH` px wide.
    """
    if len(thumbnails) < 3:
        return np.zeros(0, int)
    explained = np.array(
        [_explained(a, b) for a, b in zip(thumbnails, thumbnails[1:], strict=False)]
    )
    cuts = []
    for pair in np.flatnonzero(explained < MAX_EXPLAINED):
        around = np.concatenate(
            [explained[max(0, pair - NEIGHBOURS) : pair], explained[pair + 1 :][:NEIGHBOURS]]
        )
        if np.median(around) - explained[pair] > MIN_DROP:
            cuts.append(pair + 1)
    return np.array(cuts, int)


def _explained(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of an image's detail with the other's, brought there by flow."""
    import cv2

    a, b = first.astype(np.float32), second.astype(np.float32)
    if min(a.std(), b.std()) < MIN_CONTRAST or np.corrcoef(a.ravel(), b.ravel())[0, 1] > (
        PLAINLY_ALIKE
    ):
        return 1.0
    flow = estimate_flow(first, second).forward
    rows, columns = np.mgrid[: a.shape[0], : a.shape[1]].astype(np.float32)
    there = cv2.remap(
        b,
        columns + flow[..., 0],
        rows + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    a, there = (image - cv2.GaussianBlur(image, (0, 0), DETAIL_PX) for image in (a, there))
    energy = float((a**2).sum() * (there**2).sum()) ** 0.5
    return float((a * there).sum()) / energy if energy > a.size else 1.0
