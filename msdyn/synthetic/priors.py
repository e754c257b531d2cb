"""Priors perturbed like those of real preprocessing: cameras, depth, masks and tracks with errors.

There are three named levels: "exact", "sensor" (a depth sensor and AR tracking) and "casual"
(monocular depth estimated per frame). Sizes of errors are root mean squares unless noted otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

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
        depth_noise: noise per pixel, as a fraction of its depth.
        depth_holes: fraction of pixels without depth, in addition to those at depth edges.
        depth_drift: maximum error of the depth's scale, which changes slowly over the clip and has
            zero mean.
        depth_scale: error of the depth's scale, independent per frame.
        depth_shift: offset of the depth, independent per frame, as a fraction of the clip's median
            depth.
        depth_distortion: error per frame, smooth over the image, as a fraction of the depth.
        track_jitter: px, per axis and observation.
        track_outliers: fraction of tracks that drift off their point from some frame on.
        mask_border: px, maximum erosion or dilation of a mask.
        pose_degrees: rotation error per camera.
        pose_shift: position error per camera, as a fraction of the clip's median depth. The errors
            of the pose have zero mean over the clip: the poses define the world frame.
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

# What a phone records beside its video: depth as of "sensor", poses refined over the whole clip.
PHONE = PriorLevel(
    depth_noise=0.01,
    depth_holes=0.05,
    depth_drift=0.02,
    pose_degrees=0.05,
    pose_shift=0.001,
)


@dataclass(frozen=True)
class Priors:
    """The input of a fit, as preprocessing would estimate it.

    Attributes:
        cameras: one per frame.
        depths: z-depth, metres, 0 unknown.
        masks: object index.
        tracks: 2D tracks.
    """

    cameras: Cameras
    depths: Float32[np.ndarray, "frames height width"]
    masks: UInt8[np.ndarray, "frames height width"]
    tracks: Tracks


def make_priors(truth: Truth, level: PriorLevel, seed: int = 0) -> Priors:
    """Return the ground truth of a scene, perturbed by errors of the sizes of a level.

    Each kind of error has its own random numbers: the size of one does not change another.
    """
    streams = [np.random.default_rng([seed, kind]) for kind in range(4)]
    return Priors(
        cameras=_perturbed_cameras(truth, level, streams[0]),
        depths=_perturbed_depths(truth, level, streams[1]),
        masks=_perturbed_masks(truth, level, streams[2]),
        tracks=_perturbed_tracks(truth, level, streams[3]),
    )


def level_of_name(name: str) -> PriorLevel:
    """Return a named level.

    Raises:
        InputError: an unknown name.
    """
    if name not in LEVELS:
        raise InputError(f"level: expected one of {', '.join(LEVELS)}, got {name!r}")
    return LEVELS[name]


def _median_depth(truth: Truth) -> float:
    return float(np.median(truth.clip.depths))


def _smooth_noise(
    shape: tuple[int, ...], sigma: float, rng: np.random.Generator
) -> Float[np.ndarray, " samples *channels"]:
    """Return noise of variance 1, smoothed along the first axis (sigma in samples, periodic)."""
    from scipy.ndimage import gaussian_filter1d

    impulse = np.zeros(shape[0])
    impulse[0] = 1
    gain = np.linalg.norm(gaussian_filter1d(impulse, sigma, mode="wrap"))
    return gaussian_filter1d(rng.standard_normal(shape), sigma, axis=0, mode="wrap") / gain


def _perturbed_cameras(truth: Truth, level: PriorLevel, rng: np.random.Generator) -> Cameras:
    """Rotate and translate each camera; the errors of neighbouring frames are correlated."""
    from scipy.spatial.transform import Rotation

    cameras = truth.clip.cameras
    if not (level.pose_degrees or level.pose_shift):
        return cameras
    noise = _smooth_noise((len(cameras), 6), 2.0, rng)
    noise -= noise.mean(0)
    noise /= np.sqrt(3 * (noise**2).mean(0))  # the RMS of the three axes together is one
    rotation = Rotation.from_rotvec(level.pose_degrees * noise[:, :3], degrees=True).as_matrix()
    centres = cameras.centres + level.pose_shift * _median_depth(truth) * noise[:, 3:]
    cam_from_world = cameras.cam_from_world.copy()
    cam_from_world[:, :3, :3] = rotation @ cam_from_world[:, :3, :3]
    cam_from_world[:, :3, 3] = -(cam_from_world[:, :3, :3] @ centres[..., None])[..., 0]
    return Cameras(cameras.intrinsics, cam_from_world, cameras.width, cameras.height)


def _perturbed_depths(
    truth: Truth, level: PriorLevel, rng: np.random.Generator
) -> Float32[np.ndarray, "frames height width"]:
    """Scale, offset and distort the depth maps, add noise and holes."""
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
        distortion = rng.standard_normal((4, 5))
        distortion = cv2.resize(distortion, (width, height), interpolation=cv2.INTER_CUBIC)
        distortion = distortion / distortion.std()
        # The noise of a sensor is correlated between neighbouring pixels.
        noise = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 1.0)
        noise = noise / noise.std()
        holes = _holes(depth, level.depth_holes, rng)
        perturbed = depth * scale[frame] + shift[frame]
        perturbed *= 1 + level.depth_distortion * distortion + level.depth_noise * noise
        result[frame] = np.where(holes, 0, perturbed.clip(1e-3))
    return result


def _holes(
    depth: Float[np.ndarray, "height width"], fraction: float, rng: np.random.Generator
) -> Bool[np.ndarray, "height width"]:
    """Return blobs over a fraction of the image, and the far side of depth edges."""
    import cv2

    if not fraction:
        return np.zeros(depth.shape, bool)
    blobs = cv2.GaussianBlur(rng.standard_normal(depth.shape), (0, 0), depth.shape[0] / 60)
    nearest = cv2.erode(depth, np.ones((3, 3), np.uint8))
    return (blobs > np.quantile(blobs, 1 - fraction)) | (depth > 1.05 * nearest)


def _perturbed_masks(
    truth: Truth, level: PriorLevel, rng: np.random.Generator
) -> UInt8[np.ndarray, "frames height width"]:
    """Erode or dilate the mask of each object, by a random amount per frame."""
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
            # Signed distance to the border of the dilated or eroded mask, positive inside.
            inside = cv2.distanceTransform(own, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            outside = cv2.distanceTransform(1 - own, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            signed = np.where(own, inside - 0.5, 0.5 - outside) + grow
            result[frame][signed > best] = instance
            best = np.maximum(best, signed)
    return result


def _perturbed_tracks(truth: Truth, level: PriorLevel, rng: np.random.Generator) -> Tracks:
    """Add jitter and drifting outliers; end each track where its point is first occluded."""
    true = truth.tracks
    xy = project_tracks(truth.spec, true)
    visible = true.visible
    count, frames = visible.shape
    confidence = np.ones((count, frames))
    if level.track_jitter or level.track_outliers:
        xy = xy + level.track_jitter * rng.standard_normal(xy.shape)
        outliers = rng.permutation(count)[: round(level.track_outliers * count)]
        # Outliers drift by 1 to 3 px per frame, from a random time before and after the query on.
        start = rng.integers(1, max(2, frames // 2), len(outliers))
        direction = rng.standard_normal((len(outliers), 2))
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        velocity = rng.uniform(1, 3, (len(outliers), 1)) * direction
        elapsed = np.abs(np.arange(frames) - true.query_frame[outliers, None]) - start[:, None]
        xy[outliers] += elapsed.clip(0)[..., None] * velocity[:, None]
        confidence = rng.uniform(0.7, 1.0, (count, 1)) * np.ones(frames)
        confidence[outliers] *= rng.uniform(0.6, 1.0, (len(outliers), 1))
        size = (truth.spec.width, truth.spec.height)
        # Tracks are lost outside the image too, except in their query frame.
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


def _first_run(
    visible: Bool[np.ndarray, "tracks frames"], query_frame: Int[np.ndarray, " tracks"]
) -> Bool[np.ndarray, "tracks frames"]:
    """Keep only the contiguous run of visible frames around each query frame."""
    frames = np.arange(visible.shape[1])
    query = query_frame[:, None]
    # Number of occluded frames between the query and each frame, on either side.
    after = np.cumsum(~visible & (frames >= query), 1)
    before = np.cumsum((~visible & (frames <= query))[:, ::-1], 1)[:, ::-1]
    return np.where(frames >= query, after == 0, before == 0) & visible
