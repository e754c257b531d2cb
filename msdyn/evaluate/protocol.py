"""Measuring a fit: on held-out cameras, on frames of the clip, and on true 3D tracks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from msdyn.errors import InputError
from msdyn.evaluate.image_metrics import masked_psnr, masked_ssim, masked_ssim_dycheck
from msdyn.evaluate.track_metrics import epe3d, query_tracks
from msdyn.geometry import Cameras, align_camera_paths, invert_transforms
from msdyn.render import RenderedImage, render_image
from msdyn.scene import Scene, View
from msdyn.sequence import GaussianSequence

__all__ = ["Variant", "evaluate_frames", "evaluate_tracks", "evaluate_views"]


@dataclass(frozen=True)
class Variant:
    """How a sequence is drawn when it is measured.

    Attributes:
        levels: use only the first so many motion levels.
        frozen: draw every time as the canonical frame.
    """

    levels: int | None = None
    frozen: bool = False

    def render(self, sequence: GaussianSequence, camera: Cameras, frame: int) -> RenderedImage:
        """Render the time of a frame."""
        shown = sequence.canonical_frame if self.frozen else frame
        time = sequence.timeline.time_of_frame(shown)
        return render_image(sequence, camera, time, levels=self.levels)


def evaluate_views(
    sequence: GaussianSequence,
    truth: Scene,
    *,
    align: bool = False,
    variant: Variant | None = None,
    keep: Callable[[View, int, RenderedImage], None] | None = None,
) -> dict:
    """Measure renders of the held-out cameras of a scene.

    Args:
        sequence: the fit.
        truth: scene with `views/`; its world is that of the fit unless `align`.
        align: find the similarity between the two worlds from their input cameras first (for
            cameras estimated from the video alone).
        variant: how to draw; everything by default.
        keep: called with every view, frame and render, to save pictures.

    Returns:
        Mean `mpsnr`, `mssim` (DyCheck's), `ssim` (covisible pixels only), `covisible` (share of
        pixels that count), number of `images`, and the same under `views` for each view.
        Images without any covisible pixel are left out.
    """
    if not truth.views:
        raise InputError(f"{truth.directory / 'views'}: no held-out views to evaluate on")
    variant = variant or Variant()
    scale, world = _sequence_from_truth(sequence, truth, align)
    views = {}
    progress = tqdm(total=sum(len(v.frames) for v in truth.views.values()), desc="held-out views")
    for view in truth.views.values():
        cameras = view.cameras.transformed(world, scale)
        rows = []
        for frame in view.frames:
            image = variant.render(sequence, cameras[frame], frame)
            if keep is not None:
                keep(view, frame, image)
            mask = view.covisible(frame)
            if mask.any():
                rows.append(_image_row(image.rgb, view.image(frame) / 255.0, mask))
            progress.update()
        views[view.name] = _mean(rows)
    progress.close()
    counted = [v for v in views.values() if v["images"]]
    result = {
        key: float(np.average([v[key] for v in counted], weights=[v["images"] for v in counted]))
        if counted
        else float("nan")
        for key in ("mpsnr", "mssim", "ssim", "covisible")
    }
    return {**result, "images": sum(v["images"] for v in views.values()), "views": views}


def evaluate_frames(
    sequence: GaussianSequence,
    scene: Scene,
    frames: list[int],
    *,
    variant: Variant | None = None,
    keep: Callable[[int, RenderedImage], None] | None = None,
) -> dict:
    """Measure renders of frames of the clip itself, each at its own time and camera.

    Returns:
        Mean `mpsnr`, `mssim`, `ssim` over the `images` and, under `frames`, the PSNR of each.
    """
    _check_clip(sequence, scene)
    variant = variant or Variant()
    rows, psnr = [], {}
    for frame in tqdm(frames, desc="frames of the clip"):
        image = variant.render(sequence, sequence.cameras[frame], frame)
        if keep is not None:
            keep(frame, image)
        row = _image_row(image.rgb, scene.image(frame) / 255.0, np.ones(scene.size, bool))
        psnr[str(frame)] = row["mpsnr"]
        rows.append(row)
    return {**_mean(rows), "frames": psnr}


def evaluate_tracks(
    sequence: GaussianSequence,
    truth: Scene,
    *,
    align: bool = False,
    variant: Variant | None = None,
) -> dict | None:
    """Measure the 3D trajectories of points of the clip against true ones.

    Returns:
        `epe3d` (mean error in the truth's units over all later and earlier frames, hidden ones
        included), the same on `moving` points, and for `visible` moments alone; None where the
        scene has no true tracks.
    """
    tracks = next((v.tracks3d for v in truth.views.values() if v.tracks3d is not None), None)
    if tracks is None:
        return None
    variant = variant or Variant()
    scale, world = _sequence_from_truth(sequence, truth, align)
    estimate = query_tracks(
        sequence,
        tracks.query_frame,
        tracks.query_xy,
        levels=0 if variant.frozen else variant.levels,
    )
    back = invert_transforms(world)
    estimate = (estimate - world[:3, 3]) @ back[:3, :3].T / scale
    drawn = np.isfinite(estimate).all((1, 2))
    moving = tracks.object > 0

    def error(rows: np.ndarray, valid: np.ndarray | None = None) -> float:
        rows = rows & drawn
        return epe3d(estimate[rows], tracks.xyz[rows], None if valid is None else valid[rows])

    return {
        "epe3d": error(np.ones(len(moving), bool)),
        "epe3d_moving": error(moving),
        "epe3d_moving_visible": error(moving, tracks.visible),
        "tracks": len(moving),
        "drawn": float(drawn.mean()),
    }


def _sequence_from_truth(
    sequence: GaussianSequence, truth: Scene, align: bool
) -> tuple[float, np.ndarray]:
    _check_clip(sequence, truth)
    return align_camera_paths(truth.cameras, sequence.cameras) if align else (1.0, np.eye(4))


def _check_clip(sequence: GaussianSequence, scene: Scene) -> None:
    if len(scene) != len(sequence.timeline):
        raise InputError(
            f"{scene.directory}: expected the {len(sequence.timeline)} frames of the fit, "
            f"got {len(scene)}"
        )


def _image_row(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    return {
        "mpsnr": masked_psnr(image, truth, mask),
        "mssim": masked_ssim_dycheck(image, truth, mask),
        "ssim": masked_ssim(image, truth, mask),
        "covisible": float(mask.mean()),
    }


def _mean(rows: list[dict[str, float]]) -> dict:
    keys = ("mpsnr", "mssim", "ssim", "covisible")
    means = {k: float(np.nanmean([r[k] for r in rows])) if rows else float("nan") for k in keys}
    return {**means, "images": len(rows)}
