"""Synthetic recordings in the layouts of CMU Panoptic and D-NeRF, with the truth beside them.

    python tools/stand_ins.py panoptic OUT --frames 60 --width 320
    python tools/stand_ins.py dnerf OUT --frames 100 --width 200

`panoptic`: a person of ten jointed parts walks, turns and throws a ball in a room; static cameras
around, frames 1/30 s apart, noisy images and outlines, points of the first frame of ten cameras
with a depth sensor. `dnerf`: the same person does jumping jacks before a camera that jumps, RGBA;
with `--mover walk` it walks and throws, as in `panoptic`.
`truth.npz` has what no reader of these layouts reads: depth and masks of the input camera.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from msdyn.geometry import Cameras, look_at
from msdyn.synthetic import render_truth
from msdyn.synthetic.animate import hinge, keyframe_curve, make_poses
from msdyn.synthetic.moving_objects import assemble
from msdyn.synthetic.raycast import Caster, pixel_centres, rays_through
from msdyn.synthetic.shapes import ball, box, cylinder, room
from msdyn.synthetic.spec import DOWN, Part, SceneSpec
from msdyn.synthetic.textures import dead_leaves, fabric, plaster, wood

SKIN = plaster((0.72, 0.5, 0.4), (0.9, 0.7, 0.58), coarsest=20)
SHIRT = fabric((0.75, 0.15, 0.15), (0.9, 0.85, 0.8), (0.2, 0.2, 0.3), widest=30)
JEANS = dead_leaves((0.15, 0.2, 0.4), (0.25, 0.32, 0.5), (0.1, 0.12, 0.25), largest=14)
BALL = dead_leaves((0.95, 0.6, 0.1), (0.2, 0.1, 0.05), (0.95, 0.9, 0.8), largest=16)
TEXEL = 0.004
AROUND = {"1": (0, 1.5), "0": (-25, 1.3), "10": (30, 1.8), "15": (65, 2.3), "30": (-105, 1.6)}
"""Of Panoptic's stand-in: degrees about the centre and height, metres; 1 is the input."""
DEPTH_CAMERAS, DEPTH_NOISE, OUTLIERS = 10, 0.008, 0.01


def person(pose, joints, instance=1):
    """Return a person with a pose [T, 4, 4] of the hips and joint angles [T] in degrees by name."""

    def limb(link, frame, size, material, shape=box):
        x, y, z = size
        piece = shape(x, y, z).moved((0, 0, -z if z > 0 else 0))
        return assemble(instance, link, frame, {"a": (piece, material)}, texel=TEXEL)

    zero = np.zeros(len(pose))
    of = lambda name: joints.get(name, zero)  # noqa: E731
    chest = hinge(pose, (0, 0, 0.0), "x", of("lean"))
    trunk = box(0.36, 0.2, 0.5, bevel=0.05).moved((0, 0, 0))
    parts = assemble(instance, "trunk", chest, {"a": (trunk, SHIRT)}, texel=TEXEL)
    head = hinge(chest, (0, 0, 0.5), "z", of("head"))
    skull = {"a": (ball(0.19, 0.22, 0.26).moved((0, 0, 0.03)), SKIN),
             "neck": (cylinder(0.06, 0.08).moved((0, 0, -0.02)), SKIN)}  # fmt: skip
    parts += assemble(instance, "head", head, skull, texel=TEXEL)
    for side, sign in (("l", -1), ("r", 1)):
        out = hinge(chest, (0.23 * sign, 0, 0.46), "y", sign * of(f"out_{side}"))
        upper = hinge(out, (0, 0, 0), "x", of(f"arm_{side}"))
        lower = hinge(upper, (0, 0, -0.28), "x", of(f"elbow_{side}"))
        parts += limb(f"arm_{side}", upper, (0.1, 0.1, 0.29), SHIRT)
        parts += limb(f"hand_{side}", lower, (0.075, 0.075, 0.33), SKIN)
        out = hinge(pose, (0.1 * sign, 0, 0.02), "y", sign * of(f"split_{side}"))
        thigh = hinge(out, (0, 0, 0), "x", of(f"leg_{side}"))
        shin = hinge(thigh, (0, 0, -0.42), "x", of(f"knee_{side}"))
        parts += limb(f"leg_{side}", thigh, (0.15, 0.16, 0.43), JEANS)
        parts += limb(f"shin_{side}", shin, (0.11, 0.13, 0.44), JEANS)
    return parts


def walk(frames):
    """Return the parts of a person who walks, turns and throws, and of the ball."""
    time = np.linspace(0, 1, frames)
    step = np.sin(2 * np.pi * time * frames / 36)
    path = keyframe_curve(frames, (0, 0.35, 0.35, 0.88), (0.5, 0.0, -0.1, 0.88),
                          (1, -0.35, -0.6, 0.88))  # fmt: skip
    turn = keyframe_curve(frames, (0, -20), (0.5, 10), (1, 40))
    throw = keyframe_curve(frames, (0, 20), (0.3, 70), (0.5, 140), (0.65, 60), (1, 20))
    joints = {
        "lean": 6 * step, "head": 20 * step, "leg_l": 28 * step, "leg_r": -28 * step,
        "knee_l": -12 + 12 * step, "knee_r": -12 - 12 * step, "arm_l": -25 * step,
        "elbow_l": 20 + 10 * step, "arm_r": throw, "elbow_r": 30 + 0 * step,
        "out_l": 8 + 0 * step, "out_r": 8 + 0 * step,
    }  # fmt: skip
    flight = keyframe_curve(frames, (0, 0.75, -0.1, 1.05), (0.3, 0.6, -0.3, 1.25),
                            (0.5, 0.3, -0.55, 2.0), (0.75, -0.2, -0.9, 1.5),
                            (1, -0.6, -1.1, 0.35))  # fmt: skip
    spin = make_poses(flight, ("x", 200 * time), ("z", 90 * time))
    sphere = {"a": (ball(0.22, 0.22, 0.22).moved((0, 0, -0.11)), BALL)}
    return [
        *person(make_poses(path, ("z", turn)), joints),
        *assemble(2, "ball", spin, sphere, texel=TEXEL),
    ]


def jumping_jacks(frames):
    """Return the parts of a person doing jumping jacks about the origin."""
    time = np.linspace(0, 1, frames)
    swing = 0.5 - 0.5 * np.cos(2 * np.pi * 1.5 * time)
    hop = 0.12 * np.abs(np.sin(2 * np.pi * 1.5 * time))
    rise = np.stack([0 * time, 0 * time, hop], 1)
    joints = {f"out_{s}": 10 + 140 * swing for s in "lr"}
    joints |= {f"split_{s}": 3 + 24 * swing for s in "lr"}
    # A raised angle about y lifts the arm on the right, lowers it on the left: `out` has the sign.
    joints = {name: -values for name, values in joints.items()}
    joints |= {"elbow_l": 15 + 10 * swing, "elbow_r": 15 + 10 * swing, "head": 25 * swing}
    return person(make_poses(rise + (0, 0, -0.1), ("z", 20 * swing)), joints)


def surroundings():
    """Return a room with things on its floor."""
    wall = dead_leaves((0.5, 0.5, 0.48), (0.62, 0.6, 0.55), (0.4, 0.44, 0.5), largest=60)
    planks = wood((0.4, 0.28, 0.18), (0.55, 0.38, 0.24), (0.65, 0.5, 0.36), plank=40)
    crate = wood((0.5, 0.35, 0.2), (0.8, 0.7, 0.5), plank=20)
    walls = room(7.0, 7.0, 3.4, 0.25)
    return [
        Part("room", walls, wall, sides={"+z": planks}, texel=0.008),
        Part("crate", box(0.5, 0.4, 0.45).moved((-0.9, 0.9, 0), 20), crate, texel=TEXEL),
        Part("pillar", cylinder(0.15, 1.4).moved((1.2, 0.8, 0)), wall, texel=TEXEL),
        Part("table", box(0.7, 0.5, 0.6).moved((0.2, 1.7, 0), -10), crate, texel=TEXEL),
    ]


def rig_camera(degrees, height, width, distance=2.9):
    """Return one camera of the rig, 16 to 9, that looks at the middle of the room."""
    angle = np.radians(degrees - 90)
    eye = np.array([distance * np.cos(angle), distance * np.sin(angle), height])
    pose = look_at(eye, np.array([0, -0.1, 0.95]), DOWN)
    return Cameras.pinhole(0.82 * width, width, width * 9 // 16, pose[None])


def sensor_points(spec, rng, step=2):
    """Return [N, 7] xyz, colour and foreground, of depth cameras around in the first frame."""
    caster, rows = Caster(spec), []
    for degrees in np.linspace(0, 360, DEPTH_CAMERAS, endpoint=False) + 11:
        camera = rig_camera(degrees, 1.4 + 0.5 * np.cos(5 * degrees), 320 // step * 2, 2.6)
        xy = pixel_centres(camera)[::step]
        points, depth = caster.mesh(0).cast(camera.centres[0], rays_through(camera, xy))
        depth = depth * (1 + DEPTH_NOISE * rng.standard_normal(len(depth)))
        xyz = camera.centres[0] + rays_through(camera, xy) * depth[:, None]
        objects = np.concatenate([np.full(len(p.shape.faces), p.object) for p in spec.parts])
        moving = (objects[points.face] > 0)[:, None]
        keep = rng.random(len(xyz)) < np.where(moving[:, 0], 1.0, 0.3)
        xyz[rng.random(len(xyz)) < OUTLIERS] += 0.2 * rng.standard_normal(3)
        rows.append(np.concatenate([xyz, np.full((len(xyz), 3), 0.5), moving], 1)[keep])
    return np.concatenate(rows)


def noisy_outline(mask, rng):
    """Return a foreground mask whose outline wobbles by a pixel or two, with specks."""
    import cv2

    field = cv2.GaussianBlur(rng.standard_normal(mask.shape).astype(np.float32), (0, 0), 4)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.2)
    specks = cv2.GaussianBlur(rng.standard_normal(mask.shape).astype(np.float32), (0, 0), 1.5) > 0.8
    return ((soft > 0.5 + 0.15 * field / field.std()) | specks & (soft > 0.02)).astype(np.uint8)


def write_panoptic_stand_in(folder: Path, frames: int, width: int, seed: int = 0) -> None:
    """Write a stand-in for a sequence of CMU Panoptic as Dynamic 3D Gaussians packages it."""
    import imageio.v3 as iio

    rng = np.random.default_rng(seed)
    cameras = {name: rig_camera(*where, width) for name, where in AROUND.items()}
    held = {name: camera for name, camera in cameras.items() if name != "1"}
    parts = (*surroundings(), *walk(frames))
    spec = SceneSpec("stage", parts, cameras["1"][np.zeros(frames, int)], held, 30.0, seed)
    truth = render_truth(spec, samples=2, progress=True)
    shots = {"1": truth.clip, **truth.views}
    for name, shot in shots.items():
        for t, (image, mask) in enumerate(zip(shot.images, shot.masks, strict=True)):
            noisy = image + rng.normal(0, 2.5, image.shape)
            for kind, values in (
                (f"ims/{name}/{t:06d}.jpg", noisy.clip(0, 255).astype(np.uint8)),
                (f"seg/{name}/{t:06d}.png", noisy_outline(mask > 0, rng)),
            ):
                (folder / kind).parent.mkdir(parents=True, exist_ok=True)
                iio.imwrite(folder / kind, values)
    for part, names in (("train", ["1"]), ("test", list(held))):
        k = [cameras[n].intrinsics[0].tolist() for n in names]
        pose = [cameras[n].cam_from_world[0].tolist() for n in names]
        meta = {
            "w": width, "h": width * 9 // 16, "k": [k] * frames, "w2c": [pose] * frames,
            "fn": [[f"{n}/{t:06d}.jpg" for n in names] for t in range(frames)],
            "cam_id": [[int(n) for n in names]] * frames,
        }  # fmt: skip
        (folder / f"{part}_meta.json").write_text(json.dumps(meta))
    np.savez(folder / "init_pt_cld.npz", data=sensor_points(spec, rng))
    np.savez_compressed(folder / "truth.npz", depth=truth.clip.depths, mask=truth.clip.masks)


def walk_about_the_origin(frames):
    """Return the parts of `walk`, moved so that they are about the origin."""
    import dataclasses

    down = np.eye(4)
    down[2, 3] = -0.95
    return [dataclasses.replace(p, world_from_link=down @ p.world_from_link) for p in walk(frames)]


MOVERS = {"jacks": jumping_jacks, "walk": walk_about_the_origin}
"""Of D-NeRF's stand-in."""


def write_dnerf_stand_in(
    folder: Path, frames: int, width: int, seed: int = 0, mover: str = "jacks"
) -> None:
    """Write a stand-in for a clip of D-NeRF: a camera per time, RGBA, held-out cameras."""
    import imageio.v3 as iio

    rng = np.random.default_rng(seed)
    angle, depths = 0.6911, {}
    shell = [Part("room", room(16, 16, 16, 1.0).moved((0, 0, -8)), plaster((1, 1, 1), (1, 1, 1)),
                  texel=0.2)]  # fmt: skip
    for split, count in {"train": frames, "val": 2, "test": 20}.items():
        azimuth, height = rng.uniform(0, 2 * np.pi, count), np.radians(rng.uniform(5, 70, count))
        eyes = 4 * np.stack([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height),
                             np.sin(height)], 1)  # fmt: skip
        poses = np.stack([look_at(eye, np.zeros(3), DOWN) for eye in eyes])
        fine = Cameras.pinhole(width / np.tan(angle / 2), 2 * width, 2 * width, poses)
        moments = np.linspace(0, 1, count)
        chosen = np.rint(moments * (10 * frames - 1)).astype(int)
        parts = [_at_moments(part, chosen) for part in MOVERS[mover](10 * frames)]
        truth = render_truth(SceneSpec("jacks", (*shell, *parts), fine, {}, 30.0, seed), samples=1)
        rows = []
        for n, (image, mask) in enumerate(zip(truth.clip.images, truth.clip.masks, strict=True)):
            alpha = (mask > 0).astype(np.float64)[..., None]

            def shrunk(values):
                return values.reshape(width, 2, width, 2, -1).mean((1, 3))

            cover = shrunk(alpha)
            colour = shrunk(image * alpha) / np.maximum(cover, 1e-9)
            rgba = np.concatenate([colour, 255 * cover], -1).round().astype(np.uint8)
            path = folder / split / f"r_{n:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            iio.imwrite(path, rgba)
            matrix = np.linalg.inv(poses[n]) @ np.diag([1, -1, -1, 1.0])
            name = f"./{split}/r_{n:03d}"
            rows.append({"file_path": name, "rotation": 0.0126, "time": float(moments[n]),
                         "transform_matrix": matrix.tolist()})  # fmt: skip
        content = {"camera_angle_x": angle, "frames": rows}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content, indent=1))
        depths[split] = np.where(truth.clip.masks > 0, truth.clip.depths, 0)[:, ::2, ::2]
    np.savez_compressed(folder / "truth.npz", depth=depths["train"], test_depth=depths["test"])


def _at_moments(part, chosen):
    """Return a part with the poses of some frames."""
    import dataclasses

    return dataclasses.replace(part, world_from_link=part.world_from_link[chosen])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", choices=("panoptic", "dnerf"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mover", choices=tuple(MOVERS), default="jacks", help="of dnerf")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    arguments = (options.out, options.frames, options.width, options.seed)
    if options.kind == "panoptic":
        write_panoptic_stand_in(*arguments)
    else:
        write_dnerf_stand_in(*arguments, options.mover)


if __name__ == "__main__":
    main()
