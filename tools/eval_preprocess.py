"""Measure accuracy and speed of weight-free preprocessing on clips with ground truth.

    python tools/eval_preprocess.py --json figures.json
    python tools/eval_preprocess.py --only camel --until masks --sheets sheets --saliency on

Real clips are read from --clips (camel.mp4, camel_masks/, camel_joints.json, duck.mp4, hand.mp4,
hand_poses_llff.json); other names are synthetic scenes, which are rendered first. A clip whose
cameras are too poor for depth stops there; the verdict is among its figures. Their meaning is in
`preprocess_figures.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
from machine import describe_machine
from preprocess_figures import (
    camel_figures,
    camera_figures,
    depth_figures,
    llff_cameras,
    photometric_figures,
    stage_figures,
    truth_figures,
)

from msdyn.errors import PoorInputError
from msdyn.preprocess import STAGES, WITHOUT_WEIGHTS, PreprocessConfig, preprocess_video
from msdyn.preprocess.contracts import SaliencyChoice
from msdyn.reading import read_json
from msdyn.scene import Scene
from msdyn.synthetic import SCENES, SceneSpec
from msdyn.writing import write_json

CLIPS = Path(__file__).parents[2] / "shared" / "clips"
COLOURS = np.array(
    [[0, 0, 0], [230, 40, 40], [40, 200, 60], [60, 90, 250], [240, 200, 30], [200, 60, 220]]
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--clips", type=Path, default=CLIPS, help="folder of the real clips")
    parser.add_argument("--only", nargs="+", default=["camel", "duck", "hand", "demo"])
    parser.add_argument("--frames", type=int, help="frames of synthetic scenes")
    parser.add_argument("--until", choices=STAGES[2:], default="depth", help="last stage to run")
    parser.add_argument("--saliency", choices=get_args(SaliencyChoice), default="off")
    parser.add_argument("--work", type=Path, help="keep the scene directories in this folder")
    parser.add_argument("--sheets", type=Path, help="write contact sheets to this folder")
    parser.add_argument("--json", type=Path, help="add the figures to this file")
    parser.add_argument("--commit", help="commit to report where git is not available")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for name in arguments.only:
            video = arguments.clips / f"{name}.mp4"
            truth = None
            if name in SCENES:
                truth = render_scene(name, arguments.frames, work / f"{name}-clip")
                video = work / f"{name}-clip" / "clip.mp4"
            chosen = STAGES[: STAGES.index(arguments.until) + 1]
            try:
                options = PreprocessConfig(
                    video,
                    work / name,
                    only=chosen,
                    saliency=arguments.saliency,
                    **WITHOUT_WEIGHTS,
                )
                scene = preprocess_video(options)
            except PoorInputError:
                scene = Scene(work / name)
            figures[name] = stage_figures(scene)
            if name == "camel":
                figures[name] |= camel_figures(scene, arguments.clips)
            if name == "hand" and "cameras" in chosen:
                reference = llff_cameras(arguments.clips / "hand_poses_llff.json")
                figures[name]["cameras"] = camera_figures(scene.cameras, reference)
            if truth is not None:
                figures[name] |= truth_figures(scene, truth)
                exact = Scene(work / f"{name}-clip" / "truth")
                if "cameras" in chosen:
                    figures[name]["cameras"] = camera_figures(scene.cameras, exact.cameras)
                if "depth" in scene.info.stages:
                    figures[name]["depth"] = depth_figures(scene, exact)
            if "depth" in scene.info.stages:
                figures[name]["photometric"] = photometric_figures(scene)
            if arguments.sheets:
                write_sheets(scene, arguments.sheets, name)
            machine = describe_machine(arguments.commit, ("msdyn", "preprocess", "tools"))
            figures[name]["measured_on"] = machine
            sys.stdout.write(json.dumps({name: figures[name]}, indent=1) + "\n")
            if arguments.json:
                known = read_json(arguments.json) if arguments.json.is_file() else {}
                write_json(arguments.json, known | figures)
    return 0


def render_scene(name: str, frames: int | None, folder: Path) -> SceneSpec:
    """Write the clip of a synthetic scene and return its specification."""
    from msdyn.synthetic import make_scene, render_truth, write_clip

    spec = make_scene(name, frames=frames)
    if not (folder / "clip.mp4").is_file():
        write_clip(render_truth(spec, progress=True), folder)
    return spec


def write_sheets(scene: Scene, folder: Path, name: str) -> None:
    """Write contact sheets: masks over images, and tracks over the last five frames."""
    import cv2
    import imageio.v3 as iio

    folder.mkdir(parents=True, exist_ok=True)
    width = 420
    height = round(width * scene.info.height / scene.info.width)
    tiles: dict[str, list[np.ndarray]] = {"masks": [], "tracks": []}
    tracks = scene.tracks
    for frame in np.linspace(5, len(scene) - 1, 12).astype(int):
        image, mask = scene.image(frame), scene.mask(frame)
        tint = image // 2 + (COLOURS[mask % len(COLOURS)] // 2).astype(np.uint8)
        tiles["masks"].append(np.where(mask[..., None] > 0, tint, image))
        canvas = image // 2
        for row, *path in list(zip(*tracks.between(frame - 5, frame), strict=True))[::4]:
            a, b = (tuple(map(int, xy)) for xy in path)
            colour = COLOURS[max(tracks.object[row], 0) % 6] if tracks.object[row] else [255] * 3
            cv2.line(canvas, a, b, [int(c) for c in colour], 1, cv2.LINE_AA)
        tiles["tracks"].append(canvas)
    for kind, images in tiles.items():
        small = [cv2.resize(i, (width, height), interpolation=cv2.INTER_AREA) for i in images]
        sheet = np.concatenate([np.concatenate(small[i : i + 4], 1) for i in (0, 4, 8)])
        iio.imwrite(folder / f"{name}-{kind}.png", sheet)


if __name__ == "__main__":
    sys.exit(main())
