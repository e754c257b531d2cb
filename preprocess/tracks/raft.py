"""RAFT: optical flow by a network, chained into tracks as the flow without weights is.

The default is torchvision's, where torchvision is installed. A folder or a repository on GitHub
with a `hubconf.py` whose `raft()` makes a network of the same call takes its place.

Reference: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msdyn.errors import MissingExtraError
from msdyn.preprocess.checkpoints.placement import Placement, network_input
from msdyn.preprocess.checkpoints.torch_hub import hub_weights, load_from_hub
from msdyn.preprocess.imaging.flow import FlowPair, grey
from msdyn.preprocess.tracks.chained_flow import FlowTracks
from msdyn.scene import Scene

__all__ = ["RAFT_MODELS", "RaftTracks"]

RAFT_MODELS = {"raft_large": "Raft_Large_Weights", "raft_small": "Raft_Small_Weights"}
"""The networks of torchvision, and the enumeration of the weights of each."""
LICENCE = "BSD-3-Clause (its training data: research)"
_ENTRY = "raft"
_STEP, _LEAST = 8, 128
"""Both sides are padded to multiples of the first, and to the second at least: a pyramid of four
levels is made of features at an eighth of the size."""


@dataclass(frozen=True)
class RaftTracks(FlowTracks):
    """Tracks by chained optical flow, the flow by RAFT."""

    model: str = "raft_large"
    """"raft_large" or "raft_small", of torchvision; or a folder or a repository on GitHub with a
    `hubconf.py`."""
    offline: bool = field(default=False, metadata={"option": False})

    name = "raft"

    @property
    def licence(self) -> str:
        return LICENCE if self.model in RAFT_MODELS else "unknown (your own copy)"

    def flows(self, scene: Scene) -> Iterator[FlowPair]:
        """Yield the flow from each frame to the next, and back.

        Raises:
            MissingExtraError: torchvision is not installed.
            InputError: the network cannot be had.
        """
        import torch

        network = self._load()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = network.to(device).eval()
        before = scene.image(0)
        for frame in range(1, len(scene)):
            now = scene.image(frame)
            forward, backward = _flow(network, np.stack([before, now]), device)
            yield FlowPair(grey(before), grey(now), forward, backward)
            before = now

    def _load(self) -> Any:
        if self.model not in RAFT_MODELS:
            return load_from_hub(self.model, _ENTRY, offline=self.offline)
        try:
            from torchvision.models import optical_flow  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtraError(
                f"{self.model}: needs torchvision, of the release that goes with your torch: "
                "pip install torchvision; or use --tracks flow"
            ) from error
        network = getattr(optical_flow, self.model)(weights=None)
        weights = getattr(optical_flow, RAFT_MODELS[self.model]).DEFAULT
        network.load_state_dict(hub_weights(weights.url, offline=self.offline))
        return network


def _flow(network: Any, pair: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the flow [H, W, 2] px from the first of two images [2, H, W, 3] uint8, and back."""
    import torch

    height, width = pair.shape[1:3]
    rows, columns = (max(_LEAST, -(-side // _STEP) * _STEP) - side for side in (height, width))
    above, left = rows // 2, columns // 2
    padding = ((0, 0), (above, rows - above), (left, columns - left), (0, 0))
    padded = np.pad(pair, padding, mode="edge")
    half = (0.5, 0.5, 0.5)  # it takes colours from -1 to 1
    images = network_input(padded, padded.shape[1:3], half, half, Placement(device, False, 1))
    with torch.inference_mode():
        flow = network(images, images.flip(0))[-1]  # the last of its refinements, [2, 2, h, w]
    flow = flow[..., above : above + height, left : left + width].float()
    forward, backward = flow.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return forward, backward
