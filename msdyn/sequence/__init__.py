"""Gaussians and Gaussian sequences."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.sequence.articulation import ArticulatedObject, Body, articulated_objects
    from msdyn.sequence.choice import PartSelection, SequenceSource, TimeSelection, parse_times
    from msdyn.sequence.edit import retime_object, without_objects
    from msdyn.sequence.exposure import Exposure
    from msdyn.sequence.gaussians import Gaussians, PosedGaussians, keep_objects
    from msdyn.sequence.levels import motion_by_level
    from msdyn.sequence.objects import (
        living_weights,
        object_centres,
        object_motions,
        object_poses,
    )
    from msdyn.sequence.parts import RigidPart, RigidParts, rigid_parts
    from msdyn.sequence.sequence import GaussianSequence
    from msdyn.sequence.storage import load_sequence, save_sequence

__all__ = [
    "ArticulatedObject",
    "Body",
    "Exposure",
    "GaussianSequence",
    "Gaussians",
    "PartSelection",
    "PosedGaussians",
    "RigidPart",
    "RigidParts",
    "SequenceSource",
    "TimeSelection",
    "articulated_objects",
    "keep_objects",
    "living_weights",
    "load_sequence",
    "motion_by_level",
    "object_centres",
    "object_motions",
    "object_poses",
    "parse_times",
    "retime_object",
    "rigid_parts",
    "save_sequence",
    "without_objects",
]

__getattr__ = lazy_names(
    __name__,
    {
        "articulation": (
            "ArticulatedObject",
            "Body",
            "articulated_objects",
        ),
        "choice": (
            "PartSelection",
            "SequenceSource",
            "TimeSelection",
            "parse_times",
        ),
        "edit": (
            "retime_object",
            "without_objects",
        ),
        "exposure": ("Exposure",),
        "gaussians": (
            "Gaussians",
            "PosedGaussians",
            "keep_objects",
        ),
        "levels": ("motion_by_level",),
        "objects": (
            "living_weights",
            "object_centres",
            "object_motions",
            "object_poses",
        ),
        "parts": (
            "RigidPart",
            "RigidParts",
            "rigid_parts",
        ),
        "sequence": ("GaussianSequence",),
        "storage": (
            "load_sequence",
            "save_sequence",
        ),
    },
)
