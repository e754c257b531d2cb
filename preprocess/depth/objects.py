"""The place of moving objects whose depth is not measured: by contact, and with what they touch.

They have the relief that the completion of the background gives them, or one depth per frame. Their
distance is that of what they touch or of what surrounds them, smoothed over time. Objects that hang
together, as a bag and the one who carries it, keep the distances that the relief gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32

from msdyn.preprocess.contracts import Figures, Mask, Masks
from msdyn.preprocess.depth.multi_frame import DenseBody
from msdyn.preprocess.depth.support import Surroundings, smooth_depths
from msdyn.preprocess.depth.template_depth import TemplateDepth

__all__ = ["BEFORE_BACKDROP", "Completion", "PlacedObject", "place_objects"]

# Depth of objects of which nothing is known, where the background has a typical depth of 1.
BEFORE_BACKDROP = 0.9
MIN_CONTACTS = 3  # frames in which the ground below an object is visible
# A contact that would move the relief of an object further than this is a wrong contact.
MAX_SHIFT = 1.5
# Objects hang together that touch in this share of the frames in which both are visible, where the
# relief on both sides, up to a share of the longer side of the image away, differs by less than
# this (logarithm, median).
MIN_TOUCHING, REACH, MAX_STEP = 0.5, 0.02, 0.1
MIN_BORDER = 10  # px on each side


@runtime_checkable
class Completion(Protocol):
    """What gives depth where nothing is measured.

    Attributes:
        name: for the record.
    """

    name: str

    def complete(
        self,
        frame: int,
        inverse: Float32[np.ndarray, "h w"],
        weight: Float32[np.ndarray, "h w"],
        own: Bool[np.ndarray, "height width"],
    ) -> tuple[Float32[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
        """Return the depth [H, W] of a body everywhere, and where it is that of measured pixels.

        Pixels off the body have meaningless values.

        Args:
            frame: the frame.
            inverse: [h, w] measured inverse depth, at working size.
            weight: [h, w] its weight, 0 where nothing is measured.
            own: [H, W] the pixels of the body.
        """
        ...

    def relief(self, frame: int) -> Float32[np.ndarray, "height width"] | None:
        """Return depth [H, W] that holds on each object up to a factor, None without any."""
        ...


def place_objects(
    masks: Masks,
    completion: Completion,
    surroundings: Mapping[int, list[Surroundings | None]],
    measured: Mapping[int, DenseBody],
) -> list[PlacedObject]:
    """Return the depth of every object.

    Args:
        masks: an index mask per frame.
        completion: of the background.
        surroundings: of every object by label, in every frame.
        measured: the objects whose depth is measured.
    """
    others = {label: found for label, found in surroundings.items() if label not in measured}
    reliefs = {label: _read_relief(masks, completion, label, f) for label, f in others.items()}
    known = {label: relief for label, relief in reliefs.items() if relief is not None}
    placed = {
        label: PlacedObject(label, found, measured.get(label))
        for label, found in surroundings.items()
    }
    for group in _hanging_together(masks, completion, list(known)):
        shift = max((known[label] for label in group), key=lambda relief: relief.bottom).shift
        factors = _common_factors([known[label] for label in group]) * (shift or 1.0)
        for label in group:
            placed[label].factors, placed[label].touches = factors, shift is not None
            placed[label].joined = [other for other in group if other != label]
    return list(placed.values())


class PlacedObject:
    """The depth of one object.

    Attributes:
        label: its index in the masks.
        touches: its distance is that of the ground it is on.
        factors: [T] what to multiply the relief by, None without a relief.
        joined: the objects that hang together with it.
    """

    def __init__(
        self, label: int, surroundings: list[Surroundings | None], body: DenseBody | None
    ) -> None:
        """Estimate the depth of an object without a relief.

        Args:
            label: its index in the masks.
            surroundings: of every frame.
            body: measures it where it moves rigidly.
        """
        self.label, self._body = label, body
        self.touches = _touches(surroundings)
        self.factors: Float[np.ndarray, " frames"] | None = None
        self.joined: list[int] = []
        self._by_template, self._frames = 0, sum(found is not None for found in surroundings)
        holders = np.array([found.holder if found else 0.0 for found in surroundings])
        smooth = smooth_depths(_contacts(surroundings) if self.touches else holders)
        self._placed = np.where(smooth > 0, smooth, BEFORE_BACKDROP)

    def figures(self) -> Figures:
        """Return how the shape and the position were found, after all frames."""
        if 2 * self._by_template > self._frames:
            share = round(self._by_template / self._frames, 3)
            return {"shape": "points of the first frame", "placed_by": "tracks", "frames": share}
        if self.factors is not None:
            place = "contact" if self.touches else "network"
            with_others = {"joined_to": self.joined} if self.joined else {}
            return {"shape": "network", "placed_by": place, **with_others}
        return {
            "shape": "own rigid motion" if self._body else "one depth per frame",
            "placed_by": "contact" if self.touches else "border",
        }

    def shaped(
        self, frame: int, own: Bool[np.ndarray, "height width"], template: TemplateDepth | None
    ) -> Float32[np.ndarray, "height width"] | None:
        """Return its depth [H, W] by the template, None without one or where it is not covered."""
        if self._body is not None or template is None or not own.any():
            return None
        depth = template.depth(frame, own)
        self._by_template += depth is not None
        return depth

    def measured(
        self, frame: int, own: Bool[np.ndarray, "height width"], completion: Completion
    ) -> Float32[np.ndarray, "height width"] | None:
        """Return its measured depth [H, W] on its pixels `own`, None where nothing is measured."""
        if self._body is None:
            return None
        inverse, weight = self._body.measure(frame)
        return completion.complete(frame, inverse, weight, own)[0] if weight.any() else None

    def assumed(
        self, frame: int, own: Bool[np.ndarray, "height width"], completion: Completion
    ) -> float | Float32[np.ndarray, " pixels"]:
        """Return its assumed depth on its pixels `own` [H, W]: one for all, or one for each."""
        relief = None if self.factors is None else completion.relief(frame)
        if relief is None or self.factors is None:
            return float(self._placed[frame])
        return relief[own] * np.float32(self.factors[frame])


def _contacts(surroundings: list[Surroundings | None]) -> Float[np.ndarray, " frames"]:
    """Return the depth [T] of the ground that an object is on, 0 where that is not visible."""
    return np.array([found.contact if found else 0.0 for found in surroundings])


def _touches(surroundings: list[Surroundings | None]) -> bool:
    """Return whether an object is on the ground."""
    hangs = sum(found.hangs for found in surroundings if found)
    return int((_contacts(surroundings) > 0).sum()) >= max(MIN_CONTACTS, hangs)


@dataclass(frozen=True)
class _Relief:
    """The relief of the completion on one object.

    Attributes:
        whole, foot: [T] its median depth on the whole object and on its foot, 0 where unknown.
        area: [T] px.
        bottom: the object's lowest row, the mean of the frames in which it is visible.
        contacts: [T] depth of the ground it is on, 0 where that is not visible or not believed.
    """

    whole: Float[np.ndarray, " frames"]
    foot: Float[np.ndarray, " frames"]
    area: Float[np.ndarray, " frames"]
    bottom: float
    contacts: Float[np.ndarray, " frames"]

    @property
    def factors(self) -> Float[np.ndarray, " frames"]:
        """What to multiply the relief by, [T], so that the object's distance changes smoothly."""
        smooth, known = smooth_depths(self.whole), self.whole > 0
        return np.divide(smooth, self.whole, out=np.ones_like(smooth), where=known)

    @property
    def shift(self) -> float | None:
        """What brings it to the ground, after `factors`; None where contacts do not tell."""
        both = (self.contacts > 0) & (self.foot > 0)
        if not both.any():
            return None
        shift = float(np.median(self.contacts[both] / (self.factors * self.foot)[both]))
        return shift if 1 / MAX_SHIFT < shift < MAX_SHIFT else None


def _read_relief(
    masks: Masks, completion: Completion, label: int, surroundings: list[Surroundings | None]
) -> _Relief | None:
    """Return the relief on an object, None where the completion gives none."""
    whole, foot, area = np.zeros((3, len(surroundings)))
    bottoms = []
    for frame, found in enumerate(surroundings):
        if found is None:
            continue
        relief = completion.relief(frame)
        if relief is None:
            return None
        own = masks[frame] == label
        lowest = slice(*found.foot)
        whole[frame], area[frame] = np.median(relief[own]), own.sum()
        if own[lowest].any():
            foot[frame] = np.median(relief[lowest][own[lowest]])
        bottoms.append(found.foot[1])
    contacts = _contacts(surroundings) * _touches(surroundings)
    return _Relief(whole, foot, area, float(np.mean(bottoms or [0])), contacts)


def _common_factors(reliefs: Sequence[_Relief]) -> Float[np.ndarray, " frames"]:
    """Return the mean of the factors [T] of some reliefs, by area."""
    area = np.stack([relief.area for relief in reliefs])
    logs = np.log([relief.factors for relief in reliefs])
    return np.exp((area * logs).sum(0) / np.maximum(area.sum(0), 1))


def _hanging_together(masks: Masks, completion: Completion, labels: list[int]) -> list[list[int]]:
    """Return groups of the objects that hang together, of all objects that have a relief."""
    steps: dict[tuple[int, int], list[float]] = {pair: [] for pair in combinations(labels, 2)}
    common = dict.fromkeys(steps, 0)
    for frame in range(len(masks)) if steps else ():
        mask = masks[frame]
        relief = completion.relief(frame)
        present = set(np.unique(mask).tolist())
        for pair, found in steps.items():
            if relief is not None and present.issuperset(pair):
                common[pair] += 1
                step = _step(mask, relief, *pair)
                if step is not None:
                    found.append(step)
    group = {label: [label] for label in labels}
    for (a, b), found in steps.items():
        often = len(found) >= max(MIN_CONTACTS, MIN_TOUCHING * common[a, b])
        if often and np.median(found) < MAX_STEP and group[a] is not group[b]:
            group[a] += group[b]
            for label in group[b]:
                group[label] = group[a]
    return list({id(members): members for members in group.values()}.values())


def _step(mask: Mask, relief: Float32[np.ndarray, "height width"], a: int, b: int) -> float | None:
    """Return the change (logarithm) of the relief between two objects, None if they are apart."""
    import cv2

    reach = max(2, round(REACH * max(mask.shape)))
    kernel = np.ones((2 * reach + 1,) * 2, np.uint8)
    of_a, of_b = mask == a, mask == b
    near_a = of_a & (cv2.dilate(of_b.astype(np.uint8), kernel) > 0)
    near_b = of_b & (cv2.dilate(of_a.astype(np.uint8), kernel) > 0)
    if min(near_a.sum(), near_b.sum()) < MIN_BORDER:
        return None
    return abs(float(np.log(np.median(relief[near_a]) / np.median(relief[near_b]))))
