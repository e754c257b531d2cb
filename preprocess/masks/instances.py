"""Splitting what moves into object instances that keep their number through the clip.

Regions that lie apart are different objects; regions that touch are told apart by the tracks that
were in them when they lay apart. So labels are given in the frame where most regions are apart,
and handed on from there along the tracks, forward and backward. Two labels become one again where
they are hardly ever apart, or hang together. What touches all through the clip is told apart in the
same way by motion: a region is then what moves smoothly, without a jump from a track to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

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

# An object is at least this share of the largest one, summed over the clip, and there in at least
# this share of the frames.
MIN_MASS, MIN_PRESENCE = 0.1, 0.25
# A region starts an object from this share of the mean moving area of a frame.
MIN_REGION = 0.15
# Labels that share a region for more of their common frames are one object; regions of what touches
# come and go with the motion, so for them it is half.
MAX_TOGETHER, MAX_TOGETHER_IN_MOTION = 0.9, 0.5
# Motions are compared over so long: limbs turn by little, and jumps stand out.
COMPARED_SECONDS, MAX_GAP = 0.2, 5
# Labels that hang together are one object too: over that gap, the pairs of tracks that are nearest
# across move apart by less than these shares of their distance and of their motion.
# Measured: thumb and fingers of hand .26 to .34 and .09; objects of the demo .40 to .75 and .52 to
# .77.
MAX_STRAIN, MAX_RELATIVE = 0.4, 0.25
MIN_TRACKS = 6
# Unlabelled tracks ask this many labelled ones: the nearest in position and in where their
# velocity takes them in this many frames.
NEIGHBOURS, VELOCITY_FRAMES = 5, 5.0
# Pixels ask the labelled tracks around them, weighted by a Gaussian this wide, in px of the masks.
SPREAD_PX = 5.0


def split_instances(
    moving: Masks, tracks: Tracks, scale: float, fps: float, *, by_motion: bool = True
) -> MaskStack:
    """Return labels [T, h, w] uint8 of the moving pixels: 0 static, 1.. objects by falling mass.

    Args:
        moving: [T, h, w] bool.
        tracks: N tracks through the T frames.
        scale: px of the tracks per px of `moving`.
        fps: frames a second.
        by_motion: tell apart what always touches.
    """
    gap = max(1, min(MAX_GAP, round(COMPARED_SECONDS * fps)))
    bodies = _without_minor(connected_in_clip(moving))
    areas = _areas(bodies)
    min_mass = MIN_MASS * areas[:, 1:2].sum()
    objects: list[MaskStack] = []
    for body in range(areas.shape[1] - 1, 0, -1):
        waiting = [MaskStack(frame == body for frame in bodies)]
        while waiting:
            part = waiting.pop()
            parts = _Body(part, tracks, scale, min_mass, gap).split()
            if not parts and by_motion:
                parts = _Body(part, tracks, scale, min_mass, gap, by_motion=True).split()
            waiting += parts
            if not parts:
                objects.append(part)
    number = np.arange(1, len(objects) + 1, dtype=np.min_scalar_type(len(objects)))
    apart = (np.array([mask[t] for mask in objects]) for t in range(len(bodies)))
    whole = bodies if not objects else MaskStack(np.tensordot(number, m, 1) for m in apart)
    return _without_minor(whole)


def _areas(labels: Masks, count: int = 1) -> np.ndarray:
    """Return the area [T, L] px of each label, of at least `count`, in each frame."""
    rows = [np.bincount(frame.ravel()) for frame in labels]
    areas = np.zeros((len(rows), max([count, *map(len, rows)])), int)
    for row, area in zip(rows, areas, strict=True):
        area[: len(row)] = row
    return areas


def _without_minor(labels: Masks) -> MaskStack:
    """Return labels [T, h, w] uint8 without the small and the short-lived, by falling mass."""
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
    """The regions of a body in one frame, and the tracks in them.

    Attributes:
        areas: [R] px, of its regions.
        rows: [n] tracks inside the body.
        region: [n] the region, 1..R, of each, 0 for none.
    """

    areas: np.ndarray
    rows: np.ndarray
    region: np.ndarray


class _Body:
    """One connected body in space and time, and the labels of the tracks inside it.

    Its regions in a frame are what is connected there, or `by_motion` what moves smoothly.
    """

    def __init__(
        self,
        body: Masks,
        tracks: Tracks,
        scale: float,
        min_mass: float,
        gap: int,
        *,
        by_motion: bool = False,
    ) -> None:
        self.body, self.tracks, self.scale, self.min_mass = body, tracks, scale, min_mass
        self.gap, self.by_motion, self.shape = gap, by_motion, np.array(body[0].shape)
        self.frames = [self._frame(mask, t) for t, mask in enumerate(body)]
        area = np.array([np.count_nonzero(mask) for mask in body])
        self.min_area = MIN_REGION * area.sum() / max(1, np.count_nonzero(area))
        self.label = np.zeros(len(tracks), np.int32)  # of each track, 0 unknown
        self.count = 0

    def split(self) -> list[MaskStack]:
        """Return the parts [T, h, w] bool that are apart in some frame, none of what is one."""
        first = self._most_apart()
        after, before = range(first, len(self.frames)), range(first - 1, -1, -1)
        for t in chain(after, before):
            self._hand_on(t)
        self._unite()
        if self.by_motion:
            self._settle()
        numbers = np.unique(self.label[self.label > 0])
        while len(numbers) > 1:
            painted = MaskStack(self._pixels(t, numbers) for t in range(len(self.frames)))
            areas = _areas(painted, int(numbers[-1]) + 1)[:, numbers]
            large = (areas.sum(0) >= self.min_mass) & ((areas > 0).mean(0) >= MIN_PRESENCE)
            if large.all():
                return [MaskStack(frame == number for frame in painted) for number in numbers]
            numbers = numbers[large]  # the others' pixels go to those
        return []

    def _frame(self, mask: np.ndarray, t: int) -> _Frame:
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

    def _cells(self, xy: np.ndarray) -> np.ndarray:
        """Return the row and the column [2, n] in the mask of positions [n, 2] px."""
        cell = np.floor(xy[:, ::-1] / self.scale).astype(int)
        return np.clip(cell, 0, self.shape - 1).T

    def _motion(self, t: int) -> np.ndarray:
        """Return position and velocity [n, 4] of the tracks inside, weighted to find neighbours."""
        rows = self.frames[t].rows
        xy, _ = self.tracks.look_up(rows, t)
        before, seen_before = self.tracks.look_up(rows, t - 1)
        after, seen_after = self.tracks.look_up(rows, t + 1)
        velocity = np.where(seen_after[:, None], after - xy, 0)
        velocity = np.where(seen_before[:, None], xy - before, velocity)
        return np.concatenate([xy, VELOCITY_FRAMES * velocity], 1)

    def _smooth_regions(self, rows: np.ndarray, xy: np.ndarray, t: int) -> np.ndarray:
        """Return the region [n], 1.., of the tracks of a frame that move smoothly; 0 for none."""
        later = t + self.gap if t + self.gap < len(self.body) else t - self.gap
        there, seen = self.tracks.look_up(rows, later)
        region = np.zeros(len(rows), int)
        region[seen] = smooth_regions(xy[seen], (there - xy)[seen], MAX_STRAIN)
        return region

    def _most_apart(self) -> int:
        """Return the middle of the longest run of frames with the most candidate regions."""
        from scipy import ndimage

        candidates = np.array([(frame.areas >= self.min_area).sum() for frame in self.frames])
        candidates = ndimage.median_filter(candidates, 5, mode="nearest")
        runs = connected_regions(candidates == candidates.max())
        longest = 1 + np.argmax(np.bincount(runs.ravel())[1:])
        return int(np.median(np.flatnonzero(runs == longest)))

    def _hand_on(self, t: int) -> None:
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

    def _unite(self) -> None:
        """Give one label to labels that are hardly ever apart or that move as one."""
        most = MAX_TOGETHER_IN_MOTION if self.by_motion else MAX_TOGETHER
        united = np.arange(self.count + 1)
        size = np.bincount(self.label, minlength=self.count + 1)[1:]
        for a, b in combinations((np.argsort(-size, kind="stable") + 1).tolist(), 2):
            if self._together(a, b) > most or self._hinged(a, b):
                united[united == united[b]] = united[a]
        self.label = united[self.label]

    def _members(self, frame: _Frame, label: int) -> tuple[np.ndarray, int]:
        """Return which tracks [n] of a frame have a label, and the region that most of them are in.

        Of regions told apart by motion, tracks that went astray into another one do not count.
        """
        own = self.label[frame.rows] == label
        if self.by_motion:
            own &= frame.region > 0
        region = int(np.bincount(frame.region[own], minlength=1).argmax())
        return own & (frame.region == region) if self.by_motion else own, region

    def _together(self, a: int, b: int) -> float:
        """Return the share of the frames with both labels in which they share a region."""
        common = shared = 0
        for frame in self.frames:
            (of_a, region_a), (of_b, region_b) = (self._members(frame, i) for i in (a, b))
            if of_a.sum() >= MIN_TRACKS and of_b.sum() >= MIN_TRACKS:
                common += 1
                shared += region_a == region_b
        return shared / common if common else 0.0

    def _hinged(self, a: int, b: int) -> bool:
        """Whether two labels move alike where they are nearest to one another."""
        from scipy.spatial import KDTree

        strain, relative = [], []
        for t in range(len(self.frames) - self.gap):
            (here_a, motion_a), (here_b, motion_b) = (self._moves(t, label) for label in (a, b))
            if min(len(here_a), len(here_b)) < MIN_TRACKS:
                continue
            distance, partner = KDTree(here_a).query(here_b)
            nearest = np.argsort(distance)[: max(MIN_TRACKS, len(here_b) // 10)]
            motion_b = motion_b[nearest]
            apart = np.linalg.norm(motion_a[np.asarray(partner)[nearest]] - motion_b, axis=1)
            strain.append(np.median(apart / np.maximum(distance[nearest], 1)))
            relative.append(np.median(apart / np.maximum(np.linalg.norm(motion_b, axis=1), 1)))
        return bool(strain) and bool(
            np.median(strain) < MAX_STRAIN and np.median(relative) < MAX_RELATIVE
        )

    def _moves(self, t: int, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where tracks of a label are in a frame [n, 2], and how they move from there."""
        if self.by_motion:
            rows = self.frames[t].rows[self._members(self.frames[t], label)[0]]
        else:  # inside the body now or not
            rows = np.flatnonzero(self.label == label)
        here, seen = self.tracks.look_up(rows, t)
        there, still_seen = self.tracks.look_up(rows, t + self.gap)
        both = seen & still_seen
        return here[both], (there - here)[both]

    def _settle(self) -> None:
        """Give each track the label that most tracks around it have, in most frames of its life.

        Frames in which two labels share a region are left out of the vote.
        """
        numbers = np.unique(self.label[self.label > 0])
        votes = np.zeros((len(self.label), int(numbers.max(initial=0)) + 1), np.int32)
        for frame in self.frames:
            members = [self._members(frame, number) for number in numbers.tolist()]
            homes = [region for own, region in members if own.sum() >= MIN_TRACKS]
            if len(set(homes)) < len(homes):
                continue
            label = self.label[frame.rows]
            for region in np.unique(frame.region[frame.region > 0]):
                inside = frame.region == region
                known = label[inside & (label > 0)]
                if len(known):
                    votes[frame.rows[inside], np.bincount(known).argmax()] += 1
        told = votes.any(1)
        self.label[told] = votes[told].argmax(1)

    def _pixels(self, t: int, numbers: np.ndarray) -> np.ndarray:
        """Return the labels [h, w] of a frame's pixels, from the tracks around them."""
        import cv2

        rows, mask = self.frames[t].rows, self.body[t]
        label, cells = self.label[rows], self._cells(self.tracks.look_up(rows, t)[0])
        seeds = np.zeros((len(numbers), *self.shape), np.float32)
        for i, number in enumerate(numbers):
            row, column = cells[:, label == number]
            np.add.at(seeds, (i, row, column), 1)
            seeds[i] = cv2.GaussianBlur(seeds[i], (0, 0), SPREAD_PX)
        labels = fill_from_nearest(numbers[seeds.argmax(0)], seeds.max(0) > 0)
        return np.where(mask, labels, 0).astype(np.min_scalar_type(numbers[-1]))
