"""Tiny data sets in the layouts of the public ones, written by their documentation."""

import gzip
import json

import numpy as np
import torch
from PIL import Image

from msdyn.io import write_video


def save_image(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def write_pointodyssey(root, scene, split="train", name="cab_e_ego2", hidden=(), invalid=()):
    """Write a sequence.

    Args:
        hidden: (frame, track) that are occluded.
        invalid: (frame, track) whose positions are not valid.
    """
    folder = root / split / name
    for i in range(len(scene)):
        save_image(folder / f"rgbs/rgb_{i:05d}.jpg", scene.image(i), quality=97, subsampling=0)
        stored = np.minimum(scene.depth(i, sky=1e10) / 1000 * 65535, 65535).round()
        save_image(folder / f"depths/depth_{i:05d}.png", stored.astype(np.uint16))
    fx, fy, cx, cy = scene.intrinsics
    k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)
    visible = np.stack([scene.inside(i) for i in range(len(scene))])
    valid = np.ones_like(visible)
    points, pixels = scene.tracks.copy(), np.stack([scene.pixels(i)[0] for i in range(len(scene))])
    for index in hidden:
        visible[index] = False
    for index in invalid:
        valid[index] = visible[index] = False
        points[index] = pixels[index] = np.inf
    np.savez(
        folder / "anno.npz",
        trajs_2d=pixels.astype(np.float32),
        trajs_3d=points.astype(np.float32),
        valids=valid,
        visibs=visible,
        intrinsics=np.tile(k, (len(scene), 1, 1)),
        extrinsics=scene.cam_from_world.astype(np.float32),
    )
    return folder


def write_dynamic_replica(
    root, scene, split="valid", camera="left", norm="ndc_isotropic", hidden=()
):
    """Write a sequence of one camera; return its annotations, for changes, and their file."""
    folder = root / split
    name, stored = "e0ff8f-3_obj", []
    width, height = scene.width, scene.height
    unit = np.array([width, height]) / 2
    if norm == "ndc_isotropic":
        unit = np.full(2, min(width, height) / 2)
    to_pytorch3d = np.diag([-1, -1, 1])  # x left, y up
    for i in range(len(scene)):
        paths = {
            "image": f"{name}_source_{camera}/images/{name}_source_{camera}-{i:04d}.png",
            "depth": f"{name}_source_{camera}/depths/{name}_source_{camera}_{i:04d}.geometric.png",
            "trajectories": f"{name}_source_{camera}/trajectories/{i:06d}.pth",
        }
        save_image(folder / paths["image"], scene.image(i))
        depth = scene.depth(i, sky=0).astype(np.float16).view(np.uint16)
        save_image(folder / paths["depth"], depth)
        pixels, z = scene.pixels(i)
        visible = scene.inside(i)
        visible[[track for frame, track in hidden if frame == i]] = False
        (folder / paths["trajectories"]).parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            {
                "traj_2d": torch.tensor(np.c_[pixels, z], dtype=torch.float32),
                "traj_3d_world": torch.tensor(scene.tracks[i], dtype=torch.float32),
                "verts_inds_vis": torch.tensor(visible),
                "img": torch.tensor(scene.image(i)),
                "instances": torch.zeros(len(z)),
            },
            folder / paths["trajectories"],
        )
        pose = scene.cam_from_world[i]
        focal, centre = scene.intrinsics[:2], scene.intrinsics[2:]
        stored.append(
            {
                "sequence_name": name,
                "frame_number": i,
                "frame_timestamp": i / 30,
                "camera_name": camera,
                "image": {"path": paths["image"], "size": [height, width]},
                "depth": {"path": paths["depth"], "scale_adjustment": 1.0},
                "trajectories": {"path": paths["trajectories"]},
                "viewpoint": {
                    "R": (to_pytorch3d @ pose[:3, :3]).T.tolist(),  # rows times R
                    "T": (to_pytorch3d @ pose[:3, 3]).tolist(),
                    "focal_length": (focal / unit).tolist(),
                    "principal_point": ((np.array([width, height]) / 2 - centre) / unit).tolist(),
                    "intrinsics_format": norm,
                },
            }
        )
    path = folder / f"frame_annotations_{split}.jgz"
    write_jgz(path, stored[::-1])  # the order of frames is that of their numbers
    return stored, path


def write_jgz(path, content):
    path.write_bytes(gzip.compress(json.dumps(content).encode()))


def write_stereo4d(root, scene, clip="-a_b3_66957", split="train"):
    """Write a clip whose tracks are known where they are in the image; return npz and video."""
    inside = np.array([scene.inside(i) for i in range(len(scene))])
    known = [np.flatnonzero(inside[:, track]) for track in range(inside.shape[1])]
    path = root / split / f"{clip}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        name=clip,
        camera2world=scene.world_from_cam[:, :3],
        timestamps=np.arange(len(scene)) * 33333 + 66957,
        track_lengths=np.array([len(frames) for frames in known]),
        track_indices=np.concatenate(known),
        track_coordinates=np.concatenate(
            [scene.tracks[frames, track] for track, frames in enumerate(known)]
        ).astype(np.float32),
        rectified2rig=np.tile(np.eye(3), (2, 1, 1)),
        fov_bounds=np.array([-90, 90, -90, 90.0]),
    )
    video = root / "processed" / clip / f"{clip}-left_rectified.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    write_video(video, [scene.image(i) for i in range(len(scene))], 30, crf=4)
    return path, video
