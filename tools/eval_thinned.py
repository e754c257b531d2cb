"""Measure tracks of thinned synthetic clips, with and without the frames in between.

    python tools/eval_thinned.py --only rigid two-hands --every 3 6 --json thinned.json

Every n-th frame of a synthetic clip is kept. Of the points that are tracked in a kept frame and
truly visible in the next one, or four kept frames on, are printed the shares (static points, and
moving ones) whose track is there within 2 and 4 px; and of the positions there, the share that is
more than 2 px off or occluded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from machine import describe_machine

from msdyn.geometry import project, transform_points
from msdyn.preprocess import Footage
from msdyn.preprocess.frames.extract import FrameOptions, write_frames
from msdyn.preprocess.frames.footage import MAX_STEPS, steps_between
from msdyn.preprocess.tracks.chained_flow import FlowTracks
from msdyn.scene import Scene, Tracks
from msdyn.synthetic import SceneSpec, make_scene, render_truth, write_clip
from msdyn.synthetic.raycast import Caster, rays_through
from msdyn.writing import write_json

HORIZONS = (1, 4)
NAMES = ("rigid", "articulated", "deformable", "rigid-deformable", "two-hands")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", default=list(NAMES))
    parser.add_argument("--every", nargs="+", type=int, default=[3], help="keep every n-th frame")
    parser.add_argument("--frames", type=int, default=36)
    parser.add_argument("--size", nargs=2, type=int, default=(240, 180))
    parser.add_argument("--clips", type=Path, help="folder of NAME/clip/clip.mp4, rendered before")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"measured_on": describe_machine(None, ("msdyn", "preprocess"))}
    with tempfile.TemporaryDirectory() as work:
        for name in arguments.only:
            width, height = arguments.size
            spec = make_scene(name, frames=arguments.frames, width=width, height=height)
            folder = (arguments.clips or Path(work)) / name / "clip"
            if not (folder / "clip.mp4").is_file():
                write_clip(render_truth(spec, progress=True), folder)
            for every in arguments.every:
                directory = Path(work) / f"{name}-{every}"
                for label, found in thinned_figures(spec, folder, directory, every).items():
                    key = f"{name}, every {every}, {label}"
                    figures[key] = found
                    sys.stdout.write(f"{key}: {json.dumps(found)}\n")
    if arguments.json:
        write_json(arguments.json, figures)
    return 0


def thinned_figures(spec: SceneSpec, clip: Path, directory: Path, every: int) -> dict[str, Any]:
    """Return the figures of the kept frames alone, and with those in between."""
    video, kept = clip / "clip.mp4", np.arange(0, len(spec.cameras), every)
    all_seconds = Scene(clip / "truth").info.timeline.seconds
    options = FrameOptions(end=float(all_seconds[kept[-1]]), max_frames=len(kept))
    assert write_frames(video, directory, options)["source_frames"] == kept.tolist()
    scene, caster = Scene(directory), Caster(spec)
    frames = steps_between(kept, MAX_STEPS)
    dense = Footage(scene, frames, np.searchsorted(frames, kept), video)
    result = {}
    for label, footage in (("kept only", Footage.of_scene(scene)), ("in between too", dense)):
        start = time.perf_counter()
        tracks = FlowTracks().track(scene, footage).tracks
        result[label] = {
            "seconds": round(time.perf_counter() - start, 2),
            "tracks": len(tracks),
            "mean_life_frames": round(float(tracks.lifetimes.mean()), 2),
            **followed(spec, caster, tracks, kept),
        }
    return result


def followed(
    spec: SceneSpec, caster: Caster, tracks: Tracks, kept: Int[np.ndarray, " frames"]
) -> dict[str, Any]:
    """Return the shares of points that are followed, by what they are on and for how long."""
    rows: dict[str, list[np.ndarray]] = {}
    for frame, source in enumerate(kept.tolist()):
        index, xy = tracks.at(frame)
        camera = spec.cameras[source]
        rays = rays_through(camera, xy.astype(np.float64))
        points, _ = caster.mesh(source).cast(camera.centres[0], rays)
        moving = caster.face_object[points.face] > 0
        for horizon in HORIZONS:
            if frame + horizon >= len(kept):
                continue
            then = int(kept[frame + horizon])
            later = spec.cameras[then]
            local = transform_points(later.cam_from_world[0], caster.positions(then, points))
            found, tracked = tracks.look_up(index, frame + horizon)
            error = np.linalg.norm(found - project(later.intrinsics[0], local), axis=1)
            visible = caster.visible(then, later, points)
            columns = np.stack([visible, tracked, error], 1)
            for label, own in (("static", ~moving), ("moving", moving)):
                rows.setdefault(f"{label} {horizon}", []).append(columns[own])
    result = {}
    for key, parts in rows.items():
        visible, tracked, error = np.concatenate(parts).T
        visible, tracked = visible > 0, tracked > 0
        within = {px: float((tracked & (error < px))[visible].mean()) for px in (2, 4)}
        wrong = (error > 2) | ~visible
        result[key] = {
            "within_2_px": round(within[2], 3),
            "within_4_px": round(within[4], 3),
            "wrong": round(float(wrong[tracked].mean()), 3) if tracked.any() else None,
        }
    return result


if __name__ == "__main__":
    sys.exit(main())
