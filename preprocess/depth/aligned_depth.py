"""The maps of a depth network in the scale of the cameras, and as completion of measured depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from msdyn.geometry import Cameras
from msdyn.preprocess.contracts import SparsePoints
from msdyn.preprocess.depth.scale_alignment import InverseDepthFit, fit_inverse_depth, fit_to_tracks
from msdyn.preprocess.imaging.edge_aware_fill import fill
from msdyn.preprocess.imaging.flow import sample_bilinear
from msdyn.reading import read_npy
from msdyn.scene import STATIC, Scene, Tracks, frame_path

__all__ = ["AlignedDepth", "NetworkCompletion", "align_frames", "align_to_points"]

FAR = 10.0
"""The largest depth, as a multiple of the farthest known point's (or, without points, of the
typical depth)."""
# Without points the zero of a relative network is unknown: the inverse depth of the farthest
# hundredth is set to this share of that of the nearest hundredth.
ASSUMED_FAR = 0.05
# That range is typical of a wide angle of view. A narrow one shows distant scenes, whose extent in
# depth is small compared with their distance: for a focal length of k times WIDE_FOCAL (in units of
# the longer side of the image), differences in depth are divided by k.
WIDE_FOCAL = 0.9
# Of the completion, as in `fused`; and the weight that draws the ratio of measured depth to that of
# the network to 1, relative to that of a depth from one frame: it acts over a hundred pixels.
SMOOTHNESS, TOWARDS_NETWORK = 1.0, 1e-4
# Measured depth is wrong that differs from the network's by such a factor (its logarithm), or by
# four times what is usual.
FAR_OFF = 0.4


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
        inverse = _full_size(read_npy(frame_path(self.folder, frame, ".npy")), self.size)
        inverse = self.fit.scale[frame] * inverse + self.fit.shift[frame]
        depth = 1 / np.maximum(inverse, self.smallest)
        return ((depth + self.flattening - 1) / self.flattening).astype(np.float32)


def align_to_points(
    scene: Scene, folder: Path, points: SparsePoints, cameras: Cameras
) -> tuple[AlignedDepth, InverseDepthFit]:
    """Return the depth of the network in the scale of static points."""
    rows = cameras.cam_from_world[points.frame, 2]
    depth = (rows[:, :3] * points.xyz[points.point]).sum(1) + rows[:, 3]
    ahead = depth > 0
    frame, xy, target = points.frame[ahead], points.xy[ahead], 1 / depth[ahead]
    fit = fit_inverse_depth(_sample(scene, folder, frame, xy), target, frame, len(scene))
    return AlignedDepth(folder, scene.size, fit, float(np.percentile(target, 1)) / FAR), fit


def align_frames(
    scene: Scene, folder: Path, tracks: Tracks, metric: bool, focal: float
) -> tuple[AlignedDepth, InverseDepthFit]:
    """Return the depth of the network, its frames aligned to one another; focal length in px."""
    static = tracks.select(tracks.object == STATIC)
    _, frame, xy, _ = static.observations()
    fit = fit_to_tracks(_sample(scene, folder, frame, xy), static)
    maps = (read_npy(frame_path(folder, t, ".npy")) for t in range(len(scene)))
    spread = [np.percentile(inverse, (1, 50, 99)) for inverse in maps]
    low, middle, high = np.median(spread, axis=0)
    if metric:
        return AlignedDepth(folder, scene.size, fit, middle / FAR), fit
    zero = low - ASSUMED_FAR * (high - low)
    unit = 1 / max(middle - zero, 1e-9)  # a typical depth of 1, as structure from motion has
    scaled = InverseDepthFit(unit * fit.scale, unit * (fit.shift - zero), fit.error, fit.count)
    flattening = max(1.0, focal / (WIDE_FOCAL * max(scene.size)))
    return AlignedDepth(folder, scene.size, scaled, 1 / FAR, flattening), fit


class NetworkCompletion:
    """Completes measured depth by that of a network, to which it adds what joins both smoothly.

    The logarithm of the ratio of measured depth to the network's is continued from the measured
    pixels along the edges of the image, and decreases far from them: so there is no step at the
    border of what is measured, and the details are those of the network.
    """

    name = "network"

    def __init__(self, scene: Scene, network: AlignedDepth) -> None:
        self._scene, self._network = scene, network

    def complete(
        self,
        frame: int,
        inverse: Float32[np.ndarray, "h w"],
        weight: Float32[np.ndarray, "h w"],
        own: Bool[np.ndarray, "height width"],
    ) -> tuple[Float32[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
        """Return the depth [H, W] of a body, and where it is measured; see `Completion`."""
        import cv2

        depth = self._network.depth(frame)
        size = self._network.size[::-1]
        weights = cv2.resize(weight, size, interpolation=cv2.INTER_NEAREST) * own
        measured = cv2.resize(inverse, size, interpolation=cv2.INTER_NEAREST)
        known = (weights > 0) & (measured > 0)
        if not known.any():
            return depth, known
        ratio = -np.log(np.where(known, measured * depth, 1))
        known &= _plausible(ratio, known)
        weights = np.where(known, weights, TOWARDS_NETWORK).astype(np.float32)
        image = self._scene.image(frame).astype(np.float32) / 255
        return depth * np.exp(fill(ratio, weights, image, SMOOTHNESS)), known

    def relief(self, frame: int) -> Float32[np.ndarray, "height width"]:
        """Return the depth [H, W] of the network."""
        return self._network.depth(frame)


def _plausible(
    ratio: Float32[np.ndarray, "height width"], known: Bool[np.ndarray, "height width"]
) -> Bool[np.ndarray, "height width"]:
    """Return where measured depth is not far from the network's.

    Sweeps agree on a wrong depth where something moves that is not in the masks.

    Args:
        ratio: [H, W] logarithm of measured depth to the network's.
        known: [H, W] where depth is measured.
    """
    middle = np.median(ratio[known])
    spread = 1.4826 * np.median(np.abs(ratio[known] - middle))
    return np.abs(ratio - middle) < max(FAR_OFF, 4 * float(spread))


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
        inverse = read_npy(frame_path(folder, t, ".npy"))
        factor = np.array(inverse.shape[::-1]) / np.array(scene.size[::-1])
        values[own] = sample_bilinear(inverse, xy[own] * factor)
    return values
