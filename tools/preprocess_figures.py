"""Figures of preprocessing: the results in a scene against what is known of its clip.

The keys:

    iou            mean over frames of the intersection over union of all moving pixels
    iou_objects    per true object, of the one mask label that overlaps it most over the clip
    pck            share of joints within .1 and .2 of the root of the mask's area: `hop` from one
                   annotated frame to the next, `clip` from a joint's first frame to all later ones;
                   a joint is tracked without ever being given up
    track error    px, of visible positions, by age in frames; `lost`: share of those whose true
                   point is occluded (or that have drifted to another surface)
    cameras        `path`: root mean square distance of the aligned centres from the true ones, as a
                   share of the path's length; `turn_degrees`: mean error of the orientation
    depth          relative error, in the scale of the aligned cameras, separately for static pixels
                   and each object; `bias` is the median of estimate / truth
    photometric    mean difference (of 255 levels) of static pixels and their reprojections four
                   frames before and after, 256 px wide; `flat`: with one depth per frame instead
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Real, UInt8

from msdyn.geometry import (
    Cameras,
    align_camera_paths,
    project,
    similarity_from_points,
    transform_points,
    unproject,
)
from msdyn.preprocess.imaging.flow import estimate_flow, follow_points, grey, refine_points
from msdyn.preprocess.tracks.chained_flow import FlowTracks
from msdyn.scene import Scene, Tracks
from msdyn.synthetic import SceneSpec

__all__ = [
    "camel_figures",
    "camera_figures",
    "depth_figures",
    "llff_cameras",
    "photometric_figures",
    "stage_figures",
    "truth_figures",
]

Masks = Bool[np.ndarray, "frames height width"]
Image = Real[np.ndarray, "_height _width"]


def stage_figures(scene: Scene) -> dict[str, Any]:
    """Return seconds per frame and the quality figures of the finished stages."""
    stages = scene.info.stages
    return {
        "seconds_a_frame": {k: round(v["seconds"] / len(scene), 3) for k, v in stages.items()},
        "quality": {k: v["quality"] for k, v in stages.items() if v["quality"]},
    }


def camel_figures(scene: Scene, clips: Path) -> dict[str, Any]:
    """Return mask overlap and joint accuracy on camel."""
    import imageio.v3 as iio

    files = sorted((clips / "camel_masks").glob("*.png"))
    truth = np.stack([iio.imread(file) > 0 for file in files])
    joints = json.loads((clips / "camel_joints.json").read_text(encoding="utf-8"))
    frames = [int(Path(record["image_path"]).stem) for record in joints]
    # (y, x) at 1080 lines.
    xy = np.array([record["joints"] for record in joints], np.float32)[..., ::-1] * (480 / 1080)
    visible = np.array([record["visibility"] for record in joints], bool)
    root_area = np.sqrt(truth[frames].sum((1, 2)))
    starts = [(f, xy[i][visible[i]]) for i, f in enumerate(frames)]
    paths = follow_queries(scene, starts)  # by annotation: [T, visible joints, 2]

    hop, clip = [], []
    first = visible.argmax(0)
    for i in range(len(frames)):
        column_of = np.cumsum(visible[i]) - 1
        for j in range(i + 1, len(frames)):
            both = visible[i] & visible[j]
            error = paths[i][frames[j]][column_of[both]] - xy[j][both]
            error = np.linalg.norm(error, axis=1) / root_area[j]
            if j == i + 1:
                hop.append(error)
            clip.append(error[first[both] == i])
    return {
        "iou": round(float(np.mean(overlaps(scene.masks() > 0, truth))), 4),
        "pck": {
            name: {str(a): round(float((np.concatenate(e) < a).mean()), 4) for a in (0.2, 0.1)}
            for name, e in (("hop", hop), ("clip", clip))
        },
    }


def llff_cameras(path: Path) -> Cameras:
    """Return the cameras of a JSON of LLFF poses, whose columns point right, up and backwards."""
    poses = json.loads(path.read_text(encoding="utf-8"))["poses"]
    rows = np.array(poses, np.float64).reshape(-1, 3, 5)
    world_from_cam = np.tile(np.eye(4), (len(rows), 1, 1))
    world_from_cam[:, :3, :3] = rows[:, :, :3] * [1, -1, -1]
    world_from_cam[:, :3, 3] = rows[:, :, 3]
    height, width, focal = rows[0, :, 4]
    return Cameras.pinhole(focal, int(width), int(height), np.linalg.inv(world_from_cam))


def camera_figures(found: Cameras, true: Cameras) -> dict[str, float]:
    """Return the errors of cameras after alignment to the true ones by a similarity."""
    from scipy.spatial.transform import Rotation

    true_from_found = similarity_from_points(found.centres, true.centres)
    offsets = found.transformed(true_from_found).centres - true.centres
    length = np.linalg.norm(np.diff(true.centres, axis=0), axis=1).sum()
    true_from_found = align_camera_paths(found, true)
    rotations = found.transformed(true_from_found).cam_from_world[:, :3, :3]
    errors = rotations @ true.cam_from_world[:, :3, :3].swapaxes(1, 2)
    return {
        "path": round(float(np.sqrt((offsets**2).sum(1).mean()) / length), 5),
        "turn_degrees": round(
            float(np.degrees(Rotation.from_matrix(errors).magnitude()).mean()), 3
        ),
        "focal_ratio": round(float(found.intrinsics[0, 0, 0] / true.intrinsics[0, 0, 0]), 4),
    }


def depth_figures(scene: Scene, truth: Scene) -> dict[str, Any]:
    """Return the relative error of depth, for static and moving pixels apart."""
    scale = similarity_from_points(scene.cameras.centres, truth.cameras.centres).scale
    ratios: dict[str, list[np.ndarray]] = {"static": []}
    for frame in range(len(scene)):
        depth, exact, mask = scene.depth(frame), truth.depth(frame), truth.mask(frame)
        known = (depth > 0) & (exact > 0)
        for label in np.unique(mask[known]).tolist():
            ratio = scale * depth[known & (mask == label)] / exact[known & (mask == label)]
            ratios.setdefault(str(label) if label else "static", []).append(ratio)
    result = {}
    for name, parts in ratios.items():
        ratio = np.concatenate(parts)
        error = np.abs(ratio - 1)
        result[name] = {
            "median": round(float(np.median(error)), 4),
            "mean": round(float(error.mean()), 4),
            "over_10_percent": round(float((error > 0.1).mean()), 4),
            "bias": round(float(np.median(ratio)), 4),
        }
    return result


def photometric_figures(scene: Scene) -> dict[str, float]:
    """Return the mean difference of static pixels and their reprojections in other frames."""
    import cv2

    width, gap = 256, 4
    height = round(width * scene.info.height / scene.info.width)
    cameras = scene.cameras.resized(width, height)

    def small(image: Image, how: int = cv2.INTER_NEAREST) -> Image:
        return cv2.resize(image, (width, height), interpolation=how)

    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    pixels = np.stack([columns.ravel(), rows.ravel()], 1)
    pictures = [
        small(cv2.cvtColor(scene.image(t), cv2.COLOR_RGB2GRAY).astype(np.float32), cv2.INTER_AREA)
        for t in range(len(scene))
    ]
    moving = [(small(scene.mask(t)) > 0).astype(np.float32) for t in range(len(scene))]
    errors: dict[str, list[float]] = {"depth": [], "flat": []}
    for t in range(len(scene)):
        depth = small(scene.depth(t))
        known = depth > 0
        median = np.full_like(depth, np.median(depth[known]))
        for name, used in (("depth", depth), ("flat", median)):
            rays = unproject(cameras.intrinsics[t], pixels, used.ravel())
            world = transform_points(cameras.world_from_cam[t], rays)
            for other in (t - gap, t + gap):
                if not 0 <= other < len(scene):
                    continue
                local = transform_points(cameras.cam_from_world[other], world)
                at = project(cameras.intrinsics[other], local).reshape(height, width, 2)
                at = (at - 0.5).astype(np.float32)  # cv2 puts pixel centres at 0
                maps = at[..., 0], at[..., 1]
                inside = ((at >= 0) & (at <= (width - 1, height - 1))).all(-1)
                inside &= (local[:, 2] > 0).reshape(height, width)
                reprojected = cv2.remap(pictures[other], *maps, cv2.INTER_LINEAR)
                static = cv2.remap(moving[other], *maps, cv2.INTER_LINEAR) + moving[t] < 0.01
                counts = inside & static & known
                if counts.any():
                    errors[name].append(float(np.abs(reprojected - pictures[t])[counts].mean()))
    return {name: round(float(np.mean(values)), 3) for name, values in errors.items() if values}


def follow_queries(
    scene: Scene, starts: list[tuple[int, Float[np.ndarray, "points 2"]]]
) -> list[Float[np.ndarray, "frames points 2"]]:
    """Return the paths (px) of points started in given frames, tracked like `FlowTracks` does."""
    anchor = FlowTracks().anchor_frames
    images = deque([grey(scene.image(0))], maxlen=anchor + 1)
    paths = [np.full((len(scene), len(xy), 2), np.nan, np.float32) for _, xy in starts]
    for path, (frame, xy) in zip(paths, starts, strict=True):
        path[frame] = xy
    for frame in range(1, len(scene)):
        images.append(grey(scene.image(frame)))
        pair = estimate_flow(images[-2], images[-1])
        for path, (start, _) in zip(paths, starts, strict=True):
            if frame > start:
                path[frame] = follow_points(pair, path[frame - 1])[0]
            if frame >= start + anchor:
                path[frame] = refine_points(
                    images[0], images[-1], path[frame - anchor], path[frame]
                )
    return paths


def truth_figures(scene: Scene, spec: SceneSpec) -> dict[str, Any]:
    """Return mask overlap per object and track errors on a synthetic clip."""
    from msdyn.synthetic.raycast import Caster, rays_through

    caster = Caster(spec)
    tracks, masks = scene.tracks, scene.masks()
    error = np.zeros((len(tracks), len(scene)))
    occluded = np.zeros((len(tracks), len(scene)), bool)
    owner = np.zeros(len(tracks), int)
    truth = np.zeros_like(masks)
    rows, columns = np.mgrid[0 : scene.info.height, 0 : scene.info.width] + 0.5
    pixels = np.stack([columns.ravel(), rows.ravel()], 1)
    for query, camera in enumerate(spec.cameras):
        centre = camera.centres[0]
        points, _ = caster.mesh(query).cast(centre, rays_through(camera, pixels))
        truth[query] = caster.face_object[points.face].reshape(scene.size)
        own = np.flatnonzero(tracks.query_frame == query)
        xy = tracks.look_up(own, query)[0].astype(np.float64)
        points, _ = caster.mesh(query).cast(centre, rays_through(camera, xy))
        owner[own] = caster.face_object[points.face]
        for frame in range(query, len(scene)):
            later = spec.cameras[frame]
            local = transform_points(later.cam_from_world[0], caster.positions(frame, points))
            true_xy = project(later.intrinsics[0], local)
            error[own, frame] = np.linalg.norm(tracks.look_up(own, frame)[0] - true_xy, axis=1)
            occluded[own, frame] = ~caster.visible(frame, later, points)
    return {
        "iou": round(float(np.mean(overlaps(masks > 0, truth > 0))), 4),
        "iou_objects": object_overlaps(masks, truth),
        "tracks": track_figures(tracks, error, occluded, owner),
    }


def object_overlaps(
    masks: UInt8[np.ndarray, "frames height width"], truth: UInt8[np.ndarray, "frames height width"]
) -> dict[str, float]:
    """Return the overlap over the whole clip of each true object with its best label."""
    labels = np.unique(masks[(masks > 0) & (masks < 255)])
    return {
        str(k): round(
            max([float(overlaps(masks == i, truth == k, whole=True)) for i in labels] or [0]), 4
        )
        for k in np.unique(truth[truth > 0])
    }


def track_figures(
    tracks: Tracks,
    error: Float[np.ndarray, "tracks frames"],
    occluded: Bool[np.ndarray, "tracks frames"],
    owner: Int[np.ndarray, " tracks"],
) -> dict[str, Any]:
    """Return errors (px) of visible positions by age, for static and moving points separately."""
    age = np.arange(tracks.num_frames) - tracks.query_frame[:, None]
    confidence = tracks.confidence
    result: dict[str, Any] = {}
    for name, chosen in (("static", owner == 0), ("moving", owner > 0)):
        visible = tracks.visible & chosen[:, None] & (age > 0)
        confident = visible & (confidence > np.median(confidence[visible]))
        result[name] = {
            "lost": round(float(occluded[visible].mean()), 4),
            "median_px": {
                str(a): round(float(np.median(error[visible & (age == a)])), 3)
                for a in (1, 5, 10, 20)
                if (visible & (age == a)).any()
            },
            "over_2_px": round(float((error[visible] > 2).mean()), 4),
            "over_2_px_confident_half": round(float((error[confident] > 2).mean()), 4),
        }
    assigned = tracks.object >= 0
    result["object_known"] = round(float(assigned.mean()), 4)
    result["on_wrong_side"] = round(
        float(((tracks.object[assigned] > 0) != (owner[assigned] > 0)).mean()), 4
    )
    return result


def overlaps(a: Masks, b: Masks, *, whole: bool = False) -> Float[np.ndarray, "*shape"]:
    """Return the intersection over union of masks, per frame or over the whole clip."""
    axes = None if whole else (1, 2)
    union = (a | b).sum(axes)
    return np.where(union, (a & b).sum(axes) / np.maximum(union, 1), 1.0)
