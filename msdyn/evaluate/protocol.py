"""Measuring a fit: on held-out cameras, on frames of the clip, on true tracks and object motion.

Images are compared as they are saved, with 8 bits a channel. Nothing is optimised at test time:
neither cameras nor colours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from msdyn.errors import InputError
from msdyn.evaluate.correspondences import evaluate_correspondences, find_correspondences
from msdyn.evaluate.image_metrics import masked_psnr, masked_ssim, masked_ssim_dycheck
from msdyn.evaluate.lpips import Lpips
from msdyn.evaluate.object_motion import pose_errors, rigid_motion
from msdyn.evaluate.temporal import acceleration_error, flicker, jitter
from msdyn.evaluate.track_metrics import epe3d
from msdyn.geometry import Cameras, Similarity, align_camera_paths
from msdyn.render import RenderedImage, query_objects, query_tracks, render_image
from msdyn.scene import Scene, Tracks3D, View, read_keypoints
from msdyn.sequence import GaussianSequence, object_motions

__all__ = [
    "Variant",
    "evaluate_frames",
    "evaluate_object_motion",
    "evaluate_points",
    "evaluate_tracks",
    "evaluate_views",
]


@dataclass(frozen=True)
class Variant:
    """How a sequence is drawn when it is measured.

    Attributes:
        levels: use only the first so many motion levels.
        frozen: draw every time as the canonical frame.
    """

    levels: int | None = None
    frozen: bool = False

    @property
    def used_levels(self) -> int | None:
        """The motion levels in use: none of them where time stands still."""
        return 0 if self.frozen else self.levels

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
    lpips: Lpips | None = None,
    keep: Callable[[View, int, RenderedImage], None] | None = None,
) -> dict:
    """Measure renders of the held-out cameras of a scene.

    Args:
        sequence: the fit.
        truth: scene with `views/`; its world is that of the fit unless `align`.
        align: find the similarity between the two worlds from their input cameras first (for
            cameras estimated from the video alone).
        variant: how to draw; everything by default.
        lpips: the network of mLPIPS; without it, that metric is None.
        keep: called with every view, frame and render, to save pictures.

    Returns:
        Mean `mpsnr`, `mssim`, `mlpips` (DyCheck's), `ssim` (covisible pixels only), `covisible`
        (share of pixels that count), `flicker` (change of what stands still, for a camera that
        does), number of `images`, and the same under `views` for each view. Images without any
        covisible pixel are left out.
    """
    if not truth.views:
        raise InputError(f"{truth.directory / 'views'}: no held-out views to evaluate on")
    variant = variant or Variant()
    world = _sequence_from_truth(sequence, truth, align)
    by_view: dict[str, dict[str, Any]] = {}
    every: list[dict[str, float | None]] = []
    progress = tqdm(total=sum(len(v.frames) for v in truth.views.values()), desc="held-out views")
    for view in truth.views.values():
        cameras = view.cameras.transformed(world)
        rows, drawn = [], []
        for frame in view.frames:
            image = variant.render(sequence, cameras[frame], frame)
            if keep is not None:
                keep(view, frame, image)
            mask = view.covisible(frame)
            drawn.append((image.rgb8, view.image(frame), mask))
            if mask.any():
                rows.append(_image_row(image, view.image(frame), mask, lpips))
            progress.update()
        by_view[view.name] = _mean(rows) | {"flicker": _flicker(view, drawn)}
        every += rows
    progress.close()
    flickers = [v["flicker"] for v in by_view.values() if not np.isnan(v["flicker"])]
    result = _mean(every) | {"flicker": float(np.mean(flickers)) if flickers else float("nan")}
    return {**result, "views": by_view}


def evaluate_frames(
    sequence: GaussianSequence,
    scene: Scene,
    frames: list[int],
    *,
    variant: Variant | None = None,
    lpips: Lpips | None = None,
    keep: Callable[[int, RenderedImage], None] | None = None,
) -> dict:
    """Measure renders of frames of the clip itself, each at its own time and camera.

    Returns:
        Mean `mpsnr`, `mssim`, `mlpips`, `ssim` over the `images` and, under `frames`, the PSNR of
        each.
    """
    _check_clip(sequence, scene)
    variant = variant or Variant()
    rows, psnr = [], {}
    for frame in tqdm(frames, desc="frames of the clip"):
        image = variant.render(sequence, sequence.cameras[frame], frame)
        if keep is not None:
            keep(frame, image)
        row = _image_row(image, scene.image(frame), np.ones(scene.size, bool), lpips)
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
        included), the same on `moving` points, for `visible` moments alone, and for positions
        `blended` at the pixel whatever they are of, as others measure; `jitter` of still points and
        `acceleration_error` of moving ones; None where the scene has no true tracks.
    """
    tracks = _true_tracks(truth)
    if tracks is None:
        return None
    variant = variant or Variant()
    truth_from_sequence = _sequence_from_truth(sequence, truth, align).inverse()

    def found(rows: np.ndarray, *, blended: bool) -> np.ndarray:
        tracks_of_fit = query_tracks(
            sequence,
            tracks.query_frame[rows],
            tracks.query_xy[rows],
            levels=variant.used_levels,
            blended=blended,
        )
        return truth_from_sequence.apply(tracks_of_fit)

    moving = tracks.object > 0
    estimate = found(np.ones(len(moving), bool), blended=False)
    drawn = np.isfinite(estimate).all((1, 2))
    moved = moving & drawn

    def error(rows: np.ndarray, valid: np.ndarray | None = None) -> float:
        rows = rows & drawn
        return epe3d(estimate[rows], tracks.xyz[rows], None if valid is None else valid[rows])

    return {
        "epe3d": error(np.ones(len(moving), bool)),
        "epe3d_moving": error(moving),
        "epe3d_moving_visible": error(moving, tracks.visible),
        "epe3d_moving_blended": epe3d(found(moved, blended=True), tracks.xyz[moved]),
        "jitter": jitter(estimate[~moving & drawn]),
        "acceleration_error": acceleration_error(estimate[moved], tracks.xyz[moved]),
        "tracks": len(moving),
        "drawn": float(drawn.mean()),
    }


def evaluate_points(
    sequence: GaussianSequence,
    truth: Scene,
    *,
    align: bool = False,
    variant: Variant | None = None,
) -> dict[str, Any] | None:
    """Measure how a fit carries points between key frames; see `evaluate_correspondences`.

    The points are the scene's keypoints where it has some, otherwise its true tracks in ten evenly
    spaced frames; None where it has neither.
    """
    points = find_correspondences(truth, read_keypoints(truth.directory))
    if points is None:
        return None
    world = _sequence_from_truth(sequence, truth, align)
    levels = (variant or Variant()).used_levels
    return evaluate_correspondences(sequence, truth, points, world=world, levels=levels)


def evaluate_object_motion(
    sequence: GaussianSequence,
    truth: Scene,
    *,
    align: bool = False,
    variant: Variant | None = None,
) -> dict[str, Any] | None:
    """Measure the rotation and translation of each true object since the canonical frame.

    The true motion is the rigid one that fits the object's true tracks; an object of the fit
    belongs to the true one that most of the queried pixels say it does.

    Returns:
        `rotation_degrees` and `translation` (of the object's centre, in the truth's units): means
        over all other frames and the objects found; `found`, the share of the true objects that
        have one in the fit; and by object of the truth the same with the largest errors, the
        object of the fit, and `not_rigid`, how far (root mean square) its true points lie from
        any rigid motion. None where the scene has no true tracks on objects.
    """
    tracks = _true_tracks(truth)
    if tracks is None or not (tracks.object > 0).any():
        return None
    truth_from_sequence = _sequence_from_truth(sequence, truth, align).inverse()
    levels = (variant or Variant()).used_levels
    reference = sequence.canonical_frame
    labels = query_objects(sequence, tracks.query_frame, tracks.query_xy, levels=levels)
    frames = np.arange(len(truth))
    motions = object_motions(sequence, frames, levels=levels)
    rows: dict[str, Any] = {}
    for instance in np.unique(tracks.object[tracks.object > 0]).tolist():
        own = tracks.object == instance
        true_motion, not_rigid = rigid_motion(tracks.xyz[own], reference)
        row: dict[str, Any] = {"object": None, "not_rigid": not_rigid}
        found = labels[own & (labels > 0)]
        if len(found):
            label = int(np.bincount(found).argmax())
            since = motions[label] @ motions[label][reference].inverse()
            centre = tracks.xyz[own, reference].mean(0)
            degrees, apart = pose_errors(truth_from_sequence.conjugate(since), true_motion, centre)
            others = frames != reference
            row |= {
                "object": label,
                "rotation_degrees": float(degrees[others].mean()),
                "rotation_degrees_max": float(degrees.max()),
                "translation": float(apart[others].mean()),
                "translation_max": float(apart.max()),
            }
        rows[str(instance)] = row
    matched = [row for row in rows.values() if row["object"] is not None]
    return {
        **{
            key: float(np.mean([row[key] for row in matched])) if matched else float("nan")
            for key in ("rotation_degrees", "translation")
        },
        "found": len(matched) / len(rows),
        "objects": rows,
    }


def _true_tracks(truth: Scene) -> Tracks3D | None:
    return next((v.tracks3d for v in truth.views.values() if v.tracks3d is not None), None)


def _sequence_from_truth(sequence: GaussianSequence, truth: Scene, align: bool) -> Similarity:
    _check_clip(sequence, truth)
    return align_camera_paths(truth.cameras, sequence.cameras) if align else Similarity.identity()


def _check_clip(sequence: GaussianSequence, scene: Scene) -> None:
    if len(scene) != len(sequence.timeline):
        raise InputError(
            f"{scene.directory}: expected the {len(sequence.timeline)} frames of the fit, "
            f"got {len(scene)}"
        )


def _flicker(view: View, drawn: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    """Return the flicker of a view's renders, their truth and masks; NaN for a moving camera."""
    poses = view.cameras.cam_from_world[list(view.frames)]
    follow = list(view.frames) == list(range(view.frames[0], view.frames[-1] + 1))
    if len(drawn) < 2 or not follow or not np.allclose(poses, poses[0], atol=1e-6):
        return float("nan")
    return flicker(*(np.stack(part) for part in zip(*drawn, strict=True)))


def _image_row(
    image: RenderedImage, truth: np.ndarray, mask: np.ndarray, lpips: Lpips | None
) -> dict[str, float | None]:
    drawn, true = image.rgb8 / 255, truth / 255
    return {
        "mpsnr": masked_psnr(drawn, true, mask),
        "mssim": masked_ssim_dycheck(drawn, true, mask),
        "mlpips": lpips(drawn, true, mask) if lpips else None,
        "ssim": masked_ssim(drawn, true, mask),
        "covisible": float(mask.mean()),
    }


def _mean(rows: list[dict[str, float | None]]) -> dict[str, Any]:
    """Return the mean of each figure over the images; NaN where there is none.

    mLPIPS is None where its network was not there.
    """
    means: dict[str, Any] = {}
    for key in ("mpsnr", "mssim", "mlpips", "ssim", "covisible"):
        given = [row[key] for row in rows]
        # A figure may be NaN for an image: SSIM, where no whole window is covisible.
        values = [value for value in given if value is not None and not np.isnan(value)]
        nothing = None if key == "mlpips" else float("nan")
        means[key] = float(np.mean(values)) if values else nothing
    return {**means, "images": len(rows)}
