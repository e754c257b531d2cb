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
from jaxtyping import Bool, Float, Float32, Int, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.preprocess.checkpoints.huggingface import licence_of
from msdyn.preprocess.checkpoints.pinned import PINNED
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
from msdyn.preprocess.depth.fusion import FusionOptions, fuse, static_body
from msdyn.preprocess.depth.scale_alignment import InverseDepthFit, fit_inverse_depth, fit_to_tracks
from msdyn.preprocess.imaging.edge_aware_fill import fill
from msdyn.preprocess.imaging.flow import sample_bilinear
from msdyn.preprocess.multiview.static_points import static_points
from msdyn.preprocess.progress import progress
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
# That is the range of a wide lens. What a long lens fills its image with is far away, and deep in
# proportion to the width of what is seen: with a focal length k times this one, in units of the
# longer side, depths are a k-th as far apart.
WIDE_FOCAL = 0.9
# Of the completion, as in `fused`; and the weight that draws the ratio of measured depth to that of
# the network to 1, relative to that of a depth from one frame: it acts over a hundred pixels.
SMOOTHNESS, TOWARDS_NETWORK = 1.0, 1e-4
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

    Where the camera moves, those are the points that the cameras were solved from, and pixels whose
    depth other frames confirm have that depth: the network completes it, see `fuse`. Where the
    camera is static or only rotates, frames are aligned to one another, and the scale is the
    network's own.
    """

    # `field()`: not the values of the base class for defaults.
    name: str = field()
    model: str = field()
    """A name on the hub, or a folder."""
    offline: bool = field(default=False, metadata={"option": False})
    device: str = field(default="auto", metadata={"option": False})
    measure: bool = True
    """Measure depth where the camera moves; otherwise all depth is the network's."""
    seed: int = 0
    """Of every random choice."""

    @classmethod
    def from_options(cls, options: BackendOptions) -> ModelDepth:
        """Return the network of a checkpoint."""
        assert options.model is not None, "every network has a default"
        return cls(options.name, options.model, offline=options.offline, device=options.device)

    @property
    def licence(self) -> str:
        return PINNED[self.model].licence if self.model in PINNED else licence_of(self.model)

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
        over time of the log of the network's scale; `reprojection_difference` and `disagreeing`,
        see `Consistency`; `verdict`; where depth is measured, those of `fuse`.

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
        with tempfile.TemporaryDirectory(prefix="msdyn-depth-") as name:
            folder = Path(name)
            predictions = progress(_predictions(scene, network), "network", total=len(scene))
            for frame, inverse in predictions:
                np.save(frame_path(folder, frame, ".npy"), inverse)
            points = static_points(tracks, solution, MIN_POINTS)
            if len(points.xyz) >= MIN_POINTS:
                aligned, fit = _align_to_points(scene, folder, points, solution.cameras)
                figures |= _fit_figures(fit)
                if not (fit.scale > 0).all():
                    raise InputError(
                        f"{self.model}: its depth contradicts the cameras (near and far are "
                        "exchanged); use another --depth, or check the cameras"
                    )
            else:
                focal = float(solution.cameras.intrinsics[0, 0, 0])
                aligned, fit = _align_frames(scene, folder, tracks, network.metric, focal)
                figures |= _figures_without_points(fit, network.metric)
            background = static_body(tracks, solution) if self.measure else None
            if background is None or solution.verdict.grade == "poor":
                moves = solution.motion != "static"
                figures |= yield from _network_alone(masks, solution.cameras, aligned, moves)
            else:
                completion = NetworkCompletion(scene, aligned)
                figures |= yield from fuse(
                    scene, tracks, masks, background, completion, FusionOptions(seed=self.seed)
                )
        return figures


@dataclass(frozen=True)
class AlignedDepth:
    """The maps of a network in the scale of the cameras.

    Attributes:
        folder: holds the predicted inverse depth of each frame.
        size: (height, width) of the images.
        fit: from predicted to true inverse depth.
        smallest: the smallest inverse depth to allow.
        flattening: k >= 1, which moves every depth z to (z + k - 1) / k.
    """

    folder: Path
    size: tuple[int, int]
    fit: InverseDepthFit
    smallest: float
    flattening: float = 1.0

    def depth(self, frame: int) -> Float32[np.ndarray, "height width"]:
        """Return the depth [H, W] of a frame."""
        inverse = _full_size(np.load(frame_path(self.folder, frame, ".npy")), self.size)
        inverse = self.fit.scale[frame] * inverse + self.fit.shift[frame]
        depth = 1 / np.maximum(inverse, self.smallest)
        return ((depth + self.flattening - 1) / self.flattening).astype(np.float32)


class NetworkCompletion:
    """Completes measured depth by that of a network, to which it adds what joins both smoothly.

    The logarithm of the ratio of measured depth to the network's is continued from the measured
    pixels along the edges of the image, and decreases far from them: so there is no step at the
    border of what is measured, and the details are those of the network.
    """

    def __init__(self, scene: Scene, network: AlignedDepth) -> None:
        self._scene, self._network = scene, network

    def complete(
        self,
        frame: int,
        inverse: Float32[np.ndarray, "h w"],
        weight: Float32[np.ndarray, "h w"],
        own: Bool[np.ndarray, "height width"],
    ) -> Float32[np.ndarray, "height width"]:
        """Return the depth [H, W] of a body; see `Completion`."""
        import cv2

        depth = self._network.depth(frame)
        size = self._network.size[::-1]
        weights = cv2.resize(weight, size, interpolation=cv2.INTER_NEAREST) * own
        measured = cv2.resize(inverse, size, interpolation=cv2.INTER_NEAREST)
        known = (weights > 0) & (measured > 0)
        if not known.any():
            return depth
        ratio = -np.log(np.where(known, measured * depth, 1))
        weights = np.where(known, weights, TOWARDS_NETWORK).astype(np.float32)
        image = self._scene.image(frame).astype(np.float32) / 255
        return depth * np.exp(fill(ratio, weights, image, SMOOTHNESS))

    def relief(self, frame: int) -> Float32[np.ndarray, "height width"]:
        """Return the depth [H, W] of the network."""
        return self._network.depth(frame)


def _network_alone(
    masks: Masks, cameras: Cameras, aligned: AlignedDepth, moves: bool
) -> Generator[DepthMap, None, Figures]:
    """Yield the depth of the network."""
    consistency = Consistency(cameras)
    for frame in range(len(masks)):
        depth = aligned.depth(frame)
        depth[masks[frame] == IGNORE] = 0
        if moves:
            consistency.add(frame, np.where(masks[frame] == STATIC, depth, 0))
        yield DepthMap(depth)
    return consistency.figures() if moves else {}


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


def _align_to_points(
    scene: Scene, folder: Path, points: SparsePoints, cameras: Cameras
) -> tuple[AlignedDepth, InverseDepthFit]:
    """Return the depth of the network in the scale of static points."""
    rows = cameras.cam_from_world[points.frame, 2]
    depth = (rows[:, :3] * points.xyz[points.point]).sum(1) + rows[:, 3]
    ahead = depth > 0
    frame, xy, target = points.frame[ahead], points.xy[ahead], 1 / depth[ahead]
    fit = fit_inverse_depth(_sample(scene, folder, frame, xy), target, frame, len(scene))
    return AlignedDepth(folder, scene.size, fit, float(np.percentile(target, 1)) / FAR), fit


def _align_frames(
    scene: Scene, folder: Path, tracks: Tracks, metric: bool, focal: float
) -> tuple[AlignedDepth, InverseDepthFit]:
    """Return the depth of the network, its frames aligned to one another; focal length in px."""
    static = tracks.select(tracks.object == STATIC)
    _, frame, xy, _ = static.observations()
    fit = fit_to_tracks(_sample(scene, folder, frame, xy), static)
    maps = (np.load(frame_path(folder, t, ".npy")) for t in range(len(scene)))
    spread = [np.percentile(inverse, (1, 50, 99)) for inverse in maps]
    low, middle, high = np.median(spread, axis=0)
    if metric:
        return AlignedDepth(folder, scene.size, fit, middle / FAR), fit
    zero = low - ASSUMED_FAR * (high - low)
    unit = 1 / max(middle - zero, 1e-9)  # a typical depth of 1, as structure from motion has
    scaled = InverseDepthFit(unit * fit.scale, unit * (fit.shift - zero), fit.error, fit.count)
    flattening = max(1.0, focal / (WIDE_FOCAL * max(scene.size)))
    return AlignedDepth(folder, scene.size, scaled, 1 / FAR, flattening), fit


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
