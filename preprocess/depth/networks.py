"""Depth by a network, brought to the cameras' scale frame by frame."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from tqdm import tqdm

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.preprocess.checkpoints.huggingface import licence_of
from msdyn.preprocess.contracts import CameraSolution, Masks, SparsePoints, Verdict
from msdyn.preprocess.depth.consistency import Consistency
from msdyn.preprocess.depth.scale_alignment import InverseDepthFit, fit_inverse_depth, fit_to_tracks
from msdyn.preprocess.imaging.flow import sample_bilinear
from msdyn.preprocess.multiview.static_points import static_points
from msdyn.preprocess.multiview.track_labels import assign_objects
from msdyn.scene import IGNORE, STATIC, Scene, Tracks, frame_path

__all__ = ["DEPTH_MODELS", "DepthNetwork", "ModelDepth"]

DepthModel = Literal["depth-anything", "depth-anything-metric", "depth-pro", "zoedepth"]
DEPTH_MODELS: dict[DepthModel, str] = {
    "depth-anything": "depth-anything/Depth-Anything-V2-Small-hf",
    "depth-anything-metric": "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf",
    "depth-pro": "apple/DepthPro-hf",
    "zoedepth": "Intel/zoedepth-nyu-kitti",
}
"""Backends and the checkpoint of each."""

MIN_POINTS = 50
FAR = 10.0
"""Nothing is put further away than this many times the farthest known point (or, without points,
the typical depth)."""
# Without points a relative network's zero is unknown: the farthest hundredth is put at this share
# of the nearest hundredth's inverse depth.
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
    placement: Any

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return inverse depth [B, h, w] float32 of images [B, H, W, 3] uint8."""
        ...


@dataclass(frozen=True)
class ModelDepth:
    """Depth of every pixel by a network, its scale and shift fixed by static points.

    Where the camera moves, those are the points that the cameras rest on. Where it stands or only
    turns, frames are made to agree with one another, and the scale is the network's own.
    """

    name: DepthModel
    model: str
    """A name on the hub, or a folder."""
    offline: bool = field(default=False, metadata={"option": False})

    @property
    def licence(self) -> str:
        return licence_of(self.model)

    def estimate(
        self, scene: Scene, tracks: Tracks, masks: Masks, solution: CameraSolution
    ) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
        """Return depth maps, and figures that are complete when the last map has been taken.

        The figures: `alignment_error`, the mean over frames of the median relative error at the
        points; `alignment_points`, their mean number a frame; `scale_wobble`, how much the
        network's scale wanders (standard deviation of its log); `reprojection_difference`, see
        `Consistency`; `verdict`.

        Raises:
            InputError: the checkpoint cannot be loaded, or its depth contradicts the cameras.
        """
        quality: dict[str, Any] = {}
        return self._maps(scene, tracks, masks, solution, quality), quality

    def _maps(
        self,
        scene: Scene,
        tracks: Tracks,
        masks: Masks,
        solution: CameraSolution,
        quality: dict[str, Any],
    ) -> Iterator[np.ndarray]:
        network = load_network(self.name, self.model, offline=self.offline)
        quality |= network.placement.record
        bar = tqdm(desc="depth   ", total=2 * len(scene), unit="step", disable=None, leave=False)
        with bar, tempfile.TemporaryDirectory(prefix="msdyn-depth-") as name:
            folder = Path(name)
            for frame, inverse in _predictions(scene, network):
                np.save(frame_path(folder, frame, ".npy"), inverse)
                bar.update()
            points = static_points(tracks, masks, solution, MIN_POINTS)
            if len(points.xyz) >= MIN_POINTS:
                fit, least = _fit_to_points(scene, folder, points, solution.cameras)
                quality |= _figures(fit)
                if not (fit.scale > 0).all():
                    raise InputError(
                        f"{self.model}: its depth contradicts the cameras (near and far are "
                        "exchanged); use another --depth, or check the cameras"
                    )
            else:
                fit, least = _fit_without_points(scene, folder, tracks, masks, network.metric)
                quality |= _assumed(fit, network.metric)
            consistency = Consistency(solution.cameras)
            for frame in range(len(scene)):
                inverse = _full_size(np.load(frame_path(folder, frame, ".npy")), scene.size)
                inverse = fit.scale[frame] * inverse + fit.shift[frame]
                depth = (1 / np.maximum(inverse, least)).astype(np.float32)
                depth[masks[frame] == IGNORE] = 0
                if solution.motion != "static":
                    consistency.add(frame, np.where(masks[frame] == STATIC, depth, 0))
                    quality["reprojection_difference"] = consistency.figure()
                bar.update()
                yield depth


def load_network(name: DepthModel, model: str, *, offline: bool) -> DepthNetwork:
    """Load the network of a backend; see `load_pretrained` for what can go wrong."""
    if name == "depth-pro":
        from msdyn.preprocess.depth.depth_pro import DepthPro

        return DepthPro(model, offline=offline)
    if name == "zoedepth":
        from msdyn.preprocess.depth.zoedepth import ZoeDepth

        return ZoeDepth(model, offline=offline)
    from msdyn.preprocess.depth.depth_anything import DepthAnything

    return DepthAnything(model, offline=offline)


def _predictions(scene: Scene, network: DepthNetwork) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the network's inverse depth [h, w] float32 of each frame."""
    batch = network.placement.batch
    for first in range(0, len(scene), batch):
        frames = range(first, min(first + batch, len(scene)))
        values = network.predict(np.stack([scene.image(frame) for frame in frames]))
        if not np.isfinite(values).all():
            raise InputError(f"frame {first}: the network gave depth that is not finite")
        yield from zip(frames, values.astype(np.float32), strict=True)


def _full_size(inverse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    return cv2.resize(inverse, size[::-1], interpolation=cv2.INTER_LINEAR)


def _sample(scene: Scene, folder: Path, frame: np.ndarray, xy: np.ndarray) -> np.ndarray:
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
    """Return the fit, and the least inverse depth that is believed."""
    rows = cameras.cam_from_world[points.frame, 2]
    depth = (rows[:, :3] * points.xyz[points.point]).sum(1) + rows[:, 3]
    ahead = depth > 0
    frame, xy, target = points.frame[ahead], points.xy[ahead], 1 / depth[ahead]
    fit = fit_inverse_depth(_sample(scene, folder, frame, xy), target, frame, len(scene))
    return fit, float(np.percentile(target, 1)) / FAR


def _fit_without_points(
    scene: Scene, folder: Path, tracks: Tracks, masks: Masks, metric: bool
) -> tuple[InverseDepthFit, float]:
    static = tracks.select(assign_objects(tracks, masks) == STATIC)
    _, frame, xy, _ = static.observations()
    fit = fit_to_tracks(_sample(scene, folder, frame, xy), static)
    maps = (np.load(frame_path(folder, t, ".npy")) for t in range(len(scene)))
    spread = [np.percentile(inverse, (1, 50, 99)) for inverse in maps]
    low, middle, high = np.median(spread, axis=0)
    if metric:
        return fit, middle / FAR
    zero = low - ASSUMED_FAR * (high - low)
    unit = 1 / max(middle - zero, 1e-9)  # a typical depth of 1, as cameras have it
    return (
        InverseDepthFit(unit * fit.scale, unit * (fit.shift - zero), fit.error, fit.count),
        1 / FAR,
    )


def _figures(fit: InverseDepthFit) -> dict[str, Any]:
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
        "verdict": _plain(verdict),
    }


def _assumed(fit: InverseDepthFit, metric: bool) -> dict[str, Any]:
    whose = "the network's own, in metres" if metric else "assumed"
    return {
        "agreement_error": None if fit.typical_error is None else round(fit.typical_error, 4),
        "scale_wobble": round(fit.wobble, 4),
        "note": f"no parallax: the scale is {whose}",
        "verdict": _plain(
            Verdict(
                "usable",
                f"without parallax the cameras say nothing of depth: its scale is {whose}",
                "move the camera sideways while filming, or give depth of a sensor",
            )
        ),
    }


def _plain(verdict: Verdict) -> dict[str, str]:
    return {"grade": verdict.grade, "reason": verdict.reason, "cure": verdict.cure}
