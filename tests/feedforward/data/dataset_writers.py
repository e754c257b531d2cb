"""Tiny data sets in the layouts of the public ones, written by their documentation."""

import gzip
import json

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

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


def write_tartanair(root, scene, cameras=("left",), folder="office/Easy/P001", sky=10000.0):
    """Write a trajectory; both cameras are the same."""
    folder = root / folder
    opencv_from_ned = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])  # right, down, forward
    for camera in cameras:
        lines = []
        (folder / f"depth_{camera}").mkdir(parents=True)
        for i in range(len(scene)):
            save_image(folder / f"image_{camera}/{i:06d}_{camera}.png", scene.image(i))
            depth = scene.depth(i, sky=sky).astype(np.float32)
            np.save(folder / f"depth_{camera}/{i:06d}_{camera}_depth.npy", depth)
            pose = scene.world_from_cam[i]
            # In a NED world too, so that neither the order nor the sign of axes goes unnoticed.
            rotation = opencv_from_ned.T @ pose[:3, :3] @ opencv_from_ned
            position = opencv_from_ned.T @ pose[:3, 3]
            numbers = [*position, *Rotation.from_matrix(rotation).as_quat()]  # x y z w
            lines.append(" ".join(f"{number:.9e}" for number in numbers))
        (folder / f"pose_{camera}.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_vkitti2(root, scene, right=None, start=0, sequence="Scene01/15-deg-left", split=False):
    """Write a sequence.

    Args:
        right: the scene seen by Camera_1; without by default.
        split: put each archive into a folder of its own.
    """
    rgb, depth, text = (
        root / f"vkitti_2.0.3_{name}" / sequence if split else root / sequence
        for name in ("rgb", "depth", "textgt")
    )
    k = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
    rt = ["frame cameraID r1,1 r1,2 r1,3 t1 r2,1 r2,2 r2,3 t2 r3,1 r3,2 r3,3 t3 0 0 0 1"]
    for i in range(len(scene)):
        for camera, seen in enumerate([scene] if right is None else [scene, right]):
            number, end = start + i, f"Camera_{camera}"
            path = rgb / f"frames/rgb/{end}/rgb_{number:05d}.jpg"
            save_image(path, seen.image(i), quality=97, subsampling=0)
            stored = np.minimum(seen.depth(i, sky=1e4) * 100, 65535).round().astype(np.uint16)
            save_image(depth / f"frames/depth/{end}/depth_{number:05d}.png", stored)
            intrinsics = seen.intrinsics - [0, 0, 0.5, 0.5]  # pixel centres are whole numbers
            pose = seen.cam_from_world[i].ravel()
            k.append(" ".join(map(str, [number, camera, *intrinsics])))
            rt.append(" ".join(map(str, [number, camera, *pose])))
    text.mkdir(parents=True, exist_ok=True)
    (text / "intrinsic.txt").write_text("\n".join(k) + "\n")
    (text / "extrinsic.txt").write_text("\n".join(rt) + "\n")
    return rgb


def write_realestate10k(root, scene, clip="0000cc6d8b108390", split="train", suffix=".jpg"):
    """Write a clip whose lines are not in the order of time; return its text file."""
    lines = []
    for i in range(len(scene)):
        time = 52553000 + 33367 * i
        save_image(root / split / clip / f"{time}{suffix}", scene.image(i))
        k = scene.intrinsics / ([scene.width, scene.height] * 2)
        numbers = [time, *k, 0, 0, *scene.cam_from_world[i, :3].ravel()]
        lines.append(
            " ".join(f"{number:.9f}" if n else str(time) for n, number in enumerate(numbers))
        )
    path = root / split / f"{clip}.txt"
    path.write_text("\n".join(["https://www.youtube.com/watch?v=-aldZQifF2U", *lines[::-1]]) + "\n")
    return path


def write_spring(root, scene, sequence="0004", split="train", camera="left", cameras_of=None):
    """Write a camera of a sequence; frames count from 1.

    Args:
        scene: seen by the camera.
        cameras_of: the scene seen by the left camera, if the camera is the right one.
    """
    import h5py

    folder = root / split / sequence
    (folder / f"disp1_{camera}").mkdir(parents=True)
    (folder / "cam_data").mkdir(exist_ok=True)
    for i in range(len(scene)):
        save_image(folder / f"frame_{camera}/frame_{camera}_{i + 1:04d}.png", scene.image(i))
        disparity = scene.intrinsics[0] * 0.065 / scene.depth(i, finer=2, sky=np.inf)
        disparity[-2:, -2:] = np.nan
        path = folder / f"disp1_{camera}/disp1_{camera}_{i + 1:04d}.dsp5"
        with h5py.File(path, "w") as file:
            file.create_dataset("disparity", data=disparity.astype(np.float32), compression="gzip")
    left = (cameras_of or scene).cam_from_world
    np.savetxt(folder / "cam_data/intrinsics.txt", np.tile(scene.intrinsics, (len(scene), 1)))
    np.savetxt(folder / "cam_data/extrinsics.txt", left.reshape(-1, 16))
    return folder


def write_matrixcity(root, scene, block="small_city/aerial/train/block_1", start=0, rgb=False):
    """Write a block; the scene's unit is a metre."""
    import OpenEXR

    folder = root / block
    (folder / "depth").mkdir(parents=True)
    frames = []
    for i in range(len(scene)):
        name = f"{start + i:04d}"
        save_image(folder / ("rgb" if rgb else ".") / f"{name}.png", scene.image(i))
        stored = np.minimum(scene.depth(i, sky=np.inf) * 100, 65504).astype(np.float16)
        channels = {"RGB": np.repeat(stored[..., None], 3, -1)}
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, channels).write(str(folder / f"depth/{name}.exr"))
        pose = scene.world_from_cam[i] @ np.diag([1, -1, -1, 1])  # y up, z back
        pose[:3, :3] /= 100
        frames.append({"frame_index": start + i, "rot_mat": pose.tolist()})
    angle = 2 * np.arctan(scene.width / 2 / scene.intrinsics[0])
    write_matrixcity_json(folder, {"camera_angle_x": angle, "frames": frames[::-1]})
    return folder


def write_matrixcity_json(folder, content):
    (folder / "transforms.json").write_text(json.dumps(content))
