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
