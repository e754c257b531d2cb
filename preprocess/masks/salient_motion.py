"""What the saliency of pixels says about their motion, learned from the clip itself.

Things that move are often salient: a person, an animal, a tool in a hand. How often is different in
every clip, and in every frame: a network may find the animal in one frame, and a toy beside it in
the next. So it is counted on the tracks of each frame whose motion is certain: what are the odds
that they move where the image is as salient as here, relative to those of all? That ratio is
evidence on tracks and pixels without texture, on limbs at rest, on the clothes of someone who moves
a hand, and on shadows. Where saliency has nothing to do with motion, it is 1, and nothing changes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from msdyn.geometry import nearest_pixels
from msdyn.preprocess.masks.saliency import Saliency
from msdyn.preprocess.multiview.two_view import LifeQuantile
from msdyn.preprocess.progress import progress
from msdyn.scene import Scene, Tracks

__all__ = ["SalientMotion"]

# Saliency is counted in intervals with these limits. The network is mostly certain.
_LIMITS = 255 * np.array([0.05, 0.3, 0.7, 0.95])
# Least absolute log odds of a track whose motion is certain.
_CERTAIN = 1.5
# So many more tracks are imagined in every interval, of which as many move as of all: ratios of few
# tracks are nearly 1.
_PRIOR_TRACKS = 20.0
_LOG_LIMIT = 20.0


class SalientMotion:
    """The evidence from saliency on the motion of tracks and of pixels.

    Args:
        saliency: the network.
        scene: the frames.
        tracks: N tracks.
        log_odds: [N] log odds that each moves, by other evidence; NaN where there is none.
    """

    def __init__(
        self,
        saliency: Saliency,
        scene: Scene,
        tracks: Tracks,
        log_odds: Float[np.ndarray, " tracks"],
    ) -> None:
        self._saliency, self._scene, self._tracks = saliency, scene, tracks
        certain = np.abs(log_odds) > _CERTAIN  # false for NaN
        moves = 1 / (1 + np.exp(-log_odds.clip(-_LOG_LIMIT, _LOG_LIMIT)))
        ratios = []
        for frame in progress(range(len(scene)), "masks"):
            interval = self._intervals(frame)
            rows, xy = tracks.at(frame)
            rows, xy = rows[certain[rows]], xy[certain[rows]]
            ratios.append(_log_ratios(_values(interval, xy), moves[rows]))
        self._log_ratios = np.stack(ratios)

    def of_tracks(self) -> Float[np.ndarray, " tracks"]:
        """Return the evidence [N] of each track: the median of its log ratios over its life.

        What the network finds in one frame only has no effect on it.
        """
        evidence = LifeQuantile(self._tracks, 0.5)
        for frame in range(len(self._scene)):
            rows, xy = self._tracks.at(frame)
            ratios = self._log_ratios[frame][_values(self._intervals(frame), xy)]
            evidence.add(frame, rows, ratios)
        return np.nan_to_num(evidence.result())

    def of_pixels(self, frame: int) -> Float[np.ndarray, "half_height half_width"]:
        """Return the log ratio [H/2, W/2] of each pixel of a frame."""
        return self._log_ratios[frame][self._intervals(frame)]

    @property
    def strength(self) -> float:
        """Mean absolute log ratio of all pixels: 0 where saliency says nothing about motion."""
        frames = range(len(self._scene))
        return float(np.mean([np.abs(self.of_pixels(frame)).mean() for frame in frames]))

    def _intervals(self, frame: int) -> Int[np.ndarray, "half_height half_width"]:
        """Return the interval [H/2, W/2] of the saliency of each pixel."""
        return np.digitize(self._saliency.of_frame(self._scene, frame), _LIMITS)


def _values(
    image: Shaped[np.ndarray, "half_height half_width"], xy: Float[np.ndarray, "inside 2"]
) -> Shaped[np.ndarray, " inside"]:
    """Return the value [n] of a half-size image at positions [n, 2] px of the full size."""
    return image[nearest_pixels(xy / 2, *image.shape)[:2]]


def _log_ratios(
    interval: Int[np.ndarray, " certain"],
    moves: Float[np.ndarray, " certain"],
) -> Float[np.ndarray, " intervals"]:
    """Return the log of the ratio of the odds of motion in each interval to those of all tracks.

    Args:
        interval: of each track.
        moves: the probability that each track moves.
    """
    count = len(_LIMITS) + 1
    moving, static = np.bincount(interval, moves, count), np.bincount(interval, 1 - moves, count)
    share = moves.mean() if len(moves) else 0.5
    odds = (moving + _PRIOR_TRACKS * share) / (static + _PRIOR_TRACKS * (1 - share))
    return np.log(odds) - np.log(share / (1 - share))
