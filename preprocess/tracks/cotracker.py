"""CoTracker3 by torch hub: tracks through occlusions. Weights and code are CC-BY-NC-4.0.

Reference: Karaev et al., "CoTracker3: Simpler and Better Point Tracking by Pseudo-Labelling Real
Videos", 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from msdyn.io import tracks_of_cotracker
from msdyn.preprocess.checkpoints.huggingface import Availability
from msdyn.preprocess.checkpoints.torch_hub import HUB, load_from_hub
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.tracks.point_trackers import GridTracks
from msdyn.scene import Tracks

__all__ = ["COTRACKER", "CoTracker", "find_cotracker"]

COTRACKER = "facebookresearch/co-tracker"
_ENTRY = "cotracker3_offline"
LICENCE = "CC-BY-NC-4.0"


@register_backend("tracks", "cotracker", needs=("frames",), model=COTRACKER)
@dataclass(frozen=True)
class CoTracker(GridTracks):
    """Tracks by CoTracker3, of grids of points in evenly spaced frames."""

    model: str = COTRACKER
    """A repository on GitHub with a `hubconf.py`, as owner/name:commit, or a folder with one."""

    @property
    def licence(self) -> str:
        return LICENCE if self.model == COTRACKER else "unknown (your own copy)"

    def _load(self) -> nn.Module:
        return load_from_hub(self.model, _ENTRY, offline=self.offline)

    def _follow(
        self,
        network: Callable[..., tuple[Tensor, Tensor]],
        images: UInt8[np.ndarray, "frames height width 3"],
        queries: Float32[np.ndarray, "points 3"],
        device: str,
    ) -> Tracks:
        video = torch.from_numpy(images).permute(0, 3, 1, 2)[None].float().to(device)
        own = queries - np.array([0, 0.5, 0.5], np.float32)  # its pixel centres are at integers
        xy, visibility = network(
            video, queries=torch.from_numpy(own)[None].to(device), backward_tracking=True
        )
        return tracks_of_cotracker(xy.float().cpu().numpy(), visibility.float().cpu().numpy())


def find_cotracker(*, offline: bool) -> Availability:
    """Return whether code and weights are available; `offline`, without opening a socket."""
    known = HUB[COTRACKER]
    if known.folder.is_dir() and all(weights.path.is_file() for weights in known.weights):
        return Availability("cached", "on this disk")
    if offline:
        return Availability("no", "not on this disk, and nothing is fetched with --preset offline")
    import urllib.request

    try:
        urllib.request.urlopen(f"https://github.com/{COTRACKER}", timeout=5).close()
    except (OSError, ValueError) as error:
        return Availability("no", f"not on this disk, and not to be fetched ({error})")
    return Availability("online", "to be fetched, about 97 MB")
