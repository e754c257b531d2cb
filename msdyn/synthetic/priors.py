"""Priors as imperfect as those of real preprocessing: cameras, depth, masks and tracks with errors.

Three levels are named: "exact", "sensor" (a depth sensor and AR tracking) and "casual" (networks
that estimate depth frame by frame). Sizes of errors are root mean squares unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.scene import Tracks
from msdyn.synthetic.surface_tracks import project_tracks
from msdyn.synthetic.truth import Truth

__all__ = ["LEVELS", "PHONE", "PriorLevel", "Priors", "make_priors"]


@dataclass(frozen=True)
class PriorLevel:
    """Sizes of the errors; all 0 means exact.

    Attributes:
        depth_noise: of each pixel, as a share of its depth.
        depth_holes: share of pixels without depth, beyond those at depth edges.
        depth_drift: largest deviation of the depth's scale, which changes slowly over the clip; on
            average over the clip there is none.
        depth_scale: deviation of the depth's scale from frame to frame.
        depth_shift: shift of the depth from frame to frame, as a share of the clip's median depth.
        depth_distortion: of each frame's depth, smooth over the image, as a share of the depth.
        track_jitter: px, each axis of each point.
        track_outliers: share of tracks that slide off their point at some frame.
        mask_border: px, the largest that a mask is eroded or dilated by.
        pose_degrees: rotation of each camera.
        pose_shift: displacement of each camera, as a share of the clip's median depth. On average
            over the clip there is neither: the poses themselves say where the world is.
    """

    depth_noise: float = 0.0
    depth_holes: float = 0.0
    depth_drift: float = 0.0
    depth_scale: float = 0.0
    depth_shift: float = 0.0
    depth_distortion: float = 0.0
    track_jitter: float = 0.0
    track_outliers: float = 0.0
    mask_border: float = 0.0
    pose_degrees: float = 0.0
    pose_shift: float = 0.0


_SENSOR = PriorLevel(
    depth_noise=0.01,
    depth_holes=0.05,
    depth_drift=0.02,
    track_jitter=0.7,
    track_outliers=0.05,
    mask_border=2.0,
    pose_degrees=0.2,
    pose_shift=0.005,
)
_CASUAL = PriorLevel(
    depth_noise=0.01,
    depth_scale=0.05,
    depth_shift=0.03,
    depth_distortion=0.03,
    track_jitter=0.7,
    track_outliers=0.10,
    mask_border=2.0,
    pose_degrees=0.4,
    pose_shift=0.010,
)
LEVELS = {"exact": PriorLevel(), "sensor": _SENSOR, "casual": _CASUAL}

# What a phone records beside its video: depth like "sensor", poses refined over the whole clip.
PHONE = PriorLevel(
    depth_noise=0.01,
    depth_holes=0.05,
    depth_drift=0.02,
    pose_degrees=0.05,
    pose_shift=0.001,
)


@dataclass(frozen=True)
class Priors:
    """What preprocessing would hand to a fit.

    Attributes:
        cameras: one a frame.
        depths: [T, H, W] float32 z-depth, metres, 0 unknown.
        masks: [T, H, W] uint8 object index.
        tracks: 2D tracks.
    """

    cameras: Cameras
    depths: np.ndarray
    masks: np.ndarray
    tracks: Tracks


def make_priors(truth: Truth, level: PriorLevel, seed: int = 0) -> Priors:
    """Spoil the truth of a scene as far as a level says.

    Each kind of error has its own random numbers: the size of one does not change another.
    """
    streams = [np.random.default_rng([seed, kind]) for kind in range(4)]
    return Priors(
        cameras=_noisy_cameras(truth, level, streams[0]),
        depths=_noisy_depths(truth, level, streams[1]),
        masks=_noisy_masks(truth, level, streams[2]),
        tracks=_noisy_tracks(truth, level, streams[3]),
    )


def level_of_name(name: str) -> PriorLevel:
    """Return a named level.

    Raises:
        InputError: there is none of this name.
    """
    if name not in LEVELS:
        raise InputError(f"level of priors: expected one of {', '.join(LEVELS)}, got {name!r}")
    return LEVELS[name]


def _median_depth(truth: Truth) -> float:
    return float(np.median(truth.clip.depths))


def _smooth_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise of variance 1, smooth along the first axis (sigma in steps; it wraps around)."""
    from scipy.ndimage import gaussian_filter1d

    impulse = np.zeros(shape[0])
    impulse[0] = 1
    gain = np.linalg.norm(gaussian_filter1d(impulse, sigma, mode="wrap"))
    return gaussian_filter1d(rng.standard_normal(shape), sigma, axis=0, mode="wrap") / gain


def _noisy_cameras(truth: Truth, level: PriorLevel, rng: np.random.Generator) -> Cameras:
    """Turn and shift each camera; the errors of neighbouring frames are alike."""
    from scipy.spatial.transform import Rotation

    cameras = truth.clip.cameras
    if not (level.pose_degrees or level.pose_shift):
        return cameras
    noise = _smooth_noise((len(cameras), 6), 2.0, rng)
    noise -= noise.mean(0)
    noise /= np.sqrt(3 * (noise**2).mean(0))  # three axes share the size
    turn = Rotation.from_rotvec(level.pose_degrees * noise[:, :3], degrees=True).as_matrix()
    centres = cameras.centres + level.pose_shift * _median_depth(truth) * noise[:, 3:]
    cam_from_world = cameras.cam_from_world.copy()
    cam_from_world[:, :3, :3] = turn @ cam_from_world[:, :3, :3]
    cam_from_world[:, :3, 3] = -(cam_from_world[:, :3, :3] @ centres[..., None])[..., 0]
    return Cameras(cameras.intrinsics, cam_from_world, cameras.width, cameras.height)


def _noisy_depths(truth: Truth, level: PriorLevel, rng: np.random.Generator) -> np.ndarray:
    """Scale, shift and distort the depth maps, add noise and leave holes."""
    import cv2

    depths = truth.clip.depths
    frames, height, width = depths.shape
    drift = _smooth_noise((frames,), frames / 6, rng)
    drift -= drift.mean()
    drift *= level.depth_drift / np.abs(drift).max()
    scale = (1 + drift) * (1 + level.depth_scale * rng.standard_normal(frames))
    shift = level.depth_shift * _median_depth(truth) * rng.standard_normal(frames)
    result = np.empty_like(depths)
    for frame, depth in enumerate(depths):
        bumps = rng.standard_normal((4, 5))
        bumps = cv2.resize(bumps, (width, height), interpolation=cv2.INTER_CUBIC)
        bumps = bumps / bumps.std()
        # Neighbouring pixels of a sensor err alike.
        grain = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 1.0)
        grain = grain / grain.std()
        holes = _holes(depth, level.depth_holes, rng)
        noisy = depth * scale[frame] + shift[frame]
        noisy *= 1 + level.depth_distortion * bumps + level.depth_noise * grain
        result[frame] = np.where(holes, 0, noisy.clip(1e-3))
    return result


def _holes(depth: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return [H, W] bool: blots over a share of the image, and the far side of depth edges."""
    import cv2

    if not share:
        return np.zeros(depth.shape, bool)
    blots = cv2.GaussianBlur(rng.standard_normal(depth.shape), (0, 0), depth.shape[0] / 60)
    nearest = cv2.erode(depth, np.ones((3, 3), np.uint8))
    return (blots > np.quantile(blots, 1 - share)) | (depth > 1.05 * nearest)


def _noisy_masks(truth: Truth, level: PriorLevel, rng: np.random.Generator) -> np.ndarray:
    """Move the border of each object in or out, by another amount in every frame."""
    import cv2

    if not level.mask_border:
        return truth.clip.masks
    result = np.zeros_like(truth.clip.masks)
    for frame, mask in enumerate(truth.clip.masks):
        best = np.zeros(mask.shape, np.float32)
        for instance in truth.spec.objects:
            grow = rng.uniform(-level.mask_border, level.mask_border)
            own = (mask == instance).astype(np.uint8)
            if not own.any():
                continue
            # Distance to the border, positive inside the grown or shrunk object.
            inside = cv2.distanceTransform(own, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            outside = cv2.distanceTransform(1 - own, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            signed = np.where(own, inside - 0.5, 0.5 - outside) + grow
            result[frame][signed > best] = instance
            best = np.maximum(best, signed)
    return result


def _noisy_tracks(truth: Truth, level: PriorLevel, rng: np.random.Generator) -> Tracks:
    """Jitter the tracks, let some slide off, and end each where its point is first hidden."""
    true = truth.tracks
    xy = project_tracks(truth.spec, true)
    visible = true.visible
    count, frames = visible.shape
    confidence = np.ones((count, frames))
    if level.track_jitter or level.track_outliers:
        xy = xy + level.track_jitter * rng.standard_normal(xy.shape)
        slides = rng.permutation(count)[: round(level.track_outliers * count)]
        # From some frame on, away from the query at 1 to 3 px a frame, both ways in time.
        start = rng.integers(1, max(2, frames // 2), len(slides))
        direction = rng.standard_normal((len(slides), 2))
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        velocity = rng.uniform(1, 3, (len(slides), 1)) * direction
        away = np.abs(np.arange(frames) - true.query_frame[slides, None]) - start[:, None]
        xy[slides] += away.clip(0)[..., None] * velocity[:, None]
        confidence = rng.uniform(0.7, 1.0, (count, 1)) * np.ones(frames)
        confidence[slides] *= rng.uniform(0.6, 1.0, (len(slides), 1))
        size = (truth.spec.width, truth.spec.height)
        # It is lost outside the image too, but for the frame it was started in.
        inside = (xy >= 0).all(-1) & (xy < size).all(-1)
        inside |= np.arange(frames) == true.query_frame[:, None]
        visible = _first_run(visible & inside, true.query_frame)
        xy = xy.clip(0, np.subtract(size, 1e-3))
    return Tracks.from_dense(
        xy=np.where(visible[..., None], xy, 0),
        visible=visible,
        confidence=np.where(visible, confidence, 0),
        object=true.object,
        query_frame=true.query_frame,
    )


def _first_run(visible: np.ndarray, query_frame: np.ndarray) -> np.ndarray:
    """Keep of visibility [N, T] the unbroken run of frames around each query frame [N]."""
    frames = np.arange(visible.shape[1])
    hidden = ~visible
    query = query_frame[:, None]
    # Hidden frames between the query and each frame, counted outwards on both sides.
    after = np.cumsum(hidden & (frames >= query), 1)
    before = np.cumsum((hidden & (frames <= query))[:, ::-1], 1)[:, ::-1]
    return np.where(frames >= query, after == 0, before == 0) & visible
