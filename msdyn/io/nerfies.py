"""Captures in the layout of Nerfies, HyperNeRF and NeRF-DS: posed images of one or two cameras.

    dataset.json        ids of all images; train_ids, val_ids; further keys are not read
    metadata.json       of each image: camera_id, and time_id or (older files) warp_id
    camera/<id>.json    the camera, at full size, with its distortion; see `dycheck_cameras`
    rgb/<f>x/<id>.png   images, of 1/f of the full size
    scene.json          a normalisation, which is not applied

The capture rigs (vrig-..., NeRF-DS) have two cameras beside each other, of which train_ids takes
now one, now the other. Others (interp-..., misc-...) have one, of which images between those of the
clip are held out. DyCheck's layout adds depth and splits to this one (`dycheck`). Times have no
unit: a step of time_id is 1/15 s here. Static points (points.npy) are not read.

Reference: README.md of github.com/google/nerfies; hypernerf/datasets/nerfies.py of
github.com/google/hypernerf.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import NEGLIGIBLE_PX, Cameras
from msdyn.io.dycheck_cameras import entry_of, read_dycheck_lens
from msdyn.io.multi_camera import MultiCamera, RecordedCamera, checked_times
from msdyn.reading import MOST_FRAMES, image_size, read_json, reading, shown
from msdyn.scene import FrameLenses

__all__ = ["read_nerfies"]

FPS = 15.0
_EVERY, _BETWEEN = 4, 2
"""Of one camera without a split of its own: every fourth image is of the clip, those in the middle
between these are held out, as published evaluations of HyperNeRF's interp captures do."""


def read_nerfies(directory: str | os.PathLike, long_side: int = 0) -> MultiCamera:
    """Open a capture.

    Of several cameras (`camera0`, `camera1`, ...) the one with most images is the clip and the
    others are held out; `train` and `val` are the lists of dataset.json. Of one camera these two
    are the clip and what is held out.

    Args:
        directory: of the capture.
        long_side: the least longer side of the images to be read, px; 0 takes the largest size.

    Raises:
        FileNotFoundError: not such a capture, or a file is missing.
        InputError: a file has another format.
    """
    directory = Path(directory)
    path = directory / "dataset.json"
    if not path.is_file():
        raise FileNotFoundError(f"{directory}: not a capture of Nerfies (no dataset.json in it)")
    with reading(directory, "capture of Nerfies"):
        dataset, metadata = read_json(path), read_json(directory / "metadata.json")
        lists = {key: _names(path, dataset, key) for key in ("ids", "train_ids", "val_ids")}
        rows = {name: _row(directory / "metadata.json", metadata, name) for name in lists["ids"]}
        for key in ("train_ids", "val_ids"):
            unknown = [name for name in lists[key] if name not in rows]
            if unknown:
                raise InputError(f"{path}: {key}: {shown(unknown[0])} is not among ids")
        parts = _parts(lists, rows)
        factor = _factor(directory, lists["ids"][0], long_side)
        cameras = {
            name: _camera(directory, name, sorted(ids, key=rows.__getitem__), rows, factor)
            for name, ids in parts.items()
        }
    numbered = [name for name in cameras if name not in ("train", "val")]
    if numbered:
        clip = max(numbered, key=lambda name: len(cameras[name]))
        held_out = tuple(name for name in numbered if name != clip)
    else:
        clip, held_out = "train", ("val",)
    return MultiCamera("nerfies", directory, cameras, held_out, clip=clip)


def _names(path: Path, dataset: Any, key: str) -> list[str]:
    """Return a list of ids, each once."""
    values = entry_of(path, dataset, key)
    if not isinstance(values, list) or len(values) > MOST_FRAMES:
        raise InputError(f"{path}: {key}: expected a list of ids, got {shown(values)}")
    names = [str(value) for value in values]
    wrong = next((name for name in names if not name or Path(name).name != name), None)
    if wrong is not None:
        raise InputError(f"{path}: {key}: expected names of images, got {shown(wrong)}")
    if len(set(names)) != len(names):
        raise InputError(f"{path}: {key}: an image is listed twice")
    if key == "ids" and len(names) < 2:
        raise InputError(f"{path}: {key}: expected at least 2 images, got {len(names)}")
    return names


def _row(path: Path, metadata: Any, name: str) -> tuple[int, int]:
    """Return the time and the camera of an image."""
    entry = entry_of(path, metadata, name)
    key = "time_id" if isinstance(entry, dict) and "time_id" in entry else "warp_id"
    time = entry_of(path, entry, key)
    camera = entry.get("camera_id", 0)
    for what, value in ((key, time), ("camera_id", camera)):
        if type(value) is not int:
            raise InputError(f"{path}: {name}: {what}: expected an integer, got {shown(value)}")
    return time, camera


def _parts(lists: dict[str, list[str]], rows: dict[str, tuple[int, int]]) -> dict[str, list[str]]:
    """Return the ids of each camera, and of the two splits."""
    parts: dict[str, list[str]] = {}
    numbers = sorted({camera for _, camera in rows.values()})
    if len(numbers) > 1:
        for number in numbers:
            parts[f"camera{number}"] = [name for name in rows if rows[name][1] == number]
    split = {"train": lists["train_ids"], "val": lists["val_ids"]}
    if len(numbers) == 1 and not split["val"]:
        order = sorted(rows, key=rows.__getitem__)
        split = {"train": order[::_EVERY], "val": order[_BETWEEN::_EVERY]}
    for name, ids in split.items():
        times = [rows[i][0] for i in ids]
        # Splits of several cameras that have two images of one time are no clip.
        if len(ids) > 1 and (len(numbers) == 1 or len(set(times)) == len(times)):
            parts[name] = ids
    if len(numbers) == 1 and "train" not in parts:
        raise InputError(f"train_ids: expected at least 2 images, got {len(split['train'])}")
    return parts


def _factor(directory: Path, name: str, long_side: int) -> int:
    """Return by how much the images to be read are smaller than the full size."""
    folders = [f for f in (directory / "rgb").glob("*x") if f.name[:-1].isdecimal()]
    factors = sorted(int(f.name[:-1]) for f in folders if (f / f"{name}.png").is_file())
    if not factors or factors[0] < 1:
        raise InputError(
            f"{directory / 'rgb'}: expected the image {name}.png in a folder 1x, 2x, ..., "
            f"found {', '.join(sorted(f.name for f in folders)) or 'none'}"
        )
    sides = {f: max(image_size(directory / "rgb" / f"{f}x" / f"{name}.png")) for f in factors}
    enough = [f for f in factors if long_side and sides[f] >= long_side]
    return enough[-1] if enough else factors[0]


def _camera(
    directory: Path, name: str, ids: list[str], rows: dict[str, tuple[int, int]], factor: int
) -> RecordedCamera:
    """Return the images of a camera, or of a split, in the order of their times."""
    images = tuple(directory / "rgb" / f"{factor}x" / f"{i}.png" for i in ids)
    read = [read_dycheck_lens(directory / "camera" / f"{i}.json") for i in ids]
    sizes = sorted({(camera.width, camera.height) for camera, _ in read})
    if len(sizes) != 1:
        raise InputError(
            f"{directory / 'camera'}: {name}: expected images of one size, got {sizes}"
        )
    full = Cameras(
        np.concatenate([camera.intrinsics for camera, _ in read]),
        np.concatenate([camera.cam_from_world for camera, _ in read]),
        *sizes[0],
    )
    size = image_size(images[0])
    if any(abs(side - whole / factor) > 1 for side, whole in zip(size, sizes[0], strict=True)):
        raise InputError(
            f"{images[0]}: expected an image of 1/{factor} of {sizes[0][0]}x{sizes[0][1]} px, as "
            f"its camera says, got {size[0]}x{size[1]}"
        )
    lenses = tuple(lens.resized(*size) for _, lens in read)
    distorted = any(lens.displacement > NEGLIGIBLE_PX for lens in set(lenses))
    times = np.array([rows[i][0] for i in ids], np.float64)
    return RecordedCamera(
        name,
        full.resized(*size),
        checked_times(times / FPS, f"{directory / 'metadata.json'}: {name}"),
        images,
        lenses=FrameLenses.of(lenses) if distorted else None,
    )
