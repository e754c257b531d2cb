"""Detects cuts, where one shot ends and the next begins.

Within a shot, however the camera moves, most of an image can be warped to the next one by optical
flow; across a cut it cannot. A pair of frames is a cut where the correlation of the warped detail
is low, and much lower than for the pairs around it, unless a few blurred frames are the reason: the
frames before and after those match. Fades and dissolves, which have no single frame of transition,
are not detected.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8

from msdyn.preprocess.imaging.flow import estimate_flow

__all__ = ["MIN_CONTRAST", "THUMBNAIL_SIDE", "find_cuts"]

THUMBNAIL_SIDE = 160
# The correlation on camel, duck and hand is .73 or more between neighbouring frames; three frames
# apart at least .22, with .5 around it. Between frames of different clips it is .20 at most, and
# .30 between fine random textures.
MAX_CORRELATION, MIN_DROP = 0.45, 0.35
NEIGHBOURS = 3
LONGEST_BLINK = 4  # frames
SIMILAR = 0.9  # correlation without flow above which a pair is no cut
MIN_CONTRAST = 2.0  # grey levels; images with less have no detail to compare
DETAIL_PX = 4.0


def find_cuts(thumbnails: UInt8[np.ndarray, "frames h w"]) -> Int[np.ndarray, " cuts"]:
    """Return the first frames of all shots but the first, increasing.

    Args:
        thumbnails: [T, h, w] grey, with a longer side of `THUMBNAIL_SIDE` px.
    """
    if len(thumbnails) < 3:
        return np.zeros(0, int)
    correlation = np.array(
        [_flow_correlation(a, b) for a, b in zip(thumbnails, thumbnails[1:], strict=False)]
    )
    cuts = []
    for pair in np.flatnonzero(correlation < MAX_CORRELATION):
        around = np.concatenate(
            [correlation[max(0, pair - NEIGHBOURS) : pair], correlation[pair + 1 :][:NEIGHBOURS]]
        )
        if np.median(around) - correlation[pair] > MIN_DROP:
            cuts.append(int(pair) + 1)
    return np.array([cut for cut in cuts if not _is_blink(thumbnails, cut)], int)


def _is_blink(thumbnails: UInt8[np.ndarray, "frames h w"], cut: int) -> bool:
    """Return whether a frame shortly before a cut matches one shortly after it.

    Then a few frames in between are blurred or overexposed, and there is no cut.
    """
    pairs = [(cut - 1, cut + gap) for gap in range(1, LONGEST_BLINK + 1)]
    pairs += [(cut - 1 - gap, cut) for gap in range(1, LONGEST_BLINK + 1)]
    return any(
        _flow_correlation(thumbnails[before], thumbnails[after]) > MAX_CORRELATION
        for before, after in pairs
        if before >= 0 and after < len(thumbnails)
    )


def _flow_correlation(first: UInt8[np.ndarray, "h w"], second: UInt8[np.ndarray, "h w"]) -> float:
    """Return the correlation of the detail of an image with that of the other, warped by flow."""
    import cv2

    a, b = first.astype(np.float32), second.astype(np.float32)
    if min(a.std(), b.std()) < MIN_CONTRAST:
        return 1.0
    if np.corrcoef(a.ravel(), b.ravel())[0, 1] > SIMILAR:
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
