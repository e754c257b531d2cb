"""PointOdyssey: synthetic videos with depth, cameras and 3D tracks.

    <split>/<sequence>/rgbs/rgb_00000.jpg     numbered from 0
    <split>/<sequence>/depths/depth_00000.png 16 bits, z-depth in metres times 65535/1000
    <split>/<sequence>/anno.npz               intrinsics [T, 3, 3] px, extrinsics [T, 4, 4] world to
                                              camera, OpenCV axes, trajs_2d [T, N, 2] px, trajs_3d
                                              [T, N, 3] in the world, visibs and valids [T, N]

The principal point of an image without offset is at half of its size. Depth of 65535 (sky) is
unknown. Some sequences have no 3D tracks: the motion of their clips is unknown. The older release
(`annotations.npz`, Blender's axes, mirrored) is not supported: 3D tracks must project to the 2D
tracks. Sequences have some 2000 frames; they are split into parts of at most 300, with the tracks
that are visible in the part.

Reference: `dust3r/datasets/pointodyssey.py` of github.com/Junyi42/monst3r and
`datasets_preprocess/preprocess_point_odyssey.py` of github.com/ShenhanQian/CUT3R (a fork of CUT3R)
for names, keys and the scale of depth; `datasets/pointodysseydataset_3d.py` of
github.com/aharley/pips2 (cams_T_world = extrinsics); metres and world coordinates as the authors
say in issues 16 and 19 of github.com/y-zheng18/point_odyssey, whose `utils/reprojection.py`
unprojects depth as z-depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip, ClipTracks
from msdyn.feedforward.data.convert.files import (
    FrameFiles,
    check_projection,
    clip_cameras,
    clip_name,
    find_folders,
    known_depth,
    matching,
    numbered_files,
    parts,
    seen_in_image,
)
from msdyn.feedforward.data.convert.registry import LazyClips, register_converter
from msdyn.reading import image_size, load_npz, npz_keys, npz_shape, read_png16

LONGEST_PART = 300
_METRES = 1000 / 65535
_SKY = 65535
_ABOUT = {
    "source": "https://pointodyssey.com",
    "licence": "CC BY-NC-SA 4.0",
}


@register_converter(
    "pointodyssey",
    layout="<split>/<sequence> with anno.npz, rgbs/rgb_00000.jpg and depths/depth_00000.png",
)
def clips(source: Path) -> Iterator[LazyClips]:
    """Yield the parts of all sequences."""
    for folder in find_folders(source, "anno.npz", 2):
        yield partial(_sequence, folder)


def _sequence(folder: Path) -> Iterator[Clip]:
    path = folder / "anno.npz"
    images = numbered_files(folder / "rgbs", r"rgb_(\d+)\.(?:jpg|png)")
    depths = matching(
        images, numbered_files(folder / "depths", r"depth_(\d+)\.png"), folder / "depths"
    )
    frames = np.array(list(images))
    arrays = load_npz(path, ("intrinsics", "extrinsics"))
    k = _rows(path, "intrinsics", arrays["intrinsics"], frames, (3, 3))
    width, height = image_size(images[int(frames[0])])
    world_from_cam, intrinsics = clip_cameras(
        path,
        np.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], -1),
        _rows(path, "extrinsics", arrays["extrinsics"], frames, (4, 4)),
        width,
        height,
    )
    files = FrameFiles(tuple(images.values()), width, height, depths, _read_depth)
    tracks = _tracks(path, frames, world_from_cam, intrinsics, width, height)
    for number, part in enumerate(parts(len(frames), LONGEST_PART)):
        points, visible = (None, None) if tracks is None else (t[part] for t in tracks)
        kept = None
        if points is not None and visible is not None:
            seen = visible.any(0)
            kept = ClipTracks(points[:, seen], visible[:, seen])
        yield Clip(
            clip_name(folder.parent.name, folder.name, f"{number:03d}"),
            "pointodyssey",
            frames[part].astype(np.float64),
            world_from_cam[part],
            intrinsics[part],
            "unknown" if kept is None else "tracks",
            files.part(part),
            tracks=kept,
            about=dict(_ABOUT),
        )


def _tracks(
    path: Path,
    frames: np.ndarray,
    world_from_cam: np.ndarray,
    intrinsics: np.ndarray,
    width: int,
    height: int,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the positions and visibility of the tracks [T, N, ...]; None if there are none."""
    shape = npz_shape(path, "trajs_3d") if "trajs_3d" in npz_keys(path) else ()
    if not shape or 0 in shape:
        return None
    stored = _array(path, "trajs_3d")
    count = stored.shape[1] if stored.ndim == 3 else -1
    points = _rows(path, "trajs_3d", stored, frames, (count, 3)).astype(np.float32, copy=False)
    del stored  # half a gigabyte in long sequences
    valid = _rows(path, "valids", _array(path, "valids"), frames, (count,)) > 0.5
    visible = _rows(path, "visibs", _array(path, "visibs"), frames, (count,)) > 0.5
    valid &= np.isfinite(points).all(-1)
    visible &= valid
    points[~valid] = np.nan
    pixels = _rows(path, "trajs_2d", _array(path, "trajs_2d"), frames, (count, 2))
    first = int(visible.any(1).argmax())
    check_projection(
        path, points[first], pixels[first], visible[first], world_from_cam[first],
        intrinsics[first], width, height,
    )  # fmt: skip
    return points, visible & seen_in_image(points, world_from_cam, intrinsics)


def _array(path: Path, key: str) -> np.ndarray:
    return load_npz(path, (key,))[key]


def _rows(
    path: Path, key: str, values: np.ndarray, frames: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the rows of an array that belong to frames, of numbers from 0."""
    last = int(frames.max())
    if values.shape[1:] != shape or len(values) <= last or values.dtype.kind not in "fiub":
        found = " ".join(map(str, values.shape))
        raise InputError(
            f"{path}: {key}: expected numbers [{last + 1} frames or more, "
            f"{' '.join(str(n) if n >= 0 else 'tracks' for n in shape)}], got [{found}]"
        )
    return values[frames]


def _read_depth(path: Path, index: int) -> Float32[np.ndarray, "height width"]:
    del index
    stored = read_png16(path)
    return known_depth(np.where(stored == _SKY, 0, stored * np.float64(_METRES)))
