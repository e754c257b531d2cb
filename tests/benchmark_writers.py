"""Stand-ins of benchmarks: small synthetic scenes in the layouts of the published files.

Written from the descriptions of the formats, without the readers' code.
"""

import io
import json
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from msdyn.geometry import Cameras, look_at
from msdyn.io import write_dycheck
from msdyn.scene import Scene
from msdyn.synthetic import make_scene, render_truth, write_truth

__all__ = [
    "jpeg",
    "rig_truth",
    "write_all_benchmarks",
    "write_nvidia",
    "write_realestate10k",
    "write_tapvid3d",
]


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=95, subsampling=0)
    return file.getvalue()


def write_tapvid3d(path, images, cameras, xyz_world, visible, query_frame, query_xy, poses=True):
    """Write a clip. Tracks are [N, T, 3] in the world, visibility [N, T]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    in_camera = np.zeros((len(images), len(xyz_world), 3))
    for frame, pose in enumerate(cameras.cam_from_world):
        for track, points in enumerate(xyz_world):
            in_camera[frame, track] = pose[:3, :3] @ points[frame] + pose[:3, 3]
    k = cameras.intrinsics[0]
    arrays = {
        "images_jpeg_bytes": [jpeg(image) for image in images],
        "tracks_XYZ": in_camera,
        "visibility": np.asarray(visible).T,
        "queries_xyt": np.column_stack([query_xy, np.asarray(query_frame, float)]),
        "fx_fy_cx_cy": np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]]),
    }
    if poses:
        arrays["extrinsics_w2c"] = cameras.cam_from_world
    np.savez(path, **arrays)


def write_realestate10k(directory, clips, per_file=2):
    """Write clips, {key: (images, cameras)}, several to a file, and the index."""
    directory.mkdir(parents=True, exist_ok=True)
    keys, index = list(clips), {}
    for start in range(0, len(keys), per_file):
        name, content = f"{start // per_file:06d}.torch", []
        for key in keys[start : start + per_file]:
            images, cameras = clips[key]
            rows = []
            for k, pose in zip(cameras.intrinsics, cameras.cam_from_world, strict=True):
                w, h = cameras.width, cameras.height
                row = [k[0, 0] / w, k[1, 1] / h, k[0, 2] / w, k[1, 2] / h, 0, 0]
                rows.append([*row, *pose[0], *pose[1], *pose[2]])
            files = [torch.from_numpy(np.frombuffer(jpeg(i), np.uint8).copy()) for i in images]
            content.append(
                {
                    "key": key,
                    "url": "https://video",
                    "timestamps": torch.arange(len(images)) * 33_000,
                    "cameras": torch.tensor(rows, dtype=torch.float32),
                    "images": files,
                }
            )
            index[key] = name
        torch.save(content, directory / name)
    (directory / "index.json").write_text(json.dumps(index))


def write_nvidia(directory, images, rig, masks=None, rows=None):
    """Write a scene: images [times][cameras], the cameras of the rig, masks of moving objects."""
    dense = directory / "dense"
    for time, pictures in enumerate(images):
        folder = dense / "mv_images" / f"{time:05d}"
        folder.mkdir(parents=True)
        for camera, image in enumerate(pictures):
            (folder / f"cam{camera + 1:02d}.jpg").write_bytes(jpeg(image))
            if masks is not None:
                folder_of_masks = dense / "mv_masks" / f"{time:05d}"
                folder_of_masks.mkdir(parents=True, exist_ok=True)
                mask = np.where(masks[time][camera], 255, 0).astype(np.uint8)
                Image.fromarray(mask).save(folder_of_masks / f"cam{camera + 1:02d}.png")
    table = []
    for time in range(len(images) if rows is None else rows):
        camera = time % len(rig)
        right, down, forward = rig.cam_from_world[camera, :3, :3]
        centre = -rig.cam_from_world[camera, :3, :3].T @ rig.cam_from_world[camera, :3, 3]
        size = [rig.height, rig.width, rig.intrinsics[camera, 0, 0]]
        matrix = np.column_stack([down, right, -forward, centre, size])
        table.append([*matrix.ravel(), 1.0, 10.0])
    np.save(dense / "poses_bounds_cvd.npy", np.array(table))


def rig_truth(frames, cameras, width, height):
    """Return the rig and, of two moving boxes, images and masks [times][cameras]."""
    spec = make_scene("two-boxes", frames=frames, width=width, height=height)
    first = spec.cameras[0]
    centre, forward = first.centres[0], first.cam_from_world[0, 2, :3]
    right, down = first.cam_from_world[0, 0, :3], first.cam_from_world[0, 1, :3]
    target = centre + 2.5 * forward
    offsets = np.linspace(-0.3, 0.3, cameras)
    poses = np.stack([look_at(centre + offset * right, target, down) for offset in offsets])
    rig = Cameras(np.repeat(first.intrinsics, cameras, 0), poses, width, height)
    views = {f"cam{number}": rig[number] for number in range(cameras)}
    truth = render_truth(replace(spec, views=views), samples=2)
    images = [[shot.images[time] for shot in truth.views.values()] for time in range(frames)]
    masks = [[shot.masks[time] > 0 for shot in truth.views.values()] for time in range(frames)]
    return rig, images, masks


def write_all_benchmarks(folder, truth, times=4, cameras=3, every=11):
    """Write a small synthetic scene in the layouts of all benchmarks; return the folders.

    The clip of `truth` is one of RealEstate10K (of moving boxes), of DyCheck and of each part of
    TAPVid-3D, with every `every`-th of its tracks; that of NVIDIA is of a rig of its own.
    """
    spec, tracks = truth.spec, truth.tracks
    images, last = truth.clip.images, len(truth.clip.images) - 1
    write_realestate10k(folder / "re10k" / "test", {"a": (images, spec.cameras)})
    index = {"a": {"context": [0, last], "target": [1, last // 2]}, "b": None}
    (folder / "re10k" / "evaluation_index.json").write_text(json.dumps(index))
    scene = Scene(write_truth(truth, folder / "scene"))
    write_dycheck(scene, folder / "iphone" / "boxes")
    rig, pictures, masks = rig_truth(times, cameras, spec.width, spec.height)
    write_nvidia(folder / "nvidia" / "Boxes", pictures, rig, masks)
    chosen = slice(None, None, every)
    for part in ("adt", "drivetrack", "pstudio"):
        write_tapvid3d(
            folder / part / "boxes_0.npz", images, spec.cameras, tracks.xyz[chosen],
            tracks.visible[chosen], tracks.query_frame[chosen], tracks.query_xy[chosen],
        )  # fmt: skip
    return {
        "realestate10k": folder / "re10k",
        "dycheck": folder / "iphone",
        "nvidia": folder / "nvidia",
        **{part: folder / part for part in ("adt", "drivetrack", "pstudio")},
    }
