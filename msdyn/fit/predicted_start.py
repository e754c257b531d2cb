"""The start of a fit from a predicted sequence: its trajectories and its Gaussians.

The prediction is any Gaussian sequence of the same clip, such as that of `msdyn-predict`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from msdyn.errors import InputError
from msdyn.fit.data import FitData
from msdyn.fit.sampling import subsample
from msdyn.geometry import SH_C0, Similarity, nearest_pixels, project, transform_points
from msdyn.scene import LiftedObservations, Scene
from msdyn.sequence import Gaussians, GaussianSequence, load_sequence

__all__ = ["PredictedPoints", "load_prediction", "predicted_points", "predicted_tracks"]

_TRACKS = 3000
"""Trajectories per object from which patterns are estimated."""
_SAME_SURFACE = 0.1
"""Relative difference to the depth of a pixel up to which a point is visible there."""
_OPAQUE = 0.1


@dataclass(frozen=True)
class PredictedPoints:
    """Surface points of a prediction in one frame, in the world of the fit.

    Attributes:
        points: their positions.
        colours: RGB in [0, 1].
        labels: 0 static, 1..K the object whose mask has the point.
    """

    points: Float[np.ndarray, "points 3"]
    colours: Float[np.ndarray, "points 3"]
    labels: Int[np.ndarray, " points"]


def load_prediction(scene: Scene, fit_from_scene: Similarity) -> GaussianSequence:
    """Return the prediction of a scene directory, in the world of the fit.

    Raises:
        InputError: there is none, or it is of another clip.
    """
    predicted = load_sequence(scene.directory, source="predict")
    if len(predicted.timeline) != len(scene):
        raise InputError(
            f"{scene.directory / 'predict'}: expected a prediction of {len(scene)} frames, "
            f"got {len(predicted.timeline)}; repeat msdyn-predict"
        )
    return predicted.rescaled(fit_from_scene)


@torch.no_grad()
def predicted_tracks(
    predicted: GaussianSequence, data: FitData, rng: np.random.Generator
) -> LiftedObservations:
    """Return the trajectories of moving Gaussians of a prediction as lifted tracks.

    A point is visible where it projects onto the mask of an object, at about the depth there; its
    object is the one on which it is visible most often.

    Args:
        predicted: in the world of the fit.
        data: masks, depth and cameras of the fit.
        rng: of the choice of Gaussians.

    Raises:
        InputError: nothing moves in the prediction.
    """
    opaque = torch.nonzero(predicted.moving.opacities > _OPAQUE)[:, 0].numpy()
    if not len(opaque):
        raise InputError("init: expected moving Gaussians in the prediction, got none")
    limit = _TRACKS * max(1, len(_objects(data)))
    chosen = np.sort(rng.choice(opaque, min(limit, len(opaque)), replace=False))
    on = np.zeros((len(chosen), len(data.frames)), np.int16)
    places = []
    for number, frame in enumerate(data.frames):
        time = torch.tensor([float(frame)])
        points = predicted.paths(torch.from_numpy(chosen), time)[0].double().numpy()
        xy, on[:, number] = _seen(data, int(frame), points)
        rows = np.flatnonzero(on[:, number] > 0)
        places.append((rows, np.full(len(rows), number), points[rows], xy[rows]))
    labels = _most_frequent(on, _objects(data))
    track, number, xyz, xy = (np.concatenate(values) for values in zip(*places, strict=True))
    own = on[track, number] == labels[track]
    return LiftedObservations.from_unordered(
        len(data.frames),
        labels,
        track[own],
        number[own],
        xyz[own],
        xy[own],
        np.ones(int(own.sum()), np.float32),
    ).seen()


@torch.no_grad()
def predicted_points(
    predicted: GaussianSequence, data: FitData, frame: int, *, static: int, moving: int
) -> PredictedPoints:
    """Return about so many static and moving points of a prediction, evenly spread in the images.

    Moving points are those that are on the mask of an object in the frame, or occluded there or
    outside the image: these belong to the nearest point's object.

    Args:
        predicted: in the world of the fit.
        data: of the fit.
        frame: of the positions of moving points, an index in the clip.
        static, moving: numbers of points.
    """
    rest = _chosen(predicted.static, predicted.static.means, data, static)
    index = torch.arange(len(predicted.moving))
    means = predicted.paths(index, torch.tensor([float(frame)]))[0]
    own = _chosen(predicted.moving, means, data, moving)
    points = means.double().numpy()[own]
    _, labels = _seen(data, frame, points)
    known = np.flatnonzero(labels > 0)
    if len(known) and len(known) < len(labels):
        from scipy.spatial import KDTree

        nearest = np.asarray(KDTree(points[known]).query(points)[1])
        labels = np.where(labels > 0, labels, labels[known][nearest])
    kept = labels > 0
    colours = [
        (part.harmonics[:, 0].numpy() * SH_C0 + 0.5).clip(0, 1)
        for part in (predicted.static, predicted.moving)
    ]
    return PredictedPoints(
        np.concatenate([predicted.static.means.double().numpy()[rest], points[kept]]),
        np.concatenate([colours[0][rest], colours[1][own][kept]]),
        np.concatenate([np.zeros(len(rest), int), labels[kept]]),
    )


def _chosen(
    gaussians: Gaussians, means: Float[torch.Tensor, "gaussians 3"], data: FitData, count: int
) -> Int[np.ndarray, " chosen"]:
    """Return the indices of about `count` opaque Gaussians, evenly spread in the images."""
    opaque = np.flatnonzero((gaussians.opacities > _OPAQUE).numpy())
    points = means.double().numpy()[opaque]
    middle = data.frames[len(data.frames) // 2]
    local = transform_points(data.cameras.cam_from_world[middle], points)
    footprints = np.abs(local[:, 2]).clip(1e-3) / data.cameras.intrinsics[middle, 0, 0]
    return opaque[subsample(points, footprints, count)]


def _objects(data: FitData) -> Int[np.ndarray, " objects"]:
    return np.unique(data.tracks.object)


def _seen(
    data: FitData, frame: int, points: Float[np.ndarray, "points 3"]
) -> tuple[Float[np.ndarray, "points 2"], Int[np.ndarray, " points"]]:
    """Return the pixels of points in a frame, and the mask there; -1 where they are not visible."""
    cameras, depth = data.cameras, data.depth.numpy(frame)
    height, width = depth.shape
    local = transform_points(cameras.cam_from_world[frame], points)
    with np.errstate(divide="ignore", invalid="ignore"):
        xy = project(cameras.intrinsics[frame], local)
    row, column, inside = nearest_pixels(xy, height, width)
    seen = depth[row, column]
    near: Bool[np.ndarray, " points"] = (
        inside
        & (local[:, 2] > 0)
        & (seen > 0)
        & (np.abs(local[:, 2] - seen) < _SAME_SURFACE * seen)
    )
    mask = data.mask.numpy(frame)[row, column].astype(int)
    return np.nan_to_num(xy, posinf=0.0, neginf=0.0), np.where(near, mask, -1)


def _most_frequent(
    on: Int[np.ndarray, "points frames"], objects: Int[np.ndarray, " objects"]
) -> Int[np.ndarray, " points"]:
    """Return the object on which each point is visible most often, 0 for none."""
    if not len(objects):
        return np.zeros(len(on), int)
    counts = np.stack([(on == label).sum(1) for label in objects], axis=1)
    return np.where(counts.max(1) > 0, objects[counts.argmax(1)], 0)
