"""Small calibrated recordings in the layouts of others, written as their own code reads them."""

import dataclasses
import functools
import json

import imageio.v3 as iio
import numpy as np

from msdyn.geometry import world_points_from_depth
from msdyn.synthetic import make_scene, render_truth


@functools.cache
def static_rig(name, frames, width, height):
    """Return the truth of a scene whose input camera is static, beside its held-out cameras."""
    spec = make_scene(name, frames=frames, width=width, height=height)
    middle = spec.cameras[np.full(frames, frames // 2)]
    return render_truth(dataclasses.replace(spec, cameras=middle))


def shots_of(truth, clip="3"):
    """Return the shots of a recording by camera: the input and, from 10 on, the held-out ones."""
    return {clip: truth.clip} | {str(10 * n): s for n, s in enumerate(truth.views.values(), 1)}


def cloud(truth, step=3):
    """Return xyz, rgb and foreground of the first frame of all cameras, of every third pixel."""
    rows = []
    for shot in shots_of(truth).values():
        xyz = world_points_from_depth(shot.depths[0], shot.cameras[0])[::step, ::step].reshape(
            -1, 3
        )
        rgb = shot.images[0][::step, ::step].reshape(-1, 3) / 255
        seg = (shot.masks[0][::step, ::step] > 0).reshape(-1, 1)
        rows.append(np.concatenate([xyz, rgb, seg], 1))
    return np.concatenate(rows)


def write_panoptic(folder, truth, *, test=("10", "20"), extension=".png", points=True):
    """Write a sequence as Dynamic 3D Gaussians' train.py reads it."""
    shots = shots_of(truth)
    for part, names in (
        ("train", [name for name in shots if name not in test]),
        ("test", list(test)),
    ):
        frames = range(len(truth.clip.images))
        meta = {
            "w": truth.clip.cameras.width,
            "h": truth.clip.cameras.height,
            "k": [[shots[n].cameras.intrinsics[t].tolist() for n in names] for t in frames],
            "w2c": [[shots[n].cameras.cam_from_world[t].tolist() for n in names] for t in frames],
            "fn": [[f"{n}/{t:06d}{extension}" for n in names] for t in frames],
            "cam_id": [[int(n) for n in names] for _ in frames],
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{part}_meta.json").write_text(json.dumps(meta))
    for name, shot in shots.items():
        for t, (image, mask) in enumerate(zip(shot.images, shot.masks, strict=True)):
            for kind, values in (
                (f"ims/{name}/{t:06d}{extension}", image),
                (f"seg/{name}/{t:06d}.png", (mask > 0).astype(np.uint8)),
            ):
                (folder / kind).parent.mkdir(parents=True, exist_ok=True)
                iio.imwrite(folder / kind, values)
    if points:
        np.savez(folder / "init_pt_cld.npz", data=cloud(truth))
    return folder


def jumping_cameras(frames, width, height, seed=0):
    """Return cameras at random on a dome around the origin, as D-NeRF's, and their angle."""
    rng = np.random.default_rng(seed)
    angle = 0.69
    poses = []
    for _ in range(frames):
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 1.2)
        z = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation),
                      np.sin(elevation)])  # fmt: skip
        x = np.cross([0, 0, 1.0], z)
        x /= np.linalg.norm(x)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([x, np.cross(z, x), z], 1)  # OpenGL: the camera looks along -z
        pose[:3, 3] = 4 * z
        poses.append(pose)
    return np.stack(poses), angle


def ball_at(time):
    """Return the centre and radius of a ball that moves slowly."""
    return np.array([0.4 * time - 0.2, 0.0, 0.1]), 0.7


def draw_ball(pose, angle, time, width, height):
    """Return RGBA of a ball, and its depth, by rays with OpenGL's convention."""
    focal = width / 2 / np.tan(angle / 2)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(x - width / 2) / focal, -(y - height / 2) / focal, -np.ones_like(x)], -1)
    rays = rays @ pose[:3, :3].T
    centre, radius = ball_at(time)
    off = pose[:3, 3] - centre
    a, b, c = (rays**2).sum(-1), rays @ off, off @ off - radius**2
    root = b**2 - a * c
    depth = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, 0)
    normal = (pose[:3, 3] + rays * depth[..., None] - centre) / radius
    colour = 0.5 + 0.4 * np.sin(7 * normal)
    rgba = np.concatenate([colour, np.ones_like(depth)[..., None]], -1) * (depth > 0)[..., None]
    return (255 * rgba + 0.5).astype(np.uint8), depth


def write_blender(folder, frames=24, held_out=5, size=(64, 64), suffix=False):
    """Write a D-NeRF clip of a ball; return poses (OpenGL's) and times of each split."""
    truth = {}
    for number, (split, count) in enumerate({"train": frames, "test": held_out}.items()):
        poses, angle = jumping_cameras(count, *size, seed=number)
        times = np.linspace(0, 1, count)
        rows = []
        for n, (pose, time) in enumerate(zip(poses, times, strict=True)):
            path = folder / split / f"r_{n:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            iio.imwrite(path, draw_ball(pose, angle, time, *size)[0])
            name = f"./{split}/r_{n:03d}" + (".png" if suffix else "")
            rows.append({"file_path": name, "rotation": 0.1, "time": time,
                         "transform_matrix": pose.tolist()})  # fmt: skip
        content = {"camera_angle_x": angle, "frames": rows}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
        truth[split] = poses, times
    return truth


def write_camera_folder(folder, truth, *, axes="opencv", key="w2c", depth=False, masks=True):
    """Write cameras in our own layout, as its documentation describes it."""
    flip = np.diag([1.0, -1, -1, 1]) if axes == "opengl" else np.eye(4)
    rows = []
    for name, shot in shots_of(truth, "in").items():
        w2c = shot.cameras.cam_from_world
        pose = flip @ w2c if key == "w2c" else np.linalg.inv(w2c) @ flip
        static = name != "in"
        row = {"name": name, "w": shot.cameras.width, "h": shot.cameras.height,
               key: pose[0].tolist() if static else pose.tolist()}  # fmt: skip
        k = shot.cameras.intrinsics[0]
        if static:
            row["K"] = k.tolist()
        else:
            row |= {"fx": k[0, 0], "fy": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]}
        rows.append(row)
        for t, image in enumerate(shot.images):
            for path, values, wanted in (
                (folder / name / f"{t}.png", image, True),
                (folder / "masks" / name / f"{t}.png", (shot.masks[t] > 0).astype(np.uint8), masks),
                (folder / "depth" / name / f"{t}.npy", 2 * shot.depths[t], depth),
            ):
                if wanted:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.save(path, values) if path.suffix == ".npy" else iio.imwrite(path, values)
    content = {"fps": 24, "axes": axes, "input": "in", "held_out": ["20"], "cameras": rows,
               "depth_scale": 0.5, "world_units": "metric"}  # fmt: skip
    (folder / "cameras.json").write_text(json.dumps(content))
    return folder


def write_nerfies(folder, truth, *, radial=(0.0, 0.0, 0.0), held_out="right28", step=1):
    """Write a capture of two cameras as Nerfies' README.md describes it; return the ids of each.

    Training takes now one camera, now the other, time ids begin at 3.
    """
    shots = {0: truth.clip, 1: truth.views[held_out]}
    ids, metadata = {0: [], 1: []}, {}
    for t in range(0, len(truth.clip.images), step):
        for number, shot in shots.items():
            name, camera = f"{'lr'[number]}1_{t:06d}", shot.cameras[t]
            k, pose = camera.intrinsics[0], camera.cam_from_world[0]
            ids[number].append(name)
            metadata[name] = {"warp_id": t + 3, "appearance_id": t, "camera_id": number}
            content = {
                "orientation": pose[:3, :3].tolist(), "position": camera.centres[0].tolist(),
                "focal_length": k[0, 0], "principal_point": k[:2, 2].tolist(), "skew": 0.0,
                "pixel_aspect_ratio": k[1, 1] / k[0, 0], "radial_distortion": list(radial),
                "tangential": [0.0, 0.0], "image_size": [camera.width, camera.height],
            }  # fmt: skip
            path = folder / "camera" / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
            for factor in (1, 2):
                path = folder / "rgb" / f"{factor}x" / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                iio.imwrite(path, shot.images[t][::factor, ::factor])
    train = [ids[n % 2][n] for n in range(len(ids[0]))]
    val = [ids[1 - n % 2][n] for n in range(len(ids[0]))]
    lists = {"ids": sorted(metadata), "train_ids": train, "val_ids": val}
    lists |= {"count": len(metadata), "num_exemplars": len(train)}
    scene = {"scale": 0.1, "center": [0, 0, 0], "near": 0.1, "far": 1}
    for name, content in (("dataset", lists), ("metadata", metadata), ("scene", scene)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return ids
