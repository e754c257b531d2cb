"""DyCheck's folder format: writing it from a scene directory with held-out views.

Scenes with exact ground truth are then evaluated by the same protocol as the iPhone data. See
`msdyn.io.dycheck` for the format. Depth is written in metres.
"""

from __future__ import annotations

import os
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras, focus_point, project, transform_points, world_points_from_depth
from msdyn.indices import evenly_spaced
from msdyn.scene import Keypoints, Scene, Tracks3D, read_keypoints
from msdyn.writing import atomic_path, write_json

__all__ = ["FACTORS", "write_dycheck"]

FACTORS = (1, 2)
_KEYPOINT_FRAMES = 10
_KEYPOINTS = 20
_MAX_STATIC_POINTS = 20_000


def write_dycheck(scene: Scene, directory: str | os.PathLike) -> Path:
    """Write a scene in DyCheck's format, at full and half size, and return the folder.

    Keypoints are those of the scene or, if it has none, some of its true tracks on objects, in ten
    evenly spaced frames.

    Raises:
        InputError: the scene has no held-out views, or no depth.
    """
    directory = Path(directory)
    if not scene.views:
        raise InputError(
            f"{scene.directory / 'views'}: no held-out views; DyCheck's format needs at least one"
        )
    clip = {frame: f"0_{frame:05d}" for frame in range(len(scene))}
    for frame, name in clip.items():
        _write_image(directory, name, scene.image(frame))
        _write_camera(directory, name, scene.cameras[frame])
        for factor in FACTORS:
            path = directory / "depth" / f"{factor}x" / f"{name}.npy"
            with atomic_path(path) as temporary:
                np.save(temporary, _shrink_depth(scene.depth(frame), factor)[..., None])
    val: list[tuple[str, int, int]] = []
    for camera, view in enumerate(scene.views.values(), start=1):
        for frame in view.frames:
            name = f"{camera}_{frame:05d}"
            val.append((name, frame, camera))
            _write_image(directory, name, view.image(frame))
            _write_camera(directory, name, view.cameras[frame])
            covisible = np.where(view.covisible(frame), 255, 0).astype(np.uint8)
            for factor in FACTORS:
                # A pixel at half size is covisible if all pixels that it covers are.
                mask = np.where(_shrink(covisible, factor) == 255, 255, 0).astype(np.uint8)
                _save_png(directory / "covisible" / f"{factor}x" / "val" / f"{name}.png", mask)
    _write_keypoints(directory, scene, clip)
    _write_lists(directory, [(name, frame, 0) for frame, name in clip.items()], val)
    _write_scene_files(directory, scene)
    return directory


def _write_image(directory: Path, name: str, image: UInt8[np.ndarray, "height width 3"]) -> None:
    for factor in FACTORS:
        small = _shrink(image, factor)
        rgba = np.concatenate([small, np.full_like(small[..., :1], 255)], axis=-1)
        _save_png(directory / "rgb" / f"{factor}x" / f"{name}.png", rgba)


def _write_camera(directory: Path, name: str, camera: Cameras) -> None:
    intrinsics, pose = camera.intrinsics[0], camera.cam_from_world[0]
    write_json(
        directory / "camera" / f"{name}.json",
        {
            "orientation": pose[:3, :3].tolist(),
            "position": camera.centres[0].tolist(),
            "focal_length": float(intrinsics[0, 0]),
            "principal_point": intrinsics[:2, 2].tolist(),
            "skew": 0.0,
            "pixel_aspect_ratio": float(intrinsics[1, 1] / intrinsics[0, 0]),
            "radial_distortion": [0.0, 0.0, 0.0],
            "tangential_distortion": [0.0, 0.0],
            "image_size": [camera.width, camera.height],
        },
    )


def _write_keypoints(directory: Path, scene: Scene, clip: dict[int, str]) -> None:
    keypoints = read_keypoints(scene.directory)
    tracks = next((v.tracks3d for v in scene.views.values() if v.tracks3d is not None), None)
    if keypoints is None and tracks is not None:
        keypoints = _keypoints_of_tracks(tracks, scene.cameras)
    if keypoints is None:
        return
    for frame, xy, visible in zip(keypoints.frames, keypoints.xy, keypoints.visible, strict=True):
        for factor in FACTORS:
            # Files have pixel centres at integers, in images of this size.
            stored = np.where(visible[:, None], xy / factor - 0.5, 0)
            write_json(
                directory / "keypoint" / f"{factor}x" / "train" / f"{clip[int(frame)]}.json",
                np.column_stack([stored, visible.astype(float)]).tolist(),
            )


def _keypoints_of_tracks(tracks: Tracks3D, cameras: Cameras) -> Keypoints | None:
    """Return the tracks that are visible in most of ten frames, equally many per object."""
    frames = evenly_spaced(len(cameras), _KEYPOINT_FRAMES)
    count = tracks.visible[:, frames].sum(1)
    objects = np.unique(tracks.object[(tracks.object > 0) & (count > 1)])
    if not len(objects):
        return None
    chosen = []
    for instance in objects:
        own = np.flatnonzero(tracks.object == instance)
        best = own[np.argsort(-count[own], kind="stable")]
        chosen.append(best[: -(-_KEYPOINTS // len(objects))])
    index = np.concatenate(chosen)
    in_camera = transform_points(
        cameras[frames].cam_from_world, tracks.xyz[index][:, frames].swapaxes(0, 1)
    )
    visible = tracks.visible[index][:, frames].T & (in_camera[..., 2] > 1e-6)
    in_camera = np.where(visible[..., None], in_camera, [0, 0, 1])
    xy = project(cameras[frames].intrinsics, in_camera)
    return Keypoints(frames, np.where(visible[..., None], xy, 0), visible)


def _write_lists(
    directory: Path, train: list[tuple[str, int, int]], val: list[tuple[str, int, int]]
) -> None:
    """Write the splits, and the time and camera of each image. Rows are name, time, camera."""
    for split, rows in (("train", train), ("val", val)):
        names, times, cameras = (list(column) for column in zip(*rows, strict=True))
        write_json(
            directory / "splits" / f"{split}.json",
            {"frame_names": names, "camera_ids": cameras, "time_ids": times},
        )
    train_ids, val_ids = [name for name, _, _ in train], [name for name, _, _ in val]
    write_json(
        directory / "dataset.json",
        {
            "count": len(train) + len(val),
            "num_exemplars": len(train),
            "ids": train_ids + val_ids,
            "train_ids": train_ids,
            "val_ids": val_ids,
        },
    )
    write_json(
        directory / "metadata.json",
        {
            name: {"warp_id": time, "appearance_id": time, "camera_id": camera}
            for name, time, camera in train + val
        },
    )


def _write_scene_files(directory: Path, scene: Scene) -> None:
    """Write the normalisation that readers of the format apply, and static points."""
    points, distances, static = [], [], []
    for frame, camera in enumerate(scene.cameras):
        depth = scene.depth(frame)
        world = world_points_from_depth(depth, camera)
        points.append(world[depth > 0])
        distances.append(np.linalg.norm(points[-1] - camera.centres[0], axis=-1))
        static.append(world[(depth > 0) & (scene.mask(frame) == 0)])
    cloud, background = np.concatenate(points), np.concatenate(static)
    if not len(cloud):
        raise InputError(f"{scene.directory / 'depth'}: no depth in any frame")
    corners = np.concatenate([cloud, scene.cameras.centres])
    box = np.stack([corners.min(0), corners.max(0)])
    centre, scale = box.mean(0), 1 / float(np.linalg.norm(np.ptp(box, axis=0)))
    near, far = np.quantile(np.concatenate(distances), [0.001, 0.999])
    write_json(
        directory / "scene.json",
        {
            "scale": scale,
            "center": centre.tolist(),
            "near": float(near * 3 / 4 * scale),
            "far": float(far * 5 / 4 * scale),
        },
    )
    up = -scene.cameras.cam_from_world[:, 1, :3].mean(0)
    write_json(
        directory / "extra.json",
        {
            "factor": 2,
            "fps": scene.info.fps,
            "bbox": ((box - centre) * scale).tolist(),
            "lookat": ((focus_point(scene.cameras) - centre) * scale).tolist(),
            "up": (up / np.linalg.norm(up)).tolist(),
        },
    )
    step = max(1, len(background) // _MAX_STATIC_POINTS)
    with atomic_path(directory / "points.npy") as temporary:
        np.save(temporary, background[::step].astype(np.float32))


def _save_png(path: Path, image: UInt8[np.ndarray, "height width *channels"]) -> None:
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, image)


def _shrink(
    image: Shaped[np.ndarray, "height width *channels"], factor: int
) -> Shaped[np.ndarray, "rows columns *channels"]:
    """Return an image averaged over blocks of `factor` by `factor` pixels."""
    import cv2

    if factor == 1:
        return image
    height, width = image.shape[:2]
    size = round(width / factor), round(height / factor)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _shrink_depth(
    depth: Float32[np.ndarray, "height width"], factor: int
) -> Float32[np.ndarray, "rows columns"]:
    """Return depth averaged over blocks, unknown where any pixel of a block is."""
    known = _shrink(np.where(depth > 0, 255, 0).astype(np.uint8), factor) == 255
    return np.where(known, _shrink(depth, factor), 0).astype(np.float32)
