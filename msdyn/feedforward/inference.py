"""Running the network on frames and cameras of a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from msdyn.feedforward.embeddings import rotated
from msdyn.feedforward.model import ClipTensors, Features, Movies, StaticPixels
from msdyn.feedforward.normalise import canonical_cameras, mean_distance, scaled_cameras
from msdyn.feedforward.options import Precision
from msdyn.feedforward.splats import SplatterPixels
from msdyn.feedforward.windows import WindowPixels, match_scales
from msdyn.geometry import Cameras, multiply_quats_wxyz, quats_wxyz_from_rotations
from msdyn.progress import track
from msdyn.scene import Scene

__all__ = [
    "EncodedWindow",
    "Precision",
    "encode_window",
    "in_world",
    "input_size",
    "predict_window",
    "predict_windows",
    "resized_image",
    "splats_at",
]

_LARGE = 10**8
"""Parameters from which a network computes in bfloat16 on a CPU."""
_SCALE_ROUNDS = 3
_SAME_SCALE = 0.02


def input_size(width: int, height: int, long_side: int, patch: int) -> tuple[int, int]:
    """Return width and height of the images given to the network, multiples of `patch`.

    The image is resized, not cropped: normalised intrinsics stay exact when the aspect ratio
    changes by the rounding.

    Args:
        width, height: of the frames.
        long_side: upper limit of the longer side, px.
        patch: side of a patch.
    """
    factor = long_side / max(width, height)

    def rounded(side: int) -> int:
        return max(patch, round(factor * side / patch) * patch)

    return rounded(width), rounded(height)


def predict_windows(
    model: Movies,
    scene: Scene,
    chosen: Sequence[Sequence[int]],
    *,
    size: tuple[int, int],
    scale: float | None,
    device: torch.device,
    precision: Precision = "auto",
    use_depth: bool = True,
) -> tuple[list[WindowPixels], list[dict[str, float]]]:
    """Predict several windows and bring them to one scale; see `predict_window`, `match_scales`."""
    windows = [
        predict_window(
            model,
            scene,
            frames,
            size=size,
            scale=scale,
            device=device,
            precision=precision,
            use_depth=use_depth,
        )
        for frames in track(chosen, "predict", unit="window")
    ]
    return match_scales(windows)


@dataclass(frozen=True)
class EncodedWindow:
    """What the network knows of a window before it is asked for a time.

    Attributes:
        frames: indices in the clip.
        cameras: of these frames, for images of the network's size.
        times: normalised times of the clip at the first and the last of the frames.
        scale: of the network's world, in scene units.
        features: what the heads read.
        static: the prediction for the frames' own times.
    """

    frames: list[int]
    cameras: Cameras
    times: tuple[float, float]
    scale: float
    features: Features
    static: StaticPixels


def predict_window(
    model: Movies,
    scene: Scene,
    frames: Sequence[int],
    *,
    size: tuple[int, int],
    scale: float | None,
    device: torch.device,
    precision: Precision = "auto",
    use_depth: bool = True,
) -> WindowPixels:
    """Predict a Gaussian per pixel of some frames, and its positions at all of their times.

    Args:
        model: the network, on the device.
        scene: its images and cameras, and its depth maps if it has some, are used.
        frames: at least two.
        size: width and height of the network's images.
        scale: mean distance of the points to the first camera, in scene units, if known. By
            default it is that of the scene's depth maps, or without these the one with which the
            predicted points are at unit mean distance.
        device: of the computation.
        precision: of the tokens; bfloat16 on a GPU and for large networks by default.
        use_depth: whether the scene's depth maps may set the scale.

    Returns:
        The prediction in the world of the scene, on the CPU.
    """
    encoded = encode_window(
        model,
        scene,
        frames,
        size=size,
        scale=scale,
        device=device,
        precision=precision,
        use_depth=use_depth,
    )
    with torch.inference_mode(), _autocast(model, device, precision):
        displacements, splats = _moved(model, encoded.features, encoded.static)
    scale, cameras = encoded.scale, encoded.cameras
    first = torch.as_tensor(cameras.world_from_cam[0], dtype=torch.float32)
    return WindowPixels(
        encoded.frames,
        cameras,
        scale * encoded.static.depth[0].float().cpu(),
        in_world(splats, first, scale),
        scale * rotated(first[:3, :3], displacements),
        scale,
    )


@torch.inference_mode()
def encode_window(
    model: Movies,
    scene: Scene,
    frames: Sequence[int],
    *,
    size: tuple[int, int],
    scale: float | None,
    device: torch.device,
    precision: Precision = "auto",
    use_depth: bool = True,
) -> EncodedWindow:
    """Encode some frames, and predict depth and appearance; arguments as for `predict_window`."""
    frames = list(frames)
    cameras = scene.cameras[frames].resized(*size)
    images = torch.stack([resized_image(scene.image(frame), size) for frame in frames])
    poses = torch.as_tensor(cameras.world_from_cam)
    intrinsics = _normalised_intrinsics(cameras)
    canonical = canonical_cameras(poses)
    clip_times = torch.as_tensor(scene.info.timeline.times[frames])
    times = (clip_times - clip_times[0]) / (clip_times[-1] - clip_times[0])
    if scale is None and use_depth:
        scale = _scale_of_depth(scene, frames, canonical, intrinsics)

    def clip_at(scale: float) -> ClipTensors:
        return ClipTensors(
            images[None],
            scaled_cameras(canonical, scale)[None].float(),
            intrinsics[None].float(),
            times[None].float(),
        ).to(device)

    with _autocast(model, device, precision):
        if scale is None:
            scale = _consistent_scale(model, clip_at, cameras)
        features = model.encode(clip_at(scale))
        static = model.static(features)
    ends = float(clip_times[0]), float(clip_times[-1])
    return EncodedWindow(frames, cameras, ends, scale, features, static)


@torch.inference_mode()
def splats_at(
    model: Movies, encoded: EncodedWindow, time: float, *, precision: Precision = "auto"
) -> SplatterPixels:
    """Return the Gaussians of all pixels of a window at a time, as the paper draws them.

    Args:
        model: the network that encoded the window.
        encoded: the window.
        time: normalised time of the clip; outside the window, that of its nearer end is taken.
        precision: of the tokens.

    Returns:
        Gaussians in the world of the scene, on the network's device.

    Reference: MoVieS (paper, 3.1, Eq. 1).
    """
    clip = encoded.features.clip
    first, last = encoded.times
    query = min(max((time - first) / (last - first), 0.0), 1.0)
    with _autocast(model, clip.images.device, precision):
        motion = None
        if model.config.motion:
            motion = model.move(encoded.features, encoded.static, clip.times.new_tensor([query]))
        gaussians = model.gaussians(encoded.features, encoded.static, motion)
    pose = torch.as_tensor(encoded.cameras.world_from_cam[0], dtype=torch.float32)
    local = gaussians.of_scene(0).mapped(lambda value: value.float())
    return in_world(local, pose.to(clip.images.device), encoded.scale)


def _moved(
    model: Movies, features: Features, static: StaticPixels
) -> tuple[Float[Tensor, "frames height width keys 3"], SplatterPixels]:
    """Return displacements to all frames' times, and Gaussians at the frames' own times."""
    frames = features.clip.times.shape[1]
    if not model.config.motion:
        gaussians = model.gaussians(features, static)
        shape = (*static.depth.shape[1:], frames, 3)
        return torch.zeros(shape), _on_cpu(gaussians)
    columns, own = [], []
    for key in range(frames):
        motion = model.move(features, static, features.clip.times[:, key])
        columns.append(motion.displacement[0].float().cpu())
        # Appearance is that at the frame's own time; positions start undisplaced there.
        posed = _on_cpu(model.gaussians(features, static, motion))
        own.append(posed.mapped(lambda value, key=key: value[key]))
    splats = SplatterPixels.joined(own, torch.stack)
    displacements = torch.stack(columns, dim=3)
    first = torch.stack([displacements[key, :, :, key] for key in range(frames)])
    return displacements - first[:, :, :, None], splats


def _on_cpu(gaussians: SplatterPixels) -> SplatterPixels:
    return gaussians.mapped(lambda value: value[0].float().cpu())


def in_world(
    splats: SplatterPixels, world_from_first: Float[Tensor, "4 4"], scale: float
) -> SplatterPixels:
    """Undo the normalisation: from the canonical world to that of the scene."""
    rotation, centre = world_from_first[:3, :3], world_from_first[:3, 3]
    turned = quats_wxyz_from_rotations(rotation).expand(splats.quats_wxyz.shape)
    return SplatterPixels(
        scale * rotated(rotation, splats.means) + centre,
        splats.colours,
        scale * splats.scales,
        multiply_quats_wxyz(turned, splats.quats_wxyz),
        splats.opacities,
    )


def resized_image(
    image: UInt8[np.ndarray, "rows columns 3"], size: tuple[int, int]
) -> Float[Tensor, "3 height width"]:
    """Return an image as the network is given it: RGB in [0, 1], of a width and height."""
    values = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    width, height = size
    resized = torch.nn.functional.interpolate(
        values, (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0].clamp(0, 1)


def _normalised_intrinsics(cameras: Cameras) -> Float[Tensor, "frames 4"]:
    k = cameras.intrinsics
    values = np.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], axis=-1)
    return torch.as_tensor(values / np.array([cameras.width, cameras.height] * 2))


def _scale_of_depth(
    scene: Scene,
    frames: Sequence[int],
    canonical: Float[Tensor, "frames 4 4"],
    intrinsics: Float[Tensor, "frames 4"],
) -> float | None:
    """Return the mean distance of the points of the scene's depth maps; None without any."""
    try:
        depth = torch.from_numpy(np.stack([scene.depth(frame) for frame in frames])).double()
    except FileNotFoundError:
        return None
    if not (depth > 0).any():
        return None
    return mean_distance(depth, depth > 0, canonical, intrinsics)


def _consistent_scale(
    model: Movies, clip_at: Callable[[float], ClipTensors], cameras: Cameras
) -> float:
    """Return the scale with which the predicted points are at unit mean distance.

    With a static camera, every scale is; it is then one.
    """
    if cameras.share_centre:
        return 1.0
    # Cameras move by a tenth of the distance of the scene, to start with.
    scale = 10 * float(np.linalg.norm(cameras.centres - cameras.centres[0], axis=1).max())
    for _ in range(_SCALE_ROUNDS):
        points = model.static(model.encode(clip_at(scale))).points
        distance = float(points.double().norm(dim=-1).mean())
        scale *= distance
        if abs(distance - 1) < _SAME_SCALE:
            break
    return scale


def _autocast(model: Movies, device: torch.device, precision: Precision) -> torch.autocast:
    is_large = sum(value.numel() for value in model.parameters()) >= _LARGE
    half = precision == "bfloat16" or (precision == "auto" and (device.type == "cuda" or is_large))
    return torch.autocast(device.type, torch.bfloat16, enabled=half)
