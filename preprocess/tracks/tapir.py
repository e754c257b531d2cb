"""TAPIR: a point is looked for in every frame alone, then its path is refined.

The default is BootsTAPIR: code by the package `tapnet`, weights by torch hub. A folder or a
repository on GitHub with a `hubconf.py` whose `tapir()` makes a network of the same call takes its
place.

Reference: Doersch et al., "TAPIR: Tracking Any Point with per-frame Initialization and temporal
Refinement", ICCV 2023; "BootsTAP: Bootstrapped Training for Tracking-Any-Point", ACCV 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from msdyn.errors import MissingExtraError
from msdyn.io import tracks_of_cotracker
from msdyn.preprocess.checkpoints.placement import Placement, network_input
from msdyn.preprocess.checkpoints.torch_hub import hub_weights, load_from_hub
from msdyn.preprocess.tracks.point_trackers import GridTracks
from msdyn.scene import Tracks

__all__ = ["BOOTSTAPIR", "Tapir"]

BOOTSTAPIR = "bootstapir"
LICENCE = "Apache-2.0"
_WEIGHTS = "https://storage.googleapis.com/dm-tapnet/bootstap/bootstapir_checkpoint_v2.pt"
_ENTRY = "tapir"
_SIDE, _STEP = 512, 8
"""The longer side that images are shrunk to, and of what both sides are multiples."""


@dataclass(frozen=True)
class Tapir(GridTracks):
    """Tracks by a TAPIR: grids of points from evenly spaced frames."""

    model: str = BOOTSTAPIR
    """"bootstapir", or a folder or a repository on GitHub with a `hubconf.py`."""

    name = "tapir"

    @property
    def licence(self) -> str:
        return LICENCE if self.model == BOOTSTAPIR else "unknown (your own copy)"

    def _load(self) -> Any:
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

    def _follow(self, network: Any, images: np.ndarray, queries: np.ndarray, device: str) -> Tracks:
        import torch

        size = images.shape[1:3]
        factor = min(1.0, _SIDE / max(size))
        height, width = (max(_STEP, round(factor * side / _STEP) * _STEP) for side in size)
        half = (0.5, 0.5, 0.5)  # it takes colours from -1 to 1
        video = network_input(images, (height, width), half, half, Placement(device, False, 1))
        scale = np.array([width / size[1], height / size[0]], np.float32)
        points = np.concatenate([queries[:, :1], queries[:, :0:-1] * scale[::-1]], 1)
        result = network(
            video.permute(0, 2, 3, 1)[None].contiguous(),
            torch.from_numpy(points)[None].to(device),  # (frame, y, x)
        )
        seen = 1 - torch.sigmoid(result["occlusion"][0].float())
        seen = seen * (1 - torch.sigmoid(result["expected_dist"][0].float()))
        xy = result["tracks"][0].float().cpu().numpy() / scale
        # The layout is CoTracker's but for the frames, which come second, and the pixel centres.
        return tracks_of_cotracker(xy.swapaxes(0, 1) - 0.5, seen.cpu().numpy().T)
