"""How the data sets of the paper are sampled and weighted in training."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DATASETS", "DatasetInfo", "dataset_info"]


@dataclass(frozen=True)
class DatasetInfo:
    """How a data set is sampled and weighted; the defaults are those of a data set not listed."""

    repeat: int = 1
    """Draws of each clip per epoch."""
    depth_weight: float = 1.0
    """Factor of the depth loss."""
    motion_weight: float = 1.0
    """Factor of the motion loss."""
    stride: int = 2
    """Input frames are at most 4 times this many frames apart."""
    static: bool = False
    """Nothing moves in it, so that its frames may be given any time."""
    depth_quantiles: tuple[float, float] | None = None
    """Depth of a frame outside of these quantiles is not used; None uses all."""


DATASETS: dict[str, DatasetInfo] = {
    "realestate10k": DatasetInfo(1, 0.1, 0.9, 10, True, (0.2, 0.8)),
    "tartanair": DatasetInfo(100, 1.0, 0.9, 2, True),
    "matrixcity": DatasetInfo(10, 0.8, 1.0, 1, True),
    "pointodyssey": DatasetInfo(1000, 1.0, 1.0, 2),
    "dynamicreplica": DatasetInfo(100, 0.5, 0.5, 2),
    "spring": DatasetInfo(2000, 1.0, 0.0, 5),
    "vkitti2": DatasetInfo(500, 1.0, 0.0, 1),
    "stereo4d": DatasetInfo(1, 0.2, 0.2, 5),
}
"""The data sets of MoVieS, Table 1, by name without separators; weights and strides are those of
the released code."""

_DEFAULT = DatasetInfo()


def dataset_info(name: str) -> DatasetInfo:
    """Return what is listed for a data set, or the defaults; `-`, `_` and case do not matter."""
    return DATASETS.get(name.lower().replace("-", "").replace("_", ""), _DEFAULT)
