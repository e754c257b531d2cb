"""Motion models that know the truth of a synthetic scene: how much of an error is of the motion.

    true-motion     every Gaussian is fixed to a point of the true surface and moves with it
    true-patterns   the hierarchy, fitted to true trajectories of the points that the tracks show

Neither changes in a fit, which optimises appearance and canonical positions only. `use_truth` names
the scene before a fit; a result keeps the trajectories that it uses, and needs no scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from scipy.spatial import KDTree
from torch import Tensor, nn

from msdyn.errors import InputError
from msdyn.fit import LossConfig
from msdyn.geometry import (
    Similarity,
    multiply_quats_wxyz,
    quats_wxyz_from_rotations,
)
from msdyn.motion import Motion, MotionLearningRates, Pose, TrackedMotion, TrackedScene
from msdyn.motion.config import MotionConfig
from msdyn.motion.keys import interpolate_keys, key_position
from msdyn.motion.models.hierarchical import MotionField
from msdyn.motion.registry import register_motion
from msdyn.reading import StoredTensors
from msdyn.scene import LiftedTracks
from msdyn.synthetic import SceneSpec
from msdyn.synthetic.raycast import Caster, SurfacePoints

__all__ = [
    "TrueMotion",
    "TruePatterns",
    "TrueSurface",
    "face_rotations",
    "fit_to_trajectories",
    "use_truth",
]

# Points of the true surface of all moving objects together: 3 mm apart on objects of these scenes.
_SAMPLES = 30_000
# Distance, in the world of the fit, beyond which a track is of another surface: an outlier.
_OUTLIER = 0.05
_PATTERN_STEPS = 300


@dataclass(frozen=True)
class TrueSurface:
    """Points of the moving surfaces of a scene at all its frames.

    Attributes:
        positions: in the world of the fit.
        rotations: of the surface at each point since the first frame.
        object: mask index of each point.
    """

    positions: Float[Tensor, "frames samples 3"]
    rotations: Float[Tensor, "frames samples 3 3"]
    object: Int[np.ndarray, " samples"]

    @classmethod
    def of(cls, spec: SceneSpec, world: Similarity, samples: int = _SAMPLES) -> TrueSurface:
        """Sample the moving surfaces uniformly; `world` is fit_from_scene."""
        caster = Caster(spec)
        faces = np.flatnonzero(caster.face_object > 0)
        area = np.linalg.norm(caster.face_normals(0, faces), axis=-1)
        rng = np.random.default_rng(spec.seed)
        face = rng.choice(faces, samples, p=area / area.sum())
        points = SurfacePoints(face, rng.dirichlet(np.ones(3), samples))
        positions = [world.apply(caster.positions(t, points)) for t in range(spec.frames)]
        used, own = np.unique(face, return_inverse=True)
        rotations = face_rotations(caster, used)[:, own]
        return cls(
            torch.from_numpy(np.stack(positions)).float(),
            torch.from_numpy(rotations).float(),
            caster.face_object[face],
        )

    def nearest(
        self, points: Float[np.ndarray, "points 3"], objects: Int[np.ndarray, " points"], frame: int
    ) -> Int[np.ndarray, " points"]:
        """Return the sample of the same object nearest to each point at a frame."""
        found = np.zeros(len(points), int)
        for instance in np.unique(objects):
            own = np.flatnonzero(self.object == instance)
            rows = objects == instance
            tree = KDTree(self.positions[frame].numpy()[own])
            found[rows] = own[np.asarray(tree.query(points[rows])[1])]
        return found


def face_rotations(
    caster: Caster, faces: Int[np.ndarray, " faces"]
) -> Float[np.ndarray, "frames faces 3 3"]:
    """Return the rotation of each face since the first frame: the polar part of its deformation."""

    def edges(frame: int) -> Float[np.ndarray, "faces 3 3"]:
        a, b, c = np.moveaxis(caster.vertices[frame][caster.faces[faces]], 1, 0)
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal, axis=-1, keepdims=True).clip(1e-12)
        # The normal has the length of an edge, so that thin faces are as well conditioned.
        return np.stack([b - a, c - a, normal / np.sqrt(length)], -1)

    rest = np.linalg.pinv(edges(0))
    rotations = []
    for frame in range(len(caster.vertices)):
        u, _, vt = np.linalg.svd(edges(frame) @ rest)
        u[..., -1] *= np.sign(np.linalg.det(u @ vt))[..., None]
        rotations.append(u @ vt)
    return np.stack(rotations)


_TRUTH: list[TrueSurface] = []


def use_truth(spec: SceneSpec, world: Similarity) -> None:
    """Name the scene of the next fits in this process; `world` is fit_from_scene."""
    _TRUTH[:] = [TrueSurface.of(spec, world)]


Self = TypeVar("Self", bound="TrueMotion")


@register_motion("true-motion")
class TrueMotion(Motion):
    """Gaussians fixed to points of the true surface, with their positions and rotations.

    A Gaussian is fixed to the surface point nearest to it at the frame at which it was observed; it
    keeps its offset from that point in the frame of the surface.
    """

    def __init__(
        self,
        surface: TrueSurface,
        binding: Int[Tensor, " gaussians"],
        bound: Shaped[Tensor, " gaussians"],
        canonical: int,
        key_frames: Float[Tensor, " keys"],
    ) -> None:
        super().__init__()
        self._surface, self._canonical = surface, canonical
        self._binding, self._bound, self._keys = binding, bound, key_frames.float()

    @classmethod
    def from_tracks(cls, scene: TrackedScene, config: MotionConfig) -> TrackedMotion:
        surface = _of_frames(scene)
        tracks = scene.tracks
        # The middle one of the frames in which a track is visible is rarely at an occlusion.
        middle = np.array([np.flatnonzero(v)[v.sum() // 2] for v in tracks.visible], int)
        binding = np.zeros(len(tracks), int)
        for frame in np.unique(middle):
            own = middle == frame
            binding[own] = surface.nearest(tracks.xyz[own, frame], tracks.object[own], int(frame))
        true = surface.positions[:, binding].transpose(0, 1)
        error = np.linalg.norm(true.numpy() - tracks.xyz, axis=-1)
        inlier = tracks.visible & (error < _OUTLIER)
        motion = cls(
            surface,
            torch.from_numpy(binding),
            torch.ones(len(tracks), dtype=torch.bool),
            scene.canonical,
            torch.as_tensor(scene.key_frames),
        )
        weights = np.where(inlier, tracks.confidence, 0.0)
        return TrackedMotion(motion, true[:, scene.canonical], torch.from_numpy(weights).float())

    def __len__(self) -> int:
        return len(self._binding)

    @property
    def key_frames(self) -> Float[Tensor, " keys"]:
        return self._keys

    def pose(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        frames: Float[Tensor, " times"],
        levels: int | None = None,
    ) -> Pose:
        self._bind(points, self._canonical)
        times, count = len(frames), len(points)
        if levels == 0:
            identity = torch.eye(3).expand(times, count, 3, 3)
            return Pose(identity, points.expand(times, -1, -1), quats_wxyz.expand(times, -1, -1))
        anchor = self._surface.positions[self._canonical, self._binding]
        position = interpolate_keys(
            self._surface.positions[:, self._binding].transpose(0, 1), self._keys, frames
        ).transpose(0, 1)  # [B, G, 3]
        rotation = self._rotations(frames)
        means = position + (rotation @ (points - anchor)[..., None])[..., 0]
        quats = multiply_quats_wxyz(quats_wxyz_from_rotations(rotation), quats_wxyz)
        return Pose(rotation, means, quats)

    def undo(
        self, points: Float[Tensor, "gaussians 3"], frame: float
    ) -> Float[Tensor, "gaussians 3"]:
        at = points.new_tensor([frame])
        key = int(key_position(self._keys, at)[0].round())
        self._bind(points, key)
        offset = points - self._surface.positions[key, self._binding]
        rotation = self._rotations(at)[0].transpose(-1, -2)
        anchor = self._surface.positions[self._canonical, self._binding]
        return anchor + (rotation @ offset[..., None])[..., 0]

    def _rotations(self, frames: Float[Tensor, " times"]) -> Float[Tensor, "times gaussians 3 3"]:
        """Return rotations since the canonical frame; between key frames those of the nearest."""
        key = key_position(self._keys, frames).round().long()
        start = self._surface.rotations[self._canonical, self._binding]
        own = self._surface.rotations[key][:, self._binding]
        return own @ start.transpose(-1, -2)

    def _bind(self, points: Float[Tensor, "gaussians 3"], key: int) -> None:
        """Fix Gaussians that are new to the surface nearest to them at a key frame."""
        new = ~self._bound
        if bool(new.any()):
            objects = self._surface.object[self._binding[new].numpy()]
            nearest = self._surface.nearest(points.detach()[new].numpy(), objects, key)
            # In place: density control holds the same tensors.
            self._binding[new] = torch.from_numpy(nearest)
            self._bound[:] = True

    def gaussian_parameters(self) -> dict[str, nn.Parameter]:
        return {}

    def gaussian_constants(self) -> dict[str, Shaped[Tensor, "gaussians ..."]]:
        return {"binding": self._binding, "bound": self._bound}

    def set_gaussians(
        self,
        parameters: dict[str, nn.Parameter],
        constants: dict[str, Shaped[Tensor, "gaussians ..."]],
    ) -> None:
        self._binding, self._bound = constants["binding"], constants["bound"]

    def with_gaussians(
        self: Self,
        parameters: dict[str, Float[Tensor, "gaussians ..."]],
        constants: dict[str, Shaped[Tensor, "gaussians ..."]],
    ) -> Self:
        binding, bound = constants["binding"], constants["bound"]
        return type(self)(self._surface, binding, bound, self._canonical, self._keys)

    def mixed(
        self: Self,
        index: Int[Tensor, "points near"],
        weights: Float[Tensor, "points near"],
    ) -> Self:
        """Return Gaussians of the objects of the nearest ones, fixed where they are first used."""
        first = index.gather(1, weights.argmax(1, keepdim=True))[:, 0]
        binding, bound = self._binding[first], torch.zeros(len(first), dtype=torch.bool)
        return type(self)(self._surface, binding, bound, self._canonical, self._keys)

    def learning_rates(self, rates: MotionLearningRates) -> dict[str, float]:
        return {}

    def rescaled(self: Self, world: Similarity) -> Self:
        scaled = world.apply(self._surface.positions.double().numpy())
        surface = TrueSurface(
            torch.from_numpy(scaled).float(), self._surface.rotations, self._surface.object
        )
        return type(self)(surface, self._binding, self._bound, self._canonical, self._keys)

    def tensors(self) -> dict[str, Tensor]:
        used, binding = torch.unique(self._binding, return_inverse=True)
        return {
            "truth.positions": self._surface.positions[:, used].contiguous(),
            "truth.rotations": self._surface.rotations[:, used].contiguous(),
            "truth.object": torch.from_numpy(self._surface.object)[used].long(),
            "truth.binding": binding,
            "motion.key_frames": self._keys,
        }

    def header(self) -> dict[str, Any]:
        return {"canonical": self._canonical}

    @classmethod
    def from_tensors(cls: type[Self], tensors: dict[str, Tensor], header: dict[str, Any]) -> Self:
        stored = StoredTensors(tensors)
        keys = stored.increasing("motion.key_frames")
        positions = stored.floats("truth.positions", len(keys), None, 3)
        count = positions.shape[1]
        rotations = stored.floats("truth.rotations", len(keys), count, 3, 3)
        surface = TrueSurface(positions, rotations, tensors["truth.object"].numpy())
        binding = stored.indices("truth.binding", None, below=max(count, 1))
        bound = torch.ones(len(binding), dtype=torch.bool)
        return cls(surface, binding, bound, int(header["canonical"]), keys)


def _of_frames(scene: TrackedScene) -> TrueSurface:
    """Return the truth at the key frames of a fit."""
    if not _TRUTH:
        raise InputError("true motion: expected `use_truth` to name the scene before the fit")
    (surface,) = _TRUTH
    index = torch.as_tensor(scene.key_frames).long()
    return TrueSurface(surface.positions[index], surface.rotations[index], surface.object)


@register_motion("true-patterns")
class TruePatterns(MotionField):
    """The hierarchy that explains true trajectories best; it is not changed by a fit."""

    @classmethod
    def from_tracks(cls, scene: TrackedScene, config: MotionConfig) -> TrackedMotion:
        """Build the hierarchy from true trajectories, and refine it on them by Adam."""
        known = TrueMotion.from_tracks(scene, config)
        motion = known.motion
        assert isinstance(motion, TrueMotion)
        xyz = motion.positions(known.points, motion.key_frames).transpose(0, 1)
        tracks = scene.tracks
        everywhere = np.ones(tracks.visible.shape)
        true = LiftedTracks(
            xyz.double().numpy(), everywhere > 0, everywhere, tracks.object, tracks.xy
        )
        built = super().from_tracks(
            TrackedScene(true, scene.canonical, scene.key_frames, seed=scene.seed), config
        )
        points = known.points.clone()
        fit_to_trajectories(built.motion, points, xyz, _PATTERN_STEPS)
        return TrackedMotion(built.motion, points, known.weights)

    def learning_rates(self, rates: MotionLearningRates) -> dict[str, float]:
        return dict.fromkeys(super().learning_rates(rates), 0.0)

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        return {}


def fit_to_trajectories(
    motion: Motion,
    points: Float[Tensor, "tracks 3"],
    true: Float[Tensor, "tracks frames 3"],
    steps: int,
    weights: Float[Tensor, "tracks frames"] | None = None,
) -> None:
    """Minimise the distances of moved points from trajectories over a motion's parameters.

    The points stay as they are; the motion is changed in place, and is never worse than it was.
    Regularisers of the motion have the weights of a fit to tracks (`prefit.py`) where some
    positions are not known.
    """
    loss = LossConfig()
    parameters = motion.shared_parameters() | motion.gaussian_parameters()
    values = [value for value in parameters.values() if value.numel()]
    best, kept = float("inf"), [value.detach().clone() for value in values]
    optimiser = torch.optim.Adam(values, lr=2e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.02 ** (1 / steps))
    for step in range(steps + 1):
        moved = motion.positions(points, motion.key_frames).transpose(0, 1)
        distance = (moved - true).square().sum(-1).add(1e-10).sqrt()
        error = distance.mean()
        if weights is not None:
            error = (weights * distance).sum() / weights.sum()
            terms = motion.regularisers().items()
            error = error + sum(loss.weight_of(name, 1.0) * value for name, value in terms)
        if error.item() < best:
            best, kept = error.item(), [value.detach().clone() for value in values]
        if step == steps:
            break
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        for value, before in zip(values, kept, strict=True):
            value.copy_(before)
    optimiser.zero_grad()
