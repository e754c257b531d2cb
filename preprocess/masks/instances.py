"""Splits moving pixels into object instances with consistent labels through the clip.

Disconnected regions are different objects; touching regions are separated by the tracks that were
in them while they were disconnected. So labels are assigned in the frame with most regions, and
propagated from there along the tracks, forward and backward. Two labels are merged where they are
hardly ever disconnected, or move as one where they touch. Objects that touch all through the clip
are separated in the same way by motion: a region is then one of smooth motion, without a
discontinuity between neighbouring tracks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Shaped

from msdyn.preprocess.contracts import Masks
from msdyn.preprocess.imaging.connected_components import (
    connected_in_clip,
    connected_regions,
    fill_from_nearest,
    smooth_regions,
)
from msdyn.preprocess.imaging.mask_stack import MaskStack
from msdyn.scene import Tracks

__all__ = ["split_instances"]

# Minimum area of an object, summed over the clip, as a share of the largest one's; minimum share of
# the frames in which it is visible.
MIN_MASS, MIN_PRESENCE = 0.1, 0.25
# Minimum area of a region that starts an object, as a share of the mean moving area per frame.
MIN_REGION = 0.05
# Labels that share a region in a larger share of their common frames are one object. Regions of
# smooth motion appear and disappear with the motion, so for them it is half.
MAX_TOGETHER, MAX_TOGETHER_IN_MOTION = 0.9, 0.5
# Motions are compared over this time: limbs turn by little, and discontinuities are large.
COMPARED_SECONDS, MAX_GAP = 0.2, 5
# Labels that move as one where they touch are one object too: the relative motion of the nearest
# pairs of tracks is less than these shares of their distance and of their motion.
# Measured: thumb and fingers of hand .26 to .34 and .09; objects of the demo .40 to .75 and .52 to
# .77.
MAX_STRAIN, MAX_RELATIVE = 0.4, 0.25
MIN_TRACKS = 6
# Unlabelled tracks get the label of most of so many labelled ones: the nearest in position and in
# displacement over so many frames.
NEIGHBOURS, VELOCITY_FRAMES = 5, 5.0
# Standard deviation, in px of the masks, of the Gaussian that weights the labelled tracks around a
# pixel.
SPREAD_PX = 5.0


def split_instances(
    moving: Masks, tracks: Tracks, scale: float, fps: float, *, by_motion: bool = True
) -> MaskStack:
    """Return labels [T, h, w] uint8 of moving pixels: 0 static, 1.. objects by decreasing area.

    Args:
        moving: [T, h, w] bool.
        tracks: N tracks through the T frames.
        scale: px of the tracks per px of `moving`.
        fps: frames per second.
        by_motion: separate objects that always touch.
    """
    gap = max(1, min(MAX_GAP, round(COMPARED_SECONDS * fps)))
    components = _without_minor(connected_in_clip(moving))
    areas = _areas(components)
    min_mass = MIN_MASS * areas[:, 1:2].sum()
    objects: list[MaskStack] = []
    for component in range(areas.shape[1] - 1, 0, -1):
        pending = [MaskStack(frame == component for frame in components)]
        while pending:
            part = pending.pop()
            parts = _Component(part, tracks, scale, min_mass, gap).split()
            if not parts and by_motion:
                parts = _Component(part, tracks, scale, min_mass, gap, by_motion=True).split()
            pending += parts
            if not parts:
                objects.append(part)
    number = np.arange(1, len(objects) + 1, dtype=np.min_scalar_type(len(objects)))
    stacks = (np.array([mask[t] for mask in objects]) for t in range(len(components)))
    merged = components if not objects else MaskStack(np.tensordot(number, m, 1) for m in stacks)
    return _without_minor(merged)


def _areas(labels: Masks, count: int = 1) -> Int[np.ndarray, "frames labels"]:
    """Return the area [T, L] px of labels 0, 1, ... in each frame, of at least `count` labels."""
    rows = [np.bincount(frame.ravel()) for frame in labels]
    areas = np.zeros((len(rows), max([count, *map(len, rows)])), int)
    for row, area in zip(rows, areas, strict=True):
        area[: len(row)] = row
    return areas


def _without_minor(labels: Masks) -> MaskStack:
    """Return labels [T, h, w] uint8 by decreasing area, without small and short-lived ones."""
    areas = _areas(labels)
    mass, presence = areas.sum(0), (areas > 0).mean(0)
    mass[0] = 0
    kept = np.flatnonzero((mass > 0) & (mass >= MIN_MASS * mass.max()) & (presence >= MIN_PRESENCE))
    kept = kept[np.argsort(-mass[kept], kind="stable")][:254]
    table = np.zeros(len(mass), np.uint8)
    table[kept] = np.arange(1, len(kept) + 1)
    return MaskStack(table[frame] for frame in labels)


@dataclass(frozen=True)
class _Frame:
    """The regions of a component in one frame, and the tracks in them.

    Attributes:
        areas: [R] px, of its regions.
        rows: [n] tracks inside the component.
        region: [n] the region, 1..R, of each, 0 for none.
    """

    areas: Shaped[np.ndarray, " regions"]
    rows: Int32[np.ndarray, " inside"]
    region: Int32[np.ndarray, " inside"]


class _Component:
    """One connected component in space and time, and the labels of the tracks inside it.

    Its regions in a frame are the connected ones, or `by_motion` those of smooth motion.
    """

    def __init__(
        self,
        mask: Masks,
        tracks: Tracks,
        scale: float,
        min_mass: float,
        gap: int,
        *,
        by_motion: bool = False,
    ) -> None:
        self.mask, self.tracks, self.scale, self.min_mass = mask, tracks, scale, min_mass
        self.gap, self.by_motion, self.shape = gap, by_motion, np.array(mask[0].shape)
        self.frames = [self._frame(image, t) for t, image in enumerate(mask)]
        area = np.array([np.count_nonzero(image) for image in mask])
        self.min_area = MIN_REGION * area.sum() / max(1, np.count_nonzero(area))
        self.label = np.zeros(len(tracks), np.int32)  # of each track, 0 unknown
        self.count = 0

    def split(self) -> list[MaskStack]:
        """Return the parts [T, h, w] bool that are separate in some frame, none of one object."""
        first = self._frame_of_most_regions()
        after, before = range(first, len(self.frames)), range(first - 1, -1, -1)
        for t in chain(after, before):
            self._propagate(t)
        self._merge()
        labels = np.unique(self.label[self.label > 0])
        while len(labels) > 1:
            pixels = MaskStack(self._pixels(t, labels) for t in range(len(self.frames)))
            areas = _areas(pixels, int(labels[-1]) + 1)[:, labels]
            large = (areas.sum(0) >= self.min_mass) & ((areas > 0).mean(0) >= MIN_PRESENCE)
            if large.all():
                return [MaskStack(frame == label for frame in pixels) for label in labels]
            labels = labels[large]  # the pixels of the others go to these
        return []

    def _frame(self, mask: Shaped[np.ndarray, "height width"], t: int) -> _Frame:
        """Return the regions of a frame and the tracks in them."""
        rows, xy = self.tracks.at(t)
        row, column = self._cells(xy)
        inside = mask[row, column]
        if self.by_motion:
            region = self._smooth_regions(rows[inside], xy[inside], t)
            areas = np.bincount(region)[1:] * np.count_nonzero(mask) / max(1, inside.sum())
        else:
            regions = connected_regions(mask)
            region, areas = regions[row, column][inside], np.bincount(regions.ravel())[1:]
        return _Frame(areas, rows[inside].astype(np.int32), region.astype(np.int32))

    def _cells(self, xy: Float[np.ndarray, "inside 2"]) -> Int[np.ndarray, "2 inside"]:
        """Return the row and the column [2, n] in the mask of positions [n, 2] px."""
        cell = np.floor(xy[:, ::-1] / self.scale).astype(int)
        return np.clip(cell, 0, self.shape - 1).T

    def _motion(self, t: int) -> Float[np.ndarray, "inside 4"]:
        """Return position and displacement [n, 4] px of the tracks inside, to find neighbours."""
        rows = self.frames[t].rows
        xy, _ = self.tracks.look_up(rows, t)
        before, visible_before = self.tracks.look_up(rows, t - 1)
        after, visible_after = self.tracks.look_up(rows, t + 1)
        velocity = np.where(visible_after[:, None], after - xy, 0)
        velocity = np.where(visible_before[:, None], xy - before, velocity)
        return np.concatenate([xy, VELOCITY_FRAMES * velocity], 1)

    def _smooth_regions(
        self, rows: Int[np.ndarray, " inside"], xy: Float[np.ndarray, "inside 2"], t: int
    ) -> Int[np.ndarray, " inside"]:
        """Return the region of smooth motion [n], 1.., of the tracks of a frame; 0 for none."""
        later = t + self.gap if t + self.gap < len(self.mask) else t - self.gap
        there, visible = self.tracks.look_up(rows, later)
        region = np.zeros(len(rows), int)
        region[visible] = smooth_regions(xy[visible], (there - xy)[visible], MAX_STRAIN)
        return region

    def _frame_of_most_regions(self) -> int:
        """Return the middle of the longest run of frames with the most candidate regions."""
        from scipy import ndimage

        candidates = np.array([(frame.areas >= self.min_area).sum() for frame in self.frames])
        candidates = ndimage.median_filter(candidates, 5, mode="nearest")
        runs = connected_regions(candidates == candidates.max())
        longest = 1 + np.argmax(np.bincount(runs.ravel())[1:])
        return int(np.median(np.flatnonzero(runs == longest)))

    def _propagate(self, t: int) -> None:
        """Label the unlabelled tracks of a frame from their labelled neighbours in the region."""
        from scipy.spatial import KDTree

        frame, motion = self.frames[t], self._motion(t)
        for region, area in enumerate(frame.areas, start=1):
            inside = np.flatnonzero(frame.region == region)
            known = self.label[frame.rows[inside]] > 0
            if known.any():
                old, new = inside[known], inside[~known]
                k = min(NEIGHBOURS, len(old))
                _, near = KDTree(motion[old]).query(motion[new], k=k)
                votes = self.label[frame.rows[old]][near].reshape(len(new), k)
                self.label[frame.rows[new]] = [np.bincount(vote).argmax() for vote in votes]
            elif area >= self.min_area:
                self.count += 1
                self.label[frame.rows[inside]] = self.count

    def _merge(self) -> None:
        """Merge labels that are hardly ever in different regions or that move as one."""
        limit = MAX_TOGETHER_IN_MOTION if self.by_motion else MAX_TOGETHER
        merged = np.arange(self.count + 1)
        size = np.bincount(self.label, minlength=self.count + 1)[1:]
        for a, b in combinations((np.argsort(-size, kind="stable") + 1).tolist(), 2):
            if self._together(a, b) > limit or self._hinged(a, b):
                merged[merged == merged[b]] = merged[a]
        self.label = merged[self.label]

    def _members(self, frame: _Frame, label: int) -> tuple[Bool[np.ndarray, " inside"], int]:
        """Return which tracks [n] of a frame have a label, and the region of most of them.

        By motion, tracks in other regions are outliers and left out.
        """
        own = self.label[frame.rows] == label
        if self.by_motion:
            own &= frame.region > 0
        region = int(np.bincount(frame.region[own], minlength=1).argmax())
        return own & (frame.region == region) if self.by_motion else own, region

    def _together(self, a: int, b: int) -> float:
        """Return the share of the frames with both labels in which they are in one region."""
        common = shared = 0
        for frame in self.frames:
            (of_a, region_a), (of_b, region_b) = (self._members(frame, i) for i in (a, b))
            if of_a.sum() >= MIN_TRACKS and of_b.sum() >= MIN_TRACKS:
                common += 1
                shared += region_a == region_b
        return shared / common if common else 0.0

    def _hinged(self, a: int, b: int) -> bool:
        """Return whether two labels move alike where they are nearest to one another."""
        from scipy.spatial import KDTree

        strain, relative = [], []
        for t in range(len(self.frames) - self.gap):
            (here_a, motion_a), (here_b, motion_b) = (
                self._displacements(t, label) for label in (a, b)
            )
            if min(len(here_a), len(here_b)) < MIN_TRACKS:
                continue
            distance, partner = KDTree(here_a).query(here_b)
            nearest = np.argsort(distance)[: max(MIN_TRACKS, len(here_b) // 10)]
            motion_b = motion_b[nearest]
            difference = np.linalg.norm(motion_a[np.asarray(partner)[nearest]] - motion_b, axis=1)
            strain.append(np.median(difference / np.maximum(distance[nearest], 1)))
            size = np.linalg.norm(motion_b, axis=1)
            relative.append(np.median(difference / np.maximum(size, 1)))
        return bool(strain) and bool(
            np.median(strain) < MAX_STRAIN and np.median(relative) < MAX_RELATIVE
        )

    def _displacements(
        self, t: int, label: int
    ) -> tuple[Float[np.ndarray, "visible 2"], Float[np.ndarray, "visible 2"]]:
        """Return position and displacement over the gap [n, 2] px of a label's tracks."""
        if self.by_motion:
            rows = self.frames[t].rows[self._members(self.frames[t], label)[0]]
        else:  # inside the component in this frame or not
            rows = np.flatnonzero(self.label == label)
        here, visible = self.tracks.look_up(rows, t)
        there, visible_there = self.tracks.look_up(rows, t + self.gap)
        both = visible & visible_there
        return here[both], (there - here)[both]

    def _pixels(
        self, t: int, labels: Int[np.ndarray, " labels"]
    ) -> Shaped[np.ndarray, "height width"]:
        """Return the label [h, w] of each pixel of a frame, from the tracks around it."""
        import cv2

        rows, mask = self.frames[t].rows, self.mask[t]
        own, cells = self.label[rows], self._cells(self.tracks.look_up(rows, t)[0])
        density = np.zeros((len(labels), *self.shape), np.float32)
        for i, label in enumerate(labels):
            row, column = cells[:, own == label]
            np.add.at(density, (i, row, column), 1)
            density[i] = cv2.GaussianBlur(density[i], (0, 0), SPREAD_PX)
        nearest = fill_from_nearest(labels[density.argmax(0)], density.max(0) > 0)
        return np.where(mask, nearest, 0).astype(np.min_scalar_type(labels[-1]))
