"""A feed-forward network on the paper's benchmarks, by the protocols of
docs/feedforward_evaluation.md.

Every clip is written as a scene directory of frames and cameras, which is all that the network is
given. Figures are means over clips (over images on RealEstate10K).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from msdyn.errors import InputError
from msdyn.evaluate import (
    Lpips,
    Target,
    cameras_of_clip,
    evaluate_tapvid3d,
    evaluate_targets,
    renderer_of,
    targets_of_views,
    tracker_of,
)
from msdyn.evaluate.targets import Renderer
from msdyn.feedforward.predictor import Predictor
from msdyn.io import (
    Dycheck,
    NvidiaScene,
    RealEstate10K,
    RealEstateClip,
    RealEstatePair,
    centre_crop,
    cropped_cameras,
    find_nvidia_scenes,
    read_evaluation_index,
    read_tapvid3d_clip,
    write_dycheck_views,
)
from msdyn.scene import Scene, Timeline, write_posed_clip

__all__ = ["Options", "evaluate_benchmark", "find_dycheck"]

CROP = 256
"""Side of the images on RealEstate10K, px (pixelSplat, DepthSplat)."""
_FPS = 30.0  # of clips whose files do not say


@dataclass(frozen=True)
class Options:
    """What is evaluated, and on how much of the data.

    Attributes:
        lpips: the network of LPIPS on AlexNet, if there is one.
        lpips_vgg: the same on VGG-16, for RealEstate10K.
        through: `network` asks it for every image and every track; `sequence` makes a sequence
            first, as msdyn-predict does, and evaluates that.
        index: evaluation index of RealEstate10K.
        clips: at most so many clips of a benchmark.
        max_frames: take only so many frames from the start of a clip of TAPVid-3D.
        every: evaluate each so-many-th time of NVIDIA's scenes.
        factor: size of DyCheck's images, 1 full or 2 half.
    """

    lpips: Lpips | None = None
    lpips_vgg: Lpips | None = None
    through: str = "network"
    index: Path | None = None
    clips: int | None = None
    max_frames: int | None = None
    every: int = 1
    factor: int = 1


def evaluate_benchmark(
    predictor: Predictor, benchmark: str, folder: Path, options: Options
) -> dict[str, Any]:
    """Return the figures of a network on a benchmark.

    Args:
        predictor: the network.
        benchmark: `realestate10k`, `dycheck`, `nvidia`, `adt`, `drivetrack` or `pstudio`.
        folder: of its files.
        options: see there.

    Returns:
        The means, the number of `clips`, the mean `seconds` per clip (prediction and
        drawing), and the figures of each clip under `of_clips`.

    Raises:
        FileNotFoundError: there are no such files.
        InputError: files of another layout.
    """
    rows: dict[str, dict[str, Any]] = {}
    clips = _CLIPS.get(benchmark, _tapvid3d)(benchmark, folder, options)
    for name, evaluate in tqdm(clips, desc=benchmark, unit="clip"):
        rows[name] = evaluate(predictor)
        if len(rows) == options.clips:
            break
    if not rows:
        raise InputError(f"{folder}: no clip of {benchmark} to evaluate on")
    weights = None
    if benchmark == "realestate10k":
        weights = [row["images"] for row in rows.values()]
    return {**_means(rows.values(), weights), "clips": len(rows), "of_clips": rows}


_Evaluation = tuple[str, Callable[[Predictor], dict[str, Any]]]


def find_dycheck(folder: Path) -> list[Path]:
    """Return the sequences of DyCheck in a folder; the folder itself if it is one.

    Raises:
        FileNotFoundError: there is none.
    """
    if (folder / "camera").is_dir():
        return [folder]
    found = sorted(p.parent for p in folder.glob("*/camera") if p.is_dir())
    if not found:
        raise FileNotFoundError(f"{folder}: no sequence of DyCheck (a folder with camera/)")
    return found


def _realestate10k(benchmark: str, folder: Path, options: Options) -> Iterator[_Evaluation]:
    path = options.index or folder / "evaluation_index.json"
    data, pairs = RealEstate10K(folder), read_evaluation_index(path)
    keys = tuple(key for key in data.keys if key in pairs)
    for clip in data.clips(keys[: options.clips]):
        pair = pairs[clip.key]
        yield clip.key, lambda p, clip=clip, pair=pair: _views_of_clip(p, clip, pair, options)


def _views_of_clip(
    predictor: Predictor, clip: RealEstateClip, pair: RealEstatePair, options: Options
) -> dict[str, Any]:
    """Evaluate the target frames of a clip of RealEstate10K, given the context frames."""
    context = sorted(set(pair.context))
    if len(context) < 2 or not 0 <= min(context + list(pair.target)):
        raise InputError(f"{clip.key}: expected two context frames at least, got {pair}")
    if max(context + list(pair.target)) >= len(clip):
        raise InputError(f"{clip.key}: expected frames below {len(clip)}, got {pair}")
    cameras = cropped_cameras(clip.cameras, CROP)
    with tempfile.TemporaryDirectory() as folder:
        images = (centre_crop(clip.image(frame), CROP) for frame in context)
        seconds = np.array(context, float) / _FPS
        write_posed_clip(folder, images, cameras[context], Timeline(seconds))
        # A static scene: beyond the context, the time of its nearer end.
        share = (np.array(pair.target) - context[0]) / (context[-1] - context[0])
        targets = [
            Target(cameras[frame], float(t), centre_crop(clip.image(frame), CROP))
            for frame, t in zip(pair.target, share.clip(0, 1), strict=True)
        ]
        return _views(predictor, Scene(folder), targets, options, options.lpips_vgg)


def _dycheck(benchmark: str, folder: Path, options: Options) -> Iterator[_Evaluation]:
    def evaluate(predictor: Predictor, path: Path) -> dict[str, Any]:
        sequence = Dycheck(path, options.factor)
        with tempfile.TemporaryDirectory() as directory:
            images = (sequence.image(name)[0] for name in sequence.names)
            timeline = Timeline.uniform(len(sequence), sequence.fps)
            write_posed_clip(directory, images, sequence.cameras, timeline, world_units="metric")
            write_dycheck_views(sequence, directory)
            scene = Scene(directory)
            return _views(predictor, scene, targets_of_views(scene), options, options.lpips)

    for path in find_dycheck(folder):
        yield path.name, lambda p, path=path: evaluate(p, path)


def _nvidia(benchmark: str, folder: Path, options: Options) -> Iterator[_Evaluation]:
    def evaluate(predictor: Predictor, path: Path) -> dict[str, Any]:
        data = NvidiaScene(path)
        with tempfile.TemporaryDirectory() as directory:
            images = (data.image(frame) for frame in range(data.frames))
            timeline = Timeline.uniform(data.frames, _FPS)
            scene = Scene(write_posed_clip(directory, images, data.clip, timeline))
            targets = (
                Target(
                    data.rig[camera],
                    timeline.time_of_frame(frame),
                    data.image(frame, camera),
                    moving=data.moving(frame, camera),
                )
                for frame in range(0, data.frames, options.every)
                for camera in data.held_out(frame)
            )
            return _views(predictor, scene, targets, options, options.lpips)

    for path in find_nvidia_scenes(folder):
        yield path.name, lambda p, path=path: evaluate(p, path)


def _tapvid3d(benchmark: str, folder: Path, options: Options) -> Iterator[_Evaluation]:
    def evaluate(predictor: Predictor, path: Path) -> dict[str, Any]:
        clip = read_tapvid3d_clip(path)
        if options.max_frames is not None:
            clip = clip.first(options.max_frames)
        cameras = cameras_of_clip(clip, benchmark)
        with tempfile.TemporaryDirectory() as directory:
            images = (clip.image(frame) for frame in range(len(clip)))
            timeline = Timeline.uniform(len(clip), _FPS)
            scene = Scene(write_posed_clip(directory, images, cameras, timeline))
            start = time.perf_counter()
            if options.through == "network":
                tracker = predictor.tracker(scene)
            else:
                tracker = tracker_of(predictor.sequence(scene))
            figures = evaluate_tapvid3d(clip, cameras, tracker)
            return {**figures, "seconds": time.perf_counter() - start}

    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    for path in sorted(folder.glob("*.npz")):
        yield path.stem, lambda p, path=path: evaluate(p, path)


def _views(
    predictor: Predictor,
    scene: Scene,
    targets: Iterable[Target],
    options: Options,
    lpips: Lpips | None,
) -> dict[str, Any]:
    """Return the figures of novel views of a scene, and the seconds of predicting and drawing."""
    spent = -time.perf_counter()
    renderer: Renderer
    if options.through == "network":
        renderer = predictor.renderer(scene)
    else:
        renderer = renderer_of(predictor.sequence(scene))
    spent += time.perf_counter()

    def timed(*query: Any) -> Any:
        nonlocal spent
        start = time.perf_counter()
        image = renderer(*query)
        spent += time.perf_counter() - start
        return image

    return {**evaluate_targets(timed, targets, lpips=lpips), "seconds": spent}


_CLIPS = {"realestate10k": _realestate10k, "dycheck": _dycheck, "nvidia": _nvidia}


def _means(rows: Iterable[dict[str, Any]], weights: list[int] | None) -> dict[str, Any]:
    """Return the mean of each figure over the clips that have it, in dicts of dicts too."""
    rows = list(rows)
    means: dict[str, Any] = {}
    for key, value in rows[0].items():
        values = [row[key] for row in rows]
        if isinstance(value, dict):
            means[key] = _means(values, weights)
        elif key in ("images", "frames", "tracks", "positions"):
            means[key] = int(sum(values))
        else:
            shares = weights or [1] * len(values)
            kept = [
                (v, w)
                for v, w in zip(values, shares, strict=True)
                if v is not None and np.isfinite(v)
            ]
            total = sum(w for _, w in kept)
            means[key] = float(sum(v * w for v, w in kept) / total) if total else None
    return means
