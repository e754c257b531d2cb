"""A network that is loaded once and used for many clips, as benchmarks do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float64, Int, Real, UInt8

from msdyn.devices import choose_device
from msdyn.feedforward.assemble import Pruning, assemble
from msdyn.feedforward.inference import (
    EncodedWindow,
    Precision,
    encode_window,
    input_size,
    predict_windows,
    splats_at,
)
from msdyn.feedforward.model import Movies
from msdyn.feedforward.point_tracks import at_scale_of, pixel_tracks, windows_of_queries
from msdyn.feedforward.pretrained import FoundModel, find_model
from msdyn.feedforward.splats import SplatterPixels
from msdyn.feedforward.windows import WindowPixels, choose_windows, default_overlap
from msdyn.geometry import Cameras
from msdyn.raster import rasterize
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence

__all__ = ["DirectRenderer", "Predictor"]

_NEAR, _FAR = 0.001, 100.0  # in the network's world (released code)
_OPAQUE = 0.001  # Gaussians are drawn from this opacity on (released code)


@dataclass(frozen=True)
class Predictor:
    """A network with the options of its use. Depth maps of a scene are not used.

    Attributes:
        found: the file of weights.
        model: the network, on the device.
        device: of the computation.
        frames: input frames of a window; as many as in training by default.
        every: distance of the input frames; see `choose_windows`.
        long_side: of the network's images, px; that of training by default.
        precision: of the tokens.
        pruning: of the sequences.
    """

    found: FoundModel
    model: Movies
    device: torch.device
    frames: int | None = None
    every: int | None = None
    long_side: int | None = None
    precision: Precision = "auto"
    pruning: Pruning = field(default_factory=Pruning)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        device: str = "auto",
        frames: int | None = None,
        every: int | None = None,
        long_side: int | None = None,
    ) -> Predictor:
        """Load a network by name or file.

        Args:
            name: as for `find_model`.
            device: see `choose_device`.
            frames, every, long_side: see the attributes.

        Raises:
            InputError: no such network, or a file that is not one.
        """
        found, chosen = find_model(name), choose_device(device)
        return cls(found, found.load().to(chosen), chosen, frames, every, long_side)

    def size(self, scene: Scene) -> tuple[int, int]:
        """Return width and height of the network's images of a scene."""
        side = self.long_side or self.found.long_side
        return input_size(scene.info.width, scene.info.height, side, self.model.config.patch)

    def chosen_windows(self, scene: Scene) -> list[list[int]]:
        """Return the input frames of each window."""
        length = self.frames or self.found.frames
        return choose_windows(len(scene), length, self.every, default_overlap(length))

    def windows(
        self, scene: Scene, chosen: Sequence[Sequence[int]] | None = None
    ) -> list[WindowPixels]:
        """Predict windows of a scene, at one scale; by default those of `chosen_windows`."""
        windows, _ = predict_windows(
            self.model,
            scene,
            self.chosen_windows(scene) if chosen is None else chosen,
            size=self.size(scene),
            scale=None,
            device=self.device,
            precision=self.precision,
            use_depth=False,
        )
        return windows

    def sequence(self, scene: Scene) -> GaussianSequence:
        """Predict a sequence, like `msdyn-predict`."""
        moving = self.model.config.moving
        return assemble(scene, self.windows(scene), moving=moving, pruning=self.pruning)[0]

    def tracker(
        self, scene: Scene
    ) -> Callable[
        [Int[np.ndarray, " queries"], Real[np.ndarray, "queries 2"]],
        Float64[np.ndarray, "queries frames 3"],
    ]:
        """Return a function from frames and pixels of queries to world positions in all frames."""

        def track(
            frames: Int[np.ndarray, " queries"], xy: Real[np.ndarray, "queries 2"]
        ) -> Float64[np.ndarray, "queries frames 3"]:
            length = self.frames or self.found.frames
            choices = windows_of_queries(
                len(scene), length, self.every, default_overlap(length), frames.tolist()
            )
            size = scene.info.width, scene.info.height
            result = np.zeros((len(frames), len(scene), 3))
            ends: list[WindowPixels] = []
            for group, chosen in choices:
                rows = np.flatnonzero(np.isin(frames, group))
                windows = self.windows(scene, chosen)
                windows = at_scale_of(windows, ends) if ends else windows
                ends = ends or [windows[0], windows[-1]]
                result[rows] = pixel_tracks(windows, frames[rows], xy[rows], size, len(scene))
            return result

        return track

    def renderer(self, scene: Scene) -> DirectRenderer:
        """Return a renderer that asks the network for the time of every image."""
        return DirectRenderer(self, scene)


class DirectRenderer:
    """Images as the paper makes them: all Gaussians of a window, at exactly the time asked for.

    A longer clip has several windows; an image is drawn from the one in whose middle its time is,
    so that images should be asked for in order of time.
    """

    def __init__(self, predictor: Predictor, scene: Scene) -> None:
        self._predictor, self._scene = predictor, scene
        self._windows = predictor.chosen_windows(scene)
        times = scene.info.timeline.times
        self._ends = np.array([[times[frames[0]], times[frames[-1]]] for frames in self._windows])
        self._encoded: tuple[int, EncodedWindow] | None = None
        self._drawn: tuple[int, float, SplatterPixels] | None = None

    @property
    def windows(self) -> list[list[int]]:
        """The input frames of each window."""
        return self._windows

    def window_of(self, time: float) -> int:
        """Return the window in which a time is farthest from both ends."""
        return int(np.minimum(time - self._ends[:, 0], self._ends[:, 1] - time).argmax())

    @torch.inference_mode()
    def __call__(self, camera: Cameras, time: float) -> UInt8[np.ndarray, "height width 3"]:
        """Return the image of one camera at a normalised time."""
        number = self.window_of(time)
        encoded, splats = self._splats(number, time)
        tensors = camera.tensors(splats.means.device)
        rendering = rasterize(
            splats.means,
            splats.quats_wxyz,
            splats.scales,
            splats.opacities,
            splats.colours,
            tensors.intrinsics,
            tensors.cam_from_world,
            camera.width,
            camera.height,
            near=_NEAR * encoded.scale,
            far=_FAR * encoded.scale,
        )
        rgb = rendering.features[0].clamp(0, 1).cpu().numpy()
        return (rgb * 255 + 0.5).astype(np.uint8)

    def _splats(self, number: int, time: float) -> tuple[EncodedWindow, SplatterPixels]:
        p = self._predictor
        if self._encoded is None or self._encoded[0] != number:
            self._encoded = None  # frees the memory of the last window first
            encoded = encode_window(
                p.model,
                self._scene,
                self._windows[number],
                size=p.size(self._scene),
                scale=None,
                device=p.device,
                precision=p.precision,
                use_depth=False,
            )
            self._encoded = number, encoded
        encoded = self._encoded[1]
        if self._drawn is None or self._drawn[:2] != (number, time):
            splats = splats_at(p.model, encoded, time, precision=p.precision)
            self._drawn = number, time, splats.select(splats.opacities > _OPAQUE)
        return encoded, self._drawn[2]
