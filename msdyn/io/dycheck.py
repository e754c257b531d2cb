"""DyCheck's folder format (the iPhone data of Gao et al., 2022): reading it.

    dataset.json metadata.json    names of all images, and the time and camera of each
    splits/train.json, val.json   images of the clip, and held-out images; by camera if missing
    extra.json scene.json         frames per second; a normalisation, not applied to the files
    camera/<name>.json            orientation (cam_from_world), position, intrinsics at 1x
    rgb/<f>x/<name>.png           RGBA; alpha 0 where the sensor recorded nothing
    depth/<f>x/<name>.npy         [H, W, 1] z-depth of the clip, 0 unknown
    covisible/<f>x/val/<name>.png
    keypoint/<f>x/train/<name>.json   [J, 3] x, y, visible; the first pixel's centre is at (0, 0)

Axes are OpenCV's, pixel centres are at +0.5, positions are in metres. The documentation of the
format gives depth in millimetres, its code writes metres; the unit is detected from the values.

Reference: Gao et al., "Monocular Dynamic View Synthesis: A Reality Check", 2022; the format's page
docs/DATASETS.md and parser dycheck/datasets/iphone.py in github.com/KAIR-BAIR/dycheck.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped, UInt8

from msdyn.errors import InputError
from msdyn.geometry import NEGLIGIBLE_PX, Cameras, Lens
from msdyn.indices import evenly_spaced
from msdyn.io.depth_maps import read_depth_map
from msdyn.io.dycheck_cameras import entry_of, read_dycheck_lens
from msdyn.reading import read_json, read_pixels, reading, shown
from msdyn.scene import FrameLenses, Keypoints, write_keypoints, write_view

__all__ = [
    "Dycheck",
    "DycheckView",
    "ViewsReport",
    "write_dycheck_views",
]

_MILLIMETRES_ABOVE = 50.0
"""Median depth above which the unit is millimetres: a phone's sensor does not reach 50 m, and the
scene is farther away than 50 mm."""
_REFINED = "flow3d_preprocessed"
"""Folder in which shape-of-motion puts covisibility at 1x."""


@dataclass(frozen=True)
class DycheckView:
    """A held-out camera.

    Attributes:
        names: names of its images, by frame of the clip.
        cameras: one per frame of the clip; in frames without image, that of the nearest image.
        lenses: of the images, frame by frame, where they have a distortion; `cameras` are then
            those of the undistorted images.
    """

    names: dict[int, str]
    cameras: Cameras
    lenses: FrameLenses | None = None


class Dycheck:
    """A sequence opened for reading, at one of its image sizes.

    Attributes:
        directory: the sequence's folder.
        factor: 1 for full size, 2 for half.
        fps: frames per second.
        names: names of the images of the clip.
        cameras: of the clip, without the distortion of `lenses`.
        lenses: of the images of the clip, one per image; None where they have no distortion.
        views: held-out cameras, by name.
        seconds: of the images of the clip, from 0.
    """

    def __init__(
        self, directory: str | os.PathLike, factor: int = 1, max_frames: int | None = None
    ) -> None:
        """Read the lists and cameras of a sequence.

        Args:
            directory: the sequence's folder.
            factor: 1 for full size, 2 for half: `rgb/<factor>x`.
            max_frames: take at most this many, evenly spaced, and the held-out images of their
                times.

        Raises:
            FileNotFoundError: a file is missing.
            InputError: a file has another format, or the clip is of several cameras.
        """
        self.directory = Path(directory)
        self.factor = factor
        self._max_frames = max_frames
        if not (self.directory / "dataset.json").is_file():
            raise FileNotFoundError(
                f"{self.directory}: not a DyCheck sequence (no dataset.json in it)"
            )
        if not (self.directory / "rgb" / f"{factor}x").is_dir():
            sizes = sorted(p.name for p in (self.directory / "rgb").glob("*x"))
            raise InputError(
                f"{self.directory / 'rgb'}: expected a folder {factor}x, "
                f"found {', '.join(sizes) or 'none'}; choose another --factor"
            )
        with reading(self.directory, "DyCheck sequence"):
            self._read_lists()

    def _read_lists(self) -> None:
        """Read frame rate, names and cameras of the clip and the held-out images."""
        self.fps = self._fps()
        clip = self._split("train")
        held_out = self._split("val")
        times = [time for _, time, _ in clip]
        if len({camera for _, _, camera in clip}) != 1 or times != sorted(set(times)):
            raise InputError(
                f"{self.directory}: train: expected one camera, and one image at each time; "
                "only DyCheck's iPhone sequences are read, others by --from nerfies"
            )
        outside = [name for name, time, _ in held_out if not times[0] <= time <= times[-1]]
        if outside:
            raise InputError(
                f"{self.directory}: {outside[0]}: expected a time from {times[0]} to {times[-1]}, "
                "as of the clip"
            )
        if self._max_frames is not None and self._max_frames < len(clip):
            clip = [clip[row] for row in evenly_spaced(len(clip), self._max_frames)]
        frame_of = {time: frame for frame, (_, time, _) in enumerate(clip)}
        held_out = [(name, frame_of[t], c) for name, t, c in held_out if t in frame_of]
        self.seconds = (np.array(list(frame_of)) - clip[0][1]) / self.fps
        self.names = [name for name, _, _ in clip]
        self.cameras, self.lenses = self._cameras(self.names)
        self.views = {
            f"camera{camera}": self._view({t: name for name, t, c in held_out if c == camera})
            for camera in sorted({camera for _, _, camera in held_out})
        }

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.cameras.height, self.cameras.width

    def image(
        self, name: str
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
        """Return an RGB image, and which of its pixels the sensor recorded."""
        path = self.directory / "rgb" / f"{self.factor}x" / f"{name}.png"
        image = read_pixels(path)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
            raise InputError(f"{path}: expected 8-bit RGBA, got {image.dtype} {image.shape}")
        _check_size(path, image, self.size)
        known = image[..., 3] > 0 if image.shape[2] == 4 else np.ones(image.shape[:2], bool)
        return image[..., :3], known

    def depth(self, name: str) -> Float32[np.ndarray, "height width"]:
        """Return z-depth in metres, 0 where unknown."""
        depth = self._stored_depth(name)
        return depth / np.float32(1000) if self.depth_unit == "millimetres" else depth

    @cached_property
    def depth_unit(self) -> str:
        """Unit of the depth files, "metres" or "millimetres", detected from their values."""
        for name in self.names:  # the first that has known depth decides
            stored = self._stored_depth(name)
            if (stored > 0).any():
                large = np.median(stored[stored > 0]) > _MILLIMETRES_ABOVE
                return "millimetres" if large else "metres"
        return "metres"

    def covisible(self, name: str) -> Bool[np.ndarray, "height width"] | None:
        """Return which pixels of a held-out image are evaluated; None where there is no mask.

        A mask of another size is resampled to the nearest pixel.
        """
        for folder in self._any_size("covisible", f"{_REFINED}/covisible"):
            path = folder / "val" / f"{name}.png"
            if path.is_file():
                mask = read_pixels(path)
                mask = (mask if mask.ndim == 2 else mask[..., 0]) > 0
                rows, columns = (
                    ((np.arange(new) + 0.5) * old / new).astype(int)
                    for new, old in zip(self.size, mask.shape, strict=True)
                )
                return mask[rows[:, None], columns]
        return None

    def keypoints(self) -> Keypoints | None:
        """Return the keypoints of the clip, in pixels of its images; None if there are none."""
        for folder in self._any_size("keypoint"):
            found = {
                frame: folder / "train" / f"{name}.json"
                for frame, name in enumerate(self.names)
                if (folder / "train" / f"{name}.json").is_file()
            }
            if not found:
                continue
            with reading(folder, "folder of keypoints"):
                rows = np.stack([_read_keypoints(path) for path in found.values()])  # [K, J, 3]
            visible = rows[..., 2] == 1
            # Files have pixel centres at integers, in images of the folder's size.
            xy = (rows[..., :2] + 0.5) * _factor(folder) / self.factor
            if self.lenses is not None:
                lenses = FrameLenses.of(self.lenses)
                for row, frame in enumerate(found):
                    straight, valid = lenses[frame].straight(xy[row])
                    valid &= ((straight >= 0) & (straight < self.size[::-1])).all(-1)
                    xy[row], visible[row] = straight, visible[row] & valid
            return Keypoints(np.array(list(found)), np.where(visible[..., None], xy, 0), visible)
        return None

    def _fps(self) -> float:
        path = self.directory / "extra.json"
        fps = entry_of(path, read_json(path), "fps")
        if not isinstance(fps, (int, float)) or not fps > 0:
            raise InputError(f"{path}: fps: expected a number > 0, got {fps!r}")
        return float(fps)

    def _split(self, split: str) -> list[tuple[str, int, int]]:
        """Return name, time and camera of the images of a split, by camera and time."""
        path = self.directory / "splits" / f"{split}.json"
        if path.is_file():
            content = read_json(path)
            keys = ("frame_names", "time_ids", "camera_ids")
            columns = [entry_of(path, content, key) for key in keys]
            if len({len(column) for column in columns}) != 1:
                raise InputError(f"{path}: expected {', '.join(keys)} of one length")
            rows = list(zip(*columns, strict=True))
        else:
            path = self.directory / "metadata.json"
            metadata, dataset = read_json(path), self.directory / "dataset.json"
            rows = []
            for name in entry_of(dataset, read_json(dataset), "ids"):
                entry = entry_of(path, metadata, name)
                camera = entry_of(path, entry, "camera_id")
                if (camera == 0) == (split == "train"):
                    rows.append((name, entry_of(path, entry, "warp_id"), camera))
        wrong = [name for name, *_ in rows if not isinstance(name, str) or Path(name).name != name]
        if wrong:
            raise InputError(f"{path}: expected names of images, got {shown(wrong[0])}")
        if split == "train" and len(rows) < 2:
            raise InputError(f"{path}: expected at least 2 frames of the clip, got {len(rows)}")
        return sorted(((str(n), int(t), int(c)) for n, t, c in rows), key=lambda r: (r[2], r[1]))

    def _view(self, names: dict[int, str]) -> DycheckView:
        (cameras, found), frames = self._cameras(list(names.values())), np.array(list(names))
        nearest = np.abs(frames - np.arange(len(self))[:, None]).argmin(1)
        if found is None:
            return DycheckView(names, cameras[nearest])
        lenses = FrameLenses.of(found).chosen(nearest)
        return DycheckView(names, lenses.straightened(cameras[nearest]), lenses)

    def _cameras(self, names: list[str]) -> tuple[Cameras, tuple[Lens, ...] | None]:
        read = [read_dycheck_lens(self.directory / "camera" / f"{name}.json") for name in names]
        parts = [camera for camera, _ in read]
        if len({(camera.width, camera.height) for camera in parts}) != 1:
            sizes = sorted({(camera.width, camera.height) for camera in parts})
            raise InputError(
                f"{self.directory / 'camera'}: expected images of one size, got {sizes}"
            )
        first = parts[0]
        cameras = Cameras(
            np.concatenate([camera.intrinsics for camera in parts]),
            np.concatenate([camera.cam_from_world for camera in parts]),
            first.width,
            first.height,
        )
        size = round(first.width / self.factor), round(first.height / self.factor)
        lenses = tuple(lens.resized(*size) for _, lens in read)
        distorted = any(lens.displacement > NEGLIGIBLE_PX for lens in set(lenses))
        return cameras.resized(*size), lenses if distorted else None

    def _stored_depth(self, name: str) -> Float32[np.ndarray, "height width"]:
        """Return z-depth in the unit of the file."""
        path = self.directory / "depth" / f"{self.factor}x" / f"{name}.npy"
        depth = read_depth_map(path)
        _check_size(path, depth, self.size)
        return depth

    def _any_size(self, *parents: str) -> list[Path]:
        """Return the folders `<parent>/<f>x`, beginning with those of the size that is read."""
        folders = [f for p in parents for f in sorted((self.directory / p).glob("*x"))]
        folders = [f for f in folders if f.is_dir() and f.name[:-1].isdecimal()]
        return sorted(folders, key=lambda folder: _factor(folder) != self.factor)


class ViewsReport(TypedDict):
    """Counts of what `write_dycheck_views` wrote.

    Attributes:
        views: number of images, by view.
        images_without_covisibility: images without a mask, evaluated at all pixels.
        keypoints: number of keypoints.
    """

    views: dict[str, int]
    images_without_covisibility: int
    keypoints: int


def write_dycheck_views(sequence: Dycheck, scene: str | os.PathLike) -> ViewsReport:
    """Write the held-out views and the keypoints of a sequence to a scene directory of its clip.

    Where cameras have a distortion, images and covisibility are undistorted and keypoints moved,
    as the images of the clip are by preprocessing.
    """
    scene = Path(scene)
    report: ViewsReport = {"views": {}, "images_without_covisibility": 0, "keypoints": 0}
    for name, view in sequence.views.items():
        covisible = {frame: sequence.covisible(image) for frame, image in view.names.items()}
        masks = {frame: mask for frame, mask in covisible.items() if mask is not None}
        images = {frame: sequence.image(image)[0] for frame, image in view.names.items()}
        if view.lenses is not None:
            size = sequence.size
            images = {frame: view.lenses[frame].image(i) for frame, i in images.items()}
            masks = {f: view.lenses[f].nearest(mask, size) for f, mask in masks.items()}
        report["views"][name] = len(view.names)
        report["images_without_covisibility"] += len(covisible) - len(masks)
        write_view(
            scene,
            name,
            cameras=view.cameras,
            images=images,
            covisible=masks,
        )
    keypoints = sequence.keypoints()
    if keypoints is not None:
        write_keypoints(scene, keypoints)
        report["keypoints"] = keypoints.xy.shape[1]
    return report


def _read_keypoints(path: Path) -> Float64[np.ndarray, "keypoints 3"]:
    with reading(path, "file of rows of x, y, visible"):
        rows = np.asarray(read_json(path), np.float64)
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise InputError(f"{path}: expected rows of x, y, visible, got shape {rows.shape}")
    return rows


def _factor(folder: Path) -> int:
    return int(folder.name[:-1])


def _check_size(
    path: Path, array: Shaped[np.ndarray, "height width *channels"], size: tuple[int, int]
) -> None:
    if array.shape[:2] != size:
        raise InputError(
            f"{path}: expected {size[1]}x{size[0]} pixels as in the camera files, "
            f"got {array.shape[1]}x{array.shape[0]}"
        )
