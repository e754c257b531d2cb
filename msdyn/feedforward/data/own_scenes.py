"""Clips of our own scenes: random ones, with exact depth and motion, and scene directories."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from msdyn.feedforward.batches import MotionKind
from msdyn.feedforward.data.clip import Clip, ClipFrame, ClipTracks
from msdyn.feedforward.scenes.random_scenes import RandomScenes, SceneOptions, random_scenes
from msdyn.feedforward.scenes.render import render_views
from msdyn.feedforward.scenes.textures import Textures
from msdyn.geometry import Cameras
from msdyn.geometry.cameras import invert_transforms
from msdyn.scene import Scene, View

__all__ = ["clips_of_scenes", "random_clips", "scene_clip"]

_LICENCE = "Apache-2.0"


def random_clips(
    count: int,
    frames: int,
    size: int,
    *,
    options: SceneOptions | None = None,
    seed: int = 0,
    dataset: str = "random",
) -> Iterator[Clip]:
    """Yield clips of random scenes, each with its own seed, which is its name.

    Args:
        count: clips.
        frames: of each of the two cameras.
        size: side of the images, px.
        options: of the scenes.
        seed: of the first clip; the others have the seeds after it.
        dataset: of the clips.
    """
    options = options or SceneOptions()
    about = {"options": json.dumps(asdict(options))}
    for number in range(seed, seed + count):
        generator = torch.Generator().manual_seed(number)
        scenes = random_scenes(options, 1, generator)
        for clip in clips_of_scenes(scenes, frames, size, first=number):
            yield replace(clip, dataset=dataset, about=clip.about | about)


def clips_of_scenes(
    scenes: RandomScenes, frames: int, size: int, *, first: int = 0
) -> Iterator[Clip]:
    """Yield a clip of each scene; the second camera is the target view.

    Args:
        scenes: B scenes; times from 0 to 1.
        frames: of each camera.
        size: side of the images, px.
        first: number in the name of the first clip.
    """
    moments = torch.linspace(0, 1, frames).expand(len(scenes.focal), -1)
    cameras = torch.cat([scenes.world_from_camera(moments, side=s) for s in (False, True)], dim=1)
    poses = torch.cat([scenes.world_from_object(moments)] * 2, dim=1)
    half = torch.full_like(scenes.focal, 0.5)
    intrinsics = torch.stack([scenes.focal, scenes.focal, half, half], dim=-1)
    for scene in range(len(scenes.focal)):
        yield Clip(
            name=f"{first + scene:06d}",
            dataset="random",
            times=np.tile(moments[scene].double().numpy(), 2),
            world_from_cam=cameras[scene].double().numpy(),
            intrinsics=np.tile(intrinsics[scene].double().numpy(), (2 * frames, 1)),
            motion="poses",
            frame=_RandomFrame(_one(scenes, scene), frames, size),
            poses=poses[scene].double().numpy(),
            target=np.arange(2 * frames) >= frames,
            about={"source": f"msdyn random scene, seed {first + scene}", "licence": _LICENCE},
        )


class _RandomFrame:
    """Renders the frames of a random scene, those of the second camera after the first's."""

    def __init__(self, scene: RandomScenes, frames: int, size: int) -> None:
        self.scene, self.frames, self.size = scene, frames, size

    def __call__(self, index: int) -> ClipFrame:
        side, moment = divmod(index, self.frames)
        time = torch.linspace(0, 1, self.frames)[None, moment : moment + 1]
        images, depth, objects = render_views(self.scene, time, self.size, side=side == 1)
        pixels = (images[0, 0].movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy()
        if side:
            return ClipFrame(pixels)
        static = self.scene.moving.shape[1]
        labels = objects[0, 0] + 1
        labels[objects[0, 0] == static] = 0
        return ClipFrame(pixels, depth[0, 0].numpy(), labels.to(torch.uint8).numpy())


def _one(scenes: RandomScenes, index: int) -> RandomScenes:
    """Return one of the scenes."""
    own = slice(index, index + 1)
    textures = Textures(**{name: value[own] for name, value in vars(scenes.textures).items()})
    values = {name: value[own] for name, value in vars(scenes).items() if name != "textures"}
    return RandomScenes(**values, textures=textures)


def scene_clip(directory: str | os.PathLike, name: str | None = None) -> Clip:
    """Return the clip of a scene directory of msdyn, held-out cameras as target view.

    The motion is that of the exact 3D tracks of a held-out camera if there are any, none if all
    masks are empty, and else not known.

    Args:
        directory: the scene.
        name: of the clip; that of the folder by default.

    Raises:
        FileNotFoundError: there is no scene directory, or a file of it is missing.
        InputError: a file is not as it should be, or the folder's name cannot be that of a clip.
    """
    scene = Scene(directory)
    views = list(scene.views.values())
    shots: list[tuple[View | None, int]] = [(None, frame) for frame in range(len(scene))]
    for view in views:
        if (view.cameras.height, view.cameras.width) == scene.size:
            shots += [(view, frame) for frame in view.frames]
    cameras = [_camera(scene.cameras if v is None else v.cameras, frame) for v, frame in shots]
    seconds = scene.info.timeline.seconds
    truth = next((v.tracks3d for v in views if v.tracks3d is not None), None)
    tracks, motion = None, _motion_of_masks(scene)
    if truth is not None and truth.xyz.shape[1] == len(scene):
        motion = "tracks"
        order = [frame for _, frame in shots]
        visible = np.moveaxis(truth.visible, 1, 0)[order]
        visible[len(scene) :] = False  # they are given for the input camera
        tracks = ClipTracks(np.moveaxis(truth.xyz, 1, 0)[order].astype(np.float32), visible)
    stage = scene.info.stages.get("frames", {})

    def load(index: int) -> ClipFrame:
        view, frame = shots[index]
        if view is not None:
            return ClipFrame(view.image(frame))
        return ClipFrame(scene.image(frame), scene.depth(frame))

    target = np.array([view is not None for view, _ in shots])
    return Clip(
        name=name or Path(directory).resolve().name,
        dataset="msdyn",
        times=np.array([seconds[frame] for _, frame in shots], np.float64),
        world_from_cam=np.stack([camera[0] for camera in cameras]),
        intrinsics=np.stack([camera[1] for camera in cameras]),
        motion=motion,
        frame=load,
        tracks=tracks,
        target=target if target.any() else None,
        about={"source": f"msdyn scene, frames of {stage.get('backend', 'unknown')}"},
    )


def _motion_of_masks(scene: Scene) -> MotionKind:
    try:
        still = all(not scene.mask(frame).any() for frame in range(len(scene)))
    except FileNotFoundError:
        return "unknown"
    return "static" if still else "unknown"


def _camera(cameras: Cameras, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Return world_from_cam and the normalised intrinsics of a camera."""
    matrix = cameras.intrinsics[frame]
    sides = np.array([cameras.width, cameras.height])
    normalised = np.concatenate([np.diag(matrix)[:2] / sides, matrix[:2, 2] / sides])
    return invert_transforms(cameras.cam_from_world[frame]), normalised
