"""Metrics of point tracks, in 3D and in the image, by the definitions of several papers.

A missing estimate is NaN: it is left out of mean distances, and counts as wrong in shares. Shares
are in [0, 1]; the metric of no points is NaN. In arrays over queries, frames and points, entry q
holds the tracks of the points as observed in key frame q; queries and frames are the same key
frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Real

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
"""Thresholds of shape-of-motion on DyCheck, in pixels of the full-size images."""


def epe3d(
    tracks: Real[np.ndarray, "*points 3"],
    truth: Real[np.ndarray, "*points 3"],
    valid: Bool[np.ndarray, "*points"] | None = None,
) -> float:
    """Return the mean distance between 3D positions, scene units; NaN if none is valid.

    Args:
        tracks: estimated positions.
        truth: true positions.
        valid: which ones count; all of them by default.
    """
    distance = np.linalg.norm(tracks - truth, axis=-1)
    if valid is not None:
        distance = distance[valid]
    return float(distance.mean()) if distance.size else float("nan")


def track_metrics(
    tracks: Real[np.ndarray, "*points 3"],
    truth: Real[np.ndarray, "*points 3"],
    valid: Bool[np.ndarray, "*points"] | None = None,
) -> dict[str, float]:
    """Return `epe3d` and the shares of points within .05 and .10 units of the truth.

    Args:
        tracks: estimated positions.
        truth: true positions.
        valid: which ones count; all of them by default.
    """
    distance = np.linalg.norm(tracks - truth, axis=-1)
    return _shares(distance if valid is None else distance[valid])


def normalised_track_metrics(
    tracks: Real[np.ndarray, "*points 3"],
    truth: Real[np.ndarray, "*points 3"],
    valid: Bool[np.ndarray, "*points"] | None = None,
) -> dict[str, float]:
    """Return `track_metrics` of positions divided by their median distance from the origin.

    Estimate and truth are each divided by their own median, so the metric is independent of scale.

    Args:
        tracks, truth, valid: as for `track_metrics`, in the coordinates of the first camera.

    Reference: Lin et al., "MoVieS: Motion-Aware 4D Dynamic View Synthesis in One Second", 2025,
    section 4.3, on the points of Koppula et al., "TAPVid-3D", 2024.
    """
    valid = np.ones(truth.shape[:-1], bool) if valid is None else valid
    tracks, truth = tracks[valid], truth[valid]
    finite = np.isfinite(tracks).all(-1)
    scales = [np.median(np.linalg.norm(points[finite], axis=-1)) if finite.any() else np.nan
              for points in (tracks, truth)]  # fmt: skip
    return _shares(np.linalg.norm(tracks / scales[0] - truth / scales[1], axis=-1))


def transfer_metrics(
    tracks: Real[np.ndarray, "frames frames points 3"],
    truth: Real[np.ndarray, "frames points 3"],
    visible: Bool[np.ndarray, "frames points"],
) -> dict[str, float]:
    """Return 3D errors of points transferred from every key frame to every key frame.

    A pair of frames counts the points visible in both; `epe3d` and the shares within .05 and .10
    units are means over pairs of the mean over points.

    Args:
        tracks: estimated positions by query frame, frame and point.
        truth: true positions.
        visible: true visibility.

    Reference: the 3D tracking protocol of Wang et al., "Shape of Motion", 2024.
    """
    rows = [
        _shares(np.linalg.norm(tracks[q, t, both] - truth[t, both], axis=-1))
        for q, t, both in _pairs(visible)
    ]
    return {key: _mean([row[key] for row in rows]) for key in _shares(np.zeros(0))}


def pck_transfer(
    xy: Real[np.ndarray, "frames frames points 2"],
    truth: Real[np.ndarray, "frames points 2"],
    visible: Bool[np.ndarray, "frames points"],
    size: tuple[int, int],
    *,
    ratio: float = 0.05,
) -> float:
    """Return PCK-T: the share of keypoints transferred to within `ratio` of the longer image side.

    It is the mean over ordered pairs of key frames (including a frame with itself) of the mean over
    the points visible in both.

    Args:
        xy: estimated px by query frame, frame and point.
        truth: true px.
        visible: true visibility.
        size: width and height of the images, px.
        ratio: threshold as a share of the longer side.

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
    xy: Real[np.ndarray, "frames frames points 2"],
    estimated_visible: Bool[np.ndarray, "frames frames points"],
    truth: Real[np.ndarray, "frames points 2"],
    visible: Bool[np.ndarray, "frames points"],
    thresholds: Sequence[float] = PIXEL_THRESHOLDS,
) -> dict[str, float]:
    """Return average Jaccard, average PCK, and occlusion accuracy.

    Counted over all ordered pairs of different frames and all points visible in the query frame.

    Args:
        xy: estimated px by query frame, frame and point.
        estimated_visible: estimated visibility.
        truth: true px.
        visible: true visibility.
        thresholds: px; a position is correct if its distance is smaller.

    Returns:
        `average_jaccard`, `average_pck`, `occlusion_accuracy`.

    Reference: Doersch et al., "TAP-Vid", 2022, with the thresholds of shape-of-motion.
    """
    frames = len(truth)
    counted = visible[:, None] & ~np.eye(frames, dtype=bool)[..., None]  # [Q, T, J]
    distance = np.linalg.norm(xy - truth, axis=-1)
    predicted, visible = estimated_visible & counted, visible & counted
    jaccard, pck = [], []
    for threshold in thresholds:
        near = distance < threshold  # NaN is not near
        true_positives = (near & predicted & visible).sum()
        false_positives = (predicted & ~(near & visible)).sum()
        jaccard.append(_ratio(true_positives, visible.sum() + false_positives))
        pck.append(_ratio((near & visible).sum(), visible.sum()))
    return {
        "average_jaccard": float(np.mean(jaccard)),
        "average_pck": float(np.mean(pck)),
        "occlusion_accuracy": _ratio(((predicted == visible) & counted).sum(), counted.sum()),
    }


def _pairs(
    visible: Bool[np.ndarray, "frames points"],
) -> list[tuple[int, int, Bool[np.ndarray, " points"]]]:
    """Return the ordered pairs of frames that share a visible point, and those points."""
    frames = range(len(visible))
    pairs = [(q, t, visible[q] & visible[t]) for q in frames for t in frames]
    return [pair for pair in pairs if pair[2].any()]


def _shares(distance: Float[np.ndarray, "*points"]) -> dict[str, float]:
    """Return the mean of the finite distances, and the shares of all within `DELTAS`."""
    finite = distance[np.isfinite(distance)]
    empty = float("nan")
    return {
        "epe3d": float(finite.mean()) if finite.size else empty,
        **{
            f"delta_{delta:.2f}": float((distance < delta).mean()) if distance.size else empty
            for delta in DELTAS
        },
    }


def _mean(values: list[float]) -> float:
    """Return the mean of the values that are not NaN; NaN without any."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


def _ratio(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole else float("nan")
