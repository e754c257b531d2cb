"""Evaluation of a fit on held-out cameras, frames of the clip, true tracks and object motion.

Images are compared as they are saved, with 8 bits per channel. Nothing is optimised at test time,
neither cameras nor colours, unless `evaluate_views` is asked to optimise the held-out cameras.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from msdyn.errors import InputError
from msdyn.evaluate.camera_search import CameraSearch
from msdyn.evaluate.correspondences import evaluate_correspondences, find_correspondences
from msdyn.evaluate.image_metrics import masked_psnr, masked_ssim, masked_ssim_dycheck
from msdyn.evaluate.lpips import Lpips
from msdyn.evaluate.object_motion import pose_errors, rigid_motion
from msdyn.evaluate.temporal import acceleration_error, flicker, jitter
from msdyn.evaluate.tracking import epe3d
from msdyn.evaluate.variant import Variant
from msdyn.geometry import Similarity, align_camera_paths
from msdyn.progress import Progress, track
from msdyn.render import RenderedImage, query_objects, query_tracks
from msdyn.scene import IGNORE, STATIC, Scene, Tracks3D, View, read_keypoints
from msdyn.sequence import GaussianSequence, object_motions

__all__ = [
    "evaluate_frames",
    "evaluate_object_motion",
    "evaluate_points",
    "evaluate_tracks",
    "evaluate_views",
]


def evaluate_views(
    sequence: GaussianSequence,
    truth: Scene,
    *,
    align: bool = False,
    variant: Variant | None = None,
    lpips: Lpips | None = None,
    keep: Callable[[View, int, RenderedImage], None] | None = None,
    test_time_cameras: bool = False,
) -> dict[str, Any]:
    """Evaluate renders of the held-out cameras of a scene.

    Args:
        sequence: the fit.
        truth: scene with `views/`; its world is that of the fit unless `align`.
        align: align the two worlds first by a similarity between their input cameras (for
            cameras estimated from the video alone).
        variant: the motion to evaluate; all of it by default.
        lpips: the network of mLPIPS; without it, that metric is None.
        keep: called with every view, frame and render, to save pictures.
        test_time_cameras: optimise the camera of each image on its covisible pixels before it is
            rendered, see `camera_search.py`.

    Returns:
        Mean `mpsnr`, `mssim`, `mlpips` (DyCheck's), `ssim` (covisible pixels only), `covisible`
        (share of covisible pixels), `flicker` (temporal change of static pixels, for a static
        camera), number of `images`, and the same under `views` for each view. Images without any
        covisible pixel are left out. With `test_time_cameras` also `camera_degrees` and
        `camera_shift` (the truth's units), the mean change of the cameras, and no `flicker`.

    Raises:
        InputError: no held-out views, or a truth of another clip.
    """
    if not truth.views:
        raise InputError(f"{truth.directory / 'views'}: no held-out views to evaluate on")
    variant = variant or Variant()
    world = _sequence_from_truth(sequence, truth, align)
    by_view: dict[str, dict[str, Any]] = {}
    all_rows: list[dict[str, float | None]] = []
    name = "cameras of held-out views" if test_time_cameras else "held-out views"
    progress = Progress(name, sum(len(v.frames) for v in truth.views.values()), "image")
    for view in truth.views.values():
        cameras = view.cameras.transformed(world)
        search = CameraSearch() if test_time_cameras else None
        rows, images = [], []
        for frame in view.frames:
            camera, changes = cameras[frame], {}
            if search is not None:
                found = variant.find(search, sequence, camera, view, frame)
                camera = found.camera
                changes = {"camera_degrees": found.degrees}
                changes["camera_shift"] = found.shift / world.scale
            image = variant.render(sequence, camera, frame, time=view.times.get(frame))
            if keep is not None:
                keep(view, frame, image)
            mask = view.covisible(frame)
            images.append((image.rgb8, view.image(frame), mask))
            if mask.any():
                rows.append(_image_row(image, view.image(frame), mask, lpips) | changes)
            progress.update()
        by_view[view.name] = _mean(rows)
        if search is None:
            by_view[view.name]["flicker"] = _flicker(view, images)
        all_rows += rows
    progress.close()
    if test_time_cameras:
        return {**_mean(all_rows), "views": by_view}
    flickers = [v["flicker"] for v in by_view.values() if not np.isnan(v["flicker"])]
    result = _mean(all_rows) | {"flicker": float(np.mean(flickers)) if flickers else float("nan")}
    return {**result, "views": by_view}


def evaluate_frames(
    sequence: GaussianSequence,
    scene: Scene,
    frames: list[int],
    *,
    variant: Variant | None = None,
    lpips: Lpips | None = None,
    keep: Callable[[int, RenderedImage], None] | None = None,
) -> dict[str, Any]:
    """Evaluate renders of frames of the clip itself, each at its own time and camera.

    They have the exposure of the fit, where it has one: that of a held-out frame is
    taken from its neighbours, not optimised.

    Args:
        sequence: the fit.
        scene: with the input images.
        frames: indices of the frames to evaluate.
        variant, lpips, keep: as for `evaluate_views`.

    Returns:
        Mean `mpsnr`, `mssim`, `mlpips`, `ssim` over the `images`; `psnr_moving` and `psnr_static`,
        the means over frames of the PSNR of moving and of static pixels only, where the scene has
        masks; and, under `frames`, the PSNR of each.
    """
    _check_clip(sequence, scene)
    variant = variant or Variant()
    rows, psnr = [], {}
    by_motion: dict[str, list[float]] = {"psnr_moving": [], "psnr_static": []}
    has_masks = (scene.directory / "masks").is_dir()
    for frame in track(frames, "frames of the clip"):
        image = variant.render(sequence, sequence.cameras[frame], frame, exposure=True)
        if keep is not None:
            keep(frame, image)
        truth = scene.image(frame)
        row = _image_row(image, truth, np.ones(scene.size, bool), lpips)
        psnr[str(frame)] = row["mpsnr"]
        rows.append(row)
        mask = scene.mask(frame) if has_masks else np.full(scene.size, IGNORE)
        moves = (mask != STATIC) & (mask != IGNORE)
        for name, pixels in (("psnr_moving", moves), ("psnr_static", mask == STATIC)):
            if pixels.any():
                by_motion[name].append(masked_psnr(image.rgb8 / 255, truth / 255, pixels))
    means = {name: float(np.mean(found)) if found else None for name, found in by_motion.items()}
    return {**_mean(rows), **means, "frames": psnr}


def evaluate_tracks(
    sequence: GaussianSequence,
    truth: Scene,
    *,
    align: bool = False,
    variant: Variant | None = None,
) -> dict[str, Any] | None:
    """Evaluate the 3D trajectories of points of the clip against true ones.

    Args:
        sequence, truth, align, variant: as for `evaluate_views`.

    Returns:
        `epe3d` (mean error in the truth's units over all frames, occluded ones included), the same
        for `moving` points only, for `visible` positions only, and for positions `blended` over all
        Gaussians at the pixel, as published evaluations do; `jitter` of static points and
        `acceleration_error` of moving ones; number of `tracks` and the share `drawn` for which the
        fit has a trajectory. None where the scene has no true tracks.
    """
    tracks = _true_tracks(truth)
    if tracks is None:
        return None
    variant = variant or Variant()
    truth_from_sequence = _sequence_from_truth(sequence, truth, align).inverse()

    def estimated(
        rows: Bool[np.ndarray, " tracks"], *, blended: bool
    ) -> Float[np.ndarray, "chosen frames 3"]:
        tracks_of_fit = query_tracks(
            sequence,
            tracks.query_frame[rows],
            tracks.query_xy[rows],
            levels=variant.used_levels,
            blended=blended,
        )
        return truth_from_sequence.apply(tracks_of_fit)

    moving = tracks.object > 0
    estimate = estimated(np.ones(len(moving), bool), blended=False)
    valid = np.isfinite(estimate).all((1, 2))
    moved = moving & valid

    def error(
        rows: Bool[np.ndarray, " tracks"], visible: Bool[np.ndarray, "tracks frames"] | None = None
    ) -> float:
        rows = rows & valid
        return epe3d(estimate[rows], tracks.xyz[rows], None if visible is None else visible[rows])

    return {
        "epe3d": error(np.ones(len(moving), bool)),
        "epe3d_moving": error(moving),
        "epe3d_moving_visible": error(moving, tracks.visible),
        "epe3d_moving_blended": epe3d(estimated(moved, blended=True), tracks.xyz[moved]),
        "jitter": jitter(estimate[~moving & valid]),
        "acceleration_error": acceleration_error(estimate[moved], tracks.xyz[moved]),
        "tracks": len(moving),
        "drawn": float(valid.mean()),
    }


def evaluate_points(
    sequence: GaussianSequence,
    truth: Scene,
    *,
    align: bool = False,
    variant: Variant | None = None,
) -> dict[str, Any] | None:
    """Evaluate the transfer of points between key frames; see `evaluate_correspondences`.

    The points are the scene's keypoints where it has some, otherwise its true tracks in ten evenly
    spaced frames; None where it has neither.

    Args:
        sequence, truth, align, variant: as for `evaluate_views`.
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
    """Evaluate the rotation and translation of each true object since the canonical frame.

    The true motion is the rigid one that fits the object's true tracks best. A true object is
    matched to the object of the fit at most of its query pixels.

    Args:
        sequence, truth, align, variant: as for `evaluate_views`.

    Returns:
        Errors `rotation_degrees` and `translation` (of the object's centre, in the truth's units):
        means over all other frames and the matched objects; `found`, the share of the true objects
        that are matched; and under `objects`, for each true object, the same with the largest
        errors, the `object` of the fit, and `not_rigid`, the root mean square distance of its true
        points from the rigid motion. None where the scene has no true tracks on objects.
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
        candidates = labels[own & (labels > 0)]
        if len(candidates):
            label = int(np.bincount(candidates).argmax())
            since = motions[label] @ motions[label][reference].inverse()
            centre = tracks.xyz[own, reference].mean(0)
            degrees, distances = pose_errors(
                truth_from_sequence.conjugate(since), true_motion, centre
            )
            others = frames != reference
            row |= {
                "object": label,
                "rotation_degrees": float(degrees[others].mean()),
                "rotation_degrees_max": float(degrees.max()),
                "translation": float(distances[others].mean()),
                "translation_max": float(distances.max()),
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


def _flicker(
    view: View,
    images: list[
        tuple[
            UInt8[np.ndarray, "height width 3"],
            UInt8[np.ndarray, "height width 3"],
            Bool[np.ndarray, "height width"],
        ]
    ],
) -> float:
    """Return the flicker of a view's renders, given with truth and mask; NaN if it moves."""
    poses = view.cameras.cam_from_world[list(view.frames)]
    successive = list(view.frames) == list(range(view.frames[0], view.frames[-1] + 1))
    if len(images) < 2 or not successive or not np.allclose(poses, poses[0], atol=1e-6):
        return float("nan")
    return flicker(*(np.stack(part) for part in zip(*images, strict=True)))


def _image_row(
    image: RenderedImage,
    truth: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    lpips: Lpips | None,
) -> dict[str, float | None]:
    """Return the metrics of one image."""
    rendered, true = image.rgb8 / 255, truth / 255
    return {
        "mpsnr": masked_psnr(rendered, true, mask),
        "mssim": masked_ssim_dycheck(rendered, true, mask),
        "mlpips": lpips(rendered, true, mask) if lpips else None,
        "ssim": masked_ssim(rendered, true, mask),
        "covisible": float(mask.mean()),
    }


def _mean(rows: list[dict[str, float | None]]) -> dict[str, Any]:
    """Return the mean of each metric over the images; NaN without images.

    mLPIPS is None without its network.
    """
    means: dict[str, Any] = {}
    changes = [key for key in ("camera_degrees", "camera_shift") if rows and key in rows[0]]
    for key in ("mpsnr", "mssim", "mlpips", "ssim", "covisible", *changes):
        computed = [row[key] for row in rows]
        # SSIM is NaN for an image without a whole covisible window.
        values = [value for value in computed if value is not None and not np.isnan(value)]
        empty = None if key == "mlpips" else float("nan")
        means[key] = float(np.mean(values)) if values else empty
    return {**means, "images": len(rows)}
