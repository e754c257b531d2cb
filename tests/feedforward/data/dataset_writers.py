"""Tiny data sets in the layouts of the public ones, written by their documentation."""

import numpy as np
from PIL import Image


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
