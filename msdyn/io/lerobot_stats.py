"""Statistics of the features of a LeRobotDataset: of an episode, and of several together.

Those of a feature are min, max, mean, std, count and five quantiles, each of the feature's last
dimension; of images over frames and pixels, (channels, 1, 1), colours in [0, 1].

Reference: huggingface/lerobot, `src/lerobot/datasets/compute_stats.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

__all__ = ["ImageStats", "Stats", "merged_stats", "value_stats"]

Stats = dict[str, Any]
"""By name of the statistic, nested lists."""
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_SAMPLED_PIXELS = 4096
"""Of an image."""


def value_stats(values: Shaped[np.ndarray, "frames ..."]) -> Stats:
    """Return the statistics of numbers of an episode, over its frames.

    A scalar has the shape (1,); of a feature of several dimensions, all but the last are reduced.
    Values that are not finite are left out; where there is no other, the statistics are 0.
    """
    given = np.asarray(values)
    given = given[:, None] if given.ndim == 1 else given.reshape(-1, given.shape[-1])
    numbers = given.astype(np.float64)
    finite = np.isfinite(numbers)
    numbers = np.where(finite.any(0), np.where(finite, numbers, np.nan), 0.0)
    quantiles = np.nanquantile(numbers, list(QUANTILES.values()), axis=0)
    exact = given if given.dtype.kind in "iu" else numbers
    return {
        "min": np.nanmin(exact, 0).tolist(),
        "max": np.nanmax(exact, 0).tolist(),
        "mean": np.nanmean(numbers, 0).tolist(),
        "std": np.nanstd(numbers, 0).tolist(),
        "count": [len(values)],
        **{name: value.tolist() for name, value in zip(QUANTILES, quantiles, strict=True)},
    }


class ImageStats:
    """Statistics of the images of an episode, which are added one by one."""

    def __init__(self) -> None:
        self._samples: list[np.ndarray] = []

    def add(self, image: Shaped[np.ndarray, "height width channels"], scale: float) -> None:
        """Add some pixels of an image.

        Args:
            image: of one or three channels.
            scale: what the values are multiplied by.
        """
        height, width, channels = image.shape
        step = max(1, int(np.sqrt(height * width / _SAMPLED_PIXELS)))
        pixels = image[::step, ::step].reshape(-1, channels)
        self._samples.append(pixels.astype(np.float32) * np.float32(scale))

    def result(self) -> Stats:
        """Return the statistics of the images, of at most a hundred of them."""
        step = max(1, len(self._samples) // 100)
        stats = value_stats(np.concatenate(self._samples[::step]))
        stats = {name: [[[v]] for v in value] for name, value in stats.items()}
        return {**stats, "count": [len(self._samples[::step])]}


def merged_stats(first: dict[str, Stats], second: dict[str, Stats]) -> dict[str, Stats]:
    """Return the statistics of two sets of frames together, by feature.

    Quantiles are the means of those of the two, weighted by their counts.
    """
    merged = {**first, **second}
    for name in first.keys() & second.keys():
        parts = [first[name], second[name]]
        count = np.array([part["count"][0] for part in parts], np.float64)
        weight = count / max(count.sum(), 1)
        mean = _weighted(parts, "mean", weight)
        variance = sum(
            w * (np.asarray(part["std"]) ** 2 + (np.asarray(part["mean"]) - mean) ** 2)
            for w, part in zip(weight, parts, strict=True)
        )
        merged[name] = {
            "min": np.minimum(parts[0]["min"], parts[1]["min"]).tolist(),
            "max": np.maximum(parts[0]["max"], parts[1]["max"]).tolist(),
            "mean": mean.tolist(),
            "std": np.sqrt(np.asarray(variance)).tolist(),
            "count": [int(count.sum())],
            **{
                quantile: _weighted(parts, quantile, weight).tolist()
                for quantile in QUANTILES
                if all(quantile in part for part in parts)
            },
        }
    return merged


def _weighted(
    parts: list[Stats], name: str, weight: Float[np.ndarray, " parts"]
) -> Float[np.ndarray, " *shape"]:
    values = [np.asarray(part[name], np.float64) for part in parts]
    return np.asarray(weight[0] * values[0] + weight[1] * values[1])
