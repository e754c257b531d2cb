"""Rendered scenes on disk: scene directories with exact or perturbed priors, the demo's clip."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from msdyn.io import write_video
from msdyn.scene import (
    Timeline,
    create_scene,
    frame_path,
    stamp_stage,
    write_cameras,
    write_depth,
    write_image,
    write_mask,
    write_tracks,
    write_view,
)
from msdyn.synthetic.priors import PHONE, PriorLevel, level_of_name, make_priors
from msdyn.synthetic.truth import Truth

__all__ = ["write_clip", "write_priors", "write_truth"]


def write_truth(truth: Truth, directory: str | os.PathLike) -> Path:
    """Write a scene directory with exact priors and the held-out views; return its path."""
    return write_priors(truth, directory, level="exact")


def write_priors(
    truth: Truth, directory: str | os.PathLike, *, level: str | PriorLevel = "sensor", seed: int = 0
) -> Path:
    """Write a scene directory with perturbed priors and exact held-out views; return its path.

    Args:
        truth: a rendered scene.
        directory: the new scene directory.
        level: "exact", "sensor", "casual" or custom sizes of errors.
        seed: of the errors.

    Raises:
        InputError: an unknown level.
    """
    sizes = level_of_name(level) if isinstance(level, str) else level
    priors = make_priors(truth, sizes, seed)
    spec = truth.spec
    directory = create_scene(
        directory,
        width=spec.width,
        height=spec.height,
        fps=spec.fps,
        timeline=Timeline.uniform(spec.frames, spec.fps),
        world_units="metric",
    )
    for frame in range(spec.frames):
        write_image(frame_path(directory / "images", frame, ".png"), truth.clip.images[frame])
        write_depth(directory, frame, priors.depths[frame])
        write_mask(directory, frame, priors.masks[frame])
    write_cameras(directory / "cameras.json", priors.cameras)
    write_tracks(directory / "tracks.npz", priors.tracks)
    for name, shot in truth.views.items():
        write_view(
            directory,
            name,
            cameras=shot.cameras,
            images=dict(enumerate(shot.images)),
            covisible=dict(enumerate(shot.covisible)),
            tracks3d=truth.tracks,
        )
    options = {
        "scene": spec.name,
        "scene_seed": spec.seed,
        "seed": seed,
        **dataclasses.asdict(sizes),
    }
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    for stage in ("frames", "tracks", "masks", "cameras", "depth"):
        stamp_stage(
            directory, stage, backend="synthetic", options=options, input_hash=digest, seconds=0.0
        )
    return directory


def write_clip(truth: Truth, directory: str | os.PathLike, *, seed: int = 0) -> Path:
    """Write a clip as a phone records it, with its ground truth; return the folder.

    clip.mp4                 H.264
    recording/depth/         depth with noise, drift and holes, as of a phone's sensor
    recording/cameras.json   poses with small errors, as of AR tracking
    truth/                   scene directory with exact priors and the held-out views
    """
    directory = Path(directory)
    recording = directory / "recording"
    priors = make_priors(truth, PHONE, seed)
    write_video(directory / "clip.mp4", truth.clip.images, truth.spec.fps)
    for frame, depth in enumerate(priors.depths):
        write_depth(recording, frame, depth)
    write_cameras(recording / "cameras.json", priors.cameras)
    write_truth(truth, directory / "truth")
    return directory
