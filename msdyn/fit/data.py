"""Input data of a fit: tensors on its device, in a world scaled to a median depth of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from msdyn.devices import upload
from msdyn.errors import InputError
from msdyn.fit.frame_maps import FrameMaps, MapFile, positive_median
from msdyn.fit.motion_tracks import motion_tracks
from msdyn.fit.object_depth import ObjectDepth
from msdyn.fit.refine import Refinement, adjust_depth, refine_on_static_tracks
from msdyn.fit.track_matching import FrameImage, match_tracks
from msdyn.geometry import Cameras, CameraTensors, Similarity
from msdyn.progress import track
from msdyn.scene import IGNORE, LiftedObservations, LiftedTracks, Scene, Tracks, lift_tracks

__all__ = ["FitData", "FrameBatch", "load_fit_data"]


@dataclass(frozen=True)
class FrameBatch:
    """B frames of the clip, the input of the losses.

    Attributes:
        index: [B] frame indices of the clip, as floats.
        rgb: [B, H, W, 3] in [0, 1].
        depth: [B, H, W] z-depth, 0 = unknown.
        confidence: [B, H, W] of the depth, in [0, 1].
        moving: [B, H, W] 1 on moving objects, 0 elsewhere.
        certain: [B, H, W] 0 where the mask is 255 (ignore), 1 elsewhere.
        cameras: of the frames.
    """

    index: Float[Tensor, " frames"]
    rgb: Float[Tensor, "frames height width 3"]
    depth: Float[Tensor, "frames height width"]
    confidence: Float[Tensor, "frames height width"]
    moving: Float[Tensor, "frames height width"]
    certain: Float[Tensor, "frames height width"]
    cameras: CameraTensors


@dataclass(frozen=True)
class FitData:
    """The input data of a fit.

    Attributes:
        frames: [F] indices, in the clip, of the fitted frames, increasing.
        held_out: indices of the held-out frames.
        rgb: [T, H, W, 3] uint8, all frames of the clip.
        depth: [T, H, W] float32, in the world of the fit.
        confidence: [T, H, W] uint8, of the depth, 0 to 255; 255 if the scene has none.
        mask: [T, H, W] uint8, object index.
        cameras: of all frames, in the world of the fit and at its image size.
        on_device: the same, on the device of the images; with `--refine joint` the current ones,
            which `camera_updates.py` changes in place.
        tracks: lifted tracks on objects, all visible in some fitted frame, in the world of the fit
            and in pixels of its image size.
        fit_from_scene: from the scene's world to the fit's.
        refinement: of the scene's cameras (at the input size, in the scene's world) and depth.
    """

    frames: Int[np.ndarray, " fitted"]
    held_out: list[int]
    rgb: FrameMaps
    depth: FrameMaps
    confidence: FrameMaps
    mask: FrameMaps
    cameras: Cameras
    on_device: CameraTensors
    tracks: LiftedObservations
    fit_from_scene: Similarity
    refinement: Refinement

    @property
    def device(self) -> torch.device:
        return self.rgb.device

    def motion_tracks(self) -> LiftedTracks:
        """Return the tracks from which the motion is initialised, see `motion_tracks.py`."""
        _, height, width = self.mask.shape
        return motion_tracks(self.tracks, (height, width))

    def with_object_depth(self, correction: ObjectDepth) -> FitData:
        """Return the data with corrected depth of the objects in the fitted frames."""
        if not correction.log_scale.any():
            return self
        number_of = {int(frame): number for number, frame in enumerate(self.frames)}

        def corrected(frame: int, depth: Float[np.ndarray, "_ _"]) -> Float[np.ndarray, "_ _"]:
            if frame not in number_of:
                return depth
            return correction.correct_map(depth, self.mask.numpy(frame), number_of[frame])

        depth = self.depth.changed(corrected)
        tracks = correction.correct_tracks(self.tracks, self.cameras.centres[self.frames])
        return replace(self, depth=depth, tracks=tracks)

    def batch(self, frames: Int[np.ndarray, " frames"]) -> FrameBatch:
        """Return the frames at indices of the clip."""
        index = upload(frames, self.device)
        mask = self.mask.batch(frames, index)
        return FrameBatch(
            index.float(),
            self.rgb.batch(frames, index).float() / 255,
            self.depth.batch(frames, index),
            self.confidence.batch(frames, index).float() / 255,
            ((mask > 0) & (mask != IGNORE)).float(),
            (mask != IGNORE).float(),
            self.on_device[index],
        )


def load_fit_data(
    scene: Scene,
    *,
    long_side: int | None,
    holdout_every: int,
    device: torch.device,
    refine: Literal["auto", "both", "cameras", "depth", "none", "joint"] = "none",
    static_tracks: Literal["matched", "given"] = "given",
    seed: int = 0,
    folder: Path | None = None,
) -> FitData:
    """Read a scene directory for a fit.

    Args:
        scene: a complete scene directory.
        long_side: downscale images to this longer side, px; None for the input size.
        holdout_every: hold out frames n-1, 2n-1, ...; 0 for none.
        device: of the tensors.
        refine: what to refine on static tracks, see `FitConfig`.
        static_tracks: their positions, see `FitConfig`.
        seed: of the selection of these tracks.
        folder: in which files of the maps take their space; that of temporary files by default.

    Raises:
        InputError: an object of the masks has no track with known depth.
    """
    count = len(scene)
    held_out = list(range(holdout_every - 1, count, holdout_every)) if holdout_every else []
    # The last frame is not held out: the motion is interpolated, not extrapolated.
    held_out = [f for f in held_out if f < count - 1]
    frames = np.setdiff1d(np.arange(count), held_out)
    height, width = scene.size
    factor = min(1.0, long_side / max(height, width)) if long_side else 1.0
    size = (round(height * factor), round(width * factor))
    given = _GivenMaps.read(scene, size, folder)
    tracks = scene.tracks
    if refine in {"auto", "joint"}:
        # Cameras from structure from motion are bundle-adjusted already, on more tracks.
        backend = scene.info.stages.get("cameras", {}).get("backend")
        refine = "none" if backend == "sfm" else "both"
    scale = np.array([size[1] / width, size[0] / height])

    def match(static: Tracks) -> Tracks:
        return match_tracks(static, given.image, frames, scale)[0]

    refinement = refine_on_static_tracks(
        tracks,
        given.depth,
        given.mask,
        scene.cameras,
        frames,
        poses=refine in {"both", "cameras"},
        depth=refine in {"both", "depth"},
        match=match if static_tracks == "matched" else None,
        seed=seed,
    )
    adjusted = _AdjustedDepth(given.depth, refinement)
    moving = tracks.select(tracks.object > 0)
    lifted = lift_tracks(moving, adjusted, given.mask, refinement.cameras, frames).seen()
    present = set().union(*(np.unique(given.mask[f]).tolist() for f in frames)) - {0, IGNORE}
    untracked = present - set(np.unique(lifted.object).tolist())
    if untracked:
        raise InputError(
            f"{scene.directory / 'masks'}: object(s) {sorted(untracked)} have no track of known "
            "depth in tracks.npz; run the tracks stage again with these masks, or remove them"
        )
    depth, mask = MapFile(size, np.float32, folder), MapFile(size, np.uint8, folder)
    for frame in range(count):
        depth.append(_resize_nearest(adjusted[frame], size))
        mask.append(_resize_nearest(given.mask[frame], size))
    cameras = refinement.cameras.resized(size[1], size[0])
    world = _normalised_world(cameras, depth)
    fit_cameras = cameras.transformed(world)
    scaled = MapFile(size, np.float32, folder)
    for values in depth:
        scaled.append(values * np.float32(world.scale))
    return FitData(
        frames,
        held_out,
        FrameMaps(given.rgb, device, folder),
        FrameMaps(scaled, device, folder),
        FrameMaps(given.confidence, device),
        FrameMaps(mask, device),
        fit_cameras,
        fit_cameras.tensors(device),
        replace(lifted, xyz=world.apply(lifted.xyz), xy=lifted.xy * scale),
        world,
        refinement,
    )


@dataclass(frozen=True)
class _GivenMaps:
    """The maps of a scene: images and confidence at the size of the fit, the others as they are."""

    rgb: MapFile
    confidence: MapFile
    depth: MapFile
    mask: MapFile

    @classmethod
    def read(cls, scene: Scene, size: tuple[int, int], folder: Path | None) -> _GivenMaps:
        found = cls(
            MapFile((*size, 3), np.uint8, folder),
            MapFile(size, np.uint8, folder),
            MapFile(scene.size, np.float32, folder),
            MapFile(scene.size, np.uint8, folder),
        )
        certain = np.full(size, 255, np.uint8)
        for frame in track(range(len(scene)), "reading the scene"):
            found.depth.append(scene.depth(frame))
            found.mask.append(scene.mask(frame))
            found.rgb.append(_resize_rgb(scene.image(frame), size))
            stored = scene.depth_confidence(frame)
            found.confidence.append(certain if stored is None else _resize_nearest(stored, size))
        return found

    def image(self, frame: int) -> FrameImage:
        """Return the image and the mask of a frame at the size of the fit."""
        rgb = self.rgb[frame]
        return FrameImage(rgb, _resize_nearest(self.mask[frame], rgb.shape[:2]))


@dataclass(frozen=True)
class _AdjustedDepth:
    """The depth maps of a scene, corrected as they are read."""

    maps: MapFile
    refinement: Refinement

    @property
    def shape(self) -> tuple[int, ...]:
        return self.maps.shape

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, frame: int | np.integer) -> Float[np.ndarray, "height width"]:
        return adjust_depth(self.maps[frame], self.refinement, int(frame))


def _normalised_world(cameras: Cameras, depths: MapFile) -> Similarity:
    """Return the similarity to a world with mean camera centre zero and a median depth of one."""
    median = float(positive_median(depths) or 1.0)
    return Similarity.of(1 / median, -cameras.centres.mean(0) / median)


def _resize_rgb(
    image: UInt8[np.ndarray, "_ _ 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return an image at another size (height, width), by area interpolation."""
    if image.shape[:2] == size:
        return image
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(tensor, size, mode="area")
    return small[0].permute(1, 2, 0).round().byte().numpy()


def _resize_nearest(
    images: Shaped[np.ndarray, "*batch _ _"], size: tuple[int, int]
) -> Shaped[np.ndarray, "*batch _ _"]:
    """Return maps [..., H, W] at another size (height, width), by nearest-neighbour sampling."""
    height, width = images.shape[-2:]
    if (height, width) == size:
        return images
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    return images[..., rows[:, None], columns]
