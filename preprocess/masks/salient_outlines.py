"""Outlines of moving objects, corrected by a network that finds salient objects.

Motion is vague at outlines: limbs at rest are lost, shadows and untextured surroundings move along.
A network for salient objects that is shown an object with its surroundings usually outlines just
this object. Where it agrees with the motion about what the object is, small regions are taken from
it: those it adds to the object, and those it removes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from msdyn.preprocess.contracts import Mask, Masks
from msdyn.preprocess.imaging.connected_components import connected_regions
from msdyn.preprocess.imaging.mask_stack import MaskStack
from msdyn.preprocess.imaging.windows import Window, window_of
from msdyn.preprocess.masks.saliency import Predict
from msdyn.preprocess.progress import progress
from msdyn.scene import IGNORE, STATIC, Scene

__all__ = ["with_salient_outlines"]

# Surroundings shown to the network, as a fraction of the sides of the object's box.
_MARGIN = 0.2
# Frames in which it is found out whether the network sees an object.
_PROBES = 9
# Least intersection over union with the mask by motion, in their median, and in a frame.
_MIN_AGREEMENT = 0.7
# Largest region added or removed, as a share of the mask by motion.
_MAX_CHANGED = 0.1
# Smaller objects, as a share of the image, are left alone.
_MIN_AREA = 0.003


def with_salient_outlines(scene: Scene, masks: Masks, predict: Predict) -> tuple[MaskStack, int]:
    """Correct the outlines of objects.

    An object is left alone where the network sees something else: in frames in which they do not
    agree, or in all, if they do not agree in most of `_PROBES` frames. No object loses a pixel to
    another, and ignored pixels stay ignored.

    Args:
        scene: the frames.
        masks: [T, H, W] index masks.
        predict: the network.

    Returns:
        The masks, and the number of objects that the network sees.
    """
    frames_of: dict[int, list[int]] = {}
    for frame, mask in enumerate(masks):
        for label in _objects(mask):
            frames_of.setdefault(label, []).append(frame)
    probes = [(i, label) for label, frames in frames_of.items() for i in _spread(frames, _PROBES)]
    seen = {
        (frame, label): _seen(scene.image(frame), masks[frame] == label, predict)
        for frame, label in progress(probes, "objects")
    }
    agreed = [
        label
        for label in frames_of
        if np.median([one.agreement for (_, n), one in seen.items() if n == label])
        >= _MIN_AGREEMENT
    ]

    def corrected(frame: int) -> Mask:
        mask, result = masks[frame], np.array(masks[frame])
        for label in agreed:
            if frame not in frames_of[label]:
                continue
            one = seen.get((frame, label)) or _seen(scene.image(frame), mask == label, predict)
            if one.agreement >= _MIN_AGREEMENT:
                _correct(result[one.window], label, one.salient)
        return result

    every = progress(range(len(masks)), "outlines")
    return MaskStack(corrected(frame) for frame in every), len(agreed)


def _spread(frames: list[int], count: int) -> list[int]:
    """Return at most `count` of some frames, evenly spread."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    return [frames[i] for i in chosen]


@dataclass(frozen=True)
class _Seen:
    """What the network sees of an object in a frame.

    Attributes:
        window: of the object and its surroundings.
        salient: [h, w] of them.
        agreement: intersection over union with the mask by motion.
    """

    window: Window
    salient: Bool[np.ndarray, "height width"]
    agreement: float


def _objects(mask: Mask) -> set[int]:
    """Return the numbers of the objects of a mask that are not tiny."""
    areas = np.bincount(mask.ravel(), minlength=256)
    areas[[STATIC, IGNORE]] = 0
    return set(np.flatnonzero(areas >= _MIN_AREA * mask.size).tolist())


def _seen(
    image: UInt8[np.ndarray, "height width 3"],
    own: Bool[np.ndarray, "height width"],
    predict: Predict,
) -> _Seen:
    """Return what the network sees of an object with a given mask."""
    window = window_of(own, margin_share=_MARGIN)
    assert window is not None, "objects have pixels"
    salient = predict(np.ascontiguousarray(image[window])) >= 0.5
    both, union = (salient & own[window]).sum(), (salient | own[window]).sum()
    return _Seen(window, salient, float(both / union))


def _correct(mask: Mask, label: int, salient: Bool[np.ndarray, "height width"]) -> None:
    """Add small regions to an object of a part of a mask, and remove others, in place."""
    own = mask == label
    area = int(own.sum())
    removed = _small_regions(own & ~salient, _MAX_CHANGED * area)
    added = _small_regions((mask == STATIC) & salient, _MAX_CHANGED * area)
    mask[removed] = STATIC
    mask[added] = label


def _small_regions(
    mask: Bool[np.ndarray, "height width"], area: float
) -> Bool[np.ndarray, "height width"]:
    """Return the connected regions of at most an area, px."""
    regions = connected_regions(mask)
    areas = np.bincount(regions.ravel())
    return mask & (areas[regions] <= area)
