"""CoTracker3 by torch hub: tracks that survive occlusions. Weights and code are CC-BY-NC-4.0.

Reference: Karaev et al., "CoTracker3: Simpler and Better Point Tracking by Pseudo-Labelling Real
Videos", 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdyn.io import tracks_of_cotracker
from msdyn.preprocess.checkpoints.huggingface import Availability
from msdyn.preprocess.checkpoints.torch_hub import load_from_hub
from msdyn.preprocess.tracks.point_trackers import GridTracks
from msdyn.scene import Tracks

__all__ = ["COTRACKER", "CoTracker", "find_cotracker"]

COTRACKER = "facebookresearch/co-tracker"
_ENTRY = "cotracker3_offline"
LICENCE = "CC-BY-NC-4.0"


@dataclass(frozen=True)
class CoTracker(GridTracks):
    """Tracks by CoTracker3: grids of points from evenly spaced frames, followed there and back."""

    model: str = COTRACKER
    """A repository on GitHub with a `hubconf.py`, or a folder with one."""

    name = "cotracker"

    @property
    def licence(self) -> str:
        return LICENCE if self.model == COTRACKER else "unknown (your own copy)"

    def _load(self) -> Any:
        return load_from_hub(self.model, _ENTRY, offline=self.offline)

    def _follow(self, network: Any, images: np.ndarray, queries: np.ndarray, device: str) -> Tracks:
        import torch

        video = torch.from_numpy(images).permute(0, 3, 1, 2)[None].float().to(device)
        own = queries - np.array([0, 0.5, 0.5], np.float32)  # its pixel centres are at integers
        xy, visibility = network(
            video, queries=torch.from_numpy(own)[None].to(device), backward_tracking=True
        )
        return tracks_of_cotracker(xy.float().cpu().numpy(), visibility.float().cpu().numpy())


def find_cotracker(*, offline: bool) -> Availability:
    """Return whether the code and weights can be had; `offline`, without opening a socket."""
    import torch

    code = Path(torch.hub.get_dir()) / f"{COTRACKER.replace('/', '_')}_main"
    weights = Path(torch.hub.get_dir()) / "checkpoints" / "scaled_offline.pth"
    if code.is_dir() and weights.is_file():
        return Availability("cached", "on this disk")
    if offline:
        return Availability("no", "not on this disk, and nothing is fetched with --preset offline")
    import urllib.request

    try:
        urllib.request.urlopen(f"https://github.com/{COTRACKER}", timeout=5).close()
    except (OSError, ValueError) as error:
        return Availability("no", f"not on this disk, and not to be fetched ({error})")
    return Availability("online", "to be fetched, about 97 MB")
