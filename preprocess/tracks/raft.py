"""RAFT: optical flow by a network, chained into tracks like the flow without weights.

The default is torchvision's, where torchvision is installed. A folder or a repository on GitHub
with a `hubconf.py` whose `raft()` makes a network with the same interface can replace it.

Reference: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from msdyn.devices import choose_device
from msdyn.errors import MissingExtraError
from msdyn.preprocess.checkpoints.placement import Placement, network_input
from msdyn.preprocess.checkpoints.torch_hub import HubWeights, hub_weights, load_from_hub
from msdyn.preprocess.contracts import BackendOptions
from msdyn.preprocess.imaging.flow import FlowPair, grey
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.tracks.bridging import FlowBetween
from msdyn.preprocess.tracks.chained_flow import FlowTracks

__all__ = ["RaftTracks"]

_TORCHVISION = {"raft_large": "Raft_Large_Weights", "raft_small": "Raft_Small_Weights"}
"""The networks of torchvision, and the enumeration of the weights of each."""
LICENCE = "BSD-3-Clause (its training data: research)"
_ENTRY = "raft"
_STEP, _MIN_SIDE = 8, 128
"""Both sides are padded to multiples of the first, and to the second at least: the network makes a
pyramid of four levels of features at an eighth of the size."""


@register_backend("tracks", "raft", needs=("frames",), model="raft_large")
@dataclass(frozen=True)
class RaftTracks(FlowTracks):
    """Tracks by chained optical flow, the flow by RAFT."""

    model: str = "raft_large"
    """"raft_large" or "raft_small", of torchvision; or a folder or a repository on GitHub with a
    `hubconf.py`."""
    offline: bool = field(default=False, metadata={"option": False})
    device: str = field(default="auto", metadata={"option": False})

    @classmethod
    def from_options(cls, options: BackendOptions) -> RaftTracks:
        """Return the network of a checkpoint."""
        assert options.model is not None, "raft has a default"
        return cls(model=options.model, offline=options.offline, device=options.device)

    @property
    def licence(self) -> str:
        return LICENCE if self.model in _TORCHVISION else "unknown (your own copy)"

    def flow_between(self) -> FlowBetween:
        """Return the function that estimates the forward and backward flow of two images.

        Raises:
            MissingExtraError: torchvision is not installed.
            InputError: the network cannot be loaded.
        """
        device = str(choose_device(self.device))
        network = self._load().to(device).eval()

        def between(
            before: UInt8[np.ndarray, "height width 3"], after: UInt8[np.ndarray, "height width 3"]
        ) -> FlowPair:
            forward, backward = _flow(network, np.stack([before, after]), device)
            return FlowPair(grey(before), grey(after), forward, backward)

        return between

    def _load(self) -> nn.Module:
        if self.model not in _TORCHVISION:
            return load_from_hub(self.model, _ENTRY, offline=self.offline)
        try:
            from torchvision.models import optical_flow  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtraError(
                f"{self.model}: needs torchvision, of the release that goes with your torch: "
                "pip install torchvision; or use --tracks flow"
            ) from error
        network = getattr(optical_flow, self.model)(weights=None)
        weights = getattr(optical_flow, _TORCHVISION[self.model]).DEFAULT
        network.load_state_dict(hub_weights(HubWeights(weights.url, LICENCE), offline=self.offline))
        return network


def _flow(
    network: Callable[..., list[Tensor]],
    pair: UInt8[np.ndarray, "2 height width 3"],
    device: str,
) -> tuple[Float32[np.ndarray, "height width 2"], Float32[np.ndarray, "height width 2"]]:
    """Return the forward and backward flow [H, W, 2] px of two images [2, H, W, 3]."""
    height, width = pair.shape[1:3]
    rows, columns = (max(_MIN_SIDE, -(-side // _STEP) * _STEP) - side for side in (height, width))
    above, left = rows // 2, columns // 2
    padding = ((0, 0), (above, rows - above), (left, columns - left), (0, 0))
    padded = np.pad(pair, padding, mode="edge")
    half = (0.5, 0.5, 0.5)  # the network takes colours in [-1, 1]
    images = network_input(padded, padded.shape[1:3], half, half, Placement(device, False, 1))
    with torch.inference_mode():
        flow = network(images, images.flip(0))[-1]  # the last of its refinements, [2, 2, h, w]
    flow = flow[..., above : above + height, left : left + width].float()
    forward, backward = flow.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return forward, backward
