"""Whether tracks could be of points that lie still, given cameras and given the images.

Where parallax is strong, known cameras say more than pairs of frames: a still point has one
position in space. And flow smears motion into what surrounds a moving thing, so the images are
asked too: does a patch look more alike where the track goes, or where a still point would go?
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from msdyn.preprocess.flow import grey, sample_patches
from msdyn.preprocess.progress import progress
from msdyn.preprocess.triangulate import observations_of_tracks, triangulate
from msdyn.preprocess.two_view import group_quantile

from msdyn.geometry import Cameras, project, transform_points
from msdyn.scene import Scene, Tracks

__all__ = ["Prediction", "StillPoints", "photometric_scores"]

Prediction = Callable[[int, int, np.ndarray], np.ndarray]
"""From a frame, a later frame and rows of tracks seen in the former: where [n, 2] px they would be
in the later frame, did they lie still; NaN where that is not known."""

GAPS = (2, 5)
NOISE = 4.0
"""Squared difference in grey levels that is not worth telling apart: two levels."""


class StillPoints:
    """The point in space that fits each track best, as known cameras see it.

    Attributes:
        distances: [N] px, the 70th percentile over a track's life of its distance from its point in
            the image; infinite for a point behind a camera, NaN for a track never seen.
    """

    def __init__(self, tracks: Tracks, cameras: Cameras) -> None:
        point, frame, xy, confidence = observations_of_tracks(tracks)
        solved = triangulate(cameras, point, frame, xy, confidence)
        self._cameras = cameras
        self._xyz = solved.xyz
        self.distances = group_quantile(point, solved.error, 0.7, len(tracks))
        self.distances[np.flatnonzero(~solved.in_front)] = np.inf

    def predict(self, frame: int, later: int, rows: np.ndarray) -> np.ndarray:
        """Return where [n, 2] px the points are in the later frame, NaN behind the camera."""
        local = transform_points(self._cameras.cam_from_world[later], self._xyz[rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            xy = project(self._cameras.intrinsics[later], local)
        return np.where(local[:, 2:] > 0, xy, np.nan).astype(np.float32)


def photometric_scores(scene: Scene, tracks: Tracks, predict: Prediction) -> np.ndarray:
    """Return how much better [N] patches match along each track than where still points would go.

    The median over a track's life of log((m + NOISE) / (s + NOISE)), with m and s the mean squared
    differences to the patch along the track and along the prediction: about 0 for what lies still
    or shows no texture, negative for what moves, positive for a track that is wrong. NaN where no
    pair of frames tells.
    """
    images: deque[np.ndarray] = deque(maxlen=max(GAPS) + 1)
    parts: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, int), np.zeros(0))]
    for later in progress(range(len(scene)), "masks"):
        images.append(grey(scene.image(later)))
        for gap in GAPS:
            frame = later - gap
            if frame < 0:
                continue
            rows = np.flatnonzero(tracks.visible[:, frame] & tracks.visible[:, later])
            still = predict(frame, later, rows)
            known = np.isfinite(still).all(1)
            rows, still = rows[known], still[known]
            patch = sample_patches(images[-1 - gap], tracks.xy[rows, frame])
            moved = ((sample_patches(images[-1], tracks.xy[rows, later]) - patch) ** 2).mean(1)
            stayed = ((sample_patches(images[-1], still) - patch) ** 2).mean(1)
            parts.append((rows, np.log((moved + NOISE) / (stayed + NOISE))))
    rows, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return group_quantile(rows, values, 0.5, len(tracks))
