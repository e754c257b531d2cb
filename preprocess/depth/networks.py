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

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

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
    Verdict,
)
from msdyn.preprocess.depth.aligned_depth import (
    AlignedDepth,
    NetworkCompletion,
    align_frames,
    align_to_points,
)
from msdyn.preprocess.depth.consistency import Consistency
from msdyn.preprocess.depth.fused import EdgeCompletion
from msdyn.preprocess.depth.fusion import FusionOptions, fuse, static_body
from msdyn.preprocess.depth.objects import Completion
from msdyn.preprocess.depth.scale_alignment import InverseDepthFit
from msdyn.preprocess.multiview.static_points import static_points
from msdyn.preprocess.progress import progress
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.streamed import Streamed
from msdyn.scene import IGNORE, STATIC, Scene, Tracks, frame_path
from msdyn.writing import scratch_folder

__all__ = ["DepthNetwork", "ModelDepth", "load_network", "register_depth_network"]

MIN_POINTS = 50
GOOD_ERROR, USABLE_ERROR = 0.08, 0.2
CONTRADICTS = (
    "its depth contradicts the cameras (near and far are exchanged); use another --depth, or check "
    "the cameras"
)


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
    camera is static or only rotates, frames are aligned to points that were given with the cameras
    or, without any, to one another, and the scale is the network's own.
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
        with scratch_folder() as folder:
            predictions = progress(_predictions(scene, network), "network", total=len(scene))
            for frame, inverse in predictions:
                np.save(frame_path(folder, frame, ".npy"), inverse)
            points = static_points(tracks, solution, MIN_POINTS)
            if solution.motion in ("static", "rotating"):
                points = solution.points  # those given with the cameras, or none
            to_points = len(points.xyz) >= MIN_POINTS
            if to_points:
                aligned, fit = align_to_points(scene, folder, points, solution.cameras)
                figures |= _fit_figures(fit)
                contradicts = not (fit.scale > 0).all()
            else:
                contradicts = False
                focal = float(solution.cameras.intrinsics[0, 0, 0])
                aligned, fit = align_frames(scene, folder, tracks, network.metric, focal)
                figures |= _figures_without_points(fit, network.metric)
            background = static_body(tracks, solution) if self.measure and to_points else None
            if background is None or solution.verdict.grade == "poor":
                if contradicts:
                    raise InputError(f"{self.model}: {CONTRADICTS}")
                moves = solution.motion != "static"
                figures |= yield from _network_alone(masks, solution.cameras, aligned, moves)
            else:
                del figures["verdict"]  # of the network alone
                completions: list[Completion] = [EdgeCompletion(scene)]
                if contradicts:
                    figures["note"] = f"{self.model} is left out: {CONTRADICTS}"
                else:
                    completions.append(NetworkCompletion(scene, aligned))
                options = FusionOptions(seed=self.seed)
                figures |= yield from fuse(scene, tracks, masks, background, completions, options)
        return figures


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
