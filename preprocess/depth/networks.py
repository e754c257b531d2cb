"""Depth by a network, aligned to the scale of the cameras frame by frame.

To add a network, write a class that loads a checkpoint and predicts inverse depth, and register it:

    @register_depth_network("toy", model="someone/toy-depth")
    class ToyDepth:
        metric = False

        def __init__(self, model, *, offline, device):
            self._network = load_pretrained("ToyForDepthEstimation", model, offline=offline)
            self.placement = place(self._network, 500.0, device)

        def predict(self, images): ...

The module lies in this folder, or is a plugin (see `msdyn.plugins`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from tqdm import tqdm

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.preprocess.checkpoints.huggingface import licence_of
from msdyn.preprocess.checkpoints.placement import Placement
from msdyn.preprocess.contracts import (
    Backend,
    BackendOptions,
    CameraSolution,
    DepthMap,
    DepthResult,
    Figures,
    Masks,
    SparsePoints,
    Streamed,
    Verdict,
)
from msdyn.preprocess.depth.consistency import Consistency
from msdyn.preprocess.depth.scale_alignment import InverseDepthFit, fit_inverse_depth, fit_to_tracks
from msdyn.preprocess.imaging.flow import sample_bilinear
from msdyn.preprocess.multiview.static_points import static_points
from msdyn.preprocess.registry import register_backend
from msdyn.scene import IGNORE, STATIC, Scene, Tracks, frame_path

__all__ = ["DepthNetwork", "ModelDepth", "load_network", "register_depth_network"]

MIN_POINTS = 50
FAR = 10.0
"""The largest depth, as a multiple of the farthest known point's (or, without points, of the
typical depth)."""
# Without points the zero of a relative network is unknown: the inverse depth of the farthest
# hundredth is set to this share of that of the nearest hundredth.
ASSUMED_FAR = 0.05
GOOD_ERROR, USABLE_ERROR = 0.08, 0.2


@runtime_checkable
class DepthNetwork(Protocol):
    """A network of inverse depth.

    Attributes:
        metric: its values are 1/m; otherwise they hold up to a scale and a shift.
        placement: where it runs.
    """

    metric: bool
    placement: Placement

    def predict(
        self, images: UInt8[np.ndarray, "batch height width 3"]
    ) -> Float32[np.ndarray, "batch h w"]:
        """Return inverse depth [B, h, w] of images [B, H, W, 3]."""
        ...


@runtime_checkable
class DepthNetworkClass(Protocol):
    """A class of depth networks."""

    def __call__(self, model: str, *, offline: bool, device: str) -> DepthNetwork:
        """Load a checkpoint, a name on the hub or a folder, to a device; offline, fetch nothing."""
        ...


Class = TypeVar("Class", bound=DepthNetworkClass)
_NETWORKS: dict[str, DepthNetworkClass] = {}


def register_depth_network(name: str, *, model: str) -> Callable[[Class], Class]:
    """Return the decorator that makes a network known as a depth backend, by way of `ModelDepth`.

    Args:
        name: as on the command line.
        model: its default checkpoint.
    """

    def register(cls: Class) -> Class:
        _NETWORKS[name] = cls
        register_backend(
            "depth", name, needs=("frames", "tracks", "masks", "cameras"), model=model
        )(ModelDepth)
        return cls

    return register


def load_network(name: str, model: str, *, offline: bool, device: str = "auto") -> DepthNetwork:
    """Return a registered network with the weights of a checkpoint, on a device."""
    return _NETWORKS[name](model, offline=offline, device=device)


@dataclass(frozen=True)
class ModelDepth(Backend):
    """Depth of every pixel by a network, its scale and shift estimated from static points.

    Where the camera moves, those are the points that the cameras were solved from. Where it is
    static or only rotates, frames are aligned to one another, and the scale is the network's own.
    """

    # `field()`: not the values of the base class for defaults.
    name: str = field()
    model: str = field()
    """A name on the hub, or a folder."""
    offline: bool = field(default=False, metadata={"option": False})
    device: str = field(default="auto", metadata={"option": False})

    @classmethod
    def from_options(cls, options: BackendOptions) -> ModelDepth:
        """Return the network of a checkpoint."""
        assert options.model is not None, "every network has a default"
        return cls(options.name, options.model, offline=options.offline, device=options.device)

    @property
    def licence(self) -> str:
        return licence_of(self.model)

    def estimate(
        self,
        scene: Scene,
        tracks: Tracks | None,
        masks: Masks | None,
        solution: CameraSolution | None,
    ) -> DepthResult:
        """Return depth maps; pixels to be ignored are unknown, 0.

        The figures: where the network ran; `alignment_error`, the mean over frames of the median
        relative error at the points; `alignment_points`, their mean number per frame; without
        points `agreement_error` between frames and a `note`; `scale_wobble`, the standard deviation
        over time of the log of the network's scale; `reprojection_difference`, see `Consistency`;
        `verdict`.

        Raises:
            InputError: when the first map is taken: the checkpoint cannot be loaded, or its depth
                contradicts the cameras.
        """
        assert tracks is not None and masks is not None and solution is not None
        return DepthResult(Streamed(self._maps(scene, tracks, masks, solution)))

    def _maps(
        self, scene: Scene, tracks: Tracks, masks: Masks, solution: CameraSolution
    ) -> Generator[DepthMap, None, Figures]:
        """Yield the depth map of each frame."""
        network = load_network(self.name, self.model, offline=self.offline, device=self.device)
        figures: Figures = network.placement.record
        bar = tqdm(desc="depth   ", total=2 * len(scene), unit="step", disable=None, leave=False)
        with bar, tempfile.TemporaryDirectory(prefix="msdyn-depth-") as name:
            folder = Path(name)
            for frame, inverse in _predictions(scene, network):
                np.save(frame_path(folder, frame, ".npy"), inverse)
                bar.update()
            points = static_points(tracks, solution, MIN_POINTS)
            if len(points.xyz) >= MIN_POINTS:
                fit, smallest = _fit_to_points(scene, folder, points, solution.cameras)
                figures |= _fit_figures(fit)
                if not (fit.scale > 0).all():
                    raise InputError(
                        f"{self.model}: its depth contradicts the cameras (near and far are "
                        "exchanged); use another --depth, or check the cameras"
                    )
            else:
                fit, smallest = _fit_without_points(scene, folder, tracks, network.metric)
                figures |= _figures_without_points(fit, network.metric)
            moves, consistency = solution.motion != "static", Consistency(solution.cameras)
            for frame in range(len(scene)):
                inverse = _full_size(np.load(frame_path(folder, frame, ".npy")), scene.size)
                inverse = fit.scale[frame] * inverse + fit.shift[frame]
                depth = (1 / np.maximum(inverse, smallest)).astype(np.float32)
                depth[masks[frame] == IGNORE] = 0
                if moves:
                    consistency.add(frame, np.where(masks[frame] == STATIC, depth, 0))
                bar.update()
                yield DepthMap(depth)
        if moves:
            figures["reprojection_difference"] = consistency.figure()
        return figures


def _predictions(
    scene: Scene, network: DepthNetwork
) -> Iterator[tuple[int, Float32[np.ndarray, "h w"]]]:
    """Yield the network's inverse depth [h, w] of each frame."""
    batch = network.placement.batch
    for first in range(0, len(scene), batch):
        frames = range(first, min(first + batch, len(scene)))
        values = network.predict(np.stack([scene.image(frame) for frame in frames]))
        if not np.isfinite(values).all():
            raise InputError(f"frame {first}: the network gave depth that is not finite")
        yield from zip(frames, values.astype(np.float32), strict=True)


def _full_size(
    inverse: Float32[np.ndarray, "h w"], size: tuple[int, int]
) -> Float32[np.ndarray, "height width"]:
    """Return a map resampled to `size` (height, width)."""
    import cv2

    return cv2.resize(inverse, size[::-1], interpolation=cv2.INTER_LINEAR)


def _sample(
    scene: Scene,
    folder: Path,
    frame: Int[np.ndarray, " observations"],
    xy: Float[np.ndarray, "observations 2"],
) -> Float[np.ndarray, " observations"]:
    """Return the stored inverse depth [M], each in its frame [M], at pixels [M, 2] of the scene."""
    values = np.zeros(len(frame))
    for t in np.unique(frame).tolist():
        own = frame == t
        inverse = np.load(frame_path(folder, t, ".npy"))
        factor = np.array(inverse.shape[::-1]) / np.array(scene.size[::-1])
        values[own] = sample_bilinear(inverse, xy[own] * factor)
    return values


def _fit_to_points(
    scene: Scene, folder: Path, points: SparsePoints, cameras: Cameras
) -> tuple[InverseDepthFit, float]:
    """Return the fit, and the smallest inverse depth to allow."""
    rows = cameras.cam_from_world[points.frame, 2]
    depth = (rows[:, :3] * points.xyz[points.point]).sum(1) + rows[:, 3]
    ahead = depth > 0
    frame, xy, target = points.frame[ahead], points.xy[ahead], 1 / depth[ahead]
    fit = fit_inverse_depth(_sample(scene, folder, frame, xy), target, frame, len(scene))
    return fit, float(np.percentile(target, 1)) / FAR


def _fit_without_points(
    scene: Scene, folder: Path, tracks: Tracks, metric: bool
) -> tuple[InverseDepthFit, float]:
    """Return the fit of frames to one another, and the smallest inverse depth to allow."""
    static = tracks.select(tracks.object == STATIC)
    _, frame, xy, _ = static.observations()
    fit = fit_to_tracks(_sample(scene, folder, frame, xy), static)
    maps = (np.load(frame_path(folder, t, ".npy")) for t in range(len(scene)))
    spread = [np.percentile(inverse, (1, 50, 99)) for inverse in maps]
    low, middle, high = np.median(spread, axis=0)
    if metric:
        return fit, middle / FAR
    zero = low - ASSUMED_FAR * (high - low)
    unit = 1 / max(middle - zero, 1e-9)  # a typical depth of 1, as structure from motion has
    return (
        InverseDepthFit(unit * fit.scale, unit * (fit.shift - zero), fit.error, fit.count),
        1 / FAR,
    )


def _fit_figures(fit: InverseDepthFit) -> Figures:
    """Return the figures and the verdict of a fit to points."""
    error = fit.typical_error
    assert error is not None, "a fit to points has an error"
    reason = f"the network is {error:.0%} off at the points whose distance is known"
    cure = "try another --depth, or --depth fused where the camera moves well"
    grade = "good" if error < GOOD_ERROR else "usable" if error < USABLE_ERROR else "poor"
    verdict = Verdict("good") if grade == "good" else Verdict(grade, reason, cure)
    return {
        "alignment_error": round(error, 4),
        "alignment_points": round(float(fit.count.mean()), 1),
        "scale_wobble": round(fit.wobble, 4),
        "verdict": asdict(verdict),
    }


def _figures_without_points(fit: InverseDepthFit, metric: bool) -> Figures:
    """Return the figures and the verdict of a fit of frames to one another."""
    whose = "the network's own, in metres" if metric else "assumed"
    return {
        "agreement_error": None if fit.typical_error is None else round(fit.typical_error, 4),
        "scale_wobble": round(fit.wobble, 4),
        "note": f"no parallax: the scale is {whose}",
        "verdict": asdict(
            Verdict(
                "usable",
                f"without parallax the cameras say nothing of depth: its scale is {whose}",
                "move the camera sideways while filming, or give depth of a sensor",
            )
        ),
    }
