"""A small network that finds salient objects: the things in an image that one looks at first.

It is u2netp, the small variant of U2-Net: Qin et al., "U2-Net: Going deeper with nested U-structure
for salient object detection", 2020.
"""

from __future__ import annotations

import importlib.util
import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

from msdyn.errors import InputError
from msdyn.preprocess.checkpoints.huggingface import Availability
from msdyn.preprocess.checkpoints.pinned import find_pinned, pinned_path
from msdyn.preprocess.contracts import SaliencyChoice
from msdyn.scene import Scene

__all__ = ["Predict", "Saliency", "find_saliency", "saliency_availability"]

_log = logging.getLogger(__name__)

_CHECKPOINT = "u2netp"
Predict: TypeAlias = Callable[
    [UInt8[np.ndarray, "height width 3"]], Float32[np.ndarray, "height width"]
]
"""Returns how salient each pixel of an image is, from 0 to 1."""

# Side of the images that the network was trained on, and mean and deviation of their colours.
_SIDE = 320
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Saliency:
    """The network, and what it found in whole frames.

    Attributes:
        predict: the network.
    """

    def __init__(self, predict: Predict) -> None:
        self.predict = predict
        self._found: dict[tuple[Path, int], bytes] = {}

    def of_frame(self, scene: Scene, frame: int) -> UInt8[np.ndarray, "half_height half_width"]:
        """Return how salient [H/2, W/2] a frame is, 0 to 255, at half its size; computed once."""
        from PIL import Image

        height, width = (-(-side // 2) for side in scene.size)
        key = scene.directory, frame
        if key not in self._found:
            found = np.round(255 * self.predict(scene.image(frame))).astype(np.uint8)
            small = Image.fromarray(found).resize((width, height), Image.Resampling.BILINEAR)
            self._found[key] = zlib.compress(small.tobytes(), 1)
        found = np.frombuffer(zlib.decompress(self._found[key]), np.uint8)
        return found.reshape(height, width)


def saliency_availability(*, offline: bool) -> Availability:
    """Return whether the network can be had, without loading it."""
    if importlib.util.find_spec("onnxruntime") is None:
        return Availability("no", "onnxruntime is not installed (pip install 'msdyn[masks]')")
    return find_pinned(_CHECKPOINT, offline=offline)


def find_saliency(choice: SaliencyChoice, *, offline: bool) -> Saliency | None:
    """Return the network, on the CPU, or None; `offline`, fetch nothing.

    Args:
        choice: "auto": where the network can be had.

    Raises:
        InputError: it cannot be had although it is "on".
    """
    if choice == "off":
        return None
    found = saliency_availability(offline=offline)
    if not found:
        if choice == "on":
            raise InputError(f"saliency: on, but {_CHECKPOINT} cannot be had: {found.why}")
        _log.info("masks without saliency: %s", found.why)
        return None
    if found.how == "online":
        _log.warning("saliency: %s: %s (--saliency off fetches nothing)", _CHECKPOINT, found.why)
    return Saliency(_load(pinned_path(_CHECKPOINT, offline=offline)))


def _load(path: Path) -> Predict:
    """Return the network of a file."""
    import onnxruntime
    import torch
    from PIL import Image

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A plan of the memory for one size of images holds 200 MB more, and is no faster.
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(image: UInt8[np.ndarray, "height width 3"]) -> Float32[np.ndarray, "height width"]:
        resized = Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        small = np.asarray(resized, np.float32)
        small = small / max(float(small.max()), 1e-6)
        given = ((small - _MEAN) / _DEVIATION).transpose(2, 0, 1)[None].astype(np.float32)
        found = np.asarray(session.run(None, {name: given})[0])[0, 0]
        low, high = float(found.min()), float(found.max())
        found = Image.fromarray((found - low) / max(high - low, 1e-6))
        size = (image.shape[1], image.shape[0])
        return np.asarray(found.resize(size, Image.Resampling.BILINEAR), np.float32)

    return predict
