"""Connected regions of masks, and of points of similar motion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Shaped

from msdyn.preprocess.contracts import Masks
from msdyn.preprocess.imaging.mask_stack import MaskStack

__all__ = [
    "close_holes",
    "connected_in_clip",
    "connected_regions",
    "drop_specks",
    "fill_from_nearest",
    "smooth_regions",
]

# Largest distance of neighbouring points, as a multiple of the typical one; difference of motions,
# in px, that is below their noise.
MAX_REACH, MOTION_NOISE_PX = 2.0, 1.0


def connected_regions(mask: Bool[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape"]:
    """Return the number 1.. of the connected region of each pixel [...], 0 outside the mask."""
    from scipy import ndimage

    regions = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=regions)
    return regions


def connected_in_clip(masks: Masks) -> MaskStack:
    """Return the number [T, h, w] of the region of each pixel, connected in space and time.

    Args:
        masks: [T, h, w] bool.

    Returns:
        0 outside the masks, 1.. inside.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    def numbered() -> Iterator[np.ndarray]:
        """Yield the regions of each frame, with numbers that are unique in the clip."""
        count = 0
        for mask in masks:
            regions = connected_regions(mask)
            yield np.where(regions > 0, regions + count, 0)
            count += int(regions.max(initial=0))

    links, before, count = [np.zeros((0, 2), int)], None, 0
    for regions in numbered():
        if before is not None:
            both = (before > 0) & (regions > 0)
            links.append(np.unique(np.stack([before[both], regions[both]], 1), axis=0))
        before, count = regions, max(count, int(regions.max(initial=0)))
    one, other = np.concatenate(links).T
    graph = coo_matrix((np.ones(len(one)), (one, other)), shape=(count + 1, count + 1))
    _, number = connected_components(graph, directed=False)
    return MaskStack(number[regions] for regions in numbered())


def close_holes(
    mask: Bool[np.ndarray, "height width"], share: float
) -> Bool[np.ndarray, "height width"]:
    """Return a mask [h, w] with holes closed, of at most this share of the region around them."""
    from scipy import ndimage

    filled = np.asarray(ndimage.binary_fill_holes(mask))
    holes, regions = connected_regions(filled & ~mask), connected_regions(filled)
    hole_area, region_area = np.bincount(holes.ravel()), np.bincount(regions.ravel())
    return mask | ((holes > 0) & (hole_area[holes] <= share * region_area[regions]))


def drop_specks(
    labels: Shaped[np.ndarray, "height width"], share: float
) -> Shaped[np.ndarray, "height width"]:
    """Return labels [h, w] without regions of at most this share of the largest of their label."""
    kept = np.zeros_like(labels)
    for number in np.unique(labels[labels > 0]):
        regions = connected_regions(labels == number)
        areas = np.bincount(regions.ravel())
        areas[0] = 0
        kept[areas[regions] > share * areas.max()] = number
    return kept


def fill_from_nearest(
    labels: Shaped[np.ndarray, "height width"], known: Bool[np.ndarray, "height width"]
) -> Shaped[np.ndarray, "height width"]:
    """Return labels [h, w], those of pixels not `known` [h, w] from the nearest that is."""
    from scipy import ndimage

    if not known.any():
        return labels
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    rows, columns = np.asarray(nearest)
    return labels[rows, columns]


def smooth_regions(
    xy: Float[np.ndarray, "points 2"], motion: Float[np.ndarray, "points 2"], max_strain: float
) -> Int[np.ndarray, " points"]:
    """Return the number 1.. of the region of smooth motion of each point [n], 0 for none.

    A region is connected by neighbours (in the Delaunay triangulation) of similar motion, as on one
    surface, which may rotate and bend; where one surface slides over another there are none. A
    point whose motion differs from that of most of its neighbours is in no region.

    Args:
        xy: [n, 2] px.
        motion: [n, 2] px, of each point.
        max_strain: largest difference of motions, as a share of the distance.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import Delaunay, QhullError

    count = len(xy)
    try:
        corners = Delaunay(xy).simplices
    except (QhullError, ValueError):  # too few, or all on one line
        return np.zeros(count, int)
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    length = np.linalg.norm(xy[edges[:, 0]] - xy[edges[:, 1]], axis=1)
    near = length < MAX_REACH * np.median(length)
    edges, length = edges[near], length[near]
    difference = np.linalg.norm(motion[edges[:, 0]] - motion[edges[:, 1]], axis=1)
    similar = difference < np.maximum(max_strain * length, MOTION_NOISE_PX)
    degree, degree_similar = (
        np.bincount(e.ravel(), minlength=count) for e in (edges, edges[similar])
    )
    inner = 2 * degree_similar >= np.maximum(degree, 1)
    links = edges[similar & inner[edges].all(1)]
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    _, region = connected_components(graph, directed=False)
    return np.where(inner, region + 1, 0)
