"""The motion hierarchy as a motion model: shared patterns and blend weights per Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict, TypeVar

import msgspec
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from msdyn.errors import InputError
from msdyn.geometry import Similarity, sixd_from_rotations
from msdyn.motion.config import KeyInterpolation, MotionConfig
from msdyn.motion.hierarchy import build_hierarchy
from msdyn.motion.joint_refinement import refine_levels
from msdyn.motion.keys import KeyTimes
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.patterns import MAX_PATTERNS, MotionHierarchy
from msdyn.motion.protocol import (
    Motion,
    MotionLearningRates,
    Pose,
    TrackedMotion,
    TrackedScene,
)
from msdyn.motion.registry import register_motion
from msdyn.motion.weights import BlendWeights, weights_from_votes
from msdyn.reading import StoredTensors, as_schema
from msdyn.scene import IGNORE

__all__ = ["MotionField"]

_LEVEL_NAMES = ("objects (L1)", "primitives (L2)", "grains (L3)")


class _Header(TypedDict):
    levels: Annotated[int, msgspec.Meta(ge=1, le=3)]
    key_interpolation: NotRequired[KeyInterpolation]  # linear, as before there was any other


class _Level(NamedTuple):
    """The tensors of a level, see `PatternField`."""

    centres: Tensor
    sixd: Tensor
    translations: Tensor
    parents: Tensor


Self = TypeVar("Self", bound="MotionField")


@register_motion("hierarchy")
class MotionField(Motion):
    """Patterns on composed levels, blended for every Gaussian.

    Attributes:
        patterns: shared by all Gaussians.
        max_patterns: on each level, the maximum number of patterns blended for a Gaussian.
        residual: [G, T, 3] free displacement of each Gaussian at every key frame, applied in the
            canonical frame before all levels; None without this level.
    """

    residual: nn.Parameter | None

    def __init__(
        self,
        patterns: PatternField,
        weights: Sequence[BlendWeights],
        residual: Float[Tensor, "gaussians keys 3"] | None = None,
        max_patterns: Sequence[int] = MAX_PATTERNS,
    ) -> None:
        super().__init__()
        self.patterns = patterns
        self.max_patterns = tuple(max_patterns)
        self.logits = nn.ParameterList([_parameter(w.logits) for w in weights])
        for level, own in enumerate(weights):
            self.register_buffer(f"index_{level}", own.index)
        self.register_parameter("residual", None if residual is None else _parameter(residual))

    @classmethod
    def build(cls, scene: TrackedScene, config: MotionConfig) -> MotionHierarchy:
        """Return the hierarchy from which `from_tracks` initialises."""
        hierarchy = build_hierarchy(
            scene.tracks,
            scene.canonical,
            levels=min(config.levels, 3),
            k_primitive=config.k_primitive,
            k_grain=config.k_grain,
            seed=scene.seed,
            surfaces=scene.surfaces(),
        )
        if config.joint_refinement == "off" or scene.camera_centres is None:
            return hierarchy
        times = np.asarray(scene.key_frames, float)
        return refine_levels(hierarchy, scene.tracks, scene.camera_centres, times, seed=scene.seed)

    @classmethod
    def from_tracks(cls, scene: TrackedScene, config: MotionConfig) -> TrackedMotion:
        """Build the hierarchy from tracks; each track follows its own pattern on every level."""
        hierarchy = cls.build(scene, config)
        patterns = PatternField.from_hierarchy(
            hierarchy, torch.as_tensor(scene.key_frames), config.key_interpolation
        )
        votes = [torch.eye(len(v))[torch.from_numpy(v.labels)] for v in hierarchy.levels]
        parents = [patterns.parents(level) for level in range(patterns.num_levels)]
        weights = weights_from_votes(votes, parents, hierarchy.max_patterns)
        return TrackedMotion(
            cls(patterns, weights, max_patterns=hierarchy.max_patterns),
            torch.from_numpy(hierarchy.points).float(),
            torch.from_numpy(hierarchy.weights).float(),
        )

    def __len__(self) -> int:
        return len(self.get_buffer("index_0"))

    @property
    def key_frames(self) -> Float[Tensor, " keys"]:
        return self.patterns.key_frames

    @property
    def num_levels(self) -> int:
        return self.patterns.num_levels + (self.residual is not None)

    @property
    def level_names(self) -> tuple[str, ...]:
        names = _LEVEL_NAMES[: self.patterns.num_levels]
        return names if self.residual is None else (*names, "residual (L4)")

    @property
    def weights(self) -> list[BlendWeights]:
        """The blend weights of each level."""
        return [
            BlendWeights(self.get_buffer(f"index_{level}"), logits)
            for level, logits in enumerate(self.logits)
        ]

    def groups(self, level: int) -> Int[Tensor, " gaussians"]:
        return self.weights[min(level, self.patterns.num_levels - 1)].dominant()

    def pose(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        frames: Float[Tensor, " times"],
        levels: int | None = None,
    ) -> Pose:
        return self._pose(points, quats_wxyz, self.patterns.times(frames), levels)

    def pose_at_keys(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        numbers: Int[Tensor, " times"],
    ) -> Pose:
        return self._pose(points, quats_wxyz, KeyTimes.at_keys(numbers), None)

    def _pose(
        self,
        points: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        times: KeyTimes,
        levels: int | None,
    ) -> Pose:
        pose = self.patterns.pose(points, quats_wxyz, self.weights, times, levels)
        if self.residual is None or not (levels is None or levels >= self.num_levels):
            return pose
        displacement = times.interpolate(self.residual).transpose(0, 1)
        return pose._replace(
            means=pose.means + (pose.rotations @ displacement.unsqueeze(-1)).squeeze(-1)
        )

    def undo(
        self, points: Float[Tensor, "gaussians 3"], frame: float
    ) -> Float[Tensor, "gaussians 3"]:
        points = self.patterns.undo(points, self.weights, frame)
        if self.residual is None:
            return points
        frames = torch.full((1,), frame, dtype=points.dtype, device=points.device)
        return points - self.patterns.times(frames).interpolate(self.residual)[:, 0]

    def gaussian_parameters(self) -> dict[str, nn.Parameter]:
        parameters: dict[str, nn.Parameter] = {
            f"logits_{level}": logits for level, logits in enumerate(self.logits)
        }
        return parameters if self.residual is None else {**parameters, "residual": self.residual}

    def gaussian_constants(self) -> dict[str, Shaped[Tensor, "gaussians ..."]]:
        names = [f"index_{level}" for level in range(len(self.logits))]
        return {name: self.get_buffer(name) for name in names}

    def set_gaussians(
        self,
        parameters: dict[str, nn.Parameter],
        constants: dict[str, Shaped[Tensor, "gaussians ..."]],
    ) -> None:
        for level in range(len(self.logits)):
            self.logits[level] = parameters[f"logits_{level}"]
            setattr(self, f"index_{level}", constants[f"index_{level}"])
        self.residual = parameters.get("residual")

    def with_gaussians(
        self: Self,
        parameters: dict[str, Float[Tensor, "gaussians ..."]],
        constants: dict[str, Shaped[Tensor, "gaussians ..."]],
    ) -> Self:
        weights = [
            BlendWeights(constants[f"index_{level}"], parameters[f"logits_{level}"])
            for level in range(len(self.logits))
        ]
        return type(self)(self.patterns, weights, parameters.get("residual"), self.max_patterns)

    def mixed(
        self: Self,
        index: Int[Tensor, "points near"],
        weights: Float[Tensor, "points near"],
    ) -> Self:
        patterns = self.patterns
        votes = []
        for level, own in enumerate(self.weights):
            dense = own.dense(patterns.num_patterns(level)).detach()
            votes.append((weights.unsqueeze(-1) * dense[index]).sum(1))
        parents = [patterns.parents(level) for level in range(patterns.num_levels)]
        mixed_weights = weights_from_votes(votes, parents, self.max_patterns)
        return type(self)(patterns, mixed_weights, max_patterns=self.max_patterns)

    def learning_rates(self, rates: MotionLearningRates) -> dict[str, float]:
        lrs = {}
        for name in (*self.gaussian_parameters(), *self.shared_parameters()):
            lrs[name] = rates.translations
            if name.startswith("logits"):
                lrs[name] = rates.gaussian
            elif name.startswith("patterns.sixd"):
                lrs[name] = rates.rotations
        return lrs

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """Return the acceleration of the patterns, and the magnitude of all residual motion."""
        size = self.patterns.residual_size()
        if self.residual is not None:
            size = size + _residual_size(self.residual)
        return {"smooth": self.patterns.acceleration(), "residual": size}

    def extended(self: Self, config: MotionConfig) -> Self:
        """Return the motion with time-varying weights, or a residual, if the options have them."""
        weights, keys = self.weights, len(self.key_frames)
        if config.weights == "time-varying":
            # Copied, because an expanded view would share memory.
            weights = [
                BlendWeights(w.index, w.logits.detach()[..., None].repeat(1, 1, keys))
                for w in weights
            ]
        residual = torch.zeros(len(self), keys, 3) if self._has_residual(config) else None
        return type(self)(self.patterns, weights, residual, self.max_patterns)

    @staticmethod
    def _has_residual(config: MotionConfig) -> bool:
        return config.levels == 4

    def rescaled(self: Self, world: Similarity) -> Self:
        residual = None if self.residual is None else self.residual.detach() * world.scale
        weights = [BlendWeights(w.index, w.logits.detach().clone()) for w in self.weights]
        return type(self)(self.patterns.rescaled(world), weights, residual, self.max_patterns)

    @torch.no_grad()
    def retimed(
        self: Self, own: Bool[Tensor, " gaussians"], frames: Float[Tensor, " keys"]
    ) -> Self:
        patterns, times = self.patterns, self.patterns.times(frames)
        sixd = [value.detach().clone() for value in patterns.sixd]
        translations = [value.detach().clone() for value in patterns.translations]
        weights = []
        for level, blend in enumerate(self.weights):
            used = _patterns_in_use(blend, own)
            if torch.isin(used, _patterns_in_use(blend, ~own)).any():
                raise InputError(
                    "it shares motion patterns with another object; only objects that share "
                    "none can be retimed"
                )
            moved = patterns.at(level, frames)  # [K, T]
            sixd[level][used] = sixd_from_rotations(moved.rotation)[used]
            translations[level][used] = moved.translation[used]
            logits = blend.logits.detach().clone()
            if blend.varies:
                warped = times.interpolate(logits[own].transpose(1, 2))  # [G, T, k]
                logits[own] = warped.transpose(1, 2)
            weights.append(BlendWeights(blend.index, logits))
        residual = self.residual
        if residual is not None:
            residual = residual.detach().clone()
            residual[own] = times.interpolate(residual[own])
        retimed = patterns.with_poses(sixd, translations)
        return type(self)(retimed, weights, residual, self.max_patterns)

    def header(self) -> dict[str, Any]:
        interpolation = self.patterns.interpolation
        cubic = {"key_interpolation": interpolation} if interpolation != "linear" else {}
        return {"levels": self.patterns.num_levels, **cubic}

    def tensors(self) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        patterns = self.patterns
        for level, weights in enumerate(self.weights):
            result[f"motion.{level}.centres"] = patterns.centres(level)
            result[f"motion.{level}.sixd"] = patterns.sixd[level]
            result[f"motion.{level}.translations"] = patterns.translations[level]
            result[f"motion.{level}.parents"] = patterns.parents(level)
            result[f"blend.{level}.index"] = weights.index
            result[f"blend.{level}.logits"] = weights.logits
        if self.residual is not None:
            result["residual"] = self.residual
        return result | {
            "motion.key_frames": patterns.key_frames,
            "motion.objects": patterns.objects,
        }

    @classmethod
    def from_tensors(cls: type[Self], tensors: dict[str, Tensor], header: dict[str, Any]) -> Self:
        own = as_schema(header, _Header, "header")
        count = own["levels"]
        stored = StoredTensors(tensors)
        keys = stored.increasing("motion.key_frames")
        levels = [_stored_level(stored, level, len(keys)) for level in range(count)]
        patterns = PatternField(
            *([level[i] for level in levels] for i in range(4)),
            key_frames=keys,
            objects=stored.indices("motion.objects", len(levels[0].centres), below=IGNORE),
            interpolation=own.get("key_interpolation", "linear"),
        )
        weights = [
            _stored_weights(stored, number, len(level.centres), len(keys))
            for number, level in enumerate(levels)
        ]
        residual = None
        if "residual" in tensors:
            residual = stored.floats("residual", len(weights[0].index), len(keys), 3)
        return cls(patterns, weights, residual)


def _stored_level(stored: StoredTensors, level: int, keys: int) -> _Level:
    """Return the patterns of a level of a file, checked."""
    name = f"motion.{level}."
    centres = stored.floats(f"{name}centres", None, 3)
    count = len(centres)
    coarser = max(1, count)  # the first level has no parents, whatever is stored
    if level > 0:
        coarser = len(stored.floats(f"motion.{level - 1}.centres", None, 3))
    return _Level(
        centres,
        stored.floats(f"{name}sixd", count, keys, 6),
        stored.floats(f"{name}translations", count, keys, 3),
        stored.indices(f"{name}parents", count, below=coarser),
    )


def _stored_weights(stored: StoredTensors, level: int, patterns: int, keys: int) -> BlendWeights:
    """Return the blend weights of a level of a file, checked."""
    name = f"blend.{level}."
    index = stored.indices(f"{name}index", None, None, below=patterns)
    varies = stored.dimensions(f"{name}logits") == 3
    logits = stored.floats(f"{name}logits", *index.shape, *((keys,) if varies else ()))
    return BlendWeights(index, logits)


def _parameter(values: Float[Tensor, "*_"]) -> nn.Parameter:
    return values if isinstance(values, nn.Parameter) else nn.Parameter(values)


def _patterns_in_use(
    weights: BlendWeights, chosen: Bool[Tensor, " gaussians"]
) -> Int[Tensor, " patterns"]:
    """Return the patterns with a non-negligible weight for the chosen Gaussians."""
    values = weights.values.amax(-1) if weights.varies else weights.values
    return weights.index[chosen][values[chosen] > 1e-6].unique()


def _residual_size(residual: Float[Tensor, "gaussians keys 3"]) -> Float[Tensor, ""]:
    """Return the RMS of free displacements plus that of their second differences."""
    size = (residual.square().mean() + 1e-12).sqrt()
    if residual.shape[1] < 3:
        return size
    second = residual[:, 2:] - 2 * residual[:, 1:-1] + residual[:, :-2]
    return size + (second.square().mean() + 1e-12).sqrt()
