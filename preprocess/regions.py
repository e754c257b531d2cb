"""Connected regions of masks."""

from __future__ import annotations

import numpy as np

__all__ = ["close_holes", "connected_regions", "drop_specks", "fill_from_nearest"]


def connected_regions(mask: np.ndarray) -> np.ndarray:
    """Return the number 1.. of the connected region of each pixel of a mask [...] bool, 0 outside.

    Of a mask [T, h, w] regions are connected in space and time.
    """
    from scipy import ndimage

    regions = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=regions)
    return regions


def close_holes(mask: np.ndarray, share: float) -> np.ndarray:
    """Return a mask [h, w] bool, holes of at most this share of the region around them closed."""
    from scipy import ndimage

    filled = np.asarray(ndimage.binary_fill_holes(mask))
    holes, regions = connected_regions(filled & ~mask), connected_regions(filled)
    hole_area, region_area = np.bincount(holes.ravel()), np.bincount(regions.ravel())
    return mask | ((holes > 0) & (hole_area[holes] <= share * region_area[regions]))


def drop_specks(labels: np.ndarray, share: float) -> np.ndarray:
    """Return labels [h, w], without regions of at most this share of the largest of their label."""
    kept = np.zeros_like(labels)
    for number in np.unique(labels[labels > 0]):
        regions = connected_regions(labels == number)
        areas = np.bincount(regions.ravel())
        areas[0] = 0
        kept[areas[regions] > share * areas.max()] = number
    return kept


def fill_from_nearest(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return labels [h, w], those that are not `known` [h, w] from the nearest that is."""
    from scipy import ndimage

    if not known.any():
        return labels
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    rows, columns = np.asarray(nearest)
    return labels[rows, columns]
