"""From the objects that a network finds by phrases to index masks and names.

A network gives each object a number of its own, masks that may overlap, and the phrase that it
answers to. Here they become the labels of a scene:

- Objects that cover the same pixels through the clip, found by one phrase or by two, are one
  object, which keeps the name of the phrase that comes first.
- Labels follow the order of the phrases; those of one phrase, the order of appearance.
- A pixel in two masks belongs to the smaller object where that lies mostly inside of the larger one
  (a cap on a bottle), otherwise to the one of the higher logit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from msdyn.preprocess.contracts import Mask
from msdyn.scene import IGNORE

__all__ = ["Found", "NamedObjects", "index_mask"]

SAME = 0.6
"""Objects are one where their masks, over the frames in which both are visible, have at least this
intersection over union."""
TOGETHER = 0.5
"""And where these frames are at least this share of those of the object that is visible less."""
INSIDE = 0.8
"""Share of the smaller mask that lies in the larger one, for it to be a part of that."""
MOST_OBJECTS = IGNORE - 1


@dataclass(frozen=True)
class Found:
    """What a network finds in one frame.

    Attributes:
        ids: [K] the network's number of each object.
        logits: [K, h, w] of their masks, positive inside, in the network's resolution.
    """

    ids: list[int]
    logits: Float[np.ndarray, "objects height width"]


@dataclass
class _Object:
    """One object through the clip."""

    phrase: int
    first: int
    frames: int = 0
    area: int = 0


@dataclass
class NamedObjects:
    """Collects what is found in each frame, and then gives labels and names.

    Attributes:
        phrases: of the user, in their order.
        phrase_of: index of the phrase of each object, by the network's number.
    """

    phrases: Sequence[str]
    phrase_of: dict[int, int] = field(default_factory=dict)
    _objects: dict[int, _Object] = field(default_factory=dict)
    _pairs: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """Of two objects: the frames with both, and intersection and union over these."""

    def add(self, frame: int, found: Found) -> None:
        """Take in what is found in a frame; empty masks count as not visible."""
        masks = found.logits > 0
        areas = masks.sum((1, 2)).tolist()
        visible = [k for k, area in enumerate(areas) if area]
        for k in visible:
            number = found.ids[k]
            one = self._objects.setdefault(number, _Object(self.phrase_of[number], frame))
            one.frames += 1
            one.area += areas[k]
        flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2]).astype(np.float32)
        shared = np.rint(flat @ flat.T).astype(int).tolist()
        for i, k in enumerate(visible):
            for j in visible[i + 1 :]:
                pair = self._pairs.setdefault(_ordered(found.ids[k], found.ids[j]), [0, 0, 0])
                pair[0] += 1
                pair[1] += shared[k][j]
                pair[2] += areas[k] + areas[j] - shared[k][j]

    def labels(self) -> dict[int, int]:
        """Return the label 1, 2, ... of each of the network's numbers that is to be kept.

        Of more than 254 objects, the largest ones are kept.
        """
        of = self._representatives()
        area = dict.fromkeys(of.values(), 0)
        for number, representative in of.items():
            area[representative] += self._objects[number].area
        largest = sorted(area, key=lambda number: -area[number])[:MOST_OBJECTS]
        order = {number: label for label, number in enumerate(sorted(largest, key=self._rank), 1)}
        return {number: order[one] for number, one in of.items() if one in order}

    def names(self) -> dict[int, str]:
        """Return the name of each label: the phrase, numbered where it has several objects."""
        phrase = {}
        for number, label in self.labels().items():
            rank = self._objects[number].phrase
            phrase[label] = min(rank, phrase.get(label, rank))
        names, counts = {}, dict.fromkeys(phrase.values(), 0)
        several = {p for p in counts if list(phrase.values()).count(p) > 1}
        for label in sorted(phrase):
            p = phrase[label]
            counts[p] += 1
            names[label] = f"{self.phrases[p]} {counts[p]}" if p in several else self.phrases[p]
        return names

    def unmatched(self) -> list[str]:
        """Return the phrases to which nothing answers."""
        matched = {one.phrase for one in self._objects.values()}
        return [phrase for p, phrase in enumerate(self.phrases) if p not in matched]

    def same(self) -> Iterator[tuple[str, str]]:
        """Yield phrases that only find objects of another phrase, each with that one."""
        of = self._representatives()
        own = {self._objects[one].phrase for one in of.values()}
        said = set()
        for number in sorted(of, key=self._rank):
            p, q = self._objects[number].phrase, self._objects[of[number]].phrase
            if p != q and p not in own and p not in said:
                said.add(p)
                yield self.phrases[p], self.phrases[q]

    def _rank(self, number: int) -> tuple[int, int, int, int]:
        """Return what objects are ordered by: phrase, appearance, size, the network's number."""
        one = self._objects[number]
        return one.phrase, one.first, -one.area, number

    def _representatives(self) -> dict[int, int]:
        """Return the object that each one is the same as: itself, or one that comes before it."""
        of: dict[int, int] = {}
        for number in sorted(self._objects, key=self._rank):
            same = [one for one in dict.fromkeys(of.values()) if self._are_one(number, one)]
            of[number] = same[0] if same else number
        return of

    def _are_one(self, a: int, b: int) -> bool:
        """Return whether two objects cover the same pixels through the clip."""
        both, shared, union = self._pairs.get(_ordered(a, b), (0, 0, 0))
        fewer = min(self._objects[a].frames, self._objects[b].frames)
        return both >= max(1, TOGETHER * fewer) and shared >= SAME * union


def _ordered(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def index_mask(logits: Float[np.ndarray, "objects height width"], labels: Sequence[int]) -> Mask:
    """Return the index mask [H, W] of objects whose masks may overlap.

    Args:
        logits: [K, H, W], positive inside.
        labels: [K] label of each; 0 leaves an object out.
    """
    kept = [k for k, label in enumerate(labels) if label]
    result = np.zeros(logits.shape[1:], np.uint8)
    if not kept:
        return result
    logits, label = logits[kept], np.array([labels[k] for k in kept], np.uint8)
    masks = logits > 0
    best = logits.argmax(0)
    result[:] = np.where(masks.any(0), label[best], 0)
    areas = masks.sum((1, 2))
    # The smallest last, so that a part of a part is drawn over both.
    for small in np.argsort(-areas, kind="stable").tolist():
        for large in range(len(label)):
            if not (areas[small] < areas[large] and label[small] != label[large]):
                continue
            shared = masks[small] & masks[large]
            if areas[small] and shared.sum() >= INSIDE * areas[small]:
                result[shared & (result == label[large])] = label[small]
    return result
