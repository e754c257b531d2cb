"""TAPIR: a point is matched in every frame independently, then its path is refined.

The default is BootsTAPIR: code by the package `tapnet`, weights by torch hub. A folder or a
repository on GitHub with a `hubconf.py` whose `tapir()` makes a network with the same interface can
replace it.

Reference: Doersch et al., "TAPIR: Tracking Any Point with per-frame Initialization and temporal
Refinement", ICCV 2023; "BootsTAP: Bootstrapped Training for Tracking-Any-Point", ACCV 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from msdyn.errors import MissingExtraError
from msdyn.io import tracks_of_cotracker
from msdyn.preprocess.checkpoints.placement import Placement, network_input
from msdyn.preprocess.checkpoints.torch_hub import HubWeights, hub_weights, load_from_hub
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.tracks.point_trackers import GridTracks
from msdyn.scene import Tracks

__all__ = ["BOOTSTAPIR", "Tapir"]

BOOTSTAPIR = "bootstapir"
LICENCE = "Apache-2.0"
_WEIGHTS = HubWeights(
    "https://storage.googleapis.com/dm-tapnet/bootstap/bootstapir_checkpoint_v2.pt",
    LICENCE,
    "8493c7a69e02c85b9382fbb3c7b8b539b36bc08ede744b9e99feb739a0129f4b",
)
_ENTRY = "tapir"
_SIDE, _STEP = 512, 8
"""Images are shrunk to this longer side, and both sides are multiples of the second number, px."""


@register_backend("tracks", "tapir", needs=("frames",), model=BOOTSTAPIR)
@dataclass(frozen=True)
class Tapir(GridTracks):
    """Tracks by a TAPIR, of grids of points in evenly spaced frames."""

    model: str = BOOTSTAPIR
    """"bootstapir", or a folder or a repository on GitHub with a `hubconf.py`."""

    @property
    def licence(self) -> str:
        return LICENCE if self.model == BOOTSTAPIR else "unknown (your own copy)"

    def _load(self) -> nn.Module:
        if self.model != BOOTSTAPIR:
            return load_from_hub(self.model, _ENTRY, offline=self.offline)
        try:
            from tapnet.torch.tapir_model import TAPIR  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtraError(
                "tapir: needs tapnet: pip install "
                "'tapnet[torch] @ git+https://github.com/google-deepmind/tapnet.git'; or give a "
                "folder with a hubconf.py by --tracks-model"
            ) from error
        network = TAPIR(pyramid_level=1)
        network.load_state_dict(hub_weights(_WEIGHTS, offline=self.offline))
        return network

    def _follow(
        self,
        network: Callable[..., dict[str, Tensor]],
        images: UInt8[np.ndarray, "frames height width 3"],
        queries: Float32[np.ndarray, "points 3"],
        device: str,
    ) -> Tracks:
        size = images.shape[1:3]
        factor = min(1.0, _SIDE / max(size))
        height, width = (max(_STEP, round(factor * side / _STEP) * _STEP) for side in size)
        half = (0.5, 0.5, 0.5)  # the network takes colours in [-1, 1]
        video = network_input(images, (height, width), half, half, Placement(device, False, 1))
        scale = np.array([width / size[1], height / size[0]], np.float32)
        points = np.concatenate([queries[:, :1], queries[:, :0:-1] * scale[::-1]], 1)
        result = network(
            video.permute(0, 2, 3, 1)[None].contiguous(),
            torch.from_numpy(points)[None].to(device),  # (frame, y, x)
        )
        visibility = 1 - torch.sigmoid(result["occlusion"][0].float())
        visibility = visibility * (1 - torch.sigmoid(result["expected_dist"][0].float()))
        xy = result["tracks"][0].float().cpu().numpy() / scale
        # CoTracker's layout has frames first, and its pixel centres are at integers.
        return tracks_of_cotracker(xy.swapaxes(0, 1) - 0.5, visibility.cpu().numpy().T)
