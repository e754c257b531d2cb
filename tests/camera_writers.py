"""Cameras in the formats of other programs, written by hand, by their documentation."""

import numpy as np
from scipy.spatial.transform import Rotation

WIDTH, HEIGHT = 64, 48
K = np.array([[70.0, 0, 31], [0, 72, 25], [0, 0, 1]])


def write_colmap_text(folder, cameras, model="PINHOLE", params=None, names=None, qvec_sign=1):
    """Write COLMAP's text format by hand, by its documentation."""
    folder.mkdir(parents=True)
    params = params or [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    line = " ".join(map(str, [1, model, WIDTH, HEIGHT, *params]))
    (folder / "cameras.txt").write_text(f"# Camera list\n{line}\n")
    lines = []
    for i, pose in enumerate(cameras.cam_from_world):
        x, y, z, w = qvec_sign * Rotation.from_matrix(pose[:3, :3]).as_quat()
        name = names[i] if names else f"frame{i}.png"
        lines += [" ".join(map(str, [i + 1, w, x, y, z, *pose[:3, 3], 1, name])), ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "points3D.txt").write_text("")
    return folder


def nerfstudio_content(cameras, names=None):
    frames = []
    for i, pose in enumerate(cameras.world_from_cam @ np.diag([1, -1, -1, 1])):  # y up, z back
        name = names[i] if names else f"images/frame_{i + 1:05d}.png"
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    size = {"w": WIDTH, "h": HEIGHT, "fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
    return size | {"camera_model": "OPENCV", "k1": 0.0, "frames": frames}


def write_tum(path, cameras, seconds):
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for time, pose in zip(seconds, cameras.world_from_cam, strict=True):
        quat = Rotation.from_matrix(pose[:3, :3]).as_quat()  # xyzw
        lines.append(" ".join(f"{value:.9f}" for value in [time, *pose[:3, 3], *quat]))
    path.write_text("\n".join(lines) + "\n")
    return path
