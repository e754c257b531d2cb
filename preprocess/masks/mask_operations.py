"""Non-maximum suppression and connected components, as SAM 3's code in transformers calls them.

That code takes them from a compiled package of the hub, which it fetches and runs, and without the
package leaves both out: duplicates of an object then become objects of their own. `own_operations`
puts these in its place for as long as the network runs.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

__all__ = ["MaskOperations", "own_operations"]

_MODULE = "transformers.models.sam3_video.modeling_sam3_video"
_NAME = "cv_utils_kernel"


class MaskOperations:
    """The two functions of the package that the network's code calls."""

    @staticmethod
    def generic_nms(
        ious: Float[Tensor, "detections detections"],
        scores: Float[Tensor, " detections"],
        iou_threshold: float,
        use_iou_matrix: bool = True,
    ) -> Int[Tensor, " kept"]:
        """Return the indices of detections that overlap no better one, best first.

        Args:
            ious: [N, N] intersection over union of each pair.
            scores: [N].
            iou_threshold: of two with more than this, the one of the lower score is dropped.
            use_iou_matrix: always.
        """
        assert use_iou_matrix, "of masks there is nothing else"
        over = (ious > iou_threshold).cpu().numpy()
        kept: list[int] = []
        for one in torch.argsort(scores, descending=True, stable=True).tolist():
            if not over[one, kept].any():
                kept.append(one)
        return torch.tensor(kept, dtype=torch.long, device=scores.device)

    @staticmethod
    def cc_2d(
        mask: Shaped[Tensor, "batch 1 height width"], get_counts: bool = True
    ) -> tuple[Int[Tensor, "batch 1 height width"], Int[Tensor, "batch 1 height width"]]:
        """Return the component of each pixel, 0 for background, and the area of the component.

        Args:
            mask: [B, 1, H, W], foreground where not zero; 8 neighbours are connected.
            get_counts: always.
        """
        import cv2

        assert get_counts, "the areas are what is asked for"
        labels, counts = [], []
        for image in mask[:, 0].cpu().numpy():
            _, label, stats, _ = cv2.connectedComponentsWithStats(image.astype(np.uint8), None)
            area = stats[:, cv2.CC_STAT_AREA].astype(np.int32)
            area[0] = 0
            labels.append(label)
            counts.append(area[label])
        both = (np.stack(part)[:, None].astype(np.int32) for part in (labels, counts))
        first, second = (torch.from_numpy(part).to(mask.device) for part in both)
        return first, second


@contextlib.contextmanager
def own_operations() -> Iterator[None]:
    """Let the network's code call `MaskOperations`, and fetch nothing."""
    module = importlib.import_module(_MODULE)
    before = getattr(module, _NAME, None)
    setattr(module, _NAME, MaskOperations())
    try:
        yield
    finally:
        setattr(module, _NAME, before)
