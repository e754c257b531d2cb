"""Check a LeRobotDataset v3.0 with the lerobot package: what it reads is what msdyn reads.

    python tools/check_lerobot.py DIR [--episodes 3]

Needs lerobot (https://pypi.org/project/lerobot), best in an environment of its own, as it pins
versions of packages that msdyn uses newer ones of; msdyn needs pyarrow there. Every frame of the
episodes is read by both: numbers, texts, tasks and timestamps must be equal, images equal up to the
rounding of two decoders, and depth, where lerobot decodes it (from 0.6 on), equal up to 1 mm.
Exits with 1 where something differs, with 2 where lerobot is not installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import numpy as np

from msdyn.io import (
    Episode,
    LeRobotDataset,
    column_values,
    depth_codes,
    read_depth_segment,
    read_video,
)

IMAGE_LEVELS = 3.0
"""Largest mean difference of images in grey levels: conversions to RGB differ in rounding and in
how they enlarge chroma."""
DEPTH_METRES = 1e-3


def main(argv: list[str] | None = None) -> int:
    """Compare a dataset and print a line for each feature."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--episodes", type=int, default=3, help="at most so many, from the first")
    options = parser.parse_args(argv)
    try:
        from lerobot.datasets.lerobot_dataset import (  # pyright: ignore[reportMissingImports]
            LeRobotDataset as Theirs,
        )
    except ImportError as error:
        print(f"error: lerobot is not installed ({error})", file=sys.stderr)
        return 2
    ours = LeRobotDataset(options.dataset)
    theirs = Theirs("local/check", root=options.dataset)
    version = importlib.metadata.version("lerobot")
    print(f"lerobot {version}: {theirs.num_episodes} episodes, {theirs.num_frames} frames, "
          f"{len(theirs.meta.features)} features, {theirs.fps} fps")  # fmt: skip
    same = (theirs.num_episodes, theirs.num_frames) == (len(ours), ours.info.total_frames)
    if not same:
        print(f"differs: msdyn reads {len(ours)} episodes, {ours.info.total_frames} frames")
    worst: dict[str, float] = {}
    for episode in list(ours.episodes())[: options.episodes]:
        _compare(ours, episode, theirs, worst)
    for name, difference in worst.items():
        feature = ours.info.features.get(name)
        limit = 0.0
        if feature is not None and feature.is_image:
            limit = DEPTH_METRES if feature.is_depth else IMAGE_LEVELS
        unit = {IMAGE_LEVELS: "grey levels, mean", DEPTH_METRES: "m"}.get(limit, "")
        verdict = "equal" if difference == 0 else f"differs by {difference:.4g} {unit}".rstrip()
        agrees = difference <= limit
        same &= agrees
        print(f"{'ok  ' if agrees else 'FAIL'} {name}: {verdict}")
    for name in sorted(set(ours.info.features) - set(worst)):
        print(f"---- {name}: not decoded by this lerobot")
    return 0 if same else 1


def _compare(ours: LeRobotDataset, episode: Episode, theirs: Any, worst: dict[str, float]) -> None:
    """Compare the frames of an episode; keep the largest difference of each feature."""
    table = ours.frames(episode)
    columns = {name: column_values(table, name) for name in table.column_names}
    images: dict[str, Any] = {}
    for name, feature in ours.info.features.items():
        if feature.dtype != "video":
            continue
        segment = ours.video_segment(episode, name)
        if feature.is_depth:
            images[name] = read_depth_segment(segment, depth_codes(feature, name))
        else:
            images[name] = read_video(segment.path, segment=segment.window)
    for frame in range(episode.length):
        item = theirs[episode.from_index + frame]
        for name, values in columns.items():
            read = item[name]
            equal = read == values[frame] if isinstance(read, str) else _equal(read, values[frame])
            worst[name] = max(worst.get(name, 0.0), 0.0 if equal else float("inf"))
        task = ours.tasks[int(columns["task_index"][frame])]
        worst["task"] = max(worst.get("task", 0.0), 0.0 if item["task"] == task else float("inf"))
        for name, reader in images.items():
            own, read = next(reader), np.asarray(item[name])
            if ours.info.features[name].is_depth:
                if read.shape[0] != 1:
                    continue  # colours of the codes, of versions before 0.6
                difference = np.abs(read[0] / 1000 - own)[own > 0].max(initial=0)
            else:
                difference = np.abs(read.transpose(1, 2, 0) * 255 - own).mean()
            worst[name] = max(worst.get(name, 0.0), float(difference))


def _equal(read: Any, own: Any) -> bool:
    """Return whether a tensor holds the same numbers as an array."""
    numbers = np.asarray(read)
    return numbers.reshape(-1).tolist() == np.asarray(own).reshape(-1).tolist()


if __name__ == "__main__":
    sys.exit(main())
