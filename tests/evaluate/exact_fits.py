"""Gaussian sequences without a fit: points with given motion, and a scene with its exact motion."""

from __future__ import annotations

import numpy as np
import torch

from msdyn.geometry import (
    Cameras,
    invert_transforms,
    project,
    sixd_from_rotations,
    transform_points,
    world_points_from_depth,
)
from msdyn.motion import MotionField
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.weights import BlendWeights
from msdyn.render import render_image
from msdyn.scene import (
    Scene,
    Timeline,
    Tracks3D,
    create_scene,
    frame_path,
    write_cameras,
    write_image,
    write_view,
)
from msdyn.sequence import Gaussians, GaussianSequence, save_sequence
from msdyn.synthetic import Truth, link_motions
from msdyn.writing import write_json

CANONICAL = 3
LINKS = {1: "red", 2: "green"}
"""The link of each object of the scene `two-boxes`."""


def moving_points(
    points, translations, *, size=(64, 48), focal=60.0, scale=0.02
) -> GaussianSequence:
    """Return opaque Gaussians [N] at points [N, 3] with translations [N, T, 3].

    Every point is an object of its own; the camera is at the origin and looks along +z.
    """
    points, translations = np.asarray(points, float), np.asarray(translations, float)
    count, frames = translations.shape[:2]
    identity = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(count, frames, 6).clone()
    colours = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    return GaussianSequence(
        Gaussians.empty(),
        Gaussians.from_points(
            torch.from_numpy(points).float(), colours, torch.full((count,), scale), opacity=0.998
        ),
        MotionField(
            PatternField(
                [torch.from_numpy(points).float()], [identity],
                [torch.from_numpy(translations).float()],
                [torch.zeros(count).long()], torch.arange(float(frames)),
                torch.arange(1, count + 1),
            ),
            [BlendWeights(torch.arange(count)[:, None], torch.zeros(count, 1))],
        ),
        torch.arange(1, count + 1),
        timeline=Timeline.uniform(frames, 10.0),
        cameras=Cameras.pinhole(focal, *size, np.tile(np.eye(4), (frames, 1, 1))),
        canonical_frame=0,
        world_units="metric",
    )  # fmt: skip


def exact_sequence(truth: Truth, keys: list[int] | None = None) -> GaussianSequence:
    """Return a sequence of `two-boxes` without any fit: a Gaussian per pixel, with its true motion.

    Args:
        truth: the rendered scene.
        keys: key frames of the motion, and frames of the pixels; all by default.
    """
    clip = truth.clip
    keys = list(range(len(clip.images))) if keys is None else keys
    motions = link_motions(truth.spec, reference=CANONICAL)
    # By object (0 is the background): points, colours and sizes.
    by_object: dict[int, list] = {0: [], 1: [], 2: []}
    for frame in keys:
        camera = clip.cameras[frame]
        points = world_points_from_depth(clip.depths[frame], camera)
        # A standard deviation of 0.4 px.
        size = clip.depths[frame] / camera.intrinsics[0, 0, 0] * 0.4
        for instance, parts in by_object.items():
            own = clip.masks[frame] == instance
            canonical = points[own]
            if instance:
                canonical_from_frame = invert_transforms(motions[LINKS[instance]][frame])
                canonical = transform_points(canonical_from_frame, canonical)
            parts.append((canonical, clip.images[frame][own] / 255, size[own]))

    def gaussians(*instances: int) -> Gaussians:
        chosen = [part for instance in instances for part in by_object[instance]]
        arrays = (np.concatenate(column) for column in zip(*chosen, strict=True))
        points, colours, sizes = (torch.from_numpy(array).float() for array in arrays)
        return Gaussians.from_points(points, colours, sizes, opacity=0.95)

    sixd, translations, centres, owner = [], [], [], []
    for row, (instance, link) in enumerate(LINKS.items()):
        points = np.concatenate([part[0] for part in by_object[instance]])
        centre, motion = points.mean(0), motions[link][keys]
        sixd.append(sixd_from_rotations(torch.from_numpy(motion[:, :3, :3])))
        translations.append(motion[:, :3, :3] @ centre + motion[:, :3, 3] - centre)
        centres.append(centre)
        owner += [row] * len(points)
    field = PatternField(
        [torch.from_numpy(np.stack(centres)).float()],
        [torch.stack(sixd).float()],
        [torch.from_numpy(np.stack(translations)).float()],
        [torch.zeros(2).long()],
        torch.tensor(keys),
        torch.tensor(list(LINKS)),
    )
    index = torch.tensor(owner)[:, None]
    return GaussianSequence(
        gaussians(0),
        gaussians(*LINKS),
        MotionField(field, [BlendWeights(index, torch.zeros_like(index, dtype=torch.float32))]),
        field.objects[index[:, 0]],
        timeline=Timeline.uniform(truth.spec.frames, truth.spec.fps),
        cameras=clip.cameras,
        canonical_frame=CANONICAL,
        world_units="metric",
    )


def save_fit(sequence: GaussianSequence, folder, *, holdout_every: int = 0, seed: int = 5) -> None:
    """Write the files of a fit that `msdyn-eval` reads."""
    save_sequence(sequence, folder / "sequence.safetensors")
    write_json(folder / "config.json", {"options": {"holdout_every": holdout_every, "seed": seed}})


def three_points(frames: int = 11) -> GaussianSequence:
    """Return three Gaussians that do not overlap in the image, each with its own path."""
    points = np.array([[-0.6, 0.1, 2.0], [0.4, -0.3, 2.0], [0.5, 0.5, 3.0]])
    steps = np.linspace(0, 1, frames)
    translations = np.zeros((3, frames, 3))
    translations[0, :, 0] = 0.3 * steps
    translations[1, :, 2] = 0.5 * steps**2
    return moving_points(points, translations, scale=0.05)


def write_scene_of(sequence: GaussianSequence, directory, *, side: float = 0.2) -> Scene:
    """Write a scene directory from renders of a sequence, with one held-out camera.

    The images are the sequence's renders, the 3D tracks are its Gaussians' paths, queried at their
    projections into frames 0, 1, 2, ... in turn: an evaluation must find no error.
    """
    cameras, timeline = sequence.cameras, sequence.timeline
    create_scene(
        directory, width=cameras.width, height=cameras.height, fps=10.0, timeline=timeline,
        world_units="metric",
    )  # fmt: skip
    write_cameras(directory / "cameras.json", cameras)
    beside = np.eye(4)
    beside[0, 3] = -side
    view = Cameras(
        cameras.intrinsics, beside @ cameras.cam_from_world, cameras.width, cameras.height
    )
    view_images = {}
    for frame, time in enumerate(timeline.times):
        image = render_image(sequence, cameras[frame], time)
        write_image(frame_path(directory / "images", frame, ".png"), image.rgb8)
        view_images[frame] = render_image(sequence, view[frame], time).rgb8
    times = torch.arange(float(len(timeline)))
    paths = sequence.posed(times).means.detach().double().numpy().swapaxes(0, 1)  # [N, T, 3]
    query = np.arange(len(paths)) % len(timeline)
    at_query = paths[np.arange(len(paths)), query]
    in_camera = transform_points(cameras.cam_from_world[query], at_query[:, None])
    tracks = Tracks3D(
        paths,
        np.ones(paths.shape[:2], bool),
        query,
        project(cameras.intrinsics[query], in_camera)[:, 0],
        np.arange(1, len(paths) + 1),
    )
    write_view(directory, "beside", cameras=view, images=view_images, tracks3d=tracks)
    return Scene(directory)
