"""Metrics of point tracks, in 3D and in the image, by the definitions of several papers.

Positions are arrays of numbers; an estimate that is not there is NaN. It is left out of a mean
distance, and counts as wrong wherever a share is given. Shares are in [0, 1]; the metric of nothing
is NaN. Of tracks by query, `[Q, T, J]`, entry q follows J points as seen in key frame q.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "PIXEL_THRESHOLDS",
    "epe3d",
    "image_track_metrics",
    "normalised_track_metrics",
    "pck_transfer",
    "track_metrics",
    "transfer_metrics",
]

DELTAS = (0.05, 0.10)
PIXEL_THRESHOLDS = (4, 8, 16, 32, 64)
"""Those of shape-of-motion for DyCheck, in pixels of the full-size images."""


def epe3d(tracks: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Return the mean distance between trajectories [N, T, 3], scene units; NaN if none is valid.

    Args:
        tracks: estimated positions.
        truth: true positions.
        valid: [N, T] bool, which ones count; all of them by default.
    """
    distance = np.linalg.norm(tracks - truth, axis=-1)
    if valid is not None:
        distance = distance[valid]
    return float(distance.mean()) if distance.size else float("nan")


def track_metrics(
    tracks: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> dict[str, float]:
    """Return `epe3d` and the shares of points nearer than .05 and .10 units, over all that count.

    Args:
        tracks: [..., 3] estimated positions.
        truth: [..., 3] true positions.
        valid: [...] bool, which ones count; all of them by default.
    """
    distance = np.linalg.norm(tracks - truth, axis=-1)
    return _shares(distance if valid is None else distance[valid])


def normalised_track_metrics(
    tracks: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> dict[str, float]:
    """Return the same of positions divided by their median distance from the origin.

    Estimate and truth are divided each by its own, so that no scale is needed; the positions belong
    into the coordinates of the first camera.

    Reference: Lin et al., "MoVieS: Motion-Aware 4D Dynamic View Synthesis in One Second", 2025,
    section 4.3, on the points of Koppula et al., "TAPVid-3D", 2024.
    """
    valid = np.ones(truth.shape[:-1], bool) if valid is None else valid
    tracks, truth = tracks[valid], truth[valid]
    drawn = np.isfinite(tracks).all(-1)
    scales = [np.median(np.linalg.norm(points[drawn], axis=-1)) if drawn.any() else np.nan
              for points in (tracks, truth)]  # fmt: skip
    return _shares(np.linalg.norm(tracks / scales[0] - truth / scales[1], axis=-1))


def transfer_metrics(
    tracks: np.ndarray, truth: np.ndarray, visible: np.ndarray
) -> dict[str, float]:
    """Return 3D errors of points carried from every key frame to every other, and to itself.

    A pair of frames counts the points visible in both; `epe3d` and the shares within .05 and .10
    units are means over pairs of the mean over points.

    Args:
        tracks: [Q, T, J, 3] where the points seen in frame q are thought to be in frame t.
        truth: [T, J, 3].
        visible: [T, J] bool.

    Reference: the 3D tracking protocol of Wang et al., "Shape of Motion", 2024.
    """
    rows = [
        _shares(np.linalg.norm(tracks[q, t, both] - truth[t, both], axis=-1))
        for q, t, both in _pairs(visible)
    ]
    return {key: _mean([row[key] for row in rows]) for key in _shares(np.zeros(0))}


def pck_transfer(
    xy: np.ndarray,
    truth: np.ndarray,
    visible: np.ndarray,
    size: tuple[int, int],
    *,
    ratio: float = 0.05,
) -> float:
    """Return PCK-T: the share of keypoints carried to within `ratio` of the image's longer side.

    It is the mean over ordered pairs of key frames (a frame and itself too) of the mean over the
    points visible in both.

    Args:
        xy: [Q, T, J, 2] px.
        truth: [T, J, 2] px.
        visible: [T, J] bool.
        size: width and height in pixels.

    Reference: Gao et al., "Monocular Dynamic View Synthesis: A Reality Check", 2022, section 4.2.
    """
    limit = ratio * max(size)
    return _mean(
        [
            float((np.linalg.norm(xy[q, t, both] - truth[t, both], axis=-1) < limit).mean())
            for q, t, both in _pairs(visible)
        ]
    )


def image_track_metrics(
    xy: np.ndarray,
    seen: np.ndarray,
    truth: np.ndarray,
    visible: np.ndarray,
    thresholds: Sequence[float] = PIXEL_THRESHOLDS,
) -> dict[str, float]:
    """Return average Jaccard, average share within a distance, and occlusion accuracy.

    Counted over all pairs of differing frames and all points visible in the first of the two.

    Args:
        xy: [Q, T, J, 2] px, estimated.
        seen: [Q, T, J] bool, estimated visibility.
        truth: [T, J, 2] px.
        visible: [T, J] bool.
        thresholds: distances in px; a point is right if it is nearer.

    Returns:
        `average_jaccard`, `average_pck`, `occlusion_accuracy`.

    Reference: Doersch et al., "TAP-Vid", 2022, with the thresholds of shape-of-motion.
    """
    frames = len(truth)
    counted = visible[:, None] & ~np.eye(frames, dtype=bool)[..., None]  # [Q, T, J]
    distance = np.linalg.norm(xy - truth, axis=-1)
    seen, visible = seen & counted, visible & counted
    jaccard, pck = [], []
    for threshold in thresholds:
        near = distance < threshold  # NaN is not near
        hits = (near & seen & visible).sum()
        misses = (seen & ~(near & visible)).sum()
        jaccard.append(_ratio(hits, visible.sum() + misses))
        pck.append(_ratio((near & visible).sum(), visible.sum()))
    return {
        "average_jaccard": float(np.mean(jaccard)),
        "average_pck": float(np.mean(pck)),
        "occlusion_accuracy": _ratio(((seen == visible) & counted).sum(), counted.sum()),
    }


def _pairs(visible: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Return the ordered pairs of frames that share a visible point, and those points."""
    frames = range(len(visible))
    pairs = [(q, t, visible[q] & visible[t]) for q in frames for t in frames]
    return [pair for pair in pairs if pair[2].any()]


def _shares(distance: np.ndarray) -> dict[str, float]:
    drawn = distance[np.isfinite(distance)]
    nothing = float("nan")
    return {
        "epe3d": float(drawn.mean()) if drawn.size else nothing,
        **{
            f"delta_{delta:.2f}": float((distance < delta).mean()) if distance.size else nothing
            for delta in DELTAS
        },
    }


def _mean(values: list[float]) -> float:
    """Return the mean of the numbers among the values."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


def _ratio(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole else float("nan")
